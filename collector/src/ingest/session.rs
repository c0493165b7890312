//! One agent's stream: greeting, plan, then batch after batch into the store.

use std::sync::Arc;
use std::time::Duration;

use peil_proto::block::{self, Block, Item};
use peil_proto::convert;
use peil_proto::ids::{AgentId, Epoch, Seq};
use peil_proto::labels::Labels;
use peil_proto::plan::local::{PROBLEM_CHARS_MAX, PROBLEMS_MAX};
use peil_proto::record::Record;
use peil_proto::time::UtcTime;
use peil_proto::token::CaFingerprint;
use peil_proto::units::Millis;
use peil_proto::wire::agent_message::Kind as Hear;
use peil_proto::wire::collector_message::Kind as Say;
use peil_proto::wire::{
    Ack, AgentMessage, Batch, CollectorMessage, Hello, Refusal, RenewIdentity, RetryAfter, Welcome,
};
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::local_checks::accept;
use super::{Peer, TelemetryService};
use crate::pki::Authorities;
use crate::plans::Plans;
use crate::presence::Session;
use crate::store::StoreError;
use crate::store::agents::Copied;
use crate::store::blocks::{Appended, NewBlock};

/// Time an agent has to greet.
const GREETING_MAX: Duration = Duration::from_secs(15);
/// Version of the conversation this collector speaks.
const PROTOCOL: u32 = 1;
/// Bytes an agent may have unacked; it waits beyond that.
const UNACKED_BYTES_MAX: u32 = 256 << 10;
/// When the store cannot take a batch, the agent is asked to come back after this.
const RETRY_AFTER: Millis = Millis(5_000);
/// A record dated later than this after now is a broken clock, not a measurement: refused, set aside by the agent.
const FUTURE_MAX: Millis = Millis::DAY;
/// Time of this collector that a renewal with its new connection may take: agents asked together spread over so much
/// for each that is here.
const RENEWAL_MS: u32 = 10;
/// Authorities an agent is heard to trust; the rest of a longer list is passed over.
const AUTHORITIES_MAX: usize = 8;

type Answers = mpsc::Sender<Result<CollectorMessage, Status>>;

/// Runs one stream until it ends, is replaced by a newer one, or the collector stops.
pub(super) async fn run(
    service: TelemetryService,
    peer: Peer,
    mut messages: Streaming<AgentMessage>,
    answers: Answers,
) {
    let first = timeout(GREETING_MAX, messages.message()).await;
    let Ok(Ok(Some(AgentMessage { kind: Some(Hear::Hello(hello)) }))) = first else {
        let _ = answers.send(Err(Status::invalid_argument("the first message must be Hello"))).await;
        return;
    };
    if hello.protocol != PROTOCOL {
        let text =
            format!("this collector speaks protocol {PROTOCOL}, the agent {}; upgrade the older one", hello.protocol);
        let _ = answers.send(Err(Status::failed_precondition(text))).await;
        return;
    }
    let (now, agent) = (service.clock.now(), peer.agent);
    let ahead = hello.wall_ms.saturating_sub(now.0);
    let (session, replaces) = service.presence.enter(agent, now, ahead);
    info!(%agent, host = hello.hostname, version = hello.agent_version, replaces, clock_ahead_ms = ahead, "agent connected");
    let talk =
        Talk { service: &service, peer, agent, epoch: Epoch(hello.epoch), told: Seq(hello.acked), answers, session };
    let ended = talk.converse(hello, &mut messages).await;
    info!(%agent, why = ended.unwrap_or_else(|why| why), "agent disconnected");
}

struct Talk<'s> {
    service: &'s TelemetryService,
    peer: Peer,
    agent: AgentId,
    epoch: Epoch,
    /// Newest record the agent says it was told is stored.
    told: Seq,
    answers: Answers,
    session: Session,
}

/// What a greeting told about the host.
struct Host {
    name: String,
    labels: Labels,
    /// Version of the plan it runs.
    running: u64,
}

impl Talk<'_> {
    /// `Err` carries why the conversation ended early; both are told in one log line.
    async fn converse(
        &self,
        hello: Hello,
        messages: &mut Streaming<AgentMessage>,
    ) -> Result<&'static str, &'static str> {
        let acked = match self.service.store.acked(self.agent, self.epoch).await {
            Ok(acked) => acked,
            Err(error) => return self.pause(&error).await,
        };
        if self.told > acked {
            warn!(
                agent = %self.agent, host = hello.hostname, was_acked = %self.told, known = %acked,
                "this agent was acked more than the database holds: it was restored from an older copy, or records were refused; the agent sends again what it still has"
            );
        }
        let now = self.service.clock.now();
        let wall_ms = now.0;
        let renew_epoch = self.session.is_twin(hello.run);
        if renew_epoch {
            // Which of the two is the copy cannot be told from here; under an epoch each, neither loses a record.
            warn!(agent = %self.agent, host = hello.hostname, "two hosts use the identity of this agent at once (a clone?): enrol one of them again with `peil-agent enroll --again`");
        }
        // What it has, and what it says it was told, is less than what came from it.
        let rewound = acked > self.told.max(Seq(hello.last));
        let copied = if renew_epoch { Some(Copied::Twin) } else { rewound.then_some(Copied::Rewound) };
        if let Some(how) = copied
            && let Err(error) = self.service.store.note_copied(self.agent, how, now).await
        {
            warn!(agent = %self.agent, %error, "it is not noted that this agent runs from a copy");
        }
        let unacked_bytes_max = UNACKED_BYTES_MAX;
        self.say(Say::Welcome(Welcome { acked: acked.0, wall_ms, unacked_bytes_max, renew_epoch })).await?;
        if renew_epoch {
            return Err("a twin: it comes back under another epoch");
        }
        let (mut plans, mut authorities) = (self.service.plans.clone(), self.service.authorities.clone());
        let trusted = self.trusted(&hello);
        let current = Arc::clone(&authorities.borrow());
        self.note_authority(&current, trusted.as_deref()).await;
        self.set_right(&mut authorities, trusted.as_deref()).await?;
        self.local_checks(&hello, &plans).await;
        let host = self.host(hello, &plans).await;
        let mut running = self.plan(&mut plans, &host, host.running).await?;
        loop {
            let message = tokio::select! {
                message = messages.message() => message.map_err(|_| "connection lost")?,
                changed = plans.changed() => match changed {
                    Ok(()) => {
                        running = self.plan(&mut plans, &host, running).await?;
                        continue;
                    }
                    Err(_) => return Ok("collector is stopping"),
                },
                changed = authorities.changed() => match changed {
                    Ok(()) => {
                        self.set_right(&mut authorities, trusted.as_deref()).await?;
                        continue;
                    }
                    Err(_) => return Ok("collector is stopping"),
                },
                () = self.session.replaced.cancelled() => return Err("a newer stream of this agent took over, or it was revoked"),
                () = self.service.stop.cancelled() => return Ok("collector is stopping"),
            };
            let Some(message) = message else { return Ok("agent closed the stream") };
            self.session.heard(self.service.clock.now());
            match message.kind {
                Some(Hear::Batch(batch)) => self.take(batch).await?,
                Some(Hear::PlanResult(result)) => {
                    if !result.refused.is_empty() {
                        warn!(agent = %self.agent, refused = ?result.refused, "agent refused the plan");
                    }
                    if !result.left_out.is_empty() {
                        warn!(agent = %self.agent, left_out = ?result.left_out, "agent cannot run these checks");
                    }
                    self.session.plan_answered([result.refused, result.left_out].concat());
                }
                // A second greeting, or a message of a newer agent: nothing to do.
                Some(Hear::Hello(_)) | None => {}
            }
        }
    }

    /// Checks of the host's own. They come back in the plan once they are in force, within seconds.
    async fn local_checks(&self, hello: &Hello, plans: &Receiver<Arc<Plans>>) {
        let known = plans.borrow().local_to(self.agent).count();
        let mut problems = hello.local_problems.clone();
        if known > 0 || !hello.local_checks.is_empty() {
            let service = self.service;
            let (store, config, now) = (&service.store, &service.config, service.clock.now());
            let taken_up = async {
                // Under the name it was enrolled with, whatever it calls itself today.
                let host = store.hostname(self.agent).await?;
                accept(store, config, self.agent, &host, &hello.local_checks, now).await
            };
            match taken_up.await {
                Ok(refused) => problems.extend(refused),
                Err(error) => {
                    problems.push(format!("the host's own checks are not taken up: {}", crate::chain(&error)));
                }
            }
        }
        problems.truncate(PROBLEMS_MAX);
        for problem in &mut problems {
            *problem = problem.chars().filter(|c| !c.is_control()).take(PROBLEM_CHARS_MAX).collect();
        }
        if !problems.is_empty() {
            warn!(agent = %self.agent, host = hello.hostname, ?problems, "checks of this host's own are not as they should be");
        }
        self.session.local_problems(problems);
    }

    /// Takes up what the host told about itself; labels the store does not have yet are noted there.
    async fn host(&self, hello: Hello, plans: &Receiver<Arc<Plans>>) -> Host {
        let told = hello.labels.into_iter().map(|label| (label.name, label.value));
        let labels = Labels::from_pairs(told).unwrap_or_else(|problem| {
            warn!(agent = %self.agent, host = hello.hostname, problem, "this host counts as one without labels");
            Labels::default()
        });
        let is_news = plans.borrow().labels_of(self.agent).is_none_or(|known| *known != labels);
        if is_news && let Err(error) = self.service.store.note_labels(self.agent, &labels).await {
            warn!(agent = %self.agent, %error, "the labels of this host are not noted");
        }
        Host { name: hello.hostname, labels, running: hello.plan_version }
    }

    /// Sends the agent its plan when it is not the `running` one; returns the version that then runs. Cutting a
    /// plan costs more than taking a batch, so this is for the greeting and for changes, never for each message.
    async fn plan(&self, plans: &mut Receiver<Arc<Plans>>, host: &Host, running: u64) -> Result<u64, &'static str> {
        let plan = plans.borrow_and_update().for_agent(self.agent, &host.name, &host.labels);
        if plan.version != running {
            self.say(Say::Plan(convert::plan_to_wire(&plan))).await?;
        }
        Ok(plan.version)
    }

    /// The authorities an agent says it trusts; `None` for one that keeps a single one and does not tell. What cannot be
    /// a fingerprint is none of ours.
    fn trusted(&self, hello: &Hello) -> Option<Vec<CaFingerprint>> {
        let told = hello.authorities.iter().take(AUTHORITIES_MAX);
        let trusted: Vec<_> =
            told.map(|sha| CaFingerprint(<[u8; 32]>::try_from(&sha[..]).unwrap_or_default())).collect();
        (!trusted.is_empty()).then_some(trusted)
    }

    /// While agents move to another authority: which one this one came with.
    async fn note_authority(&self, authorities: &Authorities, trusted: Option<&[CaFingerprint]>) {
        let Some(issuer) = trusted.and_then(<[_]>::first).filter(|_| authorities.is_rotating()) else { return };
        if let Err(error) = self.service.store.note_authority(self.agent, *issuer).await {
            warn!(agent = %self.agent, %error, "cannot note which authority this agent came with");
        }
    }

    /// Asks the agent to renew when it trusts others than it should; ends the stream when its certificate is of an
    /// authority that was retired.
    async fn set_right(
        &self,
        authorities: &mut Receiver<Arc<Authorities>>,
        trusted: Option<&[CaFingerprint]>,
    ) -> Result<(), &'static str> {
        let authorities = Arc::clone(&authorities.borrow_and_update());
        let now = self.service.clock.now();
        if self.peer.certificate.as_ref().is_some_and(|shown| !authorities.vouches_for(shown, now)) {
            let _ = self
                .answers
                .send(Err(Status::permission_denied("the authority of this certificate was retired")))
                .await;
            return Err("the authority of its certificate was retired; it has to be enrolled again");
        }
        if trusted.is_none_or(|trusted| authorities.is_up_to_date(trusted)) {
            return Ok(());
        }
        let agents = u32::try_from(self.service.presence.connected()).unwrap_or(u32::MAX);
        let within_ms = agents.saturating_mul(RENEWAL_MS);
        self.say(Say::RenewIdentity(RenewIdentity { within_ms })).await
    }

    async fn take(&self, batch: Batch) -> Result<(), &'static str> {
        let now = self.service.clock.now();
        let checked = if batch.epoch == self.epoch.0 {
            check(&batch, now)
        } else {
            Err(format!("epoch {:016x} is not the one of the greeting", batch.epoch))
        };
        let (block, from, to) = match checked {
            Ok(checked) => checked,
            Err(reason) => return self.refuse(&batch, reason).await,
        };
        let new = NewBlock {
            agent: self.agent,
            epoch: self.epoch,
            first: block.first,
            records: u32::try_from(block.items.len()).unwrap_or(u32::MAX),
            received_at: now,
            from,
            to,
            told: self.told,
            bytes: batch.block,
        };
        let acked = match self.service.store.append(new).await {
            Ok(Appended::Stored { acked, lost }) => {
                if lost > 0 {
                    warn!(agent = %self.agent, lost, first = %block.first, "records never came; their time is unknown");
                }
                self.service.committed.notify_one();
                acked
            }
            Ok(Appended::Duplicate { acked }) => {
                debug!(agent = %self.agent, first = %block.first, "batch came again");
                acked
            }
            Err(error) if error.is_refusal() => return self.turn_away(&error).await,
            Err(error) => return self.pause(&error).await.map(|_| ()),
        };
        self.say(Say::Ack(Ack { epoch: self.epoch.0, through: acked.0 })).await
    }

    /// The store cannot take anything now: the agent keeps its records and comes back.
    async fn pause(&self, error: &StoreError) -> Result<&'static str, &'static str> {
        warn!(agent = %self.agent, %error, "batch not taken; the agent keeps it");
        let wait = RetryAfter { millis: u32::try_from(RETRY_AFTER.0).unwrap_or(u32::MAX), reason: error.to_string() };
        self.say(Say::RetryAfter(wait)).await?;
        Err("store cannot take records now")
    }

    /// The agent was revoked or is not known any more: coming back cannot help, and the batch is not at fault.
    async fn turn_away(&self, error: &StoreError) -> Result<(), &'static str> {
        let _ = self.answers.send(Err(Status::permission_denied(error.to_string()))).await;
        Err("this agent may not send any more")
    }

    async fn refuse(&self, batch: &Batch, reason: String) -> Result<(), &'static str> {
        warn!(agent = %self.agent, first_seq = batch.first_seq, reason, "batch refused");
        let records = block::header(&batch.block).map_or(1, |(_, records)| records as u64);
        let last_seq = batch.first_seq.saturating_add(records.saturating_sub(1));
        self.say(Say::Refusal(Refusal { epoch: batch.epoch, first_seq: batch.first_seq, last_seq, reason })).await
    }

    async fn say(&self, kind: Say) -> Result<(), &'static str> {
        self.answers.send(Ok(CollectorMessage { kind: Some(kind) })).await.map_err(|_| "connection lost")
    }
}

/// Decodes a batch wholly; what passes can be read back by any later program of this version.
fn check(batch: &Batch, now: UtcTime) -> Result<(Block, UtcTime, UtcTime), String> {
    let block = block::decode(&batch.block).map_err(|error| error.to_string())?;
    if block.first != Seq(batch.first_seq) {
        return Err(format!("the block begins at {}, the batch says {}", block.first, batch.first_seq));
    }
    let (mut from, mut to) = (UtcTime(i64::MAX), UtcTime(i64::MIN));
    for item in &block.items {
        let (first, last) = moments(item).map_err(|error| error.to_string())?.unwrap_or((now, now));
        from = from.min(first);
        to = to.max(last);
    }
    if to > now.plus(FUTURE_MAX) {
        return Err(format!("a record is dated {to}, more than a day ahead; set the clock of the host"));
    }
    Ok((block, from, to))
}

/// The first and last moment a record is about; `None` for kinds of a newer agent.
fn moments(item: &Item) -> Result<Option<(UtcTime, UtcTime)>, convert::Malformed> {
    if let Item::Sample(sample) = item {
        return Ok(Some((sample.scheduled_at, sample.scheduled_at)));
    }
    Ok(convert::from_item(item)?.and_then(|record| match record {
        Record::Summary(summary) => Some((summary.first, summary.last())),
        other => other.about().map(|at| (at, at)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::record::Vitals;

    fn batch(at: UtcTime) -> Batch {
        let record = convert::to_spool(&Record::Vitals(Vitals { at, ..Vitals::default() }));
        let block = block::encode(Seq(7), &[convert::to_item(&record).expect("a record")]);
        Batch { epoch: 1, first_seq: 7, block: block.into() }
    }

    #[test]
    fn a_batch_is_checked_whole_before_it_is_stored() {
        let now = UtcTime(1_790_000_000_000);
        assert!(check(&batch(now), now).is_ok());
        assert!(check(&batch(now.plus(Millis(2 * Millis::DAY.0))), now).expect_err("future").contains("set the clock"));
        let wrong_place = Batch { first_seq: 8, ..batch(now) };
        assert!(check(&wrong_place, now).expect_err("place").contains("begins at 7"));
        let poison = block::encode(Seq(7), &[Item::Other(vec![0xff])]);
        assert!(check(&Batch { epoch: 1, first_seq: 7, block: poison.into() }, now).is_err());
    }
}
