//! A low module imports no higher one, so that each can be read without the others.

#![allow(
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test that cannot go on must stop"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each module, from the lowest, and what it may import of this crate.
const LAYERS: [(&str, &[&str]); 10] = [
    ("glob", &[]),
    ("ranges", &[]),
    // The two at the bottom know each other: an id that does not parse is an error, and errors name ids.
    ("ids", &["error", "uuid_v4"]),
    ("error", &["ids"]),
    ("encoding", &["error"]),
    ("audit_context", &["ids"]),
    ("policy", &["error", "glob", "ids", "ranges"]),
    ("paths", &["error", "policy", "ranges"]),
    (
        "access/authorization",
        &["error", "ids", "paths", "policy", "ranges", "audit_context"],
    ),
    ("repository", &["encoding", "error", "ports", "revision"]),
];

/// The modules of this crate that a file imports.
fn imports(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let named = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("use crate::"));
    named
        .map(|path| {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            path.split(|c| !is_name(c)).next().unwrap().to_owned()
        })
        .collect()
}

/// The module's file, and those of the modules in it.
fn files(module: &str) -> Vec<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(module);
    let mut files = vec![path.with_extension("rs")];
    if path.is_dir() {
        files.extend(
            fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path()),
        );
    }
    files
}

#[test]
fn low_module_imports_no_higher_one() {
    for (module, allowed) in LAYERS {
        let imported: BTreeSet<String> = files(module)
            .iter()
            .flat_map(|file| imports(file))
            .collect();
        let allowed = allowed.iter().map(|name| (*name).to_owned()).collect();
        let beyond: Vec<&String> = imported.difference(&allowed).collect();
        assert!(beyond.is_empty(), "{module} imports {beyond:?}");
    }
}
