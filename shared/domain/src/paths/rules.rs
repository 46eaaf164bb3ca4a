//! The rules of a KES policy.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::pattern::PathSet;
use crate::error::KmsError;

/// The most patterns of a policy, allowed and denied together.
pub const MAX_RULES: usize = 2048;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 512;
/// The total length of a policy's patterns, in bytes. A record must stay below the size that a store takes.
pub const MAX_RULES_BYTES: usize = 128 * 1024;
/// No path of an API is longer. A longer path is denied without matching.
const LONGEST_PATH: usize = 4096;

/// The rules of a KES policy, each pattern once and sorted. A path that no `allow` matches is denied, and `deny` wins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules {
    allow: BTreeSet<String>,
    deny: BTreeSet<String>,
}

impl Rules {
    /// Parses rules. [`PathPattern`](super::PathPattern) describes the patterns.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when there are too many patterns, or they are too long.
    pub fn parse(
        allow: impl IntoIterator<Item = String>,
        deny: impl IntoIterator<Item = String>,
    ) -> Result<Self, KmsError> {
        let rules = Self {
            allow: allow.into_iter().collect(),
            deny: deny.into_iter().collect(),
        };
        let invalid = |reason: String| Err(KmsError::invalid("policy", reason));
        if rules.all().count() > MAX_RULES {
            return invalid(format!("must have at most {MAX_RULES} patterns"));
        }
        if rules
            .all()
            .any(|pattern| pattern.len() > MAX_PATTERN_BYTES || pattern.contains(char::is_control))
        {
            return invalid(format!(
                "a pattern must be at most {MAX_PATTERN_BYTES} bytes, none of them a control character"
            ));
        }
        if rules.all().map(String::len).sum::<usize>() > MAX_RULES_BYTES {
            return invalid(format!(
                "its patterns must be at most {MAX_RULES_BYTES} bytes together"
            ));
        }
        Ok(rules)
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.allow.iter().chain(&self.deny)
    }

    /// The patterns that allow.
    pub fn allow(&self) -> impl ExactSizeIterator<Item = &str> {
        self.allow.iter().map(String::as_str)
    }

    /// The patterns that deny, even what `allow` matches.
    pub fn deny(&self) -> impl ExactSizeIterator<Item = &str> {
        self.deny.iter().map(String::as_str)
    }
}

/// Rules, compiled.
#[derive(Debug)]
pub struct PathRules {
    allow: PathSet,
    deny: PathSet,
    rules: Rules,
}

impl PartialEq for PathRules {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for PathRules {}

impl PathRules {
    /// Compiles rules.
    pub fn compile(rules: Rules) -> Self {
        Self {
            allow: PathSet::compile(rules.allow()),
            deny: PathSet::compile(rules.deny()),
            rules,
        }
    }

    /// Rules that allow nothing.
    pub(crate) fn none() -> Self {
        Self::compile(Rules::default())
    }

    /// Whether a call of this decoded path is allowed.
    pub fn allows(&self, path: &str) -> bool {
        path.len() <= LONGEST_PATH && !self.deny.matches(path) && self.allow.matches(path)
    }
}
