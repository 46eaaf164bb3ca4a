//! Rotation: on demand, and by a schedule that the janitor follows.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{KeyId, KeyState, Keys, MAX_VERSIONS, MasterKey, drawn};
use crate::access::Caller;
use crate::error::{Fault, KmsError};
use crate::ids::KeyUsage;
use crate::keyring::KeyWrapper;
use crate::policy::Action;
use crate::ports::Random;
use crate::repository::update;

/// The time between two automatic rotations: 90 to 2,560 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationPeriod(u16);

impl RotationPeriod {
    /// The default: a year.
    pub const DEFAULT: Self = Self(365);
    /// The shortest, in days.
    pub const SHORTEST: i64 = 90;
    /// The longest, in days.
    pub const LONGEST: i64 = 2560;

    /// Parses a number of days.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] outside of 90 to 2,560.
    pub fn days(days: i64) -> Result<Self, KmsError> {
        u16::try_from(days)
            .ok()
            .filter(|_| (Self::SHORTEST..=Self::LONGEST).contains(&days))
            .map(Self)
            .ok_or_else(|| {
                KmsError::invalid("rotation_period_in_days", "must be between 90 and 2560")
            })
    }

    /// The number of days.
    pub const fn as_days(self) -> u16 {
        self.0
    }

    const fn duration(self) -> SignedDuration {
        SignedDuration::from_hours(24 * self.0 as i64)
    }
}

/// The schedule of a key's automatic rotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationSchedule {
    /// The time between two rotations.
    #[serde(rename = "period_days")]
    pub period: RotationPeriod,
    /// When the next rotation is due.
    pub next_at: Timestamp,
    /// When a janitor without a memory first found it due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) found_due: Option<Timestamp>,
}

impl RotationSchedule {
    fn from(now: Timestamp, period: RotationPeriod) -> Result<Self, KmsError> {
        let next_at = now
            .checked_add(period.duration())
            .map_err(|error| Fault::new("a rotation date", error))?;
        Ok(Self {
            period,
            next_at,
            found_due: None,
        })
    }

    /// The date from which the schedule counts: an operation or a rotation left it.
    pub(super) fn counts_from(self) -> Option<Timestamp> {
        self.next_at.checked_sub(self.period.duration()).ok()
    }

    /// The schedule after a rotation. Missed dates are left out, so that a long pause costs one rotation.
    fn after(self, now: Timestamp) -> Result<Self, KmsError> {
        let (late, period) = (
            now.duration_since(self.next_at).as_secs(),
            self.period.duration().as_secs(),
        );
        let passed = late.max(0) / period;
        let passed = self
            .next_at
            .checked_add(SignedDuration::from_secs(passed * period))
            .map_err(|error| Fault::new("a rotation date", error))?;
        Self::from(passed, self.period)
    }
}

impl MasterKey {
    /// The schedule of its automatic rotations, if it has one. A key that is pending deletion does not follow it.
    pub fn rotation(&self) -> Option<&RotationSchedule> {
        self.rotation
            .as_ref()
            .filter(|_| self.deletion_date().is_none())
    }

    pub(crate) fn schedule_mut(&mut self) -> Option<&mut RotationSchedule> {
        self.rotation.as_mut()
    }

    /// When its next automatic rotation is due. A key that is not enabled does not rotate.
    pub(crate) fn rotation_date(&self) -> Option<Timestamp> {
        self.rotation
            .filter(|_| self.state == KeyState::Enabled)
            .map(|schedule| schedule.next_at)
    }

    pub(crate) fn has_most_versions(&self) -> bool {
        self.versions.len() >= MAX_VERSIONS
    }

    /// Adds a version, which encrypts from now on.
    pub(crate) async fn rotate(
        &mut self,
        wrapper: &dyn KeyWrapper,
        random: &dyn Random,
        now: Timestamp,
        is_automatic: bool,
    ) -> Result<(), KmsError> {
        self.must_be_enabled()?;
        self.must_be_for(KeyUsage::EncryptDecrypt)?;
        if self.has_most_versions() {
            return Err(KmsError::TooManyVersions(self.id.clone()));
        }
        let material = drawn(random, self.spec.bytes())?;
        let mut next = self.new_version(wrapper, material.expose(), now).await?;
        next.is_automatic = is_automatic;
        self.versions.push(next);
        if is_automatic {
            self.rotation = self
                .rotation
                .map(|schedule| schedule.after(now))
                .transpose()?;
        }
        Ok(())
    }
}

impl Keys {
    /// Adds a version, which encrypts from now on. A schedule of automatic rotations stays as it is.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] unless the key is enabled, [`KmsError::KeySpec`] for a MAC key: its MACs must verify.
    pub async fn rotate(&self, caller: &Caller, id: &KeyId) -> Result<MasterKey, KmsError> {
        caller.may(Action::RotateKey, id)?;
        let config = self.service.running().await?;
        let wrapper = self.wrappers.current(&config).await?;
        let rotated = || async {
            let (mut key, seen) = self.existing(id).await?;
            let random = self.random.as_ref();
            key.rotate(wrapper.as_ref(), random, self.now()?, false)
                .await?;
            caller.audit().version(key.current_version());
            let replaced = self.replaced(&config, &key, seen).await?;
            Ok(replaced.then_some(key))
        };
        update(|| KmsError::Contended(id.clone()), rotated).await
    }

    /// Lets the janitor rotate the key each time this period has passed. A key that has this period already keeps its
    /// dates; another period counts from now.
    ///
    /// # Errors
    /// As [`Keys::rotate`].
    pub async fn enable_rotation(
        &self,
        caller: &Caller,
        id: &KeyId,
        period: RotationPeriod,
    ) -> Result<MasterKey, KmsError> {
        let schedule = RotationSchedule::from(self.now()?, period)?;
        self.change(caller, Action::RotateKey, id, |key| {
            key.must_be_enabled()?;
            key.must_be_for(KeyUsage::EncryptDecrypt)?;
            if key.rotation.is_none_or(|kept| kept.period != period) {
                key.rotation = Some(schedule);
            }
            Ok(())
        })
        .await
    }

    /// Ends the automatic rotations. A key without them stays so.
    ///
    /// # Errors
    /// As [`Keys::rotate`].
    pub async fn disable_rotation(
        &self,
        caller: &Caller,
        id: &KeyId,
    ) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::RotateKey, id, |key| {
            key.must_be_enabled()?;
            key.must_be_for(KeyUsage::EncryptDecrypt)?;
            key.rotation = None;
            Ok(())
        })
        .await
    }
}
