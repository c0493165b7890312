//! The two kinds of patterns apt's preferences know: shell globs and `/extended regular expressions/`.
//!
//! Matches as fnmatch(3) without flags and as regexec(3) without regard to case. Our own because the
//! agent carries no regular-expression engine and these few constructs suffice: literals, `.`, `[…]` with
//! `[:classes:]`, `( )`, `|`, `*`, `+`, `?`, `{m,n}`, `^`, `$`. Anything else is refused with a reason.
//!
//! Patterns come from root's files, yet a careless one must not stop the agent: matching gives up ("no
//! match") after [`STEPS_MAX`] steps, and subjects over [`SUBJECT_BYTES_MAX`] never match.

/// Steps of one match, over 100 times what real patterns need.
const STEPS_MAX: u32 = 200_000;

/// Package names and archive fields stay far below.
const SUBJECT_BYTES_MAX: usize = 512;

/// Groups inside groups; deeper is refused.
const DEPTH_MAX: u32 = 32;

/// The largest count in `{m,n}`; larger is refused (POSIX promises no more than 255).
const REPEAT_MAX: u32 = 255;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Glob(Node),
    Regex(Node),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Byte(u8),
    Any,
    Set { negated: bool, ranges: Vec<(u8, u8)> },
    Start,
    End,
    All(Vec<Node>),
    OneOf(Vec<Node>),
    Repeat { node: Box<Node>, min: u32, max: Option<u32> },
}

impl Pattern {
    /// Reads `/regex/` or a glob; the error says what is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix('/').and_then(|t| t.strip_suffix('/')) {
            Some(regex) => {
                let mut parser = Parser { rest: regex.as_bytes(), depth: 0 };
                let node = parser.alternatives()?;
                if parser.rest.is_empty() { Ok(Self::Regex(node)) } else { Err(format!("unmatched ) in {text}")) }
            }
            None => Ok(Self::Glob(glob(text.as_bytes()))),
        }
    }

    /// Whether the whole `subject` matches the glob, or any part of it the regular expression.
    pub(crate) fn matches(&self, subject: &str) -> bool {
        let text = subject.as_bytes();
        if text.len() > SUBJECT_BYTES_MAX {
            return false;
        }
        match self {
            Self::Glob(node) => Matcher { text, fold: false, steps: 0 }.run(node, 0, &mut |_, end| end == text.len()),
            Self::Regex(node) => {
                let mut matcher = Matcher { text, fold: true, steps: 0 };
                (0..=text.len()).any(|start| matcher.run(node, start, &mut |_, _| true))
            }
        }
    }
}

fn glob(mut rest: &[u8]) -> Node {
    let mut nodes = Vec::new();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        nodes.push(match first {
            b'*' => Node::Repeat { node: Box::new(Node::Any), min: 0, max: None },
            b'?' => Node::Any,
            b'[' => match set(rest, b"!^") {
                Some((node, after_set)) => {
                    rest = after_set;
                    node
                }
                None => Node::Byte(b'['),
            },
            b'\\' => match rest.split_first() {
                Some((&escaped, after_escape)) => {
                    rest = after_escape;
                    Node::Byte(escaped)
                }
                None => Node::Byte(b'\\'),
            },
            other => Node::Byte(other),
        });
    }
    Node::All(nodes)
}

/// The set after `[`, and what follows its `]`.
fn set<'a>(mut rest: &'a [u8], negations: &[u8]) -> Option<(Node, &'a [u8])> {
    let negated = rest.first().is_some_and(|b| negations.contains(b));
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        match rest {
            [b']', after @ ..] if !first => return Some((Node::Set { negated, ranges }, after)),
            [b'[', b':', after @ ..] => {
                let end = after.windows(2).position(|w| w == b":]")?;
                ranges.extend(class(&after[..end])?);
                rest = &after[end + 2..];
            }
            [low, b'-', high, after @ ..] if *high != b']' => {
                ranges.push((*low, *high));
                rest = after;
            }
            [byte, after @ ..] => {
                ranges.push((*byte, *byte));
                rest = after;
            }
            [] => return None,
        }
        first = false;
    }
}

fn class(name: &[u8]) -> Option<Vec<(u8, u8)>> {
    Some(match name {
        b"digit" => vec![(b'0', b'9')],
        b"lower" => vec![(b'a', b'z')],
        b"upper" => vec![(b'A', b'Z')],
        b"alpha" => vec![(b'a', b'z'), (b'A', b'Z')],
        b"alnum" => vec![(b'0', b'9'), (b'a', b'z'), (b'A', b'Z')],
        b"xdigit" => vec![(b'0', b'9'), (b'a', b'f'), (b'A', b'F')],
        b"space" => vec![(b' ', b' '), (9, 13)],
        b"punct" => vec![(b'!', b'/'), (b':', b'@'), (b'[', b'`'), (b'{', b'~')],
        _ => return None,
    })
}

struct Parser<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl Parser<'_> {
    fn alternatives(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} nested groups"));
        }
        let mut branches = vec![self.sequence()?];
        while self.eat(b'|') {
            branches.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(Node::OneOf(branches))
    }

    fn sequence(&mut self) -> Result<Node, String> {
        let mut nodes = Vec::new();
        while !matches!(self.rest.first(), None | Some(b'|' | b')')) {
            let atom = self.atom()?;
            nodes.push(self.repeated(atom)?);
        }
        Ok(Node::All(nodes))
    }

    fn atom(&mut self) -> Result<Node, String> {
        let Some((&first, rest)) = self.rest.split_first() else { return Err("ends too early".to_owned()) };
        self.rest = rest;
        match first {
            b'.' => Ok(Node::Any),
            b'^' => Ok(Node::Start),
            b'$' => Ok(Node::End),
            b'(' => {
                let group = self.alternatives()?;
                if self.eat(b')') { Ok(group) } else { Err("a ( without its )".to_owned()) }
            }
            b'[' => {
                let (node, rest) = set(self.rest, b"^").ok_or("a [ without its ], or an unknown class")?;
                self.rest = rest;
                Ok(node)
            }
            b'\\' => match self.rest.split_first() {
                Some((&escaped, rest)) if !escaped.is_ascii_alphanumeric() => {
                    self.rest = rest;
                    Ok(Node::Byte(escaped))
                }
                _ => Err("a backslash before a letter or digit has no meaning all systems share".to_owned()),
            },
            b'*' | b'+' | b'?' | b'{' => Err(format!("{:?} has nothing to repeat", char::from(first))),
            other => Ok(Node::Byte(other)),
        }
    }

    fn repeated(&mut self, mut node: Node) -> Result<Node, String> {
        loop {
            let (min, max) = match self.rest.first() {
                Some(b'*') => (0, None),
                Some(b'+') => (1, None),
                Some(b'?') => (0, Some(1)),
                Some(b'{') => self.counts()?,
                _ => return Ok(node),
            };
            self.rest = &self.rest[1..];
            node = Node::Repeat { node: Box::new(node), min, max };
        }
    }

    /// `{m}`, `{m,}` or `{m,n}`; leaves the closing brace as the next byte.
    fn counts(&mut self) -> Result<(u32, Option<u32>), String> {
        let end = self.rest.iter().position(|&b| b == b'}').ok_or("a { without its }")?;
        let inside = std::str::from_utf8(&self.rest[1..end]).unwrap_or_default();
        let number =
            |t: &str| t.parse::<u32>().ok().filter(|n| *n <= REPEAT_MAX).ok_or(format!("{{{inside}}} is no count"));
        let counts = match inside.split_once(',') {
            None => (number(inside)?, Some(number(inside)?)),
            Some((min, "")) => (number(min)?, None),
            Some((min, max)) => (number(min)?, Some(number(max)?)),
        };
        self.rest = &self.rest[end..];
        Ok(counts)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }
}

/// What is left to match after a node, given where the node ended.
type Then<'t> = &'t mut dyn FnMut(&mut Matcher<'_>, usize) -> bool;

struct Matcher<'a> {
    text: &'a [u8],
    fold: bool,
    steps: u32,
}

impl Matcher<'_> {
    fn run(&mut self, node: &Node, at: usize, then: Then<'_>) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return false;
        }
        match node {
            Node::Start => at == 0 && then(self, at),
            Node::End => at == self.text.len() && then(self, at),
            Node::All(nodes) => self.run_all(nodes, at, then),
            Node::OneOf(branches) => branches.iter().any(|branch| self.run(branch, at, then)),
            Node::Repeat { node, min, max } => self.run_repeat(node, *min, *max, at, then),
            one => self.text.get(at).is_some_and(|&byte| self.takes(one, byte)) && then(self, at + 1),
        }
    }

    fn run_all(&mut self, nodes: &[Node], at: usize, then: Then<'_>) -> bool {
        match nodes.split_first() {
            None => then(self, at),
            Some((first, rest)) => self.run(first, at, &mut |matcher, next| matcher.run_all(rest, next, then)),
        }
    }

    fn run_repeat(&mut self, node: &Node, min: u32, max: Option<u32>, at: usize, then: Then<'_>) -> bool {
        if max == Some(0) {
            return then(self, at);
        }
        let one_more = self.run(node, at, &mut |matcher, next| {
            // An empty turn would repeat for ever and adds nothing.
            (next > at || min > 0) && matcher.run_repeat(node, min.saturating_sub(1), max.map(|n| n - 1), next, then)
        });
        one_more || (min == 0 && then(self, at))
    }

    fn takes(&self, node: &Node, byte: u8) -> bool {
        let same = |a: u8, b: u8| if self.fold { a.eq_ignore_ascii_case(&b) } else { a == b };
        match node {
            Node::Any => true,
            Node::Byte(expected) => same(*expected, byte),
            Node::Set { negated, ranges } => {
                let within = |b: u8| ranges.iter().any(|(low, high)| (*low..=*high).contains(&b));
                let found = within(byte)
                    || (self.fold && (within(byte.to_ascii_lowercase()) || within(byte.to_ascii_uppercase())));
                found != *negated
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn globs_match_whole_names_like_fnmatch() {
        for (pattern, subject, expected) in [
            ("linux-*", "linux-image-amd64", true),
            ("linux-*", "alinux-image", false),
            ("*", "", true),
            ("lib?", "libc", true),
            ("lib?", "lib", false),
            ("lib[a-c]*6", "libc6", true),
            ("lib[!a-c]*", "libc6", false),
            ("python3.[0-9]*", "python3.11-minimal", true),
            ("a\\*", "a*", true),
            ("A", "a", false),
            ("a[", "a[", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(subject), expected, "{pattern} on {subject}");
        }
    }

    #[test]
    fn regular_expressions_match_any_part_without_case() {
        for (pattern, subject, expected) in [
            ("/linux-(image|headers)-.*/", "LINUX-headers-6", true),
            ("/^lib.+[0-9]$/", "libssl3", true),
            ("/^lib.+[0-9]$/", "libssl3t", false),
            ("/x{2,3}y/", "axxy", true),
            ("/^x{2,3}$/", "xxxx", false),
            ("/[[:digit:]]+\\.deb12/", "1.deb12", true),
            ("/(a*)*b/", "aaaa", false),
            ("/(|a)+c/", "aac", true),
            ("/^$/", "", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(subject), expected, "{pattern} on {subject}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in ["/a(b/", "/a)b/", "/*a/", "/[a/", "/a\\d/", "/a{9999}/", "/[[:no:]]/"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert!(Pattern::parse(&format!("/{}/", "(".repeat(10_000))).is_err());
    }

    #[test]
    fn a_careless_pattern_ends() {
        let evil = Pattern::parse("/(a|a|aa)*(a|a|aa)*(a|a|aa)*$x/").unwrap();
        assert!(!evil.matches(&"a".repeat(SUBJECT_BYTES_MAX)));
    }

    proptest! {
        #[test]
        fn any_pattern_on_any_subject_is_answered(pattern in "[a-c\\[\\](){}*+?|^$.,1-3!:\\\\-]{0,16}", subject in "[a-c\\[-]{0,24}") {
            for text in [pattern.clone(), format!("/{pattern}/")] {
                if let Ok(parsed) = Pattern::parse(&text) {
                    parsed.matches(&subject);
                }
            }
        }
    }
}
