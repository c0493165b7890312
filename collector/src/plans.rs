//! Which agent runs what: the configured checks with their numbers, cut to each agent.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use peil_proto::ids::{AgentId, CheckNo};
use peil_proto::plan::Plan;

use crate::config::Check;

/// All checks with their numbers, and the group of each agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plans {
    checks: Vec<Check>,
    groups: BTreeMap<AgentId, String>,
}

impl Plans {
    /// `numbers` comes from the store and covers every check.
    pub fn new(
        checks: &BTreeMap<String, Check>,
        numbers: &BTreeMap<String, CheckNo>,
        groups: BTreeMap<AgentId, String>,
    ) -> Self {
        let numbered = checks.values().filter_map(|check| {
            let mut check = check.clone();
            check.def.no = *numbers.get(&check.def.name)?;
            Some(check)
        });
        Self { checks: numbered.collect(), groups }
    }

    /// The plan of one agent. Its version is a digest of the content, so the same plan never travels twice.
    pub fn for_agent(&self, agent: AgentId, hostname: &str) -> Plan {
        let group = self.groups.get(&agent).map_or("", String::as_str);
        let checks: Vec<_> =
            self.checks.iter().filter(|check| check.is_for(hostname, group)).map(|check| check.def.clone()).collect();
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
        let grouped = Plans::new(&checks, &numbers, BTreeMap::from([(agent, "db".to_owned())]));
        let (one, two) = (plain.for_agent(agent, "x"), grouped.for_agent(agent, "x"));
        assert_eq!((one.checks.len(), two.checks.len()), (1, 2));
        assert_ne!(one.version, two.version);
        assert_eq!(plain.for_agent(agent, "x"), one);
    }
}
