//! Blocks that rot on the disk, and blocks of a version nobody here can read: each is told once, with its agent and number,
//! its time is unknown, and everything else goes on.

use std::path::Path;

use anyhow::{Context as _, ensure};
use peil_proto::time::WallClock;
use peil_tests::{Agent, Collector, ONLY_CHECKS, Target, eventually};
use rusqlite::Connection;

/// Blocks damaged, one after the other, so that more time is gone than a sample holds.
const DAMAGED: usize = 10;
/// A sample holds for two intervals and the time-out; one more for the ticks around.
const LONGEST_HOLD_MS: i64 = 5_000;
/// Place of the version in a block, after its four letters.
const VERSION_AT: usize = 4;
const NO_VERSION: u8 = 99;

/// What was damaged: first numbers of the blocks, and their time.
struct Damage {
    firsts: Vec<i64>,
    from: i64,
    to: i64,
}

/// Flips a bit of every other block in the middle of the log, and makes the others of a version that is not known.
fn damage(database: &Path) -> anyhow::Result<Damage> {
    let db = Connection::open(database)?;
    let mut ask = db.prepare("SELECT no, first_seq, from_ms, to_ms, bytes FROM block ORDER BY no")?;
    let rows = ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
    let blocks: Vec<(i64, i64, i64, i64, Vec<u8>)> = rows.collect::<Result<_, _>>()?;
    ensure!(blocks.len() > DAMAGED + 4, "only {} blocks", blocks.len());
    let mut damage = Damage { firsts: Vec::new(), from: i64::MAX, to: i64::MIN };
    for (at, (no, first, from, to, mut bytes)) in blocks.into_iter().skip(2).take(DAMAGED).enumerate() {
        let middle = bytes.len() / 2;
        match at % 2 {
            0 => bytes[middle] ^= 0x10,
            _ => bytes[VERSION_AT] = NO_VERSION,
        }
        db.execute("UPDATE block SET bytes = ?2 WHERE no = ?1", (no, bytes))?;
        damage.firsts.push(first);
        (damage.from, damage.to) = (damage.from.min(from), damage.to.max(to));
    }
    Ok(damage)
}

#[tokio::test]
async fn a_corrupt_block_is_told_once_and_everything_else_goes_on() -> anyhow::Result<()> {
    let target = Target::start()?;
    let now = WallClock::System.now();
    let settings = format!(
        "[[contract]]\nname = \"any\"\ncoverage = {{ from = \"{now}\" }}\n[[check]]\nname = \"port\"\nkind = \"tcp\"\n\
         address = {:?}\ninterval_s = 1\n[[service]]\nname = \"shop\"\ncontract = \"any\"\n\
         expression = \"port\"\n",
        target.address()
    );
    let mut collector = Collector::start(&settings).await?;
    let agent = Agent::start(&collector, ONLY_CHECKS)?;
    let records = async |collector: &Collector| {
        collector.api().host(agent.id()).await?["records"].as_u64().context("no count of records")
    };
    eventually("there are blocks enough", async || {
        let blocks: i64 =
            Connection::open(collector.database())?.query_row("SELECT COUNT(*) FROM block", (), |row| row.get(0))?;
        ensure!(blocks > 16, "{blocks} blocks");
        Ok(())
    })
    .await?;
    let before = records(&collector).await?;
    collector.stop().await?;
    let damage = damage(&collector.database())?;
    collector.restart().await?;

    eventually("records arrive again", async || {
        let now = records(&collector).await?;
        ensure!(now > before, "still {now}");
        Ok(())
    })
    .await?;
    let service = eventually("the service is up", async || collector.api().service_in("shop", "up").await).await?;
    ensure!(service["outages"] == serde_json::json!([]), "an outage nobody had: {service:#}");
    let unknown = service["unknown_ms"].as_i64().context("unknown_ms")?;
    let gone = damage.to - damage.from;
    ensure!(gone > LONGEST_HOLD_MS, "{gone} ms are gone: too short to see");
    ensure!(unknown >= gone - LONGEST_HOLD_MS, "{unknown} ms are unknown, {gone} ms are gone");

    let log = collector.log();
    let told: Vec<_> = log.iter().filter(|line| line.contains("a stored block cannot be read")).collect();
    for first in &damage.firsts {
        let about = told.iter().filter(|line| line.contains(&format!("first={first} "))).collect::<Vec<_>>();
        ensure!(about.len() == 1 && about[0].contains(agent.id()), "block {first} is told as {about:?}");
    }
    ensure!(told.len() == damage.firsts.len(), "told of others, too: {told:?}");
    ensure!(told.iter().any(|line| line.contains("block version 99")), "nobody tells of the version: {told:?}");
    collector.stop().await
}
