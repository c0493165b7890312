//! The walk from a socket that closes to a person who is called, and back: one outage seen from everywhere.

use anyhow::{Context as _, ensure};
use peil_proto::time::WallClock;
use peil_tests::{Agent, Alertmanager, Collector, ONLY_CHECKS, Receiver, Target, eventually};
use serde_json::Value;

const BUCKETS: [&str; 7] =
    ["not_covered_ms", "out_of_window_ms", "holiday_ms", "excluded_ms", "up_ms", "down_ms", "unknown_ms"];

fn settings(target: &Target, receiver: &Receiver, alertmanager: &Alertmanager) -> String {
    let now = WallClock::System.now();
    let (url, hook, manager) = (target.url(), receiver.url(), alertmanager.url());
    // At 99.9999 % the whole month allows under three seconds, so one outage is a breach. Time before the first sample
    // is excluded, or it would be the breach.
    format!(
        r#"
[[contract]]
name = "strict"
target = "99.9999"
unknown = "excluded"
coverage = {{ from = "{now}" }}

[[check]]
name = "front"
kind = "http"
url = "{url}"
contains = "alive"
interval_s = 2
timeout_s = 1

[[service]]
name = "shop"
contract = "strict"
expression = "front"

[[channel]]
name = "hook"
kind = "webhook"
url = "{hook}"

[[channel]]
name = "manager"
kind = "alertmanager"
url = "{manager}"
"#
    )
}

fn ms(value: &Value, key: &str) -> anyhow::Result<i64> {
    value[key].as_i64().with_context(|| format!("{key} is missing in {value:#}"))
}

/// The same numbers wherever they stand, and every millisecond of the month in one bucket.
fn agrees_with_itself(service: &Value) -> anyhow::Result<()> {
    let figure = &service["figure"];
    let mut sum = 0;
    for bucket in BUCKETS {
        sum += ms(figure, bucket)?;
    }
    // The part of the month that is still to come is in no bucket of a figure to date but in this one.
    ensure!(sum == ms(figure, "month_ms")?, "the buckets come to {sum}: {figure:#}");
    ensure!(figure["counted_down_ms"] == service["counted_down_ms"], "two losses: {service:#}");
    ensure!(figure["availability"]["official"] == service["official"], "two percentages: {service:#}");
    ensure!(figure["verdict"] == service["verdict"], "two verdicts: {service:#}");
    Ok(())
}

#[tokio::test]
async fn an_outage_is_seen_everywhere_and_its_end_too() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let (receiver, alertmanager) = (Receiver::start()?, Alertmanager::start().await?);
    let collector = Collector::start(&settings(&target, &receiver, &alertmanager)).await?;
    let api = collector.api();
    let _agent = Agent::start(&collector, ONLY_CHECKS)?;

    let before = eventually("the service is up", async || api.service_in("shop", "up").await).await?;
    ensure!(before["because"] == serde_json::json!([]) && before["breach_certain"] == false, "{before:#}");
    ensure!(ms(&before, "counted_down_ms")? == 0, "a loss before the outage: {before:#}");
    ensure!(api.metric(r#"peil_service_up{service="shop"}"#).await? == 1.0, "metrics do not say up");
    agrees_with_itself(&before)?;

    target.stop();
    let down = eventually("the service is down", async || api.service_in("shop", "down").await).await?;
    ensure!(down["because"] == serde_json::json!(["front"]), "because of what? {down:#}");
    ensure!(down["outages"][0]["to"].is_null(), "no open outage: {down:#}");
    ensure!(down["outages"][0]["because"] == serde_json::json!(["front"]), "{down:#}");
    let lost = ms(&down, "counted_down_ms")?;
    let grown = eventually("the loss grows", async || {
        let service = api.service_in("shop", "down").await?;
        ensure!(ms(&service, "counted_down_ms")? > lost, "still {lost} ms");
        // A probe that was in the door when it closed may have seen another failure first.
        let vantage = &service["checks"][0]["vantages"][0];
        ensure!(vantage["outcome"] == "refused" && vantage["state"] == "down", "{vantage:#}");
        Ok(service)
    })
    .await?;
    agrees_with_itself(&grown)?;
    ensure!(api.metric(r#"peil_service_up{service="shop"}"#).await? == 0.0, "metrics do not say down");
    ensure!(api.metric(r#"peil_service_counted_down_seconds{service="shop"}"#).await? > 0.0, "no loss in metrics");

    receiver.has_taken("outage/shop", &["firing"]).await?;
    receiver.has_taken("sla_breach/shop/", &["firing"]).await?;
    let told = &receiver.came("outage/shop")[0].body;
    ensure!(told["version"] == "4" && told["alerts"][0]["labels"]["severity"] == "critical", "{told:#}");
    ensure!(told["alerts"][0]["labels"]["service"] == "shop", "{told:#}");
    ensure!(
        told["alerts"][0]["annotations"]["summary"].as_str().is_some_and(|text| text.contains("front")),
        "{told:#}"
    );
    let listed = eventually("Alertmanager lists it", async || alertmanager.active("outage/shop").await).await?;
    ensure!(listed["labels"]["alertname"] == "PeilServiceOutage", "{listed:#}");
    let breached = eventually("the breach is certain", async || {
        let service = api.service("shop").await?;
        ensure!(service["breach_certain"] == true && service["verdict"] == "breached", "{service:#}");
        Ok(service)
    })
    .await?;
    ensure!(ms(&breached, "budget_left_ms")? < 0, "{breached:#}");

    let browser = api.sign_in("admin", collector.password()).await?;
    for (path, words) in [
        ("/", vec!["shop", "Down", "Because of: front"]),
        ("/services/shop", vec!["still lasting", "Because of: front", "refused"]),
        ("/alerts", vec!["shop is down since"]),
    ] {
        let page = browser.page(path).await?;
        for word in words {
            ensure!(page.contains(word), "{word:?} is not on {path}:\n{page}");
        }
    }

    target.resume()?;
    let up = eventually("the service is up again", async || {
        let service = api.service_in("shop", "up").await?;
        ensure!(service["outages"][0]["to"].is_i64(), "the outage is still open: {service:#}");
        Ok(service)
    })
    .await?;
    agrees_with_itself(&up)?;
    let outage = &up["outages"][0];
    ensure!(outage["counted_ms"] == up["counted_down_ms"], "one outage, another loss: {up:#}");
    ensure!(ms(outage, "to")? - ms(outage, "from")? == ms(outage, "counted_ms")?, "{outage:#}");
    ensure!(up["outages"].as_array().is_some_and(|all| all.len() == 1), "more than one outage: {up:#}");

    receiver.has_taken("outage/shop", &["firing", "resolved"]).await?;
    let resolved = eventually("the alert is resolved", async || api.resolved("outage/shop").await).await?;
    ensure!(resolved["subject"] == "shop", "{resolved:#}");
    eventually("Alertmanager has let it go", async || match alertmanager.active("outage/shop").await {
        Ok(listed) => anyhow::bail!("still there: {listed:#}"),
        // Only "not listed" will do: an Alertmanager that does not answer proves nothing.
        Err(error) if error.to_string().contains("is not among") => Ok(()),
        Err(error) => Err(error),
    })
    .await?;
    // What is lost stays lost.
    ensure!(receiver.taken("sla_breach/shop/") == ["firing"], "the breach was taken back");
    ensure!(api.alert("sla_breach/shop/").await?["resolved_at"].is_null(), "the breach was resolved");
    let page = browser.page("/services/shop").await?;
    ensure!(!page.contains("still lasting"), "the page still shows an open outage");
    ensure!(page.contains(&up["official"].as_str().unwrap_or_default()[..6]), "another figure on the page:\n{page}");
    Ok(())
}

#[tokio::test]
async fn name_and_password_work_for_programs_and_nothing_works_for_strangers() -> anyhow::Result<()> {
    let collector = Collector::start("").await?;
    let (client, base) = (collector.api().client(), collector.api().base());
    for path in ["/api/v1/snapshot", "/metrics"] {
        let url = format!("{base}{path}");
        let known = client.get(&url).basic_auth("admin", Some(collector.password())).send().await?;
        ensure!(known.status() == 200, "{path}: {}", known.status());
        let wrong = client.get(&url).basic_auth("admin", Some("guess")).send().await?;
        ensure!(wrong.status() == 401, "{path} with a wrong password: {}", wrong.status());
        let stranger = client.get(&url).send().await?;
        ensure!(stranger.status() == 401, "{path} without one: {}", stranger.status());
    }
    let page = client.get(format!("{base}/")).send().await?;
    ensure!(page.status() == 303 && page.headers()["location"] == "/login", "{page:?}");
    ensure!(client.get(format!("{base}/healthz")).send().await?.status() == 200, "no health");
    Ok(())
}
