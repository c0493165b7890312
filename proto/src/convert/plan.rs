//! The plan on its way to an agent.

use crate::ids::CheckNo;
use crate::plan::{CheckDef, CheckKind, Plan};
use crate::wire;

/// A plan as it is pushed.
pub fn plan_to_wire(plan: &Plan) -> wire::Plan {
    wire::Plan { version: plan.version, checks: plan.checks.iter().map(check_to).collect() }
}

fn check_to(check: &CheckDef) -> wire::Check {
    use wire::check::Kind as Wire;
    let kind = match check.kind.clone() {
        CheckKind::Http { url, status, contains, ca_file, cert_days_min } => Wire::Http(wire::HttpCheck {
            url,
            status: status
                .into_iter()
                .map(|(from, to)| wire::StatusRange { from: from.into(), to: to.into() })
                .collect(),
            contains,
            ca_file,
            cert_days_min: cert_days_min.map(u32::from),
        }),
        CheckKind::Tcp { address } => Wire::Tcp(wire::TcpCheck { address }),
        CheckKind::Tls { address, server_name, ca_file, cert_days_min } => {
            Wire::Tls(wire::TlsCheck { address, server_name, ca_file, cert_days_min: cert_days_min.map(u32::from) })
        }
    };
    wire::Check {
        no: check.no.0,
        name: check.name.clone(),
        interval_ms: check.interval_ms,
        timeout_ms: check.timeout_ms,
        kind: Some(kind),
    }
}

/// A pushed plan, refused with every reason when it cannot run.
///
/// # Errors
/// One sentence per problem.
pub fn plan_from_wire(plan: wire::Plan) -> Result<Plan, Vec<String>> {
    let mut problems = Vec::new();
    let mut checks = Vec::with_capacity(plan.checks.len());
    for check in plan.checks {
        let name = check.name.clone();
        match check_from(check) {
            Some(check) => checks.push(check),
            None => problems.push(format!(
                "check {name}: a kind or value this agent does not know; is the agent older than the collector?"
            )),
        }
    }
    let plan = Plan { version: plan.version, checks };
    problems.extend(plan.problems());
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

fn check_from(check: wire::Check) -> Option<CheckDef> {
    use wire::check::Kind as Wire;
    let days = |days: Option<u32>| days.map(u16::try_from).transpose().ok();
    let kind = match check.kind? {
        Wire::Http(http) => {
            let range =
                |range: &wire::StatusRange| Some((u16::try_from(range.from).ok()?, u16::try_from(range.to).ok()?));
            CheckKind::Http {
                status: http.status.iter().map(range).collect::<Option<_>>()?,
                cert_days_min: days(http.cert_days_min)?,
                url: http.url,
                contains: http.contains,
                ca_file: http.ca_file,
            }
        }
        Wire::Tcp(tcp) => CheckKind::Tcp { address: tcp.address },
        Wire::Tls(tls) => CheckKind::Tls {
            cert_days_min: days(tls.cert_days_min)?,
            address: tls.address,
            server_name: tls.server_name,
            ca_file: tls.ca_file,
        },
    };
    Some(CheckDef {
        no: CheckNo(check.no),
        name: check.name,
        interval_ms: check.interval_ms,
        timeout_ms: check.timeout_ms,
        kind,
    })
}
