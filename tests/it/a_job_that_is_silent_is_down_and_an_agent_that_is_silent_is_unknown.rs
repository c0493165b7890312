//! A job that should report: silence of the job is a failure, silence of the agent that watches it is not knowing.

use anyhow::ensure;
use peil_tests::programs::{self, Answer};
use peil_tests::{Agent, Collector, ONLY_CHECKS, eventually};

fn settings() -> String {
    // Two jobs: the report of one holds for a day, that of the other for as long as it takes to see it.
    let job = |name: &str, within_s: u32| {
        format!(
            "[[check]]\nname = {name:?}\nkind = \"heartbeat\"\nreport = {name:?}\nwithin_s = {within_s}\ninterval_s = 2\n\
             timeout_s = 1\n[[service]]\nname = {name:?}\ncontract = \"all-day\"\nexpression = {name:?}\n"
        )
    };
    format!("[[contract]]\nname = \"all-day\"\n{}{}", job("nightly", 86_400), job("often", 12))
}

fn report(agent: &Agent, name: &str, verdict: &str) -> anyhow::Result<Answer> {
    let config = agent.config().to_string_lossy();
    programs::run(&programs::agent()?, ["report", name, verdict, "--config", &config])
}

#[tokio::test]
async fn a_job_without_a_report_is_down_while_its_agent_lives_and_unknown_when_that_is_gone() -> anyhow::Result<()> {
    let collector = Collector::start(&settings()).await?;
    let api = collector.api();
    let mut agent = Agent::start(&collector, ONLY_CHECKS)?;
    for job in ["nightly", "often"] {
        let never = eventually(&format!("{job} never reported"), async || api.service_in(job, "down").await).await?;
        let vantage = &never["checks"][0]["vantages"][0];
        ensure!(vantage["outcome"] == "timeout", "{vantage:#}");
    }

    report(&agent, "nightly", "ok")?.good()?;
    eventually("the job went well", async || api.service_in("nightly", "up").await).await?;
    report(&agent, "nightly", "fail")?.good()?;
    eventually("the job failed", async || api.service_in("nightly", "down").await).await?;
    report(&agent, "nightly", "ok")?.good()?;
    eventually("the job went well again", async || api.service_in("nightly", "up").await).await?;
    // Its report runs out without anybody doing anything.
    report(&agent, "often", "ok")?.good()?;
    eventually("the job was seen to go well, or its report to run out", async || {
        let service = api.service("often").await?;
        let ended = service["outages"].as_array().is_some_and(|outages| outages.iter().any(|one| !one["to"].is_null()));
        ensure!(ended, "never up: {service:#}");
        Ok(())
    })
    .await?;
    eventually("the report ran out", async || api.service_in("often", "down").await).await?;

    agent.kill9()?;
    eventually("nobody looks any more", async || api.service_in("nightly", "unknown").await).await?;
    // A contract does not let an outage end by silence.
    api.service_in("often", "down").await?;
    Ok(())
}
