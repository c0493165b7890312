//! The one setting of apt's own configuration that decides versions: `APT::Default-Release`.
//!
//! Reads `/etc/apt/apt.conf.d/*` and then `/etc/apt/apt.conf`, as apt.conf(5) says. Deliberately absent:
//! `#include` and `#clear`, moved directories (`Dir::State`), and everything given by environment or
//! command line, which says nothing about the host as it stands.

use super::root::Root;

pub(crate) const FILE: &str = "/etc/apt/apt.conf";
pub(crate) const DIRECTORY: &str = "/etc/apt/apt.conf.d";

/// The default release, where one is set.
pub(crate) fn default_release(root: &Root) -> Option<String> {
    let parts = fragments(root, DIRECTORY, "conf").into_iter().chain([FILE.to_owned()]);
    parts.filter_map(|file| root.text(&file).ok()).fold(None, |before, text| {
        match setting(&text, "apt::default-release") {
            Some(value) => Some(value).filter(|v| !v.is_empty()),
            None => before,
        }
    })
}

/// The files apt takes from a `.d` directory, in its order: names of letters, digits, `_`, `-` and `.`,
/// without extension or with the right one.
pub(crate) fn fragments(root: &Root, directory: &str, extension: &str) -> Vec<String> {
    let fits = |name: &str| {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        plain && !name.starts_with('.') && name.rsplit_once('.').is_none_or(|(_, ext)| ext == extension)
    };
    root.names(directory).into_iter().filter(|n| fits(n)).map(|n| format!("{directory}/{n}")).collect()
}

/// The last value of `name` (lower case, scopes joined by `::`).
fn setting(text: &str, name: &str) -> Option<String> {
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut found = None;
    for token in Tokens(text) {
        match token {
            Token::Word(word) => words.push(word),
            Token::Open => scopes.push(std::mem::take(&mut words).into_iter().next().unwrap_or_default()),
            Token::Close => {
                scopes.pop();
                words.clear();
            }
            Token::End => {
                let mut words = std::mem::take(&mut words).into_iter();
                if let (Some(key), Some(value)) = (words.next(), words.next()) {
                    let path: Vec<&str> = scopes.iter().map(String::as_str).chain([key.as_str()]).collect();
                    if path.join("::").eq_ignore_ascii_case(name) {
                        found = Some(value);
                    }
                }
            }
        }
    }
    found
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

struct Tokens<'a>(&'a str);

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.0 = self.0.trim_start();
            let text = self.0;
            if text.starts_with("//") || text.starts_with('#') {
                self.0 = text.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = text.strip_prefix("/*") {
                self.0 = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        let text = self.0;
        let first = text.chars().next()?;
        if let Some(mark) = match first {
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            ';' => Some(Token::End),
            _ => None,
        } {
            self.0 = &text[1..];
            return Some(mark);
        }
        if let Some(quoted) = text.strip_prefix('"') {
            let (word, rest) = quoted.split_once('"').unwrap_or((quoted, ""));
            self.0 = rest;
            return Some(Token::Word(word.to_owned()));
        }
        let end = text.find(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"')).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        Some(Token::Word(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_release_is_found_in_both_notations() {
        for (text, expected) in [
            ("APT::Default-Release \"bookworm\";\n", Some("bookworm")),
            ("// c\n/* APT::Default-Release \"no\"; */\nAPT { Other \"x\"; Default-Release stable; };", Some("stable")),
            ("# APT::Default-Release \"no\";\nAPT::Architecture \"amd64\";", None),
            ("Acquire { APT::Default-Release \"no\"; };", None),
            ("APT::Default-Release \"a\"; APT::Default-Release \"b\";", Some("b")),
        ] {
            assert_eq!(setting(text, "apt::default-release").as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn apt_conf_wins_over_its_fragments_and_odd_names_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(dir.path().join("etc/apt/apt.conf.d")).unwrap();
        let put = |file: &str, text: &str| std::fs::write(dir.path().join("etc/apt").join(file), text).unwrap();
        put("apt.conf.d/10a", "APT::Default-Release \"ten\";");
        put("apt.conf.d/20b.conf", "APT::Default-Release \"twenty\";");
        put("apt.conf.d/30c.bak", "APT::Default-Release \"thirty\";");
        assert_eq!(default_release(&root).as_deref(), Some("twenty"));
        put("apt.conf", "APT::Default-Release \"own\";");
        assert_eq!(default_release(&root).as_deref(), Some("own"));
        put("apt.conf", "APT::Default-Release \"\";");
        assert_eq!(default_release(&root), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[a{};\"/*#:\n é]{0,60}") {
            setting(&text, "apt::default-release");
        }
    }
}
