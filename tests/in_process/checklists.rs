//! The checklists of `docs/`: the files that they name exist, and have the example of the page in them.

use keyway_tests::project;

/// The numbered items of a section.
fn items(page: &str, section: &str) -> Vec<String> {
    let page = std::fs::read_to_string(project().join("docs").join(page)).unwrap();
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let mut items: Vec<String> = Vec::new();
    for line in section.lines().filter(|line| !line.is_empty()) {
        if line.starts_with(|first: char| first.is_ascii_digit()) {
            items.push(line.to_owned());
        } else if let (Some(item), true) = (items.last_mut(), line.starts_with("   ")) {
            item.push_str(line);
        }
    }
    items
}

/// The files and folders that a text names.
fn named(text: &str) -> Vec<&str> {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|word| !word.contains([' ', '(', ':', '*']) && !word.starts_with('/'))
        .filter(|word| {
            let ends = [".rs", ".md", ".py", ".yaml", ".toml", ".json", ".snap"];
            ends.iter().any(|end| word.ends_with(end))
        })
        .collect()
}

fn has_example(path: &str, example: &str) {
    let text = std::fs::read_to_string(project().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    let found = text.to_lowercase().contains(example);
    assert!(found, "{path} has nothing about {example}");
}

#[test]
fn route_takes_the_files_of_its_checklist_and_at_most_five_by_hand() {
    let by_hand = items("add-a-route.md", "By hand");
    let mut written: Vec<&str> = by_hand.iter().flat_map(|item| named(item)).collect();
    // Every change has a line there.
    written.retain(|path| *path != "CHANGELOG.md");
    assert_eq!(written.len(), 5, "{written:?}");
    let by_command = items("add-a-route.md", "By command");
    let generated: Vec<&str> = by_command.iter().flat_map(|item| named(item)).collect();
    assert!(generated.len() >= 6, "{generated:?}");
    for path in written.into_iter().chain(generated) {
        has_example(path, "rewrap");
    }
}

#[test]
fn dialect_takes_the_files_of_its_checklist() {
    let by_hand = items("add-a-dialect.md", "By hand");
    let named: Vec<&str> = by_hand.iter().flat_map(|item| named(item)).collect();
    assert!(named.len() >= 9, "{named:?}");
    for path in named {
        has_example(path, "minio");
    }
}
