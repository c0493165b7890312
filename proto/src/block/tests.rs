//! What goes in comes out, damage is noticed, and no bytes can do harm.

use proptest::prelude::*;

use super::*;

fn sample(check: u32, at: i64, connect: u32) -> Sample {
    let phases = Phases { connect: Some(Micros(connect)), transfer: Some(Micros(connect / 3)), ..Phases::default() };
    Sample {
        check: CheckNo(check),
        scheduled_at: UtcTime(at),
        delay: Millis(2),
        outcome: Outcome::Up { code: 200 },
        phases,
    }
}

/// Twenty checks, six rounds a minute apart: an agent's live batch after an outage of six minutes.
fn typical() -> Vec<Item> {
    let mut seed = 1_u64;
    let mut noise = move |around: u32| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let spread = u64::from(around) / 4;
        around + u32::try_from((seed >> 33) % spread.max(1)).expect("small")
    };
    let mut items = Vec::new();
    for round in 0..6 {
        for check in 0..20_u32 {
            let base = 200 * (check + 1);
            let phases = [base / 4, base, base * 4, base * 8, base / 8].map(|around| Some(Micros(noise(around))));
            items.push(Item::Sample(Sample {
                check: CheckNo(check * 3),
                scheduled_at: UtcTime(1_790_000_000_000 + round * 60_000 + i64::from(check) * 2_971),
                delay: Millis(i64::from(noise(4) % 3)),
                outcome: Outcome::Up { code: 200 },
                phases: Phases::from_array(phases),
            }));
        }
    }
    items
}

#[test]
fn a_typical_batch_costs_at_most_eleven_bytes_a_result() {
    let items = typical();
    let bytes = encode(Seq(1), &items);
    assert_eq!(decode(&bytes).expect("reads back").items, items);
    println!("{} bytes for {} results", bytes.len(), items.len());
    assert!(bytes.len() <= 11 * items.len(), "{} bytes for {} results", bytes.len(), items.len());
}

#[test]
fn every_single_bit_flip_is_noticed() {
    let items = [Item::Sample(sample(7, 1_000, 300)), Item::Other(vec![1, 2, 3]), Item::Sample(sample(9, 2_000, 400))];
    let good = encode(Seq(5), &items);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad).is_err(), "bit {bit} went unnoticed");
    }
}

#[test]
fn a_cut_block_is_refused_at_every_length() {
    let good = encode(Seq(5), &typical());
    for length in 0..good.len() {
        assert!(decode(&good[..length]).is_err(), "{length} bytes were taken for a block");
    }
}

#[test]
fn another_version_is_refused_by_number() {
    let mut bytes = encode(Seq(1), &typical());
    bytes[4] = 9;
    assert_eq!(decode(&bytes), Err(BlockError::Version(9)));
}

/// Version 1 never changes: these bytes were written by the first release and must read for ever.
#[test]
fn version_one_reads_for_ever() {
    let items = [
        Item::Sample(sample(1, 1_790_000_000_000, 250)),
        Item::Other(vec![0x12, 0x00]),
        Item::Sample(Sample {
            outcome: Outcome::Failed { kind: FailureKind::Refused, code: 0 },
            ..sample(2, 1_790_000_000_500, 90)
        }),
        Item::Sample(sample(1, 1_790_000_060_000, 260)),
    ];
    if std::env::var_os("PEIL_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/block/golden-v1.block"), encode(Seq(41), &items))
            .expect("written");
    }
    let written =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/block/golden-v1.block")).expect("kept with the code");
    assert_eq!(decode(&written).expect("reads").items, items);
    assert_eq!(encode(Seq(41), &items), written, "the writer changed: that needs a new version");
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u16>().prop_map(|code| Outcome::Up { code }),
        (proptest::sample::select(FailureKind::ALL), any::<u16>())
            .prop_map(|(kind, code)| Outcome::Failed { kind, code }),
        proptest::sample::select(NotRun::ALL).prop_map(Outcome::NotRun),
    ]
}

prop_compose! {
    fn any_sample()(
        check in prop_oneof![0..8_u32, any::<u32>()],
        at in prop_oneof![1_790_000_000_000..1_790_000_100_000_i64, any::<i64>()],
        delay in prop_oneof![0..20_i64, any::<i64>()],
        outcome in any_outcome(),
        phases in proptest::array::uniform5(proptest::option::of(prop_oneof![0..5_000_u32, any::<u32>()].prop_map(Micros))),
    ) -> Sample {
        Sample { check: CheckNo(check), scheduled_at: UtcTime(at), delay: Millis(delay), outcome, phases: Phases::from_array(phases) }
    }
}

fn any_item() -> impl Strategy<Value = Item> {
    prop_oneof![
        9 => any_sample().prop_map(Item::Sample),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Item::Other),
    ]
}

proptest! {
    #[test]
    fn whatever_goes_in_comes_out(first in 1..u64::MAX / 2, items in proptest::collection::vec(any_item(), 1..80)) {
        let bytes = encode(Seq(first), &items);
        prop_assert_eq!(header(&bytes), Ok((Seq(first), items.len())));
        prop_assert_eq!(decode(&bytes), Ok(Block { first: Seq(first), items }));
    }

    #[test]
    fn no_bytes_do_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), sealed in any::<bool>()) {
        if sealed {
            // Past the checksum is where a reader can go wrong.
            bytes.splice(0..0, *b"PBLK\x01");
            let crc = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        let _ = decode(&bytes);
    }

    #[test]
    fn a_mended_checksum_does_no_harm(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(Seq(3), &typical());
        bytes.truncate(bytes.len() - 4);
        let at = 5 + at.index(bytes.len() - 5);
        bytes[at] = byte;
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let _ = decode(&bytes);
    }
}
