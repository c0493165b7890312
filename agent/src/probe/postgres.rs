//! `postgres`: pings a PostgreSQL server. Options: `peil_proto::plan::Postgres`.
//!
//! Without a password the check is up as soon as the server asks for one, or for none: it then serves. With one it logs
//! in (SCRAM-SHA-256; clear text over TLS only) and is up when `SELECT 1` is answered. MD5 is not spoken: a server that
//! still wants it fails with `permission`. A proof of the server that does not fit is a `protocol` failure: it does not
//! know the password.
//!
//! Errors speak by their SQLSTATE: class 28 (it does not let us in) says nothing about the target; all others do.

mod message;
mod scram;

use peil_proto::plan::{Family, Postgres, split_address};
use peil_proto::sample::FailureKind;

use super::dial::{Deadline, Endpoint, Session, dial};
use super::dialogue::for_people;
use super::secret::Secret;
use super::talk::{Talk, Trouble};
use super::tls::judge;
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};
use message::{Message, error_text, next};
use scram::Scram;

pub(super) const KIND: Kind = Kind {
    name: "postgres",
    about: "logs in to a PostgreSQL server and asks it for 1",
    example: "postgres://db.example.org:5432",
    phases: &Phase::ALL,
};

/// Messages looked at before the one that is waited for: parameters and notices.
const MESSAGES_MAX: usize = 200;

pub(super) async fn run(check: &Postgres, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.address.clone(), ..Hop::default() };
    let end = ping(check, family, ctx, deadline, &mut hop).await;
    let end = end.and_then(|()| judge(&hop, &check.tls, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end)
}

async fn ping(
    check: &Postgres,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<(), Failure> {
    let Some((host, port)) = split_address(&check.address) else {
        return Err(Failure::unusable(format!("address {:?} is not host:port", check.address)));
    };
    let password = check.password_file.as_ref().map(|secret| ctx.secrets.read(secret)).transpose()?;
    let session = || Session::prepare(host, &check.tls, vec![b"postgresql".to_vec()], ctx);
    let session = check.starttls.then(session).transpose()?;
    let talk = Talk::on(dial(Endpoint { host, port, family }, ctx, deadline, hop).await?);
    let mut client = Client { talk, inbox: Vec::new() };
    let work = async {
        if let Some(session) = session {
            client.start_tls(session, deadline, hop).await?;
        }
        client.talk.send(&message::startup(&check.user, check.database.as_deref())).await?;
        client.log_in(password.as_ref(), check.starttls).await
    };
    let end = deadline.allows(work).await;
    let phase = client.talk.note(hop);
    end.unwrap_or_else(|| Err(Trouble::timeout())).map_err(|trouble| trouble.during(phase))
}

struct Client {
    talk: Talk,
    inbox: Vec<u8>,
}

impl Client {
    async fn start_tls(&mut self, session: Session, deadline: Deadline, hop: &mut Hop) -> Result<(), Trouble> {
        self.talk.send(&message::SSL_REQUEST).await?;
        self.talk.hear_at_least(1, &mut self.inbox).await?;
        match self.inbox.remove(0) {
            b'S' => self.talk.start_tls(session, self.inbox.len(), deadline, hop).await,
            b'N' => Err(Trouble::new(FailureKind::Tls, "the server does not speak TLS")),
            _ => Err(Trouble::protocol("the answer to the question for TLS is neither yes nor no")),
        }
    }

    async fn hear(&mut self) -> Result<Message, Trouble> {
        loop {
            if let Some((message, used)) = next(&self.inbox).map_err(Trouble::protocol)? {
                self.inbox.drain(..used);
                return Ok(message);
            }
            if self.talk.hear(&mut self.inbox).await? == 0 {
                return Err(Trouble::closed());
            }
        }
    }

    async fn log_in(&mut self, password: Option<&Secret>, over_tls: bool) -> Result<(), Trouble> {
        let mut scram = None;
        for _ in 0..MESSAGES_MAX {
            let message = self.hear().await?;
            if message.kind == b'E' {
                return Err(refused(&message.body));
            }
            if message.kind == b'Z' {
                return self.ask_for_one().await;
            }
            if message.kind != b'R' {
                continue;
            }
            let (Some(way), rest) = (message.number(), message.body.get(4..).unwrap_or_default()) else {
                return Err(Trouble::protocol("a question about who we are that cannot be read"));
            };
            let Some(password) = password else {
                // It asks, or asks for nothing: it serves.
                return Ok(());
            };
            match way {
                0 => {}
                3 if over_tls => self.talk.send(&message::with_text(b'p', password.bytes())).await?,
                10 => {
                    let begun = Scram::begin(rest, password.bytes()).map_err(Trouble::protocol)?;
                    self.talk.send(&begun.first_message()).await?;
                    scram = Some(begun);
                }
                11 => {
                    let scram = scram.as_mut().ok_or_else(|| Trouble::protocol("a proof without a beginning"))?;
                    let answer = scram.answer(rest).map_err(Trouble::protocol)?;
                    self.talk.send(&answer).await?;
                }
                12 => {
                    let scram = scram.as_ref().ok_or_else(|| Trouble::protocol("a proof without a beginning"))?;
                    scram.verify(rest).map_err(Trouble::protocol)?;
                }
                other => {
                    let text = format!("the server wants to know us in a way that is not spoken here ({other})");
                    return Err(Trouble::judged(FailureKind::Permission, text));
                }
            }
        }
        Err(Trouble::protocol("many messages and no end of logging in"))
    }

    async fn ask_for_one(&mut self) -> Result<(), Trouble> {
        self.talk.send(&message::with_text(b'Q', b"SELECT 1")).await?;
        for _ in 0..MESSAGES_MAX {
            let message = self.hear().await?;
            match message.kind {
                b'E' => return Err(refused(&message.body)),
                // A row with one column of one byte: 1.
                b'D' if message.body == b"\0\x01\0\0\0\x011" => {
                    let _ = self.talk.send(b"X\0\0\0\x04").await;
                    return Ok(());
                }
                b'D' => return Err(Trouble::protocol("one is not 1 there")),
                _ => {}
            }
        }
        Err(Trouble::protocol("many messages and no answer"))
    }
}

fn refused(body: &[u8]) -> Trouble {
    let (state, text) = error_text(body);
    let kind = if state.starts_with("28") { FailureKind::Permission } else { FailureKind::Status };
    Trouble::judged(kind, format!("the server answers {state} {:?}", for_people(text.as_bytes())))
}
