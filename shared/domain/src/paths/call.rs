//! The permission that an allowed call gives its caller.

use std::sync::Arc;

use crate::policy::{Action, Target};
use crate::ranges::NameRange;

/// A call whose path was allowed: its action and its path, which ends in the key or other thing that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedCall {
    action: Action,
    path: Arc<str>,
}

impl AllowedCall {
    /// A call of this path, with the action that it performs.
    pub(crate) fn new(action: Action, path: &str) -> Self {
        Self {
            action,
            path: path.into(),
        }
    }

    /// The last segment of a KES path names the target, so a call is a permission for that one target. An operation on
    /// another target is refused, whatever caused it. The last segment of a listing is a pattern; the call permits
    /// everything that it matches.
    pub(crate) fn allows(&self, action: Action, target: Option<Target<'_>>) -> bool {
        action.permission() == self.action.permission()
            && match (action, target) {
                (Action::ListKeys, _) | (_, None | Some(Target::Unknown(_) | Target::Service)) => {
                    true
                }
                (_, Some(Target::Key(id))) => self
                    .path
                    .strip_suffix(id)
                    .is_some_and(|before| before.ends_with('/')),
                // No KES path is for a bucket or an alias.
                (_, Some(Target::Bucket(_) | Target::Alias(_))) => false,
            }
    }

    /// All names, for a listing: its path holds the requested pattern, and was checked before.
    pub(crate) fn allowed_names(&self, action: Action) -> Vec<NameRange> {
        if action == self.action {
            NameRange::all()
        } else {
            Vec::new()
        }
    }
}
