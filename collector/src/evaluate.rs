//! `peil-collector sla evaluate FILE`: recompute a figure from a file, anywhere, with nothing else.
//!
//! A customer checks the figure in a report, an auditor recomputes one, a test suite compares with an
//! oracle. The file is read ([`input`]), judged by the very function the collector runs
//! ([`crate::contract::evaluate`]) and printed as one JSON object ([`output`]), formats.md §1; or as a
//! line per interval of the month ([`csv`]), or as an account to follow with a pocket calculator
//! ([`explain`]).
//!
//! Exit status: 0 evaluated; 2 unusable input, one line per mistake on standard error; 1 the program
//! itself failed. Limits: [`FILE_BYTES_MAX`], on standard input too.

pub mod input;
pub mod output;
pub mod csv;
pub mod explain;
pub mod forecast;
pub mod whatif;
pub mod canonical;
pub mod written;
pub mod bundle;
pub mod sealed;
pub mod verify;

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod refusals;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use peil_proto::settings::{FILE_BYTES_MAX, Refused, read_file};
use peil_proto::time::UtcTime;

use crate::contract;

/// Exit status for input that cannot be used.
const UNUSABLE: u8 = 2;

/// What is asked of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The figure as one JSON object on one line.
    Json,
    /// Every interval of the month as a table.
    Csv,
    /// The whole account in words and whole numbers.
    Explain,
}

/// The figure of `text`, which people know as `file`: the line of JSON without its end.
///
/// # Errors
/// [`Refused`] with every mistake.
pub fn evaluate_text(file: &str, text: &str) -> Result<String, Refused> {
    let case = input::read_case(file, text)?;
    Ok(output::to_json(&contract::evaluate(&case), &case.terms.timezone))
}

/// The answer to `text`, which people know as `file`, with its last line's end.
///
/// # Errors
/// [`Refused`] with every mistake.
pub fn answer(file: &str, text: &str, form: Form) -> Result<String, Refused> {
    let case = input::read_case(file, text)?;
    let (figure, intervals) = contract::evaluate_with_attribution(&case);
    Ok(match form {
        Form::Json => output::to_json(&figure, &case.terms.timezone) + "\n",
        Form::Csv => csv::to_csv(&intervals, &case.terms.timezone),
        Form::Explain => explain::to_text(&case, &figure, &intervals),
    })
}

/// Evaluates `file` (`-` is standard input), prints the answer or the mistakes, and says how it went.
pub fn command(file: &Path, form: Form) -> ExitCode {
    finish(read_text(file).and_then(|(name, text)| answer(&name, &text, form)))
}

/// Compares `file` with what it would be under `other`, prints both or the mistakes of both files, and says
/// how it went.
pub fn what_if_command(file: &Path, other: &Path) -> ExitCode {
    let stdin = Path::new("-");
    if file == stdin && other == stdin {
        let why = "can be read only once; give one of the two as a file".to_owned();
        return finish_all(Err(vec![Refused { file: "standard input".to_owned(), mistakes: vec![why] }]));
    }
    finish_all(match (read_text(file), read_text(other)) {
        (Ok((file, text)), Ok((other, changes))) => whatif::answer(&file, &text, &other, &changes),
        (file, other) => Err([file.err(), other.err()].into_iter().flatten().collect()),
    })
}

/// Forecasts the month of `file` at `at`, prints the answer or the mistakes, and says how it went.
pub fn forecast_command(file: &Path, at: UtcTime) -> ExitCode {
    finish(read_text(file).and_then(|(name, text)| forecast::answer(&name, &text, at)))
}

/// Prints what came out.
fn finish(answer: Result<String, Refused>) -> ExitCode {
    finish_all(answer.map_err(|refused| vec![refused]))
}

fn finish_all(answer: Result<String, Vec<Refused>>) -> ExitCode {
    let printed = match answer {
        Ok(text) => std::io::stdout().write_all(text.as_bytes()).map(|()| ExitCode::SUCCESS),
        Err(refused) => {
            let mut stderr = std::io::stderr().lock();
            let mut lines = refused.iter().flat_map(mistake_lines);
            lines.try_for_each(|line| writeln!(stderr, "{line}")).map(|()| ExitCode::from(UNUSABLE))
        }
    };
    printed.unwrap_or(ExitCode::FAILURE)
}

/// What people call `file`, and what is in it.
fn read_text(file: &Path) -> Result<(String, String), Refused> {
    if file == Path::new("-") {
        return Ok(("standard input".to_owned(), read_stdin()?));
    }
    Ok((file.display().to_string(), read_file(file)?))
}

/// One line per mistake, whatever the keys and values in it contain.
pub fn mistake_lines(refused: &Refused) -> impl Iterator<Item = String> + '_ {
    refused.mistakes.iter().map(|mistake| format!("{}: {}", refused.file, one_line(mistake)))
}

/// `text` without control characters: it stays on its line and says nothing to the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn read_stdin() -> Result<String, Refused> {
    let refuse = |why: String| Refused { file: "standard input".to_owned(), mistakes: vec![why] };
    let mut text = String::new();
    let mut limited = std::io::stdin().lock().take(FILE_BYTES_MAX + 1);
    let bytes = limited.read_to_string(&mut text).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    if u64::try_from(bytes).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(refuse(format!("is larger than {FILE_BYTES_MAX} bytes, the limit")));
    }
    Ok(text)
}
