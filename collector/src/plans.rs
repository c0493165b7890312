//! Which agent runs what: the configured checks with their numbers, cut to each agent.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::labels::Labels;
use peil_proto::plan::Plan;

use crate::config::Check;
use crate::store::agents::AgentRow;

/// All checks with their numbers, and what is known of each agent's host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plans {
    checks: Vec<Check>,
    hosts: BTreeMap<AgentId, Placed>,
}

/// What of a host decides which checks it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// The group its token was made for.
    pub group: String,
    /// What it is for, as the store has it.
    pub labels: Labels,
}

/// Of the rows of the store, what plans depend on.
pub fn placed(agents: Vec<AgentRow>) -> BTreeMap<AgentId, Placed> {
    agents.into_iter().map(|row| (row.agent, Placed { group: row.group, labels: row.labels })).collect()
}

impl Plans {
    /// `numbers` comes from the store and covers every check.
    pub fn new(
        checks: &BTreeMap<String, Check>,
        numbers: &BTreeMap<String, CheckNo>,
        hosts: BTreeMap<AgentId, Placed>,
    ) -> Self {
        let numbered = checks.values().filter_map(|check| {
            let mut check = check.clone();
            check.def.no = *numbers.get(&check.def.name)?;
            Some(check)
        });
        Self { checks: numbered.collect(), hosts }
    }

    /// The labels of an agent's host that the store is known to have.
    pub fn labels_of(&self, agent: AgentId) -> Option<&Labels> {
        self.hosts.get(&agent).map(|host| &host.labels)
    }

    /// The checks of an agent's own that are in force.
    pub fn local_to(&self, agent: AgentId) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.local_to() == Some(agent))
    }

    /// The plan of one agent, whose host has just told its labels. Its version is a digest of the content, so the same
    /// plan never travels twice.
    pub fn for_agent(&self, agent: AgentId, hostname: &str, labels: &Labels) -> Plan {
        let group = self.hosts.get(&agent).map_or("", |host| &host.group);
        let ours = self.checks.iter().filter(|check| check.is_for(agent, hostname, group, labels));
        let checks: Vec<_> = ours.map(|check| check.def.clone()).collect();
        let mut digest = DefaultHasher::new();
        format!("{checks:?}").hash(&mut digest);
        Plan { version: digest.finish().max(1), checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_version_changes_with_the_content_and_only_then() {
        let config = Config::parse(
            "c",
            "[[check]]\nname='a'\nkind='tcp'\naddress='h:1'\n[[check]]\nname='b'\nkind='tcp'\naddress='h:2'\nagents=['db']\n",
        );
        let checks = config.expect("valid").checks;
        let numbers = BTreeMap::from([("a".to_owned(), CheckNo(1)), ("b".to_owned(), CheckNo(2))]);
        let agent = AgentId([1; 16]);
        let plain = Plans::new(&checks, &numbers, BTreeMap::new());
        let grouped = Plans::new(
            &checks,
            &numbers,
            BTreeMap::from([(agent, Placed { group: "db".to_owned(), labels: Labels::default() })]),
        );
        let none = Labels::default();
        let (one, two) = (plain.for_agent(agent, "x", &none), grouped.for_agent(agent, "x", &none));
        assert_eq!((one.checks.len(), two.checks.len()), (1, 2));
        assert_ne!(one.version, two.version);
        assert_eq!(plain.for_agent(agent, "x", &none), one);
    }
}
