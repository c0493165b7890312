//! `udp`: sends one datagram and expects an answer.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `address` | `host:port` | required |
//! | `send` | text, at most 1200 bytes; or `send_hex`, the same in hexadecimal | empty |
//! | `expect` | pattern an answer must match; the first answer decides | any answer |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! A service that never answers cannot be told from one that is gone, so an answer is always needed.
//!
//! Fails with: `no_such_name`, `timeout`, `refused` (port unreachable), `unreachable`, `content`.

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, Pattern, address_problem};
use crate::settings::Fields;

/// Bytes of the datagram: fits a path of 1280 bytes, the least of IPv6.
const SEND_BYTES_MAX: usize = 1_200;

/// Options of a `udp` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Udp {
    /// `host:port`; IPv6 in brackets.
    pub address: String,
    /// Text to send.
    pub send: Option<String>,
    /// Bytes to send, in hexadecimal.
    pub send_hex: Option<String>,
    /// What the answer must match.
    pub expect: Option<Pattern>,
    /// Which addresses are used.
    pub family: Family,
}

impl Udp {
    /// The bytes to send; `None` when `send_hex` is not hexadecimal.
    pub fn datagram(&self) -> Option<Vec<u8>> {
        match (&self.send, &self.send_hex) {
            (_, Some(hex)) => data_encoding::HEXLOWER_PERMISSIVE.decode(hex.replace(' ', "").as_bytes()).ok(),
            (text, None) => Some(text.clone().unwrap_or_default().into_bytes()),
        }
    }
}

impl Options for Udp {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        let mut found: Vec<_> = address_problem(&self.address).into_iter().collect();
        found.extend(self.expect.iter().filter_map(|pattern| pattern.problem("expect")));
        if self.send.is_some() && self.send_hex.is_some() {
            found.push("send and send_hex exclude each other".to_owned());
        }
        match self.datagram() {
            None => found.push("send_hex is not hexadecimal".to_owned()),
            Some(bytes) if bytes.len() > SEND_BYTES_MAX => {
                found.push(format!("{} bytes to send; the most is {SEND_BYTES_MAX}", bytes.len()));
            }
            Some(_) => {}
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let address = fields.need_str("address");
        let (send, send_hex) = (fields.str("send"), fields.str("send_hex"));
        let (expect, family) = (Pattern::read(fields, "expect"), Family::read(fields));
        Some(Self { address: address?, send, send_hex, expect, family })
    }
}
