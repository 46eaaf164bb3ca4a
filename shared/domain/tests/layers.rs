//! The modules of this crate form no circle, so that each can be read without those above it.

#![allow(
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a test that cannot go on must stop"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What the lowest modules may import of this crate: a part of a module by its path, a module by its name.
const LOWEST: [(&str, &[&str]); 11] = [
    ("glob", &[]),
    ("ranges", &[]),
    ("cache", &[]),
    ("ids", &[]),
    ("error", &["ids"]),
    ("encoding", &["error"]),
    ("audit_context", &["ids"]),
    ("policy", &["error", "glob", "ids", "ranges"]),
    ("paths", &["error", "policy", "ranges"]),
    (
        "access/authorization",
        &["error", "ids", "paths", "policy", "ranges", "audit_context"],
    ),
    ("repository", &["encoding", "error", "ports"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// What a text names of this crate's root by `crate::`, also within braces. Comments and modules of tests do not count.
fn named(text: &str) -> BTreeSet<String> {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: Vec<&str> = product
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .collect();
    let code = code.join("\n");
    let mut named = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            Some(group) => named.extend(heads(group)),
            None => named.extend(word(path)),
        }
    }
    named
}

/// The first names of the paths in a group, up to the brace that ends it.
fn heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut is_head) = (Vec::new(), 1, true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => is_head = true,
            _ if is_head && !letter.is_whitespace() => {
                heads.extend(word(&group[at..]));
                is_head = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn word(text: &str) -> Option<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let word = text.split(|c| !is_name(c)).next().unwrap();
    (!word.is_empty()).then(|| word.to_owned())
}

/// The module's file, and those of the modules in it, except for tests.
fn files(module: &str) -> Vec<PathBuf> {
    let folder = source().join(module);
    let mut files = vec![folder.with_extension("rs")];
    if folder.is_dir() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert!(
                !path.is_dir(),
                "{}: modules have two levels",
                path.display()
            );
            if stem != "tests" {
                files.push(path);
            }
        }
    }
    files
}

/// What a module, or a part of one, names of this crate besides itself.
fn imports(module: &str) -> BTreeSet<String> {
    let own = module.split('/').next().unwrap();
    let mut imports: BTreeSet<String> = files(module)
        .iter()
        .flat_map(|file| named(&fs::read_to_string(file).unwrap()))
        .collect();
    imports.remove(own);
    imports
}

/// Every module of the crate's root, and what it imports.
fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let modules = fs::read_dir(source()).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (path.extension().is_some_and(|end| end == "rs") && name != "lib").then_some(name)
    });
    modules
        .map(|module| {
            let imports = imports(&module);
            (module, imports)
        })
        .collect()
}

/// The modules that lie on a circle or above one, with what keeps each from having a place.
fn without_place(
    mut graph: BTreeMap<String, BTreeSet<String>>,
) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let placed: BTreeSet<String> = graph
            .iter()
            .filter(|(_, imports)| imports.is_empty())
            .map(|(module, _)| module.clone())
            .collect();
        if placed.is_empty() {
            return graph;
        }
        graph.retain(|module, _| !placed.contains(module));
        for imports in graph.values_mut() {
            imports.retain(|module| !placed.contains(module));
        }
    }
}

#[test]
fn low_module_imports_no_higher_one() {
    for (module, allowed) in LOWEST {
        let allowed = allowed.iter().map(|name| (*name).to_owned()).collect();
        let imports = imports(module);
        let beyond: Vec<&String> = imports.difference(&allowed).collect();
        assert!(beyond.is_empty(), "{module} imports {beyond:?}");
    }
}

#[test]
fn module_imports_modules_and_nothing_of_the_root() {
    let graph = graph();
    for (module, imports) in &graph {
        let others: Vec<&String> = imports
            .iter()
            .filter(|import| !graph.contains_key(*import))
            .collect();
        assert!(
            others.is_empty(),
            "{module} imports {others:?}, which hides the module that they are of"
        );
    }
}

#[test]
fn modules_form_no_circle() {
    let rest = without_place(graph());
    assert!(rest.is_empty(), "each imports the others: {rest:#?}");
}

#[test]
fn circle_of_any_length_is_found() {
    let graph = |edges: &[(&str, &[&str])]| {
        let edge = |(module, imports): &(&str, &[&str])| {
            let imports = imports.iter().map(|name| (*name).to_owned());
            ((*module).to_owned(), imports.collect())
        };
        edges.iter().map(edge).collect::<BTreeMap<_, _>>()
    };
    let tree = graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
    assert!(without_place(tree).is_empty());
    let circle = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["a", "d"]), ("d", &[])]);
    let rest: Vec<String> = without_place(circle).into_keys().collect();
    assert_eq!(rest, ["a", "b", "c"]);
}

#[test]
fn names_are_found_wherever_they_are_written() {
    let text = "use crate::a::{B, C};\nuse crate::{d::{E, F}, g, h::I};\nfn f() { crate::j::k() }\n\
                // crate::comment\n/// [`crate::link`]\n#[cfg(test)]\nmod tests { use crate::test; }";
    let found: Vec<String> = named(text).into_iter().collect();
    assert_eq!(found, ["a", "d", "g", "h", "j"]);
}
