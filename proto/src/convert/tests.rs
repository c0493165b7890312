//! What goes onto the wire comes back as it was; what means nothing is refused.

use prost::Message as _;

use super::*;
use crate::plan::{CheckDef, CheckKind, Http, Plan, Tcp, TlsOptions};
use crate::summary::Summary;

fn one_of_each() -> Vec<Record> {
    let certificate = Certificate {
        subject: "CN=a".into(),
        issuer: "CN=b".into(),
        not_before: UtcTime(1),
        not_after: UtcTime(2),
        sha256: [7; 32],
    };
    let finding = Finding { source: "openssl".into(), state: FindingState::Held, ..Finding::default() };
    let archive = Archive { release_at: Some(UtcTime(9)), security: true, ..Archive::default() };
    vec![
        Record::Sample(Sample {
            check: CheckNo(3),
            scheduled_at: UtcTime(-5),
            delay: Millis(-1),
            outcome: Outcome::Failed { kind: FailureKind::Status, code: 503 },
            phases: Phases { connect: Some(Micros(12)), first_byte: Some(Micros(0)), ..Phases::default() },
        }),
        Record::Gap(Gap {
            from: UtcTime(1),
            to: UtcTime(2),
            reason: GapReason::SpoolFull,
            check: None,
            records_lost: 4,
            ok_lost: 3,
            not_ok_lost: 1,
        }),
        Record::Detail(ProbeDetail {
            check: CheckNo(3),
            scheduled_at: UtcTime(5),
            peer: "[::1]:443".into(),
            text: "refused".into(),
            certificate: Some(certificate),
        }),
        Record::Patch(PatchReport {
            reboot_required: Some(false),
            findings: vec![finding],
            archives: vec![archive],
            errors: vec![ScanError { kind: "lists_missing".into(), ..ScanError::default() }],
            ..PatchReport::default()
        }),
        Record::Energy(EnergyReading {
            end: UtcTime(60_000),
            energy: Microjoules(5),
            high: Microjoules(9),
            method: Method::Estimated,
            boundary: Boundary::Wall,
            ..EnergyReading::default()
        }),
        Record::Facts(HostFacts { cpus: 2, ..HostFacts::default() }),
        Record::Vitals(Vitals { spool_degraded: true, ..Vitals::default() }),
        Record::Summary(summary()),
    ]
}

fn summary() -> Summary {
    let sample = |tick: i64, connect: u32| Sample {
        check: CheckNo(3),
        scheduled_at: UtcTime(7_000 + tick * 60_000),
        delay: Millis(tick),
        outcome: Outcome::Up { code: 204 },
        phases: Phases { connect: Some(Micros(connect)), ..Phases::default() },
    };
    let mut summary = Summary::of(&sample(0, 900)).expect("up");
    assert!(summary.take(&sample(1, 1_500)) && summary.take(&sample(2, 1_400)));
    summary
}

#[test]
fn a_summary_that_contradicts_itself_is_refused_by_field() {
    let Kind::Summary(good) = to_wire(&Record::Summary(summary())).kind.expect("a kind") else { panic!("a summary") };
    let cases: [(wire::Summary, &str); 4] = [
        (wire::Summary { count: 0, ..good.clone() }, "summary.count"),
        (wire::Summary { count: 5_000, ..good.clone() }, "summary.count"),
        (wire::Summary { step_ms: 0, ..good.clone() }, "summary.step_ms"),
        (wire::Summary { code: 70_000, ..good }, "summary.code"),
    ];
    for (bad, field) in cases {
        let bytes = wire::Record { kind: Some(Kind::Summary(bad)) }.encode_to_vec();
        assert_eq!(from_spool(&bytes), Err(Malformed::Field(field)));
    }
}

#[test]
fn every_kind_of_record_survives_the_spool_and_the_block() {
    for record in one_of_each() {
        let spooled = to_spool(&record);
        assert_eq!(from_spool(&spooled), Ok(Some(record.clone())));
        let item = to_item(&spooled).expect("a record");
        assert_eq!(from_item(&item), Ok(Some(record)));
    }
}

#[test]
fn a_kind_from_the_future_is_skipped_and_nonsense_is_refused_by_field() {
    assert_eq!(from_spool(&[0xfa, 0x01, 0x00]), Ok(None));
    let reading = wire::EnergyReading { low_uj: 2, end_ms: 1, ..Default::default() };
    let bytes = wire::Record { kind: Some(Kind::Energy(reading)) }.encode_to_vec();
    assert_eq!(from_spool(&bytes), Err(Malformed::Field("energy bounds")));
    assert!(from_spool(&[0xff]).is_err());
}

fn plan_of(kinds: impl IntoIterator<Item = CheckKind>) -> Plan {
    let check = |(no, kind)| CheckDef {
        no: CheckNo(no),
        name: format!("check-{no}"),
        interval_ms: 15_000,
        timeout_ms: 5_000,
        kind,
    };
    Plan { version: 7, checks: (1..).zip(kinds).map(check).collect() }
}

#[test]
fn plans_survive_the_wire_and_say_it_in_the_first_form_where_that_is_enough() {
    let tls = TlsOptions { cert_days_min: Some(14), ..TlsOptions::default() };
    let url = "https://localhost/".to_owned();
    let status = vec![(200, 299), (401, 401)];
    let simple = Http { url, status, contains: Some("ok".into()), tls, ..Http::default() };
    let more = Http { method: "HEAD".into(), ..simple.clone() };
    let plan = plan_of([CheckKind::Http(simple), CheckKind::Http(more)]);
    let wire = plan_to_wire(&plan);
    assert!(matches!(wire.checks[0].kind, Some(wire::check::Kind::Http(_))), "an agent of 0.1 reads it");
    assert!(matches!(wire.checks[1].kind, Some(wire::check::Kind::Options(_))), "it must not GET in place of HEAD");
    assert_eq!(plan_from_wire(wire), Ok(plan));
}

#[test]
fn a_check_this_agent_does_not_know_is_left_out_by_name_and_the_rest_runs() {
    let known = CheckKind::Tcp(Tcp { address: "a:1".into(), ..Tcp::default() });
    let mut wire = plan_to_wire(&plan_of([known.clone(), known.clone(), known.clone()]));
    wire.checks[0].kind = None;
    let newer = wire::OptionsCheck { kind: "teapot".into(), options: "{}".into() };
    wire.checks[1].kind = Some(wire::check::Kind::Options(newer));
    let plan = plan_from_wire(wire).expect("is in force");
    assert_eq!(plan.checks.len(), 3, "each keeps its ticks, and with them its records");
    assert_eq!(plan.checks[2].kind, known);
    let left_out = plan.left_out();
    assert_eq!(left_out.len(), 2);
    assert!(left_out[0].starts_with("check check-1: ") && left_out[1].contains("teapot"), "{left_out:?}");
    assert_eq!(plan_to_wire(&plan).checks.len(), 1, "nobody is sent a check that cannot run");
}
