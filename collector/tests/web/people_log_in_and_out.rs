//! A person's way in and out, and what slows down those who guess.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use peil_collector::access::{Role, SESSION_IDLE};
use peil_proto::units::Millis;

use crate::browser::{Site, login, plain, with_cookie};
use crate::specimen::{NOW, calm};

#[tokio::test]
async fn after_logging_in_one_is_where_one_wanted_to_be() {
    let site = Site::showing(calm()).await;
    let answer = site.ask(plain("/alerts?live=off")).await;
    assert_eq!(answer.header("location"), "/login?next=%2Falerts%3Flive%3Doff");
    let form = site.ask(plain(answer.header("location"))).await;
    assert!(form.text.contains(r#"name="next" value="/alerts?live=off""#), "{}", form.text);
    let answer = site.ask(login("admin", "horse", "%2Falerts%3Flive%3Doff")).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/alerts?live=off"));
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-peil="), "{cookie}");
    for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=86400"] {
        assert!(cookie.contains(attribute), "{attribute} in {cookie}");
    }
    assert!(!cookie.contains("Domain"));
}

#[tokio::test]
async fn a_link_cannot_send_somebody_elsewhere_after_logging_in() {
    let site = Site::showing(calm()).await;
    for next in ["https://evil.example", "//evil.example", "/%5Cevil.example"] {
        assert_eq!(site.ask(login("admin", "horse", next)).await.header("location"), "/", "{next}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_get_the_same_words() {
    let site = Site::showing(calm()).await;
    for (name, password) in [("admin", "wrong"), ("nobody", "horse")] {
        let answer = site.ask(login(name, password, "")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.text.contains("Name or password is not right."), "{}", answer.text);
        assert!(answer.headers.get("set-cookie").is_none());
    }
}

#[tokio::test]
async fn guessing_is_slowed_and_told_for_how_long() {
    let site = Site::showing(calm()).await;
    for _ in 0..6 {
        assert_eq!(site.ask(login("admin", "wrong", "")).await.status, StatusCode::UNAUTHORIZED);
    }
    let answer = site.ask(login("admin", "horse", "")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "2"));
    assert!(answer.text.contains("Try again in 2 s"), "{}", answer.text);
    site.clock.set(NOW.plus(Millis::from_secs(2)));
    assert_eq!(site.ask(login("admin", "horse", "")).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn logging_out_ends_the_session_for_good() {
    let site = Site::showing(calm()).await;
    let cookie = site.cookie().await;
    assert_eq!(site.ask(with_cookie("/", &cookie)).await.status, StatusCode::OK);
    let out = Request::post("/logout").header(header::COOKIE, &cookie).header("sec-fetch-site", "same-origin");
    let answer = site.ask(out.body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.header("location"), "/login");
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(site.ask(with_cookie("/", &cookie)).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn an_idle_session_has_to_log_in_again() {
    let site = Site::showing(calm()).await;
    let cookie = site.cookie().await;
    site.clock.set(NOW.plus(SESSION_IDLE));
    let answer = site.ask(with_cookie("/hosts", &cookie)).await;
    assert_eq!(answer.header("location"), "/login?next=%2Fhosts");
}

#[tokio::test]
async fn a_made_up_cookie_is_nobody() {
    let site = Site::showing(calm()).await;
    for cookie in ["__Host-peil=", "__Host-peil=AAAA", "__Host-peil"] {
        assert_eq!(site.ask(with_cookie("/", cookie)).await.status, StatusCode::SEE_OTHER, "{cookie}");
    }
}

#[tokio::test]
async fn pages_take_no_password_in_a_header_but_programs_may_use_it() {
    let site = Site::showing(calm()).await;
    let basic = |path: &str, pair: &str| {
        let value = format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()));
        Request::get(path).header(header::AUTHORIZATION, value).body(Body::empty()).expect("a request")
    };
    assert_eq!(site.ask(basic("/metrics", "admin:horse")).await.status, StatusCode::OK);
    assert_eq!(site.ask(basic("/api/v1/hosts", "admin:horse")).await.status, StatusCode::OK);
    assert_eq!(site.ask(basic("/", "admin:horse")).await.status, StatusCode::SEE_OTHER);
    let answer = site.ask(basic("/metrics", "admin:wrong")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.header("www-authenticate").starts_with("Basic "));
    assert_eq!(answer.json()["error"]["code"], "unauthorized");
    for _ in 0..9 {
        site.ask(basic("/metrics", "admin:wrong")).await;
    }
    let answer = site.ask(basic("/metrics", "admin:wrong")).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (StatusCode::TOO_MANY_REQUESTS, Some("too_many_attempts"))
    );
}

#[tokio::test]
async fn a_token_opens_the_api_and_the_metrics() {
    let site = Site::showing(calm()).await;
    let token = site.access.issue_api_token("grafana", Role::Viewer, None).await.expect("issued");
    let bearer = |path: &str, token: &str| {
        let value = format!("Bearer {token}");
        Request::get(path).header(header::AUTHORIZATION, value).body(Body::empty()).expect("a request")
    };
    for path in ["/api/v1/snapshot", "/metrics"] {
        assert_eq!(site.ask(bearer(path, &token)).await.status, StatusCode::OK);
        assert_eq!(site.ask(bearer(path, "peil_wrong")).await.status, StatusCode::UNAUTHORIZED);
    }
}
