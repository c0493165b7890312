//! A quotient of two whole numbers that stays exact until it is printed.

use peil_proto::units::Millis;

/// `part / whole`, not negative; `whole` is positive.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    part: i128,
    whole: i128,
}

impl Ratio {
    /// `None` when `whole` is not positive. A negative `part` is read as nothing.
    pub fn new(part: i128, whole: i128) -> Option<Self> {
        (whole > 0).then_some(Self { part: part.max(0), whole })
    }

    /// As a decimal with this many places, floored: `1.327433628`.
    pub fn decimal(self, places: usize) -> String {
        let (whole, mut rest) = (self.part / self.whole, self.part % self.whole);
        let mut text = whole.to_string();
        // Digit by digit, so that no product can outgrow its type.
        for place in 0..places {
            if place == 0 {
                text.push('.');
            }
            rest = rest.saturating_mul(10);
            text.push_str(&(rest / self.whole).to_string());
            rest %= self.whole;
        }
        text
    }

    /// As a percentage with this many places, floored: `99.336283186`.
    pub fn percent(self, places: usize) -> String {
        Self { part: self.part.saturating_mul(100), ..self }.decimal(places)
    }

    /// This many times `length`, rounded up; `None` when that is more than time has.
    pub fn times_rounded_up(self, length: Millis) -> Option<Millis> {
        let product = self.part.checked_mul(i128::from(length.0.max(0)))?;
        let quotient = product / self.whole + i128::from(product % self.whole != 0);
        i64::try_from(quotient).ok().map(Millis)
    }
}

impl PartialEq for Ratio {
    fn eq(&self, other: &Self) -> bool {
        self.part.checked_mul(other.whole) == other.part.checked_mul(self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decimals_are_the_floor_of_the_quotient(part in 0_i64..i64::MAX, whole in 1_i64..i64::MAX) {
            let (part, whole) = (i128::from(part), i128::from(whole));
            let ratio = Ratio::new(part, whole).expect("positive");
            let micro: i128 = ratio.decimal(6).replace('.', "").parse().expect("digits");
            prop_assert_eq!(micro, part * 1_000_000 / whole);
            prop_assert_eq!(ratio.percent(4).replace('.', "").parse::<i128>().expect("digits"), micro);
            let up = part * 1_000 / whole + i128::from(part * 1_000 % whole != 0);
            prop_assert_eq!(ratio.times_rounded_up(Millis(1_000)).map(|ms| i128::from(ms.0)), i64::try_from(up).ok().map(i128::from));
        }
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert!(Ratio::new(1, 0).is_none());
        assert_eq!(Ratio::new(1, 3).map(|ratio| ratio.decimal(0)).as_deref(), Some("0"));
        assert_eq!(Ratio::new(1, 3), Ratio::new(2, 6));
    }
}
