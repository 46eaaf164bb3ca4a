//! Functions stay short enough to be read at once: 80 lines of code, and 150 for a test.
//!
//! Clippy's `too_many_lines` has one limit for both, and does not see every asynchronous function.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

const LONGEST: usize = 80;
const LONGEST_TEST: usize = 150;

/// A function with a body.
struct Function {
    name: String,
    is_test: bool,
    /// Lines with code: blank lines and comments do not count.
    lines: usize,
}

impl Function {
    fn is_too_long(&self) -> bool {
        let limit = if self.is_test { LONGEST_TEST } else { LONGEST };
        self.lines > limit
    }
}

/// Every function of a source, those in modules, functions and macros among them.
fn functions(source: TokenStream, found: &mut Vec<Function>) {
    let mut is_test = false;
    let mut name = None;
    let mut tokens = source.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(TokenTree::Group(attribute)) = tokens.peek() {
                    is_test |= is_test_attribute(attribute);
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => (is_test, name) = (false, None),
            TokenTree::Ident(keyword) if keyword == "fn" => {
                if let Some(TokenTree::Ident(ident)) = tokens.peek() {
                    name = Some(ident.to_string());
                }
            }
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Brace {
                    if let Some(name) = name.take() {
                        let lines = code_lines(group.stream());
                        found.push(Function {
                            name,
                            is_test,
                            lines,
                        });
                    }
                    is_test = false;
                }
                functions(group.stream(), found);
            }
            _ => {}
        }
    }
}

/// `#[test]`, `#[tokio::test]` and `#[tokio::test(...)]`.
fn is_test_attribute(attribute: &Group) -> bool {
    let path = attribute
        .stream()
        .into_iter()
        .take_while(|token| !matches!(token, TokenTree::Group(_)))
        .filter(|token| matches!(token, TokenTree::Ident(_)));
    path.last().is_some_and(|last| last.to_string() == "test")
}

fn code_lines(body: TokenStream) -> usize {
    let mut lines = BTreeSet::new();
    collect_lines(body, &mut lines);
    lines.len()
}

fn collect_lines(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    for token in tokens {
        if let TokenTree::Group(group) = &token {
            lines.extend([
                group.span_open().start().line,
                group.span_close().start().line,
            ]);
            collect_lines(group.stream(), lines);
        } else {
            // A string may go over several lines.
            lines.extend(token.span().start().line..=token.span().end().line);
        }
    }
}

fn parse(source: &str) -> Vec<Function> {
    let mut found = Vec::new();
    functions(source.parse().unwrap(), &mut found);
    found
}

/// Calls `each` with every Rust file below a folder of the repository.
fn sources(folder: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        let is_skipped = [OsStr::new("target"), OsStr::new("node_modules")].contains(&&*name)
            || name.as_encoded_bytes().starts_with(b".");
        if is_skipped {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            sources(&path, each);
        } else if path.extension() == Some(OsStr::new("rs")) {
            each(&path);
        }
    }
}

#[test]
fn every_function_stays_within_its_limit() {
    let mut count = 0;
    let mut too_long = Vec::new();
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    sources(root, &mut |path| {
        for function in parse(&fs::read_to_string(path).unwrap()) {
            count += 1;
            let path = path.strip_prefix(root).unwrap().display();
            let place = format!("{path}: {}", function.name);
            if function.is_too_long() {
                too_long.push(format!("{place}: {} lines", function.lines));
            }
        }
    });
    assert!(count > 4000, "all sources are read: {count}");
    assert!(too_long.is_empty(), "{too_long:#?}");
}

#[test]
fn function_length_counts_code_and_tells_tests_apart() {
    let source = r#"
        mod inner {
            #[cfg(test)]
            fn helper(callback: fn(u8)) {
                // A comment does not count.

                let text = "one
                    two";
            }
        }
        trait Port { fn call(&self); }
        macro_rules! made { () => { fn in_a_macro() { fn nested() {} } } }
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "slow"]
        async fn case() { call(&[
            1,
        ]) }
    "#;
    let found: Vec<_> = parse(source)
        .into_iter()
        .map(|function| (function.name, function.is_test, function.lines))
        .collect();
    let expected = [
        ("helper", false, 2),
        ("in_a_macro", false, 1),
        ("nested", false, 0),
        ("case", true, 3),
    ];
    let expected = expected.map(|(name, is_test, lines)| (name.to_owned(), is_test, lines));
    assert_eq!(found, expected);
}
