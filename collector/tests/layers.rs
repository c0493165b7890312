//! The arithmetic of the contract stays pure: an auditor can run it anywhere and get the same figure.

use std::path::{Path, PathBuf};

/// What would let the world into `contract/`, and why it must not.
const FORBIDDEN: [(&str, &str); 12] = [
    ("tokio", "it does not wait"),
    ("rusqlite", "it does not store"),
    ("std::fs", "it reads no files"),
    ("std::io", "it reads and writes nothing"),
    ("std::net", "it knows no network"),
    ("SystemTime", "time is an argument"),
    ("Instant::now", "time is an argument"),
    ("Timestamp::now", "time is an argument"),
    ("WallClock", "time is an argument"),
    ("crate::evaluate", "the front door depends on it, never the reverse"),
    ("f64", "it counts in integers"),
    ("f32", "it counts in integers"),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("the directory is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_contract_knows_nothing_of_the_world() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join("contract.rs")];
    sources(&src.join("contract"), &mut files);
    assert!(files.len() > 10, "the sources have moved: {files:?}");
    let mut offences = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("readable");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (word, why) in FORBIDDEN.iter().filter(|(word, _)| code.contains(word)) {
                offences.push(format!("{}:{}: {word}: {why}", file.display(), number + 1));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}
