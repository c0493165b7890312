//! How long things took, as an HdrHistogram of two significant digits.
//!
//! The form at rest is HdrHistogram's own V2 (not deflated), so that any of its libraries can read what is stored:
//! 1 µs to 60 s, an error of at most 0.78 %. Its payload is sparse already (runs of empty buckets are one number), so
//! it is also the form in memory: 60 values take some 75 bytes, where a dense histogram takes 10 KiB whatever is in
//! it. Adding up is adding bucket by bucket, so the order in which values or histograms come leaves no trace: the
//! hours of a day, merged, are byte for byte the day.
//!
//! The crate `hdrhistogram` knows the dense form only, and reading V2 with it brings nom, flate2 and base64 along. It is
//! the oracle of the tests instead: same bytes, same quantiles.
//!
//! ```text
//! u32 0x1c849313   u32 length of the payload   u32 0   u32 2 digits   u64 1 (lowest)   u64 60 000 000 (highest)
//! f64 1.0          all big-endian; then zig-zag LEB128 numbers of at most nine bytes, one per bucket from 0 on:
//!                  its count, or −n for n ≥ 2 empty buckets; up to the last that is not empty
//! ```

use peil_proto::units::Micros;

/// The shortest time told apart; a shorter one counts as this long.
pub const LOWEST: Micros = Micros(1);
/// The longest time told apart; a longer one counts as this long.
pub const HIGHEST: Micros = Micros(60_000_000);
/// Buckets from [`LOWEST`] to [`HIGHEST`]: HdrHistogram has 128 to an octave at two digits, and 256 at the bottom.
const BUCKETS: u16 = 2_533;
/// The first 40 bytes but for the length at 4..8.
const HEADER: [u8; 40] =
    *b"\x1c\x84\x93\x13\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\x03\x93\x87\x00\x3f\xf0\0\0\0\0\0\0";
/// Values waiting for their place in an [`Accumulator`]: two bytes each.
const RECENT: usize = 64;

/// Counts by bucket. The empty one is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// V2's payload; empty when there are no values.
    payload: Vec<u8>,
}

/// Why bytes are not one of our histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// Another format, range or number of digits.
    #[error("not a V2 histogram of two digits from {LOWEST} to {HIGHEST} µs")]
    Header,
    /// The numbers do not fit.
    #[error("histogram is malformed: {0}")]
    Malformed(&'static str),
}

/// A share of the values, in thousandths: 950 is the 95th percentile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMille(pub u16);

impl PerMille {
    /// Half of the values are at most this.
    pub const P50: Self = Self(500);
    /// 95 % of the values are at most this.
    pub const P95: Self = Self(950);
    /// 99 % of the values are at most this.
    pub const P99: Self = Self(990);
}

impl Histogram {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.buckets().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// The time that so much of the values do not exceed, as the upper end of its bucket; `None` without values.
    pub fn quantile(&self, share: PerMille) -> Option<Micros> {
        let [found] = self.quantiles([share]);
        found
    }

    /// Several at once, in one pass; `shares` rise.
    pub fn quantiles<const N: usize>(&self, shares: [PerMille; N]) -> [Option<Micros>; N] {
        let total = u128::from(self.count());
        let mut found = [None; N];
        let (mut at, mut sum) = (0, 0_u128);
        for (bucket, count) in self.buckets() {
            sum += u128::from(count);
            while at < N && sum * 1_000 >= (total * u128::from(shares[at].0)).max(1) {
                found[at] = Some(upper_end(bucket));
                at += 1;
            }
        }
        found
    }

    /// Counts the values of another histogram too.
    pub fn add(&mut self, other: &Self) {
        if self.payload.is_empty() {
            self.payload.clone_from(&other.payload);
        } else if !other.payload.is_empty() {
            *self = Self::of(merged(self.buckets(), other.buckets()));
        }
    }

    /// The bytes of V2.
    pub fn to_v2(&self) -> Vec<u8> {
        // HdrHistogram writes an empty histogram as one empty bucket.
        let payload: &[u8] = if self.payload.is_empty() { &[0] } else { &self.payload };
        let mut out = HEADER.to_vec();
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        out[4..8].copy_from_slice(&length.to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    /// Reads V2 of our range and digits, also when another library wrote it.
    ///
    /// # Errors
    /// [`HistogramError`]; never panics.
    pub fn from_v2(bytes: &[u8]) -> Result<Self, HistogramError> {
        let (header, payload) = bytes.split_first_chunk::<40>().ok_or(HistogramError::Header)?;
        if header[..4] != HEADER[..4] || header[8..] != HEADER[8..] {
            return Err(HistogramError::Header);
        }
        let [_, _, _, _, length @ ..] = header;
        let length = length.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
        if usize::try_from(length) != Ok(payload.len()) {
            return Err(HistogramError::Malformed("its length"));
        }
        let mut counts = Vec::new();
        let (mut rest, mut bucket) = (payload, 0_u64);
        while !rest.is_empty() {
            let (number, after) = number(rest).ok_or(HistogramError::Malformed("a number is cut short"))?;
            rest = after;
            let (step, count) = if number < 0 { (number.unsigned_abs(), 0) } else { (1, number.unsigned_abs()) };
            let place = u16::try_from(bucket).ok().filter(|place| *place < BUCKETS);
            if count > 0 {
                counts.push((place.ok_or(HistogramError::Malformed("a bucket above the range"))?, count));
            }
            bucket = bucket.saturating_add(step);
        }
        Ok(Self::of(counts.into_iter()))
    }

    /// From counts that are not 0, by bucket, rising.
    fn of(counts: impl Iterator<Item = (u16, u64)>) -> Self {
        let mut payload = Vec::new();
        let mut next = 0;
        for (bucket, count) in counts {
            match bucket - next {
                0 => {}
                1 => payload.push(0),
                empty => put_number(&mut payload, -i64::from(empty)),
            }
            put_number(&mut payload, i64::try_from(count).unwrap_or(i64::MAX));
            next = bucket + 1;
        }
        payload.shrink_to_fit();
        Self { payload }
    }

    /// Counts that are not 0, by bucket, rising.
    fn buckets(&self) -> Buckets<'_> {
        Buckets { rest: &self.payload, next: 0 }
    }
}

struct Buckets<'h> {
    rest: &'h [u8],
    next: u16,
}

impl Iterator for Buckets<'_> {
    type Item = (u16, u64);

    fn next(&mut self) -> Option<(u16, u64)> {
        loop {
            let (number, rest) = number(self.rest)?;
            self.rest = rest;
            let bucket = self.next;
            if number > 0 {
                self.next += 1;
                return Some((bucket, number.unsigned_abs()));
            }
            let empty = u16::try_from(number.unsigned_abs()).unwrap_or(BUCKETS).max(1);
            self.next = self.next.saturating_add(empty);
        }
    }
}

/// Two rising sequences as one; counts of the same bucket add up.
fn merged(
    a: impl Iterator<Item = (u16, u64)>,
    b: impl Iterator<Item = (u16, u64)>,
) -> impl Iterator<Item = (u16, u64)> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some((left, _)), Some((right, _))) if left == right => {
            let ((bucket, left), (_, right)) = (a.next()?, b.next()?);
            Some((bucket, left.saturating_add(right)))
        }
        (Some((left, _)), Some((right, _))) if left > right => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

/// A histogram that grows value by value: a few bytes per value until buckets repeat, at most 0.5 KiB for an hour of
/// 360 values (a test holds it to that).
#[derive(Debug, Clone, Default)]
pub struct Accumulator {
    histogram: Histogram,
    /// Buckets of the last values, not sorted in yet.
    recent: Vec<u16>,
}

impl Accumulator {
    /// Counts a value. False when it was outside the range and counts as the end of it.
    pub fn record(&mut self, value: Micros) -> bool {
        let held = value.clamp(LOWEST, HIGHEST);
        if self.recent.len() == RECENT {
            self.settle();
        }
        self.recent.push(bucket(held));
        held == value
    }

    fn settle(&mut self) {
        self.recent.sort_unstable();
        let runs = self.recent.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u64));
        self.histogram = Histogram::of(merged(self.histogram.buckets(), runs));
        self.recent.clear();
    }

    /// What was counted.
    pub fn finish(mut self) -> Histogram {
        self.settle();
        self.histogram
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.histogram.payload.capacity() + 2 * self.recent.capacity()
    }
}

/// The bucket of a value within the range.
fn bucket(value: Micros) -> u16 {
    let octave = 24 - (value.0 | 255).leading_zeros();
    let [part, ..] = (value.0 >> octave).to_le_bytes();
    // 60 s is in octave 18, so this is at most 18 × 128 + 228.
    octave.to_le_bytes().first().map_or(0, |octave| u16::from(*octave) * 128) + u16::from(part)
}

/// The longest time in a bucket.
fn upper_end(bucket: u16) -> Micros {
    let octave = u32::from(bucket / 128).saturating_sub(1);
    let part = u32::from(bucket) - octave * 128;
    Micros(((part + 1) << octave) - 1)
}

fn put_number(out: &mut Vec<u8>, number: i64) {
    let mut coded = ((number << 1) ^ (number >> 63)).cast_unsigned();
    for _ in 0..8 {
        let [low, ..] = coded.to_le_bytes();
        if coded < 0x80 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
        coded >>= 7;
    }
    let [low, ..] = coded.to_le_bytes();
    out.push(low);
}

fn number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut coded = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        let last = at == 8 || *byte < 0x80;
        let bits = if at == 8 { *byte } else { byte & 0x7f };
        coded |= u64::from(bits) << (7 * at);
        if last {
            let number = (coded >> 1).cast_signed() ^ -((coded & 1).cast_signed());
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests;
