//! The operations on buckets. Each checks the permission first.

use std::sync::Arc;

use crate::access::Caller;
use crate::buckets::{
    Algorithm, Bucket, BucketError, BucketName, Buckets, DefaultEncryption, KEY_FIELD, Under,
    WantedEncryption,
};
use crate::error::KmsError;
use crate::keys::{KeyId, KeyReader, KeyUsage};
use crate::policy::Action;
use crate::service::Service;

/// The operations on buckets and their default encryption. Only letting a bucket use a key requires a running service.
pub struct BucketOperations {
    buckets: Arc<dyn Buckets>,
    reader: Arc<KeyReader>,
    service: Arc<Service>,
}

impl BucketOperations {
    /// Uses these buckets, and the keys that `reader` finds.
    pub fn new(buckets: Arc<dyn Buckets>, reader: Arc<KeyReader>, service: Arc<Service>) -> Self {
        Self {
            buckets,
            reader,
            service,
        }
    }

    /// The buckets that the caller may list, in the order of their names.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`] when the caller can be allowed no bucket; otherwise when the buckets are unavailable.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Bucket>, KmsError> {
        let action = Action::ListAllMyBuckets;
        caller.may_ever(action)?;
        let mut buckets = match self
            .buckets
            .list_within(&caller.may_be_permitted(action))
            .await
        {
            Ok(buckets) => buckets,
            Err(BucketError::Store(error)) => return Err(error.into()),
            Err(BucketError::NoSuchBucket | BucketError::Exists | BucketError::NotEmpty) => {
                Vec::new()
            }
        };
        buckets.retain(|bucket| caller.may_on_bucket(action, &bucket.name).is_ok());
        Ok(buckets)
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// [`KmsError::BucketExists`].
    pub async fn create(&self, caller: &Caller, name: &BucketName) -> Result<(), KmsError> {
        caller.may_on_bucket(Action::CreateBucket, name)?;
        self.buckets
            .create(name)
            .await
            .map_err(|error| told(error, name))
    }

    /// Removes a bucket with its default encryption, and so the use of its key.
    ///
    /// # Errors
    /// [`KmsError::BucketNotFound`], or [`KmsError::BucketNotEmpty`].
    pub async fn remove(&self, caller: &Caller, name: &BucketName) -> Result<(), KmsError> {
        caller.may_on_bucket(Action::DeleteBucket, name)?;
        self.buckets
            .remove(name)
            .await
            .map_err(|error| told(error, name))
    }

    /// Checks that the caller may read the bucket's location, and that the bucket exists.
    ///
    /// # Errors
    /// [`KmsError::BucketNotFound`].
    pub async fn locate(&self, caller: &Caller, name: &BucketName) -> Result<(), KmsError> {
        caller.may_on_bucket(Action::GetBucketLocation, name)?;
        self.must_exist(name).await
    }

    /// Checks that the bucket exists.
    ///
    /// # Errors
    /// [`KmsError::BucketNotFound`].
    pub async fn find(&self, caller: &Caller, name: &BucketName) -> Result<(), KmsError> {
        caller.may_on_bucket(Action::ListBucket, name)?;
        self.must_exist(name).await
    }

    async fn must_exist(&self, name: &BucketName) -> Result<(), KmsError> {
        match self.buckets.exists(name).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(KmsError::BucketNotFound(name.clone())),
            Err(error) => Err(told(error, name)),
        }
    }

    /// The bucket's default encryption.
    ///
    /// # Errors
    /// [`KmsError::BucketNotFound`], or [`KmsError::NoBucketEncryption`].
    pub async fn encryption(
        &self,
        caller: &Caller,
        name: &BucketName,
    ) -> Result<DefaultEncryption, KmsError> {
        caller.may_on_bucket(Action::GetEncryptionConfiguration, name)?;
        self.current(name)
            .await?
            .ok_or_else(|| KmsError::NoBucketEncryption(name.clone()))
    }

    /// Sets the bucket's default encryption, and returns it as stored, with the key that the service's default stands
    /// for. A caller who names a key must have the permission to describe it, because the answer shows the key's state.
    ///
    /// A key in use is not destroyed, but another process may destroy it at the same moment, before it sees the use. So
    /// the key is read again after the bucket was changed, and if it is not enabled any more, the bucket gets its old
    /// setting back. A process that destroys a key makes it pending before its last look at the uses. So at least one
    /// of the two sees the other, unless this process ends in between.
    ///
    /// # Errors
    /// [`KmsError::BucketNotFound`], [`KmsError::KeyNotFound`], [`KmsError::KeyState`]; [`KmsError::Invalid`] when no
    /// key is named and the service has no default key.
    pub async fn set_encryption(
        &self,
        caller: &Caller,
        name: &BucketName,
        wanted: &WantedEncryption,
    ) -> Result<DefaultEncryption, KmsError> {
        caller.may_on_bucket(Action::PutEncryptionConfiguration, name)?;
        let key = match &wanted.under {
            Under::StoresKey => None,
            Under::Key(key, _) => {
                caller.may(Action::DescribeKey, key)?;
                self.service.running().await?;
                Some(key.clone())
            }
            Under::DefaultKey => {
                let config = self.service.running().await?;
                let default = config.default_key_id.clone().ok_or_else(|| {
                    KmsError::invalid(KEY_FIELD, "is required: the service has no default key")
                })?;
                caller.audit().key(&default);
                Some(default)
            }
        };
        let encryption = |algorithm| DefaultEncryption {
            algorithm,
            arn: wanted.arn().map(str::to_owned),
            bucket_key_enabled: wanted.bucket_key_enabled,
        };
        let Some(key) = key else {
            let encryption = encryption(Algorithm::Aes256);
            self.set(name, &encryption).await?;
            return Ok(encryption);
        };
        self.must_be_enabled(&key).await?;
        let before = self.current(name).await?;
        let encryption = encryption(Algorithm::Kms(key.clone()));
        self.set(name, &encryption).await?;
        if let Err(unfit) = self.must_be_enabled(&key).await {
            if self.current(name).await?.as_ref() == Some(&encryption) {
                match before {
                    Some(before) => self.set(name, &before).await?,
                    None => self.clear(name).await?,
                }
            }
            return Err(unfit);
        }
        Ok(encryption)
    }

    /// Removes the bucket's default encryption. A bucket without one stays so. AWS has no separate permission for this.
    ///
    /// # Errors
    /// [`KmsError::BucketNotFound`].
    pub async fn clear_encryption(
        &self,
        caller: &Caller,
        name: &BucketName,
    ) -> Result<(), KmsError> {
        caller.may_on_bucket(Action::PutEncryptionConfiguration, name)?;
        self.clear(name).await
    }

    /// Checks the key as it is in the table now, not in the cache.
    async fn must_be_enabled(&self, id: &KeyId) -> Result<(), KmsError> {
        match self.reader.read(id).await? {
            Some((key, _)) => {
                key.must_be_enabled()?;
                key.must_be_for(KeyUsage::EncryptDecrypt)
            }
            None => Err(KmsError::KeyNotFound(id.clone())),
        }
    }

    async fn current(&self, name: &BucketName) -> Result<Option<DefaultEncryption>, KmsError> {
        self.buckets
            .encryption(name)
            .await
            .map_err(|error| told(error, name))
    }

    async fn set(&self, name: &BucketName, to: &DefaultEncryption) -> Result<(), KmsError> {
        self.buckets
            .set_encryption(name, to)
            .await
            .map_err(|error| told(error, name))
    }

    async fn clear(&self, name: &BucketName) -> Result<(), KmsError> {
        self.buckets
            .clear_encryption(name)
            .await
            .map_err(|error| told(error, name))
    }
}

fn told(error: BucketError, name: &BucketName) -> KmsError {
    match error {
        BucketError::NoSuchBucket => KmsError::BucketNotFound(name.clone()),
        BucketError::Exists => KmsError::BucketExists(name.clone()),
        BucketError::NotEmpty => KmsError::BucketNotEmpty(name.clone()),
        BucketError::Store(error) => error.into(),
    }
}
