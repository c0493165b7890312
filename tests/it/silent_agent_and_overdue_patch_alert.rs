//! Two troubles no probe sees: an agent that fell silent, and a fix that was not installed in time.

use anyhow::{Context as _, ensure};
use peil_tests::{Agent, Collector, FakeHost, ONLY_CHECKS, Receiver, eventually};

fn settings(receiver: &Receiver) -> String {
    let hook = receiver.url();
    format!(
        r#"
[agents]
silent_after_s = 5

[patch]
term_days = 0

[[channel]]
name = "hook"
kind = "webhook"
url = "{hook}"
"#
    )
}

#[tokio::test]
async fn an_agent_that_falls_silent_is_missed_until_it_is_back() -> anyhow::Result<()> {
    let receiver = Receiver::start()?;
    let collector = Collector::start(&settings(&receiver)).await?;
    let api = collector.api();
    let mut agent = Agent::start(&collector, ONLY_CHECKS)?;
    let key = format!("agent_silent/{}", agent.id());
    eventually("the agent is connected", async || {
        let host = api.host(agent.id()).await?;
        ensure!(host["connected"] == true && host["silent"] == false, "{host:#}");
        Ok(())
    })
    .await?;
    ensure!(receiver.came(&key).is_empty(), "missed while it is there");

    agent.kill9()?;
    receiver.has_taken(&key, &["firing"]).await?;
    // A message may be there a moment before the page.
    eventually("the API says it is silent", async || {
        let (host, alert) = (api.host(agent.id()).await?, api.alert(&key).await?);
        ensure!(host["silent"] == true && host["connected"] == false, "{host:#}");
        ensure!(alert["kind"] == "agent_silent" && alert["severity"] == "warning", "{alert:#}");
        Ok(())
    })
    .await?;

    agent.run()?;
    receiver.has_taken(&key, &["firing", "resolved"]).await?;
    eventually("the alert is resolved", async || api.resolved(&key).await).await?;
    Ok(())
}

#[tokio::test]
async fn a_fix_that_is_overdue_is_an_alert_until_it_is_installed() -> anyhow::Result<()> {
    let receiver = Receiver::start()?;
    let collector = Collector::start(&settings(&receiver)).await?;
    let api = collector.api();
    let host = FakeHost::new("1.0-1", "1.0-1+deb12u1")?;
    // The shortest rhythm there is: the upgrade is seen within ten seconds.
    let patch = format!("[energy]\nenabled = false\n[patch]\nroot = {:?}\ninterval_s = 10\n", host.path());
    let agent = Agent::start(&collector, &patch)?;
    let key = format!("patch_overdue/{}", agent.id());

    let patch = eventually("the finding is overdue", async || {
        let patch = api.host(agent.id()).await?["patch"].clone();
        ensure!(patch["state"] == "overdue", "{patch:#}");
        Ok(patch)
    })
    .await?;
    ensure!(patch["installed"] == 1 && patch["pending"] == 1 && patch["errors"] == serde_json::json!([]), "{patch:#}");
    let finding = &patch["findings"][0];
    for (name, value) in [
        ("source", "demo-src"),
        ("package", "demo"),
        ("installed", "1.0-1"),
        ("security_version", "1.0-1+deb12u1"),
        ("state", "installable"),
    ] {
        ensure!(finding[name] == value, "{name} is not {value}: {finding:#}");
    }
    let first_seen = finding["first_seen"].as_i64().context("since when?")?;
    ensure!(finding["first_seen"] == patch["scanned_at"] && finding["due_at"] == first_seen, "no term: {patch:#}");
    receiver.has_taken(&key, &["firing"]).await?;
    let told = &receiver.came(&key)[0].body["alerts"][0]["annotations"]["summary"];
    ensure!(told.as_str().is_some_and(|text| text.contains("demo-src")), "{told}");

    host.install("1.0-1+deb12u1")?;
    eventually("the host is in order", async || {
        let patch = api.host(agent.id()).await?["patch"].clone();
        ensure!(patch["state"] == "ok" && patch["findings"] == serde_json::json!([]), "{patch:#}");
        Ok(())
    })
    .await?;
    receiver.has_taken(&key, &["firing", "resolved"]).await?;

    let db = peil_tests::records::open(&collector.database())?;
    let row = db.query_row("SELECT first_seen, closed_at FROM finding WHERE package = 'demo'", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    ensure!(row.0 == first_seen && row.1.is_some_and(|closed| closed > first_seen), "what is kept of it: {row:?}");
    Ok(())
}
