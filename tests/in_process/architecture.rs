//! The architecture: which crate may depend on which, and which outside crate belongs to which. The second table is in deny.toml.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

fn workspace() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .exec()
        .unwrap()
}

/// `shared/stores/sqlite` -> `stores`; `functions/keys` -> `functions`; `tests` -> `tests`.
fn room(package: &Package, root: &str) -> String {
    let folder = package
        .manifest_path
        .parent()
        .unwrap()
        .as_str()
        .strip_prefix(root)
        .unwrap()
        .trim_start_matches('/');
    let mut parts = folder.split('/');
    match parts.next().unwrap() {
        "shared" => parts.next().unwrap().to_owned(),
        top => top.to_owned(),
    }
}

#[test]
fn dependency_between_crates_is_an_allowed_one() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("crypto", &[][..]),
        ("domain", &["crypto"]),
        ("http", &[]),
        ("auth", &["http", "domain", "crypto"]),
        ("audit", &["http", "domain", "crypto"]),
        ("backup", &["domain", "crypto"]),
        ("openapi", &["http"]),
        ("metrics", &["http", "domain"]),
        ("traces", &["http", "domain"]),
        // As for dialects: `openapi` describes its routes.
        ("health", &["http", "domain", "openapi"]),
        // `openapi` describes their routes; binaries leave that out.
        ("dialects", &["http", "auth", "domain", "openapi"]),
        // It composes sites of every dialect, for every deployment.
        (
            "sites",
            &[
                "deployments",
                "dialects",
                "health",
                "openapi",
                "http",
                "auth",
                "domain",
            ],
        ),
        ("aws", &["domain"]),
        ("logging", &["http"]),
        ("import", &["dialects", "auth", "domain"]),
        ("buckets", &["aws", "domain"]),
        ("reencryption", &["aws", "http", "domain", "crypto"]),
        ("ownership", &[]),
        ("settings", &[]),
        ("certificates", &[]),
        ("client", &["auth", "certificates", "ownership", "domain"]),
        ("files", &["crypto"]),
        ("kms-plugin", &["client", "ownership", "domain"]),
        ("stores", &["aws", "ownership", "domain", "crypto"]),
        ("secrets", &["aws", "ownership", "domain", "crypto"]),
        ("runtimes", &["http"]),
        (
            "deployments",
            &[
                "deployments",
                "logging",
                "runtimes",
                "buckets",
                "stores",
                "secrets",
                "metrics",
                "aws",
                "ownership",
                "certificates",
                "audit",
                "auth",
                "http",
                "domain",
                "crypto",
            ],
        ),
        ("testkit", &["domain", "crypto"]),
        (
            "functions",
            &[
                "deployments",
                "sites",
                "logging",
                "runtimes",
                "dialects",
                "stores",
                "secrets",
                "metrics",
                "traces",
                "aws",
                "http",
                "audit",
                "auth",
                "backup",
                "certificates",
                "client",
                "files",
                "import",
                "kms-plugin",
                "reencryption",
                "settings",
                "domain",
            ],
        ),
        (
            "tests",
            &[
                "audit",
                "aws",
                "dialects",
                "health",
                "http",
                "logging",
                "openapi",
                "auth",
                "domain",
                "testkit",
                "stores",
                "secrets",
                "sites",
                "deployments",
            ],
        ),
    ]);
    let workspace = workspace();
    let root = workspace.workspace_root.as_str();
    let rooms: BTreeMap<_, _> = workspace
        .workspace_packages()
        .iter()
        .map(|package| (package.name.to_string(), room(package, root)))
        .collect();
    assert!(rooms.len() >= 24, "the whole workspace is looked at");
    for package in workspace.workspace_packages() {
        let from = &rooms[package.name.as_str()];
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal)
        {
            let Some(to) = rooms.get(&dependency.name) else {
                continue;
            };
            assert!(
                allowed[from.as_str()].contains(&to.as_str()),
                "{} must not see {}",
                package.name,
                dependency.name
            );
        }
    }
}

/// The banned crates of deny.toml, which cargo-deny reads, and the crates that may depend on each.
fn banned() -> BTreeMap<String, Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Deny {
        bans: Bans,
    }
    #[derive(serde::Deserialize)]
    struct Bans {
        deny: Vec<Banned>,
    }
    #[derive(serde::Deserialize)]
    struct Banned {
        #[serde(rename = "crate")]
        name: String,
        #[serde(default)]
        wrappers: Vec<String>,
    }
    let file = workspace().workspace_root.join("deny.toml");
    let deny: Deny = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let banned = deny.bans.deny.into_iter();
    banned
        .map(|banned| (banned.name, banned.wrappers))
        .collect()
}

/// What cargo-deny does not see: a dependency that a feature turns on, or that another system has.
#[test]
fn banned_crates_are_named_by_their_wrappers_alone() {
    let banned = banned();
    assert!(banned.len() > 30, "the table was read");
    for package in workspace().workspace_packages() {
        let dependencies = package.dependencies.iter();
        for dependency in dependencies.filter(|one| one.kind != DependencyKind::Development) {
            if let Some(wrappers) = banned.get(&dependency.name) {
                assert!(
                    wrappers.contains(&package.name.to_string()),
                    "{} must not see {}",
                    package.name,
                    dependency.name
                );
            }
        }
    }
}

#[test]
fn banned_crates_without_wrappers_are_not_built() {
    let names = built(&["--workspace", "--edges", "normal,build"]);
    assert!(names.contains("aws-lc-rs"), "the graph was looked at");
    let banned = banned();
    let never = banned.iter().filter(|(_, wrappers)| wrappers.is_empty());
    let never: Vec<&String> = never.map(|(name, _)| name).collect();
    assert_eq!(never, ["native-tls", "openssl", "openssl-sys", "ring"]);
    for name in never {
        assert!(!names.contains(name), "{name} came in");
    }
}

/// The names of the crates that are built. The lock file also lists those of features that are off.
fn built(arguments: &[&str]) -> BTreeSet<String> {
    let tree = std::process::Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["tree", "--prefix", "none", "--locked"])
        .args(arguments)
        .current_dir(workspace().workspace_root.as_std_path())
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn binary_without_the_otlp_feature_has_no_exporter() {
    let keyway = ["--package", "keyway", "--edges", "normal,build"];
    let of_traces = |name: &String| name.starts_with("opentelemetry") || name == "keyway-traces";
    let asked = built(&[&keyway[..], &["--features", "otlp"]].concat());
    assert_eq!(
        asked.iter().filter(|name| of_traces(name)).count(),
        6,
        "{asked:?}"
    );
    let plain = built(&keyway);
    assert!(plain.contains("keyway-metrics"), "the graph was looked at");
    let strange: Vec<_> = plain.iter().filter(|name| of_traces(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    // OpenTelemetry's own log would have a line for each failed batch, and its own HTTP client a second TLS library.
    for banned in ["reqwest", "tracing-opentelemetry"] {
        assert!(!asked.contains(banned), "{banned} came in");
    }
}

#[test]
fn claim_of_the_security_page_names_existing_tests() {
    let root = workspace().workspace_root;
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (_, table) = page.split_once("| Claim | Test |").unwrap();
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let tests: Vec<&str> = row.split('`').filter(|text| text.contains("::")).collect();
        assert!(!tests.is_empty(), "no test shows it: {row}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let source = std::fs::read_to_string(root.join(file));
            let source = source.unwrap_or_else(|error| panic!("{file}: {error}"));
            let function = source.split_once(&format!("fn {name}("));
            let (before, _) = function.unwrap_or_else(|| panic!("there is no test {test}"));
            let attributes = before.rsplit_once("\n\n").map_or(before, |(_, last)| last);
            assert!(
                attributes.contains("test") && !attributes.contains("#[ignore"),
                "{test} is run by nobody"
            );
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A crate that reads the commit, and everything that depends on it, is compiled again after each commit.
#[test]
fn commit_of_the_build_is_read_by_the_last_crates_alone() {
    let root = workspace().workspace_root;
    let mut files = Vec::new();
    for folder in ["shared", "functions", "tests/src"] {
        sources(root.join(folder).as_std_path(), &mut files);
    }
    let reads = |path: &PathBuf| {
        let source = std::fs::read_to_string(path).unwrap();
        let mut code = source.lines().filter(|line| !line.contains("//"));
        code.any(|line| line.contains("env!(\"KEYWAY_COMMIT\")"))
    };
    let functions = root.join("functions");
    let readers: Vec<_> = files.iter().filter(|path| reads(path)).collect();
    assert_eq!(readers.len(), 9, "{readers:?}");
    assert!(readers.iter().all(|path| path.starts_with(&functions)));
}
