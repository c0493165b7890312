//! What the example settings in `deploy/examples/` promise, for the tests of both programs (they include this
//! file by path: the tests of one crate cannot depend on those of another).
//!
//! The form: `#key = …` shows a default, `#+key = …` an example of a key without one, `# …` is prose. The range of
//! a number stands at the end of the prose before it: `1 to 60.`

use std::collections::BTreeSet;

/// An example file.
pub(crate) struct Example {
    text: String,
}

impl Example {
    /// Reads `deploy/examples/NAME` beside the crate in `manifest_dir`.
    pub(crate) fn read(manifest_dir: &str, name: &str) -> Self {
        let path = std::path::Path::new(manifest_dir).join("../deploy/examples").join(name);
        let text = std::fs::read_to_string(&path).expect("the example file is there");
        Self { text }
    }

    /// As it stands.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// With all defaults written out.
    pub(crate) fn with_defaults(&self) -> String {
        self.lines(|line| setting(line, "#").unwrap_or(line))
    }

    /// With defaults and examples written out.
    pub(crate) fn with_everything(&self) -> String {
        self.lines(|line| setting(line, "#+").or_else(|| setting(line, "#")).unwrap_or(line))
    }

    /// As [`Example::with_defaults`], with one number replaced.
    pub(crate) fn with_number(&self, key: &str, value: i64) -> String {
        let begins = format!("{key} = ");
        let everything = self.with_everything();
        let lines = everything.lines();
        lines
            .map(|line| if line.starts_with(&begins) { format!("{begins}{value}\n") } else { format!("{line}\n") })
            .collect()
    }

    /// The keys of `known` that stand nowhere in the file, neither set nor shown.
    pub(crate) fn missing<'k>(&self, known: &'k BTreeSet<String>) -> Vec<&'k str> {
        let shown = |key: &str| {
            let as_table = [format!("[{key}]"), format!(".{key}]")];
            let as_value = format!("{key} = ");
            as_table.iter().any(|header| self.text.contains(header))
                || self.text.match_indices(&as_value).any(|(at, _)| self.begins_word(at))
        };
        known.iter().map(String::as_str).filter(|key| !shown(key)).collect()
    }

    /// Each number whose range is told: key, least, most.
    pub(crate) fn ranges(&self) -> Vec<(String, i64, i64)> {
        let mut found = Vec::new();
        let mut prose = String::new();
        for line in self.text.lines() {
            if let Some(more) = line.strip_prefix("# ") {
                prose.push_str(more);
                prose.push(' ');
                continue;
            }
            let shown = setting(line, "#+").or_else(|| setting(line, "#")).unwrap_or(line);
            let number = shown.split_once(" = ").filter(|(_, value)| value.parse::<i64>().is_ok());
            match number {
                Some((key, _)) => found.extend(range(&prose).map(|(least, most)| (key.to_owned(), least, most))),
                None => prose.clear(),
            }
        }
        found
    }

    fn begins_word(&self, at: usize) -> bool {
        !self.text[..at].chars().next_back().is_some_and(is_key_char)
    }

    fn lines<'t>(&'t self, each: impl Fn(&'t str) -> &'t str) -> String {
        self.text.lines().map(|line| format!("{}\n", each(line))).collect()
    }
}

/// The keys that `source` takes out of its tables: the first string in each call that reads one.
pub(crate) fn keys_known(source: &str) -> BTreeSet<String> {
    const READERS: [&str; 21] = [
        "need",
        "need_str",
        "need_int",
        "str",
        "str_or",
        "int_or",
        "bool_or",
        "word_or",
        "table",
        "tables",
        "strings",
        "take",
        "take_some",
        "read",
        "read_map",
        "read_number",
        "read_ms",
        "read_percent",
        "read_address",
        "dates",
        "mw",
    ];
    // Tests in the file itself; those beside it are only named.
    let program = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String =
        program.lines().map(|line| format!("{}\n", line.split("//").next().unwrap_or_default())).collect();
    let mut keys = BTreeSet::new();
    for reader in READERS {
        for (at, _) in code.match_indices(&format!("{reader}(")) {
            let begins = !code[..at].chars().next_back().is_some_and(is_key_char);
            let rest = &code[at + reader.len() + 1..];
            let word = rest.split('"').nth(1).unwrap_or_default();
            let within = rest.split(')').next().is_some_and(|arguments| arguments.contains('"'));
            if begins && within && !word.is_empty() && word.chars().all(is_key_char) {
                keys.insert(word.to_owned());
            }
        }
    }
    keys
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

fn setting<'t>(line: &'t str, sign: &str) -> Option<&'t str> {
    let shown = line.strip_prefix(sign)?;
    let (key, _) = shown.split_once(" = ")?;
    (!key.is_empty() && key.chars().all(is_key_char)).then_some(shown)
}

/// The last `A to B` of a text.
fn range(prose: &str) -> Option<(i64, i64)> {
    let words: Vec<&str> = prose.split_whitespace().collect();
    let number = |word: &str| word.trim_end_matches(['.', ',', ';']).parse().ok();
    let ranges = words.windows(3).filter(|three| three[1] == "to");
    ranges.filter_map(|three| Some((number(three[0])?, number(three[2])?))).next_back()
}
