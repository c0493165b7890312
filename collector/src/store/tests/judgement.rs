//! What is derived is overwritten, and its watermark is in the same transaction.

use peil_proto::ids::CheckNo;
use peil_proto::record::{
    Boundary, Certificate, EnergyReading, FindingState, HostFacts, Method, PatchReport, ProbeDetail, Vitals,
};
use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Millis};

use super::{agent, fresh, lead, on_both};
use crate::store::blocks::{BlockId, Lane, Through};
use crate::store::energy::EnergyHourRow;
use crate::store::hosts::{HostReport, HostRow, Told};
use crate::store::judgement::{DetailRow, Judgement};
use crate::store::outages::{OutageChange, OutageRow};
use crate::store::patches::FindingRow;
use crate::store::{Store, StoreError};

on_both!(
    what_was_judged_reads_back_and_writing_it_twice_changes_nothing,
    the_watermark_never_goes_back_and_an_older_report_never_replaces_a_newer_one,
    late_data_moves_joins_and_removes_outages,
    a_mended_finding_is_closed_and_kept_and_opens_again_as_the_same_row,
    a_record_that_cannot_be_read_is_told_as_damage,
    a_newer_fix_for_the_same_package_takes_the_place_of_the_older_and_keeps_the_clock,
);

fn outage(from: i64, to: Option<i64>) -> OutageRow {
    OutageRow {
        service: "shop".to_owned(),
        from: UtcTime(from),
        to: to.map(UtcTime),
        counted: Millis(60_000),
        because: vec!["web".to_owned(), "a \"quoted\" check".to_owned()],
    }
}

fn finding(package: &str, security_version: &str, due: i64) -> FindingRow {
    FindingRow {
        agent: agent(1),
        source: "openssl".to_owned(),
        package: package.to_owned(),
        arch: "amd64".to_owned(),
        installed: "3.0.1".to_owned(),
        security_version: security_version.to_owned(),
        candidate: String::new(),
        state: FindingState::BlockedPin,
        first_seen: UtcTime(5),
        version_seen: UtcTime(5),
        due_at: UtcTime(due),
        last_seen: UtcTime(6),
        closed_at: None,
    }
}

fn hour(hour: i64) -> EnergyHourRow {
    EnergyHourRow {
        agent: agent(1),
        source: "rapl".to_owned(),
        hour: UtcTime(hour),
        energy: Microjoules(u64::MAX - 1),
        low: Microjoules(1),
        high: Microjoules(u64::MAX),
        covered: Millis(3_600_000),
        active: Millis(1_800_000),
        method: Method::Estimated,
        boundary: Boundary::Platform,
        covers: "package+dram".to_owned(),
    }
}

fn detail(at: i64, text: &str) -> DetailRow {
    let certificate = Certificate {
        subject: "CN=shop".to_owned(),
        issuer: "CN=ca".to_owned(),
        not_before: UtcTime(1_000),
        not_after: UtcTime(2_000),
        sha256: [4; 32],
    };
    let detail = ProbeDetail {
        check: CheckNo(3),
        scheduled_at: UtcTime(at),
        peer: "192.0.2.1:443".to_owned(),
        text: text.to_owned(),
        certificate: Some(certificate),
    };
    DetailRow { agent: agent(1), detail }
}

fn told(at: i64, told: Told) -> HostReport {
    HostReport { agent: agent(1), at: UtcTime(at), told }
}

fn vitals(at: i64) -> Vitals {
    Vitals { at: UtcTime(at), rss_bytes: 9, ..Vitals::default() }
}

fn through(no: i64) -> Through {
    Through::from_iter([BlockId { lane: Lane(0), no }])
}

fn whole() -> Judgement {
    let facts = HostFacts { hostname: "h".to_owned(), cpus: 2, ..HostFacts::default() };
    let patch = PatchReport { scanned_at: UtcTime(9), reboot_required: Some(true), ..PatchReport::default() };
    let energy =
        EnergyReading { end: UtcTime(9), energy: Microjoules(5), high: Microjoules(9), ..EnergyReading::default() };
    Judgement {
        through: through(12),
        outages: vec![OutageChange::Put(outage(1_000, None))],
        findings: vec![finding("libssl3", "3.0.2", 70), finding("openssl", "3.0.3", 60)],
        energy_hours: vec![hour(0), hour(3_600_000)],
        details: vec![detail(100, "refused"), detail(200, "timed out")],
        reports: vec![
            told(1, Told::Facts(facts)),
            told(9, Told::Vitals(vitals(9))),
            told(9, Told::Patch(patch)),
            told(9, Told::Energy(energy)),
        ],
    }
}

async fn what_was_judged_reads_back_and_writing_it_twice_changes_nothing(store: Store) {
    assert_eq!(store.judged_through().await.unwrap(), Through::default());
    for _ in 0..2 {
        let judged = whole();
        store.commit_judgement(judged.clone(), lead(&store).await).await.unwrap();
        assert_eq!(store.judged_through().await.unwrap(), through(12));
        assert_eq!(store.outages("shop", UtcTime(0)).await.unwrap(), [outage(1_000, None)]);
        assert_eq!(
            store.open_findings().await.unwrap(),
            [finding("openssl", "3.0.3", 60), finding("libssl3", "3.0.2", 70)]
        );
        assert_eq!(store.energy_hours(UtcTime(1)).await.unwrap(), [hour(3_600_000)]);
        assert_eq!(store.energy_hours(UtcTime(0)).await.unwrap(), judged.energy_hours);
        assert_eq!(store.latest_details().await.unwrap(), [detail(200, "timed out")]);
        assert_eq!(store.details(agent(1), CheckNo(3), UtcTime(0)).await.unwrap(), judged.details);
        assert_eq!(store.details(agent(1), CheckNo(3), UtcTime(101)).await.unwrap().len(), 1);
        let hosts = store.hosts().await.unwrap();
        let HostRow { facts, vitals: last, patch, energy } = &hosts[&agent(1)];
        assert_eq!(facts.as_ref().map(|(at, facts)| (at.0, facts.cpus)), Some((1, 2)));
        assert_eq!(last, &Some((UtcTime(9), vitals(9))));
        assert_eq!(patch.as_ref().and_then(|(_, patch)| patch.reboot_required), Some(true));
        assert_eq!(energy.as_ref().map(|(_, reading)| reading.energy), Some(Microjoules(5)));
    }
}

async fn the_watermark_never_goes_back_and_an_older_report_never_replaces_a_newer_one(store: Store) {
    store.commit_judgement(whole(), lead(&store).await).await.unwrap();
    let older =
        Judgement { through: through(3), reports: vec![told(8, Told::Vitals(vitals(8)))], ..Judgement::default() };
    store.commit_judgement(older, lead(&store).await).await.unwrap();
    assert_eq!(store.judged_through().await.unwrap(), through(12));
    assert_eq!(store.hosts().await.unwrap()[&agent(1)].vitals, Some((UtcTime(9), vitals(9))));
    let newer = Judgement { reports: vec![told(10, Told::Vitals(vitals(10)))], ..Judgement::default() };
    store.commit_judgement(newer, lead(&store).await).await.unwrap();
    assert_eq!(store.hosts().await.unwrap()[&agent(1)].vitals, Some((UtcTime(10), vitals(10))));
}

#[tokio::test]
async fn a_judgement_that_fails_moves_neither_rows_nor_watermark() {
    let (store, _dir) = fresh();
    let sabotage = "CREATE TRIGGER broken BEFORE INSERT ON watermark BEGIN SELECT RAISE(ABORT, 'broken'); END";
    store.write("break", |db| Ok(db.execute_batch(sabotage)?)).await.unwrap();
    let failed = store.commit_judgement(whole(), lead(&store).await).await;
    assert!(matches!(failed, Err(StoreError::Write { what: "write what was judged", .. })), "{failed:?}");
    assert_eq!(store.judged_through().await.unwrap(), Through::default());
    assert_eq!(store.outages("shop", UtcTime(0)).await.unwrap(), []);
    assert_eq!(store.open_findings().await.unwrap(), []);
}

async fn late_data_moves_joins_and_removes_outages(store: Store) {
    let write = async |changes: Vec<OutageChange>| {
        store
            .commit_judgement(Judgement { outages: changes, ..Judgement::default() }, lead(&store).await)
            .await
            .unwrap();
    };
    write(vec![
        OutageChange::Put(outage(1_000, Some(2_000))),
        OutageChange::Put(outage(3_000, Some(4_000))),
        OutageChange::Put(outage(9_000, None)),
    ])
    .await;
    let service = "shop".to_owned();
    let joined = vec![outage(900, Some(4_000))];
    let (since, until) = (UtcTime(500), UtcTime(9_000));
    write(vec![OutageChange::Replace { service: service.clone(), since, until, outages: joined }]).await;
    assert_eq!(store.outages("shop", UtcTime(0)).await.unwrap(), [outage(900, Some(4_000)), outage(9_000, None)]);
    assert_eq!(store.outages("shop", UtcTime(4_000)).await.unwrap(), [outage(9_000, None)], "over at 4 000");
    assert_eq!(store.outages("other", UtcTime(0)).await.unwrap(), []);
    write(vec![OutageChange::Remove { service, from: UtcTime(9_000) }]).await;
    assert_eq!(store.outages("shop", UtcTime(0)).await.unwrap(), [outage(900, Some(4_000))]);
}

async fn a_mended_finding_is_closed_and_kept_and_opens_again_as_the_same_row(store: Store) {
    let write = async |finding: FindingRow| {
        store
            .commit_judgement(Judgement { findings: vec![finding], ..Judgement::default() }, lead(&store).await)
            .await
            .unwrap();
    };
    let closed = FindingRow { closed_at: Some(UtcTime(80)), ..finding("libssl3", "3.0.2", 70) };
    for state in [FindingState::Installable, FindingState::Held] {
        write(FindingRow { state, ..finding("libssl3", "3.0.2", 70) }).await;
        assert_eq!(store.open_findings().await.unwrap()[0].state, state);
        write(closed.clone()).await;
        assert_eq!(store.open_findings().await.unwrap(), []);
        assert_eq!(store.findings_of(agent(1)).await.unwrap(), std::slice::from_ref(&closed));
    }
    assert_eq!(store.findings_of(agent(2)).await.unwrap(), []);
}

async fn a_record_that_cannot_be_read_is_told_as_damage(store: Store) {
    let row = "INSERT INTO host_report VALUES (?1, 'facts', 1, ?2)";
    store.write("damage", move |db| Ok(db.execute(row, (agent(1).0, [255_u8; 3]))?)).await.unwrap();
    assert!(matches!(store.hosts().await, Err(StoreError::Damaged { what: "what a host told" })));
}

async fn a_newer_fix_for_the_same_package_takes_the_place_of_the_older_and_keeps_the_clock(store: Store) {
    let older = Judgement { findings: vec![finding("libssl3", "3.0.2", 60)], ..Judgement::default() };
    let newer = Judgement { findings: vec![finding("libssl3", "3.0.3", 60)], ..Judgement::default() };
    store.commit_judgement(older, lead(&store).await).await.unwrap();
    store.commit_judgement(newer, lead(&store).await).await.unwrap();
    assert_eq!(store.open_findings().await.unwrap(), [finding("libssl3", "3.0.3", 60)]);
}
