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
//! Limits: a file over [`FILE_BYTES_MAX`] is refused. JSON is refused by its parser when it nests over 512 deep. The TOML
//! parser limits brackets and dotted keys each for itself, so together they multiply; a TOML file that nests over
//! [`DEPTH_MAX`] in all is refused before it is parsed. Deliberately absent: defaults hidden in the tree,
//! environment variables, includes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

mod depth;
mod fields;
#[cfg(test)]
mod tests;

pub use fields::Fields;

/// A settings file is written by a person; a larger one is a mistake (wrong file), and is refused.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Tables and lists inside each other in a TOML file: room for the deepest service the contract takes. A deeper file is
/// refused.
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
        if let Some(at) = depth::too_deep(text) {
            let line = Lines::new(text).at(at);
            mistakes.add(line, format!("tables and lists are nested more than {DEPTH_MAX} deep at line {line}"));
            return Node { path: String::new(), line, value: Value::Table(Vec::new()) };
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
