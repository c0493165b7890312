//! Buckets of numbers and the prefix code over them: how a column of noise comes close to its entropy.
//!
//! A number falls into a bucket of its octave: the octave's `2^precision` equal parts. The bucket is written in a
//! code whose lengths follow from how often each bucket occurs (Huffman), the place within the bucket as it is.
//! With some thirty buckets to a column the noise within one is as good as flat, so little is lost; and what the
//! buckets look like costs a few dozen bytes, once a day.
//!
//! Lengths are at most [`LENGTH_MAX`], so that a reader needs one look into a table of 2048 places.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::bits::{BitReader, BitWriter};

/// The finest split of an octave, as a power of two.
pub(super) const PRECISION_MAX: u32 = 5;
/// Bits of the longest code. 2^11 codes are enough for all buckets of the finest split.
const LENGTH_MAX: u32 = 11;
/// Buckets that 64-bit numbers can fall into at the finest split, rounded up.
const SYMBOLS_MAX: usize = 1 << LENGTH_MAX;

/// The bucket of `value` and how many bits tell the place in it.
fn bucket(value: u64, precision: u32) -> (usize, u32) {
    if value < 1 << precision {
        return (usize::from(low_16(value)), 0);
    }
    let rest = 63 - value.leading_zeros() - precision;
    let part = low_16((value >> rest) - (1 << precision));
    (((rest as usize + 1) << precision) + usize::from(part), rest)
}

/// The lowest value in a bucket and how many bits tell the place in it; `None` for a bucket that none falls into.
fn opened(symbol: usize, precision: u32) -> Option<(u64, u32)> {
    if symbol < 1 << precision {
        return Some((symbol as u64, 0));
    }
    let rest = u32::try_from(symbol >> precision).ok()? - 1;
    if rest + precision > 63 {
        return None;
    }
    let part = symbol & ((1 << precision) - 1);
    Some((((part | 1 << precision) as u64) << rest, rest))
}

/// Buckets have small numbers.
fn low_16(value: u64) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// A code for the values of one column.
pub(super) struct Code {
    precision: u32,
    lowest: usize,
    /// Length per bucket from `lowest` on; 0 for one that does not occur.
    lengths: Vec<u32>,
    /// What everything takes, the lengths themselves included.
    bits: u64,
}

impl Code {
    /// The code for `values` with the fewest bits; `None` when there are no values.
    pub(super) fn best(values: &[u64]) -> Option<Self> {
        (0..=PRECISION_MAX).filter_map(|precision| Self::of(values, precision)).min_by_key(|code| code.bits)
    }

    fn of(values: &[u64], precision: u32) -> Option<Self> {
        let mut counts = vec![0_u64; SYMBOLS_MAX];
        let mut rests = 0_u64;
        for value in values {
            let (symbol, rest) = bucket(*value, precision);
            counts[symbol] += 1;
            rests += u64::from(rest);
        }
        let lowest = counts.iter().position(|count| *count > 0)?;
        let highest = counts.iter().rposition(|count| *count > 0)?;
        let counts = &counts[lowest..=highest];
        let lengths = lengths(counts);
        let codes: u64 = counts.iter().zip(&lengths).map(|(count, length)| count * u64::from(*length)).sum();
        let mut head = BitWriter::default();
        put_lengths(&mut head, &lengths);
        let bits = codes + rests + 8 * head.out.len() as u64 + u64::from(head.filled);
        Some(Self { precision, lowest, lengths, bits })
    }

    pub(super) fn precision(&self) -> u32 {
        self.precision
    }

    pub(super) fn lowest(&self) -> usize {
        self.lowest
    }

    pub(super) fn buckets(&self) -> usize {
        self.lengths.len()
    }

    pub(super) fn bits(&self) -> u64 {
        self.bits
    }

    /// The lengths and the values as bytes.
    pub(super) fn write(&self, values: &[u64]) -> Vec<u8> {
        let mut bits = BitWriter::default();
        put_lengths(&mut bits, &self.lengths);
        let codes = codes(&self.lengths);
        for value in values {
            let (symbol, rest) = bucket(*value, self.precision);
            let at = symbol - self.lowest;
            bits.put(codes[at], self.lengths[at]);
            if rest > 0 {
                bits.put_wide(value & ((1 << rest) - 1), rest);
            }
        }
        bits.finish()
    }
}

/// Reads `count` values written by [`Code::write`]; `None` when the bits are no such column.
pub(super) fn read(
    bits: &mut BitReader<'_>,
    precision: u32,
    lowest: usize,
    buckets: usize,
    count: usize,
) -> Option<Vec<u64>> {
    let lengths = get_lengths(bits, buckets)?;
    let longest = lengths.iter().copied().max().filter(|longest| *longest > 0)?;
    let mut table = vec![None; 1 << longest];
    for (at, (length, code)) in lengths.iter().zip(codes(&lengths)).enumerate().filter(|(_, (length, _))| **length > 0)
    {
        let (base, rest) = opened(lowest + at, precision)?;
        let from = usize::try_from(code).ok()? << (longest - length);
        // Lengths that no code can have would reach past the end.
        table.get_mut(from..from + (1 << (longest - length)))?.fill(Some(Entry { base, rest, length: *length }));
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let place = usize::try_from(bits.peek() >> (64 - longest)).ok()?;
        let entry = table.get(place)?.as_ref()?;
        bits.at_bit += entry.length as usize;
        values.push(entry.base | if entry.rest == 0 { 0 } else { bits.get_wide(entry.rest) });
    }
    if bits.overrun() { None } else { Some(values) }
}

#[derive(Clone)]
struct Entry {
    base: u64,
    rest: u32,
    length: u32,
}

/// Lengths of the shortest prefix code for symbols that occur so often; ties are broken by place, so the same counts
/// give the same code everywhere.
fn lengths(counts: &[u64]) -> Vec<u32> {
    let mut weights = counts.to_vec();
    loop {
        let lengths = huffman(&weights);
        if lengths.iter().all(|length| *length <= LENGTH_MAX) {
            return lengths;
        }
        // Flatter weights give shorter codes; equal ones at last, which fit.
        for weight in weights.iter_mut().filter(|weight| **weight > 0) {
            *weight = *weight / 2 + 1;
        }
    }
}

fn huffman(weights: &[u64]) -> Vec<u32> {
    // Leaves first, then inner nodes in the order of their making: a parent always stands after its children.
    let mut parents = vec![usize::MAX; weights.len()];
    let occurring = weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
    let mut heap: BinaryHeap<_> = occurring.map(|(at, weight)| Reverse((*weight, at))).collect();
    let mut depths = vec![0; weights.len()];
    if let (1, Some(Reverse((_, only)))) = (heap.len(), heap.peek()) {
        depths[*only] = 1;
        return depths;
    }
    while let (Some(Reverse((light, a))), Some(Reverse((heavy, b)))) = (heap.pop(), heap.pop()) {
        let node = parents.len();
        parents.push(usize::MAX);
        (parents[a], parents[b]) = (node, node);
        heap.push(Reverse((light + heavy, node)));
        if heap.len() == 1 {
            break;
        }
    }
    depths.resize(parents.len(), 0);
    for at in (0..parents.len()).rev() {
        if let Some(above) = depths.get(parents[at]) {
            depths[at] = above + 1;
        }
    }
    depths.truncate(weights.len());
    depths
}

/// The codes that follow from lengths alone: shorter first, then in order of place.
fn codes(lengths: &[u32]) -> Vec<u64> {
    let mut next = [0_u64; LENGTH_MAX as usize + 2];
    for length in 1..=LENGTH_MAX {
        let of_length = lengths.iter().filter(|known| **known == length).count() as u64;
        next[length as usize + 1] = (next[length as usize] + of_length) << 1;
    }
    let assign = |length: &u32| {
        let code = next[*length as usize];
        next[*length as usize] += 1;
        code
    };
    lengths.iter().map(assign).collect()
}

/// Four bits each; after a 0 four bits more: how many further zeros follow.
fn put_lengths(bits: &mut BitWriter, lengths: &[u32]) {
    let mut at = 0;
    while let Some(length) = lengths.get(at) {
        bits.put(u64::from(*length), 4);
        at += 1;
        if *length == 0 {
            let more = lengths[at..].iter().take(15).take_while(|length| **length == 0).count();
            bits.put(more as u64, 4);
            at += more;
        }
    }
}

fn get_lengths(bits: &mut BitReader<'_>, buckets: usize) -> Option<Vec<u32>> {
    let mut lengths = Vec::with_capacity(buckets.min(SYMBOLS_MAX));
    while lengths.len() < buckets {
        let length = u32::try_from(bits.get(4)).ok().filter(|length| *length <= LENGTH_MAX)?;
        lengths.push(length);
        if length == 0 {
            let more = usize::try_from(bits.get(4)).ok()?;
            lengths.resize(lengths.len() + more, 0);
        }
    }
    (lengths.len() == buckets && !bits.overrun()).then_some(lengths)
}

/// Buckets a column may have: what a reader believes at most.
pub(super) const fn buckets_max() -> usize {
    SYMBOLS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_bucket_and_found_there() {
        let powers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in powers.chain([u64::MAX, u64::MAX - 1, 12_345]) {
            for precision in 0..=PRECISION_MAX {
                let (symbol, rest) = bucket(value, precision);
                let (base, width) = opened(symbol, precision).expect("a bucket");
                assert!(symbol < SYMBOLS_MAX && width == rest, "{value} at {precision}");
                assert!(base <= value && (value - base) >> rest == 0, "{value} at {precision}");
            }
        }
    }

    #[test]
    fn a_code_is_never_longer_than_the_table_of_its_reader() {
        // Weights like Fibonacci's numbers make the deepest tree there is.
        let (mut a, mut b) = (1_u64, 1_u64);
        let counts: Vec<u64> = (0..60)
            .map(|_| {
                (a, b) = (b, a + b);
                a
            })
            .collect();
        let lengths = lengths(&counts);
        assert!(lengths.iter().all(|length| (1..=LENGTH_MAX).contains(length)), "{lengths:?}");
        let kraft: u64 = lengths.iter().map(|length| 1 << (LENGTH_MAX - length)).sum();
        assert!(kraft <= 1 << LENGTH_MAX, "{lengths:?}");
    }
}
