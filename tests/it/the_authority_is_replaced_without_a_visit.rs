//! The authority that agents trust is replaced while they run, and nobody goes to a host.

use anyhow::{Context as _, ensure};
use peil_agent::identity::Identity;
use peil_tests::{Agent, Collector, ONLY_CHECKS, eventually};

/// Whether the agent believes exactly these authorities, the one that issued its certificate first.
fn believes(agent: &Agent, wanted: &[&str]) -> anyhow::Result<()> {
    let trusted = Identity::load(&agent.identity())?.trusted();
    let trusted: Vec<_> = trusted.iter().map(ToString::to_string).collect();
    ensure!(trusted == wanted, "{trusted:?} instead of {wanted:?}");
    Ok(())
}

/// The fingerprint that `ca show` tells behind a word.
fn told(collector: &Collector, word: &str) -> anyhow::Result<String> {
    let text = collector.command(&["ca", "show"])?.good()?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(word)).with_context(|| format!("no {word:?} in {text}"))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn agents_move_to_another_authority_while_they_run_and_the_old_one_goes_when_nobody_needs_it()
-> anyhow::Result<()> {
    let mut collector = Collector::start("").await?;
    let mut agent = Agent::start(&collector, ONLY_CHECKS)?;
    let mut stopped = Agent::enrol(&collector, ONLY_CHECKS)?;
    let old = told(&collector, "in force")?;
    believes(&agent, &[&old])?;
    eventually("the agent is connected", async || {
        let host = collector.api().host(agent.id()).await?;
        ensure!(host["connected"] == true, "{host:#}");
        Ok(())
    })
    .await?;

    collector.command(&["ca", "rotate"])?.good()?;
    let next = told(&collector, "next")?;
    ensure!(next != old);
    eventually("the agent has moved", async || {
        let shown = collector.command(&["ca", "show"])?.good()?;
        ensure!(!shown.contains(agent.id()), "{shown}");
        Ok(())
    })
    .await?;
    believes(&agent, &[&next, &old])?;

    let refused = collector.command(&["ca", "retire"])?;
    ensure!(refused.status == Some(1) && refused.out.contains(stopped.id()), "{refused:?}");
    stopped.run()?;
    eventually("nobody is in the way", async || collector.command(&["ca", "retire"])?.good().map(|_| ())).await?;
    ensure!(told(&collector, "in force")? == next);
    for agent in [&agent, &stopped] {
        eventually("only the new authority is trusted", async || believes(agent, &[&next])).await?;
    }

    // What counts is that everybody finds everybody again.
    collector.stop().await?;
    collector.restart().await?;
    for agent in [&mut agent, &mut stopped] {
        agent.stop().await?;
        agent.run()?;
        agent.says("connected to the collector").await?;
    }
    let latecomer = Agent::enrol(&collector, ONLY_CHECKS)?;
    believes(&latecomer, &[&next])
}
