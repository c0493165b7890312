//! The collector: turns what agents saw into what the contract speaks about.
//!
//! The rooms follow the data: IN (`ingest`), KEEP (`store`), JUDGE (`contract`, `live`, `derive`), DRIVE (`job`),
//! TELL (`snapshot`, `alert`, `web`), TRUST (`pki`, `tls`, `rotation`, `access`). Suggested reading order is the order below;
//! `app` ties them together and is the only place that spawns.

pub mod cli;
pub mod manual;
pub mod config;
pub mod agreement;
pub mod apply;
pub mod decisions;
pub mod months;
pub mod refold;
pub mod app;
pub mod identity;

pub mod ingest;
pub mod presence;
pub mod plans;

pub mod store;
pub mod doctor;

pub mod contract;
pub mod evaluate;
pub mod live;
pub mod derive;

pub mod job;

pub mod snapshot;
pub mod alert;
pub mod web;

pub mod pki;
pub mod tls;
pub mod rotation;
pub mod access;

/// An error with its causes, on one line: for the one place that prints it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
