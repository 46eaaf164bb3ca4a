//! The port to buckets, wherever they are.

use async_trait::async_trait;

use super::{Bucket, BucketName, DefaultEncryption};
use crate::ports::StoreError;
use crate::ranges::NameRange;

/// Why an operation on buckets failed.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// There is no bucket of this name.
    #[error("there is no such bucket")]
    NoSuchBucket,
    /// A bucket of this name exists. It was not changed.
    #[error("the bucket exists already")]
    Exists,
    /// The bucket still has objects. It was not changed.
    #[error("the bucket is not empty")]
    NotEmpty,
    /// The store of the buckets failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Buckets and their default encryption, in an object store or in the table. Each call sees the changes of the calls
/// before it.
#[async_trait]
pub trait Buckets: Send + Sync {
    /// Every bucket, in the byte order of their names.
    ///
    /// # Errors
    /// [`BucketError::Store`].
    async fn list(&self) -> Result<Vec<Bucket>, BucketError>;

    /// Every bucket whose name is in these ranges, in the byte order of names. Reads no others if the store can.
    ///
    /// # Errors
    /// [`BucketError::Store`].
    async fn list_within(&self, ranges: &[NameRange]) -> Result<Vec<Bucket>, BucketError> {
        let mut buckets = self.list().await?;
        buckets.retain(|bucket| ranges.iter().any(|range| range.has(bucket.name.as_str())));
        Ok(buckets)
    }

    /// Makes a bucket. If several callers make it at once, at most one succeeds.
    ///
    /// # Errors
    /// [`BucketError::Exists`], or [`BucketError::Store`].
    async fn create(&self, name: &BucketName) -> Result<(), BucketError>;

    /// Removes a bucket with its default encryption. If several callers remove it at once, at most one succeeds.
    ///
    /// # Errors
    /// [`BucketError::NoSuchBucket`], [`BucketError::NotEmpty`], or [`BucketError::Store`].
    async fn remove(&self, name: &BucketName) -> Result<(), BucketError>;

    /// Whether there is a bucket of this name.
    ///
    /// # Errors
    /// [`BucketError::Store`].
    async fn exists(&self, name: &BucketName) -> Result<bool, BucketError>;

    /// The bucket's default encryption, exactly as it was set; `None` if there is none. For none, an object store that
    /// encrypts everything returns [`Algorithm::Aes256`](crate::buckets::Algorithm::Aes256).
    ///
    /// # Errors
    /// [`BucketError::NoSuchBucket`], or [`BucketError::Store`].
    async fn encryption(&self, name: &BucketName)
    -> Result<Option<DefaultEncryption>, BucketError>;

    /// Sets the bucket's default encryption, whatever it was before. Does not check that the key can be used.
    ///
    /// # Errors
    /// [`BucketError::NoSuchBucket`], or [`BucketError::Store`].
    async fn set_encryption(
        &self,
        name: &BucketName,
        encryption: &DefaultEncryption,
    ) -> Result<(), BucketError>;

    /// Removes the bucket's default encryption. A bucket without one stays so.
    ///
    /// # Errors
    /// [`BucketError::NoSuchBucket`], or [`BucketError::Store`].
    async fn clear_encryption(&self, name: &BucketName) -> Result<(), BucketError>;
}
