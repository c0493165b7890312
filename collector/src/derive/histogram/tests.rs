//! Same bytes and same quantiles as the crate `hdrhistogram`; order leaves no trace; no bytes do harm.

use hdrhistogram::Histogram as Oracle;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use proptest::prelude::*;

use super::*;

fn of(values: &[u32]) -> Histogram {
    let mut accumulator = Accumulator::default();
    for value in values {
        accumulator.record(Micros(*value));
    }
    accumulator.finish()
}

fn oracle(values: &[u32]) -> Oracle<u64> {
    let mut oracle = Oracle::new_with_bounds(LOWEST.0.into(), HIGHEST.0.into(), 2).expect("our range");
    for value in values {
        oracle.record(u64::from((*value).clamp(LOWEST.0, HIGHEST.0))).expect("within the range");
    }
    oracle
}

fn v2(oracle: &Oracle<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    V2Serializer::new().serialize(oracle, &mut out).expect("written to memory");
    out
}

/// Times around `median` whose logarithm is spread like that of real phases.
fn times(count: u64, median: f64) -> Vec<u32> {
    let mut seed = 3_u64;
    let mut unit = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(seed >> 40).expect("24 bits")) / f64::from(1 << 24)
    };
    let mut time = move || {
        let normal: f64 = (0..12).map(|_| unit()).sum::<f64>() - 6.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and below a minute")]
        let time = (median * (0.25 * normal).exp()) as u32;
        time
    };
    (0..count).map(|_| time()).collect()
}

#[test]
fn the_ends_of_the_range_are_where_hdrhistogram_has_them() {
    assert_eq!(bucket(HIGHEST), BUCKETS - 1);
    for value in [0, 1, 2, 127, 128, 255, 256, 257, 511, 512, 59_999_999, 60_000_000, u32::MAX] {
        let ours = of(&[value]);
        assert_eq!(ours.to_v2(), v2(&oracle(&[value])), "{value}");
    }
    assert_eq!(Histogram::default().to_v2(), v2(&oracle(&[])));
    assert_eq!(Histogram::from_v2(&v2(&oracle(&[]))), Ok(Histogram::default()));
}

#[test]
fn a_value_outside_the_range_is_held_at_its_end_and_told() {
    let mut accumulator = Accumulator::default();
    let told = [0, 1, 60_000_000, 60_000_001].map(|value| accumulator.record(Micros(value)));
    assert_eq!(told, [false, true, true, false]);
    assert_eq!(accumulator.finish().count(), 4);
}

#[test]
fn a_live_accumulator_takes_at_most_half_a_kibibyte() {
    for median in [150.0, 3_000.0, 60_000.0, 400_000.0] {
        let mut accumulator = Accumulator::default();
        let mut most = 0;
        for value in times(360, median) {
            accumulator.record(Micros(value));
            most = most.max(accumulator.bytes());
        }
        assert!(most <= 512, "{most} bytes at {median} µs");
    }
}

#[test]
fn bytes_of_another_range_or_number_of_digits_are_refused() {
    let three_digits = Oracle::<u64>::new_with_bounds(1, 60_000_000, 3).expect("a range");
    assert_eq!(Histogram::from_v2(&v2(&three_digits)), Err(HistogramError::Header));
    let hours = Oracle::<u64>::new_with_bounds(1, 3_600_000_000, 2).expect("a range");
    assert_eq!(Histogram::from_v2(&v2(&hours)), Err(HistogramError::Header));
    let good = of(&[1, 2, 3]).to_v2();
    assert!(Histogram::from_v2(&good[..good.len() - 1]).is_err());
    assert_eq!(Histogram::from_v2(b""), Err(HistogramError::Header));
}

prop_compose! {
    fn any_values()(values in proptest::collection::vec(prop_oneof![0..2_000_u32, 1..90_000_000_u32], 0..200)) -> Vec<u32> {
        values
    }
}

proptest! {
    #[test]
    fn bytes_and_quantiles_are_those_of_hdrhistogram(values in any_values(), mut shares in [1..=1_000_u16, 1..=1_000_u16]) {
        let (ours, theirs) = (of(&values), oracle(&values));
        prop_assert_eq!(ours.to_v2(), v2(&theirs));
        let read = Histogram::from_v2(&v2(&theirs));
        prop_assert_eq!(read.as_ref(), Ok(&ours));
        let back: Oracle<u64> = Deserializer::new().deserialize(&mut &ours.to_v2()[..]).expect("theirs to read");
        prop_assert_eq!(&back, &theirs);
        prop_assert_eq!(ours.count(), values.len() as u64);
        shares.sort_unstable();
        for (share, found) in shares.into_iter().zip(ours.quantiles(shares.map(PerMille))) {
            // Their share is a float: the nearest whole rank may be one off, ours is exact. So ask by rank.
            let rank = (values.len() as u64 * u64::from(share)).div_ceil(1_000);
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let exact = usize::try_from(rank).ok().and_then(|rank| sorted.get(rank.max(1) - 1).copied());
            let end = exact.map(|exact| theirs.highest_equivalent(u64::from(exact.clamp(1, HIGHEST.0))));
            prop_assert_eq!(found.map(|found| u64::from(found.0)), end);
        }
    }

    #[test]
    fn order_and_portions_leave_no_trace(values in any_values(), cut in any::<prop::sample::Index>()) {
        let (left, right) = values.split_at(cut.index(values.len() + 1));
        let mut sum = of(right);
        sum.add(&of(left));
        prop_assert_eq!(&sum, &of(&values));
        let backwards: Vec<u32> = values.iter().rev().copied().collect();
        prop_assert_eq!(sum.to_v2(), of(&backwards).to_v2());
    }

    #[test]
    fn no_bytes_do_harm(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut bytes = HEADER.to_vec();
        bytes[7] = u8::try_from(payload.len()).expect("short");
        bytes.extend_from_slice(&payload);
        if let Ok(read) = Histogram::from_v2(&bytes) {
            read.quantiles([PerMille::P50, PerMille::P99]);
            prop_assert_eq!(Histogram::from_v2(&read.to_v2()), Ok(read));
        }
        let _ = Histogram::from_v2(&payload);
    }
}
