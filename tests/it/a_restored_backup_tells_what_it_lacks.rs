//! A database put back from an older copy: agents send again what their spools still hold, and the rest is an explicit
//! gap: counted, with its time and a reason; that time is unknown, never up and never down.

use std::path::Path;

use anyhow::{Context as _, ensure};
use peil_agent::spool::{Limits, Spool};
use peil_proto::convert;
use peil_proto::ids::Seq;
use peil_proto::record::{Gap, Record};
use peil_proto::sample::GapReason;
use peil_proto::time::WallClock;
use peil_tests::{Agent, Collector, ONLY_CHECKS, Target, eventually, records};

/// A sample holds for two intervals and the time-out; one more for the ticks around.
const LONGEST_HOLD_MS: i64 = 5_000;

fn settings(target: &Target) -> String {
    let now = WallClock::System.now();
    format!(
        "[[contract]]\nname = \"any\"\ncoverage = {{ from = \"{now}\" }}\n[[check]]\nname = \"port\"\nkind = \"tcp\"\naddress = {:?}\ninterval_s = 1\n\
         [[service]]\nname = \"shop\"\ncontract = \"any\"\nexpression = \"port\"\n",
        target.address()
    )
}

async fn stored(collector: &Collector, agent: &Agent) -> anyhow::Result<u64> {
    collector.api().host(agent.id()).await?["records"].as_u64().context("no count of records")
}

async fn stored_at_least(collector: &Collector, agent: &Agent, wanted: u64) -> anyhow::Result<()> {
    eventually("records arrive", async || {
        let now = stored(collector, agent).await?;
        ensure!(now >= wanted, "{now} of {wanted}");
        Ok(())
    })
    .await
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in ["peil.db", "peil.db-wal"] {
        let _ = std::fs::remove_file(to.join(file));
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).with_context(|| file.to_owned())?;
        }
    }
    Ok(())
}

/// A collector and an agent; the database is put back to what it was after 10 records, once 20 more were acked.
async fn put_back() -> anyhow::Result<(Target, Collector, Agent, u64)> {
    let target = Target::start()?;
    let mut collector = Collector::start(&settings(&target)).await?;
    let mut agent = Agent::start(&collector, ONLY_CHECKS)?;
    stored_at_least(&collector, &agent, 10).await?;
    let backup = tempfile::tempdir()?;
    collector.stop().await?;
    copy(&collector.data(), backup.path())?;
    let kept = records::streams(&collector.database())?[0].acked;
    collector.restart().await?;
    stored_at_least(&collector, &agent, kept + 20).await?;
    agent.stop().await?;
    collector.stop().await?;
    ensure!(records::streams(&collector.database())?[0].acked >= kept + 20, "more was acked than the copy has");
    copy(backup.path(), &collector.data())?;
    Ok((target, collector, agent, kept))
}

#[tokio::test]
async fn what_the_spool_still_holds_comes_again_and_nothing_is_missing() -> anyhow::Result<()> {
    let (_target, mut collector, mut agent, kept) = put_back().await?;
    collector.restart().await?;
    agent.run()?;
    agent.says("sending again what is still here").await?;
    stored_at_least(&collector, &agent, kept + 25).await?;
    let host = collector.api().host(agent.id()).await?;
    ensure!(host["records_lost"] == 0 && host["losses"] == serde_json::json!([]), "{host:#}");
    agent.stop().await?;
    collector.stop().await?;
    records::streams(&collector.database())?[0].check(0)
}

#[tokio::test]
async fn what_no_spool_holds_any_more_is_an_explicit_gap() -> anyhow::Result<()> {
    let (_target, mut collector, mut agent, kept) = put_back().await?;
    let acked = clear_away(&agent)?;
    collector.restart().await?;
    agent.run()?;
    let lost = acked - kept;
    let host = eventually("the loss is told", async || {
        let host = collector.api().host(agent.id()).await?;
        ensure!(host["records_lost"] == lost, "{lost} are lost: {host:#}");
        Ok(host)
    })
    .await?;
    let loss = &host["losses"][0];
    ensure!(loss["records"] == lost && loss["reason"] == "acked_before", "{host:#}");
    let (from, to) = (loss["from"].as_i64().context("from")?, loss["to"].as_i64().context("to")?);
    ensure!(to - from > LONGEST_HOLD_MS, "a loss of {} ms: too short to see", to - from);
    let service =
        eventually("the service is up again", async || collector.api().service_in("shop", "up").await).await?;
    let unknown = service["unknown_ms"].as_i64().context("unknown_ms")?;
    ensure!(unknown >= to - from - LONGEST_HOLD_MS, "{unknown} ms are unknown, {} ms are lost", to - from);
    ensure!(service["outages"] == serde_json::json!([]), "an outage nobody had: {service:#}");
    ensure!(
        collector.log().iter().any(|line| line.contains("was acked more than the database holds")),
        "the log does not tell"
    );
    agent.stop().await?;
    collector.stop().await
}

/// The spool does what it does when a segment is full and acked: a new one is begun and the old one goes. Returns
/// through which record it was acked.
fn clear_away(agent: &Agent) -> anyhow::Result<u64> {
    let machine = peil_agent::host::machine_id(Path::new("/"));
    let small = Limits { segment_bytes: 256, ..Limits::default() };
    let (mut spool, _) = Spool::open(&agent.state().join("spool"), &machine, small)?;
    let acked = spool.acked();
    let now = WallClock::System.now();
    let told = Record::Gap(Gap::new(now, now, GapReason::AgentStopped));
    spool.append(&convert::to_spool(&told))?;
    spool.sync()?;
    spool.release(acked)?;
    ensure!(spool.rewind(Seq(0)) == acked, "the spool still holds what was acked");
    Ok(acked.0)
}
