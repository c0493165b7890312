//! What is on the screen follows the snapshot, for as long as the reader may see it.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode, header};
use tokio_stream::StreamExt;

use crate::browser::{Site, with_cookie};
use crate::specimen::{NOW, busy, calm};

/// Reads events off a stream.
struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    /// The next event as its lines; `None` when the stream has ended.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let bytes = self.body.next().await?.expect("bytes");
            self.text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        }
    }

    /// Names of the events up to and including `snapshot`, and all their text.
    async fn push(&mut self) -> (Vec<String>, String) {
        let (mut names, mut all) = (Vec::new(), String::new());
        while let Some(event) = self.next().await {
            all.push_str(&event);
            let name = event.lines().find_map(|line| line.strip_prefix("event: ")).unwrap_or_default().to_owned();
            let last = name == "snapshot";
            names.push(name);
            if last {
                break;
            }
        }
        (names, all)
    }
}

async fn listen(site: &Site, cookie: &str, query: &str) -> Events {
    let response = site.send(with_cookie(&format!("/live?{query}"), cookie)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    Events { body: response.into_body().into_data_stream(), text: String::new() }
}

#[tokio::test]
async fn a_new_snapshot_arrives_as_the_sections_that_changed() {
    let site = Site::showing(calm()).await;
    let cookie = site.cookie().await;
    let mut events = listen(&site, &cookie, &format!("page=overview&at={}", NOW.0)).await;
    let mut next = calm();
    next.services[0] = crate::specimen::down();
    site.publish.send_replace(Arc::new(next));
    let (names, text) = events.push().await;
    assert_eq!(names, ["summary", "services", "snapshot"], "hosts and alerts did not change");
    assert!(text.contains("Because of: inloggen"), "{text}");
    assert!(text.contains(r#"data: {"at":1795438992000,"changed":["summary","services"]}"#), "{text}");
}

#[tokio::test]
async fn a_reader_who_missed_something_gets_the_whole_page_at_once() {
    let site = Site::showing(busy()).await;
    let cookie = site.cookie().await;
    for query in ["page=overview&at=5", "page=overview"] {
        let (names, _) = listen(&site, &cookie, query).await.push().await;
        assert_eq!(names, ["notice", "summary", "alerts", "services", "hosts", "snapshot"], "{query}");
    }
    let reconnected = Request::get(format!("/live?page=overview&at={}", NOW.0))
        .header(header::COOKIE, &cookie)
        .header("last-event-id", "5")
        .body(Body::empty());
    let response = site.send(reconnected.expect("a request")).await;
    let mut events = Events { body: response.into_body().into_data_stream(), text: String::new() };
    assert_eq!(events.push().await.0.len(), 6, "the browser's own memory counts more than the page's address");
}

#[tokio::test]
async fn sections_of_the_page_and_events_of_the_stream_have_the_same_names() {
    let site = Site::showing(busy()).await;
    let cookie = site.cookie().await;
    let host = "01".repeat(16);
    for (path, query) in [
        ("/".to_owned(), "page=overview".to_owned()),
        ("/hosts".to_owned(), "page=hosts".to_owned()),
        ("/alerts".to_owned(), "page=alerts".to_owned()),
        ("/services/Klantportaal".to_owned(), "service=Klantportaal".to_owned()),
        (format!("/hosts/{host}"), format!("host={host}")),
    ] {
        let page = site.page(&path).await;
        assert!(page.contains(&format!("sse-connect=\"/live?{query}&#38;at={}\"", NOW.0)), "{path}");
        let (mut names, _) = listen(&site, &cookie, &query).await.push().await;
        assert_eq!(names.pop().as_deref(), Some("snapshot"));
        for name in &names {
            assert!(page.contains(&format!("sse-swap=\"{name}\"")), "{path} {name}");
            let own = ["open", "error", "message"];
            assert!(!own.contains(&name.as_str()), "{path}: browsers raise {name:?} themselves, without data");
        }
        assert_eq!(page.matches("sse-swap=").count(), names.len(), "{path}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_session_and_with_the_collector() {
    let site = Site::showing(calm()).await;
    let cookie = site.cookie().await;
    let query = format!("page=overview&at={}", NOW.0);
    let mut events = listen(&site, &cookie, &query).await;
    let secret = cookie.strip_prefix("__Host-peil=").expect("our cookie");
    site.access.log_out(secret).await.expect("out");
    site.publish.send_replace(Arc::new(busy()));
    assert_eq!(events.next().await, None, "nothing more is told to somebody who logged out");

    let cookie = site.cookie().await;
    let mut events = listen(&site, &cookie, "page=hosts").await;
    assert!(events.next().await.is_some());
    site.stop.cancel();
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn the_number_of_streams_is_bounded_and_an_ended_one_makes_room() {
    let site = Site::showing(calm()).await;
    let cookie = site.cookie().await;
    let mut open = Vec::new();
    let refused = loop {
        let response = site.send(with_cookie("/live?page=hosts", &cookie)).await;
        if response.status() != StatusCode::OK {
            break response;
        }
        open.push(response);
        assert!(open.len() <= 256, "no end of streams");
    };
    assert_eq!((refused.status(), open.len()), (StatusCode::SERVICE_UNAVAILABLE, 256));
    assert_eq!(refused.headers()["retry-after"], "30");
    open.pop();
    assert_eq!(site.send(with_cookie("/live?page=hosts", &cookie)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stream_of_nothing_is_refused() {
    let site = Site::showing(calm()).await;
    let cookie = site.cookie().await;
    assert_eq!(site.send(with_cookie("/live", &cookie)).await.status(), StatusCode::BAD_REQUEST);
}
