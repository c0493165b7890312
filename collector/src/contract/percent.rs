//! A percentage as whole millionths of a percent: never a float, never rounded up.

use std::fmt;

use peil_proto::units::Millis;

/// Millionths of a percent, 0 to [`Percent::FULL`]. Prints with six decimals: `99.500000`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(i64);

impl Percent {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// 100 %.
    pub const FULL: Self = Self(100_000_000);

    /// Reads a decimal such as `99.5`: digits, at most six decimals, 0 to 100.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "is not a percentage: write digits such as \"99.5\"";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(SHAPE.to_owned());
        }
        if fraction.len() > 6 {
            return Err("has more than 6 decimals".to_owned());
        }
        let outside = || "must lie between 0 and 100".to_owned();
        let micro: i64 = format!("{whole}{fraction:0<6}").parse().map_err(|_| outside())?;
        if micro > Self::FULL.0 { Err(outside()) } else { Ok(Self(micro)) }
    }

    /// As millionths of a percent.
    pub fn micro(self) -> i64 {
        self.0
    }

    /// `part` of `whole`, floored; `None` when `whole` is not positive.
    pub fn of(part: Millis, whole: Millis) -> Option<Self> {
        if whole.0 <= 0 {
            return None;
        }
        let micro = i128::from(part.0) * i128::from(Self::FULL.0) / i128::from(whole.0);
        i64::try_from(micro.clamp(0, i128::from(Self::FULL.0))).ok().map(Self)
    }

    /// True when `part` of `whole` is at least this: decided on exact integers, before any rounding.
    pub fn is_reached_by(self, part: Millis, whole: Millis) -> bool {
        i128::from(part.0) * i128::from(Self::FULL.0) >= i128::from(self.0) * i128::from(whole.0)
    }

    /// What may be lost of `whole` while this is still reached: floor(whole × (1 − this)).
    pub fn budget_of(self, whole: Millis) -> Millis {
        Allowance::of(whole, self).budget()
    }
}

/// What may be lost, exact, also of times with different targets; whole milliseconds only when asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance(i128);

impl Allowance {
    /// What may be lost of `whole` while `target` is reached.
    pub fn of(whole: Millis, target: Percent) -> Self {
        Self(i128::from(whole.0) * i128::from(Percent::FULL.0 - target.0))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// True when no more than this was lost: decided before any rounding.
    pub fn covers(self, lost: Millis) -> bool {
        i128::from(lost.0) * i128::from(Percent::FULL.0) <= self.0
    }

    /// Floored to whole milliseconds.
    pub fn budget(self) -> Millis {
        Millis(i64::try_from(self.0 / i128::from(Percent::FULL.0)).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentages_are_read_strictly() {
        for (text, printed) in
            [("99.5", "99.500000"), ("0", "0.000000"), ("100", "100.000000"), ("99.999999", "99.999999")]
        {
            assert_eq!(Percent::parse(text).map(|p| p.to_string()).as_deref(), Ok(printed));
        }
        for text in [
            "",
            ".",
            ".5",
            "5.",
            "-1",
            "+1",
            "1e2",
            "99,5",
            "100.000001",
            "101",
            "1.0000000",
            "9".repeat(40).as_str(),
            "٣",
        ] {
            assert!(Percent::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_verdict_and_the_budget_never_disagree(
            whole in 1_i64..3_000_000_000, micro in 0_i64..=100_000_000, off in -2_i64..=2,
        ) {
            let target = Percent(micro);
            let budget = target.budget_of(Millis(whole));
            let lost = (budget.0 + off).clamp(0, whole);
            let reached = target.is_reached_by(Millis(whole - lost), Millis(whole));
            prop_assert_eq!(reached, lost <= budget.0);
            prop_assert_eq!(reached, Allowance::of(Millis(whole), target).covers(Millis(lost)));
        }
    }
}
