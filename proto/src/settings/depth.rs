//! How deep a text nests, without recursion and before any parser sees it.
//!
//! What passes here is at most [`DEPTH_MAX`] deep for a parser that follows the grammar; what is no valid text
//! at all is the parser's to refuse.

use super::DEPTH_MAX;

/// Offset of the bracket that is too deep.
pub(super) fn too_deep_json(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Some(at);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Offset of the bracket, or of the dot of a key, that is too deep. A dotted key counts with the brackets it stands in.
/// Strings and comments are passed over.
pub(super) fn too_deep_toml(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut dots, mut at) = (0_usize, 0_usize, 0_usize);
    while let Some(byte) = bytes.get(at) {
        let mut next = at + 1;
        match byte {
            b'#' => next = end_of_line(bytes, at),
            b'"' | b'\'' => next = end_of_string(bytes, at),
            b'[' | b'{' => (depth, dots) = (depth + 1, 0),
            b']' | b'}' => (depth, dots) = (depth.saturating_sub(1), 0),
            b'.' => dots += 1,
            b'\n' | b',' | b'=' => dots = 0,
            _ => {}
        }
        if depth + dots > DEPTH_MAX {
            return Some(at);
        }
        at = next;
    }
    None
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

    fn refusal(read: impl FnOnce(&Mistakes)) -> Vec<String> {
        let mistakes = Mistakes::new("x");
        read(&mistakes);
        mistakes.into_result(()).expect_err("refused").mistakes
    }

    #[test]
    fn a_hundred_thousand_brackets_are_refused_and_not_followed() {
        let many = 100_000;
        for text in ["[".repeat(many), "{\"a\":".repeat(many), format!("{}{}", "[".repeat(many), "]".repeat(many))] {
            let found = refusal(|mistakes| drop(Document::json(&text, mistakes)));
            assert_eq!(found, ["tables and lists are nested more than 72 deep at line 1"]);
        }
        let tomls = [
            format!("a = {}", "[".repeat(many)),
            format!("a = {}", "{b=".repeat(many)),
            format!("x = 1\n{} = 1", vec!["a"; many].join(".")),
            format!("[{}]", vec!["a"; many].join(".")),
            format!("[[{}]]", vec!["'a'"; many].join(" . ")),
            format!("a = 'it''s' # \"\nb = {}", "[".repeat(many)),
            format!("a = \"open \\\nb = {}", "[".repeat(many)),
        ];
        for text in tomls {
            let found = refusal(|mistakes| drop(Document::toml(&text, mistakes)));
            assert!(found[0].starts_with("tables and lists are nested more than 72 deep at line"), "{found:?}");
        }
    }

    #[test]
    fn as_deep_as_allowed_is_read_by_a_small_stack() {
        let reader = std::thread::Builder::new().stack_size(1 << 20);
        let read = reader.spawn(|| {
            let json = format!("{{\"a\":{}{}}}", "[".repeat(DEPTH_MAX - 1), "]".repeat(DEPTH_MAX - 1));
            let toml = format!("a = {}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
            let mistakes = Mistakes::new("x");
            drop((Document::json(&json, &mistakes), Document::toml(&toml, &mistakes)));
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
        let json = format!("{{\"a\": \"{many}\\\"{many}\"}}");
        let mistakes = Mistakes::new("x");
        drop((Document::toml(&toml, &mistakes), Document::json(&json, &mistakes)));
        assert_eq!(mistakes.into_result(()), Ok(()));
    }

    #[test]
    fn many_tables_after_each_other_are_not_deep() {
        let toml = "[[check]]\nname = 'a.b.c.d'\nw = [{ days = ['mon'], from = '08:00' }]\n".repeat(500);
        let mistakes = Mistakes::new("x");
        drop(Document::toml(&toml, &mistakes));
        assert_eq!(mistakes.into_result(()), Ok(()));
    }
}
