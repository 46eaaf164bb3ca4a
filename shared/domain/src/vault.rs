//! HashiCorp Vault or OpenBao as the backend. Its transit engine wraps master keys, and its KV v2 engine keeps sealed
//! copies of their records. This module parses the settings; the crate that speaks to Vault implements the ports.

use std::net::IpAddr;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyway_crypto::SecretBytes;
use serde::{Deserialize, Deserializer, Serialize, de};
use url::{Host, Url};

use crate::error::{Fault, KmsError};
use crate::keyring::{Binding, KeyWrapper, WrapError};

/// Vault's address: `https://host[:port][/path]`, or `http://` on loopback only. Never with a user, a query or a
/// fragment, and never link-local, where clouds serve the credentials of machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VaultAddress(String);

impl VaultAddress {
    /// Parses an address from the input `field`.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] naming the field.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, KmsError> {
        let invalid = |reason: &str| KmsError::invalid(field, reason);
        if text.len() > 2048 {
            return Err(invalid("must be at most 2048 bytes"));
        }
        if text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '\\')
        {
            return Err(invalid(
                "must not contain spaces, backslashes or control characters",
            ));
        }
        let url = Url::parse(text)
            .map_err(|_| invalid("must be a URL such as https://vault.example.com:8200"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(invalid(
                "must begin with https://, or with http:// on loopback",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
            return Err(invalid("must not contain a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("must not have a query or fragment"));
        }
        let (loopback, forbidden) = match url.host() {
            Some(Host::Domain(name)) => (name == "localhost", false),
            Some(Host::Ipv4(ip)) => (is_loopback(ip.into()), is_forbidden(ip.into())),
            Some(Host::Ipv6(ip)) => (is_loopback(ip.into()), is_forbidden(ip.into())),
            None => return Err(invalid("must name a host")),
        };
        if forbidden {
            return Err(invalid(
                "must not be a link-local, multicast or unspecified address",
            ));
        }
        if url.scheme() == "http" && !loopback {
            return Err(invalid("must be https:// unless it is on loopback"));
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The address, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for VaultAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse("address", &text).map_err(|_| de::Error::custom("not an address of Vault"))
    }
}

/// Whether the address is loopback, also as an IPv4-mapped one.
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Whether the address must not be Vault's: link-local (where clouds serve a machine's credentials), multicast,
/// broadcast or unspecified. Names are checked each time they are resolved.
pub fn is_forbidden(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified()
        }
        IpAddr::V6(ip) => match ip.to_ipv4() {
            Some(mapped) if !ip.is_loopback() => is_forbidden(mapped.into()),
            _ => {
                ip.is_unicast_link_local()
                    || ip.is_multicast()
                    || ip.is_unspecified()
                    // AWS serves the same credentials here as on 169.254.169.254.
                    || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
            }
        },
    }
}

/// A path in Vault, such as a mount or a prefix: segments of `[A-Za-z0-9._-]` with `/` between them, at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VaultPath(String);

impl VaultPath {
    /// Parses a path from the input `field`. Slashes at its ends are dropped.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] naming the field.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, KmsError> {
        let path = text.trim_matches('/');
        let fit = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if path.len() > 256 || !path.split('/').all(fit) {
            return Err(KmsError::invalid(
                field,
                "must be segments of A-Z, a-z, 0-9, `.`, `_`, `-` with `/` between them, at most 256 bytes",
            ));
        }
        Ok(Self(path.to_owned()))
    }

    /// The path, without slashes at its ends.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for VaultPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse("path", &text).map_err(|_| de::Error::custom("not a path in Vault"))
    }
}

/// How Keyway authenticates to Vault. The secret is stored separately, wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultAuth {
    /// A token, which is the secret. Keyway renews it before it expires, as far as Vault allows.
    Token,
    /// A role's id and its secret id. The secret id is the secret.
    AppRole {
        /// The role's id.
        role_id: String,
        /// Where the auth method is mounted.
        mount: VaultPath,
    },
    /// A file in which another program, such as Vault's agent, keeps a token. Keyway reads it again when the token is
    /// refused, and at least once a minute.
    TokenFile {
        /// An absolute path.
        path: String,
    },
}

/// Whether this has the form of a token of Vault and OpenBao: 1 to 512 of `[A-Za-z0-9._-]`. Keyway sends nothing else
/// as a token, whatever its source.
pub fn is_token(text: &[u8]) -> bool {
    (1..=512).contains(&text.len())
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether this can be an AppRole secret id, which operators may choose: 1 to 512 printable ASCII characters.
pub fn is_secret_id(text: &[u8]) -> bool {
    (1..=512).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

/// Parses an absolute path of this machine from the input `field`: no `.` or `..`, at most 4096 bytes.
///
/// # Errors
/// [`KmsError::Invalid`] naming the field.
pub fn absolute_path(field: &'static str, text: &str) -> Result<String, KmsError> {
    let plain = Path::new(text)
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    // `components` skips a `.` in the middle, so look for it in the text.
    let dots = text.split('/').any(|part| part == "." || part == "..");
    if !Path::new(text).is_absolute() || !plain || dots || text.contains('\0') || text.len() > 4096
    {
        return Err(KmsError::invalid(
            field,
            "must be an absolute path without `.` and `..`",
        ));
    }
    Ok(text.to_owned())
}

/// How Vault is reached, and where the engines are mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultSettings {
    /// Vault's address.
    pub address: VaultAddress,
    /// The namespace, sent as `X-Vault-Namespace`.
    pub namespace: Option<VaultPath>,
    /// How Keyway authenticates.
    pub auth: VaultAuth,
    /// Where the transit engine is mounted.
    pub mount_path: VaultPath,
    /// Where the KV v2 engine is mounted.
    pub kv_mount: VaultPath,
    /// The prefix of the sealed copies in the KV engine.
    pub key_path_prefix: VaultPath,
}

impl VaultAuth {
    /// Whether it has a credential that is stored, wrapped.
    pub(crate) const fn has_credential(&self) -> bool {
        match self {
            Self::Token | Self::AppRole { .. } => true,
            Self::TokenFile { .. } => false,
        }
    }
}

impl VaultSettings {
    /// Whether both reach the same mounts of the same Vault.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.address == other.address
            && self.namespace == other.namespace
            && self.mount_path == other.mount_path
            && self.kv_mount == other.kv_mount
    }
}

/// The timeout and the retries of calls to Vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaultRetryPolicy {
    /// The timeout of one operation, with all its attempts.
    pub timeout: Duration,
    /// How many more attempts follow a failed one that can be repeated.
    pub retries: u32,
}

/// What a check does when Vault's transit engine does not have our key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitKey {
    /// Makes the key: when a backend is configured for the first time.
    MadeIfMissing,
    /// Fails: a key that has disappeared must not be replaced silently.
    MustExist,
}

/// A sealed copy of a key's record in Vault's KV engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCopy {
    /// The record's value. Its material is wrapped, so it is useless without the transit key.
    pub value: Vec<u8>,
    /// The version that a writer must name.
    pub version: CopyVersion,
}

/// A version of a copy; 0 means that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyVersion(pub u64);

/// Why a copy was not written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The copy is not as the writer saw it. Nothing was changed.
    #[error("the copy changed or exists already")]
    Conflict,
    /// Vault failed or is unreachable.
    #[error(transparent)]
    Vault(#[from] WrapError),
}

/// One Vault. As a [`KeyWrapper`] its name is [`VAULT_WRAPPER`]. Wrapping never makes a transit key.
#[async_trait]
pub trait Vault: KeyWrapper {
    /// Checks that Vault is reachable and unsealed, accepts our login, and has the transit key.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`] with the reason, for the log.
    async fn check(&self, key: TransitKey) -> Result<(), WrapError>;

    /// Renews the token if it is due. Called periodically; every other operation does it as well.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`] when Vault refuses or is unreachable.
    async fn renew(&self) -> Result<(), WrapError>;

    /// The sealed copy of this key, if there is one.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`].
    async fn copy(&self, id: &str) -> Result<Option<KeyCopy>, WrapError>;

    /// Writes the copy if its version is `seen` (0: there is none, or it was removed). A write that is repeated because
    /// its answer was lost succeeds without a second effect.
    ///
    /// # Errors
    /// [`CopyError::Conflict`] when its version is another, otherwise [`CopyError::Vault`].
    async fn put_copy(&self, id: &str, value: &[u8], seen: CopyVersion) -> Result<(), CopyError>;

    /// Removes every version of the copy. An absent copy counts as removed.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`].
    async fn remove_copy(&self, id: &str) -> Result<(), WrapError>;

    /// The ids of all keys that have a copy, sorted.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`].
    async fn copies(&self) -> Result<Vec<String>, WrapError>;

    /// The versions of the transit key.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`].
    async fn transit_versions(&self) -> Result<TransitVersions, WrapError>;

    /// Adds a version to the transit key, which wraps from then on. A call that is repeated because its answer was lost
    /// may add two.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`], also when the login may not do this.
    async fn rotate_transit(&self) -> Result<(), WrapError>;

    /// What [`KeyWrapper::wrap`] made under this binding, wrapped anew under the newest version. Vault does not give out
    /// the material.
    ///
    /// # Errors
    /// As [`KeyWrapper::unwrap`].
    async fn rewrap(&self, binding: &Binding<'_>, wrapped: &[u8]) -> Result<Vec<u8>, WrapError>;

    /// The version of the transit key that wrapped this; `None` if it is not what a Vault makes.
    fn version_of(&self, wrapped: &[u8]) -> Option<u64>;

    /// Makes Vault refuse to unwrap what versions below this one wrapped.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`], also when the login may not do this.
    async fn refuse_below(&self, version: u64) -> Result<(), WrapError>;
}

/// The versions of a transit key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransitVersions {
    /// The version that wraps.
    pub newest: u64,
    /// The oldest version that unwraps.
    pub minimum: u64,
}

/// The name that records keep of Vault's transit engine as their wrapper.
pub const VAULT_WRAPPER: &str = "vault-transit";

/// Makes clients of Vaults.
#[async_trait]
pub trait Vaults: Send + Sync {
    /// Checks that a token can be read from this file now, before a configuration that names the file is tried. The
    /// error says what is wrong with the file and what to do, and nothing of its content.
    ///
    /// # Errors
    /// When the operator allows no token file there, or the file cannot be used.
    async fn token_file(&self, path: &str) -> Result<(), String>;

    /// A client of the Vault of these settings. Sends nothing yet. `credential` is the token or secret id that
    /// `settings.auth` needs, and `None` for a token file.
    ///
    /// # Errors
    /// When no client can be made from the settings.
    fn open(
        &self,
        settings: &VaultSettings,
        credential: Option<&SecretBytes>,
        retry_policy: VaultRetryPolicy,
    ) -> Result<Arc<dyn Vault>, Fault>;
}

#[cfg(test)]
mod tests {
    use super::VaultAddress;

    #[test]
    fn ipv4_mapped_address_is_judged_as_its_ipv4_address() {
        for (address, is_taken) in [
            ("http://[::ffff:127.0.0.1]:8200", true),
            ("http://[::ffff:10.0.0.1]:8200", false),
            ("https://[::ffff:10.0.0.1]:8200", true),
            ("https://[::ffff:169.254.169.254]", false),
        ] {
            let parsed = VaultAddress::parse("address", address);
            assert_eq!(parsed.is_ok(), is_taken, "{address}");
        }
    }
}
