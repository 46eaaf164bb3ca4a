//! Policies of paths, as KES has them: what their patterns match, what they say together, and what one allowed call may
//! do. Who has which policy is in [`crate::identity`].

mod call;
mod pattern;
mod rules;

pub use call::AllowedCall;
pub use pattern::{PathPattern, PatternKind};
pub use rules::{MAX_PATTERN_BYTES, MAX_RULES, MAX_RULES_BYTES, PathRules, Rules};
