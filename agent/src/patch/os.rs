//! Which distribution a root holds, from `os-release`.
//!
//! Source: os-release(5). `/etc/os-release` wins over `/usr/lib/os-release`.

use super::root::Root;

/// Both places of os-release(5), in their order.
pub(crate) const FILES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// The fields we need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OsRelease {
    pub(crate) id: Option<String>,
    pub(crate) id_like: Vec<String>,
    pub(crate) version_id: Option<String>,
    pub(crate) codename: Option<String>,
}

/// `None` when the root has neither file (a bare chroot).
pub(crate) fn read(root: &Root) -> Option<OsRelease> {
    FILES.iter().find_map(|file| root.text(file).ok()).map(|text| parse(&text))
}

impl OsRelease {
    /// True for Debian, Ubuntu and what is built on them.
    pub(crate) fn uses_dpkg(&self) -> bool {
        self.id.iter().chain(&self.id_like).any(|id| matches!(id.as_str(), "debian" | "ubuntu"))
    }
}

fn parse(text: &str) -> OsRelease {
    let mut os = OsRelease::default();
    for (key, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
        let value = unquote(value);
        match key {
            "ID" => os.id = Some(value),
            "ID_LIKE" => os.id_like = value.split_whitespace().map(str::to_owned).collect(),
            "VERSION_ID" => os.version_id = Some(value),
            "VERSION_CODENAME" => os.codename = Some(value),
            _ => {}
        }
    }
    os
}

/// Shell quoting as far as os-release(5) allows it.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let inner = ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q)).unwrap_or(value);
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quoted_and_bare_values_are_read() {
        let os = parse(
            "# c\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID='21.3'\nNAME=\"A \\\"B\\\"\"\nVERSION_CODENAME=virginia\n",
        );
        assert_eq!(os.id.as_deref(), Some("linuxmint"));
        assert_eq!(os.version_id.as_deref(), Some("21.3"));
        assert_eq!(os.codename.as_deref(), Some("virginia"));
        assert!(os.uses_dpkg());
        assert!(!parse("ID=fedora\nID_LIKE=\"rhel\"\n").uses_dpkg());
        assert_eq!(unquote("\"A \\\"B\\\"\""), "A \"B\"");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,80}") {
            parse(&text);
            parse(&format!("ID={text}"));
        }
    }
}
