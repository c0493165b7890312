//! The life of an exclusion: proposed by one person, approved or refused by another, perhaps closed early.
//!
//! An [`ExclusionFile`] is the row of what people did, each act with its time; what counts at a moment is what
//! had been done by then ([`ExclusionFile::as_known_at`]). Acts are only ever added. Whether time counts under
//! the contract (notice, cap, place) is judged later, by [`super::exclusion`].
//!
//! - Nobody approves what they proposed themselves: two pairs of eyes see every hour taken out of a figure.
//! - Closing early gives the rest of the approved span back; it cannot be made longer. What ran over its end is
//!   down, and a longer span is a new proposal.
//! - Approval may come after the fact (force majeure always does). Announcement has a time of its own.

use peil_proto::time::UtcTime;

use super::exclusion::{Exclusion, ExclusionKind};
use super::outage::Outage;
use super::span::Span;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What people call it: `CHG-7`.
    pub id: String,
    /// The service it is about.
    pub service: String,
    /// Why time is to be left out.
    pub kind: ExclusionKind,
    /// When.
    pub span: Span,
    /// When the customer was told.
    pub announced_at: Option<UtcTime>,
    /// What is done or what happened, and where the evidence is.
    pub reason: String,
}

/// One thing somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: UtcTime,
    /// Who.
    pub by: String,
    /// What.
    pub deed: Deed,
}

/// What can be done to a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It counts.
    Approve,
    /// It does not count, and why.
    Refuse(String),
    /// The work was done at this instant: the rest of the span is agreed time again.
    Close(UtcTime),
}

/// Where an exclusion stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nobody decided yet.
    Proposed,
    /// It counts.
    Approved,
    /// It does not.
    Refused,
    /// It counts until it was closed.
    Closed,
}

impl Progress {
    /// The word in lists and in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Closed => "closed",
        }
    }
}

/// Why something cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// The one who proposed it would decide about it.
    OwnProposal,
    /// It was decided before.
    Decided(Progress),
    /// Only what is approved can be closed.
    NotApproved,
    /// The end given is not inside the approved span.
    EndOutside(Span),
    /// The end given is still to come.
    EndAhead,
}

impl std::fmt::Display for Objection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OwnProposal => f.write_str("whoever proposed it cannot decide about it; ask somebody else"),
            Self::Decided(progress) => write!(f, "it is {} already; propose a new one", progress.word()),
            Self::NotApproved => f.write_str("it is not approved, so there is nothing to close"),
            Self::EndOutside(span) => {
                write!(
                    f,
                    "the end must lie after {} and before {}; a longer time is a new proposal",
                    span.from, span.to
                )
            }
            Self::EndAhead => f.write_str("the end lies in the future; close it when the work is done"),
        }
    }
}

impl std::error::Error for Objection {}

/// A proposal with everything that was done about it, in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExclusionFile {
    /// What was asked for.
    pub proposal: Proposal,
    /// When.
    pub proposed_at: UtcTime,
    /// By whom.
    pub proposed_by: String,
    /// What followed.
    pub acts: Vec<Act>,
}

impl ExclusionFile {
    /// Where it stands.
    pub fn progress(&self) -> Progress {
        self.acts.last().map_or(Progress::Proposed, |act| match act.deed {
            Deed::Approve => Progress::Approved,
            Deed::Refuse(_) => Progress::Refused,
            Deed::Close(_) => Progress::Closed,
        })
    }

    /// Does `act`, or says why it cannot be done.
    ///
    /// # Errors
    /// The [`Objection`]; nothing has changed then.
    pub fn with(mut self, act: Act) -> Result<Self, Objection> {
        match (&act.deed, self.progress()) {
            (Deed::Approve | Deed::Refuse(_), Progress::Proposed) if act.by == self.proposed_by => {
                return Err(Objection::OwnProposal);
            }
            (Deed::Approve | Deed::Refuse(_), Progress::Proposed) => {}
            (Deed::Approve | Deed::Refuse(_), decided) => return Err(Objection::Decided(decided)),
            (Deed::Close(_), Progress::Closed) => return Err(Objection::Decided(Progress::Closed)),
            (Deed::Close(_), Progress::Proposed | Progress::Refused) => return Err(Objection::NotApproved),
            (Deed::Close(end), Progress::Approved) => {
                let span = self.proposal.span;
                if *end <= span.from || *end >= span.to {
                    return Err(Objection::EndOutside(span));
                }
                if *end > act.at {
                    return Err(Objection::EndAhead);
                }
            }
        }
        self.acts.push(act);
        Ok(self)
    }

    /// As the contract judges it, by what had been done at `known_at`; `None` when it was not proposed then.
    pub fn as_known_at(&self, known_at: UtcTime) -> Option<Exclusion> {
        let Proposal { id, kind, mut span, announced_at, .. } = self.proposal.clone();
        if known_at < self.proposed_at {
            return None;
        }
        let mut approved_by = None;
        for act in self.acts.iter().filter(|act| act.at <= known_at) {
            match &act.deed {
                Deed::Approve => approved_by = Some(act.by.clone()),
                Deed::Refuse(_) => approved_by = None,
                Deed::Close(end) => span.to = span.to.min(*end),
            }
        }
        Some(Exclusion { id, kind, span, announced_at, approved_by })
    }
}

/// The time after the end of `exclusion` in which the service was still down since before it: what the work
/// took longer than agreed. It counts as down; this says where it came from.
pub fn overrun(exclusion: &Exclusion, outages: &[Outage]) -> Option<Span> {
    let end = exclusion.span.to;
    let ran_over = outages.iter().find(|outage| outage.span.from < end && end < outage.span.to)?;
    Some(Span::new(end, ran_over.span.to))
}

#[cfg(test)]
mod tests {
    use super::super::outage::Standing;
    use super::*;
    use peil_proto::units::Millis;

    fn file() -> ExclusionFile {
        let proposal = Proposal {
            id: "CHG-7".to_owned(),
            service: "portal".to_owned(),
            kind: ExclusionKind::Maintenance,
            span: Span::new(UtcTime(100), UtcTime(200)),
            announced_at: Some(UtcTime(5)),
            reason: "new disks".to_owned(),
        };
        ExclusionFile { proposal, proposed_at: UtcTime(10), proposed_by: "anna".to_owned(), acts: Vec::new() }
    }

    fn act(at: i64, by: &str, deed: Deed) -> Act {
        Act { at: UtcTime(at), by: by.to_owned(), deed }
    }

    #[test]
    fn another_person_approves_and_then_it_counts() {
        assert_eq!(file().with(act(20, "anna", Deed::Approve)), Err(Objection::OwnProposal));
        assert_eq!(file().with(act(20, "anna", Deed::Refuse("no".into()))), Err(Objection::OwnProposal));
        let approved = file().with(act(20, "bert", Deed::Approve)).expect("another person");
        assert_eq!(approved.progress(), Progress::Approved);
        let known = |at| approved.as_known_at(UtcTime(at)).map(|exclusion| exclusion.approved_by);
        assert_eq!((known(9), known(19), known(20)), (None, Some(None), Some(Some("bert".to_owned()))));
        assert_eq!(
            approved.with(act(30, "cor", Deed::Refuse("late".into()))),
            Err(Objection::Decided(Progress::Approved))
        );
    }

    #[test]
    fn closing_early_gives_the_rest_back_and_nothing_makes_it_longer() {
        let approved = file().with(act(20, "bert", Deed::Approve)).expect("another person");
        for (end, at, objection) in [
            (100, 150, Objection::EndOutside(Span::new(UtcTime(100), UtcTime(200)))),
            (200, 250, Objection::EndOutside(Span::new(UtcTime(100), UtcTime(200)))),
            (180, 150, Objection::EndAhead),
        ] {
            assert_eq!(approved.clone().with(act(at, "anna", Deed::Close(UtcTime(end)))), Err(objection));
        }
        let closed = approved.with(act(160, "anna", Deed::Close(UtcTime(150)))).expect("inside");
        let span = |at| closed.as_known_at(UtcTime(at)).map(|exclusion| exclusion.span.to.0);
        assert_eq!((span(159), span(160)), (Some(200), Some(150)));
        assert_eq!(closed.progress(), Progress::Closed);
        assert_eq!(closed.with(act(170, "anna", Deed::Close(UtcTime(140)))), Err(Objection::Decided(Progress::Closed)));
    }

    #[test]
    fn what_is_refused_or_undecided_has_no_approver_and_cannot_be_closed() {
        let refused = file().with(act(20, "bert", Deed::Refuse("outside the slot".into()))).expect("another person");
        for file in [file(), refused] {
            assert_eq!(file.as_known_at(UtcTime(50)).and_then(|exclusion| exclusion.approved_by), None);
            assert_eq!(file.with(act(150, "cor", Deed::Close(UtcTime(120)))), Err(Objection::NotApproved));
        }
    }

    #[test]
    fn an_overrun_is_the_outage_that_went_on() {
        let exclusion = file().as_known_at(UtcTime(50)).expect("proposed");
        let outage = |from, to| Outage {
            span: Span::new(UtcTime(from), UtcTime(to)),
            standing: Standing::Confirmed,
            counted_ms: Millis::ZERO,
            because: Vec::new(),
        };
        let over = |from, to| overrun(&exclusion, &[outage(from, to)]).map(|span| (span.from.0, span.to.0));
        assert_eq!(over(110, 260), Some((200, 260)));
        assert_eq!(over(50, 260), Some((200, 260)));
        assert_eq!(over(110, 200), None);
        assert_eq!(over(200, 260), None);
    }
}
