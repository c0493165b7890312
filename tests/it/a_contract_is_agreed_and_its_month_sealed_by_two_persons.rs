//! A contract from the files of its keeper to the report of its customer, with two persons and real programs: applied
//! after a look at the difference, changed, an exclusion asked for by one and approved by the other, a month that is over
//! drafted, sealed, handed out and verified by a program that has nothing but two files, and superseded when records of it
//! come late.
//!
//! What is over is the month before this one: its records come from an agent that has kept them (`src/fleet.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use peil_collector::contract::calendar::{Month, zone};
use peil_proto::ids::CheckNo;
use peil_proto::time::{UtcTime, WallClock};
use peil_proto::units::Millis;
use peil_tests::fleet::{self, INTERVAL, Member, Plan};
use peil_tests::{Agent, Api, Collector, ONLY_CHECKS, Target, eventually, programs};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Records of the agent that kept them, of one check.
const RECORDS: u64 = 600;
const ZONE: &str = "Europe/Amsterdam";

/// The month before this one.
fn last_month() -> anyhow::Result<(Month, UtcTime)> {
    let zone = zone(ZONE).context("no such zone")?;
    let month = Month::of(WallClock::System.now(), &zone).previous();
    Ok((month, month.first(&zone)))
}

fn agreement(target: &Target, percent: &str) -> anyhow::Result<String> {
    let ((_, from), url) = (last_month()?, target.url());
    Ok(format!(
        r#"
[[contract]]
name = "office"
target = "{percent}"
timezone = "{ZONE}"
unknown = "excluded"
coverage = {{ from = "{from}" }}

[[check]]
name = "archive"
kind = "tcp"
address = "localhost:9"
agents = ["{archive}"]
interval_s = 10
timeout_s = 1

[[check]]
name = "front"
kind = "http"
url = "{url}"
interval_s = 2
timeout_s = 1

[[service]]
name = "ledger"
contract = "office"
expression = "archive"

[[service]]
name = "shop"
contract = "office"
expression = "front"
"#,
        archive = Member::hostname(0)
    ))
}

/// The two who keep the contract, by their tokens.
struct Persons {
    anna: String,
    bert: String,
}

impl Persons {
    fn new(collector: &Collector) -> anyhow::Result<Self> {
        let token = |name: &str| {
            let made = collector.command(&["api-token", "create", "--label", name, "--role", "admin"])?;
            anyhow::Ok(made.good()?.trim().to_owned())
        };
        Ok(Self { anna: token("anna")?, bert: token("bert")? })
    }
}

/// The program without its settings: it has no collector and no database to ask.
fn verify(report: &Path, data: &Path) -> anyhow::Result<programs::Answer> {
    let args = ["sla".as_ref(), "verify".as_ref(), report.as_os_str(), "--data".as_ref(), data.as_os_str()];
    programs::run(&programs::collector()?, args)
}

#[tokio::test]
async fn a_contract_is_agreed_and_its_month_sealed_by_two_persons() -> anyhow::Result<()> {
    let mut target = Target::start()?;
    let collector = Collector::start("").await?;
    let persons = Persons::new(&collector)?;
    let files = tempfile::tempdir()?;

    agree(&collector, &target, files.path()).await?;
    let agent = Agent::start(&collector, ONLY_CHECKS)?;
    leave_out_an_outage(collector.api(), &persons, &mut target).await?;
    drop(agent);

    let members = fleet::enrol(&collector.url(), vec![collector.token()?], files.path()).await?;
    let (month, from) = last_month()?;
    let kept = from.plus(Millis(10 * Millis::DAY.0));
    send(&members[0], &collector, kept, RECORDS).await?;
    let down_ms = seal(&collector, &persons, month, files.path()).await?;
    send(&members[0], &collector, from.plus(Millis(5 * Millis::DAY.0)), 2 * RECORDS).await?;
    supersede(&collector, &persons, month, files.path(), down_ms).await?;

    let log = collector.command(&["audit", "tail", "--entries", "100"])?.good()?;
    for entry in [
        "agreement.apply contract \"office\" from ever",
        "anna exclusion.propose CHG-1",
        "bert exclusion.approve CHG-1",
        "anna month.seal",
        "bert month.supersede",
    ] {
        ensure!(log.contains(entry), "{entry} is not in the log:\n{log}");
    }
    ensure!(collector.command(&["audit", "verify"])?.good()?.contains("is whole"), "the log is not whole");
    Ok(())
}

/// Applied once, looked at and changed.
async fn agree(collector: &Collector, target: &Target, files: &Path) -> anyhow::Result<()> {
    let (dir, file) = (files.to_string_lossy().into_owned(), files.join("all.toml"));
    let apply = |extra: &[&str]| collector.command(&[&["apply", &dir], extra].concat())?.good();
    let agreed = async || collector.api().get("agreement").await;

    std::fs::write(&file, agreement(target, "99.5")?)?;
    let shown = apply(&["--dry-run"])?;
    ensure!(shown.contains("service \"shop\" since ever\n  + contract = \"office\""), "{shown}");
    ensure!(agreed().await?["text"] == "", "a dry run wrote something");
    ensure!(apply(&[])?.contains("5 new versions"), "not applied");

    std::fs::write(&file, agreement(target, "99.9")?)?;
    let shown = apply(&["--dry-run"])?;
    ensure!(shown.contains("  ~ target = \"99.5\" -> \"99.9\"\n1 new versions, 4 objects unchanged"), "{shown}");
    apply(&[])?;
    ensure!(agreed().await?["text"].as_str().is_some_and(|text| text.contains("target = \"99.9\"")), "not in force");
    eventually("the stricter target is judged by", async || {
        let service = collector.api().service("shop").await?;
        ensure!(service["target"] == "99.9", "{service:#}");
        Ok(())
    })
    .await
}

/// An outage that nobody has to answer for, once somebody else says so, too.
async fn leave_out_an_outage(api: &Api, persons: &Persons, target: &mut Target) -> anyhow::Result<()> {
    eventually("the service is up", async || api.service_in("shop", "up").await).await?;
    target.stop();
    eventually("the service is down", async || api.service_in("shop", "down").await).await?;
    target.resume()?;
    let back = eventually("the service is back", async || api.service_in("shop", "up").await).await?;
    let lost = back["counted_down_ms"].as_i64().context("a loss")?;
    ensure!(lost > 0, "an outage without a loss: {back:#}");
    let instant = |key: &str| back["outages"][0][key].as_i64().map(UtcTime).with_context(|| format!("{back:#}"));
    let proposal = json!({
        "id": "CHG-1", "service": "shop", "kind": "customer", "from": instant("from")?.to_string(),
        "to": instant("to")?.to_string(), "reason": "they pulled the plug",
    });
    let (status, answer) = api.post_as(&persons.anna, "exclusions", &proposal).await?;
    ensure!(status == StatusCode::CREATED, "{status} {answer}");
    let approve = json!({"deed": "approve"});
    let (status, answer) = api.post_as(&persons.anna, "exclusions/CHG-1", &approve).await?;
    ensure!(status == StatusCode::CONFLICT, "approved by the same person: {status} {answer}");
    ensure!(api.service("shop").await?["counted_down_ms"] == lost, "it counts before anybody approved it");
    let (status, answer) = api.post_as(&persons.bert, "exclusions/CHG-1", &approve).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status} {answer}");
    eventually("the outage counts no more", async || {
        let service = api.service("shop").await?;
        let row = &service["figure"]["excluded"][0];
        ensure!(service["counted_down_ms"] == 0 && row["counted_ms"] == lost, "{service:#}");
        Ok(())
    })
    .await
}

/// Sends what `member` has kept since `from` until `records` of it are stored and judged.
async fn send(member: &Arc<Member>, collector: &Collector, from: UtcTime, records: u64) -> anyhow::Result<()> {
    // On the rhythm of the check, and so that record after record lies behind the one before.
    let tick = i64::try_from(member.acked())?;
    let since = UtcTime(from.0 - from.0.rem_euclid(INTERVAL.0) - tick * INTERVAL.0);
    let plan = Plan { url: collector.url(), checks: vec![CheckNo(1)], since, records, pause_ms_max: 100 };
    member.clone().run(plan, 1, CancellationToken::new()).await?;
    let (api, agent) = (collector.api(), member.agent.to_string());
    let stored = eventually("everything is stored", async || {
        let snapshot = api.get("snapshot").await?;
        let host = snapshot["hosts"].as_array().and_then(|hosts| hosts.iter().find(|host| host["agent"] == agent));
        ensure!(host.is_some_and(|host| host["records"] == records), "{host:#?}");
        Ok(snapshot["at"].as_i64())
    })
    .await?;
    // Whatever was stored when a snapshot was made is judged in the next.
    eventually("everything is judged", async || {
        let snapshot = api.get("snapshot").await?;
        ensure!(snapshot["at"].as_i64() > stored, "{} is that of {stored:?}", snapshot["at"]);
        Ok(())
    })
    .await
}

async fn month_in(api: &Api, month: Month, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let found = api.get(&format!("months/ledger/{month}")).await?;
    ensure!(fits(&found), "{found:#}");
    Ok(found)
}

/// Hands out an edition as two files.
fn hand_out(collector: &Collector, month: Month, dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (month, dir) = (month.to_string(), dir.to_string_lossy().into_owned());
    let said = collector.command(&["month", "export", "ledger", &month, "--dir", &dir])?.good()?;
    let mut paths = said.lines().map(PathBuf::from);
    Ok((paths.next().context("no report")?, paths.next().context("no data")?))
}

/// Draft, seal, files, and a program that believes only what follows. Gives the downtime that was sealed.
async fn seal(collector: &Collector, persons: &Persons, month: Month, files: &Path) -> anyhow::Result<i64> {
    let (api, path) = (collector.api(), format!("months/ledger/{month}"));
    let (status, answer) = api.post_as(&persons.anna, &path, &json!({"wish": "draft"})).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status} {answer}");
    eventually("the month is a draft", async || month_in(api, month, |found| found["stage"] == "draft").await).await?;
    let (status, answer) = api.post_as(&persons.anna, &path, &json!({"wish": "seal"})).await?;
    ensure!(status == StatusCode::CREATED && answer["version"] == 1, "{status} {answer}");
    eventually("the month is sealed", async || {
        month_in(api, month, |found| found["stage"] == "sealed" && found["sealed_by"] == "anna").await
    })
    .await?;

    let (report, data) = hand_out(collector, month, files)?;
    let equal = verify(&report, &data)?;
    ensure!(equal.status == Some(0), "{equal:?}");
    let mut changed: Value = serde_json::from_slice(&std::fs::read(&data)?)?;
    changed["chapters"][0]["case"]["contract"]["target"] = "99.4".into();
    let forged = files.join("forged.json");
    std::fs::write(&forged, changed.to_string())?;
    let differs = verify(&report, &forged)?;
    ensure!(differs.status == Some(3) && differs.out.contains("inputs.agreement"), "{differs:?}");

    let document: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    let down_ms = document["figure"]["down_ms"].as_i64().context("downtime")?;
    ensure!(down_ms > 0, "the records have outages: {document:#}");
    Ok(down_ms)
}

/// Late records are told; another edition needs two persons, and says what changed.
async fn supersede(
    collector: &Collector,
    persons: &Persons,
    month: Month,
    files: &Path,
    sealed_ms: i64,
) -> anyhow::Result<()> {
    let (api, path) = (collector.api(), format!("months/ledger/{month}"));
    eventually("the sealed month differs", async || month_in(api, month, |found| found["differs"] == true).await)
        .await?;
    eventually("it is an alert", async || api.alert("month_differs").await).await?;
    let wish = json!({"wish": "supersede", "reason": "records of the fifth came late", "author": "anna"});
    let (status, answer) = api.post_as(&persons.anna, &path, &wish).await?;
    ensure!(status == StatusCode::CONFLICT, "approved by whoever asked: {status} {answer}");
    let (status, answer) = api.post_as(&persons.bert, &path, &wish).await?;
    ensure!(status == StatusCode::CREATED && answer["version"] == 2, "{status} {answer}");
    eventually("nothing differs any more", async || {
        month_in(api, month, |found| found["edition"] == 2 && found["differs"] == false).await
    })
    .await?;

    let (report, data) = hand_out(collector, month, files)?;
    let equal = verify(&report, &data)?;
    ensure!(equal.status == Some(0), "{equal:?}");
    let document: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    let down_ms = document["figure"]["down_ms"].as_i64().context("downtime")?;
    ensure!(document["delta"]["down_ms"] == down_ms - sealed_ms && down_ms > sealed_ms, "{document:#}");
    ensure!(document["correction"]["author"] == "anna" && document["sealed_by"] == "bert", "{document:#}");
    Ok(())
}
