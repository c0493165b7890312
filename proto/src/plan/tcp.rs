//! `tcp`: connects to `host:port` and, when asked, holds a dialogue.
//!
//! | option | unit, values | standard |
//! |---|---|---|
//! | `address` | `host:port` | required |
//! | `preset` | `smtp`, `imap`, `pop3`, `ftp`, `ssh`: a dialogue that greets and leaves politely | none |
//! | `dialogue` | steps, at most 64, instead of a preset | none: the connection alone is asked |
//! | `starttls` | with a preset: go over to TLS in the middle and greet again | false |
//! | `implicit_tls` | TLS from the first byte (ports 465, 993, 995) | false |
//! | `server_name`, `ca_file`, `cert_days_min`, … | see [`TlsOptions`]; need one of the two above, or a step | |
//! | `family` | `any`, `4`, `6`, `both` | `any` |
//!
//! A step is one of: `{ expect = "^220 ", fail = "^[45]" }` (reads lines until one matches `expect`; one that matches
//! `fail` first ends the check), `{ send = "EHLO ${1}\r\n" }` (`${1}` and `${name}` are groups of the last `expect`),
//! `{ send_file = "/etc/peil/secrets/login" }` (the same, from a secret), `{ starttls = true }`.
//!
//! Fails with: `no_such_name`, `refused`, `timeout`, `unreachable`, `closed`; with a dialogue also `content` (a line
//! matched `fail`), `protocol` (a line over 8 KiB, or 64 KiB without the expected one); with TLS as `tls` does.

use serde::{Deserialize, Serialize};

use super::options::{Family, Options, Pattern, SecretRef, TlsOptions, address_problem};
use crate::settings::Fields;

/// Steps a dialogue may have.
const STEPS_MAX: usize = 64;

/// Options of a `tcp` check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tcp {
    /// `host:port`; IPv6 in brackets.
    pub address: String,
    /// A dialogue that everybody means alike.
    pub preset: Option<Preset>,
    /// A dialogue of one's own.
    pub dialogue: Vec<Step>,
    /// With a preset: go over to TLS in mid-dialogue.
    pub starttls: bool,
    /// Speak TLS from the first byte.
    pub implicit_tls: bool,
    /// How TLS is spoken.
    pub tls: TlsOptions,
    /// Which addresses are used.
    pub family: Family,
}

/// A dialogue that everybody means alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Greeting, EHLO, QUIT (RFC 5321); STARTTLS (RFC 3207).
    Smtp,
    /// Greeting, LOGOUT (RFC 9051); STARTTLS.
    Imap,
    /// Greeting, QUIT (RFC 1939); STLS (RFC 2595).
    Pop3,
    /// Greeting, QUIT (RFC 959); AUTH TLS (RFC 4217).
    Ftp,
    /// Identification strings of both sides (RFC 4253); no TLS.
    Ssh,
}

/// One step of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Step {
    /// Read lines until one matches.
    Expect {
        /// The line that ends the step. Its groups can stand in what is sent next.
        line: Pattern,
        /// A line that ends the check.
        fail: Option<Pattern>,
    },
    /// Send this text, after its `${…}` have been filled in.
    Send(String),
    /// Send what stands in a secret, as it is.
    SendFile(SecretRef),
    /// Go over to TLS.
    StartTls,
}

impl Preset {
    /// Its steps; `starttls` puts the change to TLS in the middle.
    pub fn steps(self, starttls: bool) -> Vec<Step> {
        let expect = |line: &str, fail: &str| Step::Expect { line: Pattern::new(line), fail: Some(Pattern::new(fail)) };
        let send = |text: &str| Step::Send(text.to_owned());
        let with_tls = |upgrade: Vec<Step>| if starttls { upgrade } else { Vec::new() };
        let numbered = "^[45][0-9][0-9]";
        let hello = || vec![send("EHLO peil.invalid\r\n"), expect("^250(?: |$)", numbered)];
        let parts = match self {
            Self::Smtp => [
                vec![expect("^220(?: |$)", numbered)].into_iter().chain(hello()).collect(),
                with_tls(
                    [send("STARTTLS\r\n"), expect("^220(?: |$)", numbered), Step::StartTls]
                        .into_iter()
                        .chain(hello())
                        .collect(),
                ),
                vec![send("QUIT\r\n"), expect("^221(?: |$)", numbered)],
            ],
            Self::Imap => [
                vec![expect(r"^\* (?:OK|PREAUTH)\b", r"^\* BYE\b")],
                with_tls(vec![send("p1 STARTTLS\r\n"), expect("^p1 OK", "^p1 (?:NO|BAD)"), Step::StartTls]),
                vec![send("p2 LOGOUT\r\n"), expect("^p2 OK", "^p2 (?:NO|BAD)")],
            ],
            Self::Pop3 => [
                vec![expect(r"^\+OK", "^-ERR")],
                with_tls(vec![send("STLS\r\n"), expect(r"^\+OK", "^-ERR"), Step::StartTls]),
                vec![send("QUIT\r\n"), expect(r"^\+OK", "^-ERR")],
            ],
            Self::Ftp => [
                vec![expect("^220(?: |$)", numbered)],
                with_tls(vec![send("AUTH TLS\r\n"), expect("^234(?: |$)", numbered), Step::StartTls]),
                vec![send("QUIT\r\n"), expect("^221(?: |$)", numbered)],
            ],
            Self::Ssh => [
                vec![Step::Expect { line: Pattern::new(r"^SSH-(?:2\.0|1\.99)-"), fail: None }],
                Vec::new(),
                vec![send(concat!("SSH-2.0-peil_", env!("CARGO_PKG_VERSION"), "\r\n"))],
            ],
        };
        parts.into_iter().flatten().collect()
    }
}

impl Tcp {
    /// The steps of the preset or of the dialogue; none when the connection alone is asked.
    pub fn steps(&self) -> Vec<Step> {
        match self.preset {
            Some(preset) => preset.steps(self.starttls),
            None => self.dialogue.clone(),
        }
    }

    fn speaks_tls(&self) -> bool {
        self.implicit_tls || self.starttls || self.dialogue.contains(&Step::StartTls)
    }
}

impl Options for Tcp {
    const TARGET_KEY: &'static str = "address";

    fn target(&self) -> &str {
        &self.address
    }

    fn problems(&self) -> Vec<String> {
        let mut found: Vec<_> = address_problem(&self.address).into_iter().chain(self.tls.problems()).collect();
        if self.preset.is_some() && !self.dialogue.is_empty() {
            found.push("preset and dialogue exclude each other".to_owned());
        }
        if self.starttls && (self.preset.is_none() || self.preset == Some(Preset::Ssh)) {
            found.push("starttls needs a preset that knows it; in a dialogue it is a step".to_owned());
        }
        let upgrades = usize::from(self.implicit_tls) + self.steps().iter().filter(|s| **s == Step::StartTls).count();
        if upgrades > 1 {
            found.push("TLS can begin only once".to_owned());
        }
        if self.tls != TlsOptions::default() && !self.speaks_tls() {
            found.push("options of TLS mean nothing without implicit_tls, starttls or a starttls step".to_owned());
        }
        if self.dialogue.len() > STEPS_MAX {
            found.push(format!("{} steps; a dialogue has at most {STEPS_MAX}", self.dialogue.len()));
        }
        for step in &self.dialogue {
            match step {
                Step::Expect { line, fail } => {
                    found.extend(line.problem("expect"));
                    found.extend(fail.iter().filter_map(|fail| fail.problem("fail")));
                }
                Step::SendFile(secret) => found.extend(secret.problem("send_file")),
                Step::Send(_) | Step::StartTls => {}
            }
        }
        found
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let presets = [
            ("smtp", Some(Preset::Smtp)),
            ("imap", Some(Preset::Imap)),
            ("pop3", Some(Preset::Pop3)),
            ("ftp", Some(Preset::Ftp)),
            ("ssh", Some(Preset::Ssh)),
        ];
        let address = fields.need_str("address");
        let read = Self {
            address: String::new(),
            preset: fields.word_or("preset", &presets, None),
            dialogue: fields.tables("dialogue").into_iter().filter_map(read_step).collect(),
            starttls: fields.bool_or("starttls", false),
            implicit_tls: fields.bool_or("implicit_tls", false),
            tls: TlsOptions::read(fields),
            family: Family::read(fields),
        };
        Some(Self { address: address?, ..read })
    }
}

fn read_step(mut fields: Fields<'_>) -> Option<Step> {
    let line = Pattern::read(&mut fields, "expect");
    let fail = Pattern::read(&mut fields, "fail");
    let send = fields.str("send");
    let secret = SecretRef::read(&mut fields, "send_file");
    let starttls = fields.bool_or("starttls", false);
    let step = match (line, send, secret, starttls) {
        (Some(line), None, None, false) => Some(Step::Expect { line, fail }),
        (None, Some(text), None, false) if fail.is_none() => Some(Step::Send(text)),
        (None, None, Some(secret), false) if fail.is_none() => Some(Step::SendFile(secret)),
        (None, None, None, true) if fail.is_none() => Some(Step::StartTls),
        _ => {
            fields
                .refuse("is not a step: it must be one of expect (with fail or not), send, send_file, starttls = true");
            None
        }
    };
    fields.finish();
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_dialogue_that_can_be_held() {
        for preset in [Preset::Smtp, Preset::Imap, Preset::Pop3, Preset::Ftp, Preset::Ssh] {
            for starttls in [false, true] {
                let steps = preset.steps(starttls);
                assert!(matches!(steps[0], Step::Expect { .. }), "these servers speak first");
                assert_eq!(steps.contains(&Step::StartTls), starttls && preset != Preset::Ssh, "{preset:?}");
                let check = Tcp { address: "a:1".into(), dialogue: steps, ..Tcp::default() };
                assert_eq!(check.problems(), Vec::<String>::new());
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let good = Tcp { address: "a:1".into(), ..Tcp::default() };
        let two = Tcp { preset: Some(Preset::Ssh), dialogue: vec![Step::StartTls], ..good.clone() };
        assert_eq!(two.problems(), ["preset and dialogue exclude each other"]);
        assert_eq!(Tcp { starttls: true, ..good.clone() }.problems().len(), 1);
        let twice = Tcp { implicit_tls: true, dialogue: vec![Step::StartTls], ..good.clone() };
        assert_eq!(twice.problems(), ["TLS can begin only once"]);
        let tls = TlsOptions { cert_days_min: Some(3), ..TlsOptions::default() };
        assert_eq!(Tcp { tls, ..good }.problems().len(), 1);
    }
}
