//! The generated parts of the deployment: the repeating parts of `template.yaml`, the routes of the local gateway, and
//! the list of routes that `events/make_events.py` makes events for. `make template` writes them.

mod alarms;
mod api;
mod local;
mod roles;
mod versions;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use keyway_tests::project;

const BEGIN: &str = "# generated: ";
const END: &str = "# end of generated";

/// The template with new text between the marks.
fn completed(template: &str) -> String {
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |name: String, text: String| {
        assert!(blocks.insert(name.clone(), text).is_none(), "{name}");
    };
    for (name, text) in api::blocks() {
        add(name, text);
    }
    for (name, text) in roles::blocks() {
        add(name, text);
    }
    add("versions and aliases".to_owned(), versions::block());
    add("alarms".to_owned(), alarms::block());
    add(
        "the policies of the secrets".to_owned(),
        roles::policies_of_secrets(),
    );
    add("what the setup waits for".to_owned(), String::new());
    let mut made = String::new();
    let mut lines = template.lines();
    while let Some(line) = lines.next() {
        made.push_str(line);
        made.push('\n');
        let Some(name) = line.trim_start().strip_prefix(BEGIN) else {
            continue;
        };
        let text = blocks.remove(name);
        made.push_str(&text.unwrap_or_else(|| panic!("{name} stands twice, or is not generated")));
        let end = lines.find(|line| line.trim_start() == END);
        made.push_str(end.unwrap_or_else(|| panic!("{name} has no end")));
        made.push('\n');
    }
    let missing: Vec<&String> = blocks.keys().collect();
    assert!(
        missing.is_empty(),
        "template.yaml has no place for {missing:?}"
    );
    waiting(&made)
}

/// The template with its last resource, the setup, naming all others, so that it waits for them: if one of them fails, the
/// table is not protected from deletion yet, and the first deployment leaves nothing.
fn waiting(template: &str) -> String {
    let (_, resources) = template.split_once("\nResources:\n").unwrap();
    let (resources, _) = resources.split_once("\nOutputs:\n").unwrap();
    // A name's condition stands on a line below it.
    let mut named: Vec<(&str, Option<&str>)> = Vec::new();
    for line in resources.lines() {
        let name = line.strip_prefix("  ").and_then(|it| it.strip_suffix(':'));
        let is_name = |name: &&str| name.chars().all(char::is_alphanumeric);
        if let Some(name) = name.filter(is_name) {
            named.push((name, None));
        } else if let (Some(condition), Some(last)) =
            (line.strip_prefix("    Condition: "), named.last_mut())
        {
            last.1 = Some(condition);
        }
    }
    let mut list = String::from("      After:\n");
    for (name, condition) in named.into_iter().filter(|(name, _)| *name != "Deployment") {
        match condition {
            None => writeln!(list, "        - !Ref {name}"),
            Some(condition) => writeln!(
                list,
                "        - !If [{condition}, !Ref {name}, !Ref \"AWS::NoValue\"]"
            ),
        }
        .unwrap();
    }
    let mark = "# generated: what the setup waits for\n";
    template.replacen(mark, &format!("{mark}{list}"), 1)
}

/// How many routes of the HTTP API have the rate of data keys, how many that of the description, and all others.
pub(crate) fn routes_of_http_api() -> [usize; 3] {
    let mut counts = [0; 3];
    for route in api::of_http_api() {
        counts[match route.function {
            "datakey" => 0,
            _ if route.path == keyway_openapi::PATH => 1,
            _ => 2,
        }] += 1;
    }
    counts
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The generated files with what they must hold.
fn files() -> Vec<(PathBuf, String)> {
    let template = project().join("template.yaml");
    let completed = completed(&read(&template));
    vec![
        (template, completed),
        (project().join("scripts/lambda.toml"), local::gateway()),
        (project().join("events/routes.json"), local::routes()),
    ]
}

#[expect(
    clippy::disallowed_methods,
    reason = "`make template` says by a variable that the files are to be written"
)]
fn is_to_be_written() -> bool {
    std::env::var("KEYWAY_WRITE_TEMPLATE").is_ok_and(|value| !value.is_empty())
}

#[test]
fn the_committed_deployment_is_the_generated_one() {
    for (path, made) in files() {
        if is_to_be_written() {
            std::fs::write(&path, made).unwrap();
        } else {
            let same = read(&path) == made;
            assert!(same, "{}: `make template` writes it anew", path.display());
        }
    }
}
