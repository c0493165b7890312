//! The last good plan on disk, so that an agent that starts without its collector goes on probing.

use std::io;
use std::path::Path;

use peil_proto::plan::Plan;

const FILE: &str = "plan.json";

/// Writes the plan beside its predecessor and renames it over: the old or the new one is there, never half.
///
/// # Errors
/// When the state directory cannot be written.
pub fn save(dir: &Path, plan: &Plan) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(plan).map_err(io::Error::other)?;
    let beside = dir.join(format!("{FILE}.new"));
    let file = std::fs::File::create(&beside)?;
    io::Write::write_all(&mut &file, &text)?;
    file.sync_all()?;
    std::fs::rename(beside, dir.join(FILE))
}

/// The last plan, if there is one that can still run. A damaged file is as good as none: the collector sends anew.
pub fn load(dir: &Path) -> Option<Plan> {
    let text = std::fs::read(dir.join(FILE)).ok()?;
    let mut plan: Plan = serde_json::from_slice(&text).ok()?;
    // What the program before this one did not know, this one may: no version, so the collector sends it again.
    if !plan.left_out().is_empty() {
        plan.version = 0;
    }
    plan.problems().is_empty().then_some(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::ids::CheckNo;
    use peil_proto::plan::{CheckDef, CheckKind, Tcp, Unknown};

    #[test]
    fn a_plan_reads_back_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().expect("directory");
        assert_eq!(load(dir.path()), None);
        let check = CheckDef {
            no: CheckNo(4),
            name: "ssh".into(),
            interval_ms: 15_000,
            timeout_ms: 3_000,
            kind: CheckKind::Tcp(Tcp { address: "localhost:22".into(), ..Tcp::default() }),
        };
        let mut plan = Plan { version: 9, checks: vec![check] };
        save(dir.path(), &plan).expect("written");
        assert_eq!(load(dir.path()).as_ref(), Some(&plan));
        plan.checks[0].kind = CheckKind::Unknown(Unknown { of_kind: "teapot".into(), why: "not known".into() });
        save(dir.path(), &plan).expect("written");
        assert_eq!(load(dir.path()).map(|plan| plan.version), Some(0), "an upgraded agent must be told again");
        std::fs::write(dir.path().join(FILE), "{\"version\":").expect("written");
        assert_eq!(load(dir.path()), None);
    }
}
