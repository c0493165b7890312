//! The power goes at any moment: what a collector with a file had acked is there, once, after every cut.
//!
//! After each cut, before anybody repairs anything, a copy of the database is opened as the next start would: SQLite finds
//! it sound, and every agent's records are there through the last one it was told of. At the end everything has arrived,
//! and the figures are byte for byte those of a run in peace.
//!
//! That such a loss would be seen is proved first, on a disk that lies about syncs. There is nothing a program can do
//! about such a disk; the store's README says so.
//!
//! `PEIL_SEED` repeats a run; `PEIL_LONG` makes it a hundred cuts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use peil_collector::store::Store;
use peil_proto::ids::CheckNo;
use peil_proto::units::Millis;
use peil_tests::dice::Dice;
use peil_tests::fleet::{self, INTERVAL, Member, Plan};
use peil_tests::kept::Kept;
use peil_tests::peace::{self, CHECKS};
use peil_tests::powercut::{Fate, PowerCut, Sync};
use peil_tests::{Collector, eventually, records};
use rusqlite::Connection;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest time between two cuts while it serves: storing and folding the log back are hit.
const LIFE_MS_MAX: u64 = 1_500;
/// Longest life of one that is killed as it starts: recovery is hit.
const START_MS_MAX: u64 = 250;

/// A collector whose power can be cut, and agents that send to it.
struct Trial {
    collector: Collector,
    power: PowerCut,
    members: Vec<Arc<Member>>,
    plan: Plan,
    ticks: i64,
    dir: tempfile::TempDir,
}

impl Trial {
    /// Everybody is enrolled; the collector is down.
    async fn prepare(agents: u64, records: u64, sync: Sync) -> anyhow::Result<Self> {
        let mut collector = Collector::start(&peace::settings()).await?;
        let dir = tempfile::tempdir()?;
        let tokens = (0..agents).map(|_| collector.token()).collect::<anyhow::Result<_>>()?;
        let members = fleet::enrol(&collector.url(), tokens, dir.path()).await?;
        collector.stop().await?;
        let power = PowerCut::prepare(&collector.data(), sync)?;
        collector.set_environment(power.environment());
        let ticks = i64::try_from(records / CHECKS)?;
        let since = peace::since(ticks);
        let checks = (1..=u32::try_from(CHECKS)?).map(CheckNo).collect();
        let plan = Plan { url: collector.url(), checks, since, records, pause_ms_max: 400 };
        Ok(Self { collector, power, members, plan, ticks, dir })
    }

    fn send(&self, dice: &mut Dice, stop: &CancellationToken) -> JoinSet<anyhow::Result<()>> {
        let mut agents = JoinSet::new();
        for member in &self.members {
            agents.spawn(member.clone().run(self.plan.clone(), dice.below(u64::MAX), stop.clone()));
        }
        agents
    }

    /// One cut; the collector was killed. Returns the changes that were lost or torn by it.
    fn cut(&mut self, dice: &mut Dice) -> anyhow::Result<usize> {
        let fate = Fate::by_chance(dice);
        let unsynced = self.power.strike(fate, dice)?;
        eprintln!("[test] the power is cut, {unsynced} changes were not synced: {fate:?}");
        self.holds_what_was_acked()?;
        Ok(if fate == Fate::Kept { 0 } else { unsynced })
    }

    /// What was acked is there, once, in a database that is sound. Looks at a copy: opening it repairs it.
    fn holds_what_was_acked(&self) -> anyhow::Result<()> {
        let copy = tempfile::tempdir()?;
        for file in ["peil.db", "peil.db-wal"] {
            match std::fs::copy(self.collector.data().join(file), copy.path().join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let database = copy.path().join("peil.db");
        sound(&database)?;
        let (marks, kept) = (records::marks(&database)?, Kept::in_file(&database)?);
        for member in &self.members {
            let told = member.acked();
            let there = marks.get(&member.agent).copied().unwrap_or(0);
            ensure!(there >= told, "agent {} was acked {told}, after the cut {there} are there", member.index);
            kept.check(&self.plan, (member.index, member.agent), there)?;
        }
        Ok(())
    }
}

fn sound(database: &Path) -> anyhow::Result<()> {
    let said: String = Connection::open(database)?.query_row("PRAGMA integrity_check", (), |row| row.get(0))?;
    ensure!(said == "ok", "the database is damaged: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_cut_at_random_loses_nothing_acked() -> anyhow::Result<()> {
    let (agents, rounds, records) =
        if std::env::var_os("PEIL_LONG").is_some() { (40, 100, 30_000) } else { (16, 10, 1_600) };
    let mut dice = Dice::from_environment();
    let mut trial = Trial::prepare(agents, records, Sync::Honest).await?;
    let stop = CancellationToken::new();
    trial.collector.restart().await?;
    let mut sending = trial.send(&mut dice, &stop);
    let mut dropped = 0;
    let mut round = 0;
    // Chance may have it that all first cuts fall between two commits; then there are more of them.
    while round < rounds || (dropped == 0 && round < 10 * rounds) {
        round += 1;
        // The moment of the cut is the experiment; nothing is expected to have happened by then.
        tokio::time::sleep(Duration::from_millis(dice.below(LIFE_MS_MAX))).await;
        trial.collector.kill9()?;
        dropped += trial.cut(&mut dice).with_context(|| format!("cut {round}"))?;
        if dice.below(3) == 0 {
            trial.collector.start_and_kill9_after(Duration::from_millis(dice.below(START_MS_MAX))).await?;
            dropped += trial.cut(&mut dice).with_context(|| format!("cut {round}, as it started"))?;
        }
        trial.collector.restart().await.with_context(|| format!("after cut {round}"))?;
    }
    ensure!(dropped > 0, "no cut found anything to drop: the test did not test much");
    while let Some(ended) = sending.join_next().await {
        ended??;
    }
    eventually("every record is counted", async || {
        let hosts = trial.collector.api().get("hosts").await?;
        let counted: u64 =
            hosts["hosts"].as_array().into_iter().flatten().filter_map(|host| host["records"].as_u64()).sum();
        ensure!(counted == agents * records, "{counted} of {}", agents * records);
        Ok(())
    })
    .await?;
    trial.collector.stop().await?;
    trial.holds_what_was_acked()?;
    let at = trial.plan.since.plus(Millis(INTERVAL.0 * (trial.ticks + 3)));
    let settings = peace::settings();
    let here = peace::figures(Store::open(&trial.collector.data())?, &settings, at).await?;
    let fed = peace::fed(trial.dir.path(), &trial.members, &trial.plan).await?;
    let alone = peace::figures(fed, &settings, at).await?;
    ensure!(here.contains("\"outages\":[{"), "the records have outages: {here}");
    ensure!(here == alone, "the figures differ:\n{here}\n{alone}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_disk_that_lies_about_syncs_the_loss_is_seen() -> anyhow::Result<()> {
    let mut dice = Dice::from_environment();
    let mut trial = Trial::prepare(4, 400, Sync::Lies).await?;
    trial.collector.restart().await?;
    let stop = CancellationToken::new();
    let mut sending = trial.send(&mut dice, &stop);
    eventually("every agent was acked something", async || {
        ensure!(trial.members.iter().all(|member| member.acked() > 0), "not yet");
        Ok(())
    })
    .await?;
    trial.collector.kill9()?;
    trial.holds_what_was_acked().context("the kill alone loses nothing")?;
    ensure!(trial.power.strike(Fate::Dropped, &mut dice)? > 0, "nothing was written");
    let seen = trial.holds_what_was_acked().expect_err("acked records are gone, and nobody sees it");
    ensure!(seen.to_string().contains("was acked"), "seen as something else: {seen:#}");
    // The collector starts again and does not know; an agent that was told more says so.
    trial.collector.restart().await?;
    let ended = sending.join_next().await.context("no agent")??;
    let said = ended.expect_err("an agent noticed nothing").to_string();
    ensure!(said.contains("a collector knows"), "{said}");
    stop.cancel();
    Ok(())
}
