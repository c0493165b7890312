//! `tcp`: connects to `host:port`; up when the connection is accepted and the dialogue, if there is one, is held to its
//! end. Options: `peil_proto::plan::Tcp`.
//!
//! Without a dialogue nothing is sent or read, so a port behind a proxy or load balancer that accepts for a dead
//! backend is up here. With one, `first_byte` is the time until the peer said its first byte, `transfer` the rest of
//! the dialogue, handshake of STARTTLS excepted (that is `tls`).
//!
//! Whatever the peer said before TLS and that was not asked for is a [`FailureKind::Protocol`]: text smuggled in front
//! of the handshake must not be taken for the protected answer (CVE-2011-0411).

use peil_proto::plan::{Family, Pattern, Step, Tcp, split_address};
use peil_proto::sample::FailureKind;
use peil_proto::units::Micros;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::dial::{Deadline, Endpoint, Session, Stream, dial, failure_kind_of_io};
use super::dialogue::{Ear, Heard};
use super::secret::Secret;
use super::tls::judge;
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "tcp",
    about: "connects to host:port and holds a dialogue",
    example: "tcp://db.example.org:5432",
    phases: &Phase::ALL,
};

/// A step with what it needs from this host at hand.
enum Ready {
    Expect { line: Pattern, fail: Option<Pattern> },
    Send(String),
    SendSecret(Secret),
    StartTls(Session),
}

pub(super) async fn run(check: &Tcp, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.address.clone(), ..Hop::default() };
    let end = converse(check, family, ctx, deadline, &mut hop).await;
    let end = end.and_then(|()| judge(&hop, &check.tls, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end)
}

async fn converse(
    check: &Tcp,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<(), Failure> {
    let Some((host, port)) = split_address(&check.address) else {
        return Err(Failure::unusable(format!("address {:?} is not host:port", check.address)));
    };
    let session = || Session::prepare(host, &check.tls, Vec::new(), ctx);
    let at_once = check.implicit_tls.then(session).transpose()?;
    let ready = |step: Step| {
        Ok(match step {
            Step::Expect { line, fail } => Ready::Expect { line, fail },
            Step::Send(text) => Ready::Send(text),
            Step::SendFile(secret) => Ready::SendSecret(ctx.secrets.read(&secret)?),
            Step::StartTls => Ready::StartTls(session()?),
        })
    };
    let steps: Vec<Ready> = check.steps().into_iter().map(ready).collect::<Result<_, Failure>>()?;
    let mut stream = dial(Endpoint { host, port, family }, ctx, deadline, hop).await?;
    if let Some(session) = at_once {
        stream = session.start(stream, deadline, hop).await?;
    }
    if steps.is_empty() {
        return Ok(());
    }
    let mut talk =
        Talk { stream: Some(stream), ear: Ear::default(), began: Instant::now(), first: None, tls: Micros::ZERO };
    let mut end = Ok(());
    for (number, step) in (1_usize..).zip(steps) {
        end = match deadline.allows(talk.step(step, deadline, hop)).await {
            Some(end) => end,
            None => Err((FailureKind::Timeout, "no answer as expected before the deadline".to_owned())),
        }
        .map_err(|(kind, text)| (kind, format!("step {number}: {text}")));
        if end.is_err() {
            break;
        }
    }
    let phase = talk.note(hop);
    end.map_err(|(kind, text)| Failure::during(phase, kind, text))
}

/// A dialogue under way.
struct Talk {
    /// Away only while TLS begins.
    stream: Option<Stream>,
    ear: Ear,
    began: Instant,
    first: Option<Instant>,
    /// Time that belongs to the TLS phase.
    tls: Micros,
}

type Trouble = (FailureKind, String);

impl Talk {
    async fn step(&mut self, step: Ready, deadline: Deadline, hop: &mut Hop) -> Result<(), Trouble> {
        self.ear.begin_step();
        match step {
            Ready::Expect { line, fail } => self.expect(&line, fail.as_ref()).await,
            Ready::Send(text) => {
                let bytes = self.ear.fill(&text);
                self.send(&bytes).await
            }
            Ready::SendSecret(secret) => self.send(secret.bytes()).await,
            Ready::StartTls(session) => self.start_tls(session, deadline, hop).await,
        }
    }

    fn stream(&mut self) -> Result<&mut Stream, Trouble> {
        self.stream.as_mut().ok_or_else(|| (FailureKind::Closed, "the connection is gone".to_owned()))
    }

    async fn expect(&mut self, line: &Pattern, fail: Option<&Pattern>) -> Result<(), Trouble> {
        let mut closed = false;
        let mut buffer = [0; 4_096];
        loop {
            match self.ear.listen(line, fail, closed) {
                Heard::Wanted => return Ok(()),
                Heard::Refusal(text) => return Err((FailureKind::Content, format!("the answer was {text:?}"))),
                Heard::TooMuch => {
                    return Err((
                        FailureKind::Protocol,
                        format!("no line like {:?} in all that was said", line.text()),
                    ));
                }
                Heard::More if closed => {
                    return Err((FailureKind::Closed, format!("closed before a line like {:?}", line.text())));
                }
                Heard::More => {}
            }
            let read = self.stream()?.read(&mut buffer).await;
            let read = read.map_err(|error| (failure_kind_of_io(&error, FailureKind::Closed), error.to_string()))?;
            if read == 0 {
                closed = true;
            } else {
                self.first.get_or_insert_with(Instant::now);
                self.ear.hear(&buffer[..read]);
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let stream = self.stream()?;
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        sent.await.map_err(|error| (failure_kind_of_io(&error, FailureKind::Closed), error.to_string()))
    }

    async fn start_tls(&mut self, session: Session, deadline: Deadline, hop: &mut Hop) -> Result<(), Trouble> {
        if self.ear.unread() > 0 {
            return Err((FailureKind::Protocol, "the peer went on talking in front of TLS".to_owned()));
        }
        let Some(stream) = self.stream.take() else {
            return Err((FailureKind::Closed, "the connection is gone".to_owned()));
        };
        let begun = session.start(stream, deadline, hop).await;
        self.tls = hop.phases.tls.unwrap_or(Micros::ZERO);
        self.stream = Some(begun.map_err(|failure| (failure.kind, failure.text))?);
        Ok(())
    }

    /// Notes the phases as they stand now, and tells which one it is.
    fn note(&self, hop: &mut Hop) -> Phase {
        let waited = self.first.map_or_else(|| self.began.elapsed(), |at| at.duration_since(self.began));
        hop.phases.first_byte = Some(Micros::from_duration(waited));
        if self.stream.is_none() {
            return Phase::Tls;
        }
        let Some(first) = self.first else { return Phase::FirstByte };
        let Micros(rest) = Micros::from_duration(first.elapsed());
        hop.phases.transfer = Some(Micros(rest.saturating_sub(self.tls.0)));
        Phase::Transfer
    }
}
