//! The default encryption of buckets: types and rules. A port holds the buckets themselves.

mod port;
mod table;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::KmsError;
use crate::ids::KeyId;

pub use crate::ids::BucketName;
pub use port::{BucketError, Buckets};
pub(crate) use table::references;
pub use table::{TableBuckets, TrackedBuckets};

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub name: BucketName,
    /// When it was made.
    pub created_at: Timestamp,
}

/// S3's name for encryption under the object store's own key.
pub const AES256: &str = "AES256";
/// S3's name for encryption under a key of the KMS.
pub const AWS_KMS: &str = "aws:kms";

/// How a bucket encrypts objects whose requests say nothing about encryption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultEncryption {
    /// The algorithm and its key.
    pub algorithm: Algorithm,
    /// The key as an ARN that ends in its id, if it was given so: clients compare what they read with what they set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Whether the object store may use one data key of the KMS for many objects.
    pub bucket_key_enabled: bool,
}

/// The key that a bucket encrypts under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The object store's own key.
    Aes256,
    /// This key.
    Kms(KeyId),
    /// A setting that others made in the object store: another algorithm, or no key of this service. Keyway refuses it.
    Foreign {
        /// S3's name of the algorithm.
        name: String,
        /// The key, in any form.
        key: Option<String>,
    },
}

impl DefaultEncryption {
    /// S3's name of the algorithm.
    pub fn algorithm_name(&self) -> &str {
        match &self.algorithm {
            Algorithm::Aes256 => AES256,
            Algorithm::Kms(_) => AWS_KMS,
            Algorithm::Foreign { name, .. } => name,
        }
    }

    /// The key as it was given, if there is one.
    pub fn key(&self) -> Option<&str> {
        match &self.algorithm {
            Algorithm::Aes256 => None,
            Algorithm::Kms(key) => Some(self.arn.as_deref().unwrap_or(key.as_str())),
            Algorithm::Foreign { key, .. } => key.as_deref(),
        }
    }

    /// The key of this service, if the bucket uses one.
    pub fn key_id(&self) -> Option<&KeyId> {
        match &self.algorithm {
            Algorithm::Kms(key) => Some(key),
            Algorithm::Aes256 | Algorithm::Foreign { .. } => None,
        }
    }

    /// The setting that an object store reports.
    pub fn found(name: &str, key: Option<&str>, bucket_key_enabled: bool) -> Self {
        let mut arn = None;
        let algorithm = match (name, key.map(parse_key)) {
            (AES256, None) => Algorithm::Aes256,
            (AWS_KMS, Some(Ok(id))) => {
                arn = key.and_then(as_arn);
                Algorithm::Kms(id)
            }
            _ => Algorithm::Foreign {
                name: name.to_owned(),
                key: key.map(str::to_owned),
            },
        };
        Self {
            algorithm,
            arn,
            bucket_key_enabled,
        }
    }
}

/// The requested default encryption of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedEncryption {
    pub(crate) under: Under,
    pub(crate) bucket_key_enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Under {
    StoresKey,
    Key(KeyId, Option<String>),
    DefaultKey,
}

impl WantedEncryption {
    /// Parses S3's names. The key may be given by its id or as an ARN that ends in it.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for an algorithm other than `AES256` and `aws:kms`, for text that is no key's id, and for
    /// a key with `AES256`.
    pub fn parse(
        algorithm: &str,
        key: Option<&str>,
        bucket_key_enabled: bool,
    ) -> Result<Self, KmsError> {
        let arn = key.and_then(as_arn);
        if algorithm == AWS_KMS_DSSE {
            return Err(KmsError::invalid(
                "SSEAlgorithm",
                "`aws:kms:dsse` is not supported; use `aws:kms` or `AES256`",
            ));
        }
        let key = key.map(parse_key).transpose()?;
        let under = match (algorithm, key) {
            (AES256, None) => Under::StoresKey,
            (AES256, Some(_)) => {
                return Err(KmsError::invalid(
                    KEY_FIELD,
                    "must not be given with AES256",
                ));
            }
            (AWS_KMS, Some(key)) => Under::Key(key, arn),
            (AWS_KMS, None) => Under::DefaultKey,
            _ => {
                return Err(KmsError::invalid(
                    "SSEAlgorithm",
                    "must be `AES256` or `aws:kms`",
                ));
            }
        };
        Ok(Self {
            under,
            bucket_key_enabled,
        })
    }

    pub(crate) fn arn(&self) -> Option<&str> {
        match &self.under {
            Under::Key(_, arn) => arn.as_deref(),
            Under::StoresKey | Under::DefaultKey => None,
        }
    }
}

/// Encryption in two layers, which no supported object store is known to have.
const AWS_KMS_DSSE: &str = "aws:kms:dsse";

/// In bytes. A longer text is no ARN of AWS.
const LONGEST_ARN: usize = 2048;

pub(crate) const KEY_FIELD: &str = "KMSMasterKeyID";

fn as_arn(text: &str) -> Option<String> {
    text.starts_with("arn:").then(|| text.to_owned())
}

/// Parses a key's id, or the ARN of S3's clients: `arn:aws:kms:REGION:ACCOUNT:key/ID`; region and account may be empty.
fn parse_key(text: &str) -> Result<KeyId, KmsError> {
    if text.len() > LONGEST_ARN {
        return Err(KmsError::invalid(KEY_FIELD, "is longer than any key's ARN"));
    }
    let id = if text.starts_with("arn:") {
        let mut parts = text.splitn(6, ':');
        let partition = parts.nth(1).unwrap_or_default();
        let is_kms = partition.starts_with("aws") && parts.next() == Some("kms");
        let plain = |part: &str| {
            part.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let is_placed =
            parts.next().is_some_and(plain) && parts.next().is_some_and(plain) && plain(partition);
        parts
            .next()
            .and_then(|resource| resource.strip_prefix("key/"))
            .filter(|_| is_kms && is_placed)
            .ok_or_else(|| KmsError::invalid(KEY_FIELD, "is an ARN, but not of a KMS key"))?
    } else {
        text
    };
    Ok(KeyId::parse(KEY_FIELD, id)?)
}
