//! A dialogue of send and expect, without the connection: bytes in, what to do next out.
//!
//! The bytes come from a stranger. Whatever they are, [`Ear`] holds at most [`LINE_BYTES_MAX`] of them, takes at most
//! [`STEP_BYTES_MAX`] per step, and never panics; a line ends with LF, a CR before it is cut off. A last line without
//! an end counts when the peer closes. Matching is linear in the length of the line (the `regex` crate).

use std::collections::HashMap;

use peil_proto::plan::Pattern;

use super::trace::Safe;

/// Bytes of one line. A longer one ends the dialogue.
pub const LINE_BYTES_MAX: usize = 8 << 10;
/// Bytes read within one step. Then the expected line is taken not to come.
pub const STEP_BYTES_MAX: usize = 64 << 10;

/// What listening came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The expected line.
    Wanted,
    /// A line that says it will not come. Escaped for people, cut at 200 characters.
    Refusal(String),
    /// Nothing yet.
    More,
    /// The peer does not keep to lines, or talks too much.
    TooMuch,
}

/// Listens for lines and remembers the groups of the last one that was expected.
#[derive(Debug, Default)]
pub struct Ear {
    unread: Vec<u8>,
    in_step: usize,
    groups: HashMap<String, Vec<u8>>,
}

impl Ear {
    /// Takes what came.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// A new step begins.
    pub fn begin_step(&mut self) {
        self.in_step = 0;
    }

    /// Bytes that came and have not been looked at: something said out of turn.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// Goes through the complete lines until one decides. `closed`: nothing more will come.
    pub fn listen(&mut self, wanted: &Pattern, fail: Option<&Pattern>, closed: bool) -> Heard {
        loop {
            let Some(line) = self.next_line(closed) else {
                let waiting = self.unread.len();
                let too_much = waiting > LINE_BYTES_MAX || self.in_step + waiting > STEP_BYTES_MAX;
                return if too_much { Heard::TooMuch } else { Heard::More };
            };
            if line.len() > LINE_BYTES_MAX || self.in_step > STEP_BYTES_MAX {
                return Heard::TooMuch;
            }
            if fail.is_some_and(|fail| fail.is_match(&line)) {
                return Heard::Refusal(for_people(&line));
            }
            if let Some(groups) = groups_of(wanted, &line) {
                self.groups = groups;
                return Heard::Wanted;
            }
        }
    }

    fn next_line(&mut self, closed: bool) -> Option<Vec<u8>> {
        let end = self.unread.iter().position(|byte| *byte == b'\n');
        let length = match end {
            Some(at) => at + 1,
            None if closed && !self.unread.is_empty() => self.unread.len(),
            None => return None,
        };
        let mut line: Vec<u8> = self.unread.drain(..length).collect();
        self.in_step = self.in_step.saturating_add(line.len());
        if end.is_some() {
            line.pop();
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }

    /// `text` with each `${name}` and `${1}` replaced by that group of the last expected line; an unknown one by nothing.
    pub fn fill(&self, text: &str) -> Vec<u8> {
        let mut filled = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            filled.extend_from_slice(before.as_bytes());
            let Some((name, behind)) = after.split_once('}') else {
                filled.extend_from_slice(b"${");
                rest = after;
                continue;
            };
            filled.extend_from_slice(self.groups.get(name).map(Vec::as_slice).unwrap_or_default());
            rest = behind;
        }
        filled.extend_from_slice(rest.as_bytes());
        filled
    }
}

fn groups_of(wanted: &Pattern, line: &[u8]) -> Option<HashMap<String, Vec<u8>>> {
    let regex = wanted.regex().ok()?;
    let found = regex.captures(line)?;
    let mut groups = HashMap::new();
    for (number, name) in regex.capture_names().enumerate() {
        let Some(group) = found.get(number) else { continue };
        groups.insert(number.to_string(), group.as_bytes().to_vec());
        if let Some(name) = name {
            groups.insert(name.to_owned(), group.as_bytes().to_vec());
        }
    }
    Some(groups)
}

/// A line of a stranger as it can be shown.
pub(crate) fn for_people(line: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(line).chars().take(200).collect();
    Safe(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&[u8]], wanted: &str, fail: Option<&str>, closed: bool) -> Heard {
        let (wanted, fail) = (Pattern::new(wanted), fail.map(Pattern::new));
        let mut ear = Ear::default();
        for piece in pieces {
            ear.hear(piece);
            let heard = ear.listen(&wanted, fail.as_ref(), false);
            if heard != Heard::More {
                return heard;
            }
        }
        ear.listen(&wanted, fail.as_ref(), closed)
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_the_expected_one_ends_the_step() {
        assert_eq!(heard(&[b"250-a\r\n2", b"50 b\r", b"\n"], "^250 b$", None, false), Heard::Wanted);
        assert_eq!(heard(&[b"250-a\r\n250 b"], "^250 ", None, false), Heard::More, "a line has an end");
        assert_eq!(heard(&[b"250 b"], "^250 ", None, true), Heard::Wanted, "closing ends it too");
        let refusal = Heard::Refusal("554 no\\u{1b}".to_owned());
        assert_eq!(heard(&[b"554 no\x1b\r\n220 x\r\n"], "^220", Some("^5"), false), refusal);
    }

    #[test]
    fn groups_of_the_expected_line_stand_in_what_is_sent() {
        let mut ear = Ear::default();
        ear.hear(b"CHALLENGE 42 abc\n");
        let wanted = Pattern::new("CHALLENGE ([0-9]+) (?P<word>[a-z]+)");
        assert_eq!(ear.listen(&wanted, None, false), Heard::Wanted);
        assert_eq!(ear.fill("${1}-${word}-${9}-${"), b"42-abc--${");
    }

    #[test]
    fn a_peer_that_never_ends_its_line_or_talks_beside_the_point_is_cut_off() {
        assert_eq!(heard(&[&[b'x'; LINE_BYTES_MAX + 1]], "y", None, false), Heard::TooMuch);
        let chatter = b"no\n".repeat(STEP_BYTES_MAX / 3 + 1);
        assert_eq!(heard(&[&chatter], "y", None, false), Heard::TooMuch);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_come_to_the_same(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
            cut in 0_usize..600,
        ) {
            let cut = cut.min(bytes.len());
            let whole = heard(&[&bytes], "a.?b", Some("zz"), true);
            let pieces = heard(&[&bytes[..cut], &bytes[cut..]], "a.?b", Some("zz"), true);
            proptest::prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn any_text_can_be_filled(text in ".{0,100}") {
            let filled = Ear::default().fill(&text);
            proptest::prop_assert!(filled.len() <= text.len());
        }
    }
}
