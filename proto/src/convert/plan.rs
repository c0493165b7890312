//! The plan on its way to an agent.
//!
//! What the first messages could say travels in them still, so that agents of version 0.1 go on working. Everything
//! else travels as the word of its kind and its options in JSON: an agent that does not know the kind, or one of the
//! options, leaves out that check by name and runs the rest, instead of ignoring what it does not understand.

use crate::ids::CheckNo;
use crate::plan::{CheckDef, CheckKind, Http, Plan, Tcp, Tls, TlsOptions, Unknown};
use crate::wire;

/// A plan as it is pushed. Checks that cannot run anywhere ([`CheckKind::Unknown`]) are left out.
pub fn plan_to_wire(plan: &Plan) -> wire::Plan {
    wire::Plan { version: plan.version, checks: plan.checks.iter().filter_map(check_to).collect() }
}

fn check_to(check: &CheckDef) -> Option<wire::Check> {
    Some(wire::Check {
        no: check.no.0,
        name: check.name.clone(),
        interval_ms: check.interval_ms,
        timeout_ms: check.timeout_ms,
        kind: Some(first_form(&check.kind).or_else(|| newer_form(&check.kind))?),
    })
}

fn newer_form(kind: &CheckKind) -> Option<wire::check::Kind> {
    let options = kind.to_options()?;
    Some(wire::check::Kind::Options(wire::OptionsCheck { kind: kind.name().to_owned(), options }))
}

/// The check in the messages of the first version, if they can say all of it.
fn first_form(kind: &CheckKind) -> Option<wire::check::Kind> {
    use wire::check::Kind as Wire;
    let (wire, said) = match kind.clone() {
        CheckKind::Http(Http { url, status, contains, tls, .. }) => {
            let ranges = status.iter().map(|(from, to)| wire::StatusRange { from: (*from).into(), to: (*to).into() });
            let http = wire::HttpCheck {
                url: url.clone(),
                status: ranges.collect(),
                contains: contains.clone(),
                ca_file: tls.ca_file.clone(),
                cert_days_min: tls.cert_days_min.map(u32::from),
            };
            let tls = TlsOptions { ca_file: tls.ca_file, cert_days_min: tls.cert_days_min, ..TlsOptions::default() };
            (Wire::Http(http), CheckKind::Http(Http { url, status, contains, tls, ..Http::default() }))
        }
        CheckKind::Tcp(Tcp { address, .. }) => {
            let said = Tcp { address: address.clone(), ..Tcp::default() };
            (Wire::Tcp(wire::TcpCheck { address }), CheckKind::Tcp(said))
        }
        CheckKind::Tls(Tls { address, tls, .. }) => {
            let said = wire::TlsCheck {
                address: address.clone(),
                server_name: tls.server_name.clone(),
                ca_file: tls.ca_file.clone(),
                cert_days_min: tls.cert_days_min.map(u32::from),
            };
            let TlsOptions { server_name, ca_file, cert_days_min, .. } = tls;
            let tls = TlsOptions { server_name, ca_file, cert_days_min, ..TlsOptions::default() };
            (Wire::Tls(said), CheckKind::Tls(Tls { address, tls, ..Tls::default() }))
        }
        _ => return None,
    };
    (said == *kind).then_some(wire)
}

/// A pushed plan, refused with every reason when it cannot run. A check of a kind or with an option that is not known
/// here stays in it as [`CheckKind::Unknown`].
///
/// # Errors
/// One sentence per problem.
pub fn plan_from_wire(plan: wire::Plan) -> Result<Plan, Vec<String>> {
    let plan = Plan { version: plan.version, checks: plan.checks.into_iter().map(check_from).collect() };
    let problems = plan.problems();
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

fn check_from(check: wire::Check) -> CheckDef {
    let newer = || Unknown { of_kind: "unknown".to_owned(), why: "this agent does not know its kind".to_owned() };
    let kind = check.kind.and_then(kind_from).unwrap_or_else(|| CheckKind::Unknown(newer()));
    CheckDef {
        no: CheckNo(check.no),
        name: check.name,
        interval_ms: check.interval_ms,
        timeout_ms: check.timeout_ms,
        kind,
    }
}

fn kind_from(kind: wire::check::Kind) -> Option<CheckKind> {
    use wire::check::Kind as Wire;
    let days = |days: Option<u32>| days.map(u16::try_from).transpose().ok();
    Some(match kind {
        Wire::Http(http) => {
            let range =
                |range: &wire::StatusRange| Some((u16::try_from(range.from).ok()?, u16::try_from(range.to).ok()?));
            let status = http.status.iter().map(range).collect::<Option<_>>()?;
            let cert_days_min = days(http.cert_days_min)?;
            let tls = TlsOptions { ca_file: http.ca_file, cert_days_min, ..TlsOptions::default() };
            CheckKind::Http(Http { url: http.url, status, contains: http.contains, tls, ..Http::default() })
        }
        Wire::Tcp(tcp) => CheckKind::Tcp(Tcp { address: tcp.address, ..Tcp::default() }),
        Wire::Tls(tls) => {
            let cert_days_min = days(tls.cert_days_min)?;
            let (server_name, ca_file) = (tls.server_name, tls.ca_file);
            let options = TlsOptions { server_name, ca_file, cert_days_min, ..TlsOptions::default() };
            CheckKind::Tls(Tls { address: tls.address, tls: options, ..Tls::default() })
        }
        Wire::Options(check) => CheckKind::from_options(&check.kind, &check.options),
    })
}
