//! Samples that come late, put where they belong in a track.
//!
//! A track keeps runs, not samples. A late sample between two runs, or one that says what the run around it says, is
//! put in at once ([`Track::put_in`]): the result is the track of all samples in order. One that breaks a run is not,
//! because the samples on both sides of it are no longer known. Those are read again, as few as will do
//! ([`Track::window`]), and take their place ([`Track::splice`]); everything outside of the window stays.
//!
//! What the window must reach, so that what is kept on both sides still joins exactly:
//! - in a run of UP a hold time on both sides: within it there is a sample of the run, so the run is cut there;
//! - a run of UNKNOWN, or failures kept together, as a whole;
//! - to the right all failures in a row, because only the first [`CONFIRM_MAX`] of a row are kept one by one, and the
//!   row may begin elsewhere now.

use std::cmp::Reverse;

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::{CONFIRM_MAX, Piece, Pushed, Track, weight};
use crate::contract::span::Span;

impl Track {
    /// Puts in the sample that was due at `at`, before the newest.
    pub(super) fn put_in(&mut self, at: UtcTime, state: State) -> Pushed {
        let place = self.pieces.partition_point(|piece| piece.last < at);
        match self.pieces.get(place) {
            Some(around) if around.first <= at => {
                let is_known = around.first == at || around.last == at;
                let says_nothing_new = around.state == state || (is_known && weight(state) < weight(around.state));
                return if says_nothing_new { Pushed::Duplicate } else { Pushed::Late };
            }
            _ if state != State::Down && self.has_failures_together(place) => return Pushed::Late,
            _ => {}
        }
        let after = self.pieces.split_off(place);
        self.run_of_down = self.failures_at_the_end();
        self.fold(Piece { state, first: at, last: at });
        after.into_iter().for_each(|piece| self.fold(piece));
        Pushed::Inserted
    }

    /// Which samples must be known to put in late ones that are due in `late`.
    pub fn window(&self, late: Span) -> Span {
        let reach = Millis(self.hold.0.saturating_add(1));
        let mut window = Span::new(late.from.plus(Millis(-reach.0)), late.to.plus(reach));
        for piece in self.pieces.iter().filter(|piece| piece.state != State::Up) {
            if piece.first < window.from && window.from <= piece.last {
                window.from = piece.first;
            }
            if piece.first < window.to && window.to <= piece.last {
                window.to = piece.last.plus(Millis(1));
            }
        }
        let after = self.pieces.partition_point(|piece| piece.last < window.to);
        let row = self.pieces[after..].iter().take_while(|piece| piece.state == State::Down);
        if let Some(end) = row.last() {
            window.to = end.last.plus(Millis(1));
        }
        window
    }

    /// Puts `samples`, all that are due in `window`, in the place of what was known of it. False, and nothing has
    /// changed, when they do not meet what is kept on both sides: then only all samples will do.
    ///
    /// `window` is one that [`Track::window`] gave, since which nothing was put in but at the end.
    pub fn splice(&mut self, window: Span, samples: &[(UtcTime, State)]) -> bool {
        let mut sorted = samples.to_vec();
        sorted.sort_by_key(|(at, state)| (*at, Reverse(weight(*state))));
        sorted.dedup_by_key(|(at, _)| *at);
        let mut spliced = Self { retired: self.retired, ..Self::new(self.hold) };
        for piece in self.pieces.iter().take_while(|piece| piece.first < window.from) {
            if piece.last < window.from {
                spliced.fold(*piece);
                continue;
            }
            let Some(&(last, State::Up)) = sorted.first() else { return false };
            spliced.fold(Piece { last, ..*piece });
        }
        for (at, state) in &sorted {
            spliced.push(*at, *state);
        }
        let Some((newest, known)) = self.newest.filter(|(at, _)| *at >= window.to) else {
            *self = spliced;
            return true;
        };
        if let Some((at, state)) = spliced.newest.take() {
            spliced.fold(Piece { state, first: at, last: at });
        }
        for piece in self.pieces.iter().skip_while(|piece| piece.last < window.to) {
            if piece.first >= window.to {
                spliced.fold(*piece);
                continue;
            }
            let Some(&(first, State::Up)) = sorted.last() else { return false };
            spliced.fold(Piece { first, ..*piece });
        }
        spliced.newest = Some((newest, known));
        *self = spliced;
        true
    }

    /// Failures in a row at the end of the pieces, counted as [`Track::fold`] does.
    fn failures_at_the_end(&self) -> u8 {
        let row = self.pieces.iter().rev().take_while(|piece| piece.state == State::Down);
        let counted = row.map(|piece| if piece.first < piece.last { CONFIRM_MAX + 2 } else { 1 });
        counted.fold(0_u8, |sum, failures| sum.saturating_add(failures).min(CONFIRM_MAX + 2))
    }

    /// Whether the row of failures that begins with this piece has some that are kept together.
    fn has_failures_together(&self, place: usize) -> bool {
        let mut row = self.pieces[place..].iter().take_while(|piece| piece.state == State::Down);
        row.any(|piece| piece.first < piece.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Millis = Millis(130_000);

    fn minute(n: i64) -> UtcTime {
        UtcTime(n * 60_000)
    }

    /// States that last, a minute apart with holes; some samples come late, at the end, and some of those fall on
    /// instants that are known.
    fn any_arrival() -> impl Strategy<Value = (Vec<(UtcTime, State)>, usize)> {
        let state = || prop_oneof![3 => Just(State::Up), 2 => Just(State::Down), 1 => Just(State::Unknown)];
        let stretch = (state(), 1..100_i64, 0..4_i64);
        let in_order = proptest::collection::vec(stretch, 1..10).prop_map(|stretches| {
            let (mut samples, mut at) = (Vec::new(), 0);
            for (state, count, hole) in stretches {
                samples.extend((0..count).map(|n| (minute(at + n), state)));
                at += count + hole;
            }
            samples
        });
        let late = proptest::collection::vec((0..600_i64, 0..3_i64, state()), 1..20);
        (in_order, late).prop_map(|(mut samples, late)| {
            let count = late.len();
            samples.extend(late.into_iter().map(|(n, third, state)| (UtcTime(n * 60_000 + third * 20_000), state)));
            (samples, count)
        })
    }

    proptest! {
        /// Late samples one by one, each put in or spliced in from the samples of its window alone, give the track of
        /// all samples in order, piece by piece.
        #[test]
        fn late_samples_give_the_track_of_all_in_order((samples, late) in any_arrival()) {
            let on_time = samples.len() - late;
            let mut track = Track::of_samples(HOLD, &samples[..on_time]);
            for known in on_time..samples.len() {
                let (at, state) = samples[known];
                if track.push(at, state) == Pushed::Late {
                    let window = track.window(Span::new(at, at.plus(Millis(1))));
                    let inside = |(at, _): &&(UtcTime, State)| window.from <= *at && *at < window.to;
                    let read: Vec<_> = samples[..=known].iter().filter(inside).copied().collect();
                    prop_assert!(track.splice(window, &read));
                }
                prop_assert_eq!(&track, &Track::of_samples(HOLD, &samples[..=known]));
            }
        }

        /// Several late samples at once, those that break a run read together.
        #[test]
        fn late_samples_that_are_read_together_give_the_track_of_all_in_order((samples, late) in any_arrival()) {
            let mut track = Track::of_samples(HOLD, &samples[..samples.len() - late]);
            let mut marked: Option<Span> = None;
            for (at, state) in &samples[samples.len() - late..] {
                if track.push(*at, *state) == Pushed::Late {
                    let before = marked.unwrap_or(Span::new(*at, *at));
                    marked = Some(Span::new(before.from.min(*at), before.to.max(at.plus(Millis(1)))));
                }
            }
            if let Some(marked) = marked {
                let window = track.window(marked);
                let inside = |(at, _): &&(UtcTime, State)| window.from <= *at && *at < window.to;
                let read: Vec<_> = samples.iter().filter(inside).copied().collect();
                prop_assert!(track.splice(window, &read));
            }
            prop_assert_eq!(track, Track::of_samples(HOLD, &samples));
        }
    }

    #[test]
    fn an_outweighed_outcome_at_the_edge_of_what_was_read_does_not_hide_the_run() {
        let quiet: Vec<_> = (0..60).map(|n| (minute(n), State::Up)).collect();
        for edge in 20..40 {
            let mut track = Track::of_samples(HOLD, &quiet);
            let mut samples = [quiet.clone(), vec![(minute(edge), State::Unknown)]].concat();
            assert_eq!(track.push(minute(30), State::Down), Pushed::Late);
            samples.push((minute(30), State::Down));
            let window = track.window(Span::new(minute(30), minute(30).plus(Millis(1))));
            samples.retain(|(at, _)| window.from <= *at && *at < window.to);
            assert!(track.splice(window, &samples), "{edge}");
        }
    }

    #[test]
    fn a_failure_in_a_long_quiet_time_asks_for_the_samples_around_it_and_no_more() {
        let month: Vec<_> = (0..44_640).map(|n| (minute(n), State::Up)).collect();
        let mut track = Track::of_samples(HOLD, &month);
        let late = minute(20_000).plus(Millis(1));
        assert_eq!(track.push(late, State::Down), Pushed::Late);
        let window = track.window(Span::new(late, late.plus(Millis(1))));
        assert!(window.length() <= Millis(2 * HOLD.0 + 3), "{window:?}");
        assert!(!track.splice(window, &[(late, State::Down)]), "without the samples around it, it has no place");
    }
}
