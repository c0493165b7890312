//! SIGKILL at any moment, on either side: what was acked is there, once; what is missing is told.
//!
//! `PEIL_SEED` repeats a run; `PEIL_LONG` makes it a hundred kills.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use peil_agent::spool::{Limits, Spool};
use peil_tests::dice::Dice;
use peil_tests::{Agent, Collector, ONLY_CHECKS, Target, eventually, records};

const CHECKS: usize = 40;
/// Longest life between two kills: long enough for a few batches, short enough to hit starting programs too.
const LIFE_MS_MAX: u64 = 2_000;

fn settings(target: &Target) -> anyhow::Result<String> {
    let mut settings = "[[contract]]\nname = \"any\"\n".to_owned();
    for no in 0..CHECKS {
        let what = if no % 2 == 0 {
            format!("kind = \"tcp\"\naddress = {:?}", target.address())
        } else {
            format!("kind = \"http\"\nurl = {:?}", target.url())
        };
        write!(settings, "[[check]]\nname = \"c{no}\"\n{what}\ninterval_s = 1\n")?;
    }
    Ok(settings)
}

async fn stored(collector: &Collector, agent: &Agent) -> anyhow::Result<u64> {
    collector.api().host(agent.id()).await?["records"].as_u64().context("no count of records")
}

/// More comes than was there.
async fn flows(collector: &Collector, agent: &Agent) -> anyhow::Result<()> {
    let before = eventually("the agent is known", async || stored(collector, agent).await).await?;
    eventually("records arrive again", async || {
        let now = stored(collector, agent).await?;
        ensure!(now > before, "still {now}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn f2_killed_at_random_nothing_is_lost_or_doubled() -> anyhow::Result<()> {
    let target = Target::start()?;
    let mut collector = Collector::start(&settings(&target)?).await?;
    let mut agent = Agent::start(&collector, ONLY_CHECKS)?;
    flows(&collector, &agent).await?;

    let rounds = if std::env::var_os("PEIL_LONG").is_some() { 100 } else { 20 };
    let mut dice = Dice::from_environment();
    let mut agent_kills = 0;
    for round in 0..rounds {
        // The moment of the kill is the experiment; nothing is expected to have happened by then.
        tokio::time::sleep(Duration::from_millis(dice.below(LIFE_MS_MAX))).await;
        if dice.below(2) == 0 {
            eprintln!("[test] round {round}: collector");
            collector.kill9()?;
            // Sometimes the agent notices that nobody is there.
            tokio::time::sleep(Duration::from_millis(dice.below(LIFE_MS_MAX / 2))).await;
            collector.restart().await?;
        } else {
            eprintln!("[test] round {round}: agent");
            agent.kill9()?;
            agent_kills += 1;
            agent.run()?;
            if dice.below(2) == 0 {
                flows(&collector, &agent).await?;
            }
        }
    }
    // An agent that lost its collector often waits up to a minute before it tries again; a fresh one does not.
    agent.kill9()?;
    agent.run()?;
    agent.says("connected to the collector").await?;
    flows(&collector, &agent).await?;
    agent.stop().await?;
    collector.stop().await?;

    // The numbering jumps when the end of the spool cannot be read back; the start tells what it had to cut off.
    let torn = |line: &&String| line.contains("spool open") && !line.contains(" cut_bytes: 0,");
    let jumps = agent.log().iter().filter(torn).count();
    let streams = records::streams(&collector.database())?;
    ensure!(streams.len() == 1, "one agent with one spool has {} streams", streams.len());
    for stream in &streams {
        stream.check(jumps).with_context(|| format!("agent {} epoch {:016x}", stream.agent, stream.epoch))?;
        ensure!(stream.ticks().len() == CHECKS, "samples of {} checks", stream.ticks().len());
        // A kill takes the ticks of half a second with it, unsynced, and those until the next start: told by a gap
        // when it is longer than two seconds. So a check misses ticks at a kill of its agent and never else.
        for (check, at) in stream.ticks() {
            let breaks = at.windows(2).filter(|pair| pair[1].0 - pair[0].0 != 1_000).count();
            ensure!(breaks <= agent_kills + 1, "check {check} breaks off {breaks} times in {agent_kills} kills");
        }
    }
    let total: usize = streams.iter().map(|stream| stream.records.len()).sum();
    ensure!(total > CHECKS * rounds / 4, "only {total} records: the test did not test much");

    let machine = peil_agent::host::machine_id(std::path::Path::new("/"));
    let (spool, recovery) = Spool::open(&agent.state().join("spool"), &machine, Limits::default())?;
    ensure!(spool.epoch().0 == streams[0].epoch, "another epoch on disk: {recovery:?}");
    ensure!(
        (spool.last().0, spool.acked().0) == (streams[0].acked, streams[0].acked),
        "the spool holds {} to {}, the collector has {}",
        spool.acked(),
        spool.last(),
        streams[0].acked
    );
    let quarantine = agent.state().join("quarantine");
    ensure!(!quarantine.exists(), "records were set aside in {}", quarantine.display());
    Ok(())
}
