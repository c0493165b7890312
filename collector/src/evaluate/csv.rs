//! The month as a table for a spreadsheet: one line per interval of the attribution, RFC 4180.
//!
//! Columns: `from`, `to` in the contract's zone with their offset; `from_utc`, `to_utc`; `ms`, the length;
//! `bucket`; `cause`: the checks that made it down or unknown, joined by `; `, or the exclusion's id. The
//! sum of `ms` is the length of the month; the sums per bucket are those of the figure.
//!
//! Names come from a file that others wrote, and spreadsheets run a cell that starts like a formula: such
//! a cell gets an apostrophe in front. Control characters become U+FFFD, so that a line is an interval.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::one_line;
use crate::contract::attribution::Interval;
use crate::contract::calendar::local_rfc3339;

const HEADER: &str = "from,to,from_utc,to_utc,ms,bucket,cause\r\n";

/// Header and lines, each ended by CR LF; times have the offset that holds in `zone`.
pub fn to_csv(intervals: &[Interval], zone: &TimeZone) -> String {
    let mut text = HEADER.to_owned();
    for Interval { span, bucket, cause } in intervals {
        let (from, to) = (local_rfc3339(span.from, zone), local_rfc3339(span.to, zone));
        let (bucket, cause) = (cell(&bucket.to_string()), cell(&cause.to_string()));
        // Writing to a string cannot fail.
        let _ = write!(text, "{from},{to},{},{},{},{bucket},{cause}\r\n", span.from, span.to, span.length());
    }
    text
}

/// One cell, quoted where it must be.
fn cell(text: &str) -> String {
    let text = one_line(text);
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn a_cell_stays_one_cell_whatever_its_name() {
        for (name, written) in [
            ("web", "web"),
            ("", ""),
            ("a, b", "\"a, b\""),
            ("the \"big\" one", "\"the \"\"big\"\" one\""),
            ("=1+1", "'=1+1"),
            ("@sum(a,b)", "\"'@sum(a,b)\""),
            ("two\r\nlines", "two\u{fffd}\u{fffd}lines"),
            ("\t=x", "\u{fffd}=x"),
        ] {
            assert_eq!(cell(name), written, "{name:?}");
        }
    }
}
