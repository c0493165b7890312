//! Identities: one registry, append-only. A number that means two things is two types.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The program on one host: 128 bits chosen by the collector at enrolment, printed as 32 hex digits.
/// It is the subject of the agent's certificate and nothing else identifies an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(pub [u8; 16]);

impl AgentId {
    /// Reads 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut id = [0; 16];
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(id))
    }

    /// How the id stands in a certificate, as its only URI: `urn:peil:agent:` and 32 hex digits.
    pub fn urn(self) -> String {
        format!("{AGENT_URN}{self}")
    }

    /// Reads what [`AgentId::urn`] writes, and nothing else.
    pub fn from_urn(text: &str) -> Option<Self> {
        Self::parse(text.strip_prefix(AGENT_URN)?)
    }
}

const AGENT_URN: &str = "urn:peil:agent:";

impl fmt::Display for AgentId {
    /// In one piece: a snapshot prints an id per vantage, and sixteen formatted bytes showed in its cost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for AgentId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A generation of an agent's spool: random, made when the spool directory is made. A wiped spool
/// gets a new one, so its sequence 1 is not taken for an old record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How far an agent's numbering jumps when the end of its spool cannot be read back, so that no number is
/// ever given to two records. A hole of this size is a jump, not a loss; what was lost is told by a Gap.
pub const SEQ_JUMP: u64 = 1 << 20;

/// Position of a record within an epoch: dense, from 1, but for jumps of [`SEQ_JUMP`]. 0 means "none yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The one after.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number the collector gave a check; stands in every sample instead of its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckNo(pub u32);

impl fmt::Display for CheckNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_id_reads_back_as_it_was_printed() {
        let id = AgentId([0xab; 16]);
        assert_eq!(AgentId::parse(&id.to_string()), Some(id));
        assert_eq!(AgentId::from_urn(&id.urn()), Some(id));
        assert_eq!(AgentId::from_urn(&id.to_string()), None);
        assert_eq!(AgentId::parse("ab"), None);
        assert_eq!(AgentId::parse("zz".repeat(16).as_str()), None);
    }
}
