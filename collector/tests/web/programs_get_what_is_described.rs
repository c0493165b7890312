//! The API is the snapshot, its document is the API, and the metrics are the same facts once more.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use peil_collector::web::routes::ROUTES;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use crate::browser::Site;
use crate::specimen::{busy, calm, empty};

#[tokio::test]
async fn the_document_and_the_router_have_the_same_paths() {
    let site = Site::showing(busy()).await;
    let document = site.get("/api/v1/openapi.json").await.json();
    let described: BTreeSet<&str> = document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let routed: BTreeSet<&str> =
        ROUTES.iter().map(|route| route.path).filter(|path| path.starts_with("/api/")).collect();
    assert_eq!(described, routed);
    for path in described {
        let real = path.replace("{name}", "Klantportaal").replace("{agent}", &"01".repeat(16));
        let real = real.replace("{id}", "CHG-7").replace("{service}/{month}", "Klantportaal/2026-10");
        let answer = site.get(&real).await;
        assert_eq!(answer.status, StatusCode::OK, "{real}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/json", "{real}");
    }
}

#[tokio::test]
async fn the_document_describes_every_value_that_goes_out() {
    let document = Site::showing(busy()).await.get("/api/v1/openapi.json").await.json();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for name in [
        "Snapshot",
        "ServiceView",
        "OutageView",
        "CheckView",
        "VantageView",
        "HostView",
        "PatchView",
        "FindingView",
        "EnergyView",
        "EnergyHourView",
        "AlertView",
        "DeliveryView",
        "ServiceList",
        "HostList",
        "AlertList",
        "ErrorBody",
        "ExclusionView",
        "MonthView",
        "Notice",
        "ForecastView",
    ] {
        assert!(schemas.contains_key(name), "{name} is not described: {:?}", schemas.keys());
    }
    // No reference leads nowhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(schemas.contains_key(name), "{name}");
    }
    let keys = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let sent = serde_json::to_value(busy()).expect("json");
    assert_eq!(keys(&schemas["ServiceView"]["properties"]), keys(&sent["services"][0]));
    assert_eq!(keys(&schemas["HostView"]["properties"]), keys(&sent["hosts"][0]));
    assert_eq!(keys(&schemas["ExclusionView"]["properties"]), keys(&sent["exclusions"][0]));
    assert_eq!(keys(&schemas["MonthView"]["properties"]), keys(&sent["months"][0]));
    assert_eq!(keys(&schemas["AlertView"]["properties"]), keys(&sent["alerts"][0]));
}

#[tokio::test]
async fn resources_are_parts_of_the_snapshot() {
    let site = Site::showing(busy()).await;
    let whole = site.get("/api/v1/snapshot").await.json();
    assert_eq!(whole, serde_json::to_value(busy()).expect("json"));
    // A list has an order of its own.
    let ordered = |list: &str, key: fn(&serde_json::Value) -> String| {
        let mut entries = whole[list].as_array().expect("a list").clone();
        entries.sort_by_key(key);
        serde_json::Value::from(entries)
    };
    let services = ordered("services", |service| service["name"].to_string());
    assert_eq!(site.get("/api/v1/services").await.json()["services"], services);
    let hosts = ordered("hosts", |host| format!("{} {}", host["host"], host["agent"]));
    assert_eq!(site.get("/api/v1/hosts").await.json()["hosts"], hosts);
    let alerts = ordered("alerts", |alert| {
        let newest_first = i64::MAX - alert["id"].as_i64().expect("a number");
        format!("{} {newest_first}", !alert["resolved_at"].is_null())
    });
    assert_eq!(site.get("/api/v1/alerts?state=all").await.json()["alerts"], alerts);
    assert_eq!(site.get("/api/v1/alerts").await.json()["alerts"].as_array().map(Vec::len), Some(2));
    assert_eq!(site.get("/api/v1/exclusions").await.json()["exclusions"], whole["exclusions"]);
    assert_eq!(site.get("/api/v1/months").await.json()["months"], whole["months"]);
    assert_eq!(site.get("/api/v1/months/Archief/2026-10").await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.get("/api/v1/services/Archief").await.json(), whole["services"][0]);
    assert_eq!(site.get(&format!("/api/v1/hosts/{}", "01".repeat(16))).await.json(), whole["hosts"][0]);
}

#[tokio::test]
async fn pages_put_together_are_the_list_also_when_entries_go_between_two_of_them() {
    let site = Site::showing(busy()).await;
    for (list, parameters) in [("services", ""), ("hosts", ""), ("alerts", "state=all&")] {
        let whole = site.get(&format!("/api/v1/{list}?{parameters}limit=2000")).await.json();
        assert_eq!(whole["next"], serde_json::Value::Null);
        let whole = whole[list].as_array().expect("a list").clone();
        assert!(whole.len() > 2, "{list}");
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = site.get(&format!("/api/v1/{list}?{parameters}limit=1{after}")).await.json();
            found.extend(page[list].as_array().expect("a list").clone());
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(found, whole, "{list}");
    }
    let all = site.get("/api/v1/services").await.json()["services"].as_array().expect("a list").clone();
    let first = site.get("/api/v1/services?limit=2").await.json();
    // The entry at which the page ended is gone; the next page begins behind its place.
    let mut fewer = busy();
    fewer.services.retain(|service| service.name != all[1]["name"]);
    site.publish.send_replace(std::sync::Arc::new(fewer));
    let next = first["next"].as_str().expect("more");
    let rest = site.get(&format!("/api/v1/services?after={next}")).await.json();
    assert_eq!(rest["services"].as_array().expect("a list"), &all[2..]);
}

#[tokio::test]
async fn a_mistake_gets_one_clear_message() {
    let site = Site::showing(calm()).await;
    for (path, status, code, words) in [
        ("/api/v1/nothing", 404, "not_found", "There is nothing at /api/v1/nothing."),
        ("/api", 404, "not_found", "There is nothing at /api."),
        ("/api/v1/services/none", 404, "not_found", "There is no service \"none\"."),
        ("/api/v1/hosts/xyz", 400, "invalid_parameter", "\"xyz\" is not an agent: it has 32 hex digits."),
        ("/api/v1/alerts?state=closed", 400, "invalid_parameter", "state is \"open\" or \"all\", not \"closed\"."),
        (
            "/api/v1/alerts?sate=all",
            400,
            "invalid_parameter",
            "Unknown parameter \"sate\": this resource takes state, after, limit.",
        ),
        (
            "/api/v1/snapshot?limit=1",
            400,
            "invalid_parameter",
            "Unknown parameter \"limit\": this resource takes none.",
        ),
        ("/api/v1/hosts?limit=2001", 400, "invalid_parameter", "limit is a number from 1 to 2000, not \"2001\"."),
        ("/api/v1/hosts?limit=0", 400, "invalid_parameter", "limit is a number from 1 to 2000, not \"0\"."),
        (
            "/api/v1/services?after=Portal",
            400,
            "invalid_parameter",
            "after is the \"next\" of the page before, as it came.",
        ),
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.json(), json!({"error": {"code": code, "message": words}}), "{path}");
    }
}

/// The samples of an OpenMetrics text, each line checked for its form.
fn samples(text: &str) -> Vec<(String, f64)> {
    assert!(text.ends_with("# EOF\n"), "the text ends with its mark");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let name = series.split('{').next().unwrap_or_default();
            assert!(name.starts_with("peil_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line:?}");
            assert_eq!(series.contains('{'), series.ends_with('}'), "{line:?}");
            (series.to_owned(), value.parse().unwrap_or_else(|e| panic!("{e}: {line:?}")))
        })
        .collect()
}

fn value(samples: &[(String, f64)], name: &str, labels: &[&str]) -> Option<f64> {
    let fits =
        |series: &str| series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label));
    let found: Vec<f64> = samples.iter().filter(|(series, _)| fits(series)).map(|(_, value)| *value).collect();
    assert!(found.len() <= 1, "{name} {labels:?}: {found:?}");
    found.first().copied()
}

#[tokio::test]
async fn metrics_tell_the_snapshot_and_leave_out_what_nobody_knows() {
    let site = Site::showing(busy()).await;
    let answer = site.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let samples = samples(&answer.text);
    let get = |name: &str, labels: &[&str]| value(&samples, name, labels);
    let (portal, cases) = ([r#"service="Klantportaal""#], [r#"service="Zaaksysteem""#]);
    assert_eq!(get("peil_service_up", &portal), Some(0.0));
    assert_eq!(get("peil_service_up", &cases), None);
    assert_eq!(get("peil_service_unknown", &cases), Some(1.0));
    let official = [r#"service="Klantportaal""#, r#"bound="official""#];
    assert_eq!(get("peil_service_availability_ratio", &official), Some(0.996_100_22));
    assert_eq!(get("peil_service_availability_ratio", &[r#"service="Nieuwe dienst""#, "official"]), None);
    assert_eq!(get("peil_service_budget_left_seconds", &portal), Some(1_500.0));
    assert_eq!(get("peil_service_budget_left_seconds", &[r#"service="Archief""#]), Some(-4_100.0));
    assert_eq!(get("peil_host_silent", &[r#"host="utr-db-2""#]), Some(1.0));
    assert_eq!(get("peil_host_last_contact_timestamp_seconds", &[r#"host="new-app-1""#]), None);
    assert_eq!(get("peil_host_patch_findings", &[r#"host="ams-web-1""#, r#"standing="overdue""#]), Some(1.0));
    assert_eq!(get("peil_host_patch_findings", &[r#"host="utr-db-2""#, "overdue"]), None);
    assert_eq!(get("peil_patch_hosts", &[r#"state="unknown""#]), Some(2.0));
    assert_eq!(
        get("peil_host_energy_joules", &[r#"host="gn-edge-1""#, r#"bound="best""#, "modelled"]),
        Some(94_384_800.0)
    );
    assert_eq!(get("peil_host_energy_joules", &[r#"host="new-app-1""#]), None);
    assert_eq!(get("peil_alerts_open", &[r#"severity="critical""#]), Some(1.0));
}

#[tokio::test]
async fn a_service_that_is_gone_leaves_no_series() {
    let site = Site::showing(busy()).await;
    assert!(site.metrics.render().expect("text").contains("Klantportaal"));
    site.publish.send_replace(std::sync::Arc::new(empty()));
    let text = site.metrics.render().expect("text");
    assert!(!text.contains("service="), "{text}");
    samples(&text);
}

#[tokio::test]
async fn other_parts_add_their_own_metrics() {
    let site = Site::showing(calm()).await;
    let commits: Counter = Counter::default();
    site.metrics.register(|registry| registry.register("peil_store_commits", "Commits", commits.clone()));
    commits.inc_by(7);
    let samples = samples(&site.get("/metrics").await.text);
    assert_eq!(value(&samples, "peil_store_commits_total", &[]), Some(7.0));
}
