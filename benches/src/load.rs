//! Results like real ones: five log-normal phases around medians of their own per check, outages in bursts.
//!
//! The figures follow the load in the design's reference measurements: sigma 0.25 around the median of
//! each (check, phase), and one change of state in about 414 results (an outage begins after 808 good results
//! and lasts 20). A failed result either times out in the connect phase or answers 503 with all phases.
//! Ticks are exact, as a scheduler's are; the delay of a start is 0 to 3 ms.
//!
//! Deterministic: the same seed gives the same results, so two builds can be compared on the same bytes.
//! Floats are fine here: nothing is counted with them.

use std::f64::consts::{E, PI, TAU};

use bytes::Bytes;
use peil_proto::block::{self, Item};
use peil_proto::ids::{CheckNo, Seq};
use peil_proto::sample::{FailureKind, Outcome, Phases, Sample};
use peil_proto::time::UtcTime;
use peil_proto::units::{Micros, Millis};

/// Standard deviation of the logarithm of a phase.
const SIGMA: f64 = 0.25;
/// One in so many good results begins an outage.
const OUTAGE_EVERY: u64 = 808;
/// One in so many bad results ends it.
const OUTAGE_LASTS: u64 = 20;
/// Smallest and largest median of each phase, µs; a check's own lies between, evenly in the logarithm.
const MEDIANS_US: [(f64, f64); 5] =
    [(150.0, 2_000.0), (400.0, 30_000.0), (1_500.0, 60_000.0), (3_000.0, 400_000.0), (50.0, 20_000.0)];

/// Pseudo-random numbers (splitmix64): fast, seedable, good enough for noise.
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n.max(1))
    }

    /// Between 0 and 1, neither included.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are all a float between 0 and 1 has")]
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }
}

/// One target as its agents see it.
#[derive(Debug, Clone)]
struct Target {
    no: CheckNo,
    offset: Millis,
    medians_us: [f64; 5],
    outage: Option<FailureKind>,
}

/// An endless sequence of results of some checks, in order of time.
#[derive(Debug, Clone)]
pub struct Results {
    noise: Noise,
    targets: Vec<Target>,
    interval: Millis,
    tick: UtcTime,
    next: usize,
}

impl Results {
    /// Results of `checks` from `start` on, one per check and `interval`.
    pub fn new(seed: u64, checks: &[CheckNo], start: UtcTime, interval: Millis) -> Self {
        let mut noise = Noise::new(seed);
        let count = i64::try_from(checks.len().max(1)).unwrap_or(i64::MAX);
        let mut targets = Vec::with_capacity(checks.len());
        for (at, no) in (0..).zip(checks) {
            let medians_us = MEDIANS_US.map(|(low, high)| low * (high / low).powf(noise.unit()));
            targets.push(Target { no: *no, offset: Millis(interval.0 * at / count), medians_us, outage: None });
        }
        Self { noise, targets, interval, tick: start, next: 0 }
    }

    /// Bits that no coding of the five exact phases can save, given the medians: the entropy of the noise.
    pub fn phase_entropy_bits(&self) -> f64 {
        self.entropy_bits_by_phase().iter().sum()
    }

    /// The same for each phase, in the order of [`Phases`].
    pub fn entropy_bits_by_phase(&self) -> [f64; 5] {
        let bits = |median: f64| (median * SIGMA * (2.0 * PI * E).sqrt()).log2().max(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a handful of checks")]
        let checks = self.targets.len().max(1) as f64;
        std::array::from_fn(|phase| {
            self.targets.iter().map(|target| bits(target.medians_us[phase])).sum::<f64>() / checks
        })
    }

    /// The next `count` results as the items of a block.
    pub fn items(&mut self, count: usize) -> Vec<Item> {
        self.take(count).map(Item::Sample).collect()
    }
}

impl Iterator for Results {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let target = self.targets.get_mut(self.next)?;
        let scheduled_at = self.tick.plus(target.offset);
        let sample = sample(target, scheduled_at, &mut self.noise);
        self.next += 1;
        if self.next == self.targets.len() {
            self.next = 0;
            self.tick = self.tick.plus(self.interval);
        }
        Some(sample)
    }
}

fn sample(target: &mut Target, scheduled_at: UtcTime, noise: &mut Noise) -> Sample {
    target.outage = match target.outage {
        None if noise.once_in(OUTAGE_EVERY) => {
            Some(if noise.once_in(2) { FailureKind::Timeout } else { FailureKind::Status })
        }
        Some(_) if noise.once_in(OUTAGE_LASTS) => None,
        unchanged => unchanged,
    };
    let mut phase = |at: usize| Some(micros(target.medians_us[at] * (SIGMA * noise.normal()).exp()));
    let (outcome, phases) = match target.outage {
        Some(FailureKind::Timeout) => {
            let phases = Phases { resolve: phase(0), connect: Some(Micros(5_000_000)), ..Phases::default() };
            (Outcome::Failed { kind: FailureKind::Timeout, code: 0 }, phases)
        }
        outage => {
            let phases = Phases::from_array(std::array::from_fn(&mut phase));
            let failed = |kind| Outcome::Failed { kind, code: 503 };
            (outage.map_or(Outcome::Up { code: 200 }, failed), phases)
        }
    };
    let delay = Millis(i64::try_from(noise.next() % 4).unwrap_or(0));
    Sample { check: target.no, scheduled_at, delay, outcome, phases }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and far below 2^32 by the table")]
fn micros(value: f64) -> Micros {
    Micros(value.round() as u32)
}

/// Blocks made before a measurement begins. A block does not name its agent, so all agents of one lane
/// (which run the same checks) send the same bytes.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Numbers that stand in the blocks.
    pub checks: Vec<CheckNo>,
    /// With consecutive sequence numbers from 1.
    pub blocks: Vec<Bytes>,
    /// Results in each block.
    pub batch: usize,
}

impl Lane {
    /// `count` blocks of `batch` results each; the last result lies shortly before `until`.
    pub fn encode(
        seed: u64,
        checks: Vec<CheckNo>,
        until: UtcTime,
        interval: Millis,
        batch: usize,
        count: usize,
    ) -> Self {
        let ticks = (batch * count).div_ceil(checks.len().max(1)) + 1;
        let span = Millis(interval.0.saturating_mul(i64::try_from(ticks).unwrap_or(i64::MAX)));
        let mut results = Results::new(seed, &checks, until.plus(Millis(-span.0)), interval);
        let mut first = Seq(1);
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(Bytes::from(block::encode(first, &results.items(batch))));
            first = Seq(first.0 + batch as u64);
        }
        Self { checks, blocks, batch }
    }

    /// Sequence of the first result in block `at`.
    pub fn first(&self, at: usize) -> Seq {
        Seq(1 + (at * self.batch) as u64)
    }

    /// Sequence of the last result in block `at`.
    pub fn last(&self, at: usize) -> Seq {
        Seq(((at + 1) * self.batch) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peil_proto::sample::State;

    const CHECKS: [CheckNo; 3] = [CheckNo(4), CheckNo(7), CheckNo(9)];
    const INTERVAL: Millis = Millis(10_000);

    #[test]
    fn a_lane_reads_back_as_consecutive_records_that_end_before_now() {
        let now = UtcTime(1_790_000_000_000);
        let lane = Lane::encode(1, CHECKS.to_vec(), now, INTERVAL, 7, 5);
        let mut before = UtcTime(0);
        for (at, bytes) in lane.blocks.iter().enumerate() {
            let block = block::decode(bytes).unwrap();
            assert_eq!((block.first, block.items.len()), (lane.first(at), 7));
            assert_eq!(lane.last(at).0, lane.first(at).0 + 6);
            for item in block.items {
                let Item::Sample(sample) = item else { panic!("only samples were put in") };
                assert!(before < sample.scheduled_at && sample.scheduled_at < now, "{sample:?}");
                assert!(CHECKS.contains(&sample.check));
                before = sample.scheduled_at;
            }
        }
    }

    #[test]
    fn the_load_changes_state_about_as_often_as_it_says() {
        let samples: Vec<_> = Results::new(5, &CHECKS[..1], UtcTime(0), INTERVAL).take(400_000).collect();
        let changes = samples.windows(2).filter(|pair| pair[0].outcome.state() != pair[1].outcome.state()).count();
        let down = samples.iter().filter(|sample| sample.outcome.state() == State::Down).count();
        assert!((800..1_150).contains(&changes), "{changes} changes in 400 000 results; 966 wanted");
        assert!((7_000..12_500).contains(&down), "{down} of 400 000 down; 9 662 wanted");
    }
}
