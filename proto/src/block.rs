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
        out.push(shape.tag);
        out.push(shape.reason);
        put_varint(out, u64::from(shape.code));
        out.push(shape.mask);
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

// ---------------------------------------------------------------- prediction

/// What both sides know after each sample; they must move in step.
struct Model {
    checks: Vec<CheckContext>,
    previous: usize,
    time: TimeColumn,
    delay: Column,
    phases: [Column; 5],
}

#[derive(Clone, Default)]
struct CheckContext {
    follower: usize,
    outcome: usize,
    time: TimeContext,
    delay: Context,
    phases: [Context; 5],
}

impl Model {
    fn new(checks: usize) -> Self {
        Self {
            checks: vec![CheckContext::default(); checks],
            previous: 0,
            time: TimeColumn::default(),
            delay: Column::default(),
            phases: Default::default(),
        }
    }

    fn put_index(&mut self, bits: &mut BitWriter, check: usize, outcome: usize, outcomes: usize) {
        bits.put_or(check, self.checks[self.previous].follower, self.checks.len());
        bits.put_or(outcome, self.checks[check].outcome, outcomes);
        self.settle(check, outcome);
    }

    fn get_index(&mut self, bits: &mut BitReader<'_>, checks: usize, outcomes: usize) -> Option<(usize, usize)> {
        let check = bits.get_or(self.checks[self.previous].follower, checks)?;
        let outcome = bits.get_or(self.checks[check].outcome, outcomes)?;
        self.settle(check, outcome);
        Some((check, outcome))
    }

    fn settle(&mut self, check: usize, outcome: usize) {
        self.checks[self.previous].follower = check;
        self.checks[check].outcome = outcome;
        self.previous = check;
    }
}

/// Recent size of residuals, from which the Rice parameter follows.
#[derive(Clone)]
struct Spread {
    sum: u64,
    count: u64,
}

impl Default for Spread {
    /// Starts as if one residual of 16 had been seen.
    fn default() -> Self {
        Self { sum: 16, count: 1 }
    }
}

impl Spread {
    fn parameter(&self) -> u32 {
        let mean = self.sum / self.count;
        (64 - mean.leading_zeros()).min(62)
    }

    fn learn(&mut self, coded: u64) {
        self.sum = self.sum.saturating_add(coded / 2);
        self.count += 1;
        if self.count == 16 {
            self.sum /= 2;
            self.count /= 2;
        }
    }
}

/// Block-wide state of a column: predicts the first value of each context.
#[derive(Default)]
struct Column {
    last: i64,
    first: Spread,
    spread: Spread,
}

/// State of one (check, column).
#[derive(Clone, Default)]
struct Context {
    mean: Option<i64>,
    spread: Option<Spread>,
}

impl Context {
    fn put(&mut self, bits: &mut BitWriter, column: &mut Column, value: i64) {
        match self.mean {
            None => bits.put_residual(&mut column.first, value.wrapping_sub(column.last)),
            Some(mean) => {
                bits.put_residual(self.spread.get_or_insert_with(|| column.spread.clone()), value.wrapping_sub(mean));
            }
        }
        self.settle(column, value);
    }

    fn get(&mut self, bits: &mut BitReader<'_>, column: &mut Column) -> i64 {
        let value = match self.mean {
            None => bits.get_residual(&mut column.first).wrapping_add(column.last),
            Some(mean) => {
                bits.get_residual(self.spread.get_or_insert_with(|| column.spread.clone())).wrapping_add(mean)
            }
        };
        self.settle(column, value);
        value
    }

    fn settle(&mut self, column: &mut Column, value: i64) {
        column.last = value;
        if let Some(spread) = &self.spread {
            column.spread = spread.clone();
        }
        self.mean = Some(self.mean.map_or(value, |mean| mean.wrapping_add(value.wrapping_sub(mean) / 4)));
    }
}

/// Block-wide state of the time column.
#[derive(Default)]
struct TimeColumn {
    last: i64,
    step: i64,
    first: Spread,
    second: Spread,
    spread: Spread,
}

/// Time of one check: the next tick is the last one plus the last step.
#[derive(Clone, Default)]
struct TimeContext {
    last: Option<i64>,
    step: Option<i64>,
}

impl TimeContext {
    fn predict<'c>(&self, column: &'c mut TimeColumn) -> (i64, &'c mut Spread) {
        match (self.last, self.step) {
            (None, _) => (column.last, &mut column.first),
            (Some(last), None) => (last.wrapping_add(column.step), &mut column.second),
            (Some(last), Some(step)) => (last.wrapping_add(step), &mut column.spread),
        }
    }

    fn put(&mut self, bits: &mut BitWriter, column: &mut TimeColumn, value: i64) {
        let (predicted, spread) = self.predict(column);
        bits.put_residual(spread, value.wrapping_sub(predicted));
        self.settle(column, value);
    }

    fn get(&mut self, bits: &mut BitReader<'_>, column: &mut TimeColumn) -> i64 {
        let (predicted, spread) = self.predict(column);
        let value = bits.get_residual(spread).wrapping_add(predicted);
        self.settle(column, value);
        value
    }

    fn settle(&mut self, column: &mut TimeColumn, value: i64) {
        if let Some(last) = self.last {
            column.step = value.wrapping_sub(last);
            self.step = Some(column.step);
        }
        self.last = Some(value);
        column.last = value;
    }
}

// ---------------------------------------------------------------- bits and bytes

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

fn index_width(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(coded: u64) -> i64 {
    (coded >> 1).cast_signed() ^ -((coded & 1).cast_signed())
}

/// Bytes still to be read.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn bytes(&mut self, length: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn count(&mut self, max: usize) -> Option<usize> {
        usize::try_from(self.varint()?).ok().filter(|count| *count <= max)
    }
}

#[derive(Default)]
struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    filled: u32,
}

impl BitWriter {
    /// Appends the lowest `width` (≤ 32) bits of `value`.
    fn put(&mut self, value: u64, width: u32) {
        self.pending = (self.pending << width) | (value & ((1 << width) - 1));
        self.filled += width;
        while self.filled >= 8 {
            self.filled -= 8;
            self.out.push(low_byte(self.pending >> self.filled));
        }
    }

    fn put_wide(&mut self, value: u64, width: u32) {
        if width > 32 {
            self.put(value >> 32, width - 32);
        }
        self.put(value, width.min(32));
    }

    fn put_or(&mut self, value: usize, guess: usize, count: usize) {
        self.put(u64::from(value == guess), 1);
        if value != guess {
            self.put(value as u64, index_width(count));
        }
    }

    fn put_residual(&mut self, spread: &mut Spread, residual: i64) {
        let coded = zigzag(residual);
        let parameter = spread.parameter();
        let quotient = coded >> parameter;
        if let Some(ones) = u32::try_from(quotient).ok().filter(|ones| *ones < ESCAPE) {
            self.put((1 << (ones + 1)) - 2, ones + 1);
            self.put_wide(coded & ((1 << parameter) - 1), parameter);
        } else {
            self.put((1 << ESCAPE) - 1, ESCAPE);
            self.put_wide(coded, 64);
        }
        spread.learn(coded);
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            let pad = 8 - self.filled;
            self.put(0, pad);
        }
        self.out
    }
}

/// Reads most significant bit first; past the end come zeros, which `overrun` reports.
struct BitReader<'b> {
    bytes: &'b [u8],
    at_bit: usize,
}

impl<'b> BitReader<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at_bit: 0 }
    }

    /// The next 64 bits less the few before the byte boundary: at least 57 are good.
    fn peek(&self) -> u64 {
        let at = self.at_bit / 8;
        let word = match self.bytes.get(at..at + 8).and_then(|b| b.first_chunk::<8>()) {
            Some(chunk) => u64::from_be_bytes(*chunk),
            None => {
                let mut tail = [0; 8];
                let rest = self.bytes.get(at..).unwrap_or(&[]);
                tail[..rest.len()].copy_from_slice(rest);
                u64::from_be_bytes(tail)
            }
        };
        word << (self.at_bit % 8)
    }

    /// The next `width` (≤ 32) bits.
    fn get(&mut self, width: u32) -> u64 {
        let value = if width == 0 { 0 } else { self.peek() >> (64 - width) };
        self.at_bit += width as usize;
        value
    }

    fn get_wide(&mut self, width: u32) -> u64 {
        let high = if width > 32 { self.get(width - 32) << 32 } else { 0 };
        high | self.get(width.min(32))
    }

    fn get_or(&mut self, guess: usize, count: usize) -> Option<usize> {
        if self.get(1) == 1 {
            return Some(guess);
        }
        usize::try_from(self.get(index_width(count))).ok().filter(|index| *index < count)
    }

    fn get_residual(&mut self, spread: &mut Spread) -> i64 {
        let parameter = spread.parameter();
        let ones = self.peek().leading_ones().min(ESCAPE);
        let coded = if ones < ESCAPE {
            self.at_bit += ones as usize + 1;
            (u64::from(ones) << parameter) | self.get_wide(parameter)
        } else {
            self.at_bit += ESCAPE as usize;
            self.get_wide(64)
        };
        spread.learn(coded);
        unzigzag(coded)
    }

    fn overrun(&self) -> bool {
        self.at_bit > self.bytes.len() * 8
    }

    fn left_over(&self) -> bool {
        self.at_bit.div_ceil(8) < self.bytes.len()
    }
}

#[cfg(test)]
mod tests;
