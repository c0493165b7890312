//! `peil-collector sla verify REPORT --data BUNDLE`: is the figure in this report what these data give?
//!
//! Recomputes from the bundle with the very function the collector runs, compares every number, and the digest of
//! everything it was made from. Needs no collector, no database, no network.
//!
//! Exit status: 0 equal, 3 it differs (one line for each place), 2 unusable input, 1 the program itself failed.

use std::path::Path;
use std::process::ExitCode;

use peil_proto::settings::Refused;
use serde_json::Value;

use super::bundle::Bundle;
use super::sealed::{self, Findings, Received};
use super::{finish_all, read_text};
use crate::contract::calendar::tzdata_version;

/// Exit status for a report that is not what its data give.
const DIFFERS: u8 = 3;

/// Places where `report` is not what `bundle` gives; none when they are equal.
pub fn differences(report: &Received, bundle: &Bundle) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |place: &str, report: &Value, data: &Value| {
        if report != data {
            found.push(format!("{place}: the report says {report}, the data give {data}"));
        }
    };
    compare("service", &Value::from(report.service.as_str()), &Value::from(bundle.service.as_str()));
    compare("month", &Value::from(report.month.as_str()), &Value::from(bundle.dated.month.to_string()));
    let findings = Findings::of(bundle, None);
    for (name, value) in findings.inputs.to_value().as_object().into_iter().flatten() {
        compare(&format!("inputs.{name}"), report.inputs.get(name).unwrap_or(&Value::Null), value);
    }
    let (said, given) = (&report.figure, &findings.figure);
    let keys =
        |value: &Value| value.as_object().map(|table| table.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut names = keys(given);
    names.extend(keys(said).into_iter().filter(|key| given.get(key).is_none()));
    for key in names {
        let of = |value: &Value| value.get(&key).cloned().unwrap_or_default();
        compare(&format!("figure.{key}"), &of(said), &of(given));
    }
    found
}

/// What is printed, and whether the two are equal.
///
/// # Errors
/// One [`Refused`] per unusable file.
pub fn answer(report: (&str, &str), data: (&str, &str)) -> Result<(String, bool), Vec<Refused>> {
    let (report, bundle) = match (sealed::read(report.0, report.1), Bundle::read(data.0, data.1)) {
        (Ok(report), Ok(bundle)) => (report, bundle),
        (report, bundle) => return Err([report.err(), bundle.err()].into_iter().flatten().collect()),
    };
    let found = differences(&report, &bundle);
    let mut text = String::new();
    if bundle.tzdata != tzdata_version() {
        text.push_str(&format!(
            "note: the data were cut by the zones of {}, this program has those of {}\n",
            bundle.tzdata,
            tzdata_version()
        ));
    }
    if found.is_empty() {
        let Received { service, month, version, .. } = &report;
        text.push_str(&format!("equal: {service:?} {month}, edition {version}, is what these data give\n"));
    }
    found.iter().for_each(|line| text.push_str(&format!("differs: {line}\n")));
    Ok((text, found.is_empty()))
}

/// Compares two files, prints what was found, and says how it went.
pub fn command(report: &Path, data: &Path) -> ExitCode {
    let answered = match (read_text(report), read_text(data)) {
        (Ok((report, text)), Ok((data, bundle))) => answer((&report, &text), (&data, &bundle)),
        (report, data) => Err([report.err(), data.err()].into_iter().flatten().collect()),
    };
    match answered {
        Ok((text, true)) => finish_all(Ok(text)),
        Ok((text, false)) => match finish_all(Ok(text)) {
            code if code == ExitCode::SUCCESS => ExitCode::from(DIFFERS),
            failed => failed,
        },
        Err(refused) => finish_all(Err(refused)),
    }
}
