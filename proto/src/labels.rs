//! Labels of a host: what it is for, in the words of whoever runs it (`role = "web"`).
//!
//! The host says them (`[labels]` of its settings), the collector keeps the newest, and a check may ask for some of them.
//! They choose who looks; no figure depends on them.
//!
//! Limits: [`LABELS_MAX`] of them, names of 1 to [`NAME_CHARS_MAX`] characters `a-z 0-9 _ . -`, values of 1 to
//! [`VALUE_CHARS_MAX`] characters without control characters. What goes beyond is refused with its name.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::settings::Fields;

/// Labels one host may have; also what a check may ask for. More is refused.
pub const LABELS_MAX: usize = 32;
/// Characters of a name; a longer one is refused.
pub const NAME_CHARS_MAX: usize = 63;
/// Characters of a value; a longer one is refused.
pub const VALUE_CHARS_MAX: usize = 128;

/// Names with their values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Takes every key of a table; each mistake is told with its line.
    pub fn read(mut fields: Fields<'_>) -> Self {
        let mistakes = fields.mistakes();
        let mut labels = BTreeMap::new();
        for entry in fields.rest() {
            let Some(value) = entry.node.as_str(mistakes) else { continue };
            match problem(&entry.key, value) {
                Some(problem) => mistakes.add(entry.line, format!("label {:?} {problem}", entry.key)),
                None => drop(labels.insert(entry.key, value.to_owned())),
            }
        }
        if labels.len() > LABELS_MAX {
            fields.refuse(format_args!("has {} labels; at most {LABELS_MAX} are kept", labels.len()));
        }
        Self(labels)
    }

    /// Labels that came over the wire, or from the database.
    ///
    /// # Errors
    /// What is wrong with the first that is none, or that there are too many.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let labels: BTreeMap<_, _> = pairs.into_iter().take(LABELS_MAX + 1).collect();
        if labels.len() > LABELS_MAX {
            return Err(format!("more than {LABELS_MAX} labels"));
        }
        let wrong = labels.iter().find_map(|(name, value)| Some((name, problem(name, value)?)));
        match wrong {
            Some((name, problem)) => Err(format!("label {name:?} {problem}")),
            None => Ok(Self(labels)),
        }
    }

    /// Names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether every one of `wanted` is among them, with the same value.
    pub fn have_all(&self, wanted: &Self) -> bool {
        wanted.0.iter().all(|(name, value)| self.0.get(name) == Some(value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `env=prod role=web`
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{name}={value}")?;
        }
        Ok(())
    }
}

fn problem(name: &str, value: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    let chars = value.chars().count();
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(allowed) {
        Some("must have a name of 1 to 63 characters a-z, 0-9, \"_\", \".\" and \"-\"")
    } else if chars == 0 || chars > VALUE_CHARS_MAX || value.chars().any(char::is_control) {
        Some("must have a value of 1 to 128 characters without control characters")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Document, Mistakes};

    fn read(text: &str) -> Result<Labels, String> {
        let mistakes = Mistakes::new("agent.toml");
        let labels = Labels::read(Document::toml(text, &mistakes).fields(&mistakes));
        mistakes.into_result(labels).map_err(|refused| refused.to_string())
    }

    fn of(pairs: &[(&str, &str)]) -> Result<Labels, String> {
        Labels::from_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn every_bad_label_is_told_with_its_line_in_one_answer() {
        let refused = read("role = 'web'\nRole = 'web'\nempty = ''\nrack = 4\n").expect_err("three mistakes");
        for part in ["label \"Role\"", "label \"empty\"", "rack"] {
            assert!(refused.contains(part), "{part} in {refused}");
        }
        assert!(!refused.contains("\"role\""), "{refused}");
        let many: String = (0..33).map(|no| format!("l{no} = 'x'\n")).collect();
        assert!(read(&many).expect_err("too many").contains("at most 32"));
        assert_eq!(read("role = 'web'\nenv = 'prod'\n").expect("good").to_string(), "env=prod role=web");
    }

    #[test]
    fn what_comes_over_the_wire_has_the_same_limits() {
        assert!(of(&[("role", "web"), ("env", "prod")]).is_ok());
        for (name, value) in [("", "x"), ("A", "x"), ("a", ""), ("a", "x\ny"), ("a", &"x".repeat(129))] {
            assert!(of(&[(name, value)]).is_err(), "{name:?} {value:?}");
        }
        let many = (0..40).map(|no| (format!("l{no}"), "x".to_owned()));
        assert!(Labels::from_pairs(many).is_err());
    }

    #[test]
    fn a_host_fits_when_it_has_every_label_that_is_asked_for() {
        let host = of(&[("role", "web"), ("env", "prod")]).expect("good");
        let fits = |wanted: &[(&str, &str)]| host.have_all(&of(wanted).expect("good"));
        assert!(fits(&[]) && fits(&[("role", "web")]) && fits(&[("env", "prod"), ("role", "web")]));
        assert!(!fits(&[("role", "db")]) && !fits(&[("role", "web"), ("rack", "4")]));
    }
}
