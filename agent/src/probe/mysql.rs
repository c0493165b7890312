//! `mysql`: pings a MySQL or MariaDB server; up when it greets. Options: `peil_proto::plan::Mysql`.
//!
//! A server that cannot take another connection, or has blocked this host, says so in place of its greeting. With
//! `starttls` the check goes over to TLS as a client would and judges the certificate. Nobody logs in: that would need
//! an account per check and, with the usual plug-in, an RSA exchange, to learn little more. The server counts a
//! connection that ends there (`Aborted_connects`), and after `max_connect_errors` of them in a row from one host may
//! block it: a check that logs in by `tcp` dialogue, or any client from the same host, resets that count.

use peil_proto::plan::{Family, Mysql, split_address};
use peil_proto::sample::FailureKind;

use super::dial::{Deadline, Endpoint, Session, dial};
use super::dialogue::for_people;
use super::talk::{Talk, Trouble};
use super::tls::judge;
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "mysql",
    about: "waits for the greeting of a MySQL server",
    example: "mysql://db.example.org:3306",
    phases: &Phase::ALL,
};

/// Bytes of a greeting.
const GREETING_BYTES_MAX: usize = 4 << 10;
/// Capability flags we say when we ask for TLS: protocol 4.1, secure connection, TLS.
const CAPABILITIES: u32 = 0x0000_8a00;
/// The server's flag for TLS.
const SERVER_TLS: u16 = 0x0800;

pub(super) async fn run(check: &Mysql, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.address.clone(), ..Hop::default() };
    let mut facts = Vec::new();
    let end = ping(check, family, ctx, deadline, &mut hop, &mut facts).await;
    let end = end.and_then(|()| judge(&hop, &check.tls, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

async fn ping(
    check: &Mysql,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
    facts: &mut Vec<Fact>,
) -> Result<(), Failure> {
    let Some((host, port)) = split_address(&check.address) else {
        return Err(Failure::unusable(format!("address {:?} is not host:port", check.address)));
    };
    let session = || Session::prepare(host, &check.tls, Vec::new(), ctx);
    let session = check.starttls.then(session).transpose()?;
    let mut talk = Talk::on(dial(Endpoint { host, port, family }, ctx, deadline, hop).await?);
    let work = async {
        let (greeting, unread) = greeting(&mut talk).await?;
        facts.push(Fact::new("version", &greeting.version));
        match session {
            None => Ok(()),
            Some(_) if greeting.capabilities & SERVER_TLS == 0 => {
                Err(Trouble::new(FailureKind::Tls, "the server does not speak TLS"))
            }
            Some(session) => {
                let mut request = [0; 36];
                request[0] = 32;
                request[3] = 1;
                request[4..8].copy_from_slice(&CAPABILITIES.to_le_bytes());
                request[8..12].copy_from_slice(&(1_u32 << 24).to_le_bytes());
                request[12] = 45;
                talk.send(&request).await?;
                talk.start_tls(session, unread, deadline, hop).await
            }
        }
    };
    let end = deadline.allows(work).await;
    let phase = talk.note(hop);
    end.unwrap_or_else(|| Err(Trouble::timeout())).map_err(|trouble| trouble.during(phase))
}

/// The greeting, and how many bytes came behind it.
async fn greeting(talk: &mut Talk) -> Result<(Greeting, usize), Trouble> {
    let mut inbox = Vec::new();
    talk.hear_at_least(4, &mut inbox).await?;
    let length = usize::try_from(u32::from_le_bytes([inbox[0], inbox[1], inbox[2], 0])).unwrap_or(usize::MAX);
    if length > GREETING_BYTES_MAX || inbox[3] != 0 {
        return Err(Trouble::protocol(format!("not MySQL: {:?}", for_people(&inbox))));
    }
    talk.hear_at_least(4 + length, &mut inbox).await?;
    let (packet, rest) = inbox[4..].split_at(length);
    match read(packet) {
        Some(Said::Greeting(greeting)) => Ok((greeting, rest.len())),
        Some(Said::Error { code, text }) => {
            // 1130: this host may not connect. 1129: it is blocked after errors. Both are between it and us.
            let ours = matches!(code, 1_129 | 1_130);
            let kind = if ours { FailureKind::Permission } else { FailureKind::Status };
            Err(Trouble::judged(kind, format!("the server answers {code} {text:?}")))
        }
        None => Err(Trouble::protocol("the greeting is not one of MySQL")),
    }
}

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Greeting(Greeting),
    Error { code: u16, text: String },
}

#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    version: String,
    capabilities: u16,
}

/// The first packet, without its header.
fn read(packet: &[u8]) -> Option<Said> {
    let (kind, rest) = packet.split_first()?;
    match kind {
        0xff => {
            let code = u16::from_le_bytes(rest.get(..2)?.try_into().ok()?);
            Some(Said::Error { code, text: for_people(rest.get(2..)?) })
        }
        10 => {
            let end = rest.iter().position(|byte| *byte == 0)?;
            // After the version: thread (4), salt (8), a zero, then the lower half of the capabilities.
            let at = end + 1 + 4 + 8 + 1;
            let capabilities = u16::from_le_bytes(rest.get(at..at + 2)?.try_into().ok()?);
            Some(Said::Greeting(Greeting { version: for_people(&rest[..end]), capabilities }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_and_an_error_are_told_apart_from_anything_else() {
        let greeting = b"\x0a8.0.36\0\x01\0\0\0saltsalt\0\xff\xf7";
        let expected = Greeting { version: "8.0.36".into(), capabilities: 0xf7ff };
        assert_eq!(read(greeting), Some(Said::Greeting(expected)));
        let error = Said::Error { code: 1040, text: "Too many".into() };
        assert_eq!(read(b"\xff\x10\x04Too many"), Some(error));
        for junk in [&b""[..], b"\x0a8.0", b"\x09x\0", b"\xff\x10"] {
            assert_eq!(read(junk), None, "{junk:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_greeting_or_not(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            let _ = read(&bytes);
            let _ = read(&[b"\x0a", bytes.as_slice()].concat());
        }
    }
}
