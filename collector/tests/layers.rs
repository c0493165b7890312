//! Who may know what: the borders between the rooms of the house, walked through source by source.
//!
//! The arithmetic of the contract stays pure, so an auditor can run it anywhere and get the same figure. SQL, the
//! wire and TLS stacks stay where they belong. A directory that has grown to three files explains itself.
//! (`src/store/tests/layers.rs` also looks for SQL and for types of the database's crate.)

use std::path::{Path, PathBuf};

/// What would let the world into `contract/`, and why it must not.
const FORBIDDEN: [(&str, &str); 13] = [
    ("tokio", "it does not wait"),
    ("rusqlite", "it does not store"),
    ("postgres", "it does not store"),
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

/// The whole workspace: collector, agent, proto, tests, benches.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the collector is a member of a workspace")
}

/// Every source of `member`, by its path in the workspace, with the lines of code that contain one of `words`.
fn uses(member: &str, words: &[&str]) -> Vec<(PathBuf, usize)> {
    let mut files = Vec::new();
    sources(&workspace().join(member), &mut files);
    assert!(files.len() > 10, "the sources of {member} have moved");
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let place = file.strip_prefix(workspace()).expect("below the workspace").to_owned();
        let hits = code.enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.extend(hits.map(|(number, _)| (place.clone(), number + 1)));
    }
    found
}

/// Fails with each use of `words` outside `rooms`; a room is a file or a directory with all below it.
fn only_in(words: &[&str], rooms: &[&str]) {
    let all: Vec<_> =
        ["agent/src", "collector/src", "proto/src"].iter().flat_map(|member| uses(member, words)).collect();
    let (inside, outside): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(file, _)| rooms.iter().any(|room| file.starts_with(room)));
    assert!(outside.is_empty(), "{words:?} belong in {rooms:?} only, not in {outside:?}");
    for room in rooms {
        assert!(inside.iter().any(|(file, _)| file.starts_with(room)), "{room} does not use {words:?} any more");
    }
}

#[test]
fn the_crates_of_the_databases_stay_in_the_store() {
    only_in(&["rusqlite"], &["collector/src/store"]);
    // The check of that kind has modules of that name, not the crate.
    let namesakes = ["agent/src/probe.rs", "proto/src/plan.rs"];
    only_in(&["postgres::"], &[&["collector/src/store.rs", "collector/src/store"], &namesakes[..]].concat());
}

#[test]
fn types_of_the_wire_stay_at_the_rim() {
    only_in(
        &["peil_proto::wire", "crate::wire", "prost::"],
        &[
            "proto/src/wire",
            "proto/src/convert.rs",
            "proto/src/convert",
            "agent/src/enrol.rs",
            "agent/src/uplink/session.rs",
            "agent/src/uplink/session",
            "collector/src/ingest.rs",
            "collector/src/ingest",
            // Names the two generated services to serve them; sees no message.
            "collector/src/app.rs",
        ],
    );
    let messages = uses("collector/src", &["wire::"]);
    let in_app: Vec<_> = messages.iter().filter(|(file, _)| file.ends_with("app.rs")).collect();
    assert_eq!(in_app.len(), 2, "app.rs names the two services and nothing else of the wire: {in_app:?}");
}

#[test]
fn there_is_one_tls_stack_and_one_crypto_provider() {
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).expect("the lock file is kept");
    let packages: Vec<&str> = lock.lines().filter_map(|line| line.strip_prefix("name = \"")).collect();
    assert!(packages.contains(&"rustls\"") && packages.contains(&"ring\""), "the lock file reads differently");
    for stranger in ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "boring", "boring-sys"] {
        assert!(!packages.contains(&format!("{stranger}\"").as_str()), "{stranger} is in Cargo.lock");
    }
}

/// The page that explains `dir`: its own. `src` has the page of its crate; tests have that of what they test, or of
/// the `tests` directory they are in, fuzz targets that of what they fuzz with.
fn page_of(dir: &Path) -> Option<PathBuf> {
    let own = dir.join("README.md");
    if own.is_file() {
        return Some(own);
    }
    let place = dir.strip_prefix(workspace()).ok()?;
    let named = ["src", "fuzz_targets"].iter().any(|name| place.ends_with(name));
    let borrows = named || place.components().any(|part| part.as_os_str() == "tests");
    if borrows { page_of(dir.parent()?) } else { None }
}

#[test]
fn every_directory_with_three_sources_has_a_page_that_explains_it() {
    let mut files = Vec::new();
    for member in ["agent", "collector", "proto"] {
        sources(&workspace().join(member), &mut files);
    }
    let mut count = std::collections::BTreeMap::<&Path, usize>::new();
    for file in &files {
        *count.entry(file.parent().expect("in a directory")).or_default() += 1;
    }
    let large: Vec<_> = count.into_iter().filter(|(_, sources)| *sources >= 3).map(|(dir, _)| dir).collect();
    assert!(large.len() > 15, "the sources have moved: {large:?}");
    let silent: Vec<_> = large.into_iter().filter(|dir| page_of(dir).is_none()).collect();
    assert!(silent.is_empty(), "without README.md: {silent:?}");
}

#[test]
fn the_contract_knows_nothing_of_the_world() {
    knows_nothing_of_the_world("contract", 10);
}

#[test]
fn what_follows_from_the_blocks_needs_nothing_but_the_blocks() {
    knows_nothing_of_the_world("derive", 5);
}

/// Fails with each use of a forbidden word in a room and the file that opens it; the tests of a room may use floats.
fn knows_nothing_of_the_world(room: &str, files_at_least: usize) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join(format!("{room}.rs"))];
    sources(&src.join(room), &mut files);
    files.retain(|file| !file.ends_with("tests.rs"));
    assert!(files.len() >= files_at_least, "the sources have moved: {files:?}");
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
