//! What was last seen of each check, kept over a restart: its outcome, certificate, and the label of its last tick.
//!
//! Without it every start would look like a change of everything: all details told again, all first failures taken for new ones. The
//! file is small, replaced as a whole and not synced: losing it costs a round of details, nothing else.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use peil_proto::ids::CheckNo;
use peil_proto::plan::Plan;
use peil_proto::sample::{FailureKind, NotRun, Outcome};
use peil_proto::time::UtcTime;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Name of the file in the state directory.
const FILE: &str = "seen.json";
/// Larger is not ours.
const BYTES_MAX: u64 = 16 << 20;

/// What was last seen of a check, to know a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) outcome: Option<Outcome>,
    pub(super) certificate: Option<[u8; 32]>,
    /// When the detail was told last.
    pub(super) told: Option<UtcTime>,
    /// Label of the newest tick.
    pub(super) label: Option<UtcTime>,
}

/// [`Seen`] as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Line {
    /// 0 up, 1 failed, 2 not run; kind; the protocol's own number.
    outcome: Option<(u8, u8, u16)>,
    certificate: Option<String>,
    told_ms: Option<i64>,
    label_ms: Option<i64>,
}

/// Writes what was seen, by name: numbers may change with the plan.
pub(super) fn save(dir: &Path, plan: &Plan, seen: &HashMap<CheckNo, Seen>) {
    let lines: BTreeMap<&str, Line> =
        plan.checks.iter().filter_map(|check| Some((check.name.as_str(), line(seen.get(&check.no)?)))).collect();
    let beside = dir.join(format!("{FILE}.new"));
    let written = serde_json::to_vec(&lines)
        .map_err(std::io::Error::other)
        .and_then(|text| std::fs::write(&beside, text))
        .and_then(|()| std::fs::rename(&beside, dir.join(FILE)));
    if let Err(error) = written {
        warn!(%error, "what was last seen of each check cannot be kept; after a restart it is told again");
    }
}

/// What was seen before the restart of the checks in `plan`. A damaged file is as good as none.
pub(super) fn load(dir: &Path, plan: &Plan) -> HashMap<CheckNo, Seen> {
    let path = dir.join(FILE);
    let fits = std::fs::metadata(&path).is_ok_and(|facts| facts.len() <= BYTES_MAX);
    let text = if fits { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
    let lines: HashMap<String, Line> = serde_json::from_slice(&text).unwrap_or_default();
    plan.checks.iter().filter_map(|check| Some((check.no, seen(lines.get(&check.name)?)))).collect()
}

fn line(seen: &Seen) -> Line {
    Line {
        outcome: seen.outcome.map(|outcome| match outcome {
            Outcome::Up { code } => (0, 0, code),
            Outcome::Failed { kind, code } => (1, kind.code(), code),
            Outcome::NotRun(why) => (2, why.code(), 0),
        }),
        certificate: seen.certificate.map(|sha256| data_encoding::HEXLOWER.encode(&sha256)),
        told_ms: seen.told.map(|at| at.0),
        label_ms: seen.label.map(|at| at.0),
    }
}

fn seen(line: &Line) -> Seen {
    let outcome = line.outcome.and_then(|outcome| match outcome {
        (0, _, code) => Some(Outcome::Up { code }),
        (1, kind, code) => Some(Outcome::Failed { kind: FailureKind::from_code(kind)?, code }),
        (_, why, _) => Some(Outcome::NotRun(NotRun::from_code(why)?)),
    });
    let certificate = line.certificate.as_deref().and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok());
    Seen {
        outcome,
        certificate: certificate.and_then(|bytes| bytes.try_into().ok()),
        told: line.told_ms.map(UtcTime),
        label: line.label_ms.map(UtcTime),
    }
}

#[cfg(test)]
mod tests {
    use peil_proto::plan::{CheckDef, CheckKind};

    use super::*;

    fn plan(no: u32) -> Plan {
        let kind = CheckKind::Tcp(peil_proto::plan::Tcp { address: "h:1".into(), ..peil_proto::plan::Tcp::default() });
        Plan {
            version: 1,
            checks: vec![CheckDef {
                no: CheckNo(no),
                name: "web".into(),
                interval_ms: 60_000,
                timeout_ms: 1_000,
                kind,
            }],
        }
    }

    #[test]
    fn what_was_seen_survives_a_restart_under_the_name_of_the_check() {
        let dir = tempfile::tempdir().expect("directory");
        assert_eq!(load(dir.path(), &plan(1)), HashMap::new());
        for outcome in [
            Outcome::Up { code: 204 },
            Outcome::Failed { kind: FailureKind::Refused, code: 0 },
            Outcome::NotRun(NotRun::Overrun),
        ] {
            let seen = Seen {
                outcome: Some(outcome),
                certificate: Some([7; 32]),
                told: Some(UtcTime(1)),
                label: Some(UtcTime(2)),
            };
            save(dir.path(), &plan(1), &HashMap::from([(CheckNo(1), seen.clone())]));
            assert_eq!(load(dir.path(), &plan(9)), HashMap::from([(CheckNo(9), seen)]));
        }
        for text in ["", "{", "[]", r#"{"web": 7}"#] {
            std::fs::write(dir.path().join(FILE), text).expect("written");
            assert_eq!(load(dir.path(), &plan(1)), HashMap::new(), "{text}");
        }
    }
}
