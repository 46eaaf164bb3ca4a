//! The changes of a configuration request, and the configuration that results from them.

use keyway_crypto::SecretBytes;

use super::{BackendType, CacheSettings, RETRY_ATTEMPTS, ServiceConfig, TIMEOUT_SECONDS};
use crate::error::KmsError;
use crate::ids::KeyId;
use crate::vault::{VaultAddress, VaultAuth, VaultPath, VaultSettings};

/// How a request changes one setting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Change<T> {
    /// The setting stays as it is.
    #[default]
    Keep,
    /// The setting goes back to its default.
    Clear,
    /// The setting becomes this value.
    Set(T),
}

impl<T> Change<T> {
    fn says_something(&self) -> bool {
        !matches!(self, Self::Keep)
    }
}

impl<T: Clone> Change<T> {
    /// The setting after the change.
    fn on(&self, before: Option<T>, default: T) -> T {
        match self {
            Self::Keep => before.unwrap_or(default),
            Self::Clear => default,
            Self::Set(value) => value.clone(),
        }
    }
}

/// How Keyway will authenticate to Vault. Without a secret, the stored one is kept.
pub enum NewAuth {
    /// A token.
    Token(Option<SecretBytes>),
    /// A role's id and its secret id.
    AppRole {
        /// The role's id.
        role_id: String,
        /// The secret id.
        secret_id: Option<SecretBytes>,
        /// Where the auth method is mounted.
        mount: VaultPath,
    },
    /// The absolute path of a file that holds a token.
    TokenFile(String),
}

impl NewAuth {
    pub(crate) fn public(&self) -> VaultAuth {
        match self {
            Self::Token(_) => VaultAuth::Token,
            Self::AppRole { role_id, mount, .. } => VaultAuth::AppRole {
                role_id: role_id.clone(),
                mount: mount.clone(),
            },
            Self::TokenFile(path) => VaultAuth::TokenFile { path: path.clone() },
        }
    }

    pub(crate) fn secret(&self) -> Option<&SecretBytes> {
        match self {
            Self::Token(secret) => secret.as_ref(),
            Self::AppRole { secret_id, .. } => secret_id.as_ref(),
            Self::TokenFile(_) => None,
        }
    }
}

/// The changes that a request makes to the configuration.
#[derive(Default)]
pub struct ConfigChanges {
    pub backend_type: Option<BackendType>,
    pub key_directory: Change<String>,
    pub default_key_id: Change<KeyId>,
    pub enable_cache: Change<bool>,
    pub cache_ttl_seconds: Change<u64>,
    pub max_cached_keys: Change<u64>,
    pub timeout_seconds: Change<u64>,
    pub retry_attempts: Change<u64>,
    pub address: Change<VaultAddress>,
    pub auth: Option<NewAuth>,
    pub namespace: Change<VaultPath>,
    pub mount_path: Change<VaultPath>,
    pub kv_mount: Change<VaultPath>,
    pub key_path_prefix: Change<VaultPath>,
}

impl ConfigChanges {
    /// The configuration after the changes, without its Vault. `before` is the configuration that they change.
    pub(crate) fn on(
        &self,
        before: Option<&ServiceConfig>,
        mut config: ServiceConfig,
    ) -> Result<ServiceConfig, KmsError> {
        let default = CacheSettings::default();
        let cache = before.map(|before| before.cache);
        config.backend_type = self
            .backend_type
            .or(before.map(|before| before.backend_type))
            .unwrap_or(BackendType::Local);
        config.key_directory = optional(
            &self.key_directory,
            before.and_then(|before| before.key_directory.clone()),
        );
        config.default_key_id = optional(
            &self.default_key_id,
            before.and_then(|before| before.default_key_id.clone()),
        );
        config.cache = CacheSettings {
            enabled: self
                .enable_cache
                .on(cache.map(|cache| cache.enabled), default.enabled),
            ttl_seconds: within(
                "cache_ttl_seconds",
                &self.cache_ttl_seconds,
                cache.map(|cache| cache.ttl_seconds),
                default.ttl_seconds,
                1..=86_400,
            )?,
            max_keys: within(
                "max_cached_keys",
                &self.max_cached_keys,
                cache.map(|cache| cache.max_keys),
                default.max_keys,
                1..=100_000,
            )?,
        };
        config.timeout_seconds = within(
            "timeout_seconds",
            &self.timeout_seconds,
            before.map(|before| before.timeout_seconds),
            TIMEOUT_SECONDS,
            1..=300,
        )?;
        config.retry_attempts = within(
            "retry_attempts",
            &self.retry_attempts,
            before.map(|before| before.retry_attempts),
            RETRY_ATTEMPTS,
            0..=10,
        )?;
        Ok(config)
    }

    /// Whether any setting of Vault is given.
    pub(crate) fn speak_of_vault(&self) -> bool {
        self.address.says_something()
            || self.auth.is_some()
            || self.namespace.says_something()
            || self.mount_path.says_something()
            || self.kv_mount.says_something()
            || self.key_path_prefix.says_something()
    }

    /// The settings of Vault after the changes to `before`. `auth` is the authentication used until now.
    pub(crate) fn vault_settings(
        &self,
        before: Option<&VaultSettings>,
        auth: Option<&VaultAuth>,
    ) -> Result<VaultSettings, KmsError> {
        let missing = |field| KmsError::invalid(field, "is required for the backend `vault`");
        let address = match (&self.address, before) {
            (Change::Set(address), _) => address.clone(),
            (Change::Keep, Some(before)) => before.address.clone(),
            (Change::Keep | Change::Clear, _) => return Err(missing("address")),
        };
        let auth = match (&self.auth, auth) {
            (Some(auth), _) => auth.public(),
            (None, Some(auth)) => auth.clone(),
            (None, None) => return Err(missing("auth_method")),
        };
        let path = |change: &Change<VaultPath>,
                    before: Option<&VaultPath>,
                    field: &'static str,
                    default: &str| {
            Ok::<_, KmsError>(change.on(before.cloned(), VaultPath::parse(field, default)?))
        };
        Ok(VaultSettings {
            address,
            auth,
            namespace: optional(
                &self.namespace,
                before.and_then(|before| before.namespace.clone()),
            ),
            mount_path: path(
                &self.mount_path,
                before.map(|before| &before.mount_path),
                "mount_path",
                "transit",
            )?,
            kv_mount: path(
                &self.kv_mount,
                before.map(|before| &before.kv_mount),
                "kv_mount",
                "secret",
            )?,
            key_path_prefix: path(
                &self.key_path_prefix,
                before.map(|before| &before.key_path_prefix),
                "key_path_prefix",
                "rustfs/kms/keys",
            )?,
        })
    }
}

fn optional<T: Clone>(change: &Change<T>, before: Option<T>) -> Option<T> {
    match change {
        Change::Keep => before,
        Change::Clear => None,
        Change::Set(value) => Some(value.clone()),
    }
}

/// A number that must be in its range. It is refused, not clamped: a client that asks for a year must learn that it
/// does not get one.
fn within(
    field: &'static str,
    change: &Change<u64>,
    before: Option<u32>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, KmsError> {
    match change {
        Change::Keep => Ok(before.unwrap_or(default)),
        Change::Clear => Ok(default),
        Change::Set(value) => u32::try_from(*value)
            .ok()
            .filter(|value| range.contains(value))
            .ok_or_else(|| {
                KmsError::invalid(
                    field,
                    format!("must be from {} to {}", range.start(), range.end()),
                )
            }),
    }
}
