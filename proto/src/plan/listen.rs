//! `listen`: whether something listens on a port of the agent's host, without connecting to it.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `socket` | `tcp/443`, `udp/53`, or with the address it is bound to: `tcp/127.0.0.1:5432`, `tcp/[::]:22` | required |
//!
//! Fails with: `refused` (nobody listens).

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::options::Options;
use crate::settings::Fields;

/// Options of a `listen` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// `tcp/443`.
    pub socket: String,
}

/// What `socket` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAt {
    /// UDP; else TCP.
    pub udp: bool,
    /// The address it must be bound to; any when absent.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl Listen {
    /// The socket in its parts; `None` when it is not written as one.
    pub fn at(&self) -> Option<ListenAt> {
        let (protocol, rest) = self.socket.split_once('/')?;
        let udp = match protocol {
            "tcp" => false,
            "udp" => true,
            _ => return None,
        };
        if let Ok(bound) = rest.parse::<SocketAddr>() {
            return (bound.port() != 0).then_some(ListenAt { udp, address: Some(bound.ip()), port: bound.port() });
        }
        let port = rest.parse().ok().filter(|port| *port != 0)?;
        Some(ListenAt { udp, address: None, port })
    }
}

impl Options for Listen {
    const TARGET_KEY: &'static str = "socket";

    fn target(&self) -> &str {
        &self.socket
    }

    fn problems(&self) -> Vec<String> {
        let wrong = self.at().is_none();
        let text = || format!("socket {:?} must be written like \"tcp/443\" or \"udp/127.0.0.1:53\"", self.socket);
        wrong.then(text).into_iter().collect()
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { socket: fields.need_str("socket")? })
    }
}
