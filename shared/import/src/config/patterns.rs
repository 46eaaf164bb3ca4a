//! Warns of patterns in policies that do not mean what their author may expect.

use keyway_dialect_kes::matches_no_path;
use keyway_domain::paths::{PathPattern, PatternKind};

/// Why the operator should check this pattern of `allow` or, with `is_denied`, of `deny`.
pub(super) fn warning(pattern: &str, is_denied: bool) -> Option<String> {
    let is_malformed = PathPattern::parse(pattern).kind() == PatternKind::Malformed;
    if is_denied && !is_malformed && matches_no_path(pattern) {
        return Some("denies nothing, for no path of KES's API begins so".to_owned());
    }
    changed_meaning(pattern, is_denied)
}

/// How generations of KES differ about this pattern. Up to 2023-10-03 every pattern was one of Go's `path.Match`. Since
/// then it is a prefix if it ends in `*`, else it is exact.
fn changed_meaning(pattern: &str, is_denied: bool) -> Option<String> {
    let parsed = PathPattern::parse(pattern);
    match parsed.kind() {
        PatternKind::Exact => None,
        PatternKind::Prefix => {
            // After a path's kind and verb there is only a name, which has no slash.
            let segments = parsed.literal_prefix().matches('/').count();
            (segments < 4).then(|| {
                format!(
                    "now {} whatever is below as well; up to KES 2023-10-03 its `*` ended at the next `/`",
                    if is_denied { "denies" } else { "allows" }
                )
            })
        }
        PatternKind::Glob => Some(
            "is matched as up to KES 2023-10-03, each `*` up to the next `/`; later ones took it literally".to_owned(),
        ),
        PatternKind::Malformed => Some("is malformed and matches nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_with_another_meaning_has_a_warning() {
        for (pattern, allowed, denied) in [
            ("/v1/key/create/a", None, None),
            ("/v1/key/create/a*", None, None),
            ("/v1/key/*", Some("now allows"), Some("now denies")),
            ("/v1/key/*/a", Some("literally"), Some("literally")),
            ("/v1/[", Some("is malformed"), Some("is malformed")),
            ("v1/key/delete/a", None, Some("denies nothing")),
            ("/v1/key/delete/a ", None, Some("denies nothing")),
        ] {
            for (is_denied, expected) in [(false, allowed), (true, denied)] {
                let warning = warning(pattern, is_denied);
                match expected {
                    None => assert_eq!(warning, None, "{pattern}"),
                    Some(words) => assert!(warning.unwrap().contains(words), "{pattern}"),
                }
            }
        }
    }
}
