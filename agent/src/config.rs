//! The agent's settings: `agent.toml`, read in one go, every mistake in one answer.
//!
//! What to probe is not here: checks are pushed by the collector (and the last plan is kept on disk).
//! Here stands what only this host can decide: where the collector is, where state lives, and what a
//! pushed plan may ask of this host (`[policy]`).

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use peil_proto::labels::Labels;
use peil_proto::plan::{CheckDef, CheckKind};
use peil_proto::settings::{Document, Fields, Mistakes, Refused, read_file};
use peil_proto::time::WallClock;
use peil_proto::units::Millis;

use crate::energy;
use crate::probe::{AddressPolicy, Local, ProbeContext};
use crate::runner::Confirm;
use crate::spool::Limits;

/// Where the settings are looked for when `--config` does not say.
pub const DEFAULT_PATH: &str = "/etc/peil/agent.toml";
/// Beside the settings: the policy in a file of its own, which only root can change, while somebody else may keep the
/// settings. It takes the place of `[policy]`.
pub const POLICY_FILE: &str = "policy.toml";

/// Beside the settings: files with checks of this host's own.
pub const LOCAL_CHECKS: &str = "conf.d";

/// Valid settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the collector listens for agents, `https://host:port`.
    pub collector: String,
    /// Identity, spool, last plan and energy baseline live here.
    pub state_dir: PathBuf,
    /// Routine successes wait this long for their batch; failures and changes leave at once.
    pub batch_every: Millis,
    /// How long a stopping agent may take to sync and hand over its last records.
    pub grace: Millis,
    /// Bounds of the spool.
    pub spool: Limits,
    /// Unacked records older than this are dropped, and a gap says so.
    pub spool_age_max: Millis,
    /// Patch level.
    pub patch: Patch,
    /// Energy.
    pub energy: energy::Settings,
    /// What a pushed plan may ask for.
    pub policy: Policy,
    /// How this host probes.
    pub probing: Probing,
    /// What this host is for: checks ask for it.
    pub labels: Labels,
    /// Where checks of this host's own are: `conf.d` beside the settings.
    pub local_checks: PathBuf,
}

/// How this host probes, whatever is pushed.
#[derive(Debug, Clone)]
pub struct Probing {
    /// How first failures are looked at again.
    pub confirm: Confirm,
    /// Targets that tell whether this host's own network is up.
    pub references: Vec<SocketAddr>,
    /// Names of checks that run at every tick, however busy the agent is.
    pub always: Vec<String>,
}

impl Default for Probing {
    fn default() -> Self {
        let confirm = Confirm { attempts: 2, every: Millis::from_secs(5) };
        Self { confirm, references: Vec::new(), always: Vec::new() }
    }
}

/// How the patch level is read.
#[derive(Debug, Clone)]
pub struct Patch {
    /// Off means: no report at all, and the host's level shows as unknown.
    pub enabled: bool,
    /// Root of the file system to read.
    pub root: PathBuf,
    /// How often the files are looked at; nothing is parsed while they are unchanged.
    pub every: Millis,
}

/// The upper bound on what the collector can push.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Kinds of check that may run here.
    pub kinds: Vec<String>,
    /// Shortest interval a check may have.
    pub interval_min: Millis,
    /// Networks (`10.0.0.0/8`) that may be probed; empty means any but link-local and cloud metadata.
    pub networks: Vec<Network>,
    /// Probes in flight at once; further ones wait for a slot.
    pub in_flight_max: usize,
    /// Where on this host a probe may look for what a plan only names.
    pub local: Local,
}

impl Policy {
    /// Whether a pushed check may run here.
    pub fn allows(&self, check: &CheckDef) -> bool {
        // What this program does not know cannot run; its ticks say so themselves, and better than "policy" does.
        let known = |kind: &String| kind == check.kind.name();
        (self.kinds.iter().any(known) || matches!(check.kind, CheckKind::Unknown(_)))
            && i64::from(check.interval_ms) >= self.interval_min.0
    }

    /// What probes share on this host.
    pub fn probe_context(&self, clock: WallClock) -> ProbeContext {
        ProbeContext::on_host(clock, self.addresses(), self.local.clone())
    }

    /// Which addresses may be dialled.
    pub fn addresses(&self) -> AddressPolicy {
        if self.networks.is_empty() { AddressPolicy::DenyLinkLocal } else { AddressPolicy::Only(self.networks.clone()) }
    }
}

/// An address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Reads `192.0.2.0/24`, `2001:db8::/32` or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(longest), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= longest))?;
        Some(Self { address, prefix })
    }

    /// Whether `ip` lies in the range; IPv4 written as IPv6 counts as IPv4.
    pub fn contains(self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(self.prefix);
                net.to_bits().checked_shr(shift).unwrap_or(0) == ip.to_bits().checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(self.prefix);
                net.to_bits().checked_shr(shift).unwrap_or(0) == ip.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

impl Config {
    /// Reads and checks a settings file, and [`POLICY_FILE`] beside it when there is one.
    ///
    /// # Errors
    /// Every mistake in each file, each with its line and remedy.
    pub fn load(path: &Path) -> Result<Self, Refused> {
        let text = read_file(path)?;
        let mut config = Self::parse(&path.display().to_string(), &text)?;
        let beside = path.with_file_name(POLICY_FILE);
        if let Ok(facts) = std::fs::metadata(&beside) {
            let has_one = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("policy"));
            config.policy = parse_policy(&beside, Keeper::of(&facts), has_one)?;
        }
        Ok(config)
    }

    /// Checks settings that are already in memory; `name` is how messages call them.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, Refused> {
        let mistakes = Mistakes::new(name);
        let mut root = Document::toml(text, &mistakes).fields(&mistakes);
        let collector = root.need("collector").and_then(|node| {
            let url = node.as_str(&mistakes)?.trim_end_matches('/').to_owned();
            let authority = url.strip_prefix("https://").filter(|rest| !rest.contains('/'));
            if authority.and_then(peil_proto::plan::split_address).is_none() {
                node.refuse(
                    &mistakes,
                    format_args!("is {url:?}; it must be \"https://host:port\" of the collector's agent listener"),
                );
            }
            Some(url)
        });
        let state_dir = root.str_or("state_dir", "/var/lib/peil-agent");
        let batch_every = Millis::from_secs(root.int_or("batch_s", 1..=60, 10));
        let grace = Millis::from_secs(root.int_or("grace_s", 1..=60, 5));
        let (spool, spool_age_max) = read_spool(root.table("spool"));
        let patch = read_patch(root.table("patch"));
        let energy = match root.table("energy") {
            Some(mut fields) => {
                let settings = energy::Settings::read(&mut fields);
                fields.finish();
                settings
            }
            None => energy::Settings::default(),
        };
        let mut policy = read_policy(root.table("policy"));
        policy.local.reports_dir = PathBuf::from(&state_dir).join("reports");
        let probing = read_probing(root.table("probing"));
        let labels = root.table("labels").map(Labels::read).unwrap_or_default();
        root.finish();
        let config = Self {
            collector: collector.unwrap_or_default(),
            state_dir: state_dir.into(),
            batch_every,
            grace,
            spool,
            spool_age_max,
            patch,
            energy,
            policy,
            probing,
            labels,
            local_checks: Path::new(name).with_file_name(LOCAL_CHECKS),
        };
        mistakes.into_result(config)
    }
}

/// Who can change a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Keeper {
    owner: u32,
    mode: u32,
}

impl Keeper {
    fn of(facts: &std::fs::Metadata) -> Self {
        Self { owner: facts.uid(), mode: facts.mode() }
    }

    /// Only root, so that neither a collector nor the agent itself can widen what it may do.
    fn is_root_alone(self) -> bool {
        self.owner == 0 && self.mode & 0o022 == 0
    }
}

/// The policy of a file of its own: the keys of `[policy]` without that heading.
fn parse_policy(path: &Path, keeper: Keeper, settings_have_one: bool) -> Result<Policy, Refused> {
    let mistakes = Mistakes::new(path.display().to_string());
    if !keeper.is_root_alone() {
        mistakes.add(0, "must belong to root and be writable by nobody else: chown root and chmod go-w");
    }
    if settings_have_one {
        mistakes.add(0, "is the policy of this host; take [policy] out of the settings beside it");
    }
    let text = read_file(path)?;
    let policy = read_policy(Some(Document::toml(&text, &mistakes).fields(&mistakes)));
    mistakes.into_result(policy)
}

fn read_spool(fields: Option<Fields<'_>>) -> (Limits, Millis) {
    let standard = Limits::of_bytes(64 << 20);
    let age_max = |days: i64| Millis(days * Millis::DAY.0);
    let Some(mut fields) = fields else { return (standard, age_max(14)) };
    let mib = |bytes: u64| i64::try_from(bytes >> 20).unwrap_or(i64::MAX);
    let bytes_max = fields.int_or("bytes_max_mib", 8..=1 << 20, mib(standard.bytes_max)).unsigned_abs() << 20;
    let keep_free = fields.int_or("keep_free_mib", 0..=1 << 20, mib(standard.keep_free_bytes)).unsigned_abs() << 20;
    let days = fields.int_or("age_max_days", 1..=366, 14);
    fields.finish();
    (Limits { keep_free_bytes: keep_free, ..Limits::of_bytes(bytes_max) }, age_max(days))
}

fn read_patch(fields: Option<Fields<'_>>) -> Patch {
    let mut patch = Patch { enabled: true, root: "/".into(), every: Millis::HOUR };
    if let Some(mut fields) = fields {
        patch.enabled = fields.bool_or("enabled", patch.enabled);
        patch.root = fields.str_or("root", "/").into();
        patch.every = Millis::from_secs(fields.int_or("interval_s", 10..=86_400, 3_600));
        fields.finish();
    }
    patch
}

fn read_probing(fields: Option<Fields<'_>>) -> Probing {
    let mut probing = Probing::default();
    let Some(mut fields) = fields else { return probing };
    let mistakes = fields.mistakes();
    probing.confirm.attempts = u32::try_from(fields.int_or("confirm_attempts", 0..=10, 2)).unwrap_or(2);
    probing.confirm.every = Millis::from_secs(fields.int_or("confirm_every_s", 1..=60, 5));
    for item in fields.take("references").map(|node| node.into_list(mistakes)).unwrap_or_default() {
        let Some(text) = item.as_str(mistakes) else { continue };
        match text.parse() {
            Ok(address) => probing.references.push(address),
            Err(_) => item.refuse(
                mistakes,
                format_args!("is {text:?}; it must be an address with a port, such as \"192.0.2.1:53\": names are not looked up for this"),
            ),
        }
    }
    let always = fields.take("always").map(|node| node.into_list(mistakes)).unwrap_or_default();
    probing.always = always.iter().filter_map(|item| item.as_str(mistakes).map(str::to_owned)).collect();
    fields.finish();
    probing
}

fn read_policy(fields: Option<Fields<'_>>) -> Policy {
    let kinds = || crate::probe::KINDS.iter().map(|kind| kind.name.to_owned()).collect();
    let mut policy = Policy {
        kinds: kinds(),
        interval_min: Millis::SECOND,
        networks: Vec::new(),
        in_flight_max: 64,
        local: Local::default(),
    };
    let Some(mut fields) = fields else { return policy };
    let mistakes = fields.mistakes();
    if let Some(node) = fields.take("kinds") {
        let words: Vec<_> = crate::probe::KINDS.iter().map(|kind| (kind.name, kind.name.to_owned())).collect();
        policy.kinds = node.into_list(mistakes).iter().filter_map(|item| item.as_word(mistakes, &words)).collect();
    }
    policy.interval_min = Millis::from_secs(fields.int_or("interval_min_s", 1..=86_400, 1));
    policy.in_flight_max = usize::try_from(fields.int_or("in_flight_max", 1..=64, 64)).unwrap_or(64);
    for item in fields.take("networks").map(|node| node.into_list(mistakes)).unwrap_or_default() {
        let Some(text) = item.as_str(mistakes) else { continue };
        match Network::parse(text) {
            Some(network) => policy.networks.push(network),
            None => item.refuse(mistakes, format_args!("is {text:?}; it must be a network such as \"10.0.0.0/8\"")),
        }
    }
    if let Some(dir) = fields.str("secrets_dir") {
        policy.local.secrets_dir = dir.into();
    }
    if let Some(path) = fields.str("commands_file") {
        policy.local.commands_file = path.into();
    }
    fields.finish();
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_enough() {
        let config = Config::parse("agent.toml", "collector = 'https://peil.example.org:7443'").expect("valid");
        assert_eq!(config.batch_every, Millis::from_secs(10));
        assert_eq!(config.policy.in_flight_max, 64);
    }

    #[test]
    fn three_mistakes_are_answered_at_once() {
        let text = "collector = 'http://x'\nbatch_s = 900\n[policy]\nkinds = ['htp']\nnetworks = ['10.0.0.0/40']\n";
        let refused = Config::parse("agent.toml", text).expect_err("mistakes").to_string();
        for part in [
            "collector is \"http://x\"",
            "line 1",
            "batch_s is 900",
            "line 2",
            "policy.kinds[0] is \"htp\"",
            "policy.networks[0]",
        ] {
            assert!(refused.contains(part), "{part} is missing in: {refused}");
        }
    }

    #[test]
    fn f26_a_policy_of_its_own_caps_the_host_and_only_root_may_change_it() {
        let place = tempfile::tempdir().expect("directory");
        let path = place.path().join(POLICY_FILE);
        std::fs::write(&path, "kinds = ['tcp']\ninterval_min_s = 30\n").expect("written");
        let root = Keeper { owner: 0, mode: 0o100_644 };
        let policy = parse_policy(&path, root, false).expect("good");
        assert_eq!((policy.kinds, policy.interval_min), (vec!["tcp".to_owned()], Millis::from_secs(30)));
        for (keeper, settings_have_one, why) in [
            (Keeper { owner: 1_000, ..root }, false, "must belong to root"),
            (Keeper { mode: 0o100_664, ..root }, false, "must belong to root"),
            (root, true, "take [policy] out"),
        ] {
            let refused = parse_policy(&path, keeper, settings_have_one).expect_err(why).to_string();
            assert!(refused.contains(why) && refused.contains(POLICY_FILE), "{refused}");
        }
        std::fs::write(&path, "kinds = ['tcp']\nkind = 1\n").expect("written");
        let refused = parse_policy(&path, root, false).expect_err("unknown key").to_string();
        assert!(refused.contains("line 2"), "{refused}");
    }

    #[test]
    fn the_policy_caps_every_kind_and_hides_no_check_that_is_not_known_here() {
        use peil_proto::ids::CheckNo;
        use peil_proto::plan::Unknown;
        let text = "collector = 'https://a:1'\n[policy]\nkinds = ['http', 'mount']\ninterval_min_s = 60\n";
        let policy = Config::parse("agent.toml", text).expect("valid").policy;
        let check =
            |kind, interval_ms| CheckDef { no: CheckNo(1), name: "a".into(), interval_ms, timeout_ms: 500, kind };
        for word in CheckKind::WORDS {
            let kind = || CheckKind::from_options(word, "{}");
            assert_eq!(policy.allows(&check(kind(), 60_000)), ["http", "mount"].contains(word), "{word}");
            assert!(!policy.allows(&check(kind(), 59_999)), "{word} too often");
        }
        assert!(policy.allows(&check(CheckKind::Unknown(Unknown::default()), 60_000)), "its ticks tell why themselves");
        assert_eq!(policy.local.reports_dir, Path::new("/var/lib/peil-agent/reports"));
    }

    #[test]
    fn networks_hold_their_addresses() {
        let ten = Network::parse("10.0.0.0/8").expect("a network");
        assert!(ten.contains("10.9.8.7".parse().expect("ip")));
        assert!(ten.contains("::ffff:10.9.8.7".parse().expect("ip")), "IPv4 in disguise is still IPv4");
        assert!(!ten.contains("11.0.0.1".parse().expect("ip")));
        assert!(Network::parse("0.0.0.0/0").expect("all").contains("1.2.3.4".parse().expect("ip")));
        assert_eq!(Network::parse("10.0.0.0/33"), None);
    }
}
