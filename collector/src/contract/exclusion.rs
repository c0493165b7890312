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
#[derive(Clone)]
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

/// Judges `exclusions` against `agreed`, the covered window time of the whole month, each stretch of it by the
/// clause in force there (`clauses`, in order and together the month). The cap of a stretch is spent by all
/// maintenance of the month before it. The rows count what lies inside `counted`; the refusals are those of the
/// whole month, the first one where clauses differ.
pub(super) fn weigh(
    exclusions: &[Exclusion],
    clauses: &[(Span, &Maintenance)],
    agreed: &Spans,
    counted: Span,
) -> Weighed {
    let is_maintenance = |exclusion: &Exclusion| exclusion.kind == ExclusionKind::Maintenance;
    let others = exclusions.iter().filter(|e| !is_maintenance(e) && e.approved_by.is_some()).map(|e| e.span);
    let others = others.collect::<Spans>().intersect(agreed);
    let (mut excluded, mut as_up, mut maintenance) = (others.clone(), Spans::default(), Spans::default());
    for (stretch, clause) in clauses {
        let valid = exclusions.iter().filter(|e| is_maintenance(e) && e.refusal(clause).is_none()).map(|e| e.span);
        let valid = valid.collect::<Spans>().intersect(&agreed.within(*stretch));
        let kept = match clause.monthly_cap {
            Some(cap) => valid.first(cap.saturating_sub(maintenance.total())),
            None => valid,
        };
        match clause.counts_as {
            CountsAs::Excluded => excluded = excluded.union(&kept),
            CountsAs::Up => as_up = as_up.union(&kept.without(&others)),
        }
        maintenance = maintenance.union(&kept);
    }

    let mut order: Vec<usize> = (0..exclusions.len()).collect();
    order.sort_by_key(|i| (is_maintenance(&exclusions[*i]), exclusions[*i].span.from, *i));
    let mut rows: Vec<_> =
        exclusions.iter().map(|e| ExclusionRow { id: e.id.clone(), counted_ms: Millis::ZERO, refused: None }).collect();
    let mut shares = vec![Spans::default(); exclusions.len()];
    let mut taken = Spans::default();
    for i in order {
        let (part, refused) = standing(&exclusions[i], clauses, agreed, &maintenance);
        shares[i] = part.without(&taken);
        rows[i].refused = refused;
        rows[i].counted_ms = shares[i].total_within(counted);
        taken = taken.union(&part);
    }
    Weighed { excluded, as_up, rows, shares }
}

/// The part of `exclusion` that counts, and why the rest does not. `maintenance` is all that is kept of its kind.
fn standing(
    exclusion: &Exclusion,
    clauses: &[(Span, &Maintenance)],
    agreed: &Spans,
    maintenance: &Spans,
) -> (Spans, Option<Refusal>) {
    let inside = agreed.within(exclusion.span);
    if inside.is_empty() {
        let in_force = clauses.iter().find(|(stretch, _)| exclusion.span.from < stretch.to).or(clauses.last());
        let refusal = in_force.and_then(|(_, clause)| exclusion.refusal(clause));
        return (inside, refusal.or(Some(Refusal::OutsideWindow)));
    }
    let (mut part, mut refused) = (Spans::default(), None);
    for (stretch, clause) in clauses {
        let here = inside.within(*stretch);
        if here.is_empty() {
            continue;
        }
        if let Some(refusal) = exclusion.refusal(clause) {
            refused = refused.or(Some(refusal));
            continue;
        }
        let kept = match exclusion.kind {
            ExclusionKind::Maintenance => here.intersect(maintenance),
            ExclusionKind::ForceMajeure | ExclusionKind::Customer | ExclusionKind::Dependency => here.clone(),
        };
        if kept != here {
            refused = refused.or(Some(Refusal::OverCap));
        }
        part = part.union(&kept);
    }
    (part, refused)
}
