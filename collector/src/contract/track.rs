//! The samples of one check from one vantage, folded so that a month of them fits in a few pieces.
//!
//! The running collector keeps one [`Track`] per (check, vantage) in memory and pushes each sample as it
//! comes, O(1) each. A sealed month or a test hands over the samples themselves; those are sorted and
//! pushed into a track as well, so there is one rule and one way to reach a figure.
//!
//! What is kept: runs of UP whose samples are at most the hold time apart, and runs of UNKNOWN, as
//! (first, last); of each run of consecutive DOWN samples the first [`CONFIRM_MAX`] one by one, because
//! the contract may ask for the one that confirmed, and the rest like UP.
//!
//! At one instant DOWN wins over UP, and UP over UNKNOWN: an observation outweighs the lack of one.
//!
//! Limits: memory grows with the number of changes, not of samples; [`Track::forget_before`] prunes.
//! Deliberately absent: samples that arrive late. [`Pushed::Late`] says "rebuild me from the samples".

use peil_proto::sample::State;
use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

/// The most failed samples a contract may ask for before it calls them an outage. Higher is refused.
pub const CONFIRM_MAX: u8 = 60;

/// What became of a pushed sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// Absorbed; the figure may have changed.
    Appended,
    /// The same instant was known, with this outcome or one that outweighs it. Nothing changed.
    Duplicate,
    /// Older than the last instant and not absorbed: rebuild the track from the samples.
    Late,
}

/// One or more samples of the same state, in order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) state: State,
    pub(super) first: UtcTime,
    pub(super) last: UtcTime,
}

/// The samples of one (check, vantage) so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    hold: Millis,
    pieces: Vec<Piece>,
    /// DOWN samples at the end of `pieces` without another state between them, counted to the limit.
    run_of_down: u8,
    /// The newest sample, apart because its instant may still get a second outcome.
    newest: Option<(UtcTime, State)>,
    /// Nobody will ever look again.
    retired: bool,
}

impl Track {
    /// An empty track of samples that each hold for at most `hold` (2 × interval + timeout).
    pub fn new(hold: Millis) -> Self {
        Self { hold: Millis(hold.0.max(0)), pieces: Vec::new(), run_of_down: 0, newest: None, retired: false }
    }

    /// The track of `samples` in any order, with any repetitions.
    pub fn of_samples(hold: Millis, samples: &[(UtcTime, State)]) -> Self {
        let mut track = Self::new(hold);
        let mut push_all = |samples: &[(UtcTime, State)]| {
            for (at, state) in samples {
                track.push(*at, *state);
            }
        };
        // A month of samples is 16 MB or so: not copied when it is in order already.
        if samples.is_sorted_by_key(|(at, _)| *at) {
            push_all(samples);
        } else {
            let mut sorted = samples.to_vec();
            sorted.sort_by_key(|(at, _)| *at);
            push_all(&sorted);
        }
        track
    }

    /// The same samples under a longer hold; a shorter one leaves it as it is. So a check whose rhythm changed is
    /// folded under the shortest and judged under each.
    #[must_use]
    pub fn held_for(mut self, hold: Millis) -> Self {
        self.hold = self.hold.max(hold);
        self
    }

    /// How long a sample holds without a next one.
    pub fn hold(&self) -> Millis {
        self.hold
    }

    /// Nobody will ever look again from this vantage: a DOWN after its last sample, which only an UP could end, ends
    /// with that sample, and what follows is UNKNOWN.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    /// As if somebody still looked.
    pub(super) fn watched(mut self) -> Self {
        self.retired = false;
        self
    }

    /// When a retired track stops to have a vote, if it stands on DOWN then.
    pub(super) fn retired_at(&self) -> Option<UtcTime> {
        self.newest.filter(|_| self.retired).map(|(at, _)| at.plus(Millis(1)))
    }

    /// The instant and state of the newest sample.
    pub fn newest(&self) -> Option<(UtcTime, State)> {
        self.newest
    }

    /// Adds the sample that was due at `at`.
    pub fn push(&mut self, at: UtcTime, state: State) -> Pushed {
        match self.newest {
            Some((newest, _)) if at < newest => return Pushed::Late,
            Some((newest, known)) if at == newest && weight(state) <= weight(known) => return Pushed::Duplicate,
            Some((newest, _)) if at == newest => {}
            Some((newest, known)) => self.fold(newest, known),
            None => {}
        }
        self.newest = Some((at, state));
        Pushed::Appended
    }

    /// Drops what no longer matters for any instant from `at` on, and keeps what holds at `at`.
    ///
    /// Everything since the last UP before `at` stays, because a run of failures may still be confirmed
    /// and a gap may have begun DOWN.
    pub fn forget_before(&mut self, at: UtcTime) {
        let holds = self.pieces.partition_point(|piece| piece.first <= at);
        let since_up = self.pieces[..holds].iter().rposition(|piece| piece.state == State::Up);
        if let Some(start) = since_up {
            self.pieces.drain(..start);
        }
        self.pieces.shrink_to(self.pieces.len().saturating_mul(2));
    }

    /// Moves a sample that can no longer change into the pieces.
    fn fold(&mut self, at: UtcTime, state: State) {
        self.run_of_down = match state {
            State::Down => self.run_of_down.saturating_add(1).min(CONFIRM_MAX + 2),
            State::Up | State::Unknown => 0,
        };
        let extends = |last: &Piece| match state {
            State::Up => last.state == State::Up && at.since(last.last) <= self.hold,
            State::Unknown => last.state == State::Unknown,
            State::Down => self.run_of_down > CONFIRM_MAX + 1 && at.since(last.last) <= self.hold,
        };
        match self.pieces.last_mut() {
            Some(last) if extends(last) => last.last = at,
            _ => self.pieces.push(Piece { state, first: at, last: at }),
        }
    }

    /// All samples as pieces, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let newest = self.newest.map(|(at, state)| Piece { state, first: at, last: at });
        self.pieces.iter().copied().chain(newest)
    }

    /// The fewest samples that make this track again: of a run that says the same, those that keep it held.
    /// That the track is retired cannot be said in samples.
    pub fn samples(&self) -> Vec<(UtcTime, State)> {
        let mut samples = Vec::new();
        for Piece { state, first, last } in self.pieces() {
            let step = if state == State::Unknown { last.since(first) } else { self.hold };
            let mut at = first;
            while at < last {
                samples.push((at, state));
                at = at.plus(step.max(Millis(1)));
            }
            samples.push((last, state));
        }
        samples
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.pieces.len()
    }
}

/// Which of two outcomes for one instant wins.
fn weight(state: State) -> u8 {
    match state {
        State::Unknown => 0,
        State::Up => 1,
        State::Down => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Millis = Millis(130_000);

    fn minute(n: i64) -> UtcTime {
        UtcTime(n * 60_000)
    }

    #[test]
    fn a_quiet_month_is_one_piece_and_a_long_outage_a_bounded_number() {
        let mut track = Track::new(HOLD);
        for n in 0..44_640 {
            assert_eq!(track.push(minute(n), State::Up), Pushed::Appended);
        }
        assert_eq!(track.len(), 1);
        for n in 44_640..60_000 {
            track.push(minute(n), State::Down);
        }
        assert_eq!(track.len(), 1 + usize::from(CONFIRM_MAX) + 1);
    }

    #[test]
    fn of_two_outcomes_for_one_instant_the_heavier_stays_in_either_order() {
        let (up_first, down_first) = ([State::Up, State::Down], [State::Down, State::Up]);
        let tracks = [up_first, down_first].map(|order| {
            let mut track = Track::new(HOLD);
            let pushed = order.map(|state| track.push(minute(1), state));
            (track, pushed)
        });
        assert_eq!(tracks[0].0, tracks[1].0);
        assert_eq!(tracks[0].0.newest(), Some((minute(1), State::Down)));
        assert_eq!(tracks[0].1, [Pushed::Appended, Pushed::Appended]);
        assert_eq!(tracks[1].1, [Pushed::Appended, Pushed::Duplicate]);
    }

    #[test]
    fn a_late_sample_is_not_absorbed() {
        let mut track = Track::new(HOLD);
        track.push(minute(5), State::Up);
        let before = track.clone();
        assert_eq!(track.push(minute(4), State::Down), Pushed::Late);
        assert_eq!(track, before);
    }
}
