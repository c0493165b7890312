//! A store that is backed up while its collector runs, restored elsewhere, and moved to PostgreSQL by a command that is
//! killed again and again, is the same store everywhere: every acked result once, agents go on where they were.
//!
//! `PEIL_SEED` repeats a run.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use peil_collector::store::{Place, Store};
use peil_proto::ids::CheckNo;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use peil_test_postgres::{Care, Server};
use peil_tests::dice::Dice;
use peil_tests::fleet::{self, INTERVAL, Plan};
use peil_tests::{Collector, Process, eventually, programs};
use tokio_util::sync::CancellationToken;

const SETTINGS: &str = "[[check]]\nname = \"c\"\nkind = \"tcp\"\naddress = \"127.0.0.1:9\"\ninterval_s = 10\n";
const AGENTS: u64 = 6;
const RECORDS: u64 = 6_000;
/// Longest life of a move.
const LIFE_MS_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_backed_up_restored_and_moved() -> anyhow::Result<()> {
    let mut dice = Dice::from_environment();
    let mut first = Collector::start(SETTINGS).await?;
    let dir = tempfile::tempdir()?;
    let tokens = (0..AGENTS).map(|_| first.token()).collect::<anyhow::Result<_>>()?;
    let members = fleet::enrol(&first.url(), tokens, dir.path()).await?;
    let ticks = i64::try_from(RECORDS)?;
    let since = WallClock::System.now().plus(Millis(-INTERVAL.0 * (ticks + 6)));
    let since = UtcTime(since.0 - since.0.rem_euclid(INTERVAL.0));
    let plan = Plan { url: first.url(), checks: vec![CheckNo(1)], since, records: RECORDS, pause_ms_max: 400 };
    let stop = CancellationToken::new();
    let mut agents = tokio::task::JoinSet::new();
    for member in &members {
        agents.spawn(member.clone().run(plan.clone(), dice.below(u64::MAX), stop.clone()));
    }

    // Beside the collector, while results come in.
    let file = dir.path().join("early.db");
    first.command(&["backup", &file.to_string_lossy()])?.good()?;
    let again = first.command(&["backup", &file.to_string_lossy()])?;
    ensure!(again.status == Some(1) && again.err.contains("there already"), "{again:?}");
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    let refused = first.command(&["restore", &file.to_string_lossy()])?;
    ensure!(refused.status == Some(1) && refused.err.contains("peil.db"), "{refused:?}");

    // The doctor finds nothing to do, and the metrics say the same.
    let well = first.command(&["doctor", "--json"])?.good()?;
    let well: serde_json::Value = serde_json::from_str(&well)?;
    ensure!(well["durability"]["synchronous"] == "2" && well["leases_held"] == 2, "{well}");
    eventually("the store was looked at", async || {
        ensure!(first.api().metric("peil_store_leases_held").await? == 2.0, "not yet");
        Ok(())
    })
    .await?;

    // Restored into another directory, which a collector of the same authority opens.
    let restored = dir.path().join("restored");
    let config = dir.path().join("restored.toml");
    std::fs::write(&config, format!("data_dir = {restored:?}\n"))?;
    let settings = config.to_string_lossy();
    programs::run(&programs::collector()?, ["restore", "--config", &settings, &file.to_string_lossy()])?.good()?;
    programs::run(&programs::collector()?, ["audit", "verify", "--config", &settings])?.good()?;

    // Moved, as long as it takes, by a command that is killed.
    let from = format!("sqlite://{}", first.database().parent().context("in a directory")?.display());
    let server = tokio::task::spawn_blocking(|| Server::start(Care::Durable, &[])).await?;
    let to = server.url();
    let args = ["migrate", "--from", &from, "--to", &to];
    let running = programs::run(&programs::collector()?, args)?;
    ensure!(running.status == Some(1) && running.err.contains("holds leases"), "{running:?}");
    first.stop().await?;
    let nobody = first.command(&["doctor"])?;
    ensure!(nobody.status == Some(1) && nobody.out.contains("no collector is here"), "{nobody:?}");
    let mut kills = 0;
    while kills < 12 {
        let mut run = Process::start("migrate", &programs::collector()?, &args)?;
        eventually("the move writes", async || {
            let writes = run.err().iter().any(|line| line.contains("rows"));
            ensure!(writes || run.check_running().is_err(), "not yet");
            Ok(())
        })
        .await?;
        // The moment of the blow is the experiment; the first one comes at once, so that there is one in the middle.
        tokio::time::sleep(Duration::from_millis(dice.below(LIFE_MS_MAX) * kills.min(1))).await;
        if run.check_running().is_err() {
            break;
        }
        run.kill9()?;
        if kills == 0 {
            std::fs::write(&config, format!("data_dir = {restored:?}\nstore = {to:?}\n"))?;
            let half = programs::run(&programs::collector()?, ["agent", "list", "--config", &settings])?;
            ensure!(half.status == Some(1) && half.err.contains("half filled"), "{half:?}");
        }
        kills += 1;
    }
    let moved = programs::run(&programs::collector()?, args)?;
    ensure!(moved.status == Some(0) || moved.err.contains("is not empty"), "{moved:?}");

    // Everything is there, once, and a collector with the same authority goes on.
    let place = Place::parse(&to, Default::default())?;
    let store = tokio::task::spawn_blocking(move || Store::connect(&place)).await??;
    let stats = store.block_stats().await?;
    ensure!(stats.records == AGENTS * RECORDS && stats.lost == 0, "{stats:?}");
    store.close().await;
    let head = format!("store = {to:?}");
    let next = Collector::join(&first, &head, SETTINGS).await?;
    let hosts = eventually("the hosts are known", async || {
        let hosts = next.api().get("hosts").await?;
        let known = hosts["hosts"].as_array().context("a list")?.len() as u64;
        ensure!(known == AGENTS, "{known} hosts");
        Ok(hosts)
    })
    .await?;
    for host in hosts["hosts"].as_array().context("a list")? {
        ensure!(host["records"].as_u64() == Some(RECORDS), "{host}");
    }
    Ok(())
}
