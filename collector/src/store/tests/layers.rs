//! SQL and the database's crate stay in this room.

use std::path::{Path, PathBuf};

const SIGNS: [&str; 7] =
    ["rusqlite", "postgres::", "SELECT ", "INSERT INTO ", "UPDATE SET", "DELETE FROM ", "CREATE TABLE"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn sql_and_the_database_crate_appear_in_the_store_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut inside = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let signs: Vec<&str> = SIGNS.into_iter().filter(|sign| text.contains(sign)).collect();
        let place = file.strip_prefix(&root).unwrap();
        if place.starts_with("store") || place == Path::new("store.rs") {
            inside += signs.len();
        } else {
            assert!(signs.is_empty(), "{} has {signs:?}: it belongs in store/", place.display());
        }
    }
    assert!(inside > 20, "the signs were not found where they must be");
}

#[test]
fn no_type_of_the_database_crate_is_in_a_public_signature() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut files = vec![root.with_extension("rs")];
    sources(&root, &mut files);
    let mut public = 0;
    for file in files.iter().filter(|file| !file.components().any(|part| part.as_os_str() == "tests")) {
        let text = std::fs::read_to_string(file).unwrap();
        for (at, _) in text.match_indices("pub ") {
            let item = text[at..].split(['{', ';', '=']).next().unwrap();
            public += 1;
            for sign in ["rusqlite", "Connection", "Row<"] {
                assert!(!item.contains(sign), "{}: {item}", file.display());
            }
        }
    }
    assert!(public > 100, "public items were not found");
}

/// What would tie the schema or a question to one server (`README.md`).
const TIED: [&str; 13] = [
    "SERIAL",
    "BIGSERIAL",
    "IDENTITY",
    "LISTEN",
    "NOTIFY",
    "pg_advisory_xact_lock",
    "LOCK",
    "EXCLUDE",
    "GIST",
    "INHERITS",
    "DEFERRABLE",
    "MATERIALIZED",
    "SEQUENCE",
];

#[test]
fn nothing_ties_the_schema_or_a_question_to_one_server() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.retain(|file| !file.components().any(|part| part.as_os_str() == "tests"));
    for entry in std::fs::read_dir(root.join("migrations")).unwrap() {
        files.push(entry.unwrap().path());
    }
    assert!(files.len() > 30, "the sources have moved");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("--").next().unwrap().split("//").next().unwrap();
            let mut words = code.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
            let tied = words.find(|word| TIED.contains(word));
            assert!(tied.is_none(), "{}:{}: {tied:?}", file.display(), number + 1);
        }
    }
}
