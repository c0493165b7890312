//! The column block: the form in which records leave the agent, are committed, and stay.
//!
//! A block holds consecutive records of one spool epoch. Samples stand in columns; every other kind is
//! embedded as its protobuf bytes. The collector checks a block and stores the bytes as they are, so
//! this layout is a file format: it has a version, and a reader of version 1 will exist for ever.
//!
//! ```text
//! "PBLK"  version u8 = 1
//! varint first_seq   varint N records   varint K others (K ≤ N)
//! K ×  { varint records since the previous other   varint length   peil.v1.Record }
//! if S = N − K > 0:
//!   varint C checks            C × varint (number − previous number − 1)   ascending
//!   varint D outcomes          D × { u8 tag (0 up, 1 failed, 2 not run)  u8 reason  varint code  u8 phase mask }
//!   varint byte length, then a bit stream (most significant bit first), per sample in order:
//!     check       1 = the one that followed the previous check last time;  0 + index in ⌈log2 C⌉ bits
//!     outcome     1 = as the last time for this check;                     0 + index in ⌈log2 D⌉ bits
//!     scheduled   residual, ms: against the last tick + the last step of this check
//!     delay       residual, ms: against the running mean of this check
//!     each phase in the mask: residual, µs, against the running mean of (check, phase)
//! crc32c u32 of everything before it, little-endian
//! ```
//!
//! Residuals are zig-zag coded and written in Rice codes whose parameter follows the recent size of
//! residuals in the same context (as in JPEG-LS and FLAC): no headers, no exceptions table, and within a
//! few per cent of the entropy of real timings. The first value of a context is predicted from the
//! column's last value in the block. All arithmetic is wrapping 64-bit, so no input can overflow.
//!
//! Why not bit-packed frames of reference (DESIGN §3 proposed them): per (check, phase) they need a header
//! that costs more than it saves in a live batch of six results per check, and per block they lose two
//! bits a value between fast and slow checks. Measured by the program `block` of the benches; figures
//! in `benches/README.md`.
//!
//! Limits: [`BLOCK_BYTES_MAX`] and [`BLOCK_RECORDS_MAX`]; a writer starts the next block, a reader refuses.

mod bits;
pub mod day;
mod prediction;
#[cfg(test)]
mod tests;

use bits::{BitReader, BitWriter, Input, put_varint};
use prediction::Model;

use crate::ids::{CheckNo, Seq};
use crate::sample::{FailureKind, NotRun, Outcome, Phases, Sample};
use crate::time::UtcTime;
use crate::units::{Micros, Millis};

/// Bytes of one block. The encoder's caller closes a block before it; a larger one is refused.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Records in one block. The encoder's caller closes a block before it; more are refused.
pub const BLOCK_RECORDS_MAX: usize = 1 << 16;

const MAGIC: &[u8; 4] = b"PBLK";
const VERSION: u8 = 1;
/// A quotient this long is an escape: the value follows in 64 bits.
const ESCAPE: u32 = 24;

/// A record in a block: a sample in columns, or the protobuf bytes of any other kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A sample.
    Sample(Sample),
    /// Any other record, as `peil.v1.Record` bytes.
    Other(Vec<u8>),
}

/// A decoded block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Sequence number of the first record.
    pub first: Seq,
    /// The records, in order of sequence.
    pub items: Vec<Item>,
}

/// Why bytes are not a block. None of these can be mended by sending the same bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Longer than [`BLOCK_BYTES_MAX`].
    #[error("block of {0} bytes; the limit is {BLOCK_BYTES_MAX}")]
    TooLong(usize),
    /// Does not begin as a block.
    #[error("not a block: it does not begin with \"PBLK\"")]
    Magic,
    /// Written by a newer program.
    #[error("block version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// Damaged on the way or on disk.
    #[error("block is damaged: its checksum does not fit")]
    Checksum,
    /// The checksum fits but the content makes no sense; `0` names the part.
    #[error("block is malformed: {0}")]
    Malformed(&'static str),
}

// ---------------------------------------------------------------- encode

/// Writes records with consecutive sequence numbers from `first` as one block.
///
/// The caller keeps within [`BLOCK_RECORDS_MAX`]; sizes are checked by whoever receives the block.
pub fn encode(first: Seq, items: &[Item]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + items.len() * 12);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    put_varint(&mut out, first.0);
    put_varint(&mut out, items.len() as u64);
    let others = items.iter().filter(|item| matches!(item, Item::Other(_))).count();
    put_varint(&mut out, others as u64);
    let mut since = 0;
    for item in items {
        match item {
            Item::Sample(_) => since += 1,
            Item::Other(bytes) => {
                put_varint(&mut out, since);
                put_varint(&mut out, bytes.len() as u64);
                out.extend_from_slice(bytes);
                since = 0;
            }
        }
    }
    let samples: Vec<&Sample> = items
        .iter()
        .filter_map(|item| match item {
            Item::Sample(sample) => Some(sample),
            Item::Other(_) => None,
        })
        .collect();
    if !samples.is_empty() {
        encode_samples(&mut out, &samples);
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn encode_samples(out: &mut Vec<u8>, samples: &[&Sample]) {
    let mut checks: Vec<u32> = samples.iter().map(|s| s.check.0).collect();
    checks.sort_unstable();
    checks.dedup();
    put_varint(out, checks.len() as u64);
    let mut previous = -1_i64;
    for check in &checks {
        put_varint(out, (i64::from(*check) - previous - 1).unsigned_abs());
        previous = i64::from(*check);
    }
    let shapes: Vec<Shape> = samples.iter().map(|s| Shape::of(s)).collect();
    let mut outcomes = shapes.clone();
    outcomes.sort_unstable();
    outcomes.dedup();
    put_varint(out, outcomes.len() as u64);
    for shape in &outcomes {
        shape.write(out);
    }
    let mut model = Model::new(checks.len());
    let mut bits = BitWriter::default();
    for (sample, shape) in samples.iter().zip(&shapes) {
        let check = checks.partition_point(|no| *no < sample.check.0);
        let outcome = outcomes.partition_point(|known| known < shape);
        model.put_index(&mut bits, check, outcome, outcomes.len());
        let context = &mut model.checks[check];
        context.time.put(&mut bits, &mut model.time, sample.scheduled_at.0);
        context.delay.put(&mut bits, &mut model.delay, sample.delay.0);
        let phases = sample.phases.to_array();
        for (at, phase) in phases.iter().enumerate() {
            if let Some(phase) = phase {
                context.phases[at].put(&mut bits, &mut model.phases[at], i64::from(phase.0));
            }
        }
    }
    let bits = bits.finish();
    put_varint(out, bits.len() as u64);
    out.extend_from_slice(&bits);
}

// ---------------------------------------------------------------- decode

/// Reads a block back, checking everything: magic, version, checksum, counts, codes and that nothing
/// is left over.
///
/// # Errors
/// [`BlockError`]; never panics, and never allocates more than a small multiple of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Block, BlockError> {
    let mut input = open(bytes)?;
    let first = input.varint().ok_or(BlockError::Malformed("first sequence"))?;
    let count = input.count(BLOCK_RECORDS_MAX).ok_or(BlockError::Malformed("record count"))?;
    let others = input.count(count).ok_or(BlockError::Malformed("count of other records"))?;
    if first == 0 || count == 0 || first.checked_add(count as u64).is_none() {
        return Err(BlockError::Malformed("sequence range"));
    }
    let mut embedded = Vec::with_capacity(others.min(bytes.len()));
    let mut samples = count - others;
    for _ in 0..others {
        let since = input.count(samples).ok_or(BlockError::Malformed("place of a record"))?;
        samples -= since;
        let length = input.count(BLOCK_BYTES_MAX).ok_or(BlockError::Malformed("length of a record"))?;
        embedded.push((since, input.bytes(length).ok_or(BlockError::Malformed("record cut short"))?));
    }
    let mut columns = Columns::open(&mut input, count - others)?;
    let mut items = Vec::with_capacity(count.min(bytes.len() * 8));
    for (since, other) in embedded {
        for _ in 0..since {
            items.push(Item::Sample(columns.next()?));
        }
        items.push(Item::Other(other.to_vec()));
    }
    for _ in 0..samples {
        items.push(Item::Sample(columns.next()?));
    }
    columns.finish()?;
    if !input.0.is_empty() {
        return Err(BlockError::Malformed("bytes after the columns"));
    }
    Ok(Block { first: Seq(first), items })
}

/// First sequence and number of records, after the checksum: what ingest needs before it stores.
///
/// # Errors
/// [`BlockError`] as [`decode`], for the header only.
pub fn header(bytes: &[u8]) -> Result<(Seq, usize), BlockError> {
    let mut input = open(bytes)?;
    let first = input.varint().filter(|first| *first > 0).ok_or(BlockError::Malformed("first sequence"))?;
    let count = input.count(BLOCK_RECORDS_MAX).filter(|count| *count > 0);
    Ok((Seq(first), count.ok_or(BlockError::Malformed("record count"))?))
}

fn open(bytes: &[u8]) -> Result<Input<'_>, BlockError> {
    if bytes.len() > BLOCK_BYTES_MAX {
        return Err(BlockError::TooLong(bytes.len()));
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or(BlockError::Magic)?;
    let (version, _) = rest.split_first().ok_or(BlockError::Magic)?;
    if *version != VERSION {
        return Err(BlockError::Version(*version));
    }
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(BlockError::Checksum)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(BlockError::Checksum);
    }
    body.get(MAGIC.len() + 1..).map(Input).ok_or(BlockError::Malformed("header"))
}

/// The sample columns of a block being read.
struct Columns<'b> {
    checks: Vec<u32>,
    outcomes: Vec<(Outcome, u8)>,
    bits: BitReader<'b>,
    model: Model,
}

impl<'b> Columns<'b> {
    fn open(input: &mut Input<'b>, samples: usize) -> Result<Self, BlockError> {
        if samples == 0 {
            return Ok(Self { checks: vec![], outcomes: vec![], bits: BitReader::new(&[]), model: Model::new(0) });
        }
        let count = input.count(samples).filter(|c| *c > 0).ok_or(BlockError::Malformed("check count"))?;
        let mut checks = Vec::with_capacity(count.min(input.0.len()));
        let mut next = 0_u64;
        for _ in 0..count {
            next = input.varint().and_then(|d| d.checked_add(next)).ok_or(BlockError::Malformed("check number"))?;
            checks.push(u32::try_from(next).map_err(|_| BlockError::Malformed("check number"))?);
            next += 1;
        }
        let count = input.count(samples).filter(|c| *c > 0).ok_or(BlockError::Malformed("outcome count"))?;
        let mut outcomes = Vec::with_capacity(count.min(input.0.len()));
        for _ in 0..count {
            outcomes.push(Shape::read(input).and_then(Shape::open).ok_or(BlockError::Malformed("outcome"))?);
        }
        let length = input.count(BLOCK_BYTES_MAX).ok_or(BlockError::Malformed("length of the columns"))?;
        let bits = input.bytes(length).ok_or(BlockError::Malformed("columns cut short"))?;
        // Every sample takes at least four bits, so a short stream cannot ask for much memory.
        if samples > length * 2 {
            return Err(BlockError::Malformed("more samples than the columns hold"));
        }
        let model = Model::new(checks.len());
        Ok(Self { checks, outcomes, bits: BitReader::new(bits), model })
    }

    fn next(&mut self) -> Result<Sample, BlockError> {
        let Self { checks, outcomes, bits, model } = self;
        let (check, outcome) =
            model.get_index(bits, checks.len(), outcomes.len()).ok_or(BlockError::Malformed("index"))?;
        let (outcome, mask) = outcomes[outcome];
        let context = &mut model.checks[check];
        let scheduled = context.time.get(bits, &mut model.time);
        let delay = context.delay.get(bits, &mut model.delay);
        let mut phases = [None; 5];
        for (at, phase) in phases.iter_mut().enumerate() {
            if mask & (1 << at) != 0 {
                let value = context.phases[at].get(bits, &mut model.phases[at]);
                *phase = Some(Micros(u32::try_from(value).map_err(|_| BlockError::Malformed("phase"))?));
            }
        }
        if bits.overrun() {
            return Err(BlockError::Malformed("columns end early"));
        }
        Ok(Sample {
            check: CheckNo(checks[check]),
            scheduled_at: UtcTime(scheduled),
            delay: Millis(delay),
            outcome,
            phases: Phases::from_array(phases),
        })
    }

    fn finish(&self) -> Result<(), BlockError> {
        if self.bits.left_over() { Err(BlockError::Malformed("bits after the last sample")) } else { Ok(()) }
    }
}

// ---------------------------------------------------------------- outcomes

/// An outcome with its phase mask: one entry of the dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    tag: u8,
    reason: u8,
    code: u16,
    mask: u8,
}

impl Shape {
    fn of(sample: &Sample) -> Self {
        let mask =
            (0..5).zip(sample.phases.to_array()).fold(0, |mask, (at, phase)| mask | (u8::from(phase.is_some()) << at));
        let (tag, reason, code) = match sample.outcome {
            Outcome::Up { code } => (0, 0, code),
            Outcome::Failed { kind, code } => (1, kind.code(), code),
            Outcome::NotRun(why) => (2, why.code(), 0),
        };
        Self { tag, reason, code, mask }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.tag);
        out.push(self.reason);
        put_varint(out, u64::from(self.code));
        out.push(self.mask);
    }

    fn read(input: &mut Input<'_>) -> Option<Self> {
        let tag = input.byte()?;
        let reason = input.byte()?;
        let code = u16::try_from(input.varint()?).ok()?;
        Some(Self { tag, reason, code, mask: input.byte()? })
    }

    /// Codes this program does not know are refused: a newer agent meets an older collector only with
    /// a new block version.
    fn open(self) -> Option<(Outcome, u8)> {
        let outcome = match (self.tag, self.reason, self.code) {
            (0, 0, code) => Outcome::Up { code },
            (1, kind, code) => Outcome::Failed { kind: FailureKind::from_code(kind)?, code },
            (2, why, 0) => Outcome::NotRun(NotRun::from_code(why)?),
            _ => return None,
        };
        (self.mask < 32).then_some((outcome, self.mask))
    }
}
