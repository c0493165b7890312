//! Every state is told in words, and what is not known is never shown as good or as zero.

use axum::http::StatusCode;
use peil_collector::snapshot::Snapshot;
use peil_proto::units::Millis;

use crate::browser::Site;
use crate::specimen::{self, NOW, busy, calm, empty};

/// The part of a page from one text to the next heading of the same kind.
fn part<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let start = page.find(from).unwrap_or_else(|| panic!("{from:?} is not in the page"));
    let rest = &page[start..];
    &rest[..rest[from.len()..].find(to).map_or(rest.len(), |end| end + from.len())]
}

fn card<'a>(page: &'a str, service: &str) -> &'a str {
    part(page, &format!(">{service}</a></h3>"), "</li>")
}

fn row<'a>(page: &'a str, host: &str) -> &'a str {
    let table = part(page, "id=\"hosts\"", "</section>");
    part(table, &format!(">{host}</a>"), "</tr>")
}

fn must_hold(text: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(text.contains(word), "{word:?} is missing in {text}");
    }
}

#[tokio::test]
async fn a_collector_without_data_says_so() {
    let page = Site::showing(empty()).await.page("/").await;
    must_hold(&page, &["No data yet", "No service yet", "No host yet", "No open alerts", "No services yet"]);
    assert!(!page.contains("All services up"));
}

#[tokio::test]
async fn the_overview_tells_each_service_in_words() {
    let page = Site::showing(busy()).await.page("/").await;
    must_hold(&page, &["Services down", "4 of 6 services up", "1 host silent", "1 host with overdue fixes"]);
    must_hold(
        card(&page, "Klantportaal"),
        &[
            "Down",
            "13:26 CET",
            "37 min ago",
            "Because of: inloggen",
            "99.610 %",
            "target 99.5 %",
            "25 min of 3 h 36 min left",
        ],
    );
    must_hold(card(&page, "Klantportaal"), &["between 99.560 % and 99.701 %: 46 min unknown", "Target met so far"]);
    must_hold(card(&page, "Zaaksysteem"), &["Unknown", "Undetermined: too little is known"]);
    must_hold(
        card(&page, "Archief"),
        &["Breached this month", "Over by 1 h 8 min (budget 3 h 36 min)", "outside service hours"],
    );
    must_hold(card(&page, "Nieuwe dienst"), &["no figure yet", "No agreed time yet"]);
    assert!(!card(&page, "Burgerportaal").contains("between"), "bounds are shown only when they differ");
    // 99.499999 must not read as 99.5.
    must_hold(&page, &["99.499 %", "Below target so far"]);
}

#[tokio::test]
async fn trouble_comes_first() {
    let page = Site::showing(busy()).await.page("/").await;
    let at = |name: &str| page.find(&format!(">{name}</a></h3>")).expect("a card");
    assert!(at("Klantportaal") < at("Zaaksysteem") && at("Zaaksysteem") < at("Archief"));
    assert!(at("Archief") < at("Burgerportaal"));
    assert!(page.find("id=\"alerts\"").expect("alerts") < page.find("id=\"services\"").expect("services"));
}

#[tokio::test]
async fn the_overview_tells_each_host_in_words_and_nothing_unknown_as_zero() {
    let page = Site::showing(busy()).await.page("/").await;
    must_hold(row(&page, "ams-web-1"), &["Connected", "Overdue", "1 of 3 fixes, oldest by 5 days"]);
    must_hold(row(&page, "utr-db-1"), &["Fixes due", "1 security fix, first within 10 days"]);
    must_hold(
        row(&page, "utr-db-2"),
        &["Silent", "96 min ago", "Unknown", "the last scan is 3 days old", "at the last reading"],
    );
    must_hold(row(&page, "gn-edge-1"), &["26.218 kWh this month", "48.3 W now", "modelled, not measured"]);
    must_hold(row(&page, "old-lamp-1"), &["Revoked"]);
    must_hold(row(&page, "new-app-1"), &["Never seen", "never scanned", "Unknown: no readings"]);
    assert!(!row(&page, "new-app-1").contains("kWh"));
}

#[tokio::test]
async fn open_alerts_say_what_to_do_and_where() {
    let page = Site::showing(busy()).await.page("/").await;
    must_hold(
        part(&page, "id=\"alerts\"", "</section>"),
        &[
            "Critical",
            "href=\"/services/Klantportaal\"",
            "Look at the identity provider first",
            "Warning",
            "lift the hold",
        ],
    );
    assert!(!part(&page, "id=\"alerts\"", "</section>").contains("ams-web-2"), "resolved ones are not open");
}

#[tokio::test]
async fn a_service_page_shows_figure_outages_and_vantages() {
    let page = Site::showing(busy()).await.page("/services/Klantportaal").await;
    must_hold(
        part(&page, "id=\"figure\"", "</section>"),
        &["99.610022 %", "99.560100 %", "99.701999 %", "99.858101 %"],
    );
    must_hold(&page, &["Excluded by agreement", "CHG-1044", "does not count: announced too late"]);
    must_hold(&page, &["still lasting", "6 min 8 s", "status 503", "the answer has status 503, not 200–299"]);
    must_hold(&page, &["Certificate ends soon", "12 days left", "Phases in numbers", "first byte", "412.0 ms"]);
    must_hold(&page, &["50 % within 97.7 ms, 95 % within 142.3 ms, 99 % within 168.9 ms", "of 43200 successes"]);
}

#[tokio::test]
async fn the_buckets_of_the_figure_are_those_of_the_evaluation() {
    let page = Site::showing(calm()).await.page("/services/Burgerportaal").await;
    for (bucket, time) in [("Up", "540:07:12"), ("Down", "0:06:08"), ("Excluded by agreement", "2:00:00")] {
        must_hold(part(&page, &format!("</span>{bucket}</th>"), "</tr>"), &[time]);
    }
    must_hold(&page, &["542:13:20"]);
}

#[tokio::test]
async fn a_host_page_shows_findings_energy_and_delivery() {
    let site = Site::showing(busy()).await;
    let page = site.page(&format!("/hosts/{}", "01".repeat(16))).await;
    must_hold(
        part(&page, "libssl3t64", "</tr>"),
        &["from openssl", "4 Nov 2026", "18 Nov 2026", "Overdue", "by 5 days", "held back"],
    );
    must_hold(part(&page, ">curl<", "</tr>"), &["8 days left", "can be installed"]);
    must_hold(&page, &["Reboot needed", "12 lost", "The agent refuses its plan", "forbids 10.0.0.0/8"]);
    must_hold(&page, &["26.218 kWh", "measured", "CPU package, DRAM", "Hours in numbers", "3 of 60 min"]);
    let page = site.page(&format!("/hosts/{}", "07".repeat(16))).await;
    must_hold(&page, &["there are no readings", "never"]);
    assert!(!page.contains("0.000 kWh") && !page.contains("0.0 W"));
}

#[tokio::test]
async fn the_alerts_page_shows_deliveries_and_what_was_resolved() {
    let page = Site::showing(busy()).await.page("/alerts").await;
    let open = part(&page, "id=\"firing\"", "</section>");
    must_hold(
        open,
        &[
            "oncall-webhook",
            "Delivered",
            "teams",
            "Failing, will be tried again",
            "HTTP 502",
            "1 of 2 messages not delivered",
        ],
    );
    must_hold(
        part(&page, "id=\"resolved\"", "</section>"),
        &["Resolved", "Nothing was heard from ams-web-2", "lasted 12 min"],
    );
}

#[tokio::test]
async fn hostile_names_are_text_everywhere() {
    const EVIL: &str = "<script>alert(1)</script>\"'&";
    let mut service = specimen::down();
    service.name = EVIL.to_owned();
    service.because = vec![EVIL.to_owned()];
    service.outages[0].because = vec![EVIL.to_owned()];
    for check in &mut service.checks {
        (check.name, check.target, check.kind) = (EVIL.to_owned(), EVIL.to_owned(), EVIL.to_owned());
        for vantage in &mut check.vantages {
            (vantage.host, vantage.outcome, vantage.detail) = (EVIL.to_owned(), EVIL.to_owned(), EVIL.to_owned());
        }
    }
    let mut host = specimen::overdue();
    (host.host, host.os, host.agent_version) = (EVIL.to_owned(), EVIL.to_owned(), EVIL.to_owned());
    host.plan_refused = vec![EVIL.to_owned()];
    host.patch.errors = vec![EVIL.to_owned()];
    host.patch.findings[0].package = EVIL.to_owned();
    host.energy.covers = EVIL.to_owned();
    let mut alerts = busy().alerts;
    for alert in &mut alerts {
        (alert.subject, alert.summary, alert.action) = (EVIL.to_owned(), EVIL.to_owned(), EVIL.to_owned());
        for delivery in &mut alert.deliveries {
            (delivery.channel, delivery.last_error) = (EVIL.to_owned(), EVIL.to_owned());
        }
    }
    let path = format!("/hosts/{}", host.agent);
    let site =
        Site::showing(Snapshot { at: NOW, services: vec![service], hosts: vec![host], alerts, ..Snapshot::default() })
            .await;
    let escaped = "/services/%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27%26";
    for path in ["/", "/hosts", "/alerts", escaped, &path] {
        let page = site.page(path).await;
        assert!(!page.contains("<script>alert"), "{path}");
        assert!(page.contains("&#60;script&#62;alert(1)"), "{path}");
    }
    assert!(site.page("/").await.contains(escaped), "and its link leads to its page");
}

#[tokio::test]
async fn a_stalled_evaluation_is_announced() {
    let mut old = calm();
    old.at = specimen::minutes_ago(12);
    let site = Site::showing(old).await;
    must_hold(&site.page("/").await, &["These figures are 12 min old", "role=\"alert\""]);
    site.clock.set(specimen::minutes_ago(11));
    assert!(!site.page("/").await.contains("These figures are"));
}

#[tokio::test]
async fn what_does_not_exist_gets_a_page_that_says_so() {
    let site = Site::showing(calm()).await;
    for (path, words) in [
        ("/services/none", "There is no service “none”."),
        ("/hosts/zz", "There is no agent"),
        (&format!("/hosts/{}", "0a".repeat(16)), "There is no agent"),
        ("/nothing", "There is nothing at /nothing."),
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        must_hold(&answer.text, &[words, "Go to the overview"]);
    }
}

#[tokio::test]
async fn a_page_can_be_read_without_scripts_and_without_colours() {
    let site = Site::showing(busy()).await;
    let page = site.page("/").await;
    must_hold(
        &page,
        &[
            "<html lang=\"en\">",
            "<main id=\"main\"",
            "Skip to content",
            "aria-current=\"page\"",
            "http-equiv=\"refresh\"",
            "aria-live=\"polite\"",
        ],
    );
    assert_eq!(page.matches("<h1>").count(), 1);
    for inline in ["style=", "onclick=", "<style"] {
        assert!(!page.contains(inline), "{inline} would be refused by the policy");
    }
    // Every script is a file of ours.
    assert_eq!(page.matches("<script").count(), page.matches("<script src=\"/assets/").count());
    let paused = site.page("/?live=off").await;
    assert!(
        !paused.contains("sse-connect") && !paused.contains("<script") && !paused.contains("http-equiv=\"refresh\"")
    );
}

#[tokio::test]
async fn many_hosts_are_all_reachable_from_the_overview() {
    let mut many = calm();
    many.hosts = (0..120).map(|n| specimen::host(n, &format!("host-{n:03}"))).collect();
    let site = Site::showing(many).await;
    must_hold(&site.page("/").await, &["70 more hosts"]);
    assert_eq!(site.page("/hosts").await.matches("/hosts/").count(), 120);
}

#[tokio::test]
async fn a_budget_of_nothing_is_not_called_overdrawn() {
    let mut strict = specimen::service("Streng");
    (strict.budget_ms, strict.budget_left_ms, strict.counted_down_ms) = (Millis(0), Millis(0), Millis(0));
    let page = Site::showing(Snapshot { services: vec![strict], ..calm() }).await.page("/").await;
    must_hold(card(&page, "Streng"), &["No downtime allowed"]);
}
