//! A month from its last day over draft and seal to what came late.

use peil_proto::units::Millis;
use serde_json::Value;

use super::*;
use crate::agreement::Agreement;
use crate::config::Config;
use crate::contract::sealing::{Correction, Objection, Stage};
use crate::contract::workday::DayOfMonth;
use crate::evaluate::bundle::Bundle;
use crate::evaluate::{sealed, verify};
use crate::job::judge::Judge;
use crate::job::trial::{CHECK, NOON, Trial, agent, down, up};
use crate::store::audit::AuditVerdict;
use crate::store::clocks::ClockSeen;

const APRIL: Month = Month { year: 2026, month: 4 };
const DAY_5: Option<SealDay> = Some(SealDay(DayOfMonth::Calendar(5)));

fn in_force() -> InForce {
    let service = |name: &str, check: &str| format!("[[service]]\nname='{name}'\ncontract='c'\nexpression='{check}'\n");
    let check =
        |name: &str| format!("[[check]]\nname='{name}'\nkind='tcp'\naddress='h:1'\ninterval_s=10\ntimeout_s=1\n");
    let contract = "[[contract]]\nname='c'\ncoverage={from='2026-04-15T12:00:00+02:00'}\nunknown='excluded'\n";
    let parts = [contract.to_owned(), check("web"), check("db"), service("portal", "web"), service("other", "db")];
    let config = Config::parse("c.toml", &parts.concat()).expect("valid");
    let agreement = Agreement::new(&config, &[]).expect("makes sense");
    let numbers = [("web".to_owned(), CHECK), ("db".to_owned(), CheckNo(2))].into();
    InForce { agreement, numbers }
}

struct Stagehand {
    trial: Trial,
    months: Months,
    found: watch::Receiver<Arc<MonthsTold>>,
    _in_force: watch::Sender<Arc<InForce>>,
}

impl Stagehand {
    async fn new(seal_day: Option<SealDay>) -> Self {
        let mut trial = Trial::new().await;
        trial.send(agent(1), &[up(0), up(10), down(20), up(30)]).await;
        let (sender, receiver) = watch::channel(Arc::new(in_force()));
        let (tell, found) = watch::channel(Arc::default());
        let leading = trial.leading.clone();
        let months =
            Months::new(trial.store.clone(), trial.clock.clone(), leading, receiver, seal_day, tell, Arc::default());
        Self { trial, months, found, _in_force: sender }
    }

    /// One round on `day` of May at noon.
    async fn on_may(&mut self, day: i64) {
        self.trial.clock.set(NOON.plus(Millis((15 + day) * Millis::DAY.0)));
        let checks = in_force().checks_to_fold();
        let (store, clock) = (self.trial.store.clone(), self.trial.clock.clone());
        Judge::start(store, clock, checks, Millis::DAY, self.trial.leading.clone()).await.expect("judged");
        self.months.activate().await.expect("a round");
    }

    async fn april(&self) -> Option<MonthState> {
        let states = months::list(&self.trial.store).await.expect("read");
        states.into_iter().find(|state| state.service == "portal" && state.month == "2026-04")
    }

    async fn wish(&self, wish: Wish) -> Result<u32, MonthError> {
        let now = self.trial.clock.now();
        let edition = months::fulfil(&self.trial.store, &in_force(), DAY_5, ("portal", APRIL), wish, now).await;
        edition.map(|edition| edition.version)
    }
}

fn down_ms(figure: &Value) -> Option<i64> {
    figure["down_ms"].as_i64()
}

#[tokio::test]
async fn a_month_is_a_draft_from_day_one_and_seals_itself_after_the_agreed_day() {
    let mut stage = Stagehand::new(DAY_5).await;
    stage.on_may(0).await;
    assert!(stage.april().await.is_none(), "it still runs");
    stage.on_may(1).await;
    let april = stage.april().await.expect("a draft");
    assert_eq!((april.stage, down_ms(&april.figure)), (Stage::Draft, Some(10_000)));
    stage.on_may(5).await;
    assert_eq!(stage.april().await.map(|april| april.stage), Some(Stage::Draft), "the fifth is not over");
    stage.on_may(6).await;
    let april = stage.april().await.expect("sealed");
    assert_eq!((april.stage, april.editions[0].sealed_by.clone()), (Stage::Sealed(1), None));
    let (_, texts) = months::texts(&stage.trial.store, "portal", APRIL, None).await.expect("kept");
    let document: Value = serde_json::from_str(&texts.document).expect("JSON");
    assert_eq!((&document["approved"], &document["sealed_by"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(document["quality"]["clock_error_ms"], Value::Null, "nobody measured it");
    stage.on_may(7).await;
    assert_eq!(stage.april().await.expect("sealed").editions.len(), 1, "once");
}

#[tokio::test]
async fn what_came_late_changes_the_draft_of_its_own_service_and_never_an_edition() {
    let mut stage = Stagehand::new(None).await;
    stage.on_may(2).await;
    assert_eq!(stage.wish(Wish::Seal("anna".into())).await.expect("sealed"), 1);
    let computed = |rows: Vec<crate::store::months::MonthFigureRow>| -> Vec<(String, UtcTime)> {
        rows.into_iter().map(|row| (row.service, row.computed_at)).collect()
    };
    let before = computed(stage.trial.store.month_figures().await.expect("read"));
    stage.on_may(3).await;
    assert_eq!(computed(stage.trial.store.month_figures().await.expect("read")), before, "nothing came");
    assert!(stage.found.borrow().notices.is_empty());

    stage.trial.send_in(agent(1), 2, &[down(100), up(115)]).await;
    stage.on_may(4).await;
    let after = computed(stage.trial.store.month_figures().await.expect("read"));
    let moved: Vec<_> = after.iter().filter(|row| !before.contains(row)).map(|row| row.0.as_str()).collect();
    assert_eq!(moved, ["portal"], "the other service was left alone");
    let april = stage.april().await.expect("sealed");
    assert_eq!((april.differs, down_ms(&april.figure)), (true, Some(10_000)), "the edition tells what it told");
    assert_eq!(
        stage.found.borrow().notices.iter().map(|notice| notice.service.clone()).collect::<Vec<_>>(),
        ["portal"]
    );

    let correction = |author: &str| Correction {
        reason: "a buffered outage arrived".into(),
        author: author.into(),
        approver: "bert".into(),
    };
    let own = stage.wish(Wish::Supersede(correction("bert"))).await;
    assert!(matches!(own, Err(MonthError::Objected { objection: Objection::OwnCorrection, .. })), "{own:?}");
    assert_eq!(stage.wish(Wish::Supersede(correction("anna"))).await.expect("superseded"), 2);
    let (version, texts) = months::texts(&stage.trial.store, "portal", APRIL, None).await.expect("kept");
    let document: Value = serde_json::from_str(&texts.document).expect("JSON");
    assert_eq!(
        (version, &document["delta"]["down_ms"], &document["correction"]["supersedes"]),
        (2, &15_000.into(), &1.into())
    );
    let again = stage.wish(Wish::Supersede(correction("anna"))).await;
    assert!(matches!(again, Err(MonthError::Objected { objection: Objection::NothingChanged(2), .. })), "{again:?}");
    stage.on_may(5).await;
    stage.trial.send_in(agent(1), 3, &[up(200)]).await;
    stage.on_may(6).await;
    assert!(matches!(stage.trial.store.audit_verify().await, Ok(AuditVerdict::Whole { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_late_and_was_compacted_before_anybody_looked_changes_the_draft_as_well() {
    let mut stage = Stagehand::new(None).await;
    stage.on_may(2).await;
    stage.wish(Wish::Seal("anna".into())).await.expect("sealed");
    stage.trial.send_in(agent(1), 2, &[down(100), up(115)]).await;
    let (store, clock, leading) = (stage.trial.store.clone(), stage.trial.clock.clone(), stage.trial.leading.clone());
    let judged = Judge::start(store, clock, in_force().checks_to_fold(), Millis::DAY, leading);
    judged.await.expect("judged");
    assert_eq!(stage.trial.compact().await, 2);
    stage.on_may(4).await;
    assert!(stage.april().await.expect("sealed").differs);
    stage.on_may(5).await;
    assert!(stage.april().await.expect("sealed").differs);
}

#[tokio::test]
async fn both_editions_are_verified_from_what_is_handed_out() {
    let mut stage = Stagehand::new(None).await;
    stage.on_may(2).await;
    let clock = |no, at, ahead| ClockSeen { agent: agent(no), at, ahead: Millis(ahead) };
    let (in_april, in_june) = (NOON, NOON.plus(Millis(60 * Millis::DAY.0)));
    let seen = vec![clock(1, in_april, -1_500), clock(2, in_april, 9_000), clock(1, in_june, 7_000)];
    stage.trial.store.note_clocks(seen).await.expect("noted");
    stage.wish(Wish::Seal("anna".into())).await.expect("sealed");
    let (_, texts) = months::texts(&stage.trial.store, "portal", APRIL, None).await.expect("kept");
    let document: Value = serde_json::from_str(&texts.document).expect("JSON");
    assert_eq!(document["quality"]["clock_error_ms"], 1_500, "of who looked, while they looked");
    stage.trial.send_in(agent(1), 2, &[down(100), up(115)]).await;
    stage.on_may(4).await;
    let correction = Correction { reason: "late".into(), author: "anna".into(), approver: "bert".into() };
    stage.wish(Wish::Supersede(correction)).await.expect("superseded");
    let mut kept = Vec::new();
    for version in [1, 2] {
        let (_, texts) = months::texts(&stage.trial.store, "portal", APRIL, Some(version)).await.expect("kept");
        let report = sealed::read("report", &texts.document).expect("a report");
        let bundle = Bundle::read("bundle", &texts.data).expect("a bundle");
        assert_eq!(verify::differences(&report, &bundle), Vec::<String>::new());
        kept.push((report, bundle));
    }
    assert!(!verify::differences(&kept[0].0, &kept[1].1).is_empty(), "the data of one are not those of the other");
    let none = months::texts(&stage.trial.store, "portal", APRIL, Some(3)).await;
    assert!(matches!(none, Err(MonthError::NoEdition { version: 3, .. })));
}
