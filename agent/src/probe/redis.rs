//! `redis`: pings a Redis (or Valkey) server; up when it answers `PONG` and, when asked, is what it must be. Options:
//! `peil_proto::plan::Redis`.
//!
//! RESP2, of which only what these three commands answer: a line, or an array whose first element is a string.

use peil_proto::plan::{Family, Redis, RedisRole, split_address};
use peil_proto::sample::FailureKind;

use super::dial::{Deadline, Endpoint, Session, dial};
use super::dialogue::for_people;
use super::talk::{Talk, Trouble};
use super::tls::judge;
use super::{Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "redis",
    about: "pings a Redis server",
    example: "redis://cache.example.org:6379",
    phases: &Phase::ALL,
};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 10;

pub(super) async fn run(check: &Redis, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.address.clone(), ..Hop::default() };
    let end = ping(check, family, ctx, deadline, &mut hop).await;
    let end = end.and_then(|()| judge(&hop, &check.tls, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end)
}

async fn ping(
    check: &Redis,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<(), Failure> {
    let Some((host, port)) = split_address(&check.address) else {
        return Err(Failure::unusable(format!("address {:?} is not host:port", check.address)));
    };
    let password = check.password_file.as_ref().map(|secret| ctx.secrets.read(secret)).transpose()?;
    let session = || Session::prepare(host, &check.tls, Vec::new(), ctx);
    let session = check.implicit_tls.then(session).transpose()?;
    let mut stream = dial(Endpoint { host, port, family }, ctx, deadline, hop).await?;
    if let Some(session) = session {
        stream = session.start(stream, deadline, hop).await?;
    }
    let mut talk = Talk::on(stream);
    let work = async {
        let talk = &mut talk;
        if let Some(password) = &password {
            let user = check.user.as_ref().map(String::as_bytes);
            let words: Vec<&[u8]> = [b"AUTH".as_slice()].into_iter().chain(user).chain([password.bytes()]).collect();
            wanted(ask(talk, &words).await?, "OK")?;
        }
        wanted(ask(talk, &[b"PING"]).await?, "PONG")?;
        match check.role {
            Some(role) => judge_role(ask(talk, &[b"ROLE"]).await?, role),
            None => Ok(()),
        }
    };
    let end = deadline.allows(work).await;
    let phase = talk.note(hop);
    end.unwrap_or_else(|| Err(Trouble::timeout())).map_err(|trouble| trouble.during(phase))
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Said(Vec<u8>),
    Error(Vec<u8>),
}

async fn ask(talk: &mut Talk, words: &[&[u8]]) -> Result<Answer, Trouble> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    talk.send(&command).await?;
    let mut inbox = Vec::new();
    loop {
        // ROLE answers with more behind its first word; whatever is left of it is not needed, it is asked last.
        match read(&inbox) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) if inbox.len() > ANSWER_BYTES_MAX => return Err(Trouble::protocol("an answer without end")),
            Ok(None) => {}
            Err(()) => return Err(Trouble::protocol(format!("not Redis: {:?}", for_people(&inbox)))),
        }
        if talk.hear(&mut inbox).await? == 0 {
            return Err(Trouble::closed());
        }
    }
}

/// The answer in `bytes`, or the first element of one; `None` while it is not whole.
fn read(bytes: &[u8]) -> Result<Option<Answer>, ()> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    if !b"+-*$".contains(kind) {
        return Err(());
    }
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (line, rest) = (&bytes[1..end], &bytes[end + 2..]);
    let number = || std::str::from_utf8(line).ok().and_then(|text| text.parse::<usize>().ok()).ok_or(());
    match kind {
        b'+' => Ok(Some(Answer::Said(line.to_vec()))),
        b'-' => Ok(Some(Answer::Error(line.to_vec()))),
        b'$' => {
            let length = number()?;
            if length > ANSWER_BYTES_MAX {
                Err(())
            } else {
                Ok(rest.get(..length).map(|text| Answer::Said(text.to_vec())))
            }
        }
        // One level is enough for ROLE; an array in an array is not what was asked for.
        _ if number()? == 0 || rest.first() == Some(&b'*') => Err(()),
        _ => read(rest),
    }
}

fn wanted(answer: Answer, word: &str) -> Result<(), Trouble> {
    match answer {
        Answer::Said(said) if said == word.as_bytes() => Ok(()),
        Answer::Said(said) => Err(Trouble::protocol(format!("{:?} in place of {word}", for_people(&said)))),
        Answer::Error(error) => Err(refusal(&error)),
    }
}

/// An error is about us (it does not let us in) or about the server.
fn refusal(error: &[u8]) -> Trouble {
    const OURS: [&[u8]; 4] = [b"NOAUTH", b"WRONGPASS", b"NOPERM", b"ERR invalid password"];
    let kind =
        if OURS.iter().any(|ours| error.starts_with(ours)) { FailureKind::Permission } else { FailureKind::Status };
    Trouble::judged(kind, format!("the server answers {:?}", for_people(error)))
}

fn judge_role(answer: Answer, wanted: RedisRole) -> Result<(), Trouble> {
    let said = match answer {
        Answer::Said(said) => said,
        Answer::Error(error) => return Err(refusal(&error)),
    };
    let fits = match wanted {
        RedisRole::Master => said == b"master",
        RedisRole::Replica => said == b"slave",
    };
    if fits {
        Ok(())
    } else {
        Err(Trouble::judged(FailureKind::Content, format!("its role is {:?}", for_people(&said))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_when_they_are_whole() {
        assert_eq!(read(b"+PONG\r\n"), Ok(Some(Answer::Said(b"PONG".to_vec()))));
        assert_eq!(read(b"+PON"), Ok(None));
        assert_eq!(read(b"-NOAUTH x\r\n"), Ok(Some(Answer::Error(b"NOAUTH x".to_vec()))));
        assert_eq!(read(b"*3\r\n$6\r\nmaster\r\n:0\r\n"), Ok(Some(Answer::Said(b"master".to_vec()))));
        assert_eq!(read(b"*3\r\n$6\r\nmas"), Ok(None));
        for junk in [&b"HTTP/1.1 400\r\n"[..], b"$99999\r\n", b"*x\r\n", b"*1\r\n*1\r\n", b"$-1\r\n"] {
            assert_eq!(read(junk), Err(()), "{junk:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            let _ = read(&bytes);
            let _ = read(&[b"*1\r\n$", bytes.as_slice()].concat());
        }
    }
}
