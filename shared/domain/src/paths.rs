//! KES policies: what their patterns match, what their rules allow together, and what an allowed call may do.
//! [`crate::identity`] holds which identity has which policy.

mod call;
mod pattern;
mod rules;

pub use call::AllowedCall;
pub use pattern::{PathPattern, PatternKind};
pub use rules::{MAX_PATTERN_BYTES, MAX_RULES, MAX_RULES_BYTES, PathRules, Rules};
