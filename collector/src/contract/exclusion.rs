//! Approved time out of the agreement: which part of each exclusion counts, and why the rest does not.
//!
//! Order of the questions: approved? announced in time (maintenance)? inside covered window time?
//! under the cap (maintenance)? The first "no" is the reason given. Overlapping maintenance is merged
//! before the cap is applied, and the cap is spent in order of time.
//!
//! Every excluded millisecond belongs to exactly one exclusion: other kinds before maintenance, then
//! the earlier start, then the order of the file. So the rows of kinds that are excluded add up to the
//! excluded time, and an exclusion that lies wholly inside an earlier one counts 0 without refusal.
//!
//! A maintenance without `announced_at` was never announced: it counts only when no notice is asked.

use peil_proto::settings::{Fields, Node};
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::span::{Span, Spans};
use super::terms::{CountsAs, Maintenance};

/// Exclusions one case may have; more is refused, because rows are compared with each other.
pub const EXCLUSIONS_MAX: usize = 5_000;

/// Why time is excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExclusionKind {
    /// Planned work of the supplier: notice, cap and `counts_as` apply.
    Maintenance,
    /// What nobody could prevent.
    ForceMajeure,
    /// Caused by the customer.
    Customer,
    /// Caused by a supplier the contract excludes.
    Dependency,
}

impl ExclusionKind {
    /// The words of the format.
    pub const WORDS: [(&'static str, Self); 4] = [
        ("maintenance", Self::Maintenance),
        ("force_majeure", Self::ForceMajeure),
        ("customer", Self::Customer),
        ("dependency", Self::Dependency),
    ];
}

/// One approved (or not approved) stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// What people call it: `CHG-7`.
    pub id: String,
    /// Why.
    pub kind: ExclusionKind,
    /// When.
    pub span: Span,
    /// When the customer was told.
    pub announced_at: Option<UtcTime>,
    /// Who approved; nobody means that it does not count.
    pub approved_by: Option<String>,
}

/// Why an exclusion, or a part of it, did not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Maintenance announced later than its start minus the notice.
    LateNotice,
    /// Nobody approved it.
    NotApproved,
    /// The month's maintenance was used up.
    OverCap,
    /// No part lies in agreed time.
    OutsideWindow,
}

impl Refusal {
    /// The word of the format.
    pub fn word(self) -> &'static str {
        match self {
            Self::LateNotice => "late_notice",
            Self::NotApproved => "not_approved",
            Self::OverCap => "over_cap",
            Self::OutsideWindow => "outside_window",
        }
    }
}

/// What became of one exclusion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExclusionRow {
    /// Its id.
    pub id: String,
    /// Time that counted on its account.
    pub counted_ms: Millis,
    /// Why (the rest of) it did not.
    pub refused: Option<Refusal>,
}

impl Exclusion {
    /// Reads one table; `id`, `kind`, `from` and `to` are required.
    pub fn read(mut fields: Fields<'_>) -> Option<Self> {
        let mistakes = fields.mistakes();
        let id = fields.need_str("id");
        let kind = fields.need("kind").and_then(|node| node.as_word(mistakes, &ExclusionKind::WORDS));
        let span = read_span(&mut fields);
        let announced_at = fields.take_some("announced_at").and_then(|node| read_time(&node, &fields));
        let approved_by = fields.str("approved_by").filter(|name| !name.trim().is_empty());
        fields.finish();
        Some(Self { id: id?, kind: kind?, span: span?, announced_at, approved_by })
    }

    /// The reason that refuses the whole of it, apart from where it lies.
    fn refusal(&self, clause: &Maintenance) -> Option<Refusal> {
        if self.approved_by.is_none() {
            return Some(Refusal::NotApproved);
        }
        if self.kind != ExclusionKind::Maintenance {
            return None;
        }
        let latest = self.span.from.plus(Millis(clause.notice.0.saturating_neg()));
        let in_time = self.announced_at.map_or(clause.notice.0 == 0, |announced_at| announced_at <= latest);
        (!in_time).then_some(Refusal::LateNotice)
    }
}

/// A required `from` and `to`, in that order.
pub fn read_span(fields: &mut Fields<'_>) -> Option<Span> {
    let from = fields.need("from").and_then(|node| read_time(&node, fields));
    let to = fields.need("to").and_then(|node| read_time(&node, fields));
    let span = Span::new(from?, to?);
    if span.is_empty() {
        fields.refuse(format_args!("ends at {} but starts at {}; it must end later", span.to, span.from));
        return None;
    }
    Some(span)
}

/// An RFC 3339 time with an offset.
pub fn read_time(node: &Node, fields: &Fields<'_>) -> Option<UtcTime> {
    let mistakes = fields.mistakes();
    match UtcTime::parse(node.as_str(mistakes)?) {
        Ok(at) => Some(at),
        Err(why) => {
            node.refuse(mistakes, format_args!("cannot be read: {why}"));
            None
        }
    }
}

/// The exclusions of a month after all clauses.
pub(super) struct Weighed {
    /// Out of numerator and denominator.
    pub(super) excluded: Spans,
    /// Maintenance that stays in as up; never also in `excluded`.
    pub(super) as_up: Spans,
    /// One per exclusion, in the order given.
    pub(super) rows: Vec<ExclusionRow>,
    /// The time on each one's account over the whole month, in the same order: apart from each other, and
    /// together `excluded` and `as_up`.
    pub(super) shares: Vec<Spans>,
}

/// Judges `exclusions` against `agreed`, the covered window time of the whole month. The rows count what
/// lies inside `counted`; the refusals are those of the whole month.
pub(super) fn weigh(exclusions: &[Exclusion], clause: &Maintenance, agreed: &Spans, counted: Span) -> Weighed {
    let is_maintenance = |exclusion: &Exclusion| exclusion.kind == ExclusionKind::Maintenance;
    let valid = |maintenance: bool| -> Spans {
        let of_kind = exclusions.iter().filter(|exclusion| is_maintenance(exclusion) == maintenance);
        let spans: Spans = of_kind.filter(|e| e.refusal(clause).is_none()).map(|e| e.span).collect();
        spans.intersect(agreed)
    };
    let (others, all_maintenance) = (valid(false), valid(true));
    let maintenance = match clause.monthly_cap {
        Some(cap) => all_maintenance.first(cap),
        None => all_maintenance.clone(),
    };

    let mut order: Vec<usize> = (0..exclusions.len()).collect();
    order.sort_by_key(|i| (is_maintenance(&exclusions[*i]), exclusions[*i].span.from, *i));
    let mut rows: Vec<_> = exclusions
        .iter()
        .map(|e| ExclusionRow { id: e.id.clone(), counted_ms: Millis::ZERO, refused: e.refusal(clause) })
        .collect();
    let mut shares = vec![Spans::default(); exclusions.len()];
    let mut taken = Spans::default();
    for i in order {
        if rows[i].refused.is_some() {
            continue;
        }
        let inside = agreed.intersect(&exclusions[i].span.into());
        let part = if is_maintenance(&exclusions[i]) { inside.intersect(&maintenance) } else { inside.clone() };
        rows[i].refused = if inside.is_empty() {
            Some(Refusal::OutsideWindow)
        } else if part != inside {
            Some(Refusal::OverCap)
        } else {
            None
        };
        shares[i] = part.without(&taken);
        rows[i].counted_ms = shares[i].total_within(counted);
        taken = taken.union(&part);
    }
    match clause.counts_as {
        CountsAs::Excluded => Weighed { excluded: others.union(&maintenance), as_up: Spans::default(), rows, shares },
        CountsAs::Up => Weighed { as_up: maintenance.without(&others), excluded: others, rows, shares },
    }
}
