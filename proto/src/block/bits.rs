//! Bits and bytes: varints, zig-zag, Rice codes, and readers that never look past the end.

use super::ESCAPE;
use super::prediction::Spread;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

pub(super) fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

pub(super) fn index_width(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(coded: u64) -> i64 {
    (coded >> 1).cast_signed() ^ -((coded & 1).cast_signed())
}

/// Bytes still to be read.
pub(super) struct Input<'b>(pub(super) &'b [u8]);

impl<'b> Input<'b> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(super) fn bytes(&mut self, length: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
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

    pub(super) fn count(&mut self, max: usize) -> Option<usize> {
        usize::try_from(self.varint()?).ok().filter(|count| *count <= max)
    }
}

#[derive(Default)]
pub(super) struct BitWriter {
    pub(super) out: Vec<u8>,
    pub(super) pending: u64,
    pub(super) filled: u32,
}

impl BitWriter {
    /// Appends the lowest `width` (≤ 32) bits of `value`.
    pub(super) fn put(&mut self, value: u64, width: u32) {
        self.pending = (self.pending << width) | (value & ((1 << width) - 1));
        self.filled += width;
        while self.filled >= 8 {
            self.filled -= 8;
            self.out.push(low_byte(self.pending >> self.filled));
        }
    }

    pub(super) fn put_wide(&mut self, value: u64, width: u32) {
        if width > 32 {
            self.put(value >> 32, width - 32);
        }
        self.put(value, width.min(32));
    }

    pub(super) fn put_or(&mut self, value: usize, guess: usize, count: usize) {
        self.put(u64::from(value == guess), 1);
        if value != guess {
            self.put(value as u64, index_width(count));
        }
    }

    pub(super) fn put_residual(&mut self, spread: &mut Spread, residual: i64) {
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

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            let pad = 8 - self.filled;
            self.put(0, pad);
        }
        self.out
    }
}

/// Reads most significant bit first; past the end come zeros, which `overrun` reports.
pub(super) struct BitReader<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) at_bit: usize,
}

impl<'b> BitReader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at_bit: 0 }
    }

    /// The next 64 bits less the few before the byte boundary: at least 57 are good.
    pub(super) fn peek(&self) -> u64 {
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
    pub(super) fn get(&mut self, width: u32) -> u64 {
        let value = if width == 0 { 0 } else { self.peek() >> (64 - width) };
        self.at_bit += width as usize;
        value
    }

    pub(super) fn get_wide(&mut self, width: u32) -> u64 {
        let high = if width > 32 { self.get(width - 32) << 32 } else { 0 };
        high | self.get(width.min(32))
    }

    pub(super) fn get_or(&mut self, guess: usize, count: usize) -> Option<usize> {
        if self.get(1) == 1 {
            return Some(guess);
        }
        usize::try_from(self.get(index_width(count))).ok().filter(|index| *index < count)
    }

    pub(super) fn get_residual(&mut self, spread: &mut Spread) -> i64 {
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

    pub(super) fn overrun(&self) -> bool {
        self.at_bit > self.bytes.len() * 8
    }

    pub(super) fn left_over(&self) -> bool {
        self.at_bit.div_ceil(8) < self.bytes.len()
    }
}
