//! Every route of every dialect, whichever process serves it. Listing them needs no deployment.

use http::{HeaderName, Method};
use keyway_dialect_aws as aws;
use keyway_dialect_kes as kes;
use keyway_dialect_minio as minio;
use keyway_dialect_rustfs as rustfs;
use keyway_dialect_s3 as s3;
use keyway_dialect_sts as sts;
use keyway_http::{Group, Listed};

/// One route below one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name of the dialect, as in the audit log.
    pub dialect: &'static str,
    /// The subject of the route.
    pub group: Group,
    /// The method.
    pub method: Method,
    /// The prefix; empty for the root.
    pub prefix: &'static str,
    /// The path below the prefix.
    pub path: &'static str,
    /// Only requests with this header are for the route. Two dialects share `POST /`: only the header tells them apart.
    pub header: Option<HeaderName>,
}

impl Entry {
    /// The whole path.
    pub fn whole_path(&self) -> String {
        format!("{}{}", self.prefix, self.path)
    }
}

/// Every route, below each of its prefixes: dialect by dialect, then prefix by prefix, then in the dialect's own order.
/// The page of metrics is in no group; only the binary has it.
pub fn inventory() -> Vec<Entry> {
    let (buckets, rustfs): (Vec<_>, Vec<_>) =
        (rustfs::inventory().into_iter()).partition(|route| route.group == Group::Buckets);
    [
        below("rustfs", &rustfs::PREFIXES, &rustfs),
        below("rustfs", &rustfs::BUCKET_PREFIXES, &buckets),
        below("minio", &minio::PREFIXES, &minio::inventory()),
        below("kes", &kes::PREFIXES, &kes::inventory()),
        below("s3", &s3::PREFIXES, &s3::inventory()),
        of_aws(),
        below("sts", &[""], &sts::inventory()),
        below(
            "health",
            &keyway_health::PREFIXES,
            &keyway_health::inventory(),
        ),
        below(
            "openapi",
            &[keyway_openapi::PATH],
            &keyway_openapi::inventory(),
        ),
    ]
    .concat()
}

fn below(dialect: &'static str, prefixes: &[&'static str], routes: &[Listed]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for &prefix in prefixes {
        entries.extend(routes.iter().map(|route| Entry {
            dialect,
            group: route.group,
            method: route.method.clone(),
            prefix,
            path: route.path,
            header: None,
        }));
    }
    entries
}

fn of_aws() -> Vec<Entry> {
    let routes = aws::inventory().map(|(prefix, routes)| below("aws", &[prefix], &routes));
    let with_header = |entry: Entry| Entry {
        header: entry.prefix.is_empty().then_some(aws::TARGET),
        ..entry
    };
    routes.into_iter().flatten().map(with_header).collect()
}
