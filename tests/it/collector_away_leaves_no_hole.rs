//! While the collector is away agents go on: afterwards every due tick is there, and nobody was "unknown" because of us.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use peil_proto::sample::GapReason;
use peil_proto::time::WallClock;
use peil_tests::{Agent, Collector, ONLY_CHECKS, Target, eventually, records};
use serde_json::Value;

/// How long nobody is there to send to: many batches of a second.
const AWAY: Duration = Duration::from_secs(20);
/// How long the agent itself is away in the middle of it. Longer than the two seconds from which it is told, shorter than a
/// sample holds (2 × 4 s + 3 s), so the figure does not notice.
const RESTART: Duration = Duration::from_secs(4);
const INTERVAL_MS: i64 = 4_000;

fn settings(target: &Target) -> String {
    let (now, url, address) = (WallClock::System.now(), target.url(), target.address());
    format!(
        r#"
[[contract]]
name = "all-day"
target = "99.5"
coverage = {{ from = "{now}" }}

[[check]]
name = "front"
kind = "http"
url = "{url}"
interval_s = 4
timeout_s = 3

[[check]]
name = "port"
kind = "tcp"
address = "{address}"
interval_s = 4
timeout_s = 3

[[service]]
name = "shop"
contract = "all-day"
expression = {{ all = ["front", "port"] }}
"#
    )
}

fn ms(service: &Value, key: &str) -> anyhow::Result<i64> {
    service[key].as_i64().with_context(|| format!("{key} is missing in {service:#}"))
}

#[tokio::test]
async fn a_collector_that_was_away_misses_nothing() -> anyhow::Result<()> {
    let target = Target::start()?;
    let mut collector = Collector::start(&settings(&target)).await?;
    let mut agent = Agent::start(&collector, ONLY_CHECKS)?;
    let before = eventually("the service is up", async || collector.api().service_in("shop", "up").await).await?;

    // Not synchronisation: the time away is what is tried.
    collector.stop().await?;
    tokio::time::sleep(AWAY / 2).await;
    agent.stop().await?;
    tokio::time::sleep(RESTART).await;
    agent.run()?;
    tokio::time::sleep(AWAY / 2).await;
    let back_at = WallClock::System.now();
    collector.restart().await?;

    let after = eventually("all checks are up to date", async || {
        let service = collector.api().service_in("shop", "up").await?;
        for check in service["checks"].as_array().context("no checks")? {
            let last = &check["vantages"][0]["last_at"];
            ensure!(last.as_i64().is_some_and(|at| at > back_at.0), "the last sample is of {last}: {check:#}");
        }
        Ok(service)
    })
    .await?;
    ensure!(after["outages"] == serde_json::json!([]), "an outage nobody had: {after:#}");
    ensure!(
        ms(&after, "unknown_ms")? == ms(&before, "unknown_ms")?,
        "unknown grew from {} to {} ms",
        before["unknown_ms"],
        after["unknown_ms"]
    );

    agent.stop().await?;
    collector.stop().await?;
    let streams = records::streams(&collector.database())?;
    ensure!(streams.len() == 1, "a restart is not another stream");
    let stream = &streams[0];
    stream.check(0)?;
    let ticks = stream.ticks();
    ensure!(ticks.len() == 2, "samples of {} checks", ticks.len());
    for (check, at) in &ticks {
        ensure!(at.len() > 5, "check {check} has {} samples only", at.len());
    }
    let holes = stream.holes(INTERVAL_MS)?;
    ensure!(holes.is_empty(), "ticks are missing and nothing tells why: {holes:?}; gaps: {:?}", stream.gaps()?);
    let stopped: Vec<_> = stream.gaps()?.into_iter().filter(|gap| gap.reason == GapReason::AgentStopped).collect();
    ensure!(stopped.len() == 1 && stopped[0].check.is_none(), "the agent was stopped once: {stopped:?}");
    let missing = stopped[0].to.since(stopped[0].from).0;
    ensure!(missing >= i64::try_from(RESTART.as_millis())?, "it was away for longer than {missing} ms");
    Ok(())
}
