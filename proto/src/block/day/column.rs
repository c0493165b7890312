//! A column of numbers of a whole day, in the shortest of three forms.
//!
//! ```text
//! u8 form = 0       all alike: varint value
//! u8 form = 1       runs: { varint value  varint length − 1 } until the column is full
//! u8 form = 2 + p   noise, p = 0..=5: varint lowest bucket  varint buckets  then bits (most significant first):
//!                   per bucket its code length in 4 bits (a 0 is followed by 4 bits: how many more zeros),
//!                   per value the code of its bucket and the bits that tell its place in the bucket;
//!                   padded with zeros to a byte
//! ```
//!
//! A column of no values takes no bytes. How many values there are stands elsewhere in the block.

use super::super::bits::{BitReader, Input, low_byte, put_varint};
use super::prefix_code::{self, Code, PRECISION_MAX};

const ALIKE: u8 = 0;
const RUNS: u8 = 1;
const NOISE: u8 = 2;

/// Appends `values` in the form that takes fewest bytes.
pub(super) fn put(out: &mut Vec<u8>, values: &[u64]) {
    let Some(first) = values.first() else { return };
    if values.iter().all(|value| value == first) {
        out.push(ALIKE);
        put_varint(out, *first);
        return;
    }
    let Some(code) = Code::best(values) else { return };
    let most = usize::try_from(code.bits() / 8).unwrap_or(usize::MAX);
    if let Some(runs) = runs(values, most) {
        out.push(RUNS);
        out.extend_from_slice(&runs);
    } else {
        out.push(NOISE + low_byte(code.precision().into()));
        put_varint(out, code.lowest() as u64);
        put_varint(out, code.buckets() as u64);
        out.extend_from_slice(&code.write(values));
    }
}

/// The values as runs, when that takes at most `most` bytes.
fn runs(values: &[u64], most: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for run in values.chunk_by(|a, b| a == b) {
        put_varint(&mut out, run[0]);
        put_varint(&mut out, run.len() as u64 - 1);
        if out.len() > most {
            return None;
        }
    }
    Some(out)
}

/// Reads a column of `count` values; `None` when the bytes are none.
pub(super) fn get(input: &mut Input<'_>, count: usize) -> Option<Vec<u64>> {
    if count == 0 {
        return Some(Vec::new());
    }
    match input.byte()? {
        ALIKE => Some(vec![input.varint()?; count]),
        RUNS => {
            let mut values = Vec::with_capacity(count);
            while values.len() < count {
                let value = input.varint()?;
                let more = input.count(count - values.len() - 1)?;
                values.resize(values.len() + more + 1, value);
            }
            Some(values)
        }
        form => {
            let precision = u32::from(form - NOISE);
            if precision > PRECISION_MAX {
                return None;
            }
            let lowest = input.count(prefix_code::buckets_max())?;
            let buckets = input.count(prefix_code::buckets_max())?;
            let mut bits = BitReader::new(input.0);
            let values = prefix_code::read(&mut bits, precision, lowest, buckets, count)?;
            input.bytes(bits.at_bit.div_ceil(8))?;
            Some(values)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(values: &[u64]) -> (usize, u8) {
        let mut out = Vec::new();
        put(&mut out, values);
        let mut input = Input(&out);
        assert_eq!(get(&mut input, values.len()).as_deref(), Some(values));
        assert!(input.0.is_empty(), "{} bytes left over", input.0.len());
        (out.len(), out[0])
    }

    #[test]
    fn each_form_is_taken_where_it_is_shortest() {
        assert_eq!(there_and_back(&[60_000; 1_439]), (4, ALIKE));
        let gap: Vec<u64> = [60_000; 700].into_iter().chain([480_000]).chain([60_000; 731]).collect();
        assert_eq!(there_and_back(&gap), (15, RUNS));
        let noise: Vec<u64> = (0..1_440).map(|n| 1_000 + (n * 7_919) % 512).collect();
        let (bytes, form) = there_and_back(&noise);
        assert!(form >= NOISE && bytes < 1_440 * 9 / 8 + 40, "{bytes} bytes for 1440 values of nine bits");
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_out(values in proptest::collection::vec(
            prop_oneof![0..5_u64, 200..900_u64, any::<u64>()], 1..300))
        {
            there_and_back(&values);
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0..5_000_usize) {
            if let Some(values) = get(&mut Input(&bytes), count) {
                prop_assert_eq!(values.len(), count);
            }
        }
    }
}
