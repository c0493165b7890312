//! Who is connected now, and since when each agent was last heard: kept in memory, because a restart
//! must not remember connections that are gone. The last contact itself is stored with every commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peil_proto::ids::AgentId;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;
use tokio_util::sync::CancellationToken;

use crate::store::clocks::ClockSeen;

/// What is known of one agent's connection.
#[derive(Debug, Clone, Default)]
pub struct Contact {
    /// A stream is open.
    pub connected: bool,
    /// Last message.
    pub last: UtcTime,
    /// Host's clock minus ours at the greeting, ms.
    pub clock_ahead_ms: i64,
    /// Why it refused the last plan, or which checks of it it cannot run.
    pub plan_refused: Vec<String>,
    /// What is wrong with the checks of its host's own.
    pub local_problems: Vec<String>,
}

/// Runs of one agent that are remembered to recognise one that comes back.
const RUNS_MAX: usize = 8;

struct Entry {
    contact: Contact,
    /// The largest clock error that nobody has taken yet to keep it.
    clock: Option<ClockSeen>,
    /// Runs that greeted, the newest last.
    runs: Vec<u64>,
    session: u64,
    stop: CancellationToken,
}

/// Shared by ingest (writes) and the jobs (read). The lock is short and never held across an await.
#[derive(Clone, Default)]
pub struct Presence(Arc<Mutex<HashMap<AgentId, Entry>>>);

/// Given to a session; when it is dropped the agent counts as disconnected.
pub struct Session {
    presence: Presence,
    agent: AgentId,
    number: u64,
    /// Cancelled when a newer session of the same agent takes over.
    pub replaced: CancellationToken,
}

impl Presence {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream opened. An older one of the same agent is told to end: one agent, one stream. True when
    /// there was one, which after a lost connection is normal and otherwise means a cloned identity.
    pub fn enter(&self, agent: AgentId, at: UtcTime, clock_ahead_ms: i64) -> (Session, bool) {
        let mut agents = self.lock();
        let previous = agents.remove(&agent);
        let number = previous.as_ref().map_or(1, |entry| entry.session + 1);
        let was_connected = previous.as_ref().is_some_and(|entry| entry.contact.connected);
        if let Some(entry) = &previous {
            entry.stop.cancel();
        }
        let contact =
            Contact { connected: true, last: at, clock_ahead_ms, plan_refused: Vec::new(), local_problems: Vec::new() };
        let seen = ClockSeen { agent, at, ahead: Millis(clock_ahead_ms) };
        let clock = larger(previous.as_ref().and_then(|entry| entry.clock), seen);
        let stop = CancellationToken::new();
        let runs = previous.map(|entry| entry.runs).unwrap_or_default();
        agents.insert(agent, Entry { contact, clock: Some(clock), runs, session: number, stop: stop.clone() });
        (Session { presence: self.clone(), agent, number, replaced: stop }, was_connected)
    }

    /// What is known of each agent heard since this process started.
    pub fn contacts(&self) -> HashMap<AgentId, Contact> {
        self.lock().iter().map(|(agent, entry)| (*agent, entry.contact.clone())).collect()
    }

    /// Clock errors measured since this was asked last, the largest of each agent. Who cannot keep them gives them back.
    pub fn take_clocks(&self) -> Vec<ClockSeen> {
        self.lock().values_mut().filter_map(|entry| entry.clock.take()).collect()
    }

    /// As if these had not been taken.
    pub fn give_back_clocks(&self, clocks: Vec<ClockSeen>) {
        let mut agents = self.lock();
        for seen in clocks {
            if let Some(entry) = agents.get_mut(&seen.agent) {
                entry.clock = Some(larger(entry.clock, seen));
            }
        }
    }

    /// How many streams are open.
    pub fn connected(&self) -> usize {
        self.lock().values().filter(|entry| entry.contact.connected).count()
    }

    /// Ends the stream of an agent whose certificate was revoked.
    pub fn expel(&self, agent: AgentId) {
        if let Some(entry) = self.lock().get(&agent) {
            entry.stop.cancel();
        }
    }
}

fn larger(before: Option<ClockSeen>, seen: ClockSeen) -> ClockSeen {
    before.filter(|before| before.error() > seen.error()).unwrap_or(seen)
}

impl Session {
    fn change(&self, change: impl FnOnce(&mut Contact)) {
        if let Some(entry) = self.presence.lock().get_mut(&self.agent).filter(|entry| entry.session == self.number) {
            change(&mut entry.contact);
        }
    }

    /// Something was heard.
    pub fn heard(&self, at: UtcTime) {
        self.change(|contact| contact.last = at);
    }

    /// Which run of the agent this session is of; 0 when it does not tell. True when that run was followed by another
    /// before: an agent that was restarted never runs again, so two hosts use this identity at once.
    pub fn is_twin(&self, run: u64) -> bool {
        let mut twin = false;
        let mut agents = self.presence.lock();
        if let Some(entry) = agents.get_mut(&self.agent).filter(|entry| run != 0 && entry.session == self.number) {
            let before = entry.runs.iter().position(|known| *known == run);
            twin = before.is_some_and(|at| at + 1 < entry.runs.len());
            entry.runs.retain(|known| *known != run);
            entry.runs.push(run);
            let surplus = entry.runs.len().saturating_sub(RUNS_MAX);
            entry.runs.drain(..surplus);
        }
        twin
    }

    /// What is wrong with the checks of the host's own; the last good ones run.
    pub fn local_problems(&self, problems: Vec<String>) {
        self.change(|contact| contact.local_problems = problems);
    }

    /// The agent's answer to a plan.
    pub fn plan_answered(&self, refused: Vec<String>) {
        self.change(|contact| contact.plan_refused = refused);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.change(|contact| contact.connected = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_session_replaces_the_older_and_the_older_cannot_disconnect_it() {
        let presence = Presence::default();
        let agent = AgentId([1; 16]);
        let (first, was) = presence.enter(agent, UtcTime(1), 0);
        assert!(!was);
        let (second, was) = presence.enter(agent, UtcTime(2), 0);
        assert!(was && first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        drop(first);
        assert!(presence.contacts()[&agent].connected);
        drop(second);
        assert!(!presence.contacts()[&agent].connected);
    }

    #[test]
    fn a_run_that_comes_back_after_another_is_a_twin_and_a_restart_or_a_lost_connection_is_not() {
        let presence = Presence::default();
        let agent = AgentId([1; 16]);
        let greets = |run| presence.enter(agent, UtcTime(1), 0).0.is_twin(run);
        assert_eq!([1, 1, 2, 2, 3].map(greets), [false; 5], "connections lost, and two restarts");
        assert_eq!([0, 0].map(greets), [false; 2], "an agent that does not tell");
        assert_eq!([2, 3, 2, 4].map(greets), [true, true, true, false]);
        assert!(!(5..100).any(greets), "memory is bounded, and what is forgotten is no twin");
    }

    #[test]
    fn the_largest_clock_error_waits_until_it_is_kept() {
        let presence = Presence::default();
        let agent = AgentId([1; 16]);
        for ahead in [5, -80, 7] {
            drop(presence.enter(agent, UtcTime(1), ahead));
        }
        let taken = presence.take_clocks();
        assert_eq!(taken.iter().map(|seen| seen.ahead.0).collect::<Vec<_>>(), [-80]);
        assert_eq!(presence.take_clocks(), []);
        presence.give_back_clocks(taken.clone());
        drop(presence.enter(agent, UtcTime(2), 9));
        assert_eq!(presence.take_clocks(), taken, "the store was away meanwhile");
    }

    #[test]
    fn what_an_older_session_says_does_not_count_and_a_revoked_agent_is_sent_away() {
        let presence = Presence::default();
        let agent = AgentId([1; 16]);
        let (first, _) = presence.enter(agent, UtcTime(1), 0);
        first.plan_answered(vec!["no".to_owned()]);
        let (second, _) = presence.enter(agent, UtcTime(2), 5);
        first.heard(UtcTime(9));
        let contact = presence.contacts()[&agent].clone();
        assert_eq!((contact.last, contact.clock_ahead_ms, contact.plan_refused.len()), (UtcTime(2), 5, 0));
        presence.expel(AgentId([2; 16]));
        assert!(!second.replaced.is_cancelled());
        presence.expel(agent);
        assert!(second.replaced.is_cancelled());
        assert!(presence.contacts()[&agent].connected, "until its stream has ended");
    }
}
