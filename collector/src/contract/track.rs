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
//! Limits: memory grows with the number of changes, not of samples; [`Track::forget_before`] prunes. A late sample that
//! breaks a run is not absorbed: [`Pushed::Late`] says "the samples around it must be read again", see `late`.

mod late;

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
    /// Older than the newest, and absorbed in its place; the figure may have changed.
    Inserted,
    /// It says nothing new: the same instant was known, with this outcome or one that outweighs it, or a run of the
    /// same state holds it. Nothing changed.
    Duplicate,
    /// Older than the newest and not absorbed: the samples of a [`Track::window`] must be spliced in.
    Late,
}

/// One or more samples of the same state, in order of time: at rest, a row of the changes of a vantage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What they say.
    pub state: State,
    /// When the first of them was due.
    pub first: UtcTime,
    /// When the last of them was due.
    pub last: UtcTime,
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
            Some((newest, _)) if at < newest => return self.put_in(at, state),
            Some((newest, known)) if at == newest && weight(state) <= weight(known) => return Pushed::Duplicate,
            Some((newest, _)) if at == newest => {}
            Some((newest, known)) => self.fold(Piece { state: known, first: newest, last: newest }),
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

    /// Moves samples that can no longer change into the pieces.
    fn fold(&mut self, piece: Piece) {
        self.run_of_down = match piece.state {
            State::Down => self.run_of_down.saturating_add(1).min(CONFIRM_MAX + 2),
            State::Up | State::Unknown => 0,
        };
        let extends = |last: &Piece| match piece.state {
            State::Up => last.state == State::Up && piece.first.since(last.last) <= self.hold,
            State::Unknown => last.state == State::Unknown,
            State::Down => self.run_of_down > CONFIRM_MAX + 1 && piece.first.since(last.last) <= self.hold,
        };
        match self.pieces.last_mut() {
            Some(last) if extends(last) => last.last = piece.last,
            _ => self.pieces.push(piece),
        }
        if piece.state == State::Down && piece.first < piece.last {
            // Failures stand together only where there were more than the limit.
            self.run_of_down = CONFIRM_MAX + 2;
        }
    }

    /// What is kept, as values: the same samples give the same pieces in whatever order they came.
    pub fn to_pieces(&self) -> Vec<Piece> {
        let mut whole = self.clone();
        if let Some((at, state)) = whole.newest.take() {
            whole.fold(Piece { state, first: at, last: at });
        }
        whole.pieces
    }

    /// The track that such pieces were taken from; of several tracks (days, say) one after the other, the track of all
    /// their samples.
    pub fn of_pieces(hold: Millis, pieces: impl IntoIterator<Item = Piece>) -> Self {
        let mut track = Self::new(hold);
        for piece in pieces {
            if let Some((at, state)) = track.newest.take() {
                track.fold(Piece { state, first: at, last: at });
            }
            if piece.first < piece.last {
                // The last of them once more below: it says nothing new, but stands apart as the newest.
                track.fold(piece);
            }
            track.newest = Some((piece.last, piece.state));
        }
        track
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
    use proptest::prelude::*;

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

    /// Samples of several days, a minute apart with holes, in states that last.
    fn any_samples() -> impl Strategy<Value = Vec<(UtcTime, State)>> {
        let state = prop_oneof![3 => Just(State::Up), 2 => Just(State::Down), 1 => Just(State::Unknown)];
        let stretch = (state, 1..100_i64, 0..4_i64);
        proptest::collection::vec(stretch, 1..20).prop_map(|stretches| {
            let mut samples = Vec::new();
            let mut at = 0;
            for (state, count, hole) in stretches {
                samples.extend((0..count).map(|n| (minute(at + n), state)));
                at += count + hole;
            }
            samples
        })
    }

    /// The 61st failure in a row begins what is kept together; the 60 before it stay apart also when the row is joined.
    #[test]
    fn a_long_row_of_failures_joins_where_it_was_cut() {
        let row: Vec<_> = (0..2 * i64::from(CONFIRM_MAX) + 9).map(|n| (minute(n), State::Down)).collect();
        for cut in 0..=row.len() {
            let (left, right) = row.split_at(cut);
            let pieces = [left, right].into_iter().flat_map(|part| Track::of_samples(HOLD, part).to_pieces());
            assert_eq!(Track::of_pieces(HOLD, pieces).to_pieces(), Track::of_samples(HOLD, &row).to_pieces(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn the_pieces_of_parts_are_the_pieces_of_the_whole(samples in any_samples(), every in 1..300_i64) {
            let whole = Track::of_samples(HOLD, &samples);
            let parts = samples.chunk_by(|(a, _), (b, _)| a.0 / minute(every).0 == b.0 / minute(every).0);
            let pieces = parts.flat_map(|part| Track::of_samples(HOLD, part).to_pieces());
            let joined = Track::of_pieces(HOLD, pieces);
            prop_assert_eq!(joined.to_pieces(), whole.to_pieces());
            prop_assert_eq!(joined.newest(), whole.newest());
        }
    }

    #[test]
    fn a_late_sample_that_breaks_a_run_is_not_absorbed() {
        let mut track = Track::of_samples(HOLD, &[1, 2, 3, 4, 5].map(|n| (minute(n), State::Up)));
        let before = track.clone();
        assert_eq!(track.push(minute(2), State::Down), Pushed::Late);
        assert_eq!(track, before);
    }
}
