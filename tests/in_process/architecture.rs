//! Architecture tests: which crate may depend on which, and which outside system belongs to which.

use std::collections::{BTreeMap, BTreeSet};

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
fn arrows_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("crypto", &[][..]),
        ("domain", &["crypto"]),
        ("http", &[]),
        ("auth", &["http", "domain", "crypto"]),
        ("audit", &["http", "domain", "crypto"]),
        ("openapi", &["http"]),
        ("metrics", &["http", "domain"]),
        ("traces", &["http", "domain"]),
        // As dialects, for the description of its routes.
        ("health", &["http", "domain", "openapi"]),
        // For the description of their routes, which binaries do not have.
        ("dialects", &["http", "auth", "domain", "openapi"]),
        ("aws", &["domain"]),
        ("logging", &[]),
        ("import", &["domain"]),
        ("buckets", &["aws", "domain"]),
        ("ownership", &[]),
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
                "logging",
                "runtimes",
                "dialects",
                "stores",
                "secrets",
                "metrics",
                "traces",
                "health",
                "aws",
                "http",
                "openapi",
                "audit",
                "auth",
                "import",
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

#[test]
fn each_outside_system_belongs_to_one_room() {
    let wrappers: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("rusqlite", &["keyway-store-sqlite"][..]),
        (
            "aws-sdk-dynamodb",
            &["keyway-store-dynamodb", "keyway-tests"],
        ),
        (
            "aws-sdk-secretsmanager",
            &["keyway-secrets-secretsmanager", "keyway-tests"],
        ),
        ("aws-sdk-s3", &["keyway-buckets-s3"]),
        ("quick-xml", &["keyway-dialect-s3", "keyway-dialect-sts"]),
        ("aws-config", &["keyway"]),
        ("aws-smithy-http-client", &["keyway-aws"]),
        (
            "lambda_runtime",
            &["keyway-runtime-lambda", "keyway-bare-hello"],
        ),
        ("argon2", &["keyway-crypto"]),
        ("chacha20", &["keyway-crypto"]),
        ("prost", &["keyway-import"]),
        ("matchit", &["keyway-http"]),
        ("prometheus", &["keyway-metrics"]),
        (
            "hyper-util",
            &[
                "keyway-runtime-hyper",
                "keyway-secrets-vault",
                "keyway-traces",
                "keyway-tests",
            ],
        ),
        ("hyper-rustls", &["keyway-secrets-vault", "keyway-traces"]),
        (
            "rustls",
            &[
                "keyway-runtime-hyper",
                "keyway-secrets-vault",
                "keyway-traces",
                "keyway-tests",
            ],
        ),
        ("tokio-rustls", &["keyway-runtime-hyper"]),
        ("rustls-webpki", &["keyway-runtime-hyper"]),
        ("x509-cert", &["keyway-auth", "keyway-runtime-hyper"]),
        ("rcgen", &["keyway", "keyway-tests"]),
        ("reqwest", &["keyway-tests"]),
        ("serde-saphyr", &["keyway"]),
        (
            "rustls-native-certs",
            &["keyway-secrets-vault", "keyway-traces"],
        ),
        ("opentelemetry", &["keyway-traces"]),
        ("opentelemetry-http", &["keyway-traces"]),
        ("opentelemetry-otlp", &["keyway-traces"]),
        ("opentelemetry_sdk", &["keyway-traces"]),
        (
            "schemars",
            &[
                "keyway-openapi",
                "keyway-dialect-rustfs",
                "keyway-dialect-minio",
            ],
        ),
        ("jsonschema", &["keyway-tests"]),
        ("hyper", &["keyway-runtime-hyper", "keyway-tests"]),
    ]);
    let workspace = workspace();
    for package in workspace.workspace_packages() {
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal)
        {
            if let Some(owners) = wrappers.get(dependency.name.as_str()) {
                assert!(
                    owners.contains(&package.name.as_str()),
                    "{} must not see {}",
                    package.name,
                    dependency.name
                );
            }
        }
    }
    let names = built(&["--workspace", "--edges", "normal,build"]);
    assert!(names.contains("aws-lc-rs"), "the graph was looked at");
    for banned in ["openssl", "openssl-sys", "ring", "native-tls"] {
        assert!(
            !names.contains(banned),
            "{banned} came in: there is one cryptography library"
        );
    }
}

/// The names of what is built, rather than what the lock file lists for features that nobody turns on.
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
fn traces_are_exported_by_a_binary_that_was_asked_to_and_no_other() {
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
    // OpenTelemetry's own log would be a line of each batch that fails, and an HTTP client of its own another TLS.
    for banned in ["reqwest", "tonic", "tracing-opentelemetry"] {
        assert!(!asked.contains(banned), "{banned} came in");
    }
}

#[test]
fn every_claim_of_the_security_page_names_tests_that_there_are() {
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
