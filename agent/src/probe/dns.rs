//! `dns`: asks one name server one question; up when response code, records, serial, validation and signatures are as
//! wanted. Options: `peil_proto::plan::Dns`.
//!
//! Messages are written and read by hickory-proto on sockets of our own, so the check is of this server and not of the
//! host's resolver. Over UDP, what does not answer our question (another id or question, or no message at all) is
//! passed over: anybody can send that. A cut answer (TC) is a failure that says so, not a silent second question.
//! The question asks for signatures (DO) only when the check looks at them.
//!
//! The code of the sample is the response code when it is not among the wanted ones.

use std::str::FromStr as _;

use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use peil_proto::plan::{Dns, DnsTransport, Family, RCODES, split_host};
use peil_proto::sample::FailureKind;
use peil_proto::time::UtcTime;

use super::dial::{Deadline, Endpoint, Session, datagrams, dial};
use super::talk::{Talk, Trouble};
use super::tls::judge as judge_certificate;
use super::udp::exchange;
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind =
    Kind { name: "dns", about: "asks a name server for a name", example: "dns://www.example.org", phases: &Phase::ALL };

/// Bytes of an answer over UDP we say we take: what travels everywhere in one piece.
const UDP_BYTES: u16 = 1_232;
/// Answers shown to people.
const SHOWN_MAX: usize = 20;

pub(super) async fn run(check: &Dns, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.query.clone(), ..Hop::default() };
    let mut facts = Vec::new();
    let end = ask(check, family, ctx, deadline, &mut hop).await;
    let end = end.and_then(|answer| judge(check, &answer, ctx.clock.now(), &mut hop, &mut facts));
    let end = end.and_then(|()| judge_certificate(&hop, &check.tls, ctx)).map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

async fn ask(
    check: &Dns,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<Message, Failure> {
    let question = question(check)?;
    let bytes = question.to_vec().map_err(|error| Failure::unusable(format!("cannot ask: {error}")))?;
    let server = match &check.server {
        Some(server) => server.clone(),
        None => first_resolver(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
            .ok_or_else(|| Failure::unusable("no server given, and none in /etc/resolv.conf"))?,
    };
    let port = if check.transport == DnsTransport::Tls { 853 } else { 53 };
    let Some((host, port)) = split_host(&server, port) else {
        return Err(Failure::unusable(format!("server {server:?} is not a host")));
    };
    let to = Endpoint { host, port, family };
    match check.transport {
        DnsTransport::Udp => ask_by_datagram(&question, &bytes, to, ctx, deadline, hop).await,
        DnsTransport::Tcp => {
            let stream = dial(to, ctx, deadline, hop).await?;
            ask_on(Talk::on(stream), &question, &bytes, deadline, hop).await
        }
        DnsTransport::Tls => {
            let session = Session::prepare(host, &check.tls, vec![b"dot".to_vec()], ctx)?;
            let stream = dial(to, ctx, deadline, hop).await?;
            let stream = session.start(stream, deadline, hop).await?;
            ask_on(Talk::on(stream), &question, &bytes, deadline, hop).await
        }
    }
}

fn question(check: &Dns) -> Result<Message, Failure> {
    let mut name = Name::from_utf8(&check.query)
        .map_err(|error| Failure::unusable(format!("{:?} is not a name: {error}", check.query)))?;
    name.set_fqdn(true);
    let record = RecordType::from_str(&check.record)
        .map_err(|_| Failure::unusable(format!("record type {:?} is not known here", check.record)))?;
    let mut question = Message::query();
    question.metadata.recursion_desired = check.recursion;
    // Asks a validating resolver to tell what it found (RFC 6840 §5.7).
    question.metadata.authentic_data = check.authenticated;
    question.add_query(Query::query(name, record));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES).set_version(0).set_dnssec_ok(check.rrsig_days_min.is_some());
    question.set_edns(edns);
    Ok(question)
}

/// Whether `answer` is one to `question`.
fn answers(answer: &Message, question: &Message) -> bool {
    answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == hickory_proto::op::MessageType::Response
        && (answer.queries == question.queries || answer.queries.is_empty())
}

async fn ask_by_datagram(
    question: &Message,
    bytes: &[u8],
    to: Endpoint<'_>,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<Message, Failure> {
    let socket = datagrams(to, ctx, deadline, hop).await?;
    let (mut heard, mut junk) = (None, false);
    let end = exchange(&socket, bytes, deadline, hop, |bytes| {
        heard = Message::from_vec(bytes).ok().filter(|answer| answers(answer, question));
        junk |= heard.is_none();
        heard.is_some()
    })
    .await;
    match (end, heard) {
        (Ok(()), Some(answer)) => Ok(answer),
        (Err(failure), _) if failure.kind == FailureKind::Timeout && junk => Err(Failure {
            kind: FailureKind::Protocol,
            text: "only what is no answer to the question".into(),
            ..failure
        }),
        (Err(failure), _) => Err(failure),
        (Ok(()), None) => Err(Failure::during(Phase::FirstByte, FailureKind::Timeout, "no answer")),
    }
}

/// A question on a connection: two bytes of length in front (RFC 1035 §4.2.2), which also bound the answer.
async fn ask_on(
    mut talk: Talk,
    question: &Message,
    bytes: &[u8],
    deadline: Deadline,
    hop: &mut Hop,
) -> Result<Message, Failure> {
    let end = deadline.allows(exchange_on(&mut talk, question, bytes)).await;
    let phase = talk.note(hop);
    end.unwrap_or_else(|| Err(Trouble::timeout())).map_err(|trouble| trouble.during(phase))
}

async fn exchange_on(talk: &mut Talk, question: &Message, bytes: &[u8]) -> Result<Message, Trouble> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    talk.send(&[&length[..], bytes].concat()).await?;
    let mut inbox = Vec::new();
    talk.hear_at_least(2, &mut inbox).await?;
    let length = usize::from(u16::from_be_bytes([inbox[0], inbox[1]]));
    talk.hear_at_least(2 + length, &mut inbox).await?;
    let answer = Message::from_vec(&inbox[2..2 + length])
        .map_err(|error| Trouble::protocol(format!("not a DNS message: {error}")))?;
    if answers(&answer, question) { Ok(answer) } else { Err(Trouble::protocol("an answer to another question")) }
}

/// What an answer that came as these bytes says of the check, and what is told of it; `None` when it is none. For
/// whoever has bytes and no server, as the fuzzer.
pub fn told(check: &Dns, bytes: &[u8], now: UtcTime) -> Option<(Result<(), FailureKind>, Vec<Fact>)> {
    let answer = Message::from_vec(bytes).ok()?;
    let (mut hop, mut facts) = (Hop::default(), Vec::new());
    let verdict = judge(check, &answer, now, &mut hop, &mut facts);
    Some((verdict.map_err(|failure| failure.kind), facts))
}

fn judge(check: &Dns, answer: &Message, now: UtcTime, hop: &mut Hop, facts: &mut Vec<Fact>) -> Result<(), Failure> {
    let code = u16::from(answer.metadata.response_code);
    let rcode = RCODES.get(usize::from(code)).map_or_else(|| code.to_string(), |name| (*name).to_owned());
    let records: Vec<String> = answer.answers.iter().map(text_of).collect();
    facts.push(Fact::new("rcode", &rcode));
    facts.push(Fact::new("authenticated", answer.metadata.authentic_data));
    facts.extend(records.iter().take(SHOWN_MAX).map(|text| Fact::new("answer", text)));
    let lacks = |text: String| Err(Failure::judged(FailureKind::Content, text));
    if answer.metadata.truncation {
        let text = "the answer does not fit; ask with transport = \"tcp\"";
        return Err(Failure::judged(FailureKind::Protocol, text));
    }
    if !check.rcodes.contains(&rcode) {
        hop.status = Some(code);
        return Err(Failure::judged(FailureKind::Status, format!("the server answers {rcode}")));
    }
    for wanted in &check.answers {
        if !records.iter().any(|record| wanted.is_match(record.as_bytes())) {
            return lacks(format!("none of {} answers matches {:?}", records.len(), wanted.text()));
        }
    }
    if let Some(least) = check.serial_min {
        let serial = answer.answers.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        });
        match serial {
            None => return lacks("there is no SOA among the answers".to_owned()),
            // Serial arithmetic of RFC 1982.
            Some(serial) if serial.wrapping_sub(least).cast_signed() < 0 => {
                return lacks(format!("serial {serial} is before {least}"));
            }
            Some(serial) => facts.push(Fact::new("serial", serial)),
        }
    }
    if check.authenticated && !answer.metadata.authentic_data {
        return lacks("the server did not validate the answer".to_owned());
    }
    match check.rrsig_days_min {
        Some(days) => judge_signatures(&answer.answers, days, now, facts),
        None => Ok(()),
    }
}

fn judge_signatures(answers: &[Record], days: u16, now: UtcTime, facts: &mut Vec<Fact>) -> Result<(), Failure> {
    let signatures = answers.iter().filter(|record| record.record_type() == RecordType::RRSIG);
    let left = signatures.filter_map(|record| match &record.data {
        RData::Unknown { rdata, .. } => seconds_left(&rdata.anything, now),
        _ => None,
    });
    let Some(left) = left.min() else {
        return Err(Failure::judged(FailureKind::Content, "no signature among the answers"));
    };
    facts.push(Fact::new("signature", format_args!("{} days left", left.div_euclid(86_400))));
    if left <= i64::from(days) * 86_400 {
        let text = format!("a signature ends in {} hours, within {days} days", left.div_euclid(3_600));
        return Err(Failure::judged(FailureKind::CertExpiring, text));
    }
    Ok(())
}

/// Seconds until a signature ends: bytes 8 to 11 of its data, in serial arithmetic (RFC 4034 §3.1.5).
fn seconds_left(rrsig: &[u8], now: UtcTime) -> Option<i64> {
    let ends = u32::from_be_bytes(rrsig.get(8..12)?.try_into().ok()?);
    let now = u32::try_from(now.0.div_euclid(1_000).rem_euclid(1 << 32)).ok()?;
    Some(i64::from(ends.wrapping_sub(now).cast_signed()))
}

fn text_of(record: &Record) -> String {
    match &record.data {
        RData::Unknown { rdata, .. } => format!("{} {} bytes", record.record_type(), rdata.anything.len()),
        data => format!("{} {data}", record.record_type()),
    }
}

/// The first `nameserver` of a resolv.conf.
fn first_resolver(text: &str) -> Option<String> {
    let mut words = text.lines().map(str::split_whitespace);
    words.find_map(|mut line| (line.next()? == "nameserver").then(|| line.next().map(str::to_owned)).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_resolver_of_the_host_is_found() {
        assert_eq!(
            first_resolver("# x\nsearch a\nnameserver 192.0.2.1\nnameserver ::1\n").as_deref(),
            Some("192.0.2.1")
        );
        assert_eq!(first_resolver("nameserver\n"), None);
    }

    #[test]
    fn a_signature_ends_by_serial_arithmetic() {
        let mut rrsig = vec![0; 18];
        rrsig[8..12].copy_from_slice(&100_u32.to_be_bytes());
        assert_eq!(seconds_left(&rrsig, UtcTime(40_000)), Some(60));
        assert_eq!(seconds_left(&rrsig, UtcTime(((1 << 32) - 60) * 1_000)), Some(160), "over the end of 32 bits");
        assert_eq!(seconds_left(&rrsig[..11], UtcTime(0)), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            if let Ok(answer) = Message::from_vec(&bytes) {
                let check = Dns { serial_min: Some(1), authenticated: true, rrsig_days_min: Some(3), ..Dns::default() };
                let _ = judge(&check, &answer, UtcTime(0), &mut Hop::default(), &mut Vec::new());
            }
        }
    }
}
