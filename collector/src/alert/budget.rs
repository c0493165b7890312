//! Alerts about the budget: it burns too fast now, or the month will end below its target at this rate.
//!
//! Two alerts for two people. A *burn* is about this hour: a tier of the forecast fires (14.4 times the allowed rate
//! over 20 minutes of service time, or 6 times over two hours), and on-call can still do something. A *forecast* is
//! about the month: nothing burns, but the sum will not come out; it goes to whoever answers for the contract, so a
//! channel gets it only when it asks for it by name (`kinds`).
//!
//! And about figures that are not what they were said to be: a sealed month on which something new is known, and a
//! figure shown that the blocks do not give.
//!
//! The slow tier (once the allowed rate over 24 hours) wakes nobody: it is a forecast.

use peil_proto::time::UtcTime;
use peil_proto::units::Millis;

use super::{AlertKind, Wanted, in_words};
use crate::snapshot::{Notice, NoticeKind, ServiceView};

/// Tiers that wake somebody: fast and middle.
const WAKING_TIERS: usize = 2;
/// A forecast from less service time than this says little: one short outage on the first morning is no trend.
const FORECAST_AFTER: Millis = Millis::DAY;

pub(super) fn burn(service: &ServiceView, now: UtcTime) -> Option<Wanted> {
    let tier = service.forecast.tiers.iter().take(WAKING_TIERS).find(|tier| tier.fires)?;
    Some(Wanted {
        key: format!("budget_burn/{}/{}", service.name, service.month),
        kind: AlertKind::BudgetBurn,
        subject: service.name.clone(),
        summary: format!(
            "{} lost {} of the last {} of service time, more than {} times what its target allows; {} of the budget is left",
            service.name,
            in_words(tier.lost_ms),
            in_words(tier.window_ms),
            tier.threshold,
            in_words(service.budget_left_ms)
        ),
        action: format!("Stop what makes it fail: {}.", because(service)),
        since: now,
    })
}

pub(super) fn forecast(service: &ServiceView, now: UtcTime) -> Option<Wanted> {
    let forecast = &service.forecast;
    let said = forecast.exhausted == "ahead" && forecast.elapsed_ms >= FORECAST_AFTER && !service.breach_certain;
    let at = forecast.exhausted_at.filter(|_| said)?;
    Some(Wanted {
        key: format!("sla_forecast/{}/{}", service.name, service.month),
        kind: AlertKind::SlaForecast,
        subject: service.name.clone(),
        summary: format!(
            "{} will miss {} % in {} at the rate so far: the budget is used up at {at}, the month would end at {} %",
            service.name,
            service.target,
            service.month,
            forecast.projected.as_deref().unwrap_or("an unknown")
        ),
        action: format!(
            "{} of the budget is left; without any further loss the month ends at {} %. Weigh what is planned for the \
             rest of it.",
            in_words(service.budget_left_ms),
            forecast.best.as_deref().unwrap_or("an unknown")
        ),
        since: now,
    })
}

/// A figure that is not what it was said to be.
pub(super) fn differs(notice: &Notice) -> Wanted {
    let Notice { kind, service, month, detail, since } = notice;
    let (kind, action) = match kind {
        NoticeKind::MonthDiffers => (
            AlertKind::MonthDiffers,
            format!(
                "Look at what changed; if it is right, `peil-collector month supersede {service} {month}` with a reason."
            ),
        ),
        NoticeKind::FigureDiffers => (
            AlertKind::FigureDiffers,
            "This is a fault of the collector: keep its data directory, restart it (which folds everything anew) and \
             report it."
                .to_owned(),
        ),
    };
    Wanted {
        key: format!("{}/{service}/{month}", kind.word()),
        kind,
        subject: service.clone(),
        summary: format!("{service}: {detail}"),
        action,
        since: *since,
    }
}

fn because(service: &ServiceView) -> String {
    if service.because.is_empty() { "the page lists its outages".to_owned() } else { service.because.join(", ") }
}
