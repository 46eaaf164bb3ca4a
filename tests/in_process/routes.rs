//! The inventory of routes is what sites mount.

use std::collections::BTreeSet;

use keyway_http::Group;
use keyway_sites::inventory;
use keyway_tests::MemorySite;

fn line(dialect: &str, method: &str, path: &str) -> String {
    format!("{dialect} {method} {path}")
}

#[tokio::test]
async fn inventory_lists_every_mounted_route_once() {
    let entries = inventory();
    let listed: BTreeSet<String> = entries
        .iter()
        .map(|entry| line(entry.dialect, entry.method.as_str(), &entry.whole_path()))
        .collect();
    assert_eq!(listed.len(), entries.len(), "no route is listed twice");
    let site = MemorySite::not_configured(false).await;
    let mounted: BTreeSet<String> = (site.mounted().iter())
        .map(|(dialect, method, path)| line(dialect, method, path))
        .collect();
    assert_eq!(listed, mounted);
}

#[test]
fn every_dialect_lists_its_groups() {
    let found: BTreeSet<(&str, Group)> = inventory()
        .into_iter()
        .map(|entry| (entry.dialect, entry.group))
        .collect();
    let expected = [
        (
            "rustfs",
            &[Group::Keys, Group::DataKeys, Group::Service, Group::Log][..],
        ),
        ("rustfs", &[Group::Account, Group::Buckets]),
        ("minio", &[Group::Keys, Group::DataKeys, Group::Service]),
        ("kes", &[Group::Keys, Group::DataKeys, Group::Service]),
        ("kes", &[Group::Log, Group::Access]),
        ("s3", &[Group::Buckets]),
        ("sts", &[Group::Sessions]),
        ("aws", &[Group::AllKeys, Group::Keys, Group::DataKeys]),
        ("health", &[Group::Health]),
        ("openapi", &[Group::Document]),
    ];
    let expected = expected.into_iter();
    let expected: BTreeSet<(&str, Group)> = expected
        .flat_map(|(dialect, groups)| groups.iter().map(move |&group| (dialect, group)))
        .collect();
    assert_eq!(found, expected);
}
