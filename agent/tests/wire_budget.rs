//! What an agent costs on the wire, counted byte by byte from what it would send: blocks, messages and the frames
//! around them. Nothing is measured on a clock.

use peil_proto::block::{self, Item};
use peil_proto::convert;
use peil_proto::ids::{CheckNo, Seq};
use peil_proto::record::{EnergyReading, Record, Vitals};
use peil_proto::sample::{Outcome, Phases, Sample};
use peil_proto::time::UtcTime;
use peil_proto::units::{Microjoules, Micros, Millis};
use peil_proto::wire::agent_message::Kind as Say;
use peil_proto::wire::collector_message::Kind as Hear;
use peil_proto::wire::{Ack, AgentMessage, Batch, CollectorMessage};
use prost::Message as _;

/// The agreed budget, bytes a second in both directions, for 100 checks a minute.
const BUDGET: u64 = 500;
/// Around every message: gRPC 5, HTTP/2 DATA frame 9, TLS 1.3 record 22, TCP and IPv4 with timestamps 52.
const AROUND: u64 = 5 + 9 + 22 + 52;
/// A pure TCP acknowledgement in the other direction.
const TCP_ACK: u64 = 52;
const BATCH: i64 = 10_000;
const HOUR: i64 = 3_600_000;

/// Numbers that look like a network: a floor, jitter, now and then a long tail.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn time(&mut self, floor: u64) -> Micros {
        let tail = if self.below(20) == 0 { self.below(floor * 8) } else { 0 };
        Micros(u32::try_from(floor + self.below(floor / 3) + tail).expect("small"))
    }
}

/// The records of an hour with `checks` HTTPS checks every minute, a batch at a time.
fn batches(checks: u32) -> Vec<Vec<Record>> {
    let mut dice = Dice(7);
    let mut all: Vec<(i64, Record)> = Vec::new();
    for check in 1..=checks {
        let phase = i64::try_from(dice.below(60_000)).expect("small");
        let floor = 300 + dice.below(20_000);
        for tick in 0..60 {
            let at = phase + tick * 60_000;
            let phases = Phases {
                resolve: Some(dice.time(floor / 2)),
                connect: Some(dice.time(floor)),
                tls: Some(dice.time(floor * 2)),
                first_byte: Some(dice.time(floor * 3)),
                transfer: Some(dice.time(200)),
            };
            let delay = Millis(i64::try_from(dice.below(3)).expect("small"));
            let (check, scheduled_at) = (CheckNo(check), UtcTime(1_790_000_000_000 + at));
            let sample = Sample { check, scheduled_at, delay, outcome: Outcome::Up { code: 200 }, phases };
            all.push((at, Record::Sample(sample)));
        }
    }
    for minute in 0..60 {
        let at = UtcTime(1_790_000_000_000 + minute * 60_000);
        let vitals = Vitals {
            at,
            rss_bytes: 9 << 20,
            cpu: Micros(61_000),
            ticks_due: checks,
            plan_version: 77,
            ..Vitals::default()
        };
        let uj = Microjoules(900_000_000 + dice.below(10_000_000));
        let reading = EnergyReading {
            source: "rapl".into(),
            start: at,
            end: at.plus(Millis::MINUTE),
            energy: uj,
            low: uj,
            high: Microjoules(uj.0 + 1_000_000),
            active: Millis::MINUTE,
            covers: "package+dram".into(),
            ..EnergyReading::default()
        };
        all.push((minute * 60_000, Record::Vitals(vitals)));
        all.push((minute * 60_000 + 30_000, Record::Energy(reading)));
    }
    all.sort_by_key(|(at, _)| *at);
    (0..HOUR / BATCH)
        .map(|batch| all.iter().filter(|(at, _)| at / BATCH == batch).map(|(_, record)| record.clone()).collect())
        .collect()
}

fn encoded(batches: &[Vec<Record>]) -> Vec<Vec<u8>> {
    let mut next = 5_000_000;
    batches
        .iter()
        .map(|records| {
            let item = |record| convert::to_item(&convert::to_spool(record)).expect("a record");
            let items: Vec<Item> = records.iter().map(item).collect();
            let block = block::encode(Seq(next), &items);
            next += items.len() as u64;
            block
        })
        .collect()
}

fn on_the_wire(blocks: &[Vec<u8>]) -> u64 {
    let one = |block: &Vec<u8>| {
        let batch = Batch { epoch: u64::MAX, first_seq: 5_000_000, block: block.clone().into() };
        let ack = CollectorMessage { kind: Some(Hear::Ack(Ack { epoch: u64::MAX, through: 5_000_017 })) };
        let sent = AgentMessage { kind: Some(Say::Batch(batch)) }.encoded_len() + ack.encoded_len();
        sent as u64 + 2 * (AROUND + TCP_ACK)
    };
    blocks.iter().map(one).sum()
}

#[test]
fn a_hundred_checks_a_minute_stay_within_five_hundred_bytes_a_second() {
    let blocks = encoded(&batches(100));
    let payload: u64 = blocks.iter().map(|block| block.len() as u64).sum();
    let seconds = u64::try_from(HOUR / 1_000).expect("positive");
    let wire = on_the_wire(&blocks);
    println!("blocks {} B/s, on the wire with all frames {} B/s", payload / seconds, wire / seconds);
    if let Some(dir) = std::env::var_os("PEIL_KEEP_BLOCKS") {
        for (at, block) in blocks.iter().enumerate() {
            std::fs::write(std::path::Path::new(&dir).join(format!("{at:04}.block")), block).expect("written");
        }
    }
    assert!(wire / seconds < BUDGET, "{} B/s", wire / seconds);
    assert!(payload / seconds < 40, "the blocks themselves: {} B/s", payload / seconds);
}
