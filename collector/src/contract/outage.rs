//! The stretches in which a service was down, and the checks that made it so.
//!
//! A stretch of failures that was never confirmed is listed too, as transient: people saw it on a
//! screen and will look for it here. Outages are cut at the ends of the month.

use std::collections::BTreeSet;

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::expr::Judge;
use super::span::{Span, Spans};
use super::timeline::{Reading, Timeline, sweep};

/// Whether an outage counts at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does, where it lies in agreed time.
    Confirmed,
    /// Too few failed samples in a row: 0 ms.
    Transient,
}

/// A stretch in which the service was down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// When, within the month.
    pub span: Span,
    /// Whether it counts.
    pub standing: Standing,
    /// The part that is loss: in agreed time, not excluded.
    pub counted_ms: Millis,
    /// Names of the checks that at some time in it made the service down, sorted.
    pub because: Vec<String>,
}

/// The readings of a service within a span, and its outages (`counted_ms` still 0).
pub(super) struct Judged {
    pub(super) timeline: Timeline,
    pub(super) outages: Vec<Outage>,
}

/// A stretch of time in which the service is the same expression over the same checks.
pub(super) struct Scene<'a> {
    pub(super) span: Span,
    pub(super) judge: &'a Judge,
    /// By place in the names of all scenes.
    pub(super) checks: &'a [Timeline],
}

/// Follows the service through `within`, which the `scenes` make up in order; their checks are the timelines of
/// `names`. An outage does not end because the agreement changes.
pub(super) fn follow(scenes: &[Scene<'_>], names: &[&str], within: Span) -> Judged {
    let mut timeline = Timeline::starting(within.from, Reading::UNKNOWN);
    let mut counted = Lane { open: None, of: |reading| reading.counted };
    let mut seen = Lane { open: None, of: |reading| reading.seen };
    let (mut outages, mut confirmed_inside) = (Vec::new(), false);
    for Scene { span, judge, checks } in scenes {
        sweep(checks, span.clip(within), |at, readings| {
            let reading = judge.read(readings);
            timeline.put(at, reading);
            if let Some(closed) = counted.step(at, reading, judge, readings) {
                outages.push(closed.into_outage(at, Standing::Confirmed, names));
            }
            if let Some(closed) = seen.step(at, reading, judge, readings)
                && !std::mem::take(&mut confirmed_inside)
            {
                outages.push(closed.into_outage(at, Standing::Transient, names));
            }
            confirmed_inside |= counted.open.is_some();
        });
    }
    if let Some(open) = counted.open {
        outages.push(open.into_outage(within.to, Standing::Confirmed, names));
    }
    if let Some(open) = seen.open.filter(|_| !confirmed_inside) {
        outages.push(open.into_outage(within.to, Standing::Transient, names));
    }
    outages.sort_by_key(|outage| outage.span);
    Judged { timeline, outages }
}

/// A stretch in which the service read the same for the same reason.
pub(super) struct Stretch {
    pub(super) span: Span,
    pub(super) reading: Reading,
    /// Places of the checks that made it so; empty where the service was up and seen up.
    pub(super) because: BTreeSet<usize>,
}

/// The whole of `within`, which the `scenes` make up, as stretches, in order, without hole or overlap.
pub(super) fn stretches(scenes: &[Scene<'_>], within: Span) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for Scene { span, judge, checks } in scenes {
        sweep(checks, span.clip(within), |at, readings| {
            let reading = judge.read(readings);
            let mut because = BTreeSet::new();
            match reading {
                Reading { counted: State::Up, seen: State::Up } => {}
                Reading { counted: State::Up, seen } => judge.blame(readings, |r| r.seen, seen, &mut because),
                Reading { counted, .. } => judge.blame(readings, |r| r.counted, counted, &mut because),
            }
            match stretches.last_mut() {
                Some(last) if last.reading == reading && last.because == because => last.span.to = within.to,
                last => {
                    if let Some(last) = last {
                        last.span.to = at;
                    }
                    stretches.push(Stretch { span: Span::new(at, within.to), reading, because });
                }
            }
        });
    }
    stretches
}

/// Adds to each outage how much of it lies in `down`.
pub(super) fn count(outages: &mut [Outage], down: &Spans) {
    for outage in outages.iter_mut().filter(|outage| outage.standing == Standing::Confirmed) {
        outage.counted_ms = outage.counted_ms.saturating_add(down.total_within(outage.span));
    }
}

/// Follows one of the two answers of a reading: the one that counts, or the one that was seen.
struct Lane {
    open: Option<Open>,
    of: fn(&Reading) -> State,
}

struct Open {
    from: UtcTime,
    because: BTreeSet<usize>,
}

impl Lane {
    /// Opens or continues a stretch; what it returns has ended.
    fn step(&mut self, at: UtcTime, reading: Reading, judge: &Judge, readings: &[Reading]) -> Option<Open> {
        if (self.of)(&reading) != State::Down {
            return self.open.take();
        }
        let open = self.open.get_or_insert_with(|| Open { from: at, because: BTreeSet::new() });
        judge.blame(readings, self.of, State::Down, &mut open.because);
        None
    }
}

impl Open {
    fn into_outage(self, to: UtcTime, standing: Standing, names: &[&str]) -> Outage {
        let because = self.because.into_iter().filter_map(|i| names.get(i).map(|name| (*name).to_owned()));
        Outage { span: Span::new(self.from, to), standing, counted_ms: Millis::ZERO, because: because.collect() }
    }
}
