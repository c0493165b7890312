//! Replacing the authority without a visit to the hosts: what there is at start, how far it is, and when the old one
//! may go.
//!
//! ```text
//! ca rotate   a new authority beside the old one; the store names it as the next
//!    │        collectors believe both; agents are asked to renew, get theirs from the next, trust both, come back
//! ca show     who has moved and who has not
//!    │
//! ca retire   the next is the one in force: collectors show certificates of it and believe no other;
//!             agents are asked once more, and trust only it
//! ```
//!
//! An agent has *moved* when it has come back with a certificate of the next authority: that it was given one proves
//! nothing, it may have lost it. Agents of a version that keeps one authority only never move; they are told by name,
//! and are to be upgraded, or enrolled again afterwards.
//!
//! Assumes that every collector of a database has the files of the next authority before agents move: one that has not
//! refuses the agents that did. On a shared database `ca rotate` therefore stops after making the files and goes on
//! with `--copied`.
//!
//! Deliberately absent: retiring by itself. Somebody has to decide who may be cut off.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use crate::app::AUTHORITY;
use crate::pki::authorities;
use crate::pki::{Authorities, Authority};
use crate::store::Store;
use crate::store::agents::AgentRow;
use crate::store::authorities::Named;

/// The authorities of this installation; the first one is made when there is none yet.
///
/// # Errors
/// When the one in force is not in `directory`, or the store cannot be asked.
pub async fn open(store: &Store, directory: &Path, now: UtcTime) -> anyhow::Result<Authorities> {
    let named = match store.authorities().await? {
        Some(named) => named,
        None => {
            let first = Authority::open_or_create(directory, AUTHORITY, now)?;
            Named { in_force: store.settle_authority(first.fingerprint()).await?, next: None }
        }
    };
    Ok(Authorities::open(directory, named, now)?)
}

/// Agents that stay behind when the old authority goes, and may be cut off or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behind {
    /// They would be cut off, and nobody said that they may.
    pub in_the_way: Vec<AgentRow>,
    /// They are cut off with the operator's consent: named, or not heard for long enough.
    pub given_up: BTreeSet<AgentId>,
}

/// Who has not moved to the next authority. `heard_within` gives up agents that were not heard for longer.
pub fn behind(
    agents: Vec<AgentRow>,
    named: Named,
    given_up: &BTreeSet<AgentId>,
    heard_within: Option<Millis>,
    now: UtcTime,
) -> Behind {
    let next = named.next.map(|next| next.to_string());
    let mut behind = Behind::default();
    let unmoved = agents.into_iter().filter(|row| row.revoked_at.is_none() && Some(&row.authority) != next.as_ref());
    for row in unmoved {
        let last = row.last_contact.unwrap_or(row.enrolled_at);
        let is_gone = heard_within.is_some_and(|patience| now.since(last).0 > patience.0);
        if is_gone || given_up.contains(&row.agent) {
            behind.given_up.insert(row.agent);
        } else {
            behind.in_the_way.push(row);
        }
    }
    behind
}

/// What `ca rotate` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Agents move from now on.
    Moving,
    /// The files are there; they have to be copied to the other collectors first.
    CopyFirst(std::path::PathBuf),
}

/// Makes the next authority, or finds the one an earlier call made, and begins to move agents to it when every
/// collector has it: `is_shared` says that there may be others, `copied` that they were seen to.
///
/// # Errors
/// When a rotation is under way, and as the store and the keys.
pub async fn begin(
    store: &Store,
    directory: &Path,
    is_shared: bool,
    copied: bool,
    now: UtcTime,
    by: &str,
) -> anyhow::Result<Begun> {
    let named = open(store, directory, now).await?.named();
    anyhow::ensure!(named.next.is_none(), "agents are being moved already; `ca show` tells how far they are");
    let waiting = directory.join("next");
    let left = match std::fs::read_to_string(&waiting) {
        Ok(hex) => Some(hex.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", waiting.display())),
    };
    // One that stayed when an earlier rotation ended is not the next one.
    let next = match left.filter(|hex| *hex != named.in_force.to_string()) {
        Some(hex) => hex,
        None => {
            let day: String = now.to_string().chars().take(10).collect();
            let (_, made) = authorities::make_another(directory, &format!("{AUTHORITY} {day}"), now)?;
            let hex = made.fingerprint().to_string();
            std::fs::write(&waiting, &hex).with_context(|| format!("cannot write {}", waiting.display()))?;
            hex
        }
    };
    let next = peil_proto::token::CaFingerprint::parse(&next)
        .with_context(|| format!("{} is damaged; remove it", waiting.display()))?;
    let file = authorities::file_of(directory, next)?
        .with_context(|| format!("the authority {next} of {} is gone; remove that file", waiting.display()))?;
    if is_shared && !copied {
        return Ok(Begun::CopyFirst(file));
    }
    store.begin_rotation(next, now, by).await?;
    std::fs::remove_file(&waiting).with_context(|| format!("cannot remove {}", waiting.display()))?;
    Ok(Begun::Moving)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::token::CaFingerprint;

    const OLD: CaFingerprint = CaFingerprint([1; 32]);
    const NEXT: CaFingerprint = CaFingerprint([2; 32]);
    const NOW: UtcTime = UtcTime(1_774_994_400_000);

    fn agent(no: u8, authority: &str, heard_days_ago: i64) -> AgentRow {
        AgentRow {
            agent: AgentId([no; 16]),
            hostname: format!("host-{no}"),
            group: String::new(),
            enrolled_at: UtcTime(0),
            revoked_at: None,
            last_contact: Some(NOW.plus(Millis(-heard_days_ago * Millis::DAY.0))),
            cert_serial: "01".to_owned(),
            cert_not_after: NOW,
            authority: authority.to_owned(),
            labels: peil_proto::labels::Labels::default(),
            copied: None,
        }
    }

    #[test]
    fn who_has_not_come_back_under_the_next_authority_is_in_the_way_unless_given_up() {
        let named = Named { in_force: OLD, next: Some(NEXT) };
        let revoked = AgentRow { revoked_at: Some(NOW), ..agent(5, "", 0) };
        let agents = vec![agent(1, &NEXT.to_string(), 0), agent(2, &OLD.to_string(), 0), agent(3, "", 40), revoked];
        let in_the_way = |given_up: &[u8], patience: Option<i64>| {
            let given_up = given_up.iter().map(|no| AgentId([*no; 16])).collect();
            let patience = patience.map(|days| Millis(days * Millis::DAY.0));
            let behind = behind(agents.clone(), named, &given_up, patience, NOW);
            (behind.in_the_way.iter().map(|row| row.agent.0[0]).collect::<Vec<_>>(), behind.given_up.len())
        };
        assert_eq!(in_the_way(&[], None), (vec![2, 3], 0));
        assert_eq!(in_the_way(&[], Some(30)), (vec![2], 1));
        assert_eq!(in_the_way(&[], Some(40)), (vec![2, 3], 0), "forty days are not more than forty");
        assert_eq!(in_the_way(&[2], Some(30)), (vec![], 2));
    }

    #[tokio::test]
    async fn on_a_shared_database_agents_move_only_after_the_files_were_copied_and_the_same_authority_is_meant() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("opens");
        let pki = dir.path().join("pki");
        let first = open(&store, &pki, NOW).await.expect("made").named();
        let file = match begin(&store, &pki, true, false, NOW, "test").await.expect("begins") {
            Begun::CopyFirst(file) => file,
            Begun::Moving => panic!("nobody said that the files were copied"),
        };
        assert_eq!(open(&store, &pki, NOW).await.expect("opens").named(), first);
        let again = begin(&store, &pki, true, false, NOW, "test").await.expect("again");
        assert_eq!(again, Begun::CopyFirst(file.clone()), "not a third authority");
        assert_eq!(begin(&store, &pki, true, true, NOW, "test").await.expect("moves"), Begun::Moving);
        let both = open(&store, &pki, NOW).await.expect("opens");
        let next = both.named().next.expect("named");
        assert_eq!(authorities::file_of(&pki, next).expect("read"), Some(file));
        assert!(both.is_rotating());
        let refused = begin(&store, &pki, true, true, NOW, "test").await.expect_err("under way");
        assert!(refused.to_string().contains("being moved already"), "{refused}");
    }
}
