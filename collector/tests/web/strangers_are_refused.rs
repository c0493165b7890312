//! Deny by default: without a credential there is nothing but health, the log-in page and its looks.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use peil_collector::web::routes::{Gate, ROUTES};

use crate::browser::{Site, login, plain, with_cookie};
use crate::specimen::busy;

/// A path that matches the route.
fn filled(path: &str) -> String {
    let path = path.replace("{name}", "Klantportaal").replace("{agent}", &"01".repeat(16));
    path.replace("{id}", "CHG-7").replace("{service}/{month}", "Klantportaal/2026-10")
}

#[test]
fn only_these_routes_are_open() {
    let open: Vec<&str> = ROUTES.iter().filter(|route| route.gate == Gate::Open).map(|route| route.path).collect();
    assert_eq!(open, ["/healthz", "/readyz", "/login", "/assets/peil.css", "/assets/icon.svg"]);
}

#[tokio::test]
async fn every_route_refuses_strangers_unless_it_is_open() {
    let site = Site::showing(busy()).await;
    for route in ROUTES {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let request = Request::builder()
                .method(method)
                .uri(filled(route.path))
                .header("sec-fetch-site", "same-origin")
                .body(Body::empty())
                .expect("a request");
            let answer = site.ask(request).await;
            if route.gate == Gate::Open {
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{method} {}", route.path);
                continue;
            }
            let sent_to_login =
                answer.status == StatusCode::SEE_OTHER && answer.header("location").starts_with("/login");
            assert!(
                sent_to_login || answer.status == StatusCode::UNAUTHORIZED,
                "{method} {}: {} {}",
                route.path,
                answer.status,
                answer.text
            );
            assert!(!answer.text.contains("Klantportaal"), "{}", route.path);
        }
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_which_paths_exist() {
    let site = Site::showing(busy()).await;
    for (there, not_there) in [("/hosts", "/nothing"), ("/api/v1/hosts", "/api/v1/nothing")] {
        let (a, b) = (site.ask(plain(there)).await, site.ask(plain(not_there)).await);
        assert_eq!(a.status, b.status, "{not_there}");
        assert_ne!(a.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn every_answer_is_sealed() {
    let site = Site::showing(busy()).await;
    let cookie = site.cookie().await;
    for path in ["/", "/login", "/nothing", "/api/v1/services", "/metrics", "/healthz", "/assets/peil.css"] {
        for request in [plain(path), with_cookie(path, &cookie)] {
            let answer = site.ask(request).await;
            let policy = answer.header("content-security-policy");
            assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"), "{path}: {policy}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
            assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
            assert!(answer.header("strict-transport-security").starts_with("max-age="), "{path}");
            assert!(!answer.header("cache-control").is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn a_form_on_another_site_does_nothing() {
    let site = Site::showing(busy()).await;
    let cookie = site.cookie().await;
    let cross: [&[(&str, &str)]; 3] =
        [&[("sec-fetch-site", "cross-site")], &[("origin", "https://evil.example"), ("host", "peil.example")], &[]];
    for headers in cross {
        for path in ["/logout", "/login"] {
            let mut request = Request::post(path).header(header::COOKIE, &cookie);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = site.ask(request.body(Body::empty()).expect("a request")).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {headers:?}");
        }
    }
    assert_eq!(site.ask(with_cookie("/", &cookie)).await.status, StatusCode::OK, "still logged in");
    let same = Request::post("/logout")
        .header(header::COOKIE, &cookie)
        .header("origin", "https://peil.example")
        .header("host", "peil.example");
    assert_eq!(site.ask(same.body(Body::empty()).expect("a request")).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn health_is_open_and_readiness_says_why_not() {
    let site = Site::with_store(Default::default(), Err("disk full".to_owned())).await;
    assert_eq!(site.ask(plain("/healthz")).await.status, StatusCode::OK);
    let answer = site.ask(plain("/readyz")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.text,
        "not ready: the store does not answer: disk full\nnot ready: nothing has been evaluated yet\n"
    );
    let site = Site::showing(busy()).await;
    assert_eq!(site.ask(plain("/readyz")).await.text, "ready\n");
}

#[tokio::test]
async fn a_huge_form_is_refused() {
    let site = Site::showing(busy()).await;
    let answer = site.ask(login("admin", &"x".repeat(100_000), "")).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}
