//! Rotates access keys: a new access key takes the place of an old one, which works for a while longer.

use std::time::Duration;

use jiff::Timestamp;

use super::operator::{KEPT_AFTER_EXPIRY, Parts};
use super::{AccessKeyId, AccessKeys, NewAccessKey, StoredAccessKey};
use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::ports::{Consistency, Kind, Record};
use crate::repository::{self, Noun};

/// The longest time for which the old access key of a rotation works.
pub const LONGEST_OVERLAP: Duration = Duration::from_secs(366 * 24 * 3600);

/// The result of a rotation.
pub struct RotatedAccessKey {
    /// The new access key. It has the old one's policy, name and envelope.
    pub new: NewAccessKey,
    /// When the old one stops working.
    pub old_expires_at: Timestamp,
}

impl AccessKeys {
    /// Makes an access key with a new id and secret that may do what this one may, and lets this one expire after the
    /// overlap. The root access key of the table can be rotated too.
    ///
    /// The new access key is written first. If the process ends in between, the old one stays as it is, and the new one,
    /// whose secret nobody has seen, stays in the table until it is revoked. Of two rotations at once, one succeeds.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for an overlap of over 366 days, for a key of a session, and for a key that expires, also
    /// because it was rotated before; [`KmsError::AccessKeyNotFound`]; otherwise when a port fails.
    pub async fn rotate(
        &self,
        id: &AccessKeyId,
        overlap: Duration,
    ) -> Result<RotatedAccessKey, KmsError> {
        if overlap > LONGEST_OVERLAP {
            return Err(KmsError::invalid("overlap", "must be at most 366 days"));
        }
        let contended = || KmsError::Conflict("other processes change this access key; try again");
        repository::update(contended, || self.try_rotate(id, overlap)).await
    }

    /// `None`: the old access key changed meanwhile.
    async fn try_rotate(
        &self,
        id: &AccessKeyId,
        overlap: Duration,
    ) -> Result<Option<RotatedAccessKey>, KmsError> {
        let table = self.table.as_ref();
        let seen = table
            .get(Kind::AccessKey, id.as_str(), Consistency::Strong)
            .await?
            .ok_or_else(|| KmsError::AccessKeyNotFound(id.as_str().to_owned()))?;
        let mut stored = StoredAccessKey::of(&seen)?;
        may_rotate(&stored)?;
        let parts = Parts {
            envelope: stored.envelope,
            name: stored.name.clone(),
            ..Parts::of(stored.grant.clone())
        };
        let new = self.make(self.new_id()?, parts).await?;
        let old_expires_at = self.after(overlap)?;
        stored.expires_at = Some(old_expires_at);
        stored.replaced_by = Some(new.id.as_str().to_owned());
        let kept_until = old_expires_at
            .checked_add(KEPT_AFTER_EXPIRY)
            .map_err(|error| Fault::new("an expiry date", error))?;
        let value = encoding::encode(&stored)?;
        let next = Record {
            expires_at: Some(kept_until),
            ..repository::again(&seen, Some(value), self.random.as_ref())?
        };
        if repository::write(table, &next, Some(seen.revision)).await? {
            return Ok(Some(RotatedAccessKey {
                new,
                old_expires_at,
            }));
        }
        self.revoke(&new.id).await?;
        Ok(None)
    }
}

fn may_rotate(stored: &StoredAccessKey) -> Result<(), KmsError> {
    let refused = |reason: String| Err(KmsError::invalid("access_key_id", reason));
    match (&stored.session, &stored.replaced_by, stored.expires_at) {
        (Some(_), ..) => refused(
            "belongs to a session and ends with it; rotate the access key that began the session"
                .to_owned(),
        ),
        (None, Some(new), _) => refused(format!(
            "was rotated already: {new} took its place; rotate that one"
        )),
        (None, None, Some(expires_at)) => refused(format!(
            "expires at {expires_at:.0} anyway; make another access key with `access-key create`"
        )),
        (None, None, None) => Ok(()),
    }
}
