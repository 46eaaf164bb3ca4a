//! Deletion of keys for APIs that know only one way of it.

use super::{DeletionWindow, KeyId, Keys};
use crate::access::Caller;
use crate::error::KmsError;
use crate::policy::Action;

/// What an API's deletion does to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Destroys it at once.
    Immediate,
    /// Schedules its destruction. Until then the key is not used.
    Scheduled(DeletionWindow),
}

impl Keys {
    /// Deletes a key that nothing references, as the called API does it. The opt-in of [`Keys::destroy`] does not apply:
    /// it is for an API whose callers can choose. An operator who offers an API that deletes at once has chosen already.
    ///
    /// # Errors
    /// [`KmsError::StillReferenced`], or [`KmsError::KeyState`] when the key's destruction is scheduled already.
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
