//! Deleting keys for an API that knows one way of it and has no word for another.

use super::{DeletionWindow, KeyId, Keys};
use crate::access::Caller;
use crate::error::KmsError;
use crate::policy::Action;

/// What becomes of a key that an API deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is destroyed at once.
    Immediate,
    /// Its destruction is scheduled, and it serves no more.
    Scheduled(DeletionWindow),
}

impl Keys {
    /// Deletes a key that nothing names, the way of the API that was asked. [`Keys::destroy`]'s opt-in is not looked
    /// at: it is about an API whose callers can choose, and the operator who offers one that deletes at once has chosen.
    ///
    /// # Errors
    /// [`KmsError::StillReferenced`], or [`KmsError::KeyState`] when its destruction is scheduled already.
    pub async fn delete(
        &self,
        caller: &Caller,
        id: &KeyId,
        deletion: Deletion,
    ) -> Result<(), KmsError> {
        caller.may(Action::DeleteKey, id)?;
        match deletion {
            Deletion::Immediate => self.destroy_unreferenced(id).await,
            Deletion::Scheduled(window) => {
                self.service.running().await?;
                let (key, _) = self.existing(id).await?;
                key.must_not_be_pending()?;
                let references = self.references(id).await?;
                if !references.is_empty() {
                    return Err(KmsError::StillReferenced(key.id, references));
                }
                self.schedule_deletion(caller, id, window).await?;
                Ok(())
            }
        }
    }
}
