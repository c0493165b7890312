//! What people decide about exclusions: the rules of the contract over the rows of the store.
//!
//! One place for command line, API and pages: read what is there, ask `contract/approval.rs` whether it may be done,
//! add it if nobody else acted meanwhile. Every act is in the audit log, in the transaction that adds it.

use peil_proto::time::UtcTime;

use crate::contract::approval::{Act, Deed, ExclusionFile, Objection, Proposal};
use crate::contract::exclusion::ExclusionKind;
use crate::contract::span::Span;
use crate::evaluate::written;
use crate::store::exclusions::{ActRow, Added, ExclusionRow};
use crate::store::{Store, StoreError};

/// Characters of an id and of a reason; longer ones are refused.
const ID_CHARS_MAX: usize = 64;
const REASON_CHARS_MAX: usize = 2_000;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no exclusion of this id.
    #[error("there is no exclusion {0:?}")]
    NoExclusion(String),
    /// There is one of this id already.
    #[error("there is an exclusion {0:?} already; an id is used once")]
    Taken(String),
    /// The rules say no.
    #[error("{id}: {objection}")]
    Objected {
        /// Which exclusion.
        id: String,
        /// Why.
        #[source]
        objection: Objection,
    },
    /// Somebody else acted at the same time.
    #[error("somebody else decided about {0:?} at the same time; look at it again")]
    Overtaken(String),
    /// The proposal itself makes no sense.
    #[error("{0}")]
    Senseless(String),
}

/// Adds a proposal by `who`.
///
/// # Errors
/// [`DecisionError::Senseless`], [`DecisionError::Taken`], [`DecisionError::Store`].
pub async fn propose(store: &Store, proposal: Proposal, who: &str, now: UtcTime) -> Result<(), DecisionError> {
    sensible(&proposal)?;
    let Proposal { id, service, kind, span, announced_at, reason } = proposal;
    let row = ExclusionRow {
        id: id.clone(),
        service,
        kind: written::kind(kind).to_owned(),
        from: span.from,
        to: span.to,
        announced_at,
        reason,
        proposed_at: now,
        proposed_by: who.to_owned(),
        acts: Vec::new(),
    };
    match store.propose_exclusion(row).await? {
        Added::Done => Ok(()),
        Added::Overtaken => Err(DecisionError::Taken(id)),
    }
}

fn sensible(proposal: &Proposal) -> Result<(), DecisionError> {
    let Proposal { id, span, reason, .. } = proposal;
    let senseless = |why: String| Err(DecisionError::Senseless(why));
    if id.trim().is_empty() || id.chars().count() > ID_CHARS_MAX || id.chars().any(char::is_control) {
        return senseless(format!("an id has 1 to {ID_CHARS_MAX} characters, none of them control characters"));
    }
    if reason.trim().is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return senseless(format!("say why, in 1 to {REASON_CHARS_MAX} characters"));
    }
    if span.is_empty() {
        return senseless(format!("it ends at {} but starts at {}; it must end later", span.to, span.from));
    }
    Ok(())
}

/// Does `deed` to the exclusion `id`; the exclusion as it is then.
///
/// # Errors
/// [`DecisionError`].
pub async fn act(store: &Store, id: &str, deed: Deed, who: &str, now: UtcTime) -> Result<ExclusionFile, DecisionError> {
    let rows = store.exclusions(UtcTime(i64::MIN)).await?;
    let row = rows.into_iter().find(|row| row.id == id);
    let file = row.and_then(file_of).ok_or_else(|| DecisionError::NoExclusion(id.to_owned()))?;
    let seen = file.acts.len();
    let act = Act { at: now, by: who.to_owned(), deed };
    let row = act_row(&act);
    let file = file.with(act).map_err(|objection| DecisionError::Objected { id: id.to_owned(), objection })?;
    match store.act_on_exclusion(id, seen, row).await? {
        Added::Done => Ok(file),
        Added::Overtaken => Err(DecisionError::Overtaken(id.to_owned())),
    }
}

fn act_row(act: &Act) -> ActRow {
    let (deed, detail, end) = match &act.deed {
        Deed::Approve => ("approve", String::new(), None),
        Deed::Refuse(why) => ("refuse", why.clone(), None),
        Deed::Close(end) => ("close", String::new(), Some(*end)),
    };
    ActRow { at: act.at, who: act.by.clone(), deed: deed.to_owned(), detail, end }
}

/// Exclusions that end after `since`, in order of their beginning.
///
/// # Errors
/// When the store cannot be read.
pub async fn exclusions(store: &Store, since: UtcTime) -> Result<Vec<ExclusionFile>, StoreError> {
    Ok(store.exclusions(since).await?.into_iter().filter_map(file_of).collect())
}

/// A row as the contract sees it; `None` for words of a newer program, which counts nothing it does not understand.
fn file_of(row: ExclusionRow) -> Option<ExclusionFile> {
    let kind = ExclusionKind::WORDS.iter().find(|(word, _)| *word == row.kind).map(|(_, kind)| *kind)?;
    let act = |act: ActRow| {
        let deed = match (act.deed.as_str(), act.end) {
            ("approve", _) => Deed::Approve,
            ("refuse", _) => Deed::Refuse(act.detail),
            ("close", Some(end)) => Deed::Close(end),
            _ => return None,
        };
        Some(Act { at: act.at, by: act.who, deed })
    };
    let acts = row.acts.into_iter().map(act).collect::<Option<Vec<_>>>()?;
    let span = Span::new(row.from, row.to);
    let ExclusionRow { id, service, announced_at, reason, proposed_at, proposed_by, .. } = row;
    let proposal = Proposal { id, service, kind, span, announced_at, reason };
    Some(ExclusionFile { proposal, proposed_at, proposed_by, acts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(id: &str) -> Proposal {
        Proposal {
            id: id.to_owned(),
            service: "portal".to_owned(),
            kind: ExclusionKind::ForceMajeure,
            span: Span::new(UtcTime(100), UtcTime(200)),
            announced_at: None,
            reason: "lightning".to_owned(),
        }
    }

    #[tokio::test]
    async fn one_proposes_another_approves_and_the_store_gives_back_what_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        propose(&store, proposal("FM-1"), "anna", UtcTime(5)).await.expect("proposed");
        let taken = propose(&store, proposal("FM-1"), "bert", UtcTime(6)).await;
        assert!(matches!(taken, Err(DecisionError::Taken(_))), "{taken:?}");
        let own = act(&store, "FM-1", Deed::Approve, "anna", UtcTime(7)).await;
        assert!(matches!(own, Err(DecisionError::Objected { objection: Objection::OwnProposal, .. })), "{own:?}");
        let approved = act(&store, "FM-1", Deed::Approve, "bert", UtcTime(8)).await.expect("approved");
        act(&store, "FM-1", Deed::Close(UtcTime(150)), "anna", UtcTime(160)).await.expect("closed");
        let files = exclusions(&store, UtcTime(0)).await.expect("read");
        assert_eq!(files[0].as_known_at(UtcTime(159)), approved.as_known_at(UtcTime(159)));
        let counts = files[0].as_known_at(UtcTime(160)).expect("proposed");
        assert_eq!((counts.span.to, counts.approved_by.as_deref()), (UtcTime(150), Some("bert")));
        let none = act(&store, "FM-2", Deed::Approve, "bert", UtcTime(9)).await;
        assert!(matches!(none, Err(DecisionError::NoExclusion(_))), "{none:?}");
        store.close().await;
    }

    #[test]
    fn a_proposal_without_end_reason_or_name_is_refused() {
        let but = |change: fn(&mut Proposal)| {
            let mut changed = proposal("FM-1");
            change(&mut changed);
            sensible(&changed).is_err()
        };
        assert!(but(|p| p.id = " ".to_owned()) && but(|p| p.id = "a\nb".to_owned()) && but(|p| p.id = "x".repeat(65)));
        assert!(but(|p| p.reason = String::new()) && but(|p| p.span.to = p.span.from));
        assert!(sensible(&proposal("FM-1")).is_ok());
    }
}
