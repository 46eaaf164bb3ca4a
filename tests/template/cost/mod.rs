//! docs/cost.md and the README have the costs that prices and measured figures give. `make cost` measures and writes them.

mod figures;
mod tables;

use std::collections::BTreeSet;

use keyway_tests::project;

use figures::{Costs, Front, MILLION, Traffic};

const PAGES: [&str; 2] = ["docs/cost.md", "README.md"];
const BEGIN: &str = "<!-- cost: ";
const END: &str = "<!-- /cost -->";

/// The page with new text between the marks, and the names of its marks.
fn completed(page: &str) -> (String, BTreeSet<String>) {
    let blocks = tables::blocks();
    let (mut made, mut names, mut rest) = (String::new(), BTreeSet::new(), page);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").unwrap();
        let (_, after) = after.split_once(END).unwrap();
        let (_, text) = (blocks.iter().find(|(known, _)| *known == name))
            .unwrap_or_else(|| panic!("no block is named {name}"));
        made += &format!("{before}{BEGIN}{name} -->{text}{END}");
        names.insert(name.to_owned());
        rest = after;
    }
    (made + rest, names)
}

#[expect(
    clippy::disallowed_methods,
    reason = "`make cost` says by a variable that the pages are to be written"
)]
fn is_to_be_written() -> bool {
    std::env::var("KEYWAY_WRITE_COST").is_ok_and(|value| !value.is_empty())
}

#[test]
fn the_committed_tables_are_the_computed_ones() {
    let mut used = BTreeSet::new();
    for path in PAGES {
        let file = project().join(path);
        let page = std::fs::read_to_string(&file).unwrap();
        let (made, names) = completed(&page);
        used.extend(names);
        if is_to_be_written() {
            std::fs::write(&file, made).unwrap();
        } else {
            let differing = made
                .lines()
                .zip(page.lines())
                .find(|(made, page)| made != page);
            assert_eq!(differing, None, "{path}: `make cost-tables` writes it anew");
        }
    }
    let blocks = tables::blocks();
    let unused: Vec<_> = (blocks.iter().map(|(name, _)| *name))
        .filter(|name| !used.contains(*name))
        .collect();
    assert_eq!(unused, [""; 0], "no page has these blocks");
}

/// The aim for the cheapest front: all included, from the measured figures.
#[test]
fn million_data_keys_through_a_function_url_cost_at_most_sixty_cents() {
    let costs = Costs::read();
    for dialect in ["rustfs", "aws"] {
        let busy = costs.data_keys(Front::FunctionUrl, Traffic::Busy, dialect, MILLION);
        assert!(busy <= 0.60, "{dialect}: {busy}");
    }
}
