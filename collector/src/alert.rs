//! TELL: which alerts there must be, and the words of a message.
//!
//! [`wanted`] is a pure function of the snapshot: the `raise` job opens what is wanted and not open, and
//! resolves what is open and [over](is_over). So an alert cannot be forgotten, sent for something
//! that is over, or sent twice: the key is the trouble itself. Delivery is at least once, through the
//! store's outbox; receivers fold repeats by the key.
//!
//! "Not wanted any more" is not "over": to resolve is to say that all is well. An outage is over when the service is
//! seen up, not when nobody knows or the window closes; a silence when the agent is heard, not
//! when the collector was restarted and starts counting anew.

pub mod alertmanager;
mod budget;
pub mod webhook;

use std::time::Duration;

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use crate::config::{Channel, ChannelKind};
use crate::snapshot::{HostView, PatchState, ServiceView, Snapshot};
use crate::store::alerts::AlertRow;
pub use crate::store::alerts::outbox::Event;

/// Time one delivery may take.
const SEND_MAX: Duration = Duration::from_secs(10);
/// Bytes of a refusal that are read; the rest is not waited for.
const REFUSAL_BYTES_MAX: usize = 1 << 10;

/// The kinds of alert. Adding one: a variant, its words, and a line in [`wanted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertKind {
    /// A service is down within its window.
    Outage,
    /// The month's loss is above the budget of the whole month: final.
    SlaBreach,
    /// The budget burns so fast that somebody must act now.
    BudgetBurn,
    /// At the rate of the month so far it ends below its target: for whoever answers for the contract.
    SlaForecast,
    /// What is known about a sealed month is not what it was sealed on.
    MonthDiffers,
    /// A figure shown is not what the blocks give: a fault of this program.
    FigureDiffers,
    /// The disk of the database is full: no records are taken.
    StoreFull,
    /// A host lacks a security fix for longer than the policy allows.
    PatchOverdue,
    /// An agent has been silent for too long.
    AgentSilent,
    /// An agent runs from a copy of its state: a clone, or a directory that was put back.
    AgentCopied,
    /// A stored value does not follow from the blocks it was made of.
    StoreDiffers,
}

impl AlertKind {
    /// All of them, with their words.
    pub const WORDS: [(&'static str, Self); 11] = [
        ("outage", Self::Outage),
        ("sla_breach", Self::SlaBreach),
        ("budget_burn", Self::BudgetBurn),
        ("sla_forecast", Self::SlaForecast),
        ("month_differs", Self::MonthDiffers),
        ("figure_differs", Self::FigureDiffers),
        ("store_full", Self::StoreFull),
        ("patch_overdue", Self::PatchOverdue),
        ("agent_silent", Self::AgentSilent),
        ("agent_copied", Self::AgentCopied),
        ("store_differs", Self::StoreDiffers),
    ];

    /// The word in keys, API and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::SlaBreach => "sla_breach",
            Self::BudgetBurn => "budget_burn",
            Self::SlaForecast => "sla_forecast",
            Self::MonthDiffers => "month_differs",
            Self::FigureDiffers => "figure_differs",
            Self::StoreFull => "store_full",
            Self::PatchOverdue => "patch_overdue",
            Self::AgentSilent => "agent_silent",
            Self::AgentCopied => "agent_copied",
            Self::StoreDiffers => DIFFERS,
        }
    }

    /// The name other alerting tools show.
    pub fn title(self) -> &'static str {
        match self {
            Self::Outage => "PeilServiceOutage",
            Self::SlaBreach => "PeilSlaBreach",
            Self::BudgetBurn => "PeilBudgetBurn",
            Self::SlaForecast => "PeilSlaForecast",
            Self::MonthDiffers => "PeilMonthDiffers",
            Self::FigureDiffers => "PeilFigureDiffers",
            Self::StoreFull => "PeilStoreFull",
            Self::PatchOverdue => "PeilPatchOverdue",
            Self::AgentSilent => "PeilAgentSilent",
            Self::AgentCopied => "PeilAgentCopied",
            Self::StoreDiffers => "PeilStoreDiffers",
        }
    }

    /// `critical` wakes somebody, `warning` can wait for the morning.
    pub fn severity(self) -> &'static str {
        match self {
            Self::Outage | Self::BudgetBurn | Self::StoreFull => "critical",
            Self::SlaBreach
            | Self::SlaForecast
            | Self::MonthDiffers
            | Self::FigureDiffers
            | Self::PatchOverdue
            | Self::AgentSilent
            | Self::AgentCopied
            | Self::StoreDiffers => "warning",
        }
    }
}

/// An alert that must be open now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Stable: the same trouble has the same key for as long as it lasts.
    pub key: String,
    /// What kind of trouble.
    pub kind: AlertKind,
    /// Service or host.
    pub subject: String,
    /// What happened, in one sentence.
    pub summary: String,
    /// What to do.
    pub action: String,
    /// When it began, as far as known.
    pub since: UtcTime,
}

/// All alerts that must be open at the snapshot's moment.
pub fn wanted(snapshot: &Snapshot) -> Vec<Wanted> {
    let now = snapshot.at;
    let services = snapshot.services.iter().flat_map(|service| {
        [outage(service, now), breach(service, now), budget::burn(service, now), budget::forecast(service, now)]
    });
    let hosts = snapshot.hosts.iter().filter(|host| !host.revoked);
    let hosts = hosts.flat_map(|host| [silent(host, snapshot.at), copied(host), overdue(host, snapshot.at)]);
    let figures = snapshot.notices.iter().map(budget::differs);
    let store = [differs(snapshot), snapshot.store_full.then(|| store_full(now))];
    services.chain(hosts).chain(store).flatten().chain(figures).collect()
}

/// Whether the trouble of an open alert that is not wanted has passed. What is not configured any more is over.
pub fn is_over(open: &AlertRow, snapshot: &Snapshot) -> bool {
    match open.key.split_once('/') {
        Some(("outage", name)) => {
            let service = snapshot.services.iter().find(|service| service.name == name);
            service.is_none_or(|service| service.state == State::Up)
        }
        Some(("agent_silent", agent)) => {
            let host = snapshot.hosts.iter().find(|host| host.agent.to_string() == agent);
            host.is_none_or(|host| host.revoked || host.connected || host.last_contact > Some(open.opened_at))
        }
        // After a restart nothing has been compared yet: that is no all-clear.
        None if open.key == DIFFERS => snapshot.verified.as_ref().is_some_and(|verified| verified.differences == 0),
        _ => true,
    }
}

/// One alert for the whole store: whoever acts on one difference looks for all of them.
const DIFFERS: &str = "store_differs";

fn differs(snapshot: &Snapshot) -> Option<Wanted> {
    let verified = snapshot.verified.as_ref().filter(|verified| verified.differences > 0)?;
    Some(Wanted {
        key: DIFFERS.to_owned(),
        kind: AlertKind::StoreDiffers,
        subject: "store".to_owned(),
        summary: format!(
            "{} stored values do not follow from the results they were made of ({} days of agents were compared); the first: {}",
            verified.differences, verified.days, verified.first
        ),
        action: "Find out who or what changed the database; `peil-collector rebuild` shows all differences, with --write it mends them."
            .to_owned(),
        since: verified.at,
    })
}

fn outage(service: &ServiceView, now: UtcTime) -> Option<Wanted> {
    if service.state != State::Down || !service.in_window {
        return None;
    }
    let since = service.since.unwrap_or(now);
    let down: Vec<_> = service.checks.iter().filter(|check| service.because.contains(&check.name)).collect();
    let seen = down.iter().flat_map(|check| {
        check.vantages.iter().filter(|vantage| vantage.state == State::Down).map(move |vantage| {
            format!("{} ({}) is {} from {}", check.name, check.target, vantage.outcome, vantage.host)
        })
    });
    let seen: Vec<_> = seen.collect();
    let what = if seen.is_empty() { service.because.join(", ") } else { seen.join("; ") };
    Some(Wanted {
        key: format!("outage/{}", service.name),
        kind: AlertKind::Outage,
        subject: service.name.clone(),
        summary: format!("{} is down since {since}: {what}", service.name),
        action: format!(
            "Restore {}. {} of its budget is left this month; the page shows each check with its last answer.",
            service.because.join(", "),
            in_words(service.budget_left_ms)
        ),
        since,
    })
}

fn breach(service: &ServiceView, now: UtcTime) -> Option<Wanted> {
    service.breach_certain.then(|| Wanted {
        key: format!("sla_breach/{}/{}", service.name, service.month),
        kind: AlertKind::SlaBreach,
        subject: service.name.clone(),
        summary: format!(
            "{} cannot reach {} % in {} any more: {} lost, the whole month allows {}",
            service.name,
            service.target,
            service.month,
            in_words(service.counted_down_ms),
            in_words(service.budget_ms)
        ),
        action:
            "Tell the service delivery manager; check the outages on the page for time that should have been excluded."
                .to_owned(),
        since: now,
    })
}

fn store_full(now: UtcTime) -> Wanted {
    Wanted {
        key: "store_full/database".to_owned(),
        kind: AlertKind::StoreFull,
        subject: "database".to_owned(),
        summary: "the disk of the database is full: no records are taken, and what agents see now is not in the figures"
            .to_owned(),
        action: "Free or add at least 16 MiB on the disk of data_dir; agents keep their records meanwhile, for as long as their \
                 spools hold, and send them by themselves. Alerts still work, on a reserve of 8 MiB."
            .to_owned(),
        since: now,
    }
}

fn silent(host: &HostView, now: UtcTime) -> Option<Wanted> {
    let since = host.last_contact.unwrap_or(now);
    host.silent.then(|| Wanted {
        key: format!("agent_silent/{}", host.agent),
        kind: AlertKind::AgentSilent,
        subject: host.host.clone(),
        summary: format!("nothing heard from the agent on {} since {since}; what it watches is unknown", host.host),
        action: format!(
            "Look on {} whether the host runs and `systemctl status peil-agent`; its records wait in its spool.",
            host.host
        ),
        since,
    })
}

fn copied(host: &HostView) -> Option<Wanted> {
    let seen = host.copied.as_ref()?;
    Some(Wanted {
        key: format!("agent_copied/{}", host.agent),
        kind: AlertKind::AgentCopied,
        subject: host.host.clone(),
        summary: format!("the agent on {} runs from a copy, last seen {}: {}", host.host, seen.at, seen.explanation),
        action: format!(
            "No record is lost. Two hosts: enrol one of them again (`peil-agent enroll --again`). One host: nothing, \
             `peil-collector agent accept {}` ends this, or a day without another sign of it.",
            host.agent
        ),
        since: seen.at,
    })
}

fn overdue(host: &HostView, now: UtcTime) -> Option<Wanted> {
    if host.patch.state != PatchState::Overdue {
        return None;
    }
    let late: Vec<_> = host.patch.findings.iter().filter(|finding| finding.overdue).collect();
    let first = late.iter().map(|finding| finding.first_seen).min().unwrap_or(now);
    let mut sources: Vec<_> = late.iter().map(|finding| finding.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    let named = sources.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = sources.len().saturating_sub(5);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(Wanted {
        key: format!("patch_overdue/{}", host.agent),
        kind: AlertKind::PatchOverdue,
        subject: host.host.clone(),
        summary: format!(
            "{} lacks security fixes beyond their term, the oldest since {first}: {named}{more}",
            host.host
        ),
        action: format!(
            "Install them on {} (`apt-get upgrade`, `apt-get dist-upgrade` for new dependencies) or record why not.",
            host.host
        ),
        since: first,
    })
}

/// `3 h 36 min`, `45 s`, `none`: for sentences, not for sums.
pub fn in_words(span: Millis) -> String {
    if span.0 < 0 {
        return format!("minus {}", in_words(Millis(span.0.saturating_neg())));
    }
    let secs = span.0 / 1_000;
    let (days, hours, minutes, seconds) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => "none".to_owned(),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, 0) => format!("{m} min"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// What a channel is given to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Key of the alert, its kind and what it is about.
    pub key: String,
    /// Word of the kind.
    pub kind: String,
    /// Name for other tools.
    pub title: String,
    /// `critical` or `warning`.
    pub severity: String,
    /// Service or host.
    pub subject: String,
    /// What happened.
    pub summary: String,
    /// What to do.
    pub action: String,
    /// Page that shows it.
    pub link: String,
    /// Start of the trouble.
    pub opened_at: UtcTime,
    /// End of the trouble.
    pub resolved_at: Option<UtcTime>,
    /// Which way it goes.
    pub event: Event,
    /// The same for every attempt of the same delivery.
    pub delivery: String,
}

/// Why a delivery failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A file the channel needs.
    #[error("cannot read {0}")]
    File(String, #[source] std::io::Error),
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
    /// The receiver was not reached.
    #[error("{0} was not reached")]
    Unreached(String, #[source] reqwest::Error),
    /// The receiver said no.
    #[error("{url} answered {status}: {text}")]
    Refused {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
        /// Beginning of its answer.
        text: String,
    },
}

/// A channel with its HTTP client, kept for connections to be used again.
pub struct Sender {
    channel: Channel,
    client: reqwest::Client,
}

impl Sender {
    /// Prepares a channel; the token file is read at each delivery, so that it can be changed.
    ///
    /// # Errors
    /// [`SendError`] when its certificate bundle cannot be used.
    pub fn new(channel: Channel) -> Result<Self, SendError> {
        let mut tls = rustls_config(channel.ca_file.as_deref())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(SEND_MAX)
            .redirect(reqwest::redirect::Policy::none());
        let client = client
            .user_agent(concat!("peil-collector/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(SendError::Client)?;
        Ok(Self { channel, client })
    }

    /// The channel's settings.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Delivers one message, or says why not.
    ///
    /// # Errors
    /// [`SendError`]; the outbox tries again later.
    pub async fn send(&self, message: &Message, now: UtcTime) -> Result<(), SendError> {
        match self.channel.kind {
            ChannelKind::Webhook => {
                self.post(&self.channel.url, &webhook::body(&self.channel.name, message), &message.delivery).await
            }
            ChannelKind::Alertmanager => {
                self.post(&alertmanager::url(&self.channel.url), &alertmanager::body([message], now), &message.delivery)
                    .await
            }
        }
    }

    /// Tells a channel that forgets (Alertmanager) which alerts are still open. Others need no telling.
    ///
    /// # Errors
    /// [`SendError`]; it is repeated anyway.
    pub async fn refresh(&self, open: &[Message], now: UtcTime) -> Result<(), SendError> {
        match self.channel.kind {
            ChannelKind::Webhook => Ok(()),
            ChannelKind::Alertmanager => {
                self.post(&alertmanager::url(&self.channel.url), &alertmanager::body(open, now), "refresh").await
            }
        }
    }

    async fn post(&self, url: &str, body: &serde_json::Value, delivery: &str) -> Result<(), SendError> {
        let mut request = self.client.post(url).json(body).header("Idempotency-Key", delivery);
        if let Some(file) = &self.channel.token_file {
            let token =
                std::fs::read_to_string(file).map_err(|error| SendError::File(file.display().to_string(), error))?;
            request = request.bearer_auth(token.trim());
        }
        let mut answer = request.send().await.map_err(|error| SendError::Unreached(place(url), error.without_url()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let mut said = Vec::new();
        while said.len() < REFUSAL_BYTES_MAX
            && let Ok(Some(part)) = answer.chunk().await
        {
            said.extend_from_slice(&part[..part.len().min(REFUSAL_BYTES_MAX - said.len())]);
        }
        let text = String::from_utf8_lossy(&said).chars().take(200).collect();
        Err(SendError::Refused { url: place(url), status: status.as_u16(), text })
    }
}

/// Scheme, host and port of a URL: path and query of a webhook are often its secret, and errors are shown.
fn place(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(|_| "the receiver".to_owned(), |url| url.origin().ascii_serialization())
}

/// Public roots, or the bundle the channel names; ring as everywhere.
fn rustls_config(bundle: Option<&std::path::Path>) -> Result<rustls::ClientConfig, SendError> {
    let mut roots = rustls::RootCertStore::empty();
    match bundle {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            use rustls::pki_types::CertificateDer;
            use rustls::pki_types::pem::PemObject as _;
            let name = path.display().to_string();
            let pem = std::fs::read(path).map_err(|error| SendError::File(name.clone(), error))?;
            let found = CertificateDer::pem_slice_iter(&pem).flatten().collect::<Vec<_>>();
            let (added, _) = roots.add_parsable_certificates(found);
            if added == 0 {
                let error = std::io::Error::other("no certificate in the file");
                return Err(SendError::File(name, error));
            }
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| SendError::File("TLS settings".to_owned(), std::io::Error::other(error)))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
