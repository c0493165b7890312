//! The only place that spawns: opens the store, builds the parts, starts and stops them in order.
//!
//! Start: store → authority and certificates → rebuild live state → ports → jobs. A port is opened only
//! when the first snapshot exists (or could not be made within [`GRACE`]), so nobody is shown an empty world. Stop: ports first (agents keep their records),
//! then sessions, then the jobs, the store last; each within [`GRACE`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use peil_proto::time::WallClock;
use peil_proto::units::Millis;
use peil_proto::wire::enrolment_server::EnrolmentServer;
use peil_proto::wire::telemetry_server::TelemetryServer;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access::{Access, AccessStore, PasswordCost, Role, first_run_password};
use crate::agreement::InForce;
use crate::alert::Sender;
use crate::config::Config;
use crate::identity::Identity;
use crate::ingest::TelemetryService;
use crate::ingest::enrolment::EnrolmentService;
use crate::job::Pipeline;
use crate::job::agree::Agree;
use crate::job::compact::{Compact, STEP_BLOCKS};
use crate::job::deliver::Deliver;
use crate::job::derive::Derive;
use crate::job::judge::Judge;
use crate::job::keep::Keep;
use crate::job::lead::{Lead, Leading};
use crate::job::look::{Look, Surveyed};
use crate::job::measure::{Measure, Notices};
use crate::job::month::Months;
use crate::job::progress::{Progress, Tell};
use crate::job::raise::Raise;
use crate::job::recheck::Recheck;
use crate::job::retain::Retain;
use crate::job::verify::{Nightly, Verify};
use crate::plans::{self, Plans};
use crate::presence::Presence;
use crate::rotation;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::store::retention::Kind;
use crate::tls::{Admission, ConnectInfo, LiveCertificate, TlsListener, profile};
use crate::web::decide::Desk;
use crate::web::metrics::Metrics;
use crate::web::ready::Readiness;
use crate::web::{self, WebState};

/// Time each group of tasks has to end.
const GRACE: Duration = Duration::from_secs(5);
/// Name in the authority's certificate.
pub const AUTHORITY: &str = "Peil authority";
/// The first user.
pub const ADMIN: &str = "admin";

/// HTTP/2 towards agents: a window that keeps a spool replay busy over 100 ms of network, few streams, and
/// pings that find a dead peer.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const STREAMS_MAX: u32 = 8;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEPALIVE_MAX: Duration = Duration::from_secs(20);
/// Largest message from an agent: a block with its envelope.
const MESSAGE_BYTES_MAX: usize = peil_proto::block::BLOCK_BYTES_MAX + 4_096;

/// Where a running collector listens; tests ask for port 0.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// For agents.
    pub agents: SocketAddr,
    /// For people and programs.
    pub web: SocketAddr,
}

/// Runs the collector until `stop`; tells `listening` once the ports are open.
///
/// # Errors
/// When it cannot start: the data directory, the store, the authority, a port.
pub async fn run(
    config: Config,
    clock: WallClock,
    stop: CancellationToken,
    listening: impl FnOnce(Listening),
) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot make the data directory {}", config.data_dir.display()))?;
    let identity = Identity::open(&config.data_dir)?;
    let store = Store::connect(&config.store)?;
    let pki = config.data_dir.join("pki");
    let trusted = rotation::open(&store, &pki, clock.now()).await?;
    let shown = trusted.in_force().server_certificate(&config.listen.names, clock.now())?;
    let (certificate, (authorities, trusted)) = (LiveCertificate::new(shown)?, watch::channel(Arc::new(trusted)));
    let access = Access::new(AccessStore::Store(store.clone()), clock.clone(), PasswordCost::STANDARD)?;
    first_password(&access).await?;

    let (in_force, generation) = Agree::read(&store, &config).await?;
    let hosts = plans::placed(store.agents().await?);
    let (plan_sender, planned) =
        watch::channel(Arc::new(Plans::new(&in_force.agreement.checks_at(clock.now()), &in_force.numbers, hosts)));
    let checks = in_force.checks_to_fold();
    let (agreed, in_force) = watch::channel(Arc::new(in_force));
    let (publish, latest) = watch::channel(Arc::new(Snapshot::default()));
    let (committed, raised, past_changed) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let presence = Presence::default();
    let admission = Admission::default();

    let (lead, leading) =
        Lead::start(store.clone(), identity.holder.clone(), identity.row(clock.now()), presence.clone()).await?;
    let progress = Arc::new(watch::Sender::new(Progress::default()));
    let judge = Judge::start(store.clone(), clock.clone(), checks, config.patch.term, leading.clone()).await?;
    let (tell_months, months_differing) = watch::channel(Arc::default());
    let (tell_rechecked, rechecked) = watch::channel(Arc::default());
    let (freeze, frozen) = mpsc::channel(1);
    let pipeline = Pipeline {
        judge,
        measure: Measure {
            store: store.clone(),
            clock: clock.clone(),
            in_force: in_force.clone(),
            notices: Notices { months: months_differing, rechecked },
            presence: presence.clone(),
            agents: config.agents,
            patch: config.patch,
            leading: leading.clone(),
            progress: progress.subscribe(),
            listening_since: clock.now(),
        },
        raise: Raise {
            store: store.clone(),
            channels: config.channels.iter().map(|channel| (channel.name.clone(), channel.kinds.clone())).collect(),
            leading: leading.clone(),
        },
        publish,
        recheck: freeze,
        rechecked_on: None,
        clock: clock.clone(),
        in_force: in_force.clone(),
        committed: committed.clone(),
        raised: raised.clone(),
        past_changed: past_changed.clone(),
    };
    let (derive, compact, retain, nightly) = day_jobs(&config, &store, &clock, &leading, &in_force, &progress);
    let deliver = Deliver {
        store: store.clone(),
        senders: senders(&config)?,
        clock: clock.clone(),
        public_url: config.listen.public_url.clone(),
        raised,
        leading: leading.clone(),
    };
    let decided = in_force.clone();
    let keep = Keep {
        store: store.clone(),
        admission: admission.clone(),
        presence: presence.clone(),
        clock: clock.clone(),
        pki,
        authorities: Arc::new(authorities),
        certificate: certificate.clone(),
        names: config.listen.names.clone(),
        plans: Arc::new(plan_sender),
        in_force,
    };
    let (agreed_by, seal_day) = (keep.in_force.clone(), config.seal_day);
    let months =
        Months::new(store.clone(), clock.clone(), leading, agreed_by, seal_day, tell_months, past_changed.clone());
    let recheck = Recheck { store: store.clone(), frozen, publish: tell_rechecked };
    let agree = Agree { store: store.clone(), config: config.clone(), publish: agreed, seen: generation };
    keep.activate().await?;
    let (look, surveyed) = Look::new(store.clone(), clock.clone());

    let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
    let (ports, sessions, jobs) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
    jobs.spawn(pipeline.run(ending.clone()));
    jobs.spawn(deliver.run(ending.clone()));
    jobs.spawn(keep.run(ending.clone()));
    jobs.spawn(agree.run(ending.clone()));
    jobs.spawn(months.run(ending.clone()));
    jobs.spawn(recheck.run(ending.clone()));
    jobs.spawn(lead.run(ending.clone()));
    jobs.spawn(look.run(ending.clone()));
    jobs.spawn(derive.run(ending.clone()));
    jobs.spawn(compact.run(ending.clone()));
    jobs.spawn(retain.run(ending.clone()));
    jobs.spawn(nightly.run(ending.clone()));
    // A store that cannot be judged now is told by the pages and by `/readyz`; nobody is helped by closed ports.
    let mut first = latest.clone();
    let _ = tokio::time::timeout(GRACE, first.wait_for(|snapshot| snapshot.at.0 > 0)).await;

    let agents = TlsListener::bind(
        config.listen.agents,
        profile::agents(trusted.clone(), admission, certificate.clone(), &clock)?,
        closing.clone(),
    )
    .await?;
    let people = TlsListener::bind(config.listen.web, profile::web(certificate, &clock)?, closing.clone()).await?;
    let open = Listening { agents: agents.local_addr(), web: people.local_addr() };
    let telemetry = TelemetryService {
        store: store.clone(),
        plans: planned,
        config: Arc::new(config.clone()),
        authorities: trusted.clone(),
        presence,
        clock: clock.clone(),
        committed,
        sessions: sessions.clone(),
        stop: closing.clone(),
    };
    let enrolment = EnrolmentService {
        store: store.clone(),
        authorities: trusted,
        clock: clock.clone(),
        certificate_life: config.agents.certificate_life,
    };
    ports.spawn(serve_agents(agents, telemetry, enrolment, closing.clone()));
    let desk = Desk { store: store.clone(), config: Arc::new(config), in_force: decided, past_changed };
    let state = web_state(&store, surveyed, latest, access, clock, closing.clone(), desk);
    state.metrics.watch_progress(progress.subscribe());
    ports.spawn(serve_web(people, state, closing.clone()));
    info!(agents = %open.agents, web = %open.web, "listening");
    listening(open);

    stop.cancelled().await;
    info!("stopping");
    closing.cancel();
    finish(&ports, "ports").await;
    finish(&sessions, "sessions").await;
    ending.cancel();
    finish(&jobs, "jobs").await;
    store.close().await;
    Ok(())
}

/// The jobs that turn blocks into hours and days, compare the two, and remove what is old.
fn day_jobs(
    config: &Config,
    store: &Store,
    clock: &WallClock,
    leading: &Leading,
    in_force: &watch::Receiver<Arc<InForce>>,
    progress: &Tell,
) -> (Derive, Compact, Retain, Nightly) {
    let (store, clock, leading, progress) =
        (|| store.clone(), || clock.clone(), || leading.clone(), || progress.clone());
    let ages = &config.retention;
    let compact = Compact {
        store: store(),
        clock: clock(),
        leading: leading(),
        in_force: in_force.clone(),
        daily_kept: ages.get(&Kind::Daily).copied().unwrap_or(Millis(i64::MAX)),
        progress: progress(),
        step_blocks: STEP_BLOCKS,
        stuck: BTreeSet::new(),
    };
    let verify = Verify { store: store(), in_force: in_force.clone(), kept: ages.clone() };
    (
        Derive { store: store(), clock: clock(), leading: leading(), progress: progress() },
        compact,
        Retain { store: store(), clock: clock(), leading: leading(), ages: ages.clone() },
        Nightly { verify, clock: clock(), leading: leading(), progress: progress() },
    )
}

async fn finish(tasks: &TaskTracker, what: &str) {
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        warn!(what, "did not stop within {} s", GRACE.as_secs());
    }
}

/// The first user gets a random password, shown once and never stored in clear.
async fn first_password(access: &Access) -> anyhow::Result<()> {
    if access.has_user(ADMIN).await? {
        return Ok(());
    }
    let password = first_run_password()?;
    access.set_password(ADMIN, Role::Admin, &password).await?;
    // On the terminal of whoever starts it first, not in the log.
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\n  First run: sign in as \"{ADMIN}\" with the password  {password}\n  It is shown this once. `peil-collector user password` sets another.\n"
    )?;
    out.flush()?;
    Ok(())
}

fn senders(config: &Config) -> anyhow::Result<BTreeMap<String, Arc<Sender>>> {
    let made = config.channels.iter().map(|channel| {
        let sender =
            Sender::new(channel.clone()).with_context(|| format!("channel {:?} cannot be used", channel.name))?;
        Ok((channel.name.clone(), Arc::new(sender)))
    });
    made.collect()
}

async fn serve_agents(
    listener: TlsListener,
    telemetry: TelemetryService,
    enrolment: EnrolmentService,
    stop: CancellationToken,
) {
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_MAX))
        .add_service(TelemetryServer::new(telemetry).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(EnrolmentServer::new(enrolment).max_decoding_message_size(64 << 10));
    if let Err(cause) = server.serve_with_incoming_shutdown(listener, stop.cancelled_owned()).await {
        warn!(cause = %crate::chain(&cause), "the port for agents ended badly");
    }
}

async fn serve_web(listener: TlsListener, state: WebState, stop: CancellationToken) {
    let service = web::router(state).into_make_service_with_connect_info::<ConnectInfo>();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(cause) = served {
        warn!(cause = %crate::chain(&cause), "the port for people ended badly");
    }
}

fn web_state(
    store: &Store,
    surveyed: Surveyed,
    latest: crate::snapshot::Latest,
    access: Access,
    clock: WallClock,
    stop: CancellationToken,
    desk: Desk,
) -> WebState {
    let asked = store.clone();
    let readiness = Readiness::new(move || {
        let store = asked.clone();
        async move { store.ready().await.map_err(|error| error.to_string()) }
    });
    let metrics = Metrics::new(latest.clone());
    metrics.watch_store(store.clone());
    metrics.watch_survey(surveyed);
    WebState { latest, access, readiness, metrics, desk, clock, stop }
}
