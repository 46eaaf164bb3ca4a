//! The page of `keyway doctor` lists every code as the code has it.

use keyway_domain::doctor::Code;
use keyway_tests::project;

const BEGINS: &str = "<!-- codes -->\n";
const ENDS: &str = "<!-- /codes -->";

/// The table of the page, made from the codes.
fn table() -> String {
    let mut table =
        String::from("| Code | Severity | What was found | What to do |\n|---|---|---|---|\n");
    for code in Code::ALL {
        let (name, severity) = (code.as_str(), code.severity().as_str());
        let (meaning, action) = (code.meaning(), code.action());
        table.push_str(&format!(
            "| `{name}` | {severity} | {meaning} | {action} |\n"
        ));
    }
    table.replace("|  |", "| |")
}

/// `KEYWAY_WRITE_DOCTOR=1` writes the table instead of comparing it.
#[test]
fn page_lists_every_code_as_the_code_has_it() {
    let path = project().join("docs/doctor.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGINS).unwrap();
    let (found, after) = rest.split_once(ENDS).unwrap();
    if is_written() {
        let page = format!("{before}{BEGINS}{}{ENDS}{after}", table());
        std::fs::write(&path, page).unwrap();
        return;
    }
    assert_eq!(found, table(), "write it by KEYWAY_WRITE_DOCTOR=1");
}

#[expect(clippy::disallowed_methods, reason = "the operator asks for the page")]
fn is_written() -> bool {
    std::env::var("KEYWAY_WRITE_DOCTOR").is_ok()
}
