//! Who is turned away although the certificate is good: revoked agents and revoked certificates.
//!
//! One shared value: whoever revokes calls [`Admission::revoke`] after the store has it, every later
//! handshake sees it. At start it is filled from the store. Reading is a short read lock and one look-up
//! per handshake; 100 000 revoked agents are a few megabytes.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use peil_proto::ids::AgentId;

use crate::pki::Serial;

/// Cheap to clone; clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    revoked: Arc<RwLock<Revoked>>,
}

#[derive(Debug, Default)]
struct Revoked {
    agents: HashSet<AgentId>,
    certificates: HashSet<Serial>,
}

impl Admission {
    /// Turns away an agent, whatever certificate it shows, from its next handshake on.
    pub fn revoke(&self, agent: AgentId) {
        self.write(|revoked| revoked.agents.insert(agent));
    }

    /// Turns away one certificate: its agent keeps any other it has.
    pub fn revoke_certificate(&self, serial: Serial) {
        self.write(|revoked| revoked.certificates.insert(serial));
    }

    /// Takes back a revocation of an agent.
    pub fn readmit(&self, agent: AgentId) {
        self.write(|revoked| revoked.agents.remove(&agent));
    }

    /// The whole truth from the store, in one step: nobody revoked in both is admitted in between.
    pub fn replace(&self, agents: HashSet<AgentId>, certificates: HashSet<Serial>) {
        self.write(|revoked| {
            *revoked = Revoked { agents, certificates };
            true
        });
    }

    /// True when neither the agent nor this certificate is revoked.
    pub fn admits(&self, agent: AgentId, serial: &Serial) -> bool {
        // A writer that panicked left a whole set: each write is one insertion, removal or swap.
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        !revoked.agents.contains(&agent) && !revoked.certificates.contains(serial)
    }

    fn write(&self, change: impl FnOnce(&mut Revoked) -> bool) {
        change(&mut self.revoked.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_seen_by_every_clone_and_can_be_taken_back() {
        let (agent, serial, other) = (AgentId([1; 16]), Serial::new(&[1]), Serial::new(&[2]));
        let admission = Admission::default();
        let seen = admission.clone();
        admission.revoke(agent);
        assert!(!seen.admits(agent, &serial));
        admission.readmit(agent);
        admission.revoke_certificate(serial.clone());
        assert_eq!((seen.admits(agent, &serial), seen.admits(agent, &other)), (false, true));
        admission.replace(HashSet::from([agent]), HashSet::new());
        assert!(!seen.admits(agent, &other));
    }
}
