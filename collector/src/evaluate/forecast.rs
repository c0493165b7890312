//! `peil-collector sla forecast FILE --at TIME`: the month so far and what it says about its end, as JSON.
//!
//! FILE is that of `sla evaluate`; what it says about times after TIME is not looked at, apart from
//! exclusions that are planned. Rates and percentages have nine decimals, floored.

use jiff::tz::TimeZone;
use peil_proto::settings::Refused;
use peil_proto::time::UtcTime;
use serde::Serialize;

use super::input;
use crate::contract;
use crate::contract::calendar::local_rfc3339;
use crate::contract::forecast::{Burn, BurnTier, Exhaustion, Forecast};
use crate::contract::ratio::Ratio;

/// Decimals of rates and percentages.
const PLACES: usize = 9;

#[derive(Serialize)]
struct Output {
    month: String,
    at: String,
    budget_ms: i64,
    spent_ms: i64,
    left_ms: i64,
    elapsed_ms: i64,
    ahead_ms: i64,
    burn: Option<String>,
    tiers: Vec<TierOut>,
    exhausted: &'static str,
    exhausted_at: Option<String>,
    projected: Option<String>,
    best: Option<String>,
    breach_certain: bool,
}

#[derive(Serialize)]
struct TierOut {
    threshold: String,
    fires: bool,
    long: BurnOut,
    short: BurnOut,
}

#[derive(Serialize)]
struct BurnOut {
    window_ms: i64,
    lost_ms: i64,
    burn: Option<String>,
}

/// The forecast of `text`, which people know as `file`, at `at`: one line with its end.
///
/// # Errors
/// [`Refused`] with every mistake.
pub fn answer(file: &str, text: &str, at: UtcTime) -> Result<String, Refused> {
    let case = input::read_case(file, text)?;
    let forecast = contract::forecast(&case, at);
    Ok(to_json(&case.month.to_string(), at, &forecast, &case.terms.timezone) + "\n")
}

fn to_json(month: &str, at: UtcTime, forecast: &Forecast, zone: &TimeZone) -> String {
    let (exhausted, exhausted_at) = match forecast.exhausted {
        Exhaustion::Past(at) => ("past", Some(local_rfc3339(at, zone))),
        Exhaustion::Ahead(at) => ("ahead", Some(local_rfc3339(at, zone))),
        Exhaustion::Lasts => ("lasts", None),
    };
    let output = Output {
        month: month.to_owned(),
        at: local_rfc3339(at, zone),
        budget_ms: forecast.budget_ms.0,
        spent_ms: forecast.spent_ms.0,
        left_ms: forecast.left_ms.0,
        elapsed_ms: forecast.elapsed_ms.0,
        ahead_ms: forecast.ahead_ms.0,
        burn: decimal(forecast.burn),
        tiers: forecast.tiers.iter().map(tier).collect(),
        exhausted,
        exhausted_at,
        projected: forecast.projected.map(|ratio| ratio.percent(PLACES)),
        best: forecast.best.map(|ratio| ratio.percent(PLACES)),
        breach_certain: forecast.breach_certain,
    };
    // Strings and integers under string keys: serialising them cannot fail.
    serde_json::to_string(&output).unwrap_or_default()
}

fn tier(tier: &BurnTier) -> TierOut {
    let burn = |burn: &Burn| BurnOut { window_ms: burn.window_ms.0, lost_ms: burn.lost_ms.0, burn: decimal(burn.rate) };
    let threshold = format!("{}.{}", tier.threshold_tenths / 10, tier.threshold_tenths % 10);
    TierOut { threshold, fires: tier.fires, long: burn(&tier.long), short: burn(&tier.short) }
}

fn decimal(ratio: Option<Ratio>) -> Option<String> {
    ratio.map(|ratio| ratio.decimal(PLACES))
}
