//! HashiCorp Vault or OpenBao as the backend: its transit engine wraps master keys, its KV v2 engine keeps sealed
//! copies of their records. What is set about it is parsed here; the crate that speaks to it implements the ports.

use std::net::IpAddr;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyway_crypto::SecretBytes;
use serde::{Deserialize, Deserializer, Serialize, de};
use url::{Host, Url};

use crate::error::{Fault, KmsError};
use crate::keyring::{KeyWrapper, WrapError};

/// Where Vault listens: `https://host[:port][/path]`, or `http://` on loopback only. Never with a user, a query or a
/// fragment, and never link-local, where clouds keep the credentials of machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VaultAddress(String);

impl VaultAddress {
    /// Parses an address that came in as `field`.
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

/// Whether the address is this machine's own, also as an IPv4-mapped one.
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Whether nobody's Vault can be at this address: link-local (where clouds answer with a machine's credentials),
/// multicast, broadcast or unspecified. Names are judged by what they resolve to, each time.
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
                    // AWS answers here as it does on 169.254.169.254.
                    || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
            }
        },
    }
}

/// A path in Vault, such as a mount or a prefix: segments of `[A-Za-z0-9._-]` with `/` between them, at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VaultPath(String);

impl VaultPath {
    /// Parses a path that came in as `field`. A slash at either end is dropped.
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

/// How Keyway proves itself to Vault. The secret that belongs to it is kept apart, wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultAuth {
    /// A token, which is the secret. It is renewed before it expires, as far as Vault allows that.
    Token,
    /// A role's id with its secret id, which is the secret.
    AppRole {
        /// The role's id.
        role_id: String,
        /// Where the auth method is mounted.
        mount: VaultPath,
    },
    /// A file that somebody else, such as Vault's agent, keeps a token in. It is read again when the token is refused,
    /// and after a minute at the latest.
    TokenFile {
        /// An absolute path.
        path: String,
    },
}

/// Whether this is a token as Vault and OpenBao make them: 1 to 512 of `[A-Za-z0-9._-]`. What is sent as one is nothing
/// else, wherever it came from.
pub fn is_token(text: &[u8]) -> bool {
    (1..=512).contains(&text.len())
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Whether this can be a secret id of AppRole, which operators may choose themselves: 1 to 512 printable ASCII characters.
pub fn is_secret_id(text: &[u8]) -> bool {
    (1..=512).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

/// Parses an absolute path of this machine that came in as `field`: no `.` or `..`, at most 4096 bytes.
///
/// # Errors
/// [`KmsError::Invalid`] naming the field.
pub fn absolute_path(field: &'static str, text: &str) -> Result<String, KmsError> {
    let plain = Path::new(text)
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    // `components` skips over `.` in the middle; what is written must be what is meant.
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

/// How Vault is reached and where in it things are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultSettings {
    /// Where it listens.
    pub address: VaultAddress,
    /// The namespace, sent as `X-Vault-Namespace`.
    pub namespace: Option<VaultPath>,
    /// How Keyway proves itself.
    pub auth: VaultAuth,
    /// Where the transit engine is mounted.
    pub mount_path: VaultPath,
    /// Where the KV v2 engine is mounted.
    pub kv_mount: VaultPath,
    /// Below what in the KV engine the sealed copies are.
    pub key_path_prefix: VaultPath,
}

impl VaultAuth {
    /// Whether a credential belongs to it that is kept, wrapped.
    pub(crate) const fn has_credential(&self) -> bool {
        match self {
            Self::Token | Self::AppRole { .. } => true,
            Self::TokenFile { .. } => false,
        }
    }
}

impl VaultSettings {
    /// Whether what is sent by the one reaches the same as by the other.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        self.address == other.address
            && self.namespace == other.namespace
            && self.mount_path == other.mount_path
            && self.kv_mount == other.kv_mount
    }
}

/// How long Vault is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaultRetryPolicy {
    /// For one operation, all its attempts together.
    pub timeout: Duration,
    /// How many more attempts follow a failed one that may be repeated.
    pub retries: u32,
}

/// What a check does where Vault's transit engine holds no key of ours yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitKey {
    /// Makes one: when a backend is configured for the first time.
    MadeIfMissing,
    /// Fails: a key that was there and is not any more must not be replaced by another one in silence.
    MustExist,
}

/// A sealed copy of a key's record, as it is in Vault's KV engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCopy {
    /// The record's value. The material in it is wrapped, so it tells nothing to who cannot use the transit key.
    pub value: Vec<u8>,
    /// The version that a writer must have seen.
    pub version: CopyVersion,
}

/// A version of a copy; 0 stands for "there is none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyVersion(pub u64);

/// Why a copy was not written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The copy was not as the writer had seen it. Nothing was changed.
    #[error("the copy changed or exists already")]
    Conflict,
    /// Vault failed or could not be reached.
    #[error(transparent)]
    Vault(#[from] WrapError),
}

/// One Vault. As a [`KeyWrapper`] its name is [`VAULT_WRAPPER`]; wrapping never makes a transit key.
#[async_trait]
pub trait Vault: KeyWrapper {
    /// Whether it can be reached, is unsealed, knows us, and has the transit key.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`] with what is wrong, for the log.
    async fn check(&self, key: TransitKey) -> Result<(), WrapError>;

    /// Renews the token if its time has come. Called now and then; every other operation does it by itself as well.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`] when Vault refuses or cannot be reached.
    async fn renew(&self) -> Result<(), WrapError>;

    /// The sealed copy of this key, if there is one.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`].
    async fn copy(&self, id: &str) -> Result<Option<KeyCopy>, WrapError>;

    /// Writes the copy if and only if its version is `seen` (0: there is none, or it was removed). The same write,
    /// made again because its answer was lost, succeeds without acting twice.
    ///
    /// # Errors
    /// [`CopyError::Conflict`] when it is another, else [`CopyError::Vault`].
    async fn put_copy(&self, id: &str, value: &[u8], seen: CopyVersion) -> Result<(), CopyError>;

    /// Removes every version of the copy. One that is absent counts as removed.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`].
    async fn remove_copy(&self, id: &str) -> Result<(), WrapError>;

    /// The ids of all keys that have a copy, sorted.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`].
    async fn copies(&self) -> Result<Vec<String>, WrapError>;
}

/// The name that records keep of keys wrapped by Vault's transit engine.
pub const VAULT_WRAPPER: &str = "vault-transit";

/// Reaches Vaults.
#[async_trait]
pub trait Vaults: Send + Sync {
    /// Whether a token can be had of this file now: asked before a configuration that names it is tried. The error
    /// says what is wrong with the file and what to do, and nothing of its content.
    ///
    /// # Errors
    /// When the operator allows no token file there, or the file is not fit.
    async fn token_file(&self, path: &str) -> Result<(), String>;

    /// The Vault of these settings. Nothing is sent yet. `credential` is the token or secret id that `settings.auth`
    /// needs; none for a token file.
    ///
    /// # Errors
    /// When no client can be made of the settings.
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
