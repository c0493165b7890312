//! Exclusions, months and the agreement by the API: who may write, what is refused, and that it stands in the log.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use peil_collector::access::Role;
use serde_json::{Value, json};

use crate::browser::{Answer, Site, login, with_cookie};
use crate::specimen::{busy, calm};

const PROPOSAL: &str = r#"{"id": "CHG-9", "service": "Klantportaal", "kind": "maintenance", "from": "2026-11-24T00:00:00+01:00",
                           "to": "2026-11-24T02:00:00+01:00", "announced_at": null, "reason": "new disks"}"#;

async fn post(site: &Site, token: &str, path: &str, body: &str) -> Answer {
    let request = Request::post(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_owned()))
        .expect("a request");
    site.ask(request).await
}

async fn token(site: &Site, name: &str, role: Role) -> String {
    site.access.issue_api_token(name, role, None).await.expect("issued")
}

#[tokio::test]
async fn one_program_proposes_another_approves_and_a_viewer_does_neither() {
    let site = Site::showing(calm()).await;
    let (anna, bert) = (token(&site, "anna", Role::Admin).await, token(&site, "bert", Role::Admin).await);
    let viewer = token(&site, "dashboard", Role::Viewer).await;
    let refused = post(&site, &viewer, "/api/v1/exclusions", PROPOSAL).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    assert_eq!(post(&site, &anna, "/api/v1/exclusions", PROPOSAL).await.status, StatusCode::CREATED);
    assert_eq!(post(&site, &bert, "/api/v1/exclusions", PROPOSAL).await.status, StatusCode::CONFLICT);
    let approve = r#"{"deed": "approve"}"#;
    let own = post(&site, &anna, "/api/v1/exclusions/CHG-9", approve).await;
    assert_eq!(own.status, StatusCode::CONFLICT);
    assert!(own.text.contains("ask somebody else"), "{}", own.text);
    assert_eq!(post(&site, &bert, "/api/v1/exclusions/CHG-9", approve).await.status, StatusCode::NO_CONTENT);
    assert_eq!(post(&site, &bert, "/api/v1/exclusions/CHG-1", approve).await.status, StatusCode::NOT_FOUND);
    let log = site.desk.store.audit_tail(10).await.expect("read");
    let told: Vec<_> = log.iter().map(|entry| (entry.who.as_str(), entry.what.as_str())).collect();
    assert_eq!(told, [("bert", "exclusion.approve"), ("anna", "exclusion.propose")]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_reason() {
    let site = Site::showing(calm()).await;
    let anna = token(&site, "anna", Role::Admin).await;
    for (from, to, part) in [
        ("maintenance", "holiday", "kind is"),
        ("Klantportaal", "Klantportal", "no service"),
        ("2026-11-24T02", "2026-02-30T02", "to cannot be read"),
        ("2026-11-24T02", "2026-11-23T02", "must end later"),
        ("\"reason\"", "\"reasons\"", "unknown field"),
        ("new disks", " ", "say why"),
    ] {
        let answer = post(&site, &anna, "/api/v1/exclusions", &PROPOSAL.replace(from, to)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{from} -> {to}: {}", answer.text);
        assert!(answer.text.contains(part), "{part}: {}", answer.text);
    }
    let early = post(&site, &anna, "/api/v1/months/Klantportaal/2026-11", r#"{"wish": "seal"}"#).await;
    assert_eq!(early.status, StatusCode::CONFLICT);
    assert!(early.text.contains("still runs"), "{}", early.text);
}

#[tokio::test]
async fn a_month_is_sealed_and_handed_out_by_the_api() {
    let site = Site::showing(busy()).await;
    let anna = token(&site, "anna", Role::Admin).await;
    let path = "/api/v1/months/Klantportaal/2026-10";
    let made = post(&site, &anna, path, r#"{"wish": "seal"}"#).await;
    assert_eq!((made.status, &made.json()["version"]), (StatusCode::CREATED, &json!(1)), "{}", made.text);
    let report: Value = site.get(&format!("{path}?part=report")).await.json();
    assert_eq!((&report["sealed_by"], &report["version"]), (&json!("anna"), &json!(1)));
    let data = site.get(&format!("{path}?part=data&edition=1")).await.text;
    let answer = peil_collector::evaluate::verify::answer(("report", &report.to_string()), ("data", &data));
    assert!(answer.expect("usable").1, "the report is what the data give");
    assert_eq!(site.get(&format!("{path}?part=data&edition=2")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn files_are_applied_together_or_not_at_all() {
    let site = Site::showing(calm()).await;
    let anna = token(&site, "anna", Role::Admin).await;
    let body = |text: &str| json!({"files": [{"name": "a.toml", "text": text}]}).to_string();
    let good = "[[contract]]\nname = \"office\"\ntarget = \"99.9\"";
    let dry = post(&site, &anna, "/api/v1/agreement?dry_run=true", &body(good)).await;
    assert_eq!((&dry.json()["changes"], &dry.json()["written"]), (&json!(1), &json!(false)), "{}", dry.text);
    assert_eq!(site.get("/api/v1/agreement").await.json()["text"], "");
    let wrong = post(&site, &anna, "/api/v1/agreement", &body(&good.replace("target", "targt"))).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.text.contains("a.toml: unknown key") && wrong.text.contains("at line 3"), "{}", wrong.text);
    let done = post(&site, &anna, "/api/v1/agreement", &body(good)).await;
    assert_eq!(done.json()["written"], true, "{}", done.text);
    assert!(site.get("/api/v1/agreement").await.text.contains("office"));
}

#[tokio::test]
async fn a_page_of_another_site_decides_nothing_with_a_password_the_browser_remembers() {
    let site = Site::showing(calm()).await;
    let basic = "Basic YWRtaW46aG9yc2U=";
    let request = |headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(Method::POST).uri("/api/v1/exclusions");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header(header::AUTHORIZATION, basic).header(header::CONTENT_TYPE, "application/json");
        request.body(Body::from(PROPOSAL)).expect("a request")
    };
    let foreign = site.ask(request(&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")])).await;
    assert_eq!((foreign.status, &foreign.json()["error"]["code"]), (StatusCode::FORBIDDEN, &json!("cross_site")));
    assert_eq!(site.ask(request(&[])).await.status, StatusCode::CREATED, "curl");
}

#[tokio::test]
async fn the_pages_tell_what_waits_what_counts_and_what_differs() {
    let site = Site::showing(busy()).await;
    let exclusions = site.page("/exclusions").await;
    for part in
        ["Waits for approval", "Nobody approved it.", "30 min left out so far.", "Ran over by 5 min", "decided by bert"]
    {
        assert!(exclusions.contains(part), "{part} is not in {exclusions}");
    }
    assert!(exclusions.find("CHG-7") < exclusions.find("CHG-6"), "what waits for somebody comes first");
    let months = site.page("/months").await;
    for part in
        ["Edition 2", "nobody approved it", "Differs from what is known now", "Draft", "part=report&#38;edition=2"]
    {
        assert!(months.contains(part), "{part} is not in {months}");
    }
}

#[tokio::test]
async fn each_role_may_what_it_says_and_nothing_else() {
    let site = Site::showing(busy()).await;
    let (approve, seal, draft) = (r#"{"deed": "approve"}"#, r#"{"wish": "seal"}"#, r#"{"wish": "draft"}"#);
    let agreement = r#"{"files": [{"name": "a.toml", "text": "[[contract]]\nname = \"x\""}]}"#;
    let month = "/api/v1/months/Klantportaal/2026-10";
    for (role, may) in [
        (Role::Viewer, [false, false, false, false, false]),
        (Role::Editor, [true, false, true, false, true]),
        (Role::Approver, [true, true, true, true, false]),
        (Role::Admin, [true, true, true, true, true]),
    ] {
        let token = token(&site, role.word(), role).await;
        let asked = [
            ("/api/v1/exclusions", PROPOSAL),
            ("/api/v1/exclusions/CHG-9", approve),
            (month, draft),
            (month, seal),
            ("/api/v1/agreement?dry_run=true", agreement),
        ];
        for ((path, body), may) in asked.into_iter().zip(may) {
            let answer = post(&site, &token, path, body).await;
            assert_eq!(answer.status != StatusCode::FORBIDDEN, may, "{} {path}: {}", role.word(), answer.text);
        }
    }
}

#[tokio::test]
async fn two_people_sign_in_and_the_log_names_them() {
    let site = Site::showing(calm()).await;
    for (name, role) in [("anna", Role::Editor), ("bert", Role::Approver)] {
        site.access.set_password(name, role, "donkey").await.expect("set");
    }
    let send = async |name: &str, path: &str, body: &str| {
        let basic = data_encoding::BASE64.encode(format!("{name}:donkey").as_bytes());
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Basic {basic}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .expect("a request");
        site.ask(request).await.status
    };
    let approve = r#"{"deed": "approve"}"#;
    assert_eq!(send("anna", "/api/v1/exclusions", PROPOSAL).await, StatusCode::CREATED);
    assert_eq!(send("anna", "/api/v1/exclusions/CHG-9", approve).await, StatusCode::FORBIDDEN);
    assert_eq!(send("bert", "/api/v1/exclusions/CHG-9", approve).await, StatusCode::NO_CONTENT);
    let log = site.desk.store.audit_tail(10).await.expect("read");
    let told: Vec<_> = log.iter().map(|entry| (entry.who.as_str(), entry.what.as_str())).collect();
    assert_eq!(told, [("bert", "exclusion.approve"), ("anna", "exclusion.propose")]);
}

/// A form as a browser of `name` sends it from a page of ours.
async fn submit(site: &Site, name: &str, path: &str, form: &str) -> Answer {
    let cookie = signed_in(site, name).await;
    let request = Request::post(path)
        .header("sec-fetch-site", "same-origin")
        .header(header::COOKIE, cookie)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    site.ask(request.body(Body::from(form.to_owned())).expect("a request")).await
}

async fn signed_in(site: &Site, name: &str) -> String {
    let answer = site.ask(login(name, "donkey", "")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    answer.header("set-cookie").split(';').next().expect("a pair").to_owned()
}

#[tokio::test]
async fn a_page_has_forms_only_for_whoever_may_and_they_do_what_the_api_does() {
    let mut snapshot = busy();
    let mut waiting = snapshot.exclusions[0].clone();
    (waiting.id, waiting.progress, waiting.proposed_by) = ("CHG-9".into(), "proposed".into(), "anna".into());
    snapshot.exclusions.push(waiting);
    snapshot.months[0].stage = "draft".into();
    (snapshot.months[0].service, snapshot.months[0].month) = ("Klantportaal".into(), "2026-10".into());
    let site = Site::showing(snapshot).await;
    for (name, role) in [("anna", Role::Approver), ("bert", Role::Approver), ("carl", Role::Editor)] {
        site.access.set_password(name, role, "donkey").await.expect("set");
    }
    let anna = token(&site, "anna", Role::Approver).await;
    assert_eq!(post(&site, &anna, "/api/v1/exclusions", PROPOSAL).await.status, StatusCode::CREATED);
    for (name, approves, seals) in [("anna", false, true), ("bert", true, true), ("carl", false, false)] {
        let cookie = signed_in(&site, name).await;
        let exclusions = site.ask(with_cookie("/exclusions", &cookie)).await.text;
        assert_eq!(exclusions.contains(">Approve CHG-9<"), approves, "{name}");
        let months = site.ask(with_cookie("/months", &cookie)).await.text;
        assert_eq!(months.contains(">Seal Klantportaal 2026-10<"), seals, "{name}");
    }
    let approve = "id=CHG-9&deed=approve&reason=";
    assert_eq!(submit(&site, "carl", "/exclusions", approve).await.status, StatusCode::FORBIDDEN);
    let own = submit(&site, "anna", "/exclusions", approve).await;
    assert!(own.status == StatusCode::CONFLICT && own.text.contains("ask somebody else"), "{}", own.text);
    let done = submit(&site, "bert", "/exclusions", approve).await;
    assert_eq!((done.status, done.header("location")), (StatusCode::SEE_OTHER, "/exclusions"));
    let seal = "service=Klantportaal&month=2026-10";
    assert_eq!(submit(&site, "carl", "/months", seal).await.status, StatusCode::FORBIDDEN);
    assert_eq!(submit(&site, "bert", "/months", "service=Klantportaal").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(submit(&site, "bert", "/months", seal).await.status, StatusCode::SEE_OTHER);
    let log = site.desk.store.audit_tail(10).await.expect("read");
    let told: Vec<_> = log.iter().map(|entry| (entry.who.as_str(), entry.what.as_str())).collect();
    assert_eq!(told, [("bert", "month.seal"), ("bert", "exclusion.approve"), ("anna", "exclusion.propose")]);
    let elsewhere = Request::post("/exclusions").header("sec-fetch-site", "cross-site");
    let elsewhere = elsewhere.header(header::COOKIE, signed_in(&site, "bert").await).body(Body::from(approve));
    assert_eq!(site.ask(elsewhere.expect("a request")).await.status, StatusCode::FORBIDDEN);
}
