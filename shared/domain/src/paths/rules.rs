//! What a policy of paths says.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::pattern::PathSet;
use crate::error::KmsError;

/// Most patterns of a policy, allowed and denied together.
pub const MAX_RULES: usize = 2048;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 512;
/// What all patterns of a policy may have together, in bytes: a record must stay below what a store takes.
pub const MAX_RULES_BYTES: usize = 128 * 1024;
/// No path of an API is longer; whoever calls such a one is not looked at closer.
const LONGEST_PATH: usize = 4096;

/// What a policy of paths says, each pattern once and in order: what no `allow` covers is denied, and `deny` wins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules {
    allow: BTreeSet<String>,
    deny: BTreeSet<String>,
}

impl Rules {
    /// Parses rules; what the patterns mean is told at [`PathPattern`](super::PathPattern).
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

    /// The patterns of what is allowed.
    pub fn allow(&self) -> impl ExactSizeIterator<Item = &str> {
        self.allow.iter().map(String::as_str)
    }

    /// The patterns of what is denied although it is allowed.
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

    /// Whether a call of this path, decoded, is allowed.
    pub fn allows(&self, path: &str) -> bool {
        path.len() <= LONGEST_PATH && !self.deny.matches(path) && self.allow.matches(path)
    }
}
