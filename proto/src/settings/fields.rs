//! A table as code reads it: what it knows is taken out, what is left was known to nobody.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use super::{Entry, Mistakes, Node, Value, child};

/// A table being read: each known key is taken out; [`Fields::finish`] refuses the rest.
pub struct Fields<'m> {
    /// Path of the table, empty for the root.
    pub path: String,
    /// Line on which the table starts.
    pub line: usize,
    pub(super) entries: Vec<Entry>,
    pub(super) asked: BTreeSet<String>,
    pub(super) mistakes: &'m Mistakes,
}

impl<'m> Fields<'m> {
    /// The mistakes this table reports to.
    pub fn mistakes(&self) -> &'m Mistakes {
        self.mistakes
    }

    /// Notes a mistake about the table itself.
    pub fn refuse(&self, what: impl fmt::Display) {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        self.mistakes.add(self.line, format!("{path} {what} at line {}", self.line));
    }

    /// Looks at the value of `key` without taking it.
    pub fn peek(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node.value)
    }

    /// Takes the value of `key`, if present. A JSON `null` is present: see [`Fields::take_some`].
    pub fn take(&mut self, key: &str) -> Option<Node> {
        self.asked.insert(key.to_owned());
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at).node)
    }

    /// Takes the value of `key`; absent and `null` are the same.
    pub fn take_some(&mut self, key: &str) -> Option<Node> {
        self.take(key).filter(|node| node.value != Value::Null)
    }

    /// Takes the value of `key`; its absence is a mistake.
    pub fn need(&mut self, key: &str) -> Option<Node> {
        let found = self.take(key);
        if found.is_none() {
            let path = child(&self.path, key);
            self.mistakes.add(self.line, format!("missing key \"{path}\" in the table at line {}", self.line));
        }
        found
    }

    /// A required string.
    pub fn need_str(&mut self, key: &str) -> Option<String> {
        let mistakes = self.mistakes;
        self.need(key)?.as_str(mistakes).map(str::to_owned)
    }

    /// An optional string.
    pub fn str(&mut self, key: &str) -> Option<String> {
        let mistakes = self.mistakes;
        self.take_some(key)?.as_str(mistakes).map(str::to_owned)
    }

    /// A string with a default.
    pub fn str_or(&mut self, key: &str, default: &str) -> String {
        self.str(key).unwrap_or_else(|| default.to_owned())
    }

    /// A required whole number within `range`.
    pub fn need_int(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let mistakes = self.mistakes;
        self.need(key)?.as_int(mistakes, range)
    }

    /// A whole number within `range`, with a default.
    pub fn int_or(&mut self, key: &str, range: RangeInclusive<i64>, default: i64) -> i64 {
        let mistakes = self.mistakes;
        self.take_some(key).and_then(|node| node.as_int(mistakes, range)).unwrap_or(default)
    }

    /// A flag with a default.
    pub fn bool_or(&mut self, key: &str, default: bool) -> bool {
        let mistakes = self.mistakes;
        self.take_some(key).and_then(|node| node.as_bool(mistakes)).unwrap_or(default)
    }

    /// One of a few words, with a default.
    pub fn word_or<T: Clone>(&mut self, key: &str, words: &[(&str, T)], default: T) -> T {
        let mistakes = self.mistakes;
        self.take_some(key).and_then(|node| node.as_word(mistakes, words)).unwrap_or(default)
    }

    /// A list of strings; absent is empty.
    pub fn strings(&mut self, key: &str) -> Vec<String> {
        let mistakes = self.mistakes;
        let items = self.take_some(key).map(|node| node.into_list(mistakes)).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str(mistakes).map(str::to_owned)).collect()
    }

    /// A sub-table, if present.
    pub fn table(&mut self, key: &str) -> Option<Fields<'m>> {
        let mistakes = self.mistakes;
        self.take_some(key).map(|node| node.fields(mistakes))
    }

    /// A list of tables (`[[key]]`); absent is empty.
    pub fn tables(&mut self, key: &str) -> Vec<Fields<'m>> {
        let mistakes = self.mistakes;
        let items = self.take_some(key).map(|node| node.into_list(mistakes)).unwrap_or_default();
        items.into_iter().map(|item| item.fields(mistakes)).collect()
    }

    /// All entries that were not taken yet, for tables whose keys are names (`checks`, `vantages`).
    pub fn rest(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Refuses by name whatever is left.
    pub fn finish(self) {
        for entry in &self.entries {
            let path = child(&self.path, &entry.key);
            let near = self.asked.iter().map(|known| (distance(known, &entry.key), known)).min();
            let hint = match near {
                Some((d, known)) if d <= 2 && d < known.chars().count() => {
                    format!(" (did you mean \"{}\"?)", child(&self.path, known))
                }
                _ => String::new(),
            };
            self.mistakes.add(entry.line, format!("unknown key \"{path}\" at line {}{hint}", entry.line));
        }
    }
}

/// Edits between two short words (Levenshtein), for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
