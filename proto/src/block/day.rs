//! The day block: what is left of the blocks of a day when it is over.
//!
//! An agent's blocks of a day become one block for each check, and one for all its other records. Nothing that a
//! figure, its evidence or a rebuild needs is lost: scheduled time, delay, outcome with its code, and every phase to
//! the microsecond; every other record to the byte.
//!
//! **What is given up** is which sequence number a sample had and which block it came in. **What is kept instead**
//! stands in the [`Ledger`]: how many blocks and records the day was made of, the first and last sequence number of
//! each epoch, and a digest over the blocks, so that whoever still has them (in a back-up, say) can check that these
//! are the ones. Other records keep their numbers, because their order can matter.
//!
//! ```text
//! "PDAY"  version u8 = 1  kind u8   zig-zag varint day (since 1970, UTC)
//! kind 1, one check:
//!   varint check   varint N samples, in order of time, at least 1
//!   varint D outcomes      D × { u8 tag (0 up, 1 failed, 2 not run)  u8 reason  varint code  u8 phase mask }
//!   varint offset of the first sample in the day, ms
//!   columns: N − 1 × ms since the sample before;  N × outcome;  N × zig-zag delay, ms;
//!            each phase, µs, of the samples that have it        (see `day/column.rs`)
//! kind 2, the rest and the ledger:
//!   varint blocks   varint records   digest, 32 bytes
//!   varint E epochs        E × { epoch u64   varint place   varint first sequence   varint last − first }
//!   varint K records       varint length of what follows, inflated
//!   deflated (RFC 1951): K × { varint epoch (its number above)   varint sequence   varint length   bytes }
//! crc32c u32 of everything before it, little-endian
//! ```
//!
//! Samples stand in one order that follows from themselves alone (time, delay, outcome, phases), and a ledger adds up.
//! So the bytes do not depend on how often or in which portions a day was compacted. (Two builds with different versions
//! of the deflating library may differ in the bytes of kind 2, never in what they say.)
//!
//! Why not the column block of `../block.rs` with more in it: that one learns as it goes, because a live batch has
//! six results a check. With a whole day at hand each column can be described first (by a prefix code over buckets),
//! which is shorter and decodes faster; figures in `benches/README.md`.
//!
//! Limits: [`DAY_SAMPLES_MAX`], [`DAY_BYTES_MAX`], [`REST_BYTES_MAX`]. A writer says so and the day stays as it came; a reader refuses.
//! Reading allocates for at most that much, whatever the bytes say.

mod column;
mod ledger;
mod prefix_code;
#[cfg(test)]
mod tests;

pub use ledger::{Ledger, Span};

use super::Shape;
use super::bits::{Input, put_varint, unzigzag, zigzag};
use crate::ids::CheckNo;
use crate::sample::{Outcome, Phases, Sample};
use crate::time::{UtcDay, UtcTime};
use crate::units::{Micros, Millis};

/// Samples of one check in one day: one a second, and half as many again for repetitions. 80 bytes each in memory.
pub const DAY_SAMPLES_MAX: usize = 1 << 17;
/// Bytes of one day block. 131 072 samples take 1 MiB; other records are the reason for the rest.
pub const DAY_BYTES_MAX: usize = 8 << 20;
/// Bytes of all other records of one agent and day, inflated: a week of a busy host.
pub const REST_BYTES_MAX: usize = 16 << 20;

const MAGIC: &[u8; 4] = b"PDAY";
const VERSION: u8 = 1;
const ONE_CHECK: u8 = 1;
const THE_REST: u8 = 2;
const AFTER_THE_LAST: DayError = DayError::Malformed("bytes after the last column");

/// A decoded day block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DayBlock {
    /// The samples of one check.
    Check(CheckDay),
    /// Everything else, and where all of it came from.
    Rest(Ledger),
}

/// The samples of one check, from one vantage, in one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckDay {
    /// Which check.
    pub check: CheckNo,
    /// The day all samples were scheduled in.
    pub day: UtcDay,
    /// At least one, in order of time.
    pub samples: Vec<Sample>,
}

/// Why something is not a day block, or cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DayError {
    /// Longer than [`DAY_BYTES_MAX`].
    #[error("day block of {0} bytes; the limit is {DAY_BYTES_MAX}")]
    TooLong(usize),
    /// Other records beyond [`REST_BYTES_MAX`].
    #[error("other records of {0} bytes in one day; the limit is {REST_BYTES_MAX}")]
    TooMuch(usize),
    /// More than [`DAY_SAMPLES_MAX`].
    #[error("{0} samples of one check in one day; the limit is {DAY_SAMPLES_MAX}")]
    TooMany(usize),
    /// A sample that does not belong there.
    #[error("the day block of check {check} on {day} cannot take a sample of check {other} at {at}")]
    Foreign {
        /// The block's check.
        check: CheckNo,
        /// The block's day.
        day: UtcDay,
        /// The sample's check.
        other: CheckNo,
        /// The sample's time.
        at: UtcTime,
    },
    /// Does not begin as a day block.
    #[error("not a day block: it does not begin with \"PDAY\"")]
    Magic,
    /// Written by a newer program.
    #[error("day block version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// Written by a newer program.
    #[error("day block of kind {0}; this program reads kinds {ONE_CHECK} and {THE_REST}")]
    Kind(u8),
    /// Damaged on disk.
    #[error("day block is damaged: its checksum does not fit")]
    Checksum,
    /// The checksum fits but the content makes no sense; `0` names the part.
    #[error("day block is malformed: {0}")]
    Malformed(&'static str),
}

impl CheckDay {
    /// Writes the samples, in the one order they have, as a block.
    ///
    /// # Errors
    /// [`DayError::TooMany`], [`DayError::Foreign`]; [`DayError::Malformed`] when there are none.
    pub fn encode(&self) -> Result<Vec<u8>, DayError> {
        if self.samples.len() > DAY_SAMPLES_MAX {
            return Err(DayError::TooMany(self.samples.len()));
        }
        let belongs = |sample: &&Sample| sample.check == self.check && sample.scheduled_at.day() == self.day;
        if let Some(stranger) = self.samples.iter().find(|sample| !belongs(sample)) {
            let (other, at) = (stranger.check, stranger.scheduled_at);
            return Err(DayError::Foreign { check: self.check, day: self.day, other, at });
        }
        let mut samples: Vec<(Shape, &Sample)> =
            self.samples.iter().map(|sample| (Shape::of(sample), sample)).collect();
        samples.sort_by_key(|(shape, sample)| (sample.scheduled_at, sample.delay, *shape, sample.phases.to_array()));
        let Some((_, first)) = samples.first() else { return Err(DayError::Malformed("no samples")) };

        let mut out = begin(ONE_CHECK, self.day);
        put_varint(&mut out, self.check.0.into());
        put_varint(&mut out, samples.len() as u64);
        let mut outcomes: Vec<Shape> = samples.iter().map(|(shape, _)| *shape).collect();
        outcomes.sort_unstable();
        outcomes.dedup();
        put_varint(&mut out, outcomes.len() as u64);
        for shape in &outcomes {
            shape.write(&mut out);
        }
        put_varint(&mut out, offset(first.scheduled_at));
        let step = |pair: &[(Shape, &Sample)]| pair[1].1.scheduled_at.0.wrapping_sub(pair[0].1.scheduled_at.0);
        column::put(&mut out, &samples.windows(2).map(|pair| step(pair).cast_unsigned()).collect::<Vec<_>>());
        let outcome = |shape: &Shape| outcomes.partition_point(|known| known < shape) as u64;
        column::put(&mut out, &samples.iter().map(|(shape, _)| outcome(shape)).collect::<Vec<_>>());
        column::put(&mut out, &samples.iter().map(|(_, sample)| zigzag(sample.delay.0)).collect::<Vec<_>>());
        for phase in 0..5 {
            let times = samples.iter().filter_map(|(_, sample)| sample.phases.to_array()[phase]);
            column::put(&mut out, &times.map(|time| u64::from(time.0)).collect::<Vec<_>>());
        }
        seal(out)
    }

    fn read(day: UtcDay, input: &mut Input<'_>) -> Result<Self, DayError> {
        let Ticks { check, at, outcomes, places } = Ticks::read(day, input)?;
        let delays = column::get(input, at.len()).ok_or(DayError::Malformed("delays"))?;
        let mut phases = Vec::with_capacity(5);
        for phase in 0..5 {
            let having = places.iter().filter(|place| outcomes[**place].1 & (1 << phase) != 0).count();
            phases.push(column::get(input, having).ok_or(DayError::Malformed("phases"))?.into_iter());
        }
        let mut samples = Vec::with_capacity(at.len());
        for ((scheduled_at, place), delay) in at.into_iter().zip(places).zip(delays) {
            let (outcome, mask) = outcomes[place];
            let mut times = [None; 5];
            for (phase, (time, column)) in times.iter_mut().zip(&mut phases).enumerate() {
                if mask & (1 << phase) != 0 {
                    let value = column.next().and_then(|value| u32::try_from(value).ok());
                    *time = Some(Micros(value.ok_or(DayError::Malformed("a phase"))?));
                }
            }
            let (delay, phases) = (Millis(unzigzag(delay)), Phases::from_array(times));
            samples.push(Sample { check, scheduled_at, delay, outcome, phases });
        }
        Ok(Self { check, day, samples })
    }
}

/// The first half of a block of one check: when, and with what outcome.
struct Ticks {
    check: CheckNo,
    at: Vec<UtcTime>,
    /// Each with the mask of its phases.
    outcomes: Vec<(Outcome, u8)>,
    /// Of each tick the place of its outcome, which is there.
    places: Vec<usize>,
}

impl Ticks {
    fn read(day: UtcDay, input: &mut Input<'_>) -> Result<Self, DayError> {
        let number = input.varint().and_then(|check| u32::try_from(check).ok());
        let check = CheckNo(number.ok_or(DayError::Malformed("check number"))?);
        let count = input.varint().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        if count > DAY_SAMPLES_MAX {
            return Err(DayError::TooMany(count));
        }
        let kinds = input.count(count).filter(|kinds| *kinds > 0).ok_or(DayError::Malformed("outcome count"))?;
        let mut outcomes = Vec::with_capacity(kinds.min(input.0.len()));
        for _ in 0..kinds {
            outcomes.push(Shape::read(input).and_then(Shape::open).ok_or(DayError::Malformed("outcome"))?);
        }
        let mut offset = input.varint().ok_or(DayError::Malformed("time of the first sample"))?;
        let outside = DayError::Malformed("a time outside the day");
        let mut at = Vec::with_capacity(count);
        at.push(moment(day, offset).ok_or(outside)?);
        for step in column::get(input, count - 1).ok_or(DayError::Malformed("times"))? {
            offset = offset.checked_add(step).ok_or(DayError::Malformed("times"))?;
            at.push(moment(day, offset).ok_or(outside)?);
        }
        let place = |place: u64| usize::try_from(place).ok().filter(|place| *place < outcomes.len());
        let places = column::get(input, count).ok_or(DayError::Malformed("outcomes"))?.into_iter().map(place);
        let places = places.collect::<Option<Vec<_>>>().ok_or(DayError::Malformed("number of an outcome"))?;
        Ok(Self { check, at, outcomes, places })
    }
}

/// What of a day block a figure is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skimmed {
    /// When a check was due, and what came of it, in order of time.
    Check(CheckNo, Vec<(UtcTime, Outcome)>),
    /// As [`DayBlock::Rest`].
    Rest(Ledger),
}

/// Reads of a day block what a figure is made from. The times that phases took are four fifths of the bytes and of the
/// work, and come last: the checksum covers them, but they are not read.
///
/// # Errors
/// [`DayError`]; never panics.
pub fn skim(bytes: &[u8]) -> Result<Skimmed, DayError> {
    let (kind, day, mut input) = open(bytes)?;
    match kind {
        ONE_CHECK => {
            let Ticks { check, at, outcomes, places } = Ticks::read(day, &mut input)?;
            let ticks = at.into_iter().zip(places).map(|(at, place)| (at, outcomes[place].0));
            Ok(Skimmed::Check(check, ticks.collect()))
        }
        THE_REST => {
            let ledger = Ledger::read(day, &mut input)?;
            if input.0.is_empty() { Ok(Skimmed::Rest(ledger)) } else { Err(AFTER_THE_LAST) }
        }
        unknown => Err(DayError::Kind(unknown)),
    }
}

/// Reads a day block of either kind back, checking everything.
///
/// # Errors
/// [`DayError`]; never panics.
pub fn decode(bytes: &[u8]) -> Result<DayBlock, DayError> {
    let (kind, day, mut input) = open(bytes)?;
    let block = match kind {
        ONE_CHECK => DayBlock::Check(CheckDay::read(day, &mut input)?),
        THE_REST => DayBlock::Rest(Ledger::read(day, &mut input)?),
        unknown => return Err(DayError::Kind(unknown)),
    };
    if input.0.is_empty() { Ok(block) } else { Err(AFTER_THE_LAST) }
}

/// Its kind, its day and what follows, once the checksum fits.
fn open(bytes: &[u8]) -> Result<(u8, UtcDay, Input<'_>), DayError> {
    if bytes.len() > DAY_BYTES_MAX {
        return Err(DayError::TooLong(bytes.len()));
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or(DayError::Magic)?;
    let (version, rest) = rest.split_first().ok_or(DayError::Magic)?;
    if *version != VERSION {
        return Err(DayError::Version(*version));
    }
    let (body, crc) = rest.split_last_chunk::<4>().ok_or(DayError::Checksum)?;
    if crc32c::crc32c(&bytes[..bytes.len() - 4]) != u32::from_le_bytes(*crc) {
        return Err(DayError::Checksum);
    }
    let mut input = Input(body);
    let kind = input.byte().ok_or(DayError::Malformed("kind"))?;
    let day = UtcDay(input.varint().map(unzigzag).ok_or(DayError::Malformed("day"))?);
    Ok((kind, day, input))
}

fn begin(kind: u8, day: UtcDay) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.push(kind);
    put_varint(&mut out, zigzag(day.0));
    out
}

fn seal(mut out: Vec<u8>) -> Result<Vec<u8>, DayError> {
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    if out.len() > DAY_BYTES_MAX { Err(DayError::TooLong(out.len())) } else { Ok(out) }
}

/// Milliseconds since the day began.
fn offset(at: UtcTime) -> u64 {
    at.0.rem_euclid(Millis::DAY.0).unsigned_abs()
}

/// The moment so long after the day began, if it is in the day and can be told at all.
fn moment(day: UtcDay, offset: u64) -> Option<UtcTime> {
    let offset = i64::try_from(offset).ok().filter(|offset| *offset < Millis::DAY.0)?;
    // In 128 bits, because the first day there is begins before the first moment.
    let at = i128::from(day.0) * i128::from(Millis::DAY.0) + i128::from(offset);
    i64::try_from(at).ok().map(UtcTime)
}
