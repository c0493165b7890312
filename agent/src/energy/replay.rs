//! `peil-agent energy replay`: a recorded trace through the very integrator the agent runs.
//!
//! For whoever was sent a figure: an auditor recomputes it, a test suite compares it with an oracle,
//! an operator finds out why Tuesday's interval has a wide upper bound. One JSON object per tick and
//! line in, one line per tick and zone out, then the totals. The format is public and exact.
//!
//! The trace is read and checked whole before anything is printed: a trace with a mistake gives all
//! its mistakes and no figure. Fractions of a millisecond in times and of a milliwatt in `pmax_w` are
//! cut. A zone that a tick leaves out keeps its baseline, as a zone that could not be read does.
//!
//! Limits: [`TRACE_BYTES_MAX`], [`LINE_BYTES_MAX`], [`MISTAKES_MAX`]; a trace beyond them is refused.
//! Deliberately absent: choosing zones. The totals are the sum over all zones in the trace; which of
//! a host's zones may be added is decided where they are read (`compose.rs`).

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};

use peil_proto::settings::{Document, Fields, Mistakes, Node, Refused, Value};
use peil_proto::units::Microjoules;

use super::integrator::{Counter, Moment, Step, ZoneIntegrator};

/// A trace beyond this size (some five million readings) is refused: split it at a reboot.
pub const TRACE_BYTES_MAX: u64 = 1 << 30;

/// A tick that takes a longer line than this is refused.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// After this many mistakes reading stops: the file is something else than a trace.
pub const MISTAKES_MAX: usize = 100;

/// What a zone can draw at most where the trace does not say: the agent's own default.
const PMAX_MW_DEFAULT: u64 = super::powercap::PMAX_MW_DEFAULT;

/// One line of a trace, checked.
struct Tick {
    /// `mono_s` as it was written, for the answer.
    mono_text: String,
    mono_ms: u64,
    boottime_ms: u64,
    boot_id: String,
    /// Index of the zone's name, and its reading (`None`: it failed), in the order of the line.
    zones: Vec<(usize, Option<Counter>)>,
}

/// A checked trace.
pub struct Trace {
    ticks: Vec<Tick>,
    names: Vec<String>,
}

/// What all zones of a trace add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Best estimate.
    pub energy: Microjoules,
    /// At least this much.
    pub low: Microjoules,
    /// At most this much.
    pub high: Microjoules,
}

impl Totals {
    /// Adds one step.
    pub fn add(&mut self, step: &Step) {
        self.energy = self.energy.saturating_add(step.energy);
        self.low = self.low.saturating_add(step.low);
        self.high = self.high.saturating_add(step.high);
    }
}

/// Reads a trace; `file` is its name in messages.
///
/// # Errors
/// [`Refused`] with every mistake, each with its line.
pub fn read(file: &str, input: impl BufRead) -> Result<Trace, Refused> {
    let mistakes = Mistakes::new(file);
    let mut trace = Trace { ticks: Vec::new(), names: Vec::new() };
    let mut known = HashMap::new();
    let mut input = input.take(TRACE_BYTES_MAX + 1);
    let mut line = Vec::new();
    let mut bytes: u64 = 0;
    let mut bad_lines = 0;
    for number in 1.. {
        line.clear();
        match input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(read) => bytes += read as u64,
            Err(error) => {
                mistakes.add(number, format!("cannot be read: {error} at line {number}"));
                break;
            }
        }
        if line.len() > LINE_BYTES_MAX || bytes > TRACE_BYTES_MAX {
            let limit = format!("a line may have {LINE_BYTES_MAX} bytes and a trace {TRACE_BYTES_MAX}");
            mistakes.add(number, format!("{limit}; more at line {number}"));
            break;
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            mistakes.add(number, format!("not UTF-8 at line {number}"));
            break;
        };
        if text.trim().is_empty() {
            continue;
        }
        match tick(text, number, &mut trace.names, &mut known, &mistakes) {
            Some(tick) => {
                in_order(trace.ticks.last(), &tick, number, &mistakes);
                trace.ticks.push(tick);
            }
            None => bad_lines += 1,
        }
        if bad_lines >= MISTAKES_MAX {
            mistakes.add(number, format!("{MISTAKES_MAX} lines with mistakes; reading stopped at line {number}"));
            break;
        }
    }
    if trace.ticks.is_empty() && mistakes.is_empty() {
        // A total of 0 µJ out of nothing would be the silent zero this program exists to avoid.
        mistakes.add(0, "has no ticks");
    }
    mistakes.into_result(trace)
}

/// One line to a tick; `None` when it is not usable, with the reasons noted.
fn tick(
    text: &str,
    number: usize,
    names: &mut Vec<String>,
    known: &mut HashMap<String, usize>,
    mistakes: &Mistakes,
) -> Option<Tick> {
    let root = Document::json_at(text, number, mistakes);
    if root.value == Value::Null {
        // Broken syntax was noted already; a bare `null` was not.
        if text.trim() == "null" {
            root.refuse(mistakes, "must be a table, not null");
        }
        return None;
    }
    let mut fields = root.fields(mistakes);
    let mono = fields.need("mono_s");
    let boottime = fields.need("boottime_s");
    let boot_id = fields.need_str("boot_id");
    let zones_node = fields.need("zones");
    fields.finish();

    let mono_text = match mono.as_ref().map(|node| &node.value) {
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Decimal(text)) => text.clone(),
        _ => String::new(),
    };
    let mono_ms = mono.and_then(|node| scaled(&node, 3, mistakes));
    let boottime_ms = boottime.and_then(|node| scaled(&node, 3, mistakes));

    let mut zones = Vec::new();
    let mut usable = true;
    for entry in zones_node.map(|node| node.fields(mistakes).rest()).unwrap_or_default() {
        let no = *known.entry(entry.key).or_insert_with_key(|name| {
            names.push(name.clone());
            names.len() - 1
        });
        match reading(entry.node.fields(mistakes)) {
            Some(read) => zones.push((no, read)),
            None => usable = false,
        }
    }
    let tick = Tick { mono_text, mono_ms: mono_ms?, boottime_ms: boottime_ms?, boot_id: boot_id?, zones };
    usable.then_some(tick)
}

/// A zone's reading: a counter, or `{"error": …}`. The outer `None` means a mistake was noted.
fn reading(mut fields: Fields<'_>) -> Option<Option<Counter>> {
    let mistakes = fields.mistakes();
    if let Some(error) = fields.take("error") {
        let usable = error.as_str(mistakes).is_some();
        // A reading cannot fail and have a value: whatever else stands here is refused by name.
        fields.finish();
        return usable.then_some(None);
    }
    let energy_uj = fields.need("energy_uj").and_then(|node| scaled(&node, 0, mistakes));
    let range_uj = fields.take_some("max_energy_range_uj").map_or(Some(0), |node| scaled(&node, 0, mistakes));
    let pmax_mw = fields.take_some("pmax_w").map_or(Some(PMAX_MW_DEFAULT), |node| scaled(&node, 3, mistakes));
    fields.finish();
    // A zone that can draw nothing is a limit that was not set: sysfs writes such a limit as 0.
    let pmax_mw = pmax_mw.map(|mw| if mw == 0 { PMAX_MW_DEFAULT } else { mw });
    Some(Some(Counter { energy_uj: energy_uj?, range_uj: range_uj?, pmax_mw: pmax_mw? }))
}

/// Monotonic time never runs back within a boot: such a trace was put together wrongly.
fn in_order(last: Option<&Tick>, tick: &Tick, number: usize, mistakes: &Mistakes) {
    if let Some(last) = last.filter(|last| last.boot_id == tick.boot_id && last.mono_ms > tick.mono_ms) {
        let (from, to) = (&last.mono_text, &tick.mono_text);
        mistakes.add(number, format!("mono_s goes back from {from} to {to} within one boot at line {number}"));
    }
}

/// A number that is not negative, times 10^`decimals`. Without decimals it must be whole; otherwise
/// digits beyond them are cut.
fn scaled(node: &Node, decimals: u32, mistakes: &Mistakes) -> Option<u64> {
    let value = match &node.value {
        Value::Int(number) => u64::try_from(*number).ok().and_then(|n| n.checked_mul(10_u64.pow(decimals))),
        Value::Decimal(text) => decimal(text, decimals),
        other => {
            node.refuse(mistakes, format_args!("must be a number, not {}", other.kind()));
            return None;
        }
    };
    if value.is_none() {
        let whole = if decimals == 0 { "a whole number" } else { "a number" };
        node.refuse(mistakes, format_args!("must be {whole} from 0 to at most {}", u64::MAX / 10_u64.pow(decimals)));
    }
    value
}

/// `"12.5e1"` × 10^`decimals`, exactly, without a float in between.
fn decimal(text: &str, decimals: u32) -> Option<u64> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    // Places to move the point to the right, seen from the end of the digits.
    let shift =
        exponent.parse::<i64>().ok()?.checked_add(decimals.into())?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    if shift >= 0 {
        let zeros = usize::try_from(shift).ok().filter(|zeros| digits.len() + zeros <= 20)?;
        return format!("{digits}{}", "0".repeat(zeros)).parse().ok();
    }
    let cut = usize::try_from(shift.unsigned_abs()).ok()?;
    let (kept, rest) = digits.split_at(digits.len().saturating_sub(cut));
    if decimals == 0 && rest.bytes().any(|b| b != b'0') {
        return None;
    }
    if kept.is_empty() { Some(0) } else { kept.parse().ok() }
}

impl Trace {
    /// Runs the trace; `each` sees every step in order: tick (its `mono_s` as written), zone, step.
    ///
    /// # Errors
    /// Whatever `each` answers.
    pub fn run<E>(&self, mut each: impl FnMut(&str, &str, &Step) -> Result<(), E>) -> Result<Totals, E> {
        struct Zone {
            integrator: ZoneIntegrator,
            seen_at: usize,
        }
        let mut zones: Vec<Option<Zone>> = self.names.iter().map(|_| None).collect();
        let mut totals = Totals::default();
        for (now, tick) in self.ticks.iter().enumerate() {
            let at = Moment { boot_id: &tick.boot_id, mono_ms: tick.mono_ms, boottime_ms: tick.boottime_ms };
            for (no, read) in &tick.zones {
                let zone =
                    zones[*no].get_or_insert_with(|| Zone { integrator: ZoneIntegrator::default(), seen_at: now });
                if zone.seen_at + 1 < now {
                    zone.integrator.skip();
                }
                zone.seen_at = now;
                let step = zone.integrator.step(&at, read.as_ref());
                totals.add(&step);
                each(&tick.mono_text, &self.names[*no], &step)?;
            }
        }
        Ok(totals)
    }

    /// Runs the trace and writes the answer as JSON lines.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let quoted: HashMap<&str, String> = self.names.iter().map(|name| (name.as_str(), quote(name))).collect();
        let totals = self.run(|mono_s, zone, step| {
            let zone = quoted.get(zone).map_or("\"\"", String::as_str);
            let Step { flag, energy, low, high } = step;
            writeln!(
                out,
                r#"{{"mono_s": {mono_s}, "zone": {zone}, "flag": "{flag}", "energy_uj": {energy}, "low_uj": {low}, "high_uj": {high}}}"#
            )
        })?;
        let Totals { energy, low, high } = totals;
        writeln!(out, r#"{{"total_uj": {energy}, "low_uj": {low}, "high_uj": {high}}}"#)?;
        out.flush()
    }
}

/// A JSON string.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
