//! The ids of everything, and what errors say of a key besides its id. This module uses no other module of the crate.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::Timestamp;
use keyway_crypto::MacHash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not a valid id or name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidId {
    /// The input's name, as the wire spells it.
    pub field: &'static str,
    /// What is wrong with it; never its value.
    pub reason: &'static str,
}

impl InvalidId {
    const fn new(field: &'static str, reason: &'static str) -> Self {
        Self { field, reason }
    }
}

/// A random UUID of these bytes, as text.
pub(crate) fn uuid_v4(bytes: [u8; 16]) -> String {
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}

/// The id of a master key: 1 to 128 of `[A-Za-z0-9._-]`, not beginning with `.` or `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// Parses an id from the input `field`.
    ///
    /// # Errors
    /// [`InvalidId`] naming the field.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, InvalidId> {
        if Self::is_fit(text) {
            return Ok(Self(text.into()));
        }
        let reason = if text.is_empty() {
            "must not be empty"
        } else {
            "must be 1 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`, and not begin with `.` or `-`"
        };
        Err(InvalidId::new(field, reason))
    }

    fn is_fit(text: &str) -> bool {
        (1..=128).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    }

    /// A new id from these random bytes.
    pub(crate) fn random(bytes: [u8; 16]) -> Self {
        Self(uuid_v4(bytes).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if Self::is_fit(&text) {
            Ok(Self(text.into()))
        } else {
            Err(de::Error::custom("not a key id"))
        }
    }
}

/// The name of an alias: `alias/` and 1 to 250 of `[A-Za-z0-9/_-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AliasName(Arc<str>);

impl AliasName {
    /// The beginning of every alias's name.
    pub const PREFIX: &str = "alias/";

    /// Parses a name, with its prefix, from the input `field`.
    ///
    /// # Errors
    /// [`InvalidId`] naming the field.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, InvalidId> {
        if Self::is_fit(text) {
            Ok(Self(text.into()))
        } else {
            let reason = "must be `alias/` and 1 to 250 of A-Z, a-z, 0-9, `/`, `_`, `-`";
            Err(InvalidId::new(field, reason))
        }
    }

    fn is_fit(text: &str) -> bool {
        text.strip_prefix(Self::PREFIX).is_some_and(|name| {
            (1..=250).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-'))
        })
    }

    /// The name as text, with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key that the alias stands for while no alias of this name is stored: the one whose id is the name without its
    /// prefix. If that is no valid id, no key has it.
    pub(crate) fn implicit_key(&self) -> KeyId {
        KeyId(self.0.strip_prefix(Self::PREFIX).unwrap_or_default().into())
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for AliasName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AliasName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse("alias", &text).map_err(|_| de::Error::custom("not the name of an alias"))
    }
}

/// The state of a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// All operations are allowed.
    Enabled,
    /// Cryptography is refused. The key can be described, tagged, enabled, scheduled for deletion.
    Disabled,
    /// Scheduled for destruction. The key can only be described, listed, or kept by cancelling the deletion.
    PendingDeletion {
        /// The earliest time of the destruction.
        at: Timestamp,
        /// Whether it was enabled before, and will be when the deletion is cancelled.
        was_enabled: bool,
        /// When a janitor without a memory first found the key due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found_due: Option<Timestamp>,
    },
}

/// The state's name in error texts.
impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::PendingDeletion { .. } => "pending deletion",
        })
    }
}

/// What a master key is for. A key is for one of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUsage {
    /// Data keys and small secrets.
    EncryptDecrypt,
    /// Message authentication codes.
    GenerateVerifyMac,
}

impl KeyUsage {
    /// The usage's name in AWS's and RustFS's answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EncryptDecrypt => "ENCRYPT_DECRYPT",
            Self::GenerateVerifyMac => "GENERATE_VERIFY_MAC",
        }
    }
}

/// The kind of a key's material. It decides what the key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySpec {
    /// 32 bytes that encrypt. Records of releases that had no other kind do not name it.
    #[default]
    SymmetricDefault,
    /// 28 bytes for HMAC-SHA-224.
    Hmac224,
    /// 32 bytes for HMAC-SHA-256.
    Hmac256,
    /// 48 bytes for HMAC-SHA-384.
    Hmac384,
    /// 64 bytes for HMAC-SHA-512.
    Hmac512,
}

impl KeySpec {
    /// The spec's name in AWS's answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SymmetricDefault => "SYMMETRIC_DEFAULT",
            Self::Hmac224 => "HMAC_224",
            Self::Hmac256 => "HMAC_256",
            Self::Hmac384 => "HMAC_384",
            Self::Hmac512 => "HMAC_512",
        }
    }

    /// What keys of this spec are for.
    pub const fn usage(self) -> KeyUsage {
        match self.mac_hash() {
            None => KeyUsage::EncryptDecrypt,
            Some(_) => KeyUsage::GenerateVerifyMac,
        }
    }

    /// The hash of its MACs; `None` for a key that encrypts.
    pub const fn mac_hash(self) -> Option<MacHash> {
        match self {
            Self::SymmetricDefault => None,
            Self::Hmac224 => Some(MacHash::Sha224),
            Self::Hmac256 => Some(MacHash::Sha256),
            Self::Hmac384 => Some(MacHash::Sha384),
            Self::Hmac512 => Some(MacHash::Sha512),
        }
    }
}

/// Something that references a key and would break without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// It is the service's default key.
    ServiceDefaultKey,
    /// The bucket's default encryption uses it.
    Bucket(BucketName),
}

/// The reference's name in error texts.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceDefaultKey => f.write_str("service-default-key"),
            Self::Bucket(bucket) => write!(f, "bucket:{bucket}"),
        }
    }
}

/// The name of a bucket, by S3's rules: 3 to 63 of `[a-z0-9.-]`, beginning and ending with a letter or digit, dots and
/// hyphens not mixed, not like an IP address, and none of S3's reserved prefixes and suffixes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(Arc<str>);

const KEPT_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const KEPT_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

impl BucketName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidId`] with what is wrong, for the field `bucket`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match Self::fault(text) {
            None => Ok(Self(text.into())),
            Some(reason) => Err(InvalidId::new("bucket", reason)),
        }
    }

    fn fault(text: &str) -> Option<&'static str> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends_plain = |byte: Option<u8>| byte.is_some_and(is_plain);
        if !(3..=63).contains(&text.len()) {
            Some("must be 3 to 63 characters")
        } else if !text
            .bytes()
            .all(|byte| is_plain(byte) || matches!(byte, b'.' | b'-'))
        {
            Some("must be of a-z, 0-9, `.` and `-`")
        } else if !ends_plain(text.bytes().next()) || !ends_plain(text.bytes().next_back()) {
            Some("must begin and end with a letter or digit")
        } else if ["..", ".-", "-."].iter().any(|pair| text.contains(pair)) {
            Some("must not have a `.` beside another `.` or a `-`")
        } else if text.parse::<Ipv4Addr>().is_ok() || is_like_an_address(text) {
            Some("must not be like an IP address")
        } else if KEPT_PREFIXES.iter().any(|start| text.starts_with(start))
            || KEPT_SUFFIXES.iter().any(|end| text.ends_with(end))
        {
            Some("begins or ends with what S3 keeps for itself")
        } else {
            None
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether it is four numbers with dots, even if they form no valid address.
fn is_like_an_address(text: &str) -> bool {
    text.split('.').count() == 4
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for BucketName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BucketName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|_| de::Error::custom("not a bucket's name"))
    }
}

/// The id of an access key: 3 to 128 of `[A-Za-z0-9._-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccessKeyId(Arc<str>);

impl AccessKeyId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`InvalidId`] when it is too short, too long or has other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let fit = (3..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if fit {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId::new(
                "access_key_id",
                "must be 3 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`",
            ))
        }
    }

    /// An id from a record. It was parsed before the record was written.
    pub(crate) fn kept(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A client's KES identity. With a certificate it is the SHA-256 of the public key, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

/// The name of a KES policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName(Arc<str>);

/// Whether KES accepts this as the name of a key, a policy or an identity: 1 to 80 of `[0-9A-Za-z_-]`, not beginning or
/// ending with `-`, and not `_` alone.
pub fn is_kes_name(text: &str) -> bool {
    (1..=80).contains(&text.len())
        && text != "_"
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

const NAME_RULE: &str = "must be 1 to 80 of A-Z, a-z, 0-9, `_`, `-`, and not begin or end with `-`";

impl Identity {
    /// Parses an identity.
    ///
    /// # Errors
    /// [`InvalidId`] unless [`is_kes_name`].
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if is_kes_name(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId::new("identity", NAME_RULE))
        }
    }

    /// An identity from a record. It was parsed before the record was written.
    pub(crate) fn kept(text: &str) -> Self {
        Self(text.into())
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PolicyName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidId`] unless [`is_kes_name`].
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        if is_kes_name(text) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId::new("policy", NAME_RULE))
        }
    }

    /// A name from a record. It was parsed before the record was written.
    pub(crate) fn kept(text: &str) -> Self {
        Self(text.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
