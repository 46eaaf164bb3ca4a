//! The routes of the HTTP API for its stand-ins: the local gateway, and the script that makes events.

use std::collections::BTreeSet;

use keyway_sites::inventory;
use keyway_tests::function_of_group;
use serde_json::json;

use super::api::of_http_api;

const HEADER: &str = "\
# `make template` writes this file. It says which function `cargo lambda watch` calls for which path, as the HTTP API of
# template.yaml does. Its own paths, below /lambda-url, would not do: functions do not see them whole, and signatures
# cover paths.
[watch.router]
";

/// The file for `cargo lambda watch`.
pub(super) fn gateway() -> String {
    let mut text = HEADER.to_owned();
    let mut written = BTreeSet::new();
    for route in of_http_api() {
        // Its router distinguishes a slash at the end, and spells greedy parameters differently.
        let path = route.path.replace("{proxy+}", "{*object}");
        let mut paths = vec![path.clone()];
        if path == "/{bucket}" || path.starts_with("/aws") {
            paths.push(format!("{path}/"));
        }
        for path in paths {
            let line = format!("\"{path}\" = \"keyway-fn-{}\"\n", route.function);
            if written.insert(line.clone()) {
                text.push_str(&line);
            }
        }
    }
    text
}

/// The lists for `events/make_events.py`: the routes of the HTTP API, and those that only the function with every route has.
/// Each route is there once, below the first prefix of its API.
pub(super) fn routes() -> String {
    let of_http_api = of_http_api()
        .into_iter()
        .map(|route| (route.method, route.path));
    let of_one_function = inventory()
        .into_iter()
        // An event of AWS KMS's API at the root would be one of STS's with a header.
        .filter(|entry| entry.header.is_none())
        .filter(|entry| entry.dialect != "kes" && function_of_group(entry.group) == "all")
        .map(|entry| (entry.method.to_string(), entry.whole_path()));
    format!(
        "{{\n  \"http-api\": {},\n  \"one-function\": {}\n}}\n",
        list(of_http_api),
        list(of_one_function)
    )
}

fn list(routes: impl Iterator<Item = (String, String)>) -> String {
    let aliases = ["/minio/admin/v3/", "/api/"];
    let lines: Vec<String> = routes
        .filter(|(_, path)| !aliases.iter().any(|alias| path.starts_with(alias)))
        .map(|(method, path)| format!("    {}", json!([method, path])))
        .collect();
    format!("[\n{}\n  ]", lines.join(",\n"))
}
