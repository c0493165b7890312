//! What a day was made of, and the records that are no samples.
//!
//! The digest is the sum, modulo 2^256, of one SHA-256 per block: over the block's epoch, its first sequence number, how
//! many leading records were passed over, and its bytes. A sum does not depend on the order or the portions in which
//! blocks come, and the numbers inside tie each block to its place. It answers "are these the blocks the day was made
//! of?" against mistakes, mix-ups and damage. Against somebody who may choose the content of billions of blocks a sum
//! of hashes is weaker than a hash; such a person owns the agent and needs no collision.
//!
//! A block that speaks about several days is in the ledger of each.
//!
//! Other records are deflated: those of one kind repeat most of their bytes all day, and as they came they would take
//! more room than all samples (figures in `benches/README.md`).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use ring::digest::{Context, SHA256};

use super::super::bits::{Input, put_varint};
use super::{DAY_BYTES_MAX, DayError, REST_BYTES_MAX, THE_REST, begin, seal};
use crate::ids::{Epoch, Seq};
use crate::time::UtcDay;

/// The records of one agent and day that are no samples, and what all blocks of the day came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Which day.
    pub day: UtcDay,
    /// Blocks that had records of this day.
    pub blocks: u64,
    /// Records of this day, samples included.
    pub records: u64,
    /// Sum over the blocks, see the top of this file.
    pub digest: [u8; 32],
    /// Where in each epoch the blocks were.
    pub streams: BTreeMap<Epoch, Span>,
    /// Other records as they came (`peil.v1.Record`), by their number.
    pub others: BTreeMap<(Epoch, Seq), Vec<u8>>,
}

/// The part of an epoch that the blocks of a day lie in. Other days may have records between its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where the first of its blocks stood in the order of storing: tells which epoch came before which.
    pub place: u64,
    /// First record of the first block.
    pub first: Seq,
    /// Last record of the last block.
    pub last: Seq,
}

impl Span {
    fn joined(self, other: Self) -> Self {
        Self { place: self.place.min(other.place), first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

impl Ledger {
    /// Of a day nothing is known about yet.
    pub fn new(day: UtcDay) -> Self {
        Self { day, ..Self::default() }
    }

    /// Enters a block. Its records are entered apart.
    pub fn enter(&mut self, epoch: Epoch, span: Span, skip: u32, bytes: &[u8]) {
        let mut hash = Context::new(&SHA256);
        hash.update(&epoch.0.to_le_bytes());
        hash.update(&span.first.0.to_le_bytes());
        hash.update(&skip.to_le_bytes());
        hash.update(bytes);
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        self.blocks = self.blocks.saturating_add(1);
        self.add_digest(digest);
        self.join(epoch, span);
    }

    /// Takes in what another ledger of the same day says: of other blocks, for blocks entered twice count twice.
    pub fn absorb(&mut self, other: Self) {
        self.blocks = self.blocks.saturating_add(other.blocks);
        self.records = self.records.saturating_add(other.records);
        self.add_digest(other.digest);
        for (epoch, span) in other.streams {
            self.join(epoch, span);
        }
        self.others.extend(other.others);
    }

    /// The other records in the order they were stored in: epoch after epoch, by number in each.
    pub fn in_order(&self) -> impl Iterator<Item = &Vec<u8>> {
        let of_epoch =
            |epoch: Epoch| self.others.range((epoch, Seq(0))..=(epoch, Seq(u64::MAX))).map(|(_, bytes)| bytes);
        self.epochs().into_iter().flat_map(of_epoch)
    }

    fn epochs(&self) -> Vec<Epoch> {
        let mut epochs: Vec<_> = self.streams.iter().map(|(epoch, span)| (span.place, *epoch)).collect();
        epochs.sort_unstable();
        epochs.into_iter().map(|(_, epoch)| epoch).collect()
    }

    fn join(&mut self, epoch: Epoch, span: Span) {
        self.streams.entry(epoch).and_modify(|known| *known = known.joined(span)).or_insert(span);
    }

    fn add_digest(&mut self, other: [u8; 32]) {
        let mut carry = false;
        for (byte, more) in self.digest.iter_mut().zip(other) {
            let (sum, over) = byte.overflowing_add(more);
            let (sum, over_again) = sum.overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, over || over_again);
        }
    }

    /// Writes the ledger as a block.
    ///
    /// # Errors
    /// [`DayError::TooLong`], [`DayError::TooMuch`]; [`DayError::Malformed`] for a record of an epoch whose blocks were not entered.
    pub fn encode(&self) -> Result<Vec<u8>, DayError> {
        let mut out = begin(THE_REST, self.day);
        put_varint(&mut out, self.blocks);
        put_varint(&mut out, self.records);
        out.extend_from_slice(&self.digest);
        let epochs = self.epochs();
        put_varint(&mut out, epochs.len() as u64);
        for epoch in &epochs {
            let span = self.streams[epoch];
            out.extend_from_slice(&epoch.0.to_le_bytes());
            put_varint(&mut out, span.place);
            put_varint(&mut out, span.first.0);
            put_varint(&mut out, span.last.0.saturating_sub(span.first.0));
        }
        put_varint(&mut out, self.others.len() as u64);
        let others = self.others_in_a_row(&epochs)?;
        put_varint(&mut out, others.len() as u64);
        deflate(&mut out, &others)?;
        seal(out)
    }

    fn others_in_a_row(&self, epochs: &[Epoch]) -> Result<Vec<u8>, DayError> {
        let mut out = Vec::new();
        for ((epoch, seq), bytes) in &self.others {
            let number = epochs.iter().position(|known| known == epoch);
            put_varint(&mut out, number.ok_or(DayError::Malformed("a record of an unknown epoch"))? as u64);
            put_varint(&mut out, seq.0);
            put_varint(&mut out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        if out.len() > REST_BYTES_MAX { Err(DayError::TooMuch(out.len())) } else { Ok(out) }
    }

    pub(super) fn read(day: UtcDay, input: &mut Input<'_>) -> Result<Self, DayError> {
        let mut ledger = Self::new(day);
        ledger.blocks = input.varint().ok_or(DayError::Malformed("count of blocks"))?;
        ledger.records = input.varint().ok_or(DayError::Malformed("count of records"))?;
        let digest = input.bytes(32).and_then(|bytes| bytes.first_chunk::<32>());
        ledger.digest = *digest.ok_or(DayError::Malformed("digest"))?;
        let mut epochs = Vec::new();
        for _ in 0..input.count(DAY_BYTES_MAX).ok_or(DayError::Malformed("count of epochs"))? {
            let (epoch, span) = read_span(input).ok_or(DayError::Malformed("epoch"))?;
            ledger.streams.insert(epoch, span);
            epochs.push(epoch);
        }
        let count = input.count(REST_BYTES_MAX).ok_or(DayError::Malformed("count of other records"))?;
        let length = input.varint().and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
        if length > REST_BYTES_MAX {
            return Err(DayError::TooMuch(length));
        }
        let others = inflate(input, length).ok_or(DayError::Malformed("deflated records"))?;
        let mut rest = Input(&others);
        for _ in 0..count {
            let number = rest.count(epochs.len()).and_then(|number| epochs.get(number));
            let epoch = *number.ok_or(DayError::Malformed("epoch of a record"))?;
            let seq = Seq(rest.varint().ok_or(DayError::Malformed("sequence of a record"))?);
            let length = rest.count(REST_BYTES_MAX).ok_or(DayError::Malformed("length of a record"))?;
            let bytes = rest.bytes(length).ok_or(DayError::Malformed("record cut short"))?;
            ledger.others.insert((epoch, seq), bytes.to_vec());
        }
        if !rest.0.is_empty() {
            return Err(DayError::Malformed("bytes after the last record"));
        }
        Ok(ledger)
    }
}

fn deflate(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), DayError> {
    let mut deflating = DeflateEncoder::new(out, Compression::default());
    let done = deflating.write_all(bytes).and_then(|()| deflating.finish().map(drop));
    done.map_err(|_| DayError::Malformed("records that cannot be deflated"))
}

/// All that is left of `input`, which must be `length` bytes deflated and nothing else.
fn inflate(input: &mut Input<'_>, length: usize) -> Option<Vec<u8>> {
    let mut inflating = DeflateDecoder::new(input.0);
    let mut bytes = Vec::new();
    inflating.by_ref().take(length as u64 + 1).read_to_end(&mut bytes).ok()?;
    input.bytes(usize::try_from(inflating.total_in()).ok()?)?;
    (bytes.len() == length).then_some(bytes)
}

fn read_span(input: &mut Input<'_>) -> Option<(Epoch, Span)> {
    let epoch = Epoch(u64::from_le_bytes(*input.bytes(8)?.first_chunk::<8>()?));
    let place = input.varint()?;
    let first = input.varint()?;
    let last = input.varint()?.checked_add(first)?;
    Some((epoch, Span { place, first: Seq(first), last: Seq(last) }))
}
