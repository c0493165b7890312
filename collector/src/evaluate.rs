//! `peil-collector sla evaluate FILE`: recompute a figure from a file, anywhere, with nothing else.
//!
//! A customer checks the figure in a report, an auditor recomputes one, a test suite compares with an
//! oracle. The file is read ([`input`]), judged by the very function the collector runs
//! ([`crate::contract::evaluate`]) and printed as one JSON object ([`output`]), formats.md §1.
//!
//! Exit status: 0 evaluated; 2 unusable input, one line per mistake on standard error; 1 the program
//! itself failed. Limits: [`FILE_BYTES_MAX`], on standard input too.

pub mod input;
pub mod output;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod refusals;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use peil_proto::settings::{FILE_BYTES_MAX, Refused, read_file};

use crate::contract;

/// Exit status for input that cannot be used.
const UNUSABLE: u8 = 2;

/// Reads `file` (`-` is standard input) and returns the line to print.
///
/// # Errors
/// [`Refused`] with every mistake.
pub fn evaluate(file: &Path) -> Result<String, Refused> {
    if file == Path::new("-") {
        return evaluate_text("standard input", &read_stdin()?);
    }
    evaluate_text(&file.display().to_string(), &read_file(file)?)
}

/// The answer to `text`, which people know as `file`.
///
/// # Errors
/// [`Refused`] with every mistake.
pub fn evaluate_text(file: &str, text: &str) -> Result<String, Refused> {
    let case = input::read_case(file, text)?;
    let figure = contract::evaluate(&case);
    Ok(output::to_json(&figure, &case.terms.timezone))
}

/// Evaluates `file`, prints the answer or the mistakes, and says how it went.
pub fn command(file: &Path) -> ExitCode {
    let printed = match evaluate(file) {
        Ok(line) => writeln!(std::io::stdout(), "{line}").map(|()| ExitCode::SUCCESS),
        Err(refused) => {
            let mut stderr = std::io::stderr().lock();
            mistake_lines(&refused).try_for_each(|line| writeln!(stderr, "{line}")).map(|()| ExitCode::from(UNUSABLE))
        }
    };
    printed.unwrap_or(ExitCode::FAILURE)
}

/// One line per mistake, whatever the keys and values in it contain.
pub fn mistake_lines(refused: &Refused) -> impl Iterator<Item = String> + '_ {
    refused.mistakes.iter().map(|mistake| {
        let line: String = mistake.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        format!("{}: {line}", refused.file)
    })
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
