//! Cuts a stream of `Field: value` text into stanzas, as dpkg's status, apt's indexes and preferences use.
//!
//! Text is pushed in (it is a [`Write`]), because one of the decompressors can only push. One stanza at
//! a time is held, so 50 MB of lists need no more memory than their largest stanza. Lines of a stanza
//! are found by the standard library's `memchr`.
//!
//! Assumes nothing about the bytes: no UTF-8, no final newline, no order of fields. A stream that ends in
//! the middle of a line gives its last stanza without that line, and says [`Ending::Cut`].

use std::io::{self, BufRead, Write};

/// The longest stanza kept. Of a longer one the lines that do not fit are dropped; real ones stay below
/// 100 kB (a `Conffiles` or `Description` list), and the fields we need stand at the top.
pub const STANZA_BYTES_MAX: usize = 1 << 20;

/// How the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// After a newline (or with nothing at all).
    Whole,
    /// In the middle of a line, which was dropped.
    Cut,
}

/// Calls `each` with every stanza, without the blank line that ends it.
pub struct Stanzas<F: FnMut(&[u8])> {
    each: F,
    held: Vec<u8>,
    line_start: usize,
    line: Line,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Kept,
    Dropped,
}

impl<F: FnMut(&[u8])> Stanzas<F> {
    /// A splitter that has seen nothing yet.
    pub fn new(each: F) -> Self {
        Self { each, held: Vec::new(), line_start: 0, line: Line::Kept }
    }

    /// Gives out the last stanza.
    pub fn finish(mut self) -> Ending {
        let cut = self.line == Line::Dropped || self.held.len() > self.line_start;
        self.held.truncate(self.line_start);
        self.emit();
        if cut { Ending::Cut } else { Ending::Whole }
    }

    fn emit(&mut self) {
        if !self.held.is_empty() {
            (self.each)(&self.held);
        }
        self.held.clear();
        self.line_start = 0;
    }

    fn line_complete(&mut self) {
        if self.held[self.line_start..].trim_ascii().is_empty() {
            self.held.truncate(self.line_start);
            self.emit();
        } else {
            self.line_start = self.held.len();
        }
    }
}

impl<F: FnMut(&[u8])> Write for Stanzas<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut rest = data;
        while !rest.is_empty() {
            if self.line == Line::Dropped {
                let chunk = rest;
                let skipped = rest.skip_until(b'\n')?;
                if chunk[..skipped].ends_with(b"\n") {
                    self.line = Line::Kept;
                }
                continue;
            }
            rest.read_until(b'\n', &mut self.held)?;
            let ended = self.held.ends_with(b"\n");
            if self.held.len() > STANZA_BYTES_MAX && !self.held[self.line_start..].trim_ascii().is_empty() {
                self.held.truncate(self.line_start);
                self.line = if ended { Line::Kept } else { Line::Dropped };
            } else if ended {
                self.line_complete();
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first line of the field `name` (case does not matter), without surrounding blanks.
pub fn field<'a>(stanza: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields(stanza).find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// [`field`] as text; bytes that are not UTF-8 become U+FFFD.
pub fn text(stanza: &[u8], name: &str) -> Option<String> {
    field(stanza, name).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Every `Field: value` of a stanza; continuation lines and comments are left out.
pub fn fields(stanza: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    stanza.split(|&b| b == b'\n').filter(|line| !matches!(line.first(), Some(b' ' | b'\t' | b'#'))).filter_map(|line| {
        let colon = line.iter().position(|&b| b == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> (Vec<String>, Ending) {
        let mut found = Vec::new();
        let mut stanzas = Stanzas::new(|s: &[u8]| found.push(String::from_utf8_lossy(s).into_owned()));
        for chunk in chunks {
            stanzas.write_all(chunk).unwrap();
        }
        let ending = stanzas.finish();
        (found, ending)
    }

    #[test]
    fn blank_lines_end_a_stanza_wherever_the_chunks_break() {
        let (found, ending) = split(&[b"A: 1\nB:", b" 2\n", b"\n\n \nA: 3", b"\n"]);
        assert_eq!(found, ["A: 1\nB: 2\n", "A: 3\n"]);
        assert_eq!(ending, Ending::Whole);
    }

    #[test]
    fn a_stream_cut_in_a_line_loses_that_line_only() {
        let (found, ending) = split(&[b"Package: a\nVersion: 1\nArchitecture: am"]);
        assert_eq!(found, ["Package: a\nVersion: 1\n"]);
        assert_eq!(ending, Ending::Cut);
    }

    #[test]
    fn an_endless_line_does_not_fill_the_memory() {
        let long = vec![b'x'; 600_000];
        let mut held_max = 0;
        let mut found = Vec::new();
        let mut stanzas = Stanzas::new(|s: &[u8]| found.push(s.to_vec()));
        stanzas.write_all(b"Package: a\nDescription: ").unwrap();
        for _ in 0..10 {
            stanzas.write_all(&long).unwrap();
            held_max = held_max.max(stanzas.held.len());
        }
        stanzas.write_all(b"\nVersion: 2\n\nPackage: b\n").unwrap();
        assert_eq!(stanzas.finish(), Ending::Whole);
        assert!(held_max <= STANZA_BYTES_MAX);
        assert_eq!(found, [b"Package: a\nVersion: 2\n".to_vec(), b"Package: b\n".to_vec()]);
    }

    #[test]
    fn fields_are_found_in_any_case_and_order() {
        let stanza = b"package: x\nDescription: y\n Version: no\n#Version: no\nVERSION:  1.0 \n";
        assert_eq!(field(stanza, "Version"), Some(&b"1.0"[..]));
        assert_eq!(text(stanza, "Package").as_deref(), Some("x"));
        assert_eq!(field(stanza, "Source"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_give_the_same_stanzas(
            data in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b':'), Just(b'A'), any::<u8>()], 0..200), at in 0usize..200
        ) {
            let at = at.min(data.len());
            prop_assert_eq!(split(&[&data]), split(&[&data[..at], &data[at..]]));
        }
    }
}
