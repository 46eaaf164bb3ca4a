//! The service itself: decode, operate, encode.

#[cfg(feature = "openapi")]
pub(crate) mod openapi;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use keyway_domain::SecretBytes;
use keyway_domain::control::{Configured, ServiceControl, Started};
use keyway_domain::keys::KeyId;
use keyway_domain::policy::Action;
use keyway_domain::service::{BackendType, Change, ConfigChanges, Degraded, NewAuth, ServiceState};
use keyway_domain::vault::{
    VaultAddress, VaultAuth, VaultPath, absolute_path, is_secret_id, is_token,
};
use keyway_http::{Call, HandlerResult, Request, RouteEntry};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::error_response::invalid_field;
use crate::spelling::backend;
use crate::{ErrorResponse, PREFIXES, RustFs, Spelling, route, wire};

/// The path of the service's state, which has routes with two methods.
pub(crate) const STATUS: &str = "/kms/status";

/// The domain service that these routes use, and the spelling of their answers.
pub(crate) struct OnService {
    pub(crate) control: Arc<ServiceControl>,
    pub(crate) spelling: Spelling,
}

pub(crate) fn entries() -> Vec<RouteEntry<RustFs, OnService>> {
    let service = Action::ServiceControl;
    vec![
        route(Method::POST, "/kms/configure", Action::Configure, configure),
        route(
            Method::POST,
            "/kms/reconfigure",
            Action::Configure,
            reconfigure,
        ),
        route(Method::POST, "/kms/start", service, start),
        route(Method::POST, "/kms/stop", service, stop).without_body(),
        route(Method::GET, STATUS, service, status),
        // Older versions of `mc admin kms` use POST.
        route(Method::POST, STATUS, service, status).without_body(),
        route(Method::GET, "/kms/service-status", service, service_status),
        route(Method::GET, "/kms/config", Action::Configure, config),
        route(
            Method::POST,
            "/kms/clear-cache",
            Action::ClearCache,
            clear_cache,
        )
        .without_body(),
    ]
}

/// Deserializes a field that can be absent, `null`, or set.
fn change<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Change<T>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        Some(value) => Change::Set(value),
        None => Change::Clear,
    })
}

/// The fields of all three documents and of RustFS's console.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigBody {
    backend_type: Option<Backend>,
    #[serde(default, alias = "key_dir", deserialize_with = "change")]
    key_directory: Change<String>,
    #[serde(default, deserialize_with = "change")]
    default_key_id: Change<String>,
    #[serde(default, deserialize_with = "change")]
    enable_cache: Change<bool>,
    #[serde(default, deserialize_with = "change")]
    cache_ttl_seconds: Change<u64>,
    #[serde(default, deserialize_with = "change")]
    max_cached_keys: Change<u64>,
    #[serde(default, deserialize_with = "change")]
    timeout_seconds: Change<u64>,
    #[serde(default, deserialize_with = "change")]
    retry_attempts: Change<u64>,
    #[serde(default, deserialize_with = "change")]
    address: Change<String>,
    auth_method: Option<AuthMethod>,
    #[serde(default, deserialize_with = "change")]
    namespace: Change<String>,
    #[serde(default, deserialize_with = "change")]
    mount_path: Change<String>,
    /// RustFS's transit backend has another name for the same mount.
    #[serde(default, alias = "metadata_kv_mount", deserialize_with = "change")]
    kv_mount: Change<String>,
    #[serde(default, deserialize_with = "change")]
    key_path_prefix: Change<String>,
    /// The console sends these three. Files are always private to their owner, and TLS is always verified.
    file_permissions: Option<u32>,
    skip_tls_verify: Option<bool>,
    tls: Option<IgnoredAny>,
    #[expect(
        dead_code,
        reason = "known, and without effect: nothing here is insecure for developers"
    )]
    allow_insecure_dev_defaults: Option<bool>,
    #[expect(
        dead_code,
        reason = "known, and without effect: the root keyring is random, not derived"
    )]
    master_key: Option<Zeroizing<String>>,
}

#[derive(Clone, Copy, Deserialize)]
enum Backend {
    #[serde(rename = "local", alias = "Local")]
    Local,
    #[serde(
        rename = "vault",
        alias = "Vault",
        alias = "vault-transit",
        alias = "vault_transit",
        alias = "VaultTransit"
    )]
    Vault,
    /// Accepted only so that the error can say what to do instead.
    #[serde(rename = "vault-kv2", alias = "vault_kv2", alias = "VaultKV2")]
    VaultKv2,
    #[serde(
        rename = "aws",
        alias = "AWS",
        alias = "AwsKms",
        alias = "aws-kms",
        alias = "aws_kms"
    )]
    Aws,
    #[serde(rename = "static", alias = "Static")]
    Static,
}

impl Backend {
    fn parse(self, field: &'static str) -> Result<BackendType, ErrorResponse> {
        let instead = match self {
            Self::Local => return Ok(BackendType::Local),
            Self::Vault => return Ok(BackendType::Vault),
            Self::VaultKv2 => {
                "must be `local` or `vault`: Keyway keeps no key in Vault's KV engine in the clear; use `vault`, which wraps \
                 keys by the transit engine and keeps sealed copies below `kv_mount`"
            }
            Self::Aws => {
                "must be `local` or `vault`: Keyway does not wrap keys by AWS KMS; on AWS use `local`, whose root keyring is in \
                 Secrets Manager"
            }
            Self::Static => {
                "must be `local` or `vault`: Keyway takes no key of the configuration; use `local`, and bring the key here with \
                 `keyway import`"
            }
        };
        Err(invalid_field(field, instead))
    }
}

/// `{"token":"..."}`, or RustFS's `{"Token":{"token":"..."}}`, `{"AppRole":{...}}`, `{"TokenFile":{...}}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthMethod {
    token: Option<Zeroizing<String>>,
    #[serde(rename = "Token")]
    token_object: Option<TokenObject>,
    #[serde(rename = "AppRole", alias = "approle", alias = "app_role")]
    app_role: Option<AppRoleObject>,
    #[serde(rename = "TokenFile", alias = "token_file")]
    token_file: Option<TokenFileObject>,
    /// Accepted only so that the error can say what to do instead.
    #[serde(rename = "Kubernetes", alias = "kubernetes")]
    kubernetes: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenObject {
    token: Zeroizing<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppRoleObject {
    role_id: String,
    secret_id: Option<Zeroizing<String>>,
    mount: Option<String>,
    secret_id_file: Option<IgnoredAny>,
    refresh_safety_window_secs: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFileObject {
    path: String,
    poll_interval_secs: Option<u64>,
}

/// The longest time, in seconds, until a token file is read again.
const TOKEN_FILE_SECONDS: u64 = 60;

impl AuthMethod {
    fn parse(self) -> Result<NewAuth, ErrorResponse> {
        let one = || {
            invalid_field(
                "auth_method",
                "must be one of `token`, `Token`, `AppRole`, `TokenFile`",
            )
        };
        if self.kubernetes.is_some() {
            return Err(invalid_field(
                "auth_method.Kubernetes",
                "is not supported: have Vault's agent log in by Kubernetes and keep the token in a file, and use `TokenFile`",
            ));
        }
        let token = match (self.token, self.token_object) {
            (Some(_), Some(_)) => return Err(one()),
            (token, object) => token.or(object.map(|object| object.token)),
        };
        match (token, self.app_role, self.token_file) {
            (Some(token), None, None) => {
                Ok(NewAuth::Token(given_token("auth_method.token", &token)?))
            }
            (None, Some(role), None) => {
                if role.secret_id_file.is_some() {
                    return Err(invalid_field(
                        "auth_method.AppRole.secret_id_file",
                        "is not supported: give the secret id itself as `secret_id`, which is stored wrapped; or have Vault's \
                         agent keep a token in a file, and use `TokenFile`",
                    ));
                }
                if role.refresh_safety_window_secs.is_some() {
                    return Err(invalid_field(
                        "auth_method.AppRole.refresh_safety_window_secs",
                        "must be left out: a token is renewed when two thirds of its life are over",
                    ));
                }
                let fit = (1..=256).contains(&role.role_id.len())
                    && role.role_id.bytes().all(|byte| byte.is_ascii_graphic());
                if !fit {
                    return Err(invalid_field(
                        "auth_method.AppRole.role_id",
                        "must be 1 to 256 printable ASCII characters",
                    ));
                }
                let secret_id = role.secret_id.unwrap_or_default();
                Ok(NewAuth::AppRole {
                    role_id: role.role_id,
                    secret_id: credential(
                        "auth_method.AppRole.secret_id",
                        &secret_id,
                        is_secret_id,
                        "must be 1 to 512 printable ASCII characters",
                    )?,
                    mount: VaultPath::parse(
                        "auth_method.AppRole.mount",
                        role.mount.as_deref().unwrap_or("approle"),
                    )?,
                })
            }
            (None, None, Some(file)) => {
                if file
                    .poll_interval_secs
                    .is_some_and(|seconds| seconds < TOKEN_FILE_SECONDS)
                {
                    return Err(invalid_field(
                        "auth_method.TokenFile.poll_interval_secs",
                        "must be 60 or more, or left out: the file is read again when Vault refuses the token, and after a minute \
                         at the latest",
                    ));
                }
                Ok(NewAuth::TokenFile(absolute_path(
                    "auth_method.TokenFile.path",
                    &file.path,
                )?))
            }
            _ => Err(one()),
        }
    }
}

fn given_token(field: &'static str, text: &str) -> Result<Option<SecretBytes>, ErrorResponse> {
    let rule = "must be 1 to 512 of A-Z, a-z, 0-9, `.`, `_`, `-`";
    credential(field, text, is_token, rule)
}

/// A token or secret id. A blank one counts as absent.
fn credential(
    field: &'static str,
    text: &str,
    is_fit: fn(&[u8]) -> bool,
    rule: &'static str,
) -> Result<Option<SecretBytes>, ErrorResponse> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    match is_fit(text.as_bytes()) {
        true => Ok(Some(SecretBytes::from(text.as_bytes().to_vec()))),
        false => Err(invalid_field(field, rule)),
    }
}

/// Parses the value of a change.
fn parsed<T, U>(
    change: Change<T>,
    parse: impl FnOnce(T) -> Result<U, ErrorResponse>,
) -> Result<Change<U>, ErrorResponse> {
    Ok(match change {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        Change::Set(value) => Change::Set(parse(value)?),
    })
}

/// As [`parsed`], with an empty text read as `null`.
fn parsed_or_empty<U>(
    change: Change<String>,
    parse: impl FnOnce(&str) -> Result<U, ErrorResponse>,
) -> Result<Change<U>, ErrorResponse> {
    match change {
        Change::Set(text) if text.is_empty() => Ok(Change::Clear),
        change => parsed(change, |text| parse(&text)),
    }
}

impl ConfigBody {
    fn changes(self) -> Result<ConfigChanges, ErrorResponse> {
        if self.file_permissions.is_some_and(|mode| mode != 0o600) {
            return Err(invalid_field(
                "file_permissions",
                "must be 384 (0600): key files are their owner's alone",
            ));
        }
        if self.skip_tls_verify == Some(true) {
            return Err(invalid_field(
                "skip_tls_verify",
                "must be false: Vault's certificate is always verified",
            ));
        }
        if self.tls.is_some() {
            return Err(invalid_field(
                "tls",
                "must be left out: Vault's certificate is verified by the authorities of this machine; add yours there, or name \
                 its file in SSL_CERT_FILE",
            ));
        }
        let path = |field: &'static str| {
            move |text: String| Ok::<_, ErrorResponse>(VaultPath::parse(field, &text)?)
        };
        Ok(ConfigChanges {
            backend_type: self
                .backend_type
                .map(|backend| backend.parse("backend_type"))
                .transpose()?,
            key_directory: parsed(self.key_directory, |text| {
                Ok(absolute_path("key_directory", &text)?)
            })?,
            default_key_id: parsed_or_empty(self.default_key_id, |text| {
                Ok(KeyId::parse("default_key_id", text)?)
            })?,
            enable_cache: self.enable_cache,
            cache_ttl_seconds: self.cache_ttl_seconds,
            max_cached_keys: self.max_cached_keys,
            timeout_seconds: self.timeout_seconds,
            retry_attempts: self.retry_attempts,
            address: parsed(self.address, |text| {
                Ok(VaultAddress::parse("address", &text)?)
            })?,
            auth: self.auth_method.map(AuthMethod::parse).transpose()?,
            namespace: parsed_or_empty(self.namespace, |text| {
                Ok(VaultPath::parse("namespace", text)?)
            })?,
            mount_path: parsed(self.mount_path, path("mount_path"))?,
            kv_mount: parsed(self.kv_mount, path("kv_mount"))?,
            key_path_prefix: parsed(self.key_path_prefix, path("key_path_prefix"))?,
        })
    }
}

/// The body of the first generation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstBody {
    kms_type: Backend,
    vault_address: Option<String>,
    vault_token: Option<Zeroizing<String>>,
    vault_namespace: Option<String>,
    vault_mount_path: Option<String>,
    default_key_id: Option<String>,
}

impl FirstBody {
    fn changes(self) -> Result<ConfigChanges, ErrorResponse> {
        let set = |text: Option<String>, field: &'static str| {
            let text = text.filter(|text| !text.is_empty());
            let path = text
                .map(|text| VaultPath::parse(field, &text))
                .transpose()?;
            Ok::<_, ErrorResponse>(path.map_or(Change::Keep, Change::Set))
        };
        let address = self
            .vault_address
            .map(|text| VaultAddress::parse("vault_address", &text))
            .transpose()?;
        let auth = match self.vault_token {
            Some(token) => Some(NewAuth::Token(given_token("vault_token", &token)?)),
            None => None,
        };
        let default_key_id = self.default_key_id.filter(|id| !id.is_empty());
        let default_key_id = default_key_id
            .map(|id| KeyId::parse("default_key_id", &id))
            .transpose()?;
        Ok(ConfigChanges {
            backend_type: Some(self.kms_type.parse("kms_type")?),
            address: address.map_or(Change::Keep, Change::Set),
            auth,
            namespace: set(self.vault_namespace, "vault_namespace")?,
            mount_path: set(self.vault_mount_path, "vault_mount_path")?,
            default_key_id: default_key_id.map_or(Change::Keep, Change::Set),
            ..ConfigChanges::default()
        })
    }
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ServiceAnswer<'a> {
    success: bool,
    message: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_id: Option<&'a str>,
}

impl ServiceAnswer<'_> {
    fn new(message: &'static str, status: &'static str) -> Self {
        Self {
            success: true,
            message,
            status,
            config_id: None,
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct FirstAnswer {
    status: &'static str,
    message: &'static str,
}

const CONFIGURED: &str = "KMS configured successfully";

async fn configure(on: Arc<OnService>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    /// The field that distinguishes the generations.
    #[derive(Deserialize)]
    struct Generation {
        kms_type: Option<IgnoredAny>,
    }
    let body = &call.request.body;
    let first =
        serde_json::from_slice(body).is_ok_and(|Generation { kms_type }| kms_type.is_some());
    if first {
        let changes = wire::json::<FirstBody>(body)?.changes()?;
        // The first generation has no route that starts the service.
        on.control.configure(&call.caller, &changes, true).await?;
        return wire::ok(&FirstAnswer {
            status: "success",
            message: CONFIGURED,
        });
    }
    let changes = wire::json::<ConfigBody>(body)?.changes()?;
    if changes.backend_type.is_none() {
        return Err(invalid_field("backend_type", "is required"));
    }
    let config = on.control.configure(&call.caller, &changes, false).await?;
    wire::ok(&ServiceAnswer {
        config_id: Some(&config.config_id),
        ..ServiceAnswer::new(CONFIGURED, state(config.state))
    })
}

async fn reconfigure(on: Arc<OnService>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let changes = wire::json::<ConfigBody>(&call.request.body)?.changes()?;
    let config = on.control.reconfigure(&call.caller, &changes).await?;
    wire::ok(&ServiceAnswer {
        config_id: Some(&config.config_id),
        ..ServiceAnswer::new(
            "KMS reconfigured and restarted successfully",
            state(config.state),
        )
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    force: Option<bool>,
}

async fn start(on: Arc<OnService>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let body: StartBody = wire::json_or_empty(&call.request.body)?;
    let force = body.force.unwrap_or(false);
    let message = match on.control.start(&call.caller, force).await? {
        Started::Started => "KMS service started successfully",
        Started::Restarted => "KMS service restarted successfully",
    };
    wire::ok(&ServiceAnswer::new(message, state(ServiceState::Running)))
}

async fn stop(on: Arc<OnService>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let status = if on.control.stop(&call.caller).await? {
        state(ServiceState::Configured)
    } else {
        NOT_CONFIGURED
    };
    wire::ok(&ServiceAnswer::new(
        "KMS service stopped successfully",
        status,
    ))
}

async fn clear_cache(on: Arc<OnService>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    on.control.clear_cache(&call.caller).await?;
    if on.spelling.is_v1_for(&call.caller) {
        // RustFS 1.0's console reads an empty answer as a partial failure.
        return wire::ok(&ClearedAnswer {
            success: true,
            status: "success",
            message: "cache cleared successfully",
        });
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ClearedAnswer {
    success: bool,
    status: &'static str,
    message: &'static str,
}

const NOT_CONFIGURED: &str = "NotConfigured";

fn state(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Configured => "Configured",
        ServiceState::Running => "Running",
    }
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ConfigAnswer<'a> {
    backend: &'static str,
    cache_enabled: bool,
    cache_max_keys: u32,
    cache_ttl_seconds: u32,
    default_key_id: Option<&'a str>,
}

async fn config(on: Arc<OnService>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let config = on.control.config(&call.caller).await?;
    wire::ok(&ConfigAnswer {
        backend: backend(config.backend_type, false),
        cache_enabled: config.cache.enabled,
        cache_max_keys: config.cache.max_keys,
        cache_ttl_seconds: config.cache.ttl_seconds,
        default_key_id: config.default_key_id.as_ref().map(KeyId::as_str),
    })
}

/// What the documents show, what RustFS 1.0 has besides, and the first generation's words.
#[derive(Serialize, Default)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct StatusAnswer<'a> {
    status: StateOut,
    backend_type: Option<&'static str>,
    backend_status: Option<&'static str>,
    healthy: Option<bool>,
    /// Why it is not healthy: words, and the same in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    cache_enabled: Option<bool>,
    cache_stats: Option<CacheOut>,
    default_key_id: Option<&'a str>,
    capabilities: Option<Capabilities>,
    state_ttl_seconds: u64,
    config_summary: Option<Summary<'a>>,
    #[serde(flatten)]
    first: FirstStatus<'a>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum StateOut {
    Word(&'static str),
    /// As RustFS 1.0 spells it.
    Error {
        #[serde(rename = "Error")]
        error: String,
    },
}

impl Default for StateOut {
    fn default() -> Self {
        Self::Word(NOT_CONFIGURED)
    }
}

/// What the first generation says of the service.
#[derive(Serialize, Default)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct FirstStatus<'a> {
    kms_type: Option<&'static str>,
    endpoint: Option<&'a str>,
    key_count: Option<u64>,
    default_key_id: Option<&'a str>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct FirstStatusAnswer<'a> {
    status: &'static str,
    /// This and the next two are what MinIO's clients read at the same path.
    name: &'static str,
    #[serde(rename = "default-key-id")]
    minio_default_key_id: &'a str,
    endpoints: BTreeMap<String, &'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    first: FirstStatus<'a>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct CacheOut {
    hit_count: u64,
    miss_count: u64,
    entry_count: u64,
    eviction_count: u64,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct Capabilities {
    encrypt: bool,
    decrypt: bool,
    generate_data_key: bool,
    rotate: bool,
    enable_disable: bool,
    schedule_deletion: bool,
    versioning: bool,
    physical_delete: bool,
    update_key_metadata: bool,
    rewrap: bool,
}

/// Every backend has every capability.
const ALL: Capabilities = Capabilities {
    encrypt: true,
    decrypt: true,
    generate_data_key: true,
    rotate: true,
    enable_disable: true,
    schedule_deletion: true,
    versioning: true,
    physical_delete: true,
    update_key_metadata: true,
    rewrap: true,
};

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct Summary<'a> {
    backend_type: &'static str,
    default_key_id: Option<&'a str>,
    timeout_seconds: u32,
    retry_attempts: u32,
    enable_cache: bool,
    max_cached_keys: u32,
    cache_ttl_seconds: u32,
    cache_summary: Option<CacheSummary>,
    backend_summary: BackendSummary<'a>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct CacheSummary {
    max_keys: u32,
    ttl_seconds: u32,
    enable_metrics: bool,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "backend_type", rename_all = "lowercase")]
enum BackendSummary<'a> {
    Local {
        key_directory: Option<&'a str>,
        key_dir: Option<&'a str>,
        has_master_key: bool,
        file_permissions: u32,
    },
    Vault {
        address: &'a str,
        auth_method_type: &'static str,
        has_stored_credentials: bool,
        namespace: Option<&'a str>,
        mount_path: &'a str,
        kv_mount: &'a str,
        key_path_prefix: &'a str,
        skip_tls_verify: bool,
    },
}

/// A placeholder path for a root keyring that is in a secret store, not in a folder. It has no effect.
const NO_FOLDER: &str = "/secret-store";

impl<'a> Summary<'a> {
    fn of(configured: &'a Configured, is_v1: bool) -> Self {
        let config = &configured.config;
        let cache = config.cache;
        let mut key_directory = config.key_directory.as_deref();
        if is_v1 {
            // RustFS 1.0's console saves nothing without an absolute path here.
            let folder = configured.keyring_folder.as_deref();
            key_directory = key_directory.or(folder).or(Some(NO_FOLDER));
        }
        let local = BackendSummary::Local {
            key_directory,
            key_dir: key_directory,
            // The root keyring always exists.
            has_master_key: true,
            file_permissions: 0o600,
        };
        let vault = config.vault.as_ref().map(|vault| {
            let settings = &vault.settings;
            BackendSummary::Vault {
                address: settings.address.as_str(),
                auth_method_type: match settings.auth {
                    VaultAuth::Token => "token",
                    VaultAuth::AppRole { .. } => "approle",
                    VaultAuth::TokenFile { .. } => "token_file",
                },
                has_stored_credentials: vault.has_credential(),
                namespace: settings.namespace.as_ref().map(VaultPath::as_str),
                mount_path: settings.mount_path.as_str(),
                kv_mount: settings.kv_mount.as_str(),
                key_path_prefix: settings.key_path_prefix.as_str(),
                skip_tls_verify: false,
            }
        });
        Self {
            backend_type: backend(config.backend_type, is_v1),
            default_key_id: config.default_key_id.as_ref().map(KeyId::as_str),
            timeout_seconds: config.timeout_seconds,
            retry_attempts: config.retry_attempts,
            enable_cache: cache.enabled,
            max_cached_keys: cache.max_keys,
            cache_ttl_seconds: cache.ttl_seconds,
            cache_summary: cache.enabled.then_some(CacheSummary {
                max_keys: cache.max_keys,
                ttl_seconds: cache.ttl_seconds,
                enable_metrics: true,
            }),
            backend_summary: match (config.backend_type, vault) {
                (BackendType::Vault, Some(vault)) => vault,
                _ => local,
            },
        }
    }
}

impl<'a> FirstStatus<'a> {
    fn of(configured: &'a Configured) -> Self {
        let config = &configured.config;
        let vault = config
            .vault
            .as_ref()
            .filter(|_| config.backend_type == BackendType::Vault);
        Self {
            kms_type: Some(backend(config.backend_type, false)),
            endpoint: vault.map(|vault| vault.settings.address.as_str()),
            key_count: Some(configured.key_count),
            default_key_id: config.default_key_id.as_ref().map(KeyId::as_str),
        }
    }
}

/// Below MinIO's prefix, answers with the first generation's object.
async fn status(on: Arc<OnService>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let [_, minio] = PREFIXES;
    if call.prefix != minio {
        return service_status(on, call).await;
    }
    let status = on.control.status(&call.caller, &call.request_id).await?;
    let configured = status.configured.as_ref();
    wire::ok(&FirstStatusAnswer {
        status: match configured {
            None => "not_configured",
            Some(configured) => match (configured.config.state, configured.is_healthy()) {
                (ServiceState::Configured, _) => "stopped",
                (ServiceState::Running, true) => "connected",
                (ServiceState::Running, false) => "disconnected",
            },
        },
        name: "Keyway",
        minio_default_key_id: configured
            .and_then(|configured| configured.config.default_key_id.as_ref())
            .map_or("", KeyId::as_str),
        endpoints: endpoints(&call.request, configured),
        error: configured.and_then(|configured| Degraded::texts(&configured.degraded)),
        first: configured.map(FirstStatus::of).unwrap_or_default(),
    })
}

/// The request's own address, which is online while keys can be used there.
fn endpoints(request: &Request, configured: Option<&Configured>) -> BTreeMap<String, &'static str> {
    let serves = configured.is_some_and(|configured| {
        configured.config.state == ServiceState::Running && configured.is_healthy()
    });
    let state = if serves { "online" } else { "offline" };
    request
        .origin()
        .map(|origin| (origin, state))
        .into_iter()
        .collect()
}

async fn service_status(on: Arc<OnService>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let status = on.control.status(&call.caller, &call.request_id).await?;
    let is_v1 = on.spelling.is_v1_for(&call.caller);
    let state_ttl_seconds = status.state_ttl.as_secs();
    let Some(configured) = &status.configured else {
        return wire::ok(&StatusAnswer {
            state_ttl_seconds,
            ..StatusAnswer::default()
        });
    };
    let Configured {
        config,
        degraded,
        cache,
        ..
    } = configured;
    let healthy = configured.is_healthy();
    wire::ok(&StatusAnswer {
        status: match (config.state, healthy) {
            (ServiceState::Running, false) if is_v1 => StateOut::Error {
                error: Degraded::texts(degraded).unwrap_or_default(),
            },
            (ServiceState::Running, false) => StateOut::Word("Error"),
            (other, _) => StateOut::Word(state(other)),
        },
        backend_type: Some(backend(config.backend_type, is_v1)),
        backend_status: Some(if configured.has_backend() {
            "healthy"
        } else {
            "unhealthy"
        }),
        healthy: Some(healthy),
        degraded: degraded.iter().map(|reason| reason.as_str()).collect(),
        error: Degraded::texts(degraded),
        cache_enabled: Some(config.cache.enabled),
        cache_stats: config.cache.enabled.then_some(CacheOut {
            hit_count: cache.hits,
            miss_count: cache.misses,
            entry_count: cache.entries,
            eviction_count: cache.evictions,
        }),
        default_key_id: config.default_key_id.as_ref().map(KeyId::as_str),
        capabilities: Some(ALL),
        state_ttl_seconds,
        config_summary: Some(Summary::of(configured, is_v1)),
        first: FirstStatus::of(configured),
    })
}
