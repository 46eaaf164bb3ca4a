//! The routes of the HTTP API for its stand-ins: the local gateway, and the script that makes events.

use std::collections::BTreeSet;

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

/// The list for `events/make_events.py`: each route once, below the first prefix of its API.
pub(super) fn routes() -> String {
    let aliases = ["/minio/admin/v3/", "/api/"];
    let routes = of_http_api()
        .into_iter()
        .filter(|route| !aliases.iter().any(|alias| route.path.starts_with(alias)));
    let mut text = "[\n".to_owned();
    let lines: Vec<String> = routes
        .map(|route| {
            let line = json!([route.method, route.path]);
            format!("  {line}")
        })
        .collect();
    text.push_str(&lines.join(",\n"));
    text.push_str("\n]\n");
    text
}
