//! What the contract calls the service: an expression over checks, judged per instant.
//!
//! Kleene logic, one rule for all three forms: `at_least k of n` is UP when k are up, DOWN when fewer
//! than k can still be up, else UNKNOWN; `all` is n of n, `any` is 1 of n. Percentages are never
//! multiplied.
//!
//! Limits: [`DEPTH_MAX`] levels and [`NAMES_MAX`] names; a larger expression is refused.

use std::collections::BTreeSet;

use peil_proto::sample::State;
use peil_proto::settings::{Mistakes, Node, Value};

use super::timeline::Reading;

/// Levels of `all`, `any` and `at_least` inside each other; deeper is refused.
pub const DEPTH_MAX: usize = 32;

/// Checks named in one service, repetitions included; more is refused.
pub const NAMES_MAX: usize = 4_096;

/// A service as the contract names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// The check with this name. One without evidence is UNKNOWN.
    Check(String),
    /// All must be up.
    All(Vec<Expr>),
    /// One must be up.
    Any(Vec<Expr>),
    /// This many must be up.
    AtLeast(usize, Vec<Expr>),
}

impl Expr {
    /// Reads an expression; `known` says which checks exist.
    pub fn read(node: Node, mistakes: &Mistakes, known: &dyn Fn(&str) -> bool) -> Option<Self> {
        let (line, mut names_left) = (node.line, NAMES_MAX);
        let read = Self::read_level(node, mistakes, known, DEPTH_MAX, &mut names_left);
        if names_left == 0 {
            mistakes.add(line, format!("the service at line {line} names {NAMES_MAX} checks or more; split it"));
        }
        read
    }

    fn read_level(
        node: Node,
        mistakes: &Mistakes,
        known: &dyn Fn(&str) -> bool,
        depth_left: usize,
        names_left: &mut usize,
    ) -> Option<Self> {
        if let Value::Str(name) = &node.value {
            *names_left = names_left.saturating_sub(1);
            if !known(name) {
                node.refuse(mistakes, format_args!("names the check {name:?}, which is not defined"));
                return None;
            }
            return Some(Self::Check(name.clone()));
        }
        if !matches!(node.value, Value::Table(_)) {
            node.refuse(
                mistakes,
                format_args!("must be a check's name, {{all}}, {{any}} or {{at_least, of}}, not {}", node.value.kind()),
            );
            return None;
        }
        if depth_left == 0 {
            node.refuse(mistakes, format_args!("lies deeper than {DEPTH_MAX} levels; flatten the expression"));
            return None;
        }
        let mut fields = node.fields(mistakes);
        let lists = ["all", "any", "of"].map(|key| fields.take(key));
        let at_least = fields.take("at_least");
        let place = Node { path: fields.path.clone(), line: fields.line, value: Value::Null };
        fields.finish();
        let mut parts = |list: Node| {
            let items = list.into_list(mistakes);
            let count = items.len();
            let read =
                items.into_iter().map(|item| Self::read_level(item, mistakes, known, depth_left - 1, names_left));
            // Collected twice so that the mistakes of all parts come out, not only of the first.
            let read: Vec<Option<Self>> = read.collect();
            if count == 0 {
                place.refuse(mistakes, "has an empty list; name at least one check");
            }
            (count, read.into_iter().collect::<Option<Vec<_>>>())
        };
        match (lists, at_least) {
            ([Some(all), None, None], None) => parts(all).1.map(Self::All),
            ([None, Some(any), None], None) => parts(any).1.map(Self::Any),
            ([None, None, Some(of)], Some(k)) => {
                let (count, of) = parts(of);
                let count = i64::try_from(count).unwrap_or(i64::MAX).max(1);
                let k = k.as_int(mistakes, 1..=count).and_then(|k| usize::try_from(k).ok());
                Some(Self::AtLeast(k?, of?))
            }
            _ => {
                place.refuse(mistakes, "must have exactly one of \"all\", \"any\", or \"at_least\" with \"of\"");
                None
            }
        }
    }

    /// The names in this expression.
    pub fn names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.collect(&mut names);
        names
    }

    fn collect<'a>(&'a self, names: &mut BTreeSet<&'a str>) {
        match self {
            Self::Check(name) => drop(names.insert(name)),
            Self::All(parts) | Self::Any(parts) | Self::AtLeast(_, parts) => {
                for part in parts {
                    part.collect(names);
                }
            }
        }
    }
}

/// An [`Expr`] whose names are places in a row of readings.
pub(super) enum Judge {
    Check(usize),
    AtLeast(usize, Vec<Judge>),
}

impl Judge {
    /// `names` are those of [`Expr::names`], in order.
    pub(super) fn new(expr: &Expr, names: &[&str]) -> Self {
        let all = |parts: &[Expr]| parts.iter().map(|part| Self::new(part, names)).collect();
        match expr {
            Expr::Check(name) => Self::Check(names.binary_search(&name.as_str()).unwrap_or(usize::MAX)),
            Expr::All(parts) => Self::AtLeast(parts.len(), all(parts)),
            Expr::Any(parts) => Self::AtLeast(1, all(parts)),
            Expr::AtLeast(k, parts) => Self::AtLeast(*k, all(parts)),
        }
    }

    pub(super) fn read(&self, readings: &[Reading]) -> Reading {
        Reading { counted: self.state(readings, |r| r.counted), seen: self.state(readings, |r| r.seen) }
    }

    fn state(&self, readings: &[Reading], of: fn(&Reading) -> State) -> State {
        match self {
            Self::Check(at) => readings.get(*at).map_or(State::Unknown, of),
            Self::AtLeast(k, parts) => {
                let (mut up, mut possible) = (0, 0);
                for part in parts {
                    let state = part.state(readings, of);
                    up += usize::from(state == State::Up);
                    possible += usize::from(state != State::Down);
                }
                if up >= *k {
                    State::Up
                } else if possible < *k {
                    State::Down
                } else {
                    State::Unknown
                }
            }
        }
    }

    /// Adds to `because` the places of the checks that make the service `state`, which it is.
    pub(super) fn blame(
        &self,
        readings: &[Reading],
        of: fn(&Reading) -> State,
        state: State,
        because: &mut BTreeSet<usize>,
    ) {
        match self {
            Self::Check(at) => drop(because.insert(*at)),
            Self::AtLeast(_, parts) => {
                for part in parts.iter().filter(|part| part.state(readings, of) == state) {
                    part.blame(readings, of, state, because);
                }
            }
        }
    }
}
