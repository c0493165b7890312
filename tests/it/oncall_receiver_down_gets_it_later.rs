//! A receiver that is down, or a collector that dies in between, delays a message and loses none.

use anyhow::{Context as _, ensure};
use peil_tests::{Agent, Collector, ONLY_CHECKS, Receiver, Target, eventually};

fn settings(target: &Target, receiver: &Receiver) -> String {
    let (address, hook) = (target.address(), receiver.url());
    format!(
        r#"
[[contract]]
name = "any"

[[check]]
name = "port"
kind = "tcp"
address = "{address}"
interval_s = 2
timeout_s = 1

[[service]]
name = "shop"
contract = "any"
expression = "port"

[[channel]]
name = "hook"
kind = "webhook"
url = "{hook}"
"#
    )
}

const KEY: &str = "outage/shop";

async fn refused(receiver: &Receiver, times: usize) -> anyhow::Result<()> {
    eventually(&format!("the receiver has refused {times} attempts"), async || {
        let came = receiver.came(KEY).len();
        ensure!(came >= times, "{came} so far");
        Ok(())
    })
    .await
}

/// In the end: each message once, in order, all attempts under one key.
async fn told_once_in_order(receiver: &Receiver) -> anyhow::Result<()> {
    receiver.has_taken(KEY, &["firing", "resolved"]).await?;
    let came = receiver.came(KEY);
    let first = came.first().context("nothing came")?;
    ensure!(!first.idempotency.is_empty(), "no key to fold repeats by");
    ensure!(came.iter().all(|delivery| delivery.idempotency == first.idempotency), "several keys: {came:#?}");
    let resolved = came.iter().position(|delivery| delivery.status == "resolved").context("no resolved")?;
    ensure!(came[..resolved].iter().any(|delivery| delivery.taken), "resolved before anybody knew: {came:#?}");
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_refuses_three_times_gets_it_the_fourth_time() -> anyhow::Result<()> {
    let (mut target, receiver) = (Target::start()?, Receiver::start()?);
    let collector = Collector::start(&settings(&target, &receiver)).await?;
    let api = collector.api();
    let _agent = Agent::start(&collector, ONLY_CHECKS)?;
    eventually("the service is up", async || api.service_in("shop", "up").await).await?;

    receiver.refuse(true);
    target.stop();
    refused(&receiver, 3).await?;
    let delivery = eventually("the API shows the attempts", async || {
        let alert = api.alert(KEY).await?;
        let delivery = alert["deliveries"][0].clone();
        ensure!(delivery["attempts"].as_u64().is_some_and(|attempts| attempts >= 3), "{alert:#}");
        Ok(delivery)
    })
    .await?;
    ensure!(delivery["channel"] == "hook" && delivery["event"] == "firing", "{delivery:#}");
    ensure!(delivery["sent_at"].is_null(), "sent, says the API: {delivery:#}");
    ensure!(delivery["last_error"].as_str().is_some_and(|text| text.contains("500")), "{delivery:#}");

    // It is over before the receiver ever heard of it; it hears both, in order.
    target.resume()?;
    eventually("the alert is resolved", async || api.resolved(KEY).await).await?;
    receiver.refuse(false);
    told_once_in_order(&receiver).await?;
    eventually("the API shows that both were delivered", async || {
        let alert = api.alert(KEY).await?;
        let deliveries = alert["deliveries"].as_array().context("a list")?;
        ensure!(deliveries.len() == 2 && deliveries.iter().all(|one| one["sent_at"].is_i64()), "{alert:#}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_collector_killed_between_alert_and_delivery_delivers_after_its_restart() -> anyhow::Result<()> {
    let (mut target, receiver) = (Target::start()?, Receiver::start()?);
    let mut collector = Collector::start(&settings(&target, &receiver)).await?;
    let _agent = Agent::start(&collector, ONLY_CHECKS)?;
    eventually("the service is up", async || collector.api().service_in("shop", "up").await).await?;

    receiver.refuse(true);
    target.stop();
    refused(&receiver, 1).await?;
    collector.kill9()?;
    receiver.refuse(false);
    collector.restart().await?;
    receiver.has_taken(KEY, &["firing"]).await?;

    target.resume()?;
    told_once_in_order(&receiver).await
}
