//! How deep a TOML text nests, without recursion and before any parser sees it.
//!
//! Counted are brackets, the dots of keys, and those of the table header they stand under. Of text that is no
//! valid TOML more may be counted than a parser would, never less.

use super::DEPTH_MAX;

/// Where the scan stands.
#[derive(Default)]
struct Scan {
    /// Brackets not closed yet, with the levels each one added.
    open: Vec<(u8, usize)>,
    /// Sum of those levels.
    depth: usize,
    /// Dots of the key being read.
    dots: usize,
    /// Levels of the table header in force.
    header: usize,
    in_header: bool,
}

/// Offset of the bracket, or of the dot of a key, that is too deep.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut scan = Scan::default();
    let (mut at, mut line_began) = (0, false);
    while let Some(byte) = bytes.get(at) {
        let mut next = at + 1;
        match byte {
            b'#' => next = end_of_line(bytes, at),
            b'"' | b'\'' => next = end_of_string(bytes, at),
            b'[' | b'{' => scan.enter(*byte, line_began),
            b']' => scan.leave(b'['),
            b'}' => scan.leave(b'{'),
            b'.' => scan.dots += 1,
            b',' => scan.dots = 0,
            b'\n' => scan.end_line(),
            _ => {}
        }
        if scan.header + scan.depth + scan.dots > DEPTH_MAX {
            return Some(at);
        }
        line_began = *byte != b'\n' && (line_began || !byte.is_ascii_whitespace());
        at = next;
    }
    None
}

impl Scan {
    fn enter(&mut self, bracket: u8, line_began: bool) {
        if self.open.is_empty() && !line_began && bracket == b'[' {
            (self.in_header, self.header) = (true, 0);
        }
        let levels = 1 + std::mem::take(&mut self.dots);
        self.open.push((bracket, levels));
        self.depth += levels;
    }

    fn leave(&mut self, bracket: u8) {
        // A bracket that closes another kind closes nothing: it is the parser's to refuse.
        if let Some((_, levels)) = self.open.pop_if(|(open, _)| *open == bracket) {
            self.depth -= levels;
        }
        if self.in_header {
            self.header = self.header.max(1 + self.dots);
        }
        self.dots = 0;
    }

    fn end_line(&mut self) {
        self.dots = 0;
        if std::mem::take(&mut self.in_header) {
            self.open.clear();
            self.depth = 0;
        }
    }
}

fn end_of_line(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| from + length)
}

/// The place after the string that begins at `from`. One that does not close ends with its line.
fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let quote = bytes[from];
    let tripled = bytes[from..].starts_with(&[quote; 3]);
    let mut at = if tripled { from + 3 } else { from + 1 };
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\n' if !tripled => return at,
            b'\\' if quote == b'"' && bytes.get(at + 1) != Some(&b'\n') => at += 1,
            byte if *byte == quote && !tripled => return at + 1,
            byte if *byte == quote && bytes[at..].starts_with(&[quote; 3]) => return at + 3,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Document, Mistakes};

    fn refusal(text: &str) -> Vec<String> {
        let mistakes = Mistakes::new("x");
        drop(Document::toml(text, &mistakes));
        mistakes.into_result(()).expect_err("refused").mistakes
    }

    fn dotted(keys: usize) -> String {
        vec!["a"; keys].join(".")
    }

    #[test]
    fn a_hundred_thousand_levels_are_refused_and_not_followed() {
        let many = 100_000;
        let texts = [
            format!("a = {}", "[".repeat(many)),
            format!("a = {}", "[}".repeat(many)),
            format!("a = {}", "{b=".repeat(many)),
            format!("x = 1\n{} = 1", dotted(many)),
            format!("[{}]", dotted(many)),
            format!("[[{}]]", vec!["'a'"; many].join(" . ")),
            format!("a = 'it''s' # \"\nb = {}", "[".repeat(many)),
            format!("a = \"open \\\nb = {}", "[".repeat(many)),
        ];
        for text in texts {
            let found = refusal(&text);
            assert!(found[0].starts_with("tables and lists are nested more than 72 deep at line"), "{found:?}");
        }
    }

    #[test]
    fn dots_and_brackets_do_not_multiply() {
        let key = dotted(60);
        let texts = [
            format!("{}{key} = 1", format!("{key} = {{").repeat(60)),
            format!("[{key}]\n{key} = 1"),
            format!("[[{key}]]\nb = 1\n{key} = 1"),
            format!("{key} = {}", "[".repeat(60)),
        ];
        for text in texts {
            assert!(refusal(&text)[0].contains("nested more than 72 deep"), "{text}");
        }
    }

    #[test]
    fn as_deep_as_allowed_is_read_by_a_small_stack() {
        let reader = std::thread::Builder::new().stack_size(1 << 20);
        let read = reader.spawn(|| {
            let mistakes = Mistakes::new("x");
            let lists = format!("a = {}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
            let keys = format!("[{}]\n{} = 1", dotted(DEPTH_MAX / 2), dotted(DEPTH_MAX / 2));
            drop((Document::toml(&lists, &mistakes), Document::toml(&keys, &mistakes)));
            mistakes.into_result(())
        });
        assert_eq!(read.expect("a thread").join().expect("no overflow"), Ok(()));
    }

    #[test]
    fn brackets_and_dots_in_strings_and_comments_do_not_count() {
        let many = "[.{".repeat(100);
        let toml = format!(
            "# {many}\na = \"{many}\\\"{many}\"\nb = '{many}'\nc = \"\"\"\n{many}\"\"\"\nd = '''{many}'''\ne = ''\n"
        );
        let mistakes = Mistakes::new("x");
        drop(Document::toml(&toml, &mistakes));
        assert_eq!(mistakes.into_result(()), Ok(()));
    }

    #[test]
    fn many_tables_after_each_other_are_not_deep() {
        let table = "[[check]]\nname = 'a.b'\nw = [\n  { days = ['mon'], from = '08:00' },\n]\n[a.b.c]\nx.y = 1.5\n";
        assert_eq!(too_deep(&table.repeat(500)), None);
    }
}
