//! docs/performance has the tables and plots that the committed results give. `make bench` measures and writes them.

use std::path::Path;

use keyway_performance::{Made, made};

const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[expect(
    clippy::disallowed_methods,
    reason = "`make performance-pages` says by a variable that the pages are to be written"
)]
fn is_to_be_written() -> bool {
    std::env::var("KEYWAY_WRITE_PERFORMANCE").is_ok_and(|value| !value.is_empty())
}

#[test]
fn the_committed_tables_and_plots_are_those_of_the_results() {
    for Made { path, text } in made(Path::new(PROJECT)).unwrap() {
        let file = Path::new(PROJECT).join(&path);
        if is_to_be_written() {
            std::fs::write(&file, text).unwrap();
            continue;
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        let differing = text
            .lines()
            .zip(committed.lines())
            .find(|(made, committed)| made != committed);
        assert_eq!(
            differing, None,
            "{path}: `make performance-pages` writes it anew"
        );
        assert_eq!(text.len(), committed.len(), "{path} is not complete");
    }
}
