//! What the month so far says about its end: the budget, how fast it burns, and until when it lasts.
//!
//! Everything is measured in *service time*: time in which loss can occur, that is covered, in the window
//! and not excluded. A night without agreement neither spends budget nor slows the burn, so rates hold
//! their meaning for office hours and for round the clock alike. Service time without evidence that the
//! contract leaves out of the agreed time is not service time either.
//!
//! - *Burn* is the share of service time that was lost, divided by the share that may be: at 1 the month
//!   ends with an empty budget.
//! - The tiers are those of the SRE workbook with the windows scaled from a month of 720 h to one of some
//!   240 h of service: 20 min, 2 h and 24 h, each with a short window of a twelfth that must burn as well,
//!   so that an alert ends soon after the fire. At the beginning of a month a window reaches back before
//!   it; that part counts as without loss, for the budget is new.
//! - The forecast lets the rest of the month burn at the rate of the month so far.
//! - A breach is *certain* when the loss exceeds the largest budget the month can still have: the one with
//!   no exclusion ahead, since exclusions only take agreed time away. Certain on what is known now: late
//!   evidence or an exclusion approved afterwards corrects the loss itself.
//!
//! Where the target changed within the month, budgets are those of each stretch together, and rates are relative
//! to the target in force at the moment of looking.
//!
//! Exact until printed. Deliberately absent: alerts (they read [`BurnTier::fires`]), and any smoothing.

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::percent::Percent;
use super::ratio::Ratio;
use super::span::{Span, Spans};

/// Long window of service time and the burn, in tenths, above which it is worth a message.
const TIERS: [(Millis, i64); 3] =
    [(Millis(20 * Millis::MINUTE.0), 144), (Millis(2 * Millis::HOUR.0), 60), (Millis(24 * Millis::HOUR.0), 10)];

/// A short window is this part of its long one.
const SHORT_WINDOW_PART: i64 = 12;

/// Until when the budget lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhaustion {
    /// It was used up at this instant.
    Past(UtcTime),
    /// It will be at this instant, at the rate of the month so far.
    Ahead(UtcTime),
    /// Not before the end of the month.
    Lasts,
}

/// Loss in the last stretch of service time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burn {
    /// Service time looked back on.
    pub window_ms: Millis,
    /// Loss in it.
    pub lost_ms: Millis,
    /// How fast that is; `None` when nothing may be lost at all.
    pub rate: Option<Ratio>,
}

/// A pair of windows with its threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BurnTier {
    /// Tenths of the burn above which both windows fire.
    pub threshold_tenths: i64,
    /// Tells a fire from a spark.
    pub long: Burn,
    /// Tells whether it still burns.
    pub short: Burn,
    /// Both burn faster than the threshold.
    pub fires: bool,
}

/// The month to come, from the month so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Loss the contract allows over the whole month, with the exclusions known now.
    pub budget_ms: Millis,
    /// Loss so far.
    pub spent_ms: Millis,
    /// What is left; negative after a breach.
    pub left_ms: Millis,
    /// Service time so far.
    pub elapsed_ms: Millis,
    /// Service time to come.
    pub ahead_ms: Millis,
    /// Burn of the month so far; `None` before its first service time, and when nothing may be lost.
    pub burn: Option<Ratio>,
    /// Fast, middle and slow.
    pub tiers: [BurnTier; 3],
    /// When the budget is gone.
    pub exhausted: Exhaustion,
    /// Availability at the end of the month at the rate so far; `None` before its first service time.
    pub projected: Option<Ratio>,
    /// Availability at the end of the month without any further loss; `None` when no time is agreed.
    pub best: Option<Ratio>,
    /// No later hour can mend it.
    pub breach_certain: bool,
}

/// What a forecast is made of.
#[derive(Debug)]
pub(super) struct Course {
    /// The one in force at the moment of looking: rates are relative to it.
    pub(super) target: Percent,
    /// Service time until now, and the part of it that is loss.
    pub(super) elapsed: Spans,
    pub(super) lost: Spans,
    /// Service time from now on.
    pub(super) ahead: Spans,
    /// The denominator of the month, with the exclusions known now.
    pub(super) month_agreed_ms: Millis,
    /// Loss allowed over the month, with the exclusions known now.
    pub(super) budget_ms: Millis,
    /// The largest that can still become.
    pub(super) most_budget_ms: Millis,
}

impl Course {
    pub(super) fn forecast(&self) -> Forecast {
        let budget_ms = self.budget_ms;
        let spent_ms = self.lost.total();
        let (elapsed_ms, ahead_ms) = (self.elapsed.total(), self.ahead.total());
        let whole = |ms: Millis| i128::from(ms.0);
        let agreed = whole(self.month_agreed_ms);
        // (agreed - spent × (elapsed + ahead) / elapsed) / agreed, with one division.
        let served = whole(elapsed_ms) + whole(ahead_ms);
        let kept = agreed * whole(elapsed_ms) - whole(spent_ms) * served;
        Forecast {
            budget_ms,
            spent_ms,
            left_ms: budget_ms.saturating_sub(spent_ms),
            elapsed_ms,
            ahead_ms,
            burn: self.rate(spent_ms, elapsed_ms),
            tiers: TIERS.map(|(window_ms, threshold_tenths)| self.tier(window_ms, threshold_tenths)),
            exhausted: self.exhaustion(budget_ms, spent_ms, elapsed_ms),
            projected: Ratio::new(kept, agreed * whole(elapsed_ms)),
            best: Ratio::new(agreed - whole(spent_ms), agreed),
            breach_certain: spent_ms > self.most_budget_ms,
        }
    }

    /// (lost / window) / (1 - target).
    fn rate(&self, lost_ms: Millis, window_ms: Millis) -> Option<Ratio> {
        let allowed = i128::from(Percent::FULL.micro() - self.target.micro());
        let full = i128::from(Percent::FULL.micro());
        Ratio::new(i128::from(lost_ms.0) * full, i128::from(window_ms.0) * allowed)
    }

    fn tier(&self, window_ms: Millis, threshold_tenths: i64) -> BurnTier {
        let (long, short) = (self.burn(window_ms), self.burn(Millis(window_ms.0 / SHORT_WINDOW_PART)));
        let fires = [long, short].iter().all(|burn| self.is_faster(burn, threshold_tenths));
        BurnTier { threshold_tenths, long, short, fires }
    }

    fn burn(&self, window_ms: Millis) -> Burn {
        let lost_ms = self.elapsed.last(window_ms).intersect(&self.lost).total();
        Burn { window_ms, lost_ms, rate: self.rate(lost_ms, window_ms) }
    }

    /// Compared without a division, so that a target of 100 % fires on any loss and on nothing else.
    fn is_faster(&self, burn: &Burn, threshold_tenths: i64) -> bool {
        let (full, target) = (i128::from(Percent::FULL.micro()), i128::from(self.target.micro()));
        let lost = i128::from(burn.lost_ms.0) * full * 10;
        lost > i128::from(threshold_tenths) * i128::from(burn.window_ms.0) * (full - target)
    }

    fn exhaustion(&self, budget_ms: Millis, spent_ms: Millis, elapsed_ms: Millis) -> Exhaustion {
        if spent_ms <= Millis::ZERO {
            return Exhaustion::Lasts;
        }
        if spent_ms >= budget_ms {
            return self.lost.passed(budget_ms).map_or(Exhaustion::Lasts, Exhaustion::Past);
        }
        let left_ms = budget_ms.saturating_sub(spent_ms);
        let lasts =
            Ratio::new(i128::from(elapsed_ms.0), i128::from(spent_ms.0)).and_then(|r| r.times_rounded_up(left_ms));
        match lasts {
            // An empty budget at the last instant is a target met.
            Some(lasts) if lasts < self.ahead.total() => {
                self.ahead.passed(lasts).map_or(Exhaustion::Lasts, Exhaustion::Ahead)
            }
            _ => Exhaustion::Lasts,
        }
    }
}

/// The part of `set` before and from `now` on.
pub(super) fn split(set: &Spans, now: UtcTime) -> (Spans, Spans) {
    let all = Span::ALWAYS;
    (set.within(Span::new(all.from, now)), set.within(Span::new(now, all.to)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A course of service in [0, 600) ms with `now` at 300, in which what is lost is part of what has passed.
    fn course() -> impl Strategy<Value = Course> {
        let set = || {
            prop::collection::vec((0_i64..600, 1_i64..60), 0..12).prop_map(|pairs| -> Spans {
                pairs.into_iter().map(|(from, length)| Span::new(UtcTime(from), UtcTime(from + length))).collect()
            })
        };
        (set(), set(), 0_i64..=100).prop_map(|(service, broken, target)| {
            let (elapsed, ahead) = split(&service, UtcTime(300));
            let lost = elapsed.intersect(&broken);
            let month_agreed_ms = service.total();
            let target = Percent::parse(&target.to_string()).expect("a percentage");
            let budget_ms = target.budget_of(month_agreed_ms);
            Course { target, elapsed, lost, ahead, month_agreed_ms, budget_ms, most_budget_ms: budget_ms }
        })
    }

    proptest! {
        #[test]
        fn the_budget_is_gone_at_the_first_millisecond_at_which_the_rate_has_used_it(course in course()) {
            let forecast = course.forecast();
            let (spent, elapsed) = (forecast.spent_ms.0, forecast.elapsed_ms.0);
            // Loss at `at`, times `elapsed`, when the rest burns like the month so far.
            let loss_at = |at: i64| {
                let served = course.ahead.total_within(Span::new(UtcTime(300), UtcTime(at))).0;
                spent * (elapsed + served)
            };
            let gone_at = |at: i64| loss_at(at) >= forecast.budget_ms.0 * elapsed;
            match forecast.exhausted {
                Exhaustion::Ahead(at) => prop_assert!(gone_at(at.0) && !gone_at(at.0 - 1) && loss_at(at.0) < loss_at(700)),
                Exhaustion::Lasts => prop_assert!(spent == 0 || loss_at(700) <= forecast.budget_ms.0 * elapsed + spent),
                Exhaustion::Past(at) => {
                    let before = |at: i64| course.lost.total_within(Span::new(UtcTime(0), UtcTime(at))).0;
                    prop_assert!(spent >= forecast.budget_ms.0 && spent > 0);
                    prop_assert_eq!(before(at.0), forecast.budget_ms.0);
                }
            }
        }

        #[test]
        fn a_burn_of_one_is_what_ends_the_month_on_target(course in course()) {
            let forecast = course.forecast();
            let (Some(burn), Some(projected)) = (forecast.burn, forecast.projected) else {
                return Ok(());
            };
            let met = projected.percent(6).replace('.', "").parse::<i64>().expect("digits") >= course.target.micro();
            let slow = burn.decimal(9).as_str() <= "1.000000000";
            prop_assert_eq!(met, slow, "{:?}", forecast);
        }
    }

    #[test]
    fn a_budget_that_is_empty_at_the_last_instant_lasts() {
        let exhausted = |lost: i64| {
            let course = Course {
                target: Percent::parse("99").expect("a percentage"),
                elapsed: Span::new(UtcTime(0), UtcTime(300)).into(),
                lost: Span::new(UtcTime(100), UtcTime(100 + lost)).into(),
                ahead: Span::new(UtcTime(500), UtcTime(800)).into(),
                month_agreed_ms: Millis(600),
                budget_ms: Millis(6),
                most_budget_ms: Millis(6),
            };
            course.forecast().exhausted
        };
        assert_eq!(exhausted(0), Exhaustion::Lasts);
        assert_eq!(exhausted(3), Exhaustion::Lasts);
        assert_eq!(exhausted(4), Exhaustion::Ahead(UtcTime(650)));
        assert_eq!(exhausted(6), Exhaustion::Past(UtcTime(106)));
        assert_eq!(exhausted(9), Exhaustion::Past(UtcTime(106)));
    }

    #[test]
    fn a_tier_fires_while_both_of_its_windows_burn() {
        let minute = |n: i64| UtcTime(n * Millis::MINUTE.0);
        // Ten hours of service, an outage of `length` minutes that ended `ago` minutes ago.
        let fires = |target: &str, length: i64, ago: i64| {
            let lost = Spans::from(Span::new(minute(600 - ago - length), minute(600 - ago)));
            let target = Percent::parse(target).expect("a percentage");
            let agreed = Millis(14_400 * Millis::MINUTE.0);
            let course = Course {
                target,
                elapsed: Span::new(minute(0), minute(600)).into(),
                lost,
                ahead: Spans::default(),
                month_agreed_ms: agreed,
                budget_ms: target.budget_of(agreed),
                most_budget_ms: target.budget_of(agreed),
            };
            course.forecast().tiers.map(|tier| tier.fires)
        };
        // 99.5 %: in 20 min 14.4 × 0.5 % is 86.4 s, in 2 h 6 × 0.5 % is 216 s, in 24 h 1 × 0.5 % is 432 s.
        for (length, ago, expected) in [
            (0, 0, [false, false, false]),
            (1, 0, [false, false, false]),
            (2, 0, [true, false, false]),
            (2, 2, [false, false, false]),
            (4, 0, [true, true, false]),
            (4, 5, [false, true, false]),
            (8, 0, [true, true, true]),
            (8, 60, [false, false, true]),
            (8, 120, [false, false, false]),
        ] {
            assert_eq!(fires("99.5", length, ago), expected, "{length} min, {ago} min ago");
        }
        assert_eq!(fires("100", 0, 0), [false; 3]);
        assert_eq!(fires("100", 1, 0), [true; 3]);
        assert_eq!(fires("0", 8, 0), [false; 3]);
    }
}
