//! From the text of a file to a [`Case`]; every mistake in one answer, each with place and remedy.

use std::collections::{BTreeMap, BTreeSet};

use peil_proto::sample::State;
use peil_proto::settings::{Document, Fields, Mistakes, Node, Refused, Value};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use crate::contract::calendar::Month;
use crate::contract::exclusion::{EXCLUSIONS_MAX, Exclusion, read_span, read_time};
use crate::contract::expr::Expr;
use crate::contract::terms::Terms;
use crate::contract::whatif::Change;
use crate::contract::{Case, CheckEvidence, Evidence};

const STATES: [(&str, State); 3] = [("up", State::Up), ("down", State::Down), ("unknown", State::Unknown)];

/// Reads the JSON of formats.md §1.
///
/// # Errors
/// [`Refused`] with every mistake, in order of line.
pub fn read_case(file: &str, text: &str) -> Result<Case, Refused> {
    read_case_and_contract(file, text).map(|(case, _)| case)
}

/// As [`read_case`], with the contract as it was written, for [`Changes::apply`].
///
/// # Errors
/// [`Refused`] with every mistake, in order of line.
pub fn read_case_and_contract(file: &str, text: &str) -> Result<(Case, Node), Refused> {
    read_document(file, text, read_case_node)
}

/// Parses `text` and reads it with `read`, which returns nothing when it has noted a mistake.
fn read_document<T>(file: &str, text: &str, read: impl FnOnce(Node, &Mistakes) -> Option<T>) -> Result<T, Refused> {
    let mistakes = Mistakes::new(file);
    let root = Document::json(text, &mistakes);
    // Without a tree there is nothing more to say than that it could not be read.
    let found = if mistakes.is_empty() || root.value != Value::Null { read(root, &mistakes) } else { None };
    if found.is_none() && mistakes.is_empty() {
        mistakes.add(0, "the file could not be understood");
    }
    mistakes.into_result(found).and_then(|found| {
        found.ok_or_else(|| Refused { file: file.to_owned(), mistakes: vec!["the file is incomplete".to_owned()] })
    })
}

/// A case that stands somewhere in a file, with its contract as it was written; mistakes are noted.
pub(super) fn read_case_node(root: Node, mistakes: &Mistakes) -> Option<(Case, Node)> {
    let mut fields = root.fields(mistakes);
    let month = fields.need("month").and_then(|node| read_month(&node, mistakes));
    let contract = fields.need("contract");
    let terms = contract.clone().map(|node| read_terms(node, mistakes));
    let mut checks = BTreeMap::new();
    let mut names = BTreeSet::new();
    if let Some(node) = fields.need("checks") {
        for entry in node.fields(mistakes).rest() {
            names.insert(entry.key.clone());
            if let Some(check) = read_check(entry.node.fields(mistakes)) {
                checks.insert(entry.key, check);
            }
        }
    }
    let service = fields.need("service").and_then(|node| Expr::read(node, mistakes, &|name| names.contains(name)));
    let exclusions = read_exclusions(&mut fields);
    fields.finish();
    let case = Case { month: month?, terms: terms?, service: service?, checks, exclusions };
    contract.map(|contract| (case, contract))
}

fn read_terms(contract: Node, mistakes: &Mistakes) -> Terms {
    let mut fields = contract.fields(mistakes);
    let terms = Terms::read(&mut fields);
    fields.finish();
    terms
}

fn read_exclusions(fields: &mut Fields<'_>) -> Vec<Exclusion> {
    let exclusions = fields.tables("exclusions");
    if exclusions.len() > EXCLUSIONS_MAX {
        fields.refuse(format_args!("has {} exclusions; the limit is {EXCLUSIONS_MAX}", exclusions.len()));
    }
    exclusions.into_iter().filter_map(Exclusion::read).collect()
}

/// What another agreement would say: only the keys that differ.
#[derive(Debug, Clone)]
pub struct Changes {
    file: String,
    contract: Option<Node>,
    exclusions: Option<Vec<Exclusion>>,
}

impl Changes {
    /// Reads an object with `contract`, `exclusions` or both. Keys under `contract` replace those of the
    /// case, tables key by key and lists as a whole; `exclusions` replaces them all.
    ///
    /// # Errors
    /// [`Refused`] with every mistake, in order of line; a file that changes nothing is one.
    pub fn read(file: &str, text: &str) -> Result<Self, Refused> {
        read_document(file, text, |root, mistakes| {
            let mut fields = root.fields(mistakes);
            let contract = fields.take_some("contract");
            // Read once by itself, so that its mistakes carry the lines of this file.
            let keys = contract.clone().map(|node| node.fields(mistakes).rest().len());
            contract.clone().map(|node| read_terms(node, mistakes));
            let exclusions = fields.peek("exclusions").is_some().then(|| read_exclusions(&mut fields));
            if mistakes.is_empty() && exclusions.is_none() && keys.unwrap_or(0) == 0 {
                fields.refuse("changes nothing; name what differs under \"contract\" or \"exclusions\"");
            }
            fields.finish();
            Some(Self { file: file.to_owned(), contract, exclusions })
        })
    }

    /// These changes of the case in `file`, whose contract was written as `contract`.
    ///
    /// # Errors
    /// [`Refused`] when each file is usable but the two contradict each other.
    pub fn apply(self, file: &str, contract: Node) -> Result<Change, Refused> {
        let Some(changed) = self.contract else {
            return Ok(Change { terms: None, exclusions: self.exclusions });
        };
        let mistakes = Mistakes::new(format!("{file} changed by {}", self.file));
        let terms = read_terms(merge(contract, changed), &mistakes);
        mistakes.into_result(Change { terms: Some(terms), exclusions: self.exclusions })
    }
}

/// `changed` over `base`: tables key by key, anything else as a whole.
fn merge(base: Node, changed: Node) -> Node {
    match (base.value, changed.value) {
        (Value::Table(mut entries), Value::Table(changes)) => {
            for change in changes {
                match entries.iter_mut().find(|entry| entry.key == change.key) {
                    Some(entry) => {
                        let place = Node { path: String::new(), line: 0, value: Value::Null };
                        let old = std::mem::replace(&mut entry.node, place);
                        entry.node = merge(old, change.node);
                    }
                    None => entries.push(change),
                }
            }
            Node { path: base.path, line: base.line, value: Value::Table(entries) }
        }
        (_, value) => Node { value, ..changed },
    }
}

pub(super) fn read_month(node: &Node, mistakes: &Mistakes) -> Option<Month> {
    let text = node.as_str(mistakes)?;
    let month = Month::parse(text);
    if month.is_none() {
        node.refuse(mistakes, format_args!("is {text:?}, which is not a month from 1970 to 2999 such as \"2026-04\""));
    }
    month
}

fn read_check(mut fields: Fields<'_>) -> Option<CheckEvidence> {
    /// Longest interval and timeout: a week. A longer one is a typing error.
    const SPAN_S_MAX: i64 = 604_800;
    let mistakes = fields.mistakes();
    let interval = Millis::from_secs(fields.int_or("interval_s", 1..=SPAN_S_MAX, 60));
    let timeout = Millis::from_secs(fields.int_or("timeout_s", 0..=SPAN_S_MAX, 10));
    let quorum = fields.take_some("quorum");
    let entries = fields.need("vantages").map(|node| node.fields(mistakes).rest());
    let place = Node { path: fields.path.clone(), line: fields.line, value: Value::Null };
    fields.finish();

    let entries = entries?;
    let count = entries.len();
    if count == 0 {
        place.refuse(mistakes, "has no vantages; name at least one");
    }
    let most = i64::try_from(count).unwrap_or(i64::MAX);
    let quorum = match quorum {
        Some(node) => read_quorum(&node, mistakes, most),
        None => Some(1),
    };
    let mut vantages = BTreeMap::new();
    for entry in entries {
        if let Some(evidence) = read_evidence(entry.node.fields(mistakes)) {
            vantages.insert(entry.key, evidence);
        }
    }
    Some(CheckEvidence { interval, timeout, quorum: quorum?, vantages })
}

fn read_quorum(node: &Node, mistakes: &Mistakes, vantages: i64) -> Option<usize> {
    let quorum = node.as_int(mistakes, 1..=i64::MAX)?;
    if quorum > vantages {
        node.refuse(mistakes, format_args!("is {quorum}, more than the {vantages} vantages; lower it or add vantages"));
        return None;
    }
    usize::try_from(quorum).ok()
}

fn read_evidence(mut fields: Fields<'_>) -> Option<Evidence> {
    let mistakes = fields.mistakes();
    let (states, otherwise, samples) = (fields.take("states"), fields.take("otherwise"), fields.take("samples"));
    let evidence = match (states, otherwise, samples) {
        (Some(states), Some(otherwise), None) => {
            let otherwise = otherwise.as_word(mistakes, &STATES);
            let intervals = read_intervals(states, mistakes);
            otherwise.map(|otherwise| Evidence::States { intervals, otherwise })
        }
        (None, None, Some(samples)) => {
            let items = samples.into_list(mistakes);
            Some(Evidence::Samples(items.into_iter().filter_map(|item| read_sample(item, &fields)).collect()))
        }
        _ => {
            fields.refuse("must have either \"states\" with \"otherwise\", or \"samples\"");
            None
        }
    };
    fields.finish();
    evidence
}

fn read_intervals(list: Node, mistakes: &Mistakes) -> Vec<(UtcTime, UtcTime, State)> {
    let mut intervals: Vec<(UtcTime, UtcTime, State)> = Vec::new();
    for item in list.into_list(mistakes) {
        let mut fields = item.fields(mistakes);
        let span = read_span(&mut fields);
        let state = fields.need("state").and_then(|node| node.as_word(mistakes, &STATES));
        if let (Some(span), Some((_, end, _))) = (span, intervals.last())
            && span.from < *end
        {
            fields.refuse(format_args!(
                "starts at {}, before the one above it ends at {end}; sort the states and let them not overlap",
                span.from
            ));
        }
        fields.finish();
        if let (Some(span), Some(state)) = (span, state) {
            intervals.push((span.from, span.to, state));
        }
    }
    intervals
}

fn read_sample(item: Node, fields: &Fields<'_>) -> Option<(UtcTime, State)> {
    let mistakes = fields.mistakes();
    match &item.value {
        Value::List(pair) if pair.len() == 2 => {
            let (at, state) = (read_time(&pair[0], fields), pair[1].as_word(mistakes, &STATES));
            Some((at?, state?))
        }
        _ => {
            item.refuse(mistakes, "must be a pair of time and state such as [\"2026-04-01T00:00:00+02:00\", \"up\"]");
            None
        }
    }
}
