//! How a file that a person wrote is read: every mistake in one answer, each with its place and remedy.
//!
//! serde stops at the first error and forgets line numbers; an operator with three typing errors would
//! need three runs. So a file (TOML for configuration, JSON for the evaluators) becomes a tree of
//! [`Node`]s that know their path and line, and code takes what it knows out of [`Fields`]. Whatever is
//! left over was not known to anybody: an unknown key, refused by name.
//!
//! ```
//! use peil_proto::settings::{Document, Mistakes};
//! let mistakes = Mistakes::new("agent.toml");
//! let root = Document::toml("inerval_s = 5\n", &mistakes);
//! let mut fields = root.fields(&mistakes);
//! let _ = fields.int_or("interval_s", 1..=86_400, 60);
//! fields.finish();
//! let refused = mistakes.into_result(()).unwrap_err().to_string();
//! assert!(refused.contains(r#"unknown key "inerval_s" at line 1 (did you mean "interval_s"?)"#));
//! ```
//!
//! Limits: a file over [`FILE_BYTES_MAX`] is refused, and so is one with tables and lists nested deeper than [`DEPTH_MAX`],
//! before it is parsed: parsers are recursive. Deliberately absent: defaults hidden in the tree,
//! environment variables, includes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

mod depth;

/// A settings file is written by a person; a larger one is a mistake (wrong file), and is refused.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Lists and tables inside each other: room for the deepest service the contract takes. A deeper file is refused
/// before a parser could run out of stack over it.
pub const DEPTH_MAX: usize = 72;

/// The mistakes found so far in one file. Shared by all readers of that file.
pub struct Mistakes {
    file: String,
    found: RefCell<Vec<(usize, String)>>,
}

/// All mistakes of one file, in order of line; `Display` prints one line per mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The file as the user named it.
    pub file: String,
    /// One clear sentence per mistake.
    pub mistakes: Vec<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.mistakes.len();
        write!(f, "{n} {} in {}:", if n == 1 { "mistake" } else { "mistakes" }, self.file)?;
        self.mistakes.iter().try_for_each(|m| write!(f, "\n  {m}"))
    }
}

impl std::error::Error for Refused {}

impl Mistakes {
    /// A fresh collection for the file the user knows as `file`.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), found: RefCell::default() }
    }

    /// Notes a mistake; `line` 0 means "the file as a whole".
    pub fn add(&self, line: usize, text: impl Into<String>) {
        self.found.borrow_mut().push((line, text.into()));
    }

    /// True as long as nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// `value` when the file had no mistakes, otherwise all of them.
    ///
    /// # Errors
    /// [`Refused`] with every mistake, ordered by line.
    pub fn into_result<T>(self, value: T) -> Result<T, Refused> {
        let mut found = self.found.into_inner();
        if found.is_empty() {
            return Ok(value);
        }
        found.sort();
        found.dedup();
        Err(Refused { file: self.file, mistakes: found.into_iter().map(|(_, text)| text).collect() })
    }
}

/// Reads a text file for [`Document`], refusing what is too large or not UTF-8.
///
/// # Errors
/// One sentence that names the file and the remedy.
pub fn read_file(path: &Path) -> Result<String, Refused> {
    let refuse = |why: String| Refused { file: path.display().to_string(), mistakes: vec![why] };
    let size = std::fs::metadata(path).map_err(|e| refuse(format!("cannot be read: {e}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(refuse(format!("is {size} bytes; the limit is {FILE_BYTES_MAX}")));
    }
    std::fs::read_to_string(path).map_err(|e| refuse(format!("cannot be read: {e}")))
}

/// What a node holds. Numbers with a fraction keep their text: nothing here is ever a float.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// JSON `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction or exponent, as written.
    Decimal(String),
    /// A string.
    Str(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in file order.
    Table(Vec<Entry>),
}

/// One `key = value` of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// 1-based line of the key.
    pub line: usize,
    /// The value.
    pub node: Node,
}

/// A value with its place: `contract.window[2].from`, line 17.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Path from the root, empty for the root itself.
    pub path: String,
    /// 1-based line.
    pub line: usize,
    /// What stands there.
    pub value: Value,
}

/// Entry points: text to tree.
pub struct Document;

impl Document {
    /// Parses TOML. Syntax errors become mistakes and what could be read is returned.
    pub fn toml(text: &str, mistakes: &Mistakes) -> Node {
        if let Some(at) = depth::too_deep_toml(text) {
            return refuse_depth(&Lines::new(text), at, mistakes);
        }
        let (table, errors) = toml::de::DeTable::parse_recoverable(text);
        let lines = Lines::new(text);
        for error in errors {
            let line = error.span().map_or(0, |span| lines.at(span.start));
            mistakes.add(line, format!("{} at line {line}", error.message()));
        }
        Node { path: String::new(), line: 1, value: from_toml_table(table.into_inner(), "", &lines) }
    }

    /// Parses strict JSON (no comments, no trailing commas, no repeated keys).
    pub fn json(text: &str, mistakes: &Mistakes) -> Node {
        Self::json_at(text, 1, mistakes)
    }

    /// As [`Document::json`], for text that starts at line `first_line` of its file: one line of a
    /// JSON-lines file, whose mistakes then carry the number the user sees.
    pub fn json_at(text: &str, first_line: usize, mistakes: &Mistakes) -> Node {
        let lines = Lines::new(text).starting_at(first_line);
        if let Some(at) = depth::too_deep_json(text) {
            return refuse_depth(&lines, at, mistakes);
        }
        let strict = jsonc_parser::ParseOptions {
            allow_comments: false,
            allow_loose_object_property_names: false,
            allow_trailing_commas: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_extended_string_escapes: false,
            allow_non_finite_numbers: false,
        };
        let empty = Node { path: String::new(), line: first_line, value: Value::Null };
        match jsonc_parser::parse_to_ast(text, &jsonc_parser::CollectOptions::default(), &strict) {
            Ok(parsed) => match parsed.value {
                Some(value) => from_json(&value, "", &lines, mistakes),
                None => {
                    mistakes.add(0, "the file is empty");
                    empty
                }
            },
            Err(error) => {
                let line = lines.at(error.range().start);
                mistakes.add(line, format!("not valid JSON: {} at line {line}", error.kind()));
                empty
            }
        }
    }
}

fn refuse_depth(lines: &Lines, at: usize, mistakes: &Mistakes) -> Node {
    let line = lines.at(at);
    mistakes.add(line, format!("tables and lists are nested more than {DEPTH_MAX} deep at line {line}"));
    Node { path: String::new(), line, value: Value::Table(Vec::new()) }
}

/// Byte offset to line number.
struct Lines {
    starts: Vec<usize>,
    before: usize,
}

impl Lines {
    fn new(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { starts, before: 0 }
    }

    fn starting_at(self, first_line: usize) -> Self {
        Self { before: first_line.saturating_sub(1), ..self }
    }

    fn at(&self, offset: usize) -> usize {
        self.before + self.starts.partition_point(|start| *start <= offset)
    }
}

fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn from_toml_table(table: toml::de::DeTable<'_>, path: &str, lines: &Lines) -> Value {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entries = entries.into_iter().map(|(key, value)| {
        let line = lines.at(key.span().start);
        let path = child(path, key.get_ref());
        let node = from_toml(value, path, lines);
        Entry { key: key.into_inner().into_owned(), line, node }
    });
    Value::Table(entries.collect())
}

fn from_toml(value: toml::Spanned<toml::de::DeValue<'_>>, path: String, lines: &Lines) -> Node {
    use toml::de::DeValue;
    let line = lines.at(value.span().start);
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Str(text.into_owned()),
        DeValue::Boolean(flag) => Value::Bool(flag),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Decimal(number.as_str().to_owned()), Value::Int),
        DeValue::Float(number) => Value::Decimal(number.as_str().to_owned()),
        DeValue::Datetime(time) => Value::Str(time.to_string()),
        DeValue::Array(items) => Value::List(
            items.into_iter().enumerate().map(|(i, v)| from_toml(v, format!("{path}[{i}]"), lines)).collect(),
        ),
        DeValue::Table(table) => from_toml_table(table, &path, lines),
    };
    Node { path, line, value }
}

fn from_json(value: &jsonc_parser::ast::Value<'_>, path: &str, lines: &Lines, mistakes: &Mistakes) -> Node {
    use jsonc_parser::ast::Value as Json;
    use jsonc_parser::common::Ranged;
    let line = lines.at(value.range().start);
    let value = match value {
        Json::NullKeyword(_) => Value::Null,
        Json::BooleanLit(flag) => Value::Bool(flag.value),
        Json::StringLit(text) => Value::Str(text.value.clone().into_owned()),
        Json::NumberLit(number) => {
            number.value.parse().map_or_else(|_| Value::Decimal(number.value.to_owned()), Value::Int)
        }
        Json::Array(array) => Value::List(
            array
                .elements
                .iter()
                .enumerate()
                .map(|(i, v)| from_json(v, &format!("{path}[{i}]"), lines, mistakes))
                .collect(),
        ),
        Json::Object(object) => {
            let mut seen = BTreeSet::new();
            let mut entries = Vec::with_capacity(object.properties.len());
            for property in &object.properties {
                let key = property.name.as_str().to_owned();
                let at = lines.at(property.range().start);
                let path = child(path, &key);
                if !seen.insert(key.clone()) {
                    mistakes.add(at, format!("key \"{path}\" stands twice, again at line {at}"));
                    continue;
                }
                entries.push(Entry { line: at, node: from_json(&property.value, &path, lines, mistakes), key });
            }
            Value::Table(entries)
        }
    };
    Node { path: path.to_owned(), line, value }
}

impl Value {
    /// The kind of value in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a whole number",
            Value::Decimal(_) => "a number with a fraction",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

impl Node {
    /// Notes a mistake at this place: `contract.target "99,5" is not a percentage at line 4`.
    pub fn refuse(&self, mistakes: &Mistakes, what: impl fmt::Display) {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        mistakes.add(self.line, format!("{path} {what} at line {}", self.line));
    }

    fn refuse_kind(&self, mistakes: &Mistakes, wanted: &str) {
        self.refuse(mistakes, format_args!("must be {wanted}, not {}", self.value.kind()));
    }

    /// The entries of a table; anything else is a mistake and reads as an empty table.
    pub fn fields<'m>(self, mistakes: &'m Mistakes) -> Fields<'m> {
        let (path, line) = (self.path.clone(), self.line);
        let entries = match self.value {
            Value::Table(entries) => entries,
            _ => {
                self.refuse_kind(mistakes, "a table");
                Vec::new()
            }
        };
        Fields { path, line, entries, asked: BTreeSet::new(), mistakes }
    }

    /// The string here, or a mistake.
    pub fn as_str(&self, mistakes: &Mistakes) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => {
                self.refuse_kind(mistakes, "a string");
                None
            }
        }
    }

    /// The whole number here if it lies in `range`, or a mistake.
    pub fn as_int(&self, mistakes: &Mistakes, range: RangeInclusive<i64>) -> Option<i64> {
        match self.value {
            Value::Int(number) if range.contains(&number) => Some(number),
            Value::Int(number) => {
                self.refuse(
                    mistakes,
                    format_args!("is {number}; it must lie between {} and {}", range.start(), range.end()),
                );
                None
            }
            _ => {
                self.refuse_kind(mistakes, "a whole number");
                None
            }
        }
    }

    /// The flag here, or a mistake.
    pub fn as_bool(&self, mistakes: &Mistakes) -> Option<bool> {
        match self.value {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.refuse_kind(mistakes, "true or false");
                None
            }
        }
    }

    /// The items of a list; anything else is a mistake and reads as an empty list.
    pub fn into_list(self, mistakes: &Mistakes) -> Vec<Node> {
        if let Value::List(items) = self.value {
            return items;
        }
        self.refuse_kind(mistakes, "a list");
        Vec::new()
    }

    /// The word here if it is one of `words`, else a mistake that lists them.
    pub fn as_word<T: Clone>(&self, mistakes: &Mistakes, words: &[(&str, T)]) -> Option<T> {
        let text = self.as_str(mistakes)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(value.clone());
        }
        let known: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.refuse(mistakes, format_args!("is {text:?}; it must be {}", known.join(" or ")));
        None
    }
}

/// A table being read: each known key is taken out; [`Fields::finish`] refuses the rest.
pub struct Fields<'m> {
    /// Path of the table, empty for the root.
    pub path: String,
    /// Line on which the table starts.
    pub line: usize,
    entries: Vec<Entry>,
    asked: BTreeSet<String>,
    mistakes: &'m Mistakes,
}

impl<'m> Fields<'m> {
    /// The mistakes this table reports to.
    pub fn mistakes(&self) -> &'m Mistakes {
        self.mistakes
    }

    /// Notes a mistake about the table itself.
    pub fn refuse(&self, what: impl fmt::Display) {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        self.mistakes.add(self.line, format!("{path} {what} at line {}", self.line));
    }

    /// Looks at the value of `key` without taking it.
    pub fn peek(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node.value)
    }

    /// Takes the value of `key`, if present. A JSON `null` is present: see [`Fields::take_some`].
    pub fn take(&mut self, key: &str) -> Option<Node> {
        self.asked.insert(key.to_owned());
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at).node)
    }

    /// Takes the value of `key`; absent and `null` are the same.
    pub fn take_some(&mut self, key: &str) -> Option<Node> {
        self.take(key).filter(|node| node.value != Value::Null)
    }

    /// Takes the value of `key`; its absence is a mistake.
    pub fn need(&mut self, key: &str) -> Option<Node> {
        let found = self.take(key);
        if found.is_none() {
            let path = child(&self.path, key);
            self.mistakes.add(self.line, format!("missing key \"{path}\" in the table at line {}", self.line));
        }
        found
    }

    /// A required string.
    pub fn need_str(&mut self, key: &str) -> Option<String> {
        let mistakes = self.mistakes;
        self.need(key)?.as_str(mistakes).map(str::to_owned)
    }

    /// An optional string.
    pub fn str(&mut self, key: &str) -> Option<String> {
        let mistakes = self.mistakes;
        self.take_some(key)?.as_str(mistakes).map(str::to_owned)
    }

    /// A string with a default.
    pub fn str_or(&mut self, key: &str, default: &str) -> String {
        self.str(key).unwrap_or_else(|| default.to_owned())
    }

    /// A required whole number within `range`.
    pub fn need_int(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let mistakes = self.mistakes;
        self.need(key)?.as_int(mistakes, range)
    }

    /// A whole number within `range`, with a default.
    pub fn int_or(&mut self, key: &str, range: RangeInclusive<i64>, default: i64) -> i64 {
        let mistakes = self.mistakes;
        self.take_some(key).and_then(|node| node.as_int(mistakes, range)).unwrap_or(default)
    }

    /// A flag with a default.
    pub fn bool_or(&mut self, key: &str, default: bool) -> bool {
        let mistakes = self.mistakes;
        self.take_some(key).and_then(|node| node.as_bool(mistakes)).unwrap_or(default)
    }

    /// One of a few words, with a default.
    pub fn word_or<T: Clone>(&mut self, key: &str, words: &[(&str, T)], default: T) -> T {
        let mistakes = self.mistakes;
        self.take_some(key).and_then(|node| node.as_word(mistakes, words)).unwrap_or(default)
    }

    /// A list of strings; absent is empty.
    pub fn strings(&mut self, key: &str) -> Vec<String> {
        let mistakes = self.mistakes;
        let items = self.take_some(key).map(|node| node.into_list(mistakes)).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str(mistakes).map(str::to_owned)).collect()
    }

    /// A sub-table, if present.
    pub fn table(&mut self, key: &str) -> Option<Fields<'m>> {
        let mistakes = self.mistakes;
        self.take_some(key).map(|node| node.fields(mistakes))
    }

    /// A list of tables (`[[key]]`); absent is empty.
    pub fn tables(&mut self, key: &str) -> Vec<Fields<'m>> {
        let mistakes = self.mistakes;
        let items = self.take_some(key).map(|node| node.into_list(mistakes)).unwrap_or_default();
        items.into_iter().map(|item| item.fields(mistakes)).collect()
    }

    /// All entries that were not taken yet, for tables whose keys are names (`checks`, `vantages`).
    pub fn rest(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Refuses by name whatever is left.
    pub fn finish(self) {
        for entry in &self.entries {
            let path = child(&self.path, &entry.key);
            let near = self.asked.iter().map(|known| (distance(known, &entry.key), known)).min();
            let hint = match near {
                Some((d, known)) if d <= 2 && d < known.chars().count() => {
                    format!(" (did you mean \"{}\"?)", child(&self.path, known))
                }
                _ => String::new(),
            };
            self.mistakes.add(entry.line, format!("unknown key \"{path}\" at line {}{hint}", entry.line));
        }
    }
}

/// Edits between two short words (Levenshtein), for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_mistakes_come_in_one_answer_with_their_lines() {
        let mistakes = Mistakes::new("x.toml");
        let mut root = Document::toml("a = 'text'\nb = 900\n[c]\nd = 1\nintervall = 2\n", &mistakes).fields(&mistakes);
        let _ = root.int_or("a", 0..=9, 1);
        let _ = root.int_or("b", 0..=9, 1);
        let mut c = root.table("c").expect("is there");
        let _ = c.int_or("d", 0..=9, 1);
        let _ = c.int_or("interval", 0..=9, 1);
        c.finish();
        root.finish();
        let refused = mistakes.into_result(()).expect_err("has mistakes");
        assert_eq!(
            refused.mistakes,
            [
                "a must be a whole number, not a string at line 1",
                "b is 900; it must lie between 0 and 9 at line 2",
                "unknown key \"c.intervall\" at line 5 (did you mean \"c.interval\"?)"
            ]
        );
    }

    #[test]
    fn json_keys_know_their_line_and_may_not_stand_twice() {
        let mistakes = Mistakes::new("-");
        let mut root = Document::json("{\n \"contract\": {\n  \"windw\": 1,\n \"x\": 1, \"x\": 2}\n}", &mistakes)
            .fields(&mistakes);
        let mut contract = root.table("contract").expect("is there");
        let _ = contract.take("window");
        let _ = contract.take("x");
        contract.finish();
        root.finish();
        let refused = mistakes.into_result(()).expect_err("has mistakes").mistakes;
        assert!(refused[0].starts_with("unknown key \"contract.windw\" at line 3"), "{refused:?}");
        assert!(refused[1].contains("\"contract.x\" stands twice, again at line 4"), "{refused:?}");
    }

    #[test]
    fn a_line_of_a_json_lines_file_is_named_by_its_number_in_the_file() {
        let mistakes = Mistakes::new("trace.jsonl");
        let mut fields = Document::json_at("{\"mono_s\": 1, \"zone\": 2}", 17, &mistakes).fields(&mistakes);
        let _ = fields.take("mono_s");
        fields.finish();
        let _ = Document::json_at("{", 18, &mistakes);
        let refused = mistakes.into_result(()).expect_err("has mistakes").mistakes;
        assert!(refused[0].starts_with("unknown key \"zone\" at line 17"), "{refused:?}");
        assert!(refused[1].ends_with("at line 18"), "{refused:?}");
    }

    #[test]
    fn broken_syntax_names_the_line() {
        let mistakes = Mistakes::new("x.toml");
        let _ = Document::toml("a = 1\nb = = 2\n", &mistakes);
        assert!(mistakes.into_result(()).expect_err("broken").to_string().contains("at line 2"));
    }
}
