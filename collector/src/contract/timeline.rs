//! From samples to the state of a check at each instant.
//!
//! The rules, in order (formats.md §1):
//! - A sample's state holds until the next sample, at most 2 × interval + timeout; after that nobody knows.
//! - A gap that starts DOWN stays DOWN until the next UP: switching off monitoring never helps.
//! - `confirm` consecutive failed samples make an outage, from the first of them or from the one that
//!   confirmed. A sample that says UNKNOWN breaks the row, as does one that says UP. Failures that are
//!   not (yet) confirmed are transient: they count as UP while their sample holds, and a silence after
//!   them is UNKNOWN, never UP.
//! - Vantages vote: DOWN when at least k are down, else UP when at least k are up, else UNKNOWN.
//!
//! A [`Reading`] carries both answers through to the service, the one that counts and the one that was
//! seen, so that transients can be listed where they would have been outages.

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::span::{Span, Spans};
use super::terms::{OutageStarts, Terms};
use super::track::{Piece, Track};
use super::{CheckEvidence, Evidence};

/// What holds at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// What counts in the figure.
    pub(super) counted: State,
    /// What was seen: differs only where a failure was not confirmed.
    pub(super) seen: State,
}

impl Reading {
    pub(super) const UNKNOWN: Self = Self::plain(State::Unknown);
    /// A failure that is not confirmed.
    const TRANSIENT: Self = Self { counted: State::Up, seen: State::Down };

    pub(super) const fn plain(state: State) -> Self {
        Self { counted: state, seen: state }
    }
}

/// A reading for every instant: each change holds until the next one. The first lies before all time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timeline(Vec<(UtcTime, Reading)>);

impl Timeline {
    /// `reading` from `at` on. Before `at` nobody knows.
    pub(super) fn starting(at: UtcTime, reading: Reading) -> Self {
        Self(vec![(at, reading)])
    }

    /// `reading` from `at` on; `at` is not before the last change.
    pub(super) fn put(&mut self, at: UtcTime, reading: Reading) {
        match self.0.last_mut() {
            Some((_, last)) if *last == reading => {}
            Some((start, last)) if *start == at => *last = reading,
            _ => self.0.push((at, reading)),
        }
    }

    /// What holds at `at`.
    pub(super) fn at(&self, at: UtcTime) -> Reading {
        let next = self.0.partition_point(|(start, _)| *start <= at);
        next.checked_sub(1).map_or(Reading::UNKNOWN, |i| self.0[i].1)
    }

    /// When, up to `end`, the state that counts is `state`.
    pub(super) fn spans(&self, state: State, end: UtcTime) -> Spans {
        let ends = self.0.iter().skip(1).map(|(at, _)| *at).chain([end]);
        let stretches = self.0.iter().zip(ends).filter(|((_, reading), _)| reading.counted == state);
        stretches.map(|((from, _), to)| Span::new(*from, to)).collect()
    }
}

/// Walks through several timelines at once: `visit` gets each instant of `within` at which one of them
/// changes, beginning with its start, and what all of them read from then on.
pub(super) fn sweep(parts: &[Timeline], within: Span, mut visit: impl FnMut(UtcTime, &[Reading])) {
    if within.is_empty() {
        return;
    }
    let mut readings: Vec<Reading> = parts.iter().map(|part| part.at(within.from)).collect();
    let mut changes: Vec<(UtcTime, usize, Reading)> = Vec::new();
    for (part, timeline) in parts.iter().enumerate() {
        let inside = timeline.0.iter().filter(|(at, _)| within.from < *at && *at < within.to);
        changes.extend(inside.map(|(at, reading)| (*at, part, *reading)));
    }
    // Stable, and quick on the sorted runs it is made of.
    changes.sort_by_key(|(at, _, _)| *at);
    visit(within.from, &readings);
    let mut changes = changes.into_iter().peekable();
    while let Some((at, part, reading)) = changes.next() {
        readings[part] = reading;
        if changes.peek().is_none_or(|(next, _, _)| *next != at) {
            visit(at, &readings);
        }
    }
}

/// The timeline of one check: its vantages, each by its evidence, then the vote.
pub(super) fn of_check(check: &CheckEvidence, terms: &Terms) -> Timeline {
    let vantages: Vec<Timeline> = check.vantages.values().map(|e| of_vantage(e, check.hold(), terms)).collect();
    let mut joined = Timeline::starting(Span::ALWAYS.from, Reading::UNKNOWN);
    sweep(&vantages, Span::ALWAYS, |at, readings| joined.put(at, vote(readings, check.quorum)));
    joined
}

/// A quorum of zero is read as one: nothing is known without a vote.
fn vote(readings: &[Reading], quorum: usize) -> Reading {
    let quorum = quorum.max(1);
    let decide = |of: fn(&Reading) -> State| {
        let votes = |state| readings.iter().filter(|reading| of(reading) == state).count();
        if votes(State::Down) >= quorum {
            State::Down
        } else if votes(State::Up) >= quorum {
            State::Up
        } else {
            State::Unknown
        }
    };
    Reading { counted: decide(|reading| reading.counted), seen: decide(|reading| reading.seen) }
}

fn of_vantage(evidence: &Evidence, hold: Millis, terms: &Terms) -> Timeline {
    match evidence {
        Evidence::States { intervals, otherwise } => of_intervals(intervals, *otherwise),
        Evidence::Samples(samples) => of_track(&Track::of_samples(hold, samples), terms),
        Evidence::Track(track) => of_track(track, terms),
    }
}

/// Whether being retired takes something from this track before `end`: it stands on DOWN after its last sample.
pub(super) fn is_cut_off(track: &Track, terms: &Terms, end: UtcTime) -> bool {
    let ends = |at: UtcTime| at < end && of_track(&track.clone().watched(), terms).at(end).counted == State::Down;
    track.retired_at().is_some_and(ends)
}

/// What counts from one vantage within `within`, as ready intervals. Failures that were never confirmed are lost.
pub(super) fn as_states(evidence: &Evidence, hold: Millis, terms: &Terms, within: Span) -> Evidence {
    let line = of_vantage(evidence, hold, terms);
    let states = [State::Up, State::Down].into_iter().flat_map(|state| {
        let spans = line.spans(state, within.to).within(within);
        spans.iter().map(|span| (span.from, span.to, state)).collect::<Vec<_>>()
    });
    let mut intervals: Vec<_> = states.collect();
    intervals.sort_by_key(|(from, _, _)| *from);
    Evidence::States { intervals, otherwise: State::Unknown }
}

/// Ready intervals need no confirmation. Where they overlap (the readers refuse that), the earlier stays.
fn of_intervals(intervals: &[(UtcTime, UtcTime, State)], otherwise: State) -> Timeline {
    let mut sorted = intervals.to_vec();
    sorted.sort_by_key(|(from, _, _)| *from);
    let mut timeline = Timeline::starting(Span::ALWAYS.from, Reading::plain(otherwise));
    let mut end = Span::ALWAYS.from;
    for (from, to, state) in sorted {
        let from = from.max(end);
        if from < to {
            timeline.put(from, Reading::plain(state));
            timeline.put(to, Reading::plain(otherwise));
            end = to;
        }
    }
    timeline
}

fn of_track(track: &Track, terms: &Terms) -> Timeline {
    let pieces: Vec<Piece> = track.pieces().collect();
    let mut line = Timeline::starting(Span::ALWAYS.from, Reading::UNKNOWN);
    // True from a gap that began DOWN until the next UP.
    let mut lost_while_down = false;
    let mut at = 0;
    while let Some(piece) = pieces.get(at) {
        let end = match piece.state {
            State::Down => at + pieces[at..].iter().take_while(|next| next.state == State::Down).count(),
            State::Up | State::Unknown => at + 1,
        };
        let next = pieces.get(end).map(|next| next.first);
        match piece.state {
            State::Up => {
                lost_while_down = false;
                put_held(&mut line, piece, next, track.hold(), Reading::plain(State::Up));
            }
            _ if lost_while_down => {}
            State::Unknown => line.put(piece.first, Reading::UNKNOWN),
            State::Down => {
                let down = put_run(&mut line, &pieces[at..end], next, track.hold(), terms);
                lost_while_down = down.iter().enumerate().any(|(i, piece)| {
                    is_lost(piece, down.get(i + 1).map_or(next, |next| Some(next.first)), track.hold())
                });
            }
        }
        at = end;
    }
    if let Some(at) = track.retired_at()
        && line.at(Span::ALWAYS.to) != Reading::UNKNOWN
    {
        line.put(at, Reading::UNKNOWN);
    }
    line
}

/// Puts a run of consecutive DOWN samples and returns the part of it that is an outage.
fn put_run<'r>(
    line: &mut Timeline,
    run: &'r [Piece],
    next: Option<UtcTime>,
    hold: Millis,
    terms: &Terms,
) -> &'r [Piece] {
    let confirm = usize::from(terms.confirm.get());
    let confirmed = run.len() >= confirm;
    let transient = match (confirmed, terms.outage_starts) {
        (true, OutageStarts::FirstFailure) => 0,
        (true, OutageStarts::Confirmation) => confirm - 1,
        (false, _) => run.len(),
    };
    for (i, piece) in run[..transient].iter().enumerate() {
        let next = run.get(i + 1).map_or(next, |next| Some(next.first));
        put_held(line, piece, next, hold, Reading::TRANSIENT);
    }
    if let Some(start) = run.get(transient) {
        line.put(start.first, Reading::plain(State::Down));
    }
    &run[transient..]
}

/// True when nobody knew any more before the next sample, if there is one, came.
fn is_lost(piece: &Piece, next: Option<UtcTime>, hold: Millis) -> bool {
    next.is_none_or(|next| next.since(piece.last) > hold)
}

/// `reading` from the first sample of `piece` until `next`, at most the hold time after its last.
fn put_held(line: &mut Timeline, piece: &Piece, next: Option<UtcTime>, hold: Millis, reading: Reading) {
    line.put(piece.first, reading);
    if is_lost(piece, next, hold) {
        line.put(piece.last.plus(hold), Reading::UNKNOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(n: i64) -> UtcTime {
        UtcTime(n * 60_000)
    }

    /// What counts at `at` after samples at these minutes, with a hold of 130 s and outages after one failure.
    fn counted(samples: &[(i64, State)], at: i64) -> State {
        let samples: Vec<_> = samples.iter().map(|(n, state)| (minute(*n), *state)).collect();
        of_track(&Track::of_samples(Millis(130_000), &samples), &Terms::default()).at(minute(at)).counted
    }

    #[test]
    fn a_gap_that_began_down_lasts_until_the_next_up_whatever_is_seen_meanwhile() {
        let seen = [(0, State::Down), (60, State::Unknown), (61, State::Down), (62, State::Unknown), (70, State::Up)];
        for at in [0, 30, 60, 62, 69] {
            assert_eq!(counted(&seen, at), State::Down, "minute {at}");
        }
        assert_eq!(counted(&seen, 70), State::Up);
        assert_eq!(counted(&[(0, State::Down), (1, State::Unknown)], 1), State::Unknown);
    }

    #[test]
    fn a_gap_inside_a_run_too_long_to_keep_sample_by_sample_is_not_forgotten() {
        let mut seen: Vec<_> = (0..70).map(|n| (n, State::Down)).collect();
        seen.extend([(130, State::Down), (131, State::Down), (132, State::Unknown)]);
        assert_eq!(counted(&seen, 140), State::Down);
        let without_gap: Vec<_> = (0..132).map(|n| (n, State::Down)).chain([(132, State::Unknown)]).collect();
        assert_eq!(counted(&without_gap, 140), State::Unknown);
    }
}
