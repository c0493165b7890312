//! A day reads back as it was, damage is noticed, and no bytes can do harm.

use proptest::prelude::*;

use super::*;
use crate::ids::{Epoch, Seq};
use crate::sample::{FailureKind, NotRun, Outcome};

const DAY: UtcDay = UtcDay(20_717);
const CHECK: CheckNo = CheckNo(7);

fn sample(ms: i64, outcome: Outcome, phases: [Option<u32>; 5]) -> Sample {
    Sample {
        check: CHECK,
        scheduled_at: DAY.start().plus(Millis(ms)),
        delay: Millis(ms % 3),
        outcome,
        phases: Phases::from_array(phases.map(|time| time.map(Micros))),
    }
}

/// A day at a minute's rhythm, with an outage and a tick that was not run.
fn typical() -> CheckDay {
    let outcome = |minute: i64| match minute {
        600..640 => Outcome::Failed { kind: FailureKind::Timeout, code: 0 },
        900 => Outcome::NotRun(NotRun::Overload),
        _ => Outcome::Up { code: 200 },
    };
    let noise = |n: i64, around: u32| Some(around + u32::try_from(n * 7_919 % 97).expect("small") * around / 300);
    let samples = (0..1_440).map(|n| {
        let phases = match outcome(n) {
            Outcome::Up { .. } => {
                [noise(n, 300), noise(n + 1, 900), noise(n + 2, 9_000), noise(n + 3, 30_000), noise(n, 80)]
            }
            Outcome::Failed { .. } => [noise(n, 300), Some(5_000_000), None, None, None],
            Outcome::NotRun(_) => [None; 5],
        };
        sample(n * 60_000 + 17_000, outcome(n), phases)
    });
    CheckDay { check: CHECK, day: DAY, samples: samples.collect() }
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(DAY);
    let (old, new) = (Epoch(9), Epoch(4));
    ledger.enter(old, Span { place: 31, first: Seq(5), last: Seq(9) }, 0, b"one block");
    ledger.enter(new, Span { place: 40, first: Seq(1), last: Seq(3) }, 1, b"another");
    ledger.records = 7;
    ledger.others.insert((old, Seq(6)), vec![1, 2, 3]);
    ledger.others.insert((new, Seq(2)), vec![4]);
    ledger
}

fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&body);
    body.extend_from_slice(&crc.to_le_bytes());
    body
}

#[test]
fn a_day_reads_back_as_it_was() {
    let day = typical();
    let bytes = day.encode().expect("a day");
    println!("{} bytes for {} results", bytes.len(), day.samples.len());
    assert_eq!(decode(&bytes), Ok(DayBlock::Check(day)));
    let rest = ledger();
    let bytes = rest.encode().expect("a ledger");
    assert_eq!(skim(&bytes), Ok(Skimmed::Rest(rest.clone())));
    assert_eq!(decode(&bytes), Ok(DayBlock::Rest(rest)));
}

#[test]
fn a_day_has_one_form_whatever_the_order_of_its_samples() {
    let day = typical();
    let mut other = day.clone();
    other.samples.reverse();
    other.samples.rotate_left(77);
    assert_eq!(day.encode(), other.encode());
}

#[test]
fn other_records_come_in_the_order_of_their_epochs_storing() {
    assert_eq!(ledger().in_order().collect::<Vec<_>>(), [&vec![1, 2, 3], &vec![4]]);
}

#[test]
fn ledgers_add_up_in_any_portions() {
    let spans = [3, 9, 1, 7].map(|place| Span { place, first: Seq(place * 10), last: Seq(place * 10 + 4) });
    let of = |part: &[Span]| {
        let mut ledger = Ledger::new(DAY);
        for span in part {
            ledger.enter(Epoch(span.place % 2), *span, 0, &[1; 40]);
        }
        ledger
    };
    let mut halves = of(&spans[2..]);
    halves.absorb(of(&spans[..2]));
    assert_eq!(halves, of(&spans));
    assert_ne!(halves.digest, of(&spans[1..]).digest);
}

#[test]
fn damage_is_noticed_at_every_bit_and_every_cut() {
    for good in [typical().encode().expect("a day"), ledger().encode().expect("a ledger")] {
        for bit in (0..good.len() * 8).step_by(7) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
        for length in (0..good.len()).step_by(11) {
            assert!(decode(&good[..length]).is_err(), "{length} bytes were taken for a block");
        }
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let mut bytes = typical().encode().expect("a day");
    bytes[4] = 2;
    assert_eq!(decode(&bytes), Err(DayError::Version(2)));
    assert_eq!(decode(&sealed([&MAGIC[..], &[VERSION, 9, 0]].concat())), Err(DayError::Kind(9)));
    assert_eq!(decode(b"PBLK\x01"), Err(DayError::Magic));
}

#[test]
fn a_block_takes_only_what_belongs_to_it_and_only_so_much() {
    let mut day = typical();
    day.samples[3].scheduled_at = day.day.next().start();
    assert!(matches!(day.encode(), Err(DayError::Foreign { .. })));
    day.samples = vec![typical().samples[0]; DAY_SAMPLES_MAX + 1];
    assert_eq!(day.encode(), Err(DayError::TooMany(DAY_SAMPLES_MAX + 1)));
    day.samples.clear();
    assert!(day.encode().is_err());
}

/// A short block may tell of many equal samples, but never of more than the limit.
#[test]
fn a_few_bytes_cannot_ask_for_more_samples_than_the_limit() {
    let body = |count: u64| {
        let mut out = begin(ONE_CHECK, DAY);
        put_varint(&mut out, 7);
        put_varint(&mut out, count);
        out.extend_from_slice(&[1, 0, 0, 0, 0]);
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0]);
        sealed(out)
    };
    let most = DAY_SAMPLES_MAX as u64;
    assert!(matches!(decode(&body(most)), Ok(DayBlock::Check(day)) if day.samples.len() == DAY_SAMPLES_MAX));
    assert_eq!(decode(&body(most + 1)), Err(DayError::TooMany(DAY_SAMPLES_MAX + 1)));
}

/// Version 1 never changes: these bytes were written by the first release that compacts and must read for ever.
#[test]
fn version_one_reads_for_ever() {
    let short = CheckDay { samples: typical().samples[590..660].to_vec(), ..typical() };
    for (name, block) in
        [("golden-v1-check.day", DayBlock::Check(short)), ("golden-v1-rest.day", DayBlock::Rest(ledger()))]
    {
        let path = format!("{}/src/block/day/{name}", env!("CARGO_MANIFEST_DIR"));
        let written = match &block {
            DayBlock::Check(day) => day.encode(),
            DayBlock::Rest(ledger) => ledger.encode(),
        };
        let written = written.expect("a block");
        if std::env::var_os("PEIL_BLESS").is_some() {
            std::fs::write(&path, &written).expect("written");
        }
        let kept = std::fs::read(&path).expect("kept with the code");
        assert_eq!(decode(&kept), Ok(block));
        assert_eq!(decode(&kept), decode(&written));
        // Another version of the deflating library may write the same in other bytes.
        let exact = matches!(decode(&kept), Ok(DayBlock::Check(_)));
        assert!(!exact || kept == written, "the writer changed: that needs a new version");
    }
}

/// A few deflated kilobytes can be gigabytes inflated; no more is inflated than the block says and the limit allows.
#[test]
fn a_deflated_bomb_goes_off_nowhere() {
    let mut big = ledger();
    big.others.insert((Epoch(4), Seq(3)), vec![0; REST_BYTES_MAX - 100]);
    let good = big.encode().expect("just within the limit");
    assert!(good.len() < 100_000);
    assert_eq!(decode(&good), Ok(DayBlock::Rest(big.clone())));
    big.others.insert((Epoch(4), Seq(4)), vec![0; 200]);
    assert!(matches!(big.encode(), Err(DayError::TooMuch(_))));
    let mut claims = begin(THE_REST, DAY);
    claims.extend_from_slice(&[0; 35]);
    claims.push(0);
    put_varint(&mut claims, 1 << 40);
    assert_eq!(decode(&sealed(claims)), Err(DayError::TooMuch(1 << 40)));
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => any::<u16>().prop_map(|code| Outcome::Up { code: code % 4 }),
        1 => (proptest::sample::select(FailureKind::ALL), any::<u16>())
            .prop_map(|(kind, code)| Outcome::Failed { kind, code }),
        1 => proptest::sample::select(NotRun::ALL).prop_map(Outcome::NotRun),
    ]
}

prop_compose! {
    fn any_sample()(
        ms in prop_oneof![(0..1_440_i64).prop_map(|n| n * 60_000), 0..Millis::DAY.0],
        delay in prop_oneof![0..20_i64, any::<i64>()],
        outcome in any_outcome(),
        phases in proptest::array::uniform5(proptest::option::of(prop_oneof![0..5_000_u32, any::<u32>()])),
    ) -> Sample {
        Sample { delay: Millis(delay), ..sample(ms, outcome, phases) }
    }
}

proptest! {
    #[test]
    fn whatever_goes_in_comes_out(samples in proptest::collection::vec(any_sample(), 1..120)) {
        let written = CheckDay { check: CHECK, day: DAY, samples };
        let Ok(DayBlock::Check(read)) = decode(&written.encode().expect("a day")) else { panic!("another kind") };
        let sorted = |day: &CheckDay| {
            let mut samples = day.samples.clone();
            samples.sort_by_key(|s| (s.scheduled_at, s.delay, Shape::of(s), s.phases.to_array()));
            samples
        };
        prop_assert_eq!(&read.samples, &sorted(&written));
        prop_assert_eq!(read.encode(), written.encode());
        let ticks = read.samples.iter().map(|sample| (sample.scheduled_at, sample.outcome)).collect();
        prop_assert_eq!(skim(&written.encode().expect("a day")), Ok(Skimmed::Check(CHECK, ticks)));
    }

    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0..4_u8) {
        let _ = decode(&bytes);
        let whole = sealed([&MAGIC[..], &[VERSION, kind], &bytes].concat());
        prop_assert!(decode(&whole).is_err() || skim(&whole).is_ok());
    }

    #[test]
    fn a_mended_checksum_does_no_harm(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = typical().encode().expect("a day");
        bytes.truncate(bytes.len() - 4);
        let at = 5 + at.index(bytes.len() - 5);
        bytes[at] = byte;
        let mended = sealed(bytes);
        prop_assert!(decode(&mended).is_err() || skim(&mended).is_ok());
    }
}
