//! What is left of a day: bytes and time per result of compaction, of histograms and of deriving everything anew.
//!
//! `cargo run --release -p peil-benches --bin day`
//!
//! In process: no sockets, no disk. Every block is read back and compared before a figure is printed. Bytes stand beside
//! the entropy of what is in them: the noise of the phases given their medians, and two bits for a delay of 0 to 3 ms.
//! Exact coding cannot go below that, so the quotient tells how good the code is, whatever the load.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Parser;
use peil_benches::load::Results;
use peil_collector::derive::compact::{Compacted, Compaction, Subject};
use peil_collector::derive::histogram::{Accumulator, Histogram, PerMille};
use peil_collector::derive::{Came, Fold, Holds, Kept, rebuild};
use peil_proto::block::day::{self, DayBlock, Ledger, Span};
use peil_proto::block::{self, Item};
use peil_proto::convert;
use peil_proto::ids::{AgentId, CheckNo, Epoch, Seq};
use peil_proto::record::{Boundary, EnergyReading, Method, Record, Vitals};
use peil_proto::sample::{Phases, Sample};
use peil_proto::time::{UtcDay, UtcTime};
use peil_proto::units::{Microjoules, Micros, Millis};

const AGENT: AgentId = AgentId([1; 16]);
const DAY: UtcDay = UtcDay(20_710);
/// Checks of the agent, results of its live blocks.
const CHECKS: u32 = 20;
const BATCH: usize = 120;
/// Entropy of the delay: 0 to 3 ms, all alike.
const DELAY_BITS: f64 = 2.0;

/// Measures compaction, histograms and deriving everything anew
#[derive(Parser)]
struct Args {
    /// Agent-days that are compacted, each anew
    #[arg(long, default_value_t = 5)]
    days: u64,
}

/// Which phases a kind of check has, in the order of [`Phases`].
const KINDS: [(&str, [bool; 5]); 4] = [
    ("https, five phases", [true; 5]),
    ("https by address", [false, true, true, true, true]),
    ("http, four phases", [true, true, false, true, true]),
    ("tcp, two phases", [true, true, false, false, false]),
];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    println!(
        "day blocks of {CHECKS} checks         B/result  entropy B  quotient  compact ns  decode ns  rebuild ns: live, day"
    );
    for interval_s in [60, 10] {
        for (name, phases) in KINDS {
            let cost = compaction(&args, interval_s, phases)?;
            println!("{name:<20} every {interval_s:>2} s {cost}");
        }
    }
    println!("\n{}", histograms()?);
    println!("{}", rest()?);
    Ok(())
}

struct Cost {
    results: usize,
    bytes: usize,
    entropy_bytes: f64,
    compact: Duration,
    decode: Duration,
    rebuild_live: Duration,
    rebuild_day: Duration,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = |time: Duration| time.as_secs_f64() * 1e9 / count(self.results);
        let bytes = count(self.bytes) / count(self.results);
        write!(
            f,
            "{bytes:>7.2}  {:>9.2}  {:>8.3}  {:>10.0}  {:>9.0}  {:>13.0}, {:.0}",
            self.entropy_bytes,
            bytes / self.entropy_bytes,
            each(self.compact),
            each(self.decode),
            each(self.rebuild_live),
            each(self.rebuild_day)
        )
    }
}

/// Days of one agent: live blocks into day blocks, both into everything that follows.
fn compaction(args: &Args, interval_s: i64, having: [bool; 5]) -> anyhow::Result<Cost> {
    let numbers: Vec<_> = (1..=CHECKS).map(CheckNo).collect();
    let holds: Holds = numbers.iter().map(|no| (*no, Millis(interval_s * 2_000 + 10_000))).collect();
    let per_day = usize::try_from(86_400 / interval_s)? * numbers.len();
    let mut cost = Cost {
        results: 0,
        bytes: 0,
        entropy_bytes: 0.0,
        compact: Duration::ZERO,
        decode: Duration::ZERO,
        rebuild_live: Duration::ZERO,
        rebuild_day: Duration::ZERO,
    };
    for seed in 0..args.days {
        let mut source = Results::new(seed, &numbers, DAY.start(), Millis(interval_s * 1_000));
        let noise =
            source.entropy_bits_by_phase().into_iter().zip(having).map(|(bits, has)| if has { bits } else { 0.0 });
        cost.entropy_bytes += (noise.sum::<f64>() + DELAY_BITS) / 8.0 / f64::from(u32::try_from(args.days)?);
        let samples: Vec<Sample> = source.by_ref().take(per_day).map(|sample| only(sample, having)).collect();
        let came = live_blocks(&samples);

        let started = Instant::now();
        let mut compaction = Compaction::default();
        for block in &came {
            compaction.take(block)?;
        }
        let days = compaction.finish()?;
        cost.compact += started.elapsed();

        let started = Instant::now();
        let read: Vec<DayBlock> = days.iter().map(|block| day::decode(&block.bytes)).collect::<Result<_, _>>()?;
        cost.decode += started.elapsed();
        lossless(samples, &read)?;

        let came: Vec<_> = came.into_iter().map(Kept::Came).collect();
        let kept: Vec<_> = days.iter().map(|block| Kept::Day(Bytes::from(block.bytes.clone()))).collect();
        let started = Instant::now();
        let of_live = rebuild(came.iter().map(|block| (AGENT, block)), &holds)?;
        cost.rebuild_live += started.elapsed();
        let started = Instant::now();
        let of_days = rebuild(kept.iter().map(|block| (AGENT, block)), &holds)?;
        cost.rebuild_day += started.elapsed();
        ensure!(of_live == of_days, "the same follows from both");
        cost.bytes += days.iter().map(|block| block.bytes.len()).sum::<usize>();
        cost.results += per_day;
    }
    Ok(cost)
}

fn only(sample: Sample, having: [bool; 5]) -> Sample {
    let phases = sample.phases.to_array();
    let kept = std::array::from_fn(|phase| phases[phase].filter(|_| having[phase]));
    Sample { phases: Phases::from_array(kept), ..sample }
}

fn live_blocks(samples: &[Sample]) -> Vec<Came> {
    let mut first = Seq(1);
    let mut blocks = Vec::new();
    for (place, batch) in (1..).zip(samples.chunks(BATCH)) {
        let items: Vec<_> = batch.iter().copied().map(Item::Sample).collect();
        let bytes = block::encode(first, &items).into();
        blocks.push(Came { place, epoch: Epoch(1), first, skip: 0, received_at: DAY.start(), bytes });
        first = Seq(first.0 + batch.len() as u64);
    }
    blocks
}

fn lossless(mut samples: Vec<Sample>, read: &[DayBlock]) -> anyhow::Result<()> {
    let of_checks = read.iter().filter_map(|block| match block {
        DayBlock::Check(day) => Some(day.samples.iter().copied()),
        DayBlock::Rest(_) => None,
    });
    samples.sort_by_key(|sample| (sample.check, sample.scheduled_at));
    ensure!(of_checks.flatten().collect::<Vec<_>>() == samples, "nothing is lost by compacting");
    Ok(())
}

/// A month of one check every minute: what its histograms take, and what reading them costs.
fn histograms() -> anyhow::Result<String> {
    const CHECK: CheckNo = CheckNo(1);
    const ROUNDS: u32 = 200;
    let month: Vec<Sample> =
        Results::new(11, &[CHECK], UtcTime(1_788_220_800_000), Millis::MINUTE).take(30 * 1_440).collect();
    let started = Instant::now();
    let mut fold = Fold::default();
    month.iter().for_each(|sample| fold.sample(AGENT, sample));
    let derived = fold.finish(&Holds::from([(CHECK, Millis(130_000))]));
    let folding = started.elapsed();
    let started = Instant::now();
    let mut accumulator = Accumulator::default();
    for sample in &month {
        accumulator.record(sample.phases.total());
    }
    let recording = started.elapsed();
    black_box(accumulator.finish());

    let seen = derived.seen.get(&(AGENT, CHECK)).context("the check was seen")?;
    let size = |histogram: &Histogram| histogram.to_v2().len();
    let hours: usize = seen.hours.values().map(|hour| size(&hour.total)).sum();
    let all = |period: &peil_collector::derive::period::Period| {
        size(&period.total) + period.phases.iter().map(size).sum::<usize>()
    };
    let days: usize = seen.days.values().map(|day| all(&day.period)).sum();
    let months: usize = seen.months.values().map(all).sum();
    let pieces: usize = seen.days.values().map(|day| day.pieces.len()).sum();

    let stored: Vec<Vec<u8>> = seen.days.values().map(|day| day.period.total.to_v2()).collect();
    let started = Instant::now();
    for _ in 0..ROUNDS {
        let mut sum = Histogram::default();
        for bytes in black_box(&stored) {
            sum.add(&Histogram::from_v2(bytes)?);
        }
        black_box(sum.quantiles([PerMille::P50, PerMille::P95, PerMille::P99]));
    }
    let quantiles = started.elapsed() / ROUNDS;
    let per = |bytes: usize| count(bytes) / count(month.len());
    Ok(format!(
        "a month of one check every minute, {} results\n\
         \x20 V2 of the hours (total)          {:>8.2} B a result, {:.0} each\n\
         \x20 V2 of the days (total + phases)  {:>8.2} B a result\n\
         \x20 V2 of the months                 {:>8.3} B a result\n\
         \x20 pieces of state                  {:>8} ({:.3} B a result at 17 each)\n\
         \x20 recording a value                {:>8.1} ns\n\
         \x20 hours, days, months and states   {:>8.1} ns a result\n\
         \x20 p50, p95, p99 of the month from {} stored days: {:.4} ms",
        month.len(),
        per(hours),
        count(hours) / count(seen.hours.len()),
        per(days),
        per(months),
        pieces,
        per(pieces * 17),
        recording.as_secs_f64() * 1e9 / count(month.len()),
        folding.as_secs_f64() * 1e9 / count(month.len()),
        stored.len(),
        quantiles.as_secs_f64() * 1e3,
    ))
}

/// What an agent says beside its samples, every minute for a day: vitals, and the energy of two sources.
fn rest() -> anyhow::Result<String> {
    let mut ledger = Ledger::new(DAY);
    let mut raw = 0;
    let mut seq = Seq(0);
    for minute in 0..1_440_i64 {
        let at = DAY.start().plus(Millis(minute * 60_000));
        let vitals = Vitals {
            at,
            rss_bytes: 14_000_000 + (minute * 7_919 % 50 * 4_096).unsigned_abs(),
            cpu: Micros(u32::try_from(21_000 + minute * 7_919 % 4_001)?),
            ticks_due: CHECKS,
            plan_version: 0x5eed_cafe_0123_4567,
            ..Vitals::default()
        };
        let energy = ["package-0", "dram"].map(|source| reading(source, at, minute));
        for record in [Record::Vitals(vitals)].into_iter().chain(energy.map(Record::Energy)) {
            seq = seq.next();
            let bytes = convert::to_spool(&record);
            raw += bytes.len();
            ledger.others.insert((Epoch(1), seq), bytes);
        }
    }
    ledger.enter(Epoch(1), Span { place: 1, first: Seq(1), last: seq }, 0, &[]);
    let started = Instant::now();
    let bytes = ledger.encode()?;
    let took = started.elapsed();
    let written = Compacted { day: DAY, subject: Subject::Rest, records: ledger.others.len(), bytes };
    ensure!(day::decode(&written.bytes)? == DayBlock::Rest(ledger), "nothing is lost by compacting");
    Ok(format!(
        "the rest of an agent-day: {} records of {raw} bytes are {} bytes compacted ({:.1} and {:.1} a record), {:.0} ms",
        written.records,
        written.bytes.len(),
        count(raw) / count(written.records),
        count(written.bytes.len()) / count(written.records),
        took.as_secs_f64() * 1e3,
    ))
}

fn reading(source: &str, end: UtcTime, minute: i64) -> EnergyReading {
    let energy = 1_200_000_000 + (minute * 7_919_777 % 90_000_001).unsigned_abs();
    EnergyReading {
        source: source.to_owned(),
        start: end.plus(Millis(-60_000)),
        end,
        energy: Microjoules(energy),
        low: Microjoules(energy),
        high: Microjoules(energy),
        active: Millis(60_000),
        method: Method::Measured,
        boundary: Boundary::Component,
        covers: "processor package, without memory".to_owned(),
        flags: vec!["ok".to_owned()],
        detail: "powercap intel-rapl:0".to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for printing")]
fn count(of: usize) -> f64 {
    of.max(1) as f64
}
