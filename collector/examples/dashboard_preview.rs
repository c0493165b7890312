//! Writes the pages of three sample snapshots as files, to look at them without a collector:
//! `cargo run -p peil-collector --example dashboard_preview -- DIR`, then open `DIR/busy/index.html`.
//!
//! It drives the real router through the real log-in; only the snapshots are made up.

#[path = "../tests/web/specimen.rs"]
mod specimen;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use peil_collector::access::{Access, AccessStore, PasswordCost, Role};
use peil_collector::config::Config;
use peil_collector::snapshot::Snapshot;
use peil_collector::store::Store;
use peil_collector::web::decide::Desk;
use peil_collector::web::metrics::Metrics;
use peil_collector::web::ready::Readiness;
use peil_collector::web::{WebState, router};
use peil_proto::time::WallClock;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const PASSWORD: &str = "preview";
const ASSETS: [&str; 2] = ["peil.css", "icon.svg"];

#[tokio::main]
async fn main() -> Result<()> {
    let dir = std::env::args().nth(1).context("say where to write: dashboard_preview DIR")?;
    for (name, snapshot) in [("empty", specimen::empty()), ("calm", specimen::calm()), ("busy", specimen::busy())] {
        preview(&Path::new(&dir).join(name), snapshot).await?;
    }
    Ok(())
}

async fn preview(dir: &Path, snapshot: Snapshot) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let mut pages = vec![("index".to_owned(), "/".to_owned())];
    pages.extend(["alerts", "months", "exclusions"].map(|page| (page.to_owned(), format!("/{page}"))));
    pages.extend(snapshot.services.iter().enumerate().map(|(n, s)| {
        (format!("service-{n}"), format!("/services/{}", s.name.replace(' ', "%20").replace('&', "%26")))
    }));
    pages.extend(snapshot.hosts.iter().map(|h| (format!("host-{}", h.host), format!("/hosts/{}", h.agent))));
    let router = made_of(snapshot).await?;
    let cookie = log_in(&router).await?;
    write(dir, "login.html", &get(&router, "/login?next=/alerts", "").await?)?;
    for (file, path) in pages {
        let html = get(&router, &path, &cookie).await?;
        write(dir, &format!("{file}.html"), &html.replace("\"/assets/", "\""))?;
    }
    for asset in ASSETS {
        write(dir, asset, &get(&router, &format!("/assets/{asset}"), "").await?)?;
    }
    let login = std::fs::read_to_string(dir.join("login.html"))?;
    write(dir, "login.html", &login.replace("\"/assets/", "\""))
}

async fn made_of(snapshot: Snapshot) -> Result<Router> {
    let clock = WallClock::manual(specimen::NOW);
    let access = Access::new(AccessStore::memory(), clock.clone(), PasswordCost::STANDARD)?;
    access.set_password("admin", Role::Admin, PASSWORD).await?;
    let (_, latest) = tokio::sync::watch::channel(Arc::new(snapshot));
    let metrics = Metrics::new(latest.clone());
    let readiness = Readiness::new(async || Ok(()));
    // Nothing is decided in a preview: the directory goes with this value.
    let dir = tempfile::tempdir()?;
    let config = Arc::new(Config::parse("preview", "")?);
    let in_force = tokio::sync::watch::channel(Arc::default()).1;
    let desk = Desk { store: Store::open(dir.path())?, config, in_force, past_changed: Arc::default() };
    Ok(router(WebState { latest, access, readiness, metrics, desk, clock, stop: CancellationToken::new() }))
}

async fn log_in(router: &Router) -> Result<String> {
    let request = Request::post("/login")
        .header("sec-fetch-site", "same-origin")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(format!("name=admin&password={PASSWORD}")))?;
    let response = router.clone().oneshot(request).await?;
    let cookie = response.headers().get(header::SET_COOKIE).context("no cookie")?.to_str()?;
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

async fn get(router: &Router, path: &str, cookie: &str) -> Result<String> {
    let request = Request::get(path).header(header::COOKIE, cookie).body(Body::empty())?;
    let response = router.clone().oneshot(request).await?;
    anyhow::ensure!(response.status().is_success(), "{path}: {}", response.status());
    Ok(String::from_utf8(to_bytes(response.into_body(), 16 << 20).await?.to_vec())?)
}

fn write(dir: &Path, file: &str, text: &str) -> Result<()> {
    let path = dir.join(file);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
