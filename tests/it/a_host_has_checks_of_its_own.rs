//! Whoever keeps a host has something watched on it, without a word to the collector.

use anyhow::{Context as _, ensure};
use peil_tests::{Agent, Collector, ONLY_CHECKS, Target, eventually};

#[tokio::test]
async fn a_file_on_the_host_is_a_check_on_its_page_and_a_mistake_in_it_is_told_there() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let collector = Collector::start("").await?;
    let api = collector.api();
    let agent = Agent::enrol(&collector, ONLY_CHECKS)?;
    let file = agent.config().with_file_name("conf.d").join("shop.toml");
    std::fs::create_dir_all(file.parent().context("conf.d")?)?;
    let good = format!(
        "[[check]]\nname = \"shop\"\nkind = \"http\"\nurl = \"{}\"\ninterval_s = 2\ntimeout_s = 1\n",
        target.url()
    );
    std::fs::write(&file, &good)?;
    let mut agent = agent;
    agent.run()?;
    let shows = async |state: &str| {
        let host = api.host(agent.id()).await?;
        let check = &host["local_checks"][0];
        ensure!(check["vantages"][0]["state"] == state, "{host:#}");
        let name = check["name"].as_str().unwrap_or_default();
        ensure!(name.starts_with("local.") && name.ends_with(".shop"), "{name}");
        Ok(host)
    };
    eventually("the host's own check is up", async || shows("up").await).await?;
    target.stop();
    eventually("the host's own check is down", async || shows("down").await).await?;

    std::fs::write(&file, good.replace("url", "ulr"))?;
    let told = eventually("the mistake is told", async || {
        let host = shows("down").await?;
        let problems = host["local_problems"].to_string();
        ensure!(problems.contains("ulr") && problems.contains("shop.toml"), "{problems}");
        Ok(host)
    })
    .await?;
    ensure!(told["local_checks"][0]["target"] == target.url(), "the last good one runs: {told:#}");

    std::fs::remove_file(&file)?;
    eventually("it is gone with its file", async || {
        let host = api.host(agent.id()).await?;
        ensure!(
            host["local_checks"] == serde_json::json!([]) && host["local_problems"] == serde_json::json!([]),
            "{host:#}"
        );
        Ok(())
    })
    .await
}
