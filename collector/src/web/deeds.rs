//! Decisions on the pages: what waits for whoever looks, as forms below the page, and what becomes of them.
//!
//! A person sees only what they may do: an exclusion that somebody else proposed, a draft to seal. The rules are those of
//! the API, because they are the same functions; `gate` has seen that the form came from a page of ours. Works without
//! JavaScript, so a page with forms tells what was open when it was made; whoever was overtaken is told.
//!
//! Deliberately absent: forms to propose or close an exclusion, to supersede a month, to change the agreement. Command
//! line and API have them.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, Form};
use serde::Deserialize;

use super::api::Error;
use super::pages::{self, Page};
use super::{Web, decide};
use crate::access::{Principal, Right};
use crate::contract::approval::Deed;
use crate::contract::calendar::Month;
use crate::decisions;
use crate::months::{self, Wish};
use crate::snapshot::{ExclusionView, MonthView, Snapshot};

#[derive(Template)]
#[template(path = "deeds.html")]
struct Open<'a> {
    exclusions: Vec<&'a ExclusionView>,
    months: Vec<&'a MonthView>,
}

/// The forms of `page` for `principal`; empty when nothing there waits for them.
pub(super) fn forms(page: &Page, snapshot: &Snapshot, principal: &Principal) -> Result<String, askama::Error> {
    let mut open = Open { exclusions: Vec::new(), months: Vec::new() };
    if principal.role.may(Right::Decide) {
        match page {
            Page::Exclusions => {
                let waits = |view: &&ExclusionView| view.progress == "proposed" && view.proposed_by != principal.name;
                open.exclusions = snapshot.exclusions.iter().filter(waits).collect();
            }
            Page::Months => open.months = snapshot.months.iter().filter(|view| view.stage == "draft").collect(),
            _ => {}
        }
    }
    if open.exclusions.is_empty() && open.months.is_empty() { Ok(String::new()) } else { open.render() }
}

/// What is sent about an exclusion.
#[derive(Debug, Deserialize)]
pub(super) struct Decided {
    id: String,
    deed: String,
    #[serde(default)]
    reason: String,
}

/// `POST /exclusions`
pub(super) async fn exclusion(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    form: Result<Form<Decided>, FormRejection>,
) -> Response {
    match decide_about(&web, &principal, form).await {
        Ok(()) => Redirect::to("/exclusions").into_response(),
        Err(refusal) => page_of(refusal),
    }
}

async fn decide_about(
    web: &Web,
    principal: &Principal,
    form: Result<Form<Decided>, FormRejection>,
) -> Result<(), Error> {
    let who = decide::allowed(principal, Right::Decide)?;
    let Form(Decided { id, deed, reason }) = form.map_err(|why| Error::invalid(why.body_text()))?;
    let deed = match deed.as_str() {
        "approve" => Deed::Approve,
        "refuse" => Deed::Refuse(reason),
        other => return Err(Error::invalid(format!("There is no deed {other:?}."))),
    };
    decisions::act(&web.state.desk.store, &id, deed, who, web.now()).await?;
    Ok(())
}

/// What is sent about a month.
#[derive(Debug, Deserialize)]
pub(super) struct Sealed {
    service: String,
    month: String,
}

/// `POST /months`
pub(super) async fn month(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    form: Result<Form<Sealed>, FormRejection>,
) -> Response {
    match seal(&web, &principal, form).await {
        Ok(()) => Redirect::to("/months").into_response(),
        Err(refusal) => page_of(refusal),
    }
}

async fn seal(web: &Web, principal: &Principal, form: Result<Form<Sealed>, FormRejection>) -> Result<(), Error> {
    let who = decide::allowed(principal, Right::Decide)?.to_owned();
    let Form(Sealed { service, month }) = form.map_err(|why| Error::invalid(why.body_text()))?;
    let which = Month::parse(&month).ok_or_else(|| Error::invalid(format!("{month:?} is not a month.")))?;
    let desk = &web.state.desk;
    let in_force = Arc::clone(&desk.in_force.borrow());
    let (which, wish) = ((service.as_str(), which), Wish::Seal(who));
    months::fulfil(&desk.store, &in_force, desk.config.seal_day, which, wish, web.now()).await?;
    desk.past_changed.notify_one();
    Ok(())
}

/// The same for a person.
fn page_of(refusal: Error) -> Response {
    let (status, message) = refusal.into_parts();
    pages::error(status, &message)
}
