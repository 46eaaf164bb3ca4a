//! The inventory of routes for the suites: by dialect, and by the function that serves a route.

use std::sync::OnceLock;

use keyway_http::Group;
use keyway_sites::{Entry, inventory};

use crate::MemorySite;

/// The function that serves the routes of this group. Only `all`, which has every group, serves the last three.
pub fn function_of_group(group: Group) -> &'static str {
    match group {
        Group::Keys => "keys",
        Group::DataKeys => "datakey",
        Group::Service | Group::Log | Group::Health | Group::Document => "service",
        Group::Buckets => "bucket-encryption",
        Group::Access => "access",
        Group::Account | Group::Sessions | Group::AllKeys => "all",
    }
}

/// The package of the function that has this path.
pub fn function_of(path: &str) -> &'static str {
    let found = inventory().into_iter().filter(|entry| {
        entry.dialect != "kes"
            && !matches!(entry.group, Group::Sessions | Group::AllKeys)
            && matches(&entry.whole_path(), path)
    });
    // A literal segment precedes a parameter.
    let found = found.min_by_key(|entry| entry.path.contains('{'));
    match found.map(|entry| function_of_group(entry.group)) {
        Some("datakey") => "keyway-fn-datakey",
        Some("service") => "keyway-fn-service",
        Some("bucket-encryption") => "keyway-fn-bucket-encryption",
        _ => "keyway-fn-keys",
    }
}

/// Whether a route's path matches this path.
pub(crate) fn matches(route: &str, path: &str) -> bool {
    let (route, path): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
    route.len() == path.len()
        && route.iter().zip(&path).all(|(known, segment)| {
            known == segment || known.starts_with('{') && !segment.is_empty()
        })
}

/// Method and path of a route.
type Line = (String, String);
/// Function, method and path of a route.
type Served = (&'static str, String, String);

fn line(entry: &Entry) -> Line {
    (entry.method.to_string(), entry.path.to_owned())
}

/// The routes of a dialect below its first prefix.
fn of(dialect: &str) -> Vec<Entry> {
    let all = inventory();
    let of_dialect = all.into_iter().filter(|entry| entry.dialect == dialect);
    let mut found: Vec<Entry> = Vec::new();
    for entry in of_dialect {
        if !(found.iter()).any(|it| (&it.method, it.path) == (&entry.method, entry.path)) {
            found.push(entry);
        }
    }
    found
}

fn served(dialect: &str) -> Vec<Served> {
    let served = |entry: Entry| {
        let (method, path) = line(&entry);
        (function_of_group(entry.group), method, path)
    };
    of(dialect).into_iter().map(served).collect()
}

impl MemorySite {
    /// Method and path (below the prefix) of every route of RustFS's API.
    pub fn routes(&self) -> &'static [Line] {
        static LINES: OnceLock<Vec<Line>> = OnceLock::new();
        LINES.get_or_init(|| of("rustfs").iter().map(line).collect())
    }

    /// Those of [`Self::routes`] that the function of this name serves.
    pub fn routes_of(&self, function: &str) -> Vec<Line> {
        let of_function = |entry: &Entry| function_of_group(entry.group) == function;
        let found = of("rustfs").into_iter().filter(of_function);
        let found: Vec<_> = found.map(|entry| line(&entry)).collect();
        assert!(!found.is_empty(), "there is no function {function}");
        found
    }

    /// Function, method and path (below the prefix) of every route of MinIO's API.
    pub fn minio_routes(&self) -> &'static [Served] {
        static LINES: OnceLock<Vec<Served>> = OnceLock::new();
        LINES.get_or_init(|| served("minio"))
    }

    /// Function, method and path of every route of KES's API.
    pub fn kes_routes(&self) -> &'static [Served] {
        static LINES: OnceLock<Vec<Served>> = OnceLock::new();
        LINES.get_or_init(|| served("kes"))
    }

    /// Method and path of every route of S3's protocol.
    pub fn s3_routes(&self) -> &'static [Line] {
        static LINES: OnceLock<Vec<Line>> = OnceLock::new();
        LINES.get_or_init(|| of("s3").iter().map(line).collect())
    }
}
