//! What a caller may do whose policy allowed a call.

use std::sync::Arc;

use crate::policy::{Action, Target};
use crate::ranges::NameRange;

/// A call whose path was allowed: what it does, and to what the path ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedCall {
    action: Action,
    path: Arc<str>,
}

impl AllowedCall {
    /// A call of this path, which does this.
    pub(crate) fn new(action: Action, path: &str) -> Self {
        Self {
            action,
            path: path.into(),
        }
    }

    /// A path of KES's names in its last segment what it is about, so a call is a permission for that one thing:
    /// an operation that went for another one is refused, whatever led it there. A listing names a pattern there,
    /// and is a permission to see whatever it matches.
    pub(crate) fn allows(&self, action: Action, target: Option<Target<'_>>) -> bool {
        action == self.action
            && match (action, target) {
                (Action::ListKeys, _) | (_, None | Some(Target::Unknown(_) | Target::Service)) => {
                    true
                }
                (_, Some(Target::Key(id))) => self
                    .path
                    .strip_suffix(id)
                    .is_some_and(|before| before.ends_with('/')),
                // No path of KES's is about a bucket.
                (_, Some(Target::Bucket(_))) => false,
            }
    }

    /// What the names are that a listing may see: the path had the names that it asks for, and was judged with them.
    pub(crate) fn allowed_names(&self, action: Action) -> Vec<NameRange> {
        if action == self.action {
            NameRange::all()
        } else {
            Vec::new()
        }
    }
}
