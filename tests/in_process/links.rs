//! The documents: their links, the index of their pages, and the length of the README.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// The paths in a folder.
fn within(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// The pages of `docs` and of its folders.
fn docs() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for path in within(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if is_page(&path) {
                pages.push(path);
            }
        }
    }
    pages
}

/// The text of a page without its blocks of code.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    without_blocks(&text)
}

fn without_blocks(text: &str) -> String {
    let mut prose = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// What the links of a text point to.
fn targets(prose: &str) -> Vec<&str> {
    let ends = prose.split("](").skip(1);
    ends.filter_map(|end| end.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

/// The anchors that GitHub makes of a text's headings.
fn anchors(prose: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in prose.lines().filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim();
        let anchor: String = title
            .chars()
            .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
            .map(|letter| if letter == ' ' { '-' } else { letter })
            .collect();
        let anchor = anchor.to_lowercase();
        let mut unique = anchor.clone();
        let mut number = 0;
        while !anchors.insert(unique) {
            number += 1;
            unique = format!("{anchor}-{number}");
        }
    }
    anchors
}

/// All documents.
fn documents() -> Vec<PathBuf> {
    let mut pages = within(&root());
    pages.retain(|path| is_page(path));
    pages.extend(docs());
    pages
}

#[test]
fn link_in_a_document_names_an_existing_file_and_heading() {
    let pages = documents();
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in pages {
        for target in targets(&prose(&page)) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let found =
                file.exists() && (anchor.is_empty() || anchors(&prose(&file)).contains(anchor));
            if !found {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(followed > 80, "only {followed} links were found");
}

/// The files and folders of the project that a text names as code. A name with a placeholder is none.
fn named_files(prose: &str) -> Vec<&str> {
    const FOLDERS: [&str; 8] = [
        "docs/",
        "events/",
        "functions/",
        "fuzz/",
        "scripts/",
        "shared/",
        "tests/",
        "vectors/",
    ];
    let code = prose.split('`').skip(1).step_by(2);
    code.map(|code| code.split_once("::").map_or(code, |(file, _)| file))
        .map(|code| code.split(' ').next().unwrap_or(code))
        .filter(|code| FOLDERS.iter().any(|folder| code.starts_with(folder)))
        .filter(|code| !code.contains(['*', '<', '{']))
        .filter(|code| !code.chars().any(char::is_uppercase) || code.ends_with(".md"))
        .collect()
}

/// The changelog names files of its time.
#[test]
fn file_that_a_document_names_exists() {
    let mut missing = Vec::new();
    let mut found = 0;
    for page in documents() {
        if page.ends_with("CHANGELOG.md") {
            continue;
        }
        for name in named_files(&prose(&page)) {
            found += 1;
            if !root().join(name).exists() {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(found > 80, "only {found} names were found");
}

#[test]
fn page_of_the_documentation_is_in_the_index() {
    let folder = root().join("docs");
    let index = prose(&folder.join("index.md"));
    let listed: BTreeSet<PathBuf> = targets(&index)
        .into_iter()
        .filter_map(|target| folder.join(target).canonicalize().ok())
        .collect();
    let pages = docs();
    assert!(pages.len() > 15, "{pages:?}");
    for page in pages {
        assert!(
            page.ends_with("index.md") || listed.contains(&page),
            "{} is not in docs/index.md",
            page.display()
        );
    }
}

#[test]
fn readme_has_at_most_170_lines() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= 170, "{lines} lines: move text to a page of docs");
}

#[test]
fn anchors_and_targets_of_a_text_are_those_of_github() {
    let text = "# KES's API\n## The `kes` CLI, and more\n```sh\n# none [a](b)\n```\n## KES's API\n[x](y.md#z) and\n![i](j.svg)";
    let prose = without_blocks(text);
    let expected = ["kess-api", "the-kes-cli-and-more", "kess-api-1"];
    assert_eq!(anchors(&prose), expected.map(str::to_owned).into());
    assert_eq!(targets(&prose), ["y.md#z", "j.svg"]);
    let text = "`scripts/deny` and `tests/a.rs::one`, `shared/b`; not `docs/*.dot`, `functions/X`, `make check`";
    assert_eq!(
        named_files(text),
        ["scripts/deny", "tests/a.rs", "shared/b"]
    );
}
