//! The figure as an account that can be followed with a pocket calculator.
//!
//! First the sum: the month minus what is out of the agreement, with every exclusion and why it counts or
//! does not. Then each outage with the part that counted and where the rest went, the division, the
//! verdict and the budget, all in whole milliseconds. Nothing is computed here but the lines themselves:
//! numbers come from the figure and the attribution, the very ones of the JSON answer.

use std::fmt::{self, Write as _};

use peil_proto::units::Millis;

use super::one_line;
use crate::contract::Case;
use crate::contract::attribution::{Bucket, Cause, Interval};
use crate::contract::calendar::local_rfc3339;
use crate::contract::exclusion::{Exclusion, ExclusionRow, Refusal};
use crate::contract::figure::{Figure, Verdict};
use crate::contract::outage::{Outage, Standing};
use crate::contract::percent::Percent;
use crate::contract::terms::UnknownClause;

/// Lines of text, each ended by a newline.
pub fn to_text(case: &Case, figure: &Figure, intervals: &[Interval]) -> String {
    let mut text = String::new();
    let account = Account { case, figure, intervals };
    // Writing to a string cannot fail.
    let _ = account
        .sum(&mut text)
        .and_then(|()| account.outages(&mut text))
        .and_then(|()| account.division(&mut text))
        .and_then(|()| account.verdict(&mut text))
        .and_then(|()| account.budget(&mut text));
    text
}

struct Account<'a> {
    case: &'a Case,
    figure: &'a Figure,
    intervals: &'a [Interval],
}

impl Account<'_> {
    fn sum(&self, out: &mut String) -> fmt::Result {
        let (figure, terms) = (self.figure, &self.case.terms);
        let month = self.case.month.span(&terms.timezone);
        let zone = terms.timezone.iana_name().unwrap_or("UTC");
        writeln!(out, "Availability of {} in {zone}, target {} %\n", figure.month, terms.target)?;
        writeln!(out, "The sum, in milliseconds (and hours)")?;
        row(out, "  month", figure.month_ms, &format!("{} to {}", self.at(month.from), self.at(month.to)))?;
        row(out, "- not covered", figure.not_covered_ms, "")?;
        row(out, "- outside the window", figure.out_of_window_ms, "")?;
        row(out, "- holidays", figure.holiday_ms, "")?;
        row(out, "- excluded", figure.excluded_ms, "")?;
        for (exclusion, counted) in self.case.exclusions.iter().zip(&figure.exclusions) {
            let name = format!("    {}", one_line(&exclusion.id));
            row(out, &name, counted.counted_ms, &self.standing(exclusion, counted))?;
        }
        let known_ms = figure.up_ms.saturating_add(figure.down_ms);
        row(out, "= up, down or unknown", known_ms.saturating_add(figure.unknown_ms), "")?;
        row(out, "    up", figure.up_ms, "")?;
        for (cause, why) in [
            (Cause::FullMonth, "not covered: the contract counts the full month"),
            (Cause::Unconfirmed(Vec::new()), "failures too short to be confirmed"),
            (Cause::Exclusion(String::new()), "maintenance, which the contract counts as up"),
        ] {
            let alike = |other: &Cause| std::mem::discriminant(other) == std::mem::discriminant(&cause);
            let up = self.intervals.iter().filter(|i| i.bucket == Bucket::Up && alike(&i.cause));
            let part = up.fold(Millis::ZERO, |sum, interval| sum.saturating_add(interval.span.length()));
            if part != Millis::ZERO {
                row(out, "      of it", part, why)?;
            }
        }
        row(out, "    down", figure.down_ms, "")?;
        let (clause, agreed, loss) = match terms.unknown {
            UnknownClause::Down => ("counts as down", "up + down + unknown", "down + unknown"),
            UnknownClause::Excluded => ("is taken out of the agreed time", "up + down", "down"),
            UnknownClause::Up => ("counts as up", "up + down + unknown", "down"),
        };
        row(out, "    unknown", figure.unknown_ms, clause)?;
        row(out, "agreed time", figure.agreed_ms, agreed)?;
        row(out, "loss", figure.counted_down_ms, loss)
    }

    /// Whether and why an exclusion counts.
    fn standing(&self, exclusion: &Exclusion, row: &ExclusionRow) -> String {
        let when = format!("{} to {}", self.at(exclusion.span.from), self.at(exclusion.span.to));
        let notice_hours = self.case.terms.maintenance.notice.0 / Millis::HOUR.0;
        let why = match row.refused {
            None if row.counted_ms == Millis::ZERO => "0 of its own: all of it is on another one's account".to_owned(),
            None => "counts".to_owned(),
            Some(Refusal::NotApproved) => "does not count: nobody approved it".to_owned(),
            Some(Refusal::LateNotice) => match exclusion.announced_at {
                Some(at) => format!("does not count: announced at {}, asked is {notice_hours} h ahead", self.at(at)),
                None => format!("does not count: never announced, asked is {notice_hours} h ahead"),
            },
            Some(Refusal::OverCap) => {
                let cap = self.case.terms.maintenance.monthly_cap.unwrap_or_default();
                format!("counts up to the cap of {} min a month; the rest does not", cap.0 / Millis::MINUTE.0)
            }
            Some(Refusal::OutsideWindow) => "does not count: no part of it lies in agreed time".to_owned(),
        };
        format!("{when}: {why}")
    }

    fn outages(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\nOutages")?;
        if self.figure.outages.is_empty() {
            writeln!(out, "  none")?;
        }
        for (i, outage) in self.figure.outages.iter().enumerate() {
            let because: Vec<String> = outage.because.iter().map(|name| one_line(name)).collect();
            let (from, to) = (self.at(outage.span.from), self.at(outage.span.to));
            let length = outage.span.length();
            writeln!(out, "  {}. {from} to {to}, {length} ms: {}", i + 1, because.join("; "))?;
            writeln!(out, "     {} ms counted", outage.counted_ms)?;
            if outage.standing == Standing::Transient {
                let confirm = self.case.terms.confirm.get();
                writeln!(out, "     not an outage: fewer than {confirm} failed samples in a row")?;
                continue;
            }
            for (bucket, ms) in self.elsewhere(outage) {
                writeln!(out, "     {ms} ms not: {}", one_line(&bucket))?;
            }
        }
        Ok(())
    }

    /// Where the part of an outage went that is not loss, in order of time.
    fn elsewhere(&self, outage: &Outage) -> Vec<(String, Millis)> {
        let mut parts: Vec<(String, Millis)> = Vec::new();
        let start = self.intervals.partition_point(|interval| interval.span.to <= outage.span.from);
        let inside = self.intervals[start..].iter().take_while(|interval| interval.span.from < outage.span.to);
        for interval in inside.filter(|interval| interval.bucket != Bucket::Down) {
            let word = match (&interval.bucket, &interval.cause) {
                (Bucket::Up, Cause::Exclusion(id)) => format!("up, maintenance {id}"),
                (Bucket::Up, Cause::FullMonth) => "up, not covered".to_owned(),
                (bucket, _) => bucket.to_string(),
            };
            let length = interval.span.clip(outage.span).length();
            match parts.iter_mut().find(|(known, _)| *known == word) {
                Some((_, sum)) => *sum = sum.saturating_add(length),
                None => parts.push((word, length)),
            }
        }
        parts
    }

    fn division(&self, out: &mut String) -> fmt::Result {
        let figure = self.figure;
        let (agreed, loss) = (i128::from(figure.agreed_ms.0), i128::from(figure.counted_down_ms.0));
        let full = i128::from(Percent::FULL.micro());
        writeln!(out, "\nThe division, in millionths of a percent")?;
        let Some(official) = figure.official else {
            return writeln!(out, "  no time was agreed: there is nothing to divide");
        };
        let product = (agreed - loss) * full;
        writeln!(out, "  ({agreed} - {loss}) x {full} / {agreed}")?;
        writeln!(out, "  = {} remainder {}", product / agreed, product % agreed)?;
        writeln!(out, "  official {official} %, never rounded up")?;
        let text = |percent: Option<Percent>| percent.map_or("none".to_owned(), |percent| format!("{percent} %"));
        let (worst, best) = (text(figure.worst), text(figure.best));
        writeln!(out, "  worst {worst} (all unknown as down), best {best} (all unknown as up)")
    }

    fn verdict(&self, out: &mut String) -> fmt::Result {
        let (figure, terms) = (self.figure, &self.case.terms);
        writeln!(out, "\nThe verdict, before any rounding")?;
        let known_ms = figure.up_ms.saturating_add(figure.down_ms);
        let judged_ms = known_ms.saturating_add(figure.unknown_ms);
        match figure.verdict {
            Verdict::NotApplicable => writeln!(out, "  no time was agreed: not_applicable"),
            Verdict::Undetermined => {
                compared(out, "known time", known_ms, judged_ms, terms.min_known)?;
                compared(out, "all unknown as down", figure.up_ms, judged_ms, terms.target)?;
                let best_ms = figure.up_ms.saturating_add(figure.unknown_ms);
                compared(out, "all unknown as up", best_ms, judged_ms, terms.target)?;
                writeln!(out, "  too little is known, and what is not known decides: undetermined")
            }
            verdict @ (Verdict::Met | Verdict::Breached) => {
                let kept_ms = figure.agreed_ms.saturating_sub(figure.counted_down_ms);
                compared(out, "agreed time without loss", kept_ms, figure.agreed_ms, terms.target)?;
                writeln!(out, "  {}", verdict.word())
            }
        }
    }

    fn budget(&self, out: &mut String) -> fmt::Result {
        let Figure { agreed_ms, budget_ms, counted_down_ms, budget_left_ms, .. } = self.figure;
        let (full, target) = (Percent::FULL.micro(), self.case.terms.target.micro());
        writeln!(out, "\nThe budget")?;
        writeln!(out, "  {agreed_ms} x ({full} - {target}) / {full} = {budget_ms} ms, floored")?;
        writeln!(out, "  {budget_ms} - {counted_down_ms} spent = {budget_left_ms} ms left")
    }

    fn at(&self, at: peil_proto::time::UtcTime) -> String {
        local_rfc3339(at, &self.case.terms.timezone)
    }
}

/// One line of the sum.
fn row(out: &mut String, what: &str, ms: Millis, note: &str) -> fmt::Result {
    let (secs, rest) = (ms.0 / 1_000, ms.0 % 1_000);
    let (hours, minutes, secs) = (secs / 3_600, secs / 60 % 60, secs % 60);
    let line = format!("  {what:<26}{ms:>12}  {hours:>3}:{minutes:02}:{secs:02}.{rest:03}  {note}", ms = ms.0);
    writeln!(out, "{}", line.trim_end())
}

/// `part / whole` beside `asked`, as the two whole numbers that are compared.
fn compared(out: &mut String, what: &str, part: Millis, whole: Millis, asked: Percent) -> fmt::Result {
    let (left, right) = (i128::from(part.0), i128::from(whole.0));
    let (full, micro) = (i128::from(Percent::FULL.micro()), i128::from(asked.micro()));
    let sign = if asked.is_reached_by(part, whole) { ">=" } else { "<" };
    writeln!(out, "  {what}: {left} x {full} {sign} {right} x {micro}")?;
    writeln!(out, "    {} {sign} {}", left * full, right * micro)
}
