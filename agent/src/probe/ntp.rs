//! `ntp`: asks a time server (RFC 5905, mode 3); up when it is synchronised, near enough to the root, and its clock
//! agrees with this host's. Options: `peil_proto::plan::Ntp`.
//!
//! What we send as our time is random: the server only has to give it back, which proves that the answer is to our
//! question, and tells nobody what this host takes for the time. Answers that do not give it back are passed over.
//! Offset = ((t2 − t1) + (t3 − t4)) / 2 with our own times in whole milliseconds, so good to a millisecond or two.

use peil_proto::plan::{Family, Ntp, split_host};
use peil_proto::sample::FailureKind;
use peil_proto::time::UtcTime;

use super::dial::{Deadline, Endpoint, datagrams};
use super::udp::exchange;
use super::{Fact, Failure, Hop, Kind, Observation, Phase, ProbeContext};

pub(super) const KIND: Kind = Kind {
    name: "ntp",
    about: "asks a time server for the time",
    example: "ntp://ntp.example.org",
    phases: &[Phase::Resolve, Phase::FirstByte],
};

/// The port of time servers.
const PORT: u16 = 123;
/// Bytes of a message without extensions.
const MESSAGE_BYTES: usize = 48;
/// Seconds from 1900 to 1970.
const UNIX_EPOCH_S: u64 = 2_208_988_800;

/// What a time server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// 0 none, 1 and 2 a leap second is near, 3 not synchronised.
    pub leap: u8,
    /// Steps from a reference clock; 0 is a kiss-o'-death.
    pub stratum: u8,
    /// Its code then; else what the server goes by.
    pub reference: [u8; 4],
    /// µs the server may be off its root.
    pub root_dispersion_us: u64,
    /// What we sent as our time.
    pub origin: u64,
    /// When it got our question, in 2⁻³² s since 1900 (era not told).
    pub received: u64,
    /// When it sent the answer.
    pub sent: u64,
}

impl Answer {
    /// Reads an answer; `None` for what is not one (another mode, too short). Extensions after it are not looked at.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..MESSAGE_BYTES)?;
        let (leap, version, mode) = (head[0] >> 6, (head[0] >> 3) & 7, head[0] & 7);
        if mode != 4 || !(1..=4).contains(&version) {
            return None;
        }
        let word = |at: usize| head.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_be_bytes);
        let dispersion = u32::from_be_bytes(head.get(8..12)?.try_into().ok()?);
        Some(Self {
            leap,
            stratum: head[1],
            reference: head.get(12..16)?.try_into().ok()?,
            root_dispersion_us: (u64::from(dispersion) * 1_000_000) >> 16,
            origin: word(24)?,
            received: word(32)?,
            sent: word(40)?,
        })
    }

    /// µs by which the server's clock is ahead of ours, when we asked at `t1` and heard at `t4`. Right as long as the
    /// two are within 68 years of each other.
    pub fn offset_us(&self, t1: UtcTime, t4: UtcTime) -> i64 {
        let there = difference(self.received, stamp(t1)) + difference(self.sent, stamp(t4));
        i64::try_from((there / 2 * 1_000_000) >> 32).unwrap_or(i64::MAX)
    }
}

/// `a − b` in 2⁻³² s, across the end of an era.
fn difference(a: u64, b: u64) -> i128 {
    i128::from(a.wrapping_sub(b).cast_signed())
}

/// A moment as NTP writes it.
fn stamp(at: UtcTime) -> u64 {
    let (seconds, millis) = (at.0.div_euclid(1_000), at.0.rem_euclid(1_000));
    let seconds = seconds.cast_unsigned().wrapping_add(UNIX_EPOCH_S);
    (seconds << 32) | ((millis.unsigned_abs() << 32) / 1_000)
}

pub(super) async fn run(check: &Ntp, family: Family, ctx: &ProbeContext, deadline: Deadline) -> Observation {
    let mut hop = Hop { target: check.host.clone(), ..Hop::default() };
    let mut facts = Vec::new();
    let end = ask(check, family, ctx, deadline, &mut hop, &mut facts).await.map(|()| 0);
    Observation::from_end(vec![hop], None, end).with_facts(facts)
}

async fn ask(
    check: &Ntp,
    family: Family,
    ctx: &ProbeContext,
    deadline: Deadline,
    hop: &mut Hop,
    facts: &mut Vec<Fact>,
) -> Result<(), Failure> {
    let Some((host, port)) = split_host(&check.host, PORT) else {
        return Err(Failure::unusable(format!("host {:?} is not a host", check.host)));
    };
    let nonce = getrandom::u64().map_err(|error| Failure::unusable(format!("no random number: {error}")))?;
    let mut question = [0; MESSAGE_BYTES];
    // No leap known, version 4, mode 3 (client).
    question[0] = (4 << 3) | 3;
    question[40..48].copy_from_slice(&nonce.to_be_bytes());
    let socket = datagrams(Endpoint { host, port, family }, ctx, deadline, hop).await?;
    let asked = ctx.clock.now();
    let (mut heard, mut junk) = (None, false);
    let end = exchange(&socket, &question, deadline, hop, |bytes| {
        let answer = Answer::read(bytes).filter(|answer| answer.origin == nonce);
        junk |= answer.is_none();
        heard = answer.map(|answer| (answer, ctx.clock.now()));
        heard.is_some()
    })
    .await;
    match (end, heard) {
        (Ok(()), Some((answer, at))) => judge(check, answer, answer.offset_us(asked, at), facts),
        (Err(failure), _) if failure.kind == FailureKind::Timeout && junk => {
            Err(Failure { kind: FailureKind::Protocol, text: "only answers to other questions".to_owned(), ..failure })
        }
        (Err(failure), _) => Err(failure),
        (Ok(()), None) => Err(Failure::during(Phase::FirstByte, FailureKind::Timeout, "no answer")),
    }
}

fn judge(check: &Ntp, answer: Answer, offset_us: i64, facts: &mut Vec<Fact>) -> Result<(), Failure> {
    let reference = answer.reference.map(char::from).iter().filter(|c| c.is_ascii_graphic()).collect::<String>();
    if answer.stratum == 0 {
        return Err(Failure::judged(FailureKind::Status, format!("the server sends us away: {reference}")));
    }
    facts.push(Fact::new("offset", format_args!("{offset_us} us")));
    facts.push(Fact::new("stratum", answer.stratum));
    facts.push(Fact::new("leap", answer.leap));
    facts.push(Fact::new("dispersion", format_args!("{} us", answer.root_dispersion_us)));
    let lacks = |text: String| Err(Failure::judged(FailureKind::Content, text));
    if answer.leap == 3 || answer.stratum > 15 {
        return lacks("the server is not synchronised".to_owned());
    }
    if answer.stratum > check.stratum_max {
        return lacks(format!("stratum {} is over {}", answer.stratum, check.stratum_max));
    }
    if offset_us.unsigned_abs() > u64::from(check.offset_max_ms) * 1_000 {
        return lacks(format!("its clock is {offset_us} us ahead of this host's, over {} ms", check.offset_max_ms));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(received: UtcTime, sent: UtcTime) -> Answer {
        Answer {
            leap: 0,
            stratum: 2,
            reference: [0; 4],
            root_dispersion_us: 0,
            origin: 0,
            received: stamp(received),
            sent: stamp(sent),
        }
    }

    #[test]
    fn the_offset_is_half_of_both_ways_and_survives_the_end_of_the_era() {
        for base in ["2026-01-01T00:00:00Z", "2036-02-07T06:28:15.500Z", "1970-01-01T00:00:00Z"] {
            let t1 = UtcTime::parse(base).expect("a time");
            let at = |ms| UtcTime(t1.0 + ms);
            // The server is 500 ms ahead; 100 ms there, 10 ms to think, 100 ms back.
            let offset = answer(at(600), at(610)).offset_us(t1, at(210));
            assert!((offset - 500_000).abs() <= 1_000, "{base}: {offset}");
            let behind = answer(at(-400), at(-390)).offset_us(t1, at(210));
            assert!((behind + 500_000).abs() <= 1_000, "{base}: {behind}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_not(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80), t in proptest::num::i64::ANY) {
            if let Some(answer) = Answer::read(&bytes) {
                proptest::prop_assert!(bytes.len() >= MESSAGE_BYTES);
                let _ = answer.offset_us(UtcTime(t / 2_000), UtcTime(t / 2_000 + 1));
            }
        }
    }
}
