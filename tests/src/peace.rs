//! The same records in peace: what a fleet sent through kills and cuts, fed to one store in order, and what is said of it.
//!
//! "Nothing lost, nothing doubled" must show in the figures, too: they are a function of the records alone, so both stores
//! must give the same bytes. The store and the jobs are the collector's own; only the way of the records differs.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use peil_collector::config::Config;
use peil_collector::job::agree::Agree;
use peil_collector::job::judge::Judge;
use peil_collector::job::lead::Lead;
use peil_collector::job::measure::{Measure, Notices};
use peil_collector::job::progress::Progress;
use peil_collector::presence::Presence;
use peil_collector::store::Store;
use peil_collector::store::agents::NewAgent;
use peil_collector::store::blocks::NewBlock;
use peil_collector::store::leases::{CollectorRow, Holder};
use peil_proto::ids::{Epoch, Seq};
use peil_proto::time::{UtcDay, UtcTime, WallClock};
use peil_proto::units::Millis;
use tokio::sync::watch;

use crate::fleet::{EPOCH, INTERVAL, Member, Plan};

/// Checks that every member of such a fleet runs.
pub const CHECKS: u64 = 4;

/// One service per check, and one over all of them; no figure depends on anything but the samples.
pub fn settings() -> String {
    let mut text = "[[contract]]\nname = \"any\"\nconfirm = 2\n".to_owned();
    for no in 0..CHECKS {
        // Writing to a text cannot fail.
        let _ = write!(
            text,
            "[[check]]\nname = \"c{no}\"\nkind = \"tcp\"\naddress = \"127.0.0.1:9\"\ninterval_s = 10\ntimeout_s = 5\n\
             quorum = 2\n[[service]]\nname = \"s{no}\"\ncontract = \"any\"\nexpression = \"c{no}\"\n"
        );
    }
    text.push_str("[[service]]\nname = \"all\"\ncontract = \"any\"\nexpression = { any = [\"c0\", \"c1\", \"c2\"] }\n");
    text
}

/// When records of so many ticks begin: half of them lie on either side of the midnight before last, so that days are
/// compacted while others of them still come.
pub fn since(ticks: i64) -> UtcTime {
    let midnight = UtcDay(WallClock::System.now().day().0 - 1).start();
    midnight.plus(Millis(-INTERVAL.0 * (ticks / 2)))
}

/// A file that one program fed with the same records, in order.
///
/// # Errors
/// When the store does not take them.
pub async fn fed(dir: &Path, members: &[Arc<Member>], plan: &Plan) -> anyhow::Result<Store> {
    let store = Store::open(&dir.join("alone"))?;
    let names = (0..CHECKS).map(|no| format!("c{no}")).collect();
    store.assign_checks(names).await?;
    for member in members {
        let new = NewAgent {
            agent: member.agent,
            hostname: Member::hostname(member.index),
            cert_serial: String::new(),
            cert_not_after: UtcTime(i64::MAX),
        };
        store.register(new, "", plan.since, "test").await?;
        for first in (1..=plan.records).step_by(500) {
            let last = (first + 499).min(plan.records);
            let moment = |seq| plan.sample(member.index, seq).scheduled_at;
            let new = NewBlock {
                agent: member.agent,
                epoch: Epoch(EPOCH),
                first: Seq(first),
                records: u32::try_from(last - first + 1)?,
                received_at: moment(last),
                from: moment(first),
                to: moment(last),
                told: Seq(0),
                bytes: plan.block(member.index, first, last).into(),
            };
            store.append(new).await?;
        }
    }
    Ok(store)
}

/// What a collector says of every service at the moment `at`, from nothing but what is stored.
///
/// # Errors
/// When the store cannot be read.
pub async fn figures(store: Store, settings: &str, at: UtcTime) -> anyhow::Result<String> {
    let config = Config::parse("settings", settings).context("the settings")?;
    let clock = WallClock::manual(at);
    let (in_force, _) = Agree::read(&store, &config).await?;
    let checks = in_force.checks_to_fold();
    let (id, name) = ("judge".to_owned(), "test".to_owned());
    let holder = Holder { id: id.clone(), start: "1".to_owned() };
    let me = CollectorRow { id, name, version: String::new(), started_at: at, seen_at: at };
    let (_lead, leading) = Lead::start(store.clone(), holder, me, Presence::default()).await?;
    let judge = Judge::start(store.clone(), clock.clone(), checks, config.patch.term, leading.clone()).await?;
    let measure = Measure {
        store: store.clone(),
        clock,
        in_force: watch::channel(Arc::new(in_force)).1,
        notices: Notices { months: watch::channel(Arc::default()).1, rechecked: watch::channel(Arc::default()).1 },
        presence: Presence::default(),
        leading,
        agents: config.agents,
        patch: config.patch,
        progress: watch::channel(Progress::default()).1,
        listening_since: at,
    };
    let snapshot = measure.activate(judge.live()).await?;
    store.close().await;
    Ok(serde_json::to_string(&snapshot.services)?)
}
