//! One object through time, and the versions that make it what a file says.
//!
//! Pure. A version already written down is never changed: an end that is taken back, or moved later, gets a version from
//! the same instant that is written down later, and that one holds.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use serde_json::Value;

use super::Change;
use crate::agreement::Written;
use crate::contract::span::Span;
use crate::store::objects::ObjectVersion;

/// One object through time as it is known, and what changes about it.
pub(super) struct Course<'a> {
    kind: &'a str,
    name: &'a str,
    who: &'a str,
    now: UtcTime,
    /// By beginning; of versions that begin together the one written down last.
    versions: BTreeMap<UtcTime, ObjectVersion>,
    pub(super) changes: Vec<Change>,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        (kind, name): &'a (String, String),
        versions: &[ObjectVersion],
        who: &'a str,
        now: UtcTime,
    ) -> Self {
        let mut known: Vec<_> =
            versions.iter().filter(|version| version.kind == *kind && version.name == *name).cloned().collect();
        known.sort_by_key(|version| version.recorded_at);
        let versions = known.into_iter().map(|version| (version.valid_from, version)).collect();
        Self { kind, name, who, now, versions, changes: Vec::new() }
    }

    /// The version that holds at `at`.
    pub(super) fn at(&self, at: UtcTime) -> Option<&ObjectVersion> {
        self.versions.range(..=at).next_back().map(|(_, version)| version)
    }

    pub(super) fn after(&self, at: UtcTime) -> Vec<ObjectVersion> {
        self.versions.range(at.plus(Millis(1))..).map(|(_, version)| version.clone()).collect()
    }

    /// Whether it has ended and nothing begins it again.
    pub(super) fn is_over(&self) -> bool {
        let has_ended = self.at(self.now).is_none_or(ObjectVersion::is_end);
        has_ended && self.after(self.now).iter().all(ObjectVersion::is_end)
    }

    fn change(&mut self, valid_from: UtcTime, body: String, reason: &str) {
        let keys = differing(self.at(valid_from).map(|before| before.body.as_str()), &body);
        let (kind, name, author) = (self.kind.to_owned(), self.name.to_owned(), self.who.to_owned());
        let recorded_at = self.now;
        let version = ObjectVersion { kind, name, valid_from, recorded_at, author, reason: reason.to_owned(), body };
        self.versions.insert(valid_from, version.clone());
        self.changes.push(Change { version, keys });
    }

    /// Makes it what the table of a file says.
    pub(super) fn follow(&mut self, table: &Written) {
        let begins = table.from.unwrap_or(if self.versions.is_empty() { Span::ALWAYS.from } else { self.now });
        let goes_on = table.ends.is_none_or(|end| begins < end);
        if goes_on && self.at(begins).is_none_or(|before| before.body != table.body) {
            self.change(begins, table.body.clone(), &table.reason);
        }
        for version in self.after(begins).iter().filter(|version| version.is_end()) {
            if table.ends.is_none_or(|end| version.valid_from < end) {
                self.change(version.valid_from, table.body.clone(), &table.reason);
            }
        }
        if let Some(end) = table.ends
            && !self.at(end).is_some_and(ObjectVersion::is_end)
        {
            self.change(end, ObjectVersion::end_of(&table.body), &table.reason);
        }
    }

    /// Ends it now, and whatever would begin it again.
    pub(super) fn end_all(&mut self, reason: &str) {
        let from_now = self.at(self.now).cloned().map(|version| (self.now, version));
        let ahead = self.after(self.now).into_iter().map(|version| (version.valid_from, version));
        let alive: Vec<_> = from_now.into_iter().chain(ahead).filter(|(_, version)| !version.is_end()).collect();
        for (at, version) in alive {
            self.change(at, ObjectVersion::end_of(&version.body), reason);
        }
    }
}

fn differing(before: Option<&str>, after: &str) -> Vec<(String, Option<Value>, Option<Value>)> {
    let table = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(table)) => table.into_iter().collect::<BTreeMap<_, _>>(),
        _ => BTreeMap::new(),
    };
    let (old, new) = (before.map(table).unwrap_or_default(), table(after));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let pair = |key: &String| (key.clone(), old.get(key).cloned(), new.get(key).cloned());
    keys.into_iter().map(pair).filter(|(_, old, new)| old != new).collect()
}
