//! `/api/v1` for what people decide: exclusions, months, and the agreement.
//!
//! Reading needs anybody known; writing needs a role with the right to it, and every write is in the audit log under the
//! name of whoever sent it. The rules are those of the command line, because they are the same functions ([`crate::decisions`],
//! [`crate::months`], [`crate::apply`]); here they only meet JSON. Times that are sent are RFC 3339; times that are
//! answered are ms, as everywhere in the API. A key that does not exist is refused.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use peil_proto::time::UtcTime;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use utoipa::ToSchema;

use super::Web;
use super::api::{Error, ErrorBody, parameters};
use crate::access::{Principal, Right};
use crate::agreement::{InForce, read_files};
use crate::apply::{self, ApplyError, Missing};
use crate::config::Config;
use crate::contract::approval::{Deed, Proposal};
use crate::contract::calendar::Month;
use crate::contract::exclusion::ExclusionKind;
use crate::contract::sealing::Correction;
use crate::contract::span::Span;
use crate::decisions::{self, DecisionError};
use crate::evaluate::mistake_lines;
use crate::months::{self, MonthError, Wish};
use crate::snapshot::{ExclusionView, MonthView};
use crate::store::{Store, StoreError};

/// What decisions are made over.
#[derive(Debug, Clone)]
pub struct Desk {
    /// Where they are kept.
    pub store: Store,
    /// What the settings file says.
    pub config: Arc<Config>,
    /// What is in force.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// Wakes whoever tells which months are over.
    pub past_changed: Arc<Notify>,
}

/// The name under which somebody who may do this does it.
pub(super) fn allowed(principal: &Principal, right: Right) -> Result<&str, Error> {
    if principal.role.may(right) {
        return Ok(&principal.name);
    }
    let (name, role) = (&principal.name, principal.role.word());
    let message = format!("{name} has the role {role} and may not {}.", right.words());
    Err(Error::new(StatusCode::FORBIDDEN, "forbidden", message))
}

fn sent<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, Error> {
    body.map(|Json(body)| body).map_err(|why| Error::invalid(why.body_text()))
}

fn time(key: &str, text: &str) -> Result<UtcTime, Error> {
    UtcTime::parse(text).map_err(|why| Error::invalid(format!("{key} cannot be read: {why}")))
}

fn conflict(message: String) -> Error {
    Error::new(StatusCode::CONFLICT, "conflict", message)
}

fn unavailable(cause: &StoreError) -> Error {
    tracing::error!(cause = %crate::chain(cause), "a decision cannot be read or written");
    let message = "The collector cannot reach its store just now; its log says why.";
    Error::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
}

impl From<DecisionError> for Error {
    fn from(error: DecisionError) -> Self {
        match error {
            DecisionError::Store(cause) => unavailable(&cause),
            DecisionError::NoExclusion(_) => Self::not_found(error.to_string()),
            DecisionError::Senseless(_) => Self::invalid(error.to_string()),
            DecisionError::Taken(_) | DecisionError::Objected { .. } | DecisionError::Overtaken(_) => {
                conflict(error.to_string())
            }
        }
    }
}

impl From<MonthError> for Error {
    fn from(error: MonthError) -> Self {
        match error {
            MonthError::Store(cause) => unavailable(&cause),
            MonthError::NoService(_) | MonthError::NoEdition { .. } => Self::not_found(error.to_string()),
            MonthError::Objected { .. } | MonthError::Overtaken { .. } => conflict(error.to_string()),
        }
    }
}

impl From<ApplyError> for Error {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Store(cause) => unavailable(&cause),
            ApplyError::Refused(refused) => {
                Self::invalid(refused.iter().flat_map(mistake_lines).collect::<Vec<_>>().join("\n"))
            }
            ApplyError::Directory(..) | ApplyError::TooMany | ApplyError::Overtaken => conflict(error.to_string()),
        }
    }
}

/// Exclusions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExclusionList<'a> {
    /// In order of their beginning.
    #[schema(value_type = Vec<ExclusionView>)]
    exclusions: &'a [ExclusionView],
}

/// Exclusions that ended within a month, or are still to come.
#[utoipa::path(get, path = "/api/v1/exclusions", responses((status = 200, body = ExclusionList)))]
pub(super) async fn exclusions(State(web): State<Web>, uri: Uri) -> Result<Response, Error> {
    let [] = parameters(&uri, [])?;
    Ok(Json(ExclusionList { exclusions: &web.snapshot().exclusions }).into_response())
}

/// A proposal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewExclusion {
    /// What people call it; used once.
    #[schema(example = "CHG-7")]
    id: String,
    /// The service it is about.
    service: String,
    /// `maintenance`, `force_majeure`, `customer`, `dependency`.
    kind: String,
    /// First instant, RFC 3339.
    from: String,
    /// First instant after.
    to: String,
    /// When the customer was told.
    announced_at: Option<String>,
    /// What is done or happens, and where the evidence is.
    reason: String,
}

/// Asks for time to be left out; somebody else has to approve it.
#[utoipa::path(
    post, path = "/api/v1/exclusions", request_body = NewExclusion,
    responses((status = 201), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn propose(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    body: Result<Json<NewExclusion>, JsonRejection>,
) -> Result<Response, Error> {
    let who = allowed(&principal, Right::Propose)?;
    let NewExclusion { id, service, kind, from, to, announced_at, reason } = sent(body)?;
    let known = ExclusionKind::WORDS.iter().find(|(word, _)| *word == kind).map(|(_, kind)| *kind);
    let kind = known.ok_or_else(|| Error::invalid(format!("kind is {kind:?}; see the description.")))?;
    if !web.state.desk.in_force.borrow().agreement.service_names().any(|known| known == service) {
        return Err(Error::invalid(format!("There is no service {service:?}.")));
    }
    let span = Span::new(time("from", &from)?, time("to", &to)?);
    let announced_at = announced_at.map(|at| time("announced_at", &at)).transpose()?;
    let proposal = Proposal { id, service, kind, span, announced_at, reason };
    decisions::propose(&web.state.desk.store, proposal, who, web.now()).await?;
    Ok(StatusCode::CREATED.into_response())
}

/// One exclusion.
#[utoipa::path(
    get, path = "/api/v1/exclusions/{id}", params(("id" = String, Path, description = "What people call it")),
    responses((status = 200, body = ExclusionView), (status = 404, body = ErrorBody))
)]
pub(super) async fn exclusion(State(web): State<Web>, Path(id): Path<String>, uri: Uri) -> Result<Response, Error> {
    let [] = parameters(&uri, [])?;
    let now = web.snapshot();
    let found = now.exclusions.iter().find(|exclusion| exclusion.id == id);
    let found =
        found.ok_or_else(|| Error::not_found(format!("There is no exclusion {id:?} in this or last month.")))?;
    Ok(Json(found).into_response())
}

/// What is to be done about an exclusion.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "deed", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum NewAct {
    /// It counts.
    Approve {},
    /// It does not.
    Refuse {
        /// Why.
        reason: String,
    },
    /// The work was done earlier: the rest of the time counts again.
    Close {
        /// When it was done, RFC 3339.
        at: String,
    },
}

/// Approves, refuses or closes an exclusion; nobody decides about what they proposed themselves.
#[utoipa::path(
    post, path = "/api/v1/exclusions/{id}", request_body = NewAct,
    params(("id" = String, Path, description = "What people call it")),
    responses((status = 204), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
              (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn act(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    body: Result<Json<NewAct>, JsonRejection>,
) -> Result<Response, Error> {
    let who = allowed(&principal, Right::Decide)?;
    let deed = match sent(body)? {
        NewAct::Approve {} => Deed::Approve,
        NewAct::Refuse { reason } => Deed::Refuse(reason),
        NewAct::Close { at } => Deed::Close(time("at", &at)?),
    };
    decisions::act(&web.state.desk.store, &id, deed, who, web.now()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Months that are over.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MonthList<'a> {
    /// Newest first, then by service.
    #[schema(value_type = Vec<MonthView>)]
    months: &'a [MonthView],
}

/// Months that are over: drafts and sealed ones.
#[utoipa::path(get, path = "/api/v1/months", responses((status = 200, body = MonthList)))]
pub(super) async fn months(State(web): State<Web>, uri: Uri) -> Result<Response, Error> {
    let [] = parameters(&uri, [])?;
    Ok(Json(MonthList { months: &web.snapshot().months }).into_response())
}

fn month(text: &str) -> Result<Month, Error> {
    Month::parse(text).ok_or_else(|| Error::invalid(format!("{text:?} is not a month such as 2026-04.")))
}

/// One month; or the report or the data of an edition, as `sla verify` takes them.
#[utoipa::path(
    get, path = "/api/v1/months/{service}/{month}",
    params(("service" = String, Path, description = "Whose"), ("month" = String, Path, description = "`2026-04`"),
           ("part" = Option<String>, Query, description = "`report` or `data` of an edition"),
           ("edition" = Option<u32>, Query, description = "Which; the newest without it")),
    responses((status = 200, body = MonthView), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
pub(super) async fn month_part(
    State(web): State<Web>,
    Path((service, text)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, Error> {
    let [part, edition] = parameters(&uri, ["part", "edition"])?;
    let which = month(&text)?;
    let edition = edition.map(|text| text.parse().map_err(|_| Error::invalid("edition is a number.".to_owned())));
    let edition: Option<u32> = edition.transpose()?;
    let Some(part) = part else {
        let now = web.snapshot();
        let found = now.months.iter().find(|view| view.service == service && view.month == text);
        let found = found.ok_or_else(|| Error::not_found(format!("{service:?} has no {text} that is over.")))?;
        return Ok(Json(found).into_response());
    };
    let (_, texts) = months::texts(&web.state.desk.store, &service, which, edition).await?;
    let text = match part.as_str() {
        "report" => texts.document,
        "data" => texts.data,
        other => return Err(Error::invalid(format!("part is \"report\" or \"data\", not {other:?}."))),
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// What is to be done with a month.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "wish", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum NewEdition {
    /// None yet: a draft of a month that no agent was enrolled in, because its records came later.
    Draft {},
    /// Its first edition.
    Seal {},
    /// Its next edition; whoever sends it approves what `author` asks for.
    Supersede {
        /// What was wrong or came late.
        reason: String,
        /// Who asks for it; somebody else than the sender.
        author: String,
    },
}

/// The edition that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EditionMade {
    /// Its number.
    version: u32,
    /// SHA-256 of what it was made from.
    inputs: String,
}

/// Seals or supersedes a month, as it is known now; or makes its draft, without an edition to tell of.
#[utoipa::path(
    post, path = "/api/v1/months/{service}/{month}", request_body = NewEdition,
    params(("service" = String, Path, description = "Whose"), ("month" = String, Path, description = "`2026-04`")),
    responses((status = 201, body = EditionMade), (status = 204), (status = 400, body = ErrorBody),
              (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
pub(super) async fn make_edition(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    Path((service, text)): Path<(String, String)>,
    body: Result<Json<NewEdition>, JsonRejection>,
) -> Result<Response, Error> {
    let wished = sent(body)?;
    let right = if matches!(wished, NewEdition::Draft {}) { Right::Propose } else { Right::Decide };
    let who = allowed(&principal, right)?.to_owned();
    let desk = &web.state.desk;
    let in_force = Arc::clone(&desk.in_force.borrow());
    let which = (service.as_str(), month(&text)?);
    let wish = match wished {
        NewEdition::Draft {} => {
            months::draft(&desk.store, &in_force, which, web.now()).await?;
            desk.past_changed.notify_one();
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        NewEdition::Seal {} => Wish::Seal(who),
        NewEdition::Supersede { reason, author } => Wish::Supersede(Correction { reason, author, approver: who }),
    };
    let edition = months::fulfil(&desk.store, &in_force, desk.config.seal_day, which, wish, web.now()).await?;
    desk.past_changed.notify_one();
    let made = EditionMade { version: edition.version, inputs: edition.inputs.to_string() };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// What was applied, as the file that `apply` takes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgreementText {
    /// TOML.
    text: String,
}

/// Contracts, services and checks that were applied and are in force.
#[utoipa::path(get, path = "/api/v1/agreement", responses((status = 200, body = AgreementText)))]
pub(super) async fn agreement(State(web): State<Web>, uri: Uri) -> Result<Response, Error> {
    let [] = parameters(&uri, [])?;
    let (_, versions) = web.state.desk.store.object_versions().await.map_err(|cause| unavailable(&cause))?;
    Ok(Json(AgreementText { text: apply::export(&versions, web.now()) }).into_response())
}

/// Files to apply.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAgreement {
    /// All of them: they are brought into force together or not at all.
    files: Vec<NewFile>,
    /// Why everything ends now that was applied and is in none of them; without it that goes on.
    prune: Option<String>,
}

/// One file.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewFile {
    /// For messages.
    name: String,
    /// TOML with `[[contract]]`, `[[check]]` and `[[service]]`.
    text: String,
}

/// What applying did, or would do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgreementPlan {
    /// New versions.
    changes: usize,
    /// Objects that stay as they are.
    unchanged: usize,
    /// The difference in words.
    text: String,
    /// Whether it was written.
    written: bool,
}

/// Brings files into force, or with `dry_run=true` says what that would change.
#[utoipa::path(
    post, path = "/api/v1/agreement", request_body = NewAgreement,
    params(("dry_run" = Option<bool>, Query, description = "`true`: write nothing")),
    responses((status = 200, body = AgreementPlan), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
              (status = 409, body = ErrorBody))
)]
pub(super) async fn apply_files(
    State(web): State<Web>,
    Extension(principal): Extension<Principal>,
    uri: Uri,
    body: Result<Json<NewAgreement>, JsonRejection>,
) -> Result<Response, Error> {
    let who = allowed(&principal, Right::Agree)?;
    let [dry_run] = parameters(&uri, ["dry_run"])?;
    let dry_run = match dry_run.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(Error::invalid(format!("dry_run is \"true\" or \"false\", not {other:?}."))),
    };
    let NewAgreement { files, prune } = sent(body)?;
    let files: Vec<_> = files.into_iter().map(|file| (file.name, file.text)).collect();
    let missing = prune.map_or(Missing::GoOn, |reason| Missing::End { reason });
    let written = read_files(&files).map_err(ApplyError::Refused)?;
    let desk = &web.state.desk;
    let (plan, seen) = apply::prepare(&desk.store, &desk.config, &written, &missing, who, web.now()).await?;
    if !dry_run {
        apply::commit(&desk.store, &plan, seen, who).await?;
    }
    let (changes, unchanged) = (plan.changes.len(), plan.unchanged);
    Ok(Json(AgreementPlan { changes, unchanged, text: plan.in_words(), written: !dry_run }).into_response())
}
