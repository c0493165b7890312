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

use super::dial::{Deadline, Endpoint, Session, dial};
use super::dialogue::{Ear, Heard};
use super::secret::Secret;
use super::talk::{Talk, Trouble};
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
    let mut talk = Talk::on(stream);
    let mut ear = Ear::default();
    let mut end = Ok(());
    for (number, step) in (1_usize..).zip(steps) {
        let taken = deadline.allows(take(step, &mut talk, &mut ear, deadline, hop)).await;
        end = taken
            .unwrap_or_else(|| Err(Trouble::timeout()))
            .map_err(|trouble| Trouble { text: format!("step {number}: {}", trouble.text), ..trouble });
        if end.is_err() {
            break;
        }
    }
    let phase = talk.note(hop);
    end.map_err(|trouble| trouble.during(phase))
}

async fn take(step: Ready, talk: &mut Talk, ear: &mut Ear, deadline: Deadline, hop: &mut Hop) -> Result<(), Trouble> {
    ear.begin_step();
    match step {
        Ready::Expect { line, fail } => expect(&line, fail.as_ref(), talk, ear).await,
        Ready::Send(text) => talk.send(&ear.fill(&text)).await,
        Ready::SendSecret(secret) => talk.send(secret.bytes()).await,
        Ready::StartTls(session) => talk.start_tls(session, ear.unread(), deadline, hop).await,
    }
}

async fn expect(line: &Pattern, fail: Option<&Pattern>, talk: &mut Talk, ear: &mut Ear) -> Result<(), Trouble> {
    let mut closed = false;
    let mut piece = Vec::new();
    loop {
        match ear.listen(line, fail, closed) {
            Heard::Wanted => return Ok(()),
            Heard::Refusal(text) => return Err(Trouble::new(FailureKind::Content, format!("the answer was {text:?}"))),
            Heard::TooMuch => {
                return Err(Trouble::protocol(format!("no line like {:?} in all that was said", line.text())));
            }
            Heard::More if closed => {
                return Err(Trouble::new(FailureKind::Closed, format!("closed before a line like {:?}", line.text())));
            }
            Heard::More => {}
        }
        piece.clear();
        closed = talk.hear(&mut piece).await? == 0;
        ear.hear(&piece);
    }
}
