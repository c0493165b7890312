//! The life of a month: open while it runs, a draft from day 1 of the next, then sealed. What is sealed never
//! changes; new facts make another edition beside it.
//!
//! ```text
//! open ──month ends──► draft ──a person, or the agreed day──► sealed: edition 1
//!                                                    └─reason, another approver─► edition 2, 3, …
//! ```
//!
//! An edition is known by the digest of its inputs. Where the agreed day sealed it, it says that nobody
//! approved. A correction needs a reason, an approver who is not its author, and inputs that differ: otherwise
//! there would be nothing to correct.
//!
//! Deliberately absent: what an edition contains (`evaluate/sealed.rs`) and where it is kept (`store/months.rs`).

use std::fmt;

use jiff::tz::TimeZone;
use peil_proto::time::UtcTime;

use super::calendar::Month;
use super::workday::{DayOfMonth, WorkingDays};

/// SHA-256 of what an edition was made from, or of the edition itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    /// 64 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Digest {
    /// Reads what is printed.
    pub fn parse(text: &str) -> Option<Self> {
        let shaped = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2).filter(|_| shaped)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// Who put the seal on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    /// This person.
    Person(String),
    /// The calendar: the agreed day came and nobody had approved.
    AgreedDay,
}

/// Why there is another edition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// What was wrong or came late.
    pub reason: String,
    /// Who asks for it.
    pub author: String,
    /// Who agreed to it; somebody else.
    pub approver: String,
}

/// One sealed edition of a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition {
    /// 1, 2, 3, …
    pub version: u32,
    /// When it was sealed.
    pub at: UtcTime,
    /// By whom.
    pub seal: Seal,
    /// Why, for every edition but the first.
    pub correction: Option<Correction>,
    /// What it was made from.
    pub inputs: Digest,
}

/// Where a month stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It runs.
    Open,
    /// It is over and follows what becomes known.
    Draft,
    /// The newest edition is this one.
    Sealed(u32),
}

impl Stage {
    /// The word in lists and in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Draft => "draft",
            Self::Sealed(_) => "sealed",
        }
    }
}

/// Why something cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// It still runs, until this instant.
    NotOver(UtcTime),
    /// It is sealed already, as this edition.
    Sealed(u32),
    /// The agreed day is not over yet; `None` when none was agreed.
    NotDue(Option<UtcTime>),
    /// There is no edition to correct.
    NotSealed,
    /// Author and approver are one person.
    OwnCorrection,
    /// A correction without a reason.
    WithoutReason,
    /// The inputs are those of the newest edition.
    NothingChanged(u32),
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOver(end) => write!(f, "the month still runs, until {end}"),
            Self::Sealed(version) => {
                write!(f, "it is sealed as edition {version}; a sealed month can only be superseded")
            }
            Self::NotDue(Some(due)) => write!(f, "the agreed day ends at {due}; until then a person seals"),
            Self::NotDue(None) => f.write_str("no day was agreed on which the month seals itself"),
            Self::NotSealed => f.write_str("it is not sealed, so there is nothing to supersede; seal it"),
            Self::OwnCorrection => f.write_str("whoever asks for a correction cannot approve it; ask somebody else"),
            Self::WithoutReason => f.write_str("a correction needs a reason"),
            Self::NothingChanged(version) => {
                write!(f, "everything it is made from is as in edition {version}; there is nothing to correct")
            }
        }
    }
}

impl std::error::Error for Objection {}

/// One service's month, and the editions made of it so far, in order.
#[derive(Debug, Clone)]
pub struct MonthLife {
    /// First instant after the month.
    pub ends: UtcTime,
    /// First instant at which it seals itself; `None` when only people seal.
    pub due: Option<UtcTime>,
    /// Sealed editions.
    pub editions: Vec<Edition>,
}

impl MonthLife {
    /// Where it stands at `now`.
    pub fn stage(&self, now: UtcTime) -> Stage {
        match self.editions.last() {
            Some(edition) => Stage::Sealed(edition.version),
            None if now < self.ends => Stage::Open,
            None => Stage::Draft,
        }
    }

    /// The first edition, sealed by `person`.
    ///
    /// # Errors
    /// [`Objection::NotOver`], [`Objection::Sealed`].
    pub fn seal(&self, person: &str, at: UtcTime, inputs: Digest) -> Result<Edition, Objection> {
        self.first(Seal::Person(person.to_owned()), at, inputs)
    }

    /// The first edition, sealed because the agreed day is over.
    ///
    /// # Errors
    /// [`Objection::NotOver`], [`Objection::Sealed`], [`Objection::NotDue`].
    pub fn seal_itself(&self, at: UtcTime, inputs: Digest) -> Result<Edition, Objection> {
        let edition = self.first(Seal::AgreedDay, at, inputs)?;
        if self.due.is_some_and(|due| due <= at) { Ok(edition) } else { Err(Objection::NotDue(self.due)) }
    }

    /// The next edition.
    ///
    /// # Errors
    /// [`Objection::NotSealed`], [`Objection::OwnCorrection`], [`Objection::WithoutReason`],
    /// [`Objection::NothingChanged`].
    pub fn supersede(&self, correction: Correction, at: UtcTime, inputs: Digest) -> Result<Edition, Objection> {
        let newest = self.editions.last().ok_or(Objection::NotSealed)?;
        if correction.author == correction.approver {
            return Err(Objection::OwnCorrection);
        }
        if correction.reason.trim().is_empty() {
            return Err(Objection::WithoutReason);
        }
        if newest.inputs == inputs {
            return Err(Objection::NothingChanged(newest.version));
        }
        let seal = Seal::Person(correction.approver.clone());
        Ok(Edition { version: newest.version.saturating_add(1), at, seal, correction: Some(correction), inputs })
    }

    fn first(&self, seal: Seal, at: UtcTime, inputs: Digest) -> Result<Edition, Objection> {
        match self.stage(at) {
            Stage::Open => Err(Objection::NotOver(self.ends)),
            Stage::Sealed(version) => Err(Objection::Sealed(version)),
            Stage::Draft => Ok(Edition { version: 1, at, seal, correction: None, inputs }),
        }
    }
}

/// When `month` seals itself: at the end of the agreed day of the month after it. `None` when that month has no
/// such day.
pub fn due(month: Month, day: DayOfMonth, calendar: &WorkingDays, zone: &TimeZone) -> Option<UtcTime> {
    day.date(month.next(), calendar).map(|date| date.plus(1).first(zone))
}

#[cfg(test)]
mod tests {
    use super::super::calendar::zone;
    use super::*;

    const ENDS: UtcTime = UtcTime(1_000);

    fn life(due: Option<i64>) -> MonthLife {
        MonthLife { ends: ENDS, due: due.map(UtcTime), editions: Vec::new() }
    }

    fn inputs(no: u8) -> Digest {
        Digest([no; 32])
    }

    fn correction(author: &str, approver: &str, reason: &str) -> Correction {
        Correction { reason: reason.to_owned(), author: author.to_owned(), approver: approver.to_owned() }
    }

    #[test]
    fn a_month_is_open_then_a_draft_then_sealed_once() {
        let mut life = life(None);
        assert_eq!((life.stage(UtcTime(999)), life.stage(ENDS)), (Stage::Open, Stage::Draft));
        assert_eq!(life.seal("anna", UtcTime(999), inputs(1)), Err(Objection::NotOver(ENDS)));
        life.editions.push(life.seal("anna", ENDS, inputs(1)).expect("over"));
        assert_eq!(life.stage(UtcTime(2_000)), Stage::Sealed(1));
        assert_eq!(life.seal("bert", UtcTime(2_000), inputs(2)), Err(Objection::Sealed(1)));
    }

    #[test]
    fn on_the_agreed_day_it_seals_itself_and_says_that_nobody_approved() {
        let agreed = life(Some(1_500));
        assert_eq!(agreed.seal_itself(UtcTime(1_499), inputs(1)), Err(Objection::NotDue(Some(UtcTime(1_500)))));
        assert_eq!(agreed.seal_itself(UtcTime(1_500), inputs(1)).map(|edition| edition.seal), Ok(Seal::AgreedDay));
        assert_eq!(life(None).seal_itself(UtcTime(9_000), inputs(1)), Err(Objection::NotDue(None)));
        assert_eq!(agreed.seal_itself(UtcTime(500), inputs(1)), Err(Objection::NotOver(ENDS)));
    }

    #[test]
    fn a_correction_needs_a_reason_another_approver_and_something_to_correct() {
        let mut life = life(None);
        let late = || correction("anna", "bert", "two hours arrived late");
        assert_eq!(life.supersede(late(), UtcTime(2_000), inputs(2)), Err(Objection::NotSealed));
        life.editions.push(life.seal("anna", ENDS, inputs(1)).expect("over"));
        for (asked, made_from, objection) in [
            (correction("anna", "anna", "x"), 2, Objection::OwnCorrection),
            (correction("anna", "bert", "  "), 2, Objection::WithoutReason),
            (late(), 1, Objection::NothingChanged(1)),
        ] {
            assert_eq!(life.supersede(asked, UtcTime(2_000), inputs(made_from)), Err(objection));
        }
        let second = life.supersede(late(), UtcTime(2_000), inputs(2)).expect("all there");
        assert_eq!((second.version, &second.seal), (2, &Seal::Person("bert".to_owned())));
        life.editions.push(second);
        assert_eq!(life.supersede(late(), UtcTime(3_000), inputs(1)).map(|third| third.version), Ok(3));
    }

    #[test]
    fn the_agreed_day_is_over_at_its_local_midnight() {
        let zone = zone("Europe/Amsterdam").expect("a known zone");
        let month = Month { year: 2026, month: 4 };
        let at = |day| due(month, day, &WorkingDays::MONDAY_TO_FRIDAY, &zone).map(|at| at.to_string());
        assert_eq!(at(DayOfMonth::Calendar(5)).as_deref(), Some("2026-05-05T22:00:00Z"));
        assert_eq!(at(DayOfMonth::Working(5)).as_deref(), Some("2026-05-07T22:00:00Z"));
        assert_eq!(at(DayOfMonth::Working(40)), None);
    }

    #[test]
    fn a_digest_reads_back() {
        let digest = Digest(std::array::from_fn(|i| u8::try_from(i * 7).expect("small")));
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        for text in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
    }
}
