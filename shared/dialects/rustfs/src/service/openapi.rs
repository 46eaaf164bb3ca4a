//! The OpenAPI description of the service itself.

use http::Method;
use keyway_openapi::{Answer, Operation, RequestBody, Schema};
use serde_json::{Value, json};

use super::{
    ClearedAnswer, ConfigAnswer, ConfigBody, FirstAnswer, FirstBody, FirstStatusAnswer,
    ServiceAnswer, StartBody, StatusAnswer,
};
use crate::PREFIXES;
use crate::openapi::{Refusals as _, SERVICE, ok};

pub(crate) fn operations() -> Vec<Operation> {
    let mut operations = change_operations();
    operations.extend(status_operations());
    operations.extend([
        operation(
            Method::GET,
            "/kms/config",
            "config",
            "Show the configuration",
        )
        .answer(
            200,
            ok(
                "The configuration, without its secrets.",
                Schema::encoded::<ConfigAnswer<'_>>("Config")
                    .fact("backend", json!({"enum": ["local", "vault"]})),
            ),
        )
        .refuses(&[]),
        operation(
            Method::POST,
            "/kms/clear-cache",
            "clearCache",
            "Drop what is cached of keys",
        )
        .text("In every process within the state's time to live.")
        .answer(
            200,
            ok(
                "It is dropped, as a session is told.",
                Schema::encoded::<ClearedAnswer>("Cleared"),
            ),
        )
        .answer(204, Answer::empty("It is dropped."))
        .refuses(&[409]),
    ]);
    operations
}

fn operation(
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Operation {
    Operation::new(method, path, id, summary).tag(SERVICE)
}

/// The operations that configure, start and stop the service.
fn change_operations() -> Vec<Operation> {
    let configured = |name, status| {
        Schema::encoded::<ServiceAnswer<'_>>(name)
            .required(&["config_id"])
            .fact("status", json!({"const": status}))
    };
    let changed = |name, statuses: &[&str]| {
        Schema::encoded::<ServiceAnswer<'_>>(name)
            .without(&["config_id"])
            .fact("status", json!({"enum": statuses}))
    };
    vec![
        operation(Method::POST, "/kms/configure", "configure", "Configure the service")
            .text("The backend is tried first. The service is left stopped; the first generation's body (`kms_type`) also starts it.")
            .body(
                RequestBody::json(Schema::any_of("Configuration", [
                    settings("Settings").required(&["backend_type"]),
                    first_body(),
                ]))
                .example("local", json!({"backend_type": "local", "cache_ttl_seconds": 600})),
            )
            .answer(200, ok("What was configured.", Schema::any_of("ConfigureAnswer", [
                configured("Configured", "Configured"),
                Schema::encoded::<FirstAnswer>("FirstConfigured").fact("status", json!({"const": "success"})),
            ])))
            .refuses(&[409]),
        operation(Method::POST, "/kms/reconfigure", "reconfigure", "Change the configuration")
            .text("What is not spoken of stays as it is, and `null` puts it back to what it is when nothing is said. A backend that \
                   is changed is tried first.")
            .body(RequestBody::json(settings("SettingsChange")).example("cache", json!({"max_cached_keys": 512})))
            .answer(200, ok("What was changed; the service runs.", configured("Reconfigured", "Running")))
            .refuses(&[409]),
        operation(Method::POST, "/kms/start", "start", "Start the service")
            .body(
                RequestBody::json_or_none(Schema::decoded::<StartBody>("StartRequest")
                    .fact("force", json!({"description": "Restarts a service that runs."})))
                    .example("restart", json!({"force": true})),
            )
            .answer(200, ok("It runs.", changed("Started", &["Running"])))
            .refuses(&[409]),
        operation(Method::POST, "/kms/stop", "stop", "Stop the service")
            .text("Keys and data keys are then refused with 503, by every process within the state's time to live.")
            .answer(200, ok("It does not run.", changed("Stopped", &["Configured", "NotConfigured"])))
            .refuses(&[409]),
    ]
}

/// The operations for the status in each spelling, below the prefixes of both generations.
fn status_operations() -> Vec<Operation> {
    let [_, minio] = PREFIXES;
    let status = |method: Method, path, id, summary| {
        operation(method, path, id, summary)
            .text("The first four names in camelCase are those of the first generation.")
            .answer(
                200,
                ok(
                    "The status; before the service is configured, most of it is `null`.",
                    status_answer(),
                ),
            )
            .refuses(&[])
    };
    let first_status = |method: Method, path, id, summary| {
        operation(method, path, id, summary)
            .below(minio)
            .answer(200, ok("The status, as the first generation tells it.", Schema::encoded::<FirstStatusAnswer<'_>>("FirstStatus")
                .fact("status", json!({"enum": ["not_configured", "stopped", "connected", "disconnected"]}))
                .fact("kmsType", json!({"enum": ["local", "vault"]}))))
            .refuses(&[])
    };
    vec![
        status(
            Method::GET,
            "/kms/status",
            "status",
            "Tell where the service stands",
        ),
        status(
            Method::POST,
            "/kms/status",
            "postStatus",
            "Tell where the service stands, as old clients ask",
        )
        .deprecated(),
        first_status(
            Method::GET,
            "/kms/status",
            "status",
            "Tell where the service stands",
        ),
        first_status(
            Method::POST,
            "/kms/status",
            "postStatus",
            "Tell where the service stands, as old clients ask",
        )
        .deprecated(),
        status(
            Method::GET,
            "/kms/service-status",
            "serviceStatus",
            "Tell where the service stands",
        ),
    ]
}

fn status_answer() -> Schema {
    Schema::encoded::<StatusAnswer<'_>>("Status")
        .fact("status", json!({"description": "NotConfigured, Configured, Running or Error; to a session, for Error, an object with the text."}))
        .fact("backend_type", json!({"description": "To a session the second spelling.", "enum": ["local", "vault", "Local", "VaultTransit"]}))
        .fact("backend_status", json!({"enum": ["healthy", "unhealthy"]}))
        .fact("kmsType", json!({"enum": ["local", "vault"]}))
        .fact("state_ttl_seconds", json!({"description": "For how long a process may act on a state that another has changed."}))
}

/// The schema of a path in Vault, with or without slashes at its ends.
fn path(text: &str) -> Value {
    json!({"description": text, "pattern": "^/*[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*/*$"})
}

fn path_or_empty(text: &str) -> Value {
    json!({"description": text, "pattern": "^(/*[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*/*)?$"})
}

fn key_or_empty() -> Value {
    json!({
        "description": "The key of data-key requests that name none; empty for no such key.",
        "pattern": "^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$",
    })
}

fn address() -> Value {
    json!({
        "description": "Where Vault listens: `https://`, or `http://` on loopback.",
        "format": "uri",
        "pattern": "^[Hh][Tt][Tt][Pp][Ss]?:",
        "maxLength": 2048,
    })
}

fn secret(text: &str) -> Value {
    json!({"description": text, "writeOnly": true, "maxLength": 512})
}

fn settings(name: &'static str) -> Schema {
    Schema::decoded::<ConfigBody>(name)
        .fact("backend_type", json!({"description": "What wraps master keys: the deployment's root keyring, or Vault's transit engine.", "enum": ["local", "Local", "vault", "Vault", "vault-transit", "vault_transit", "VaultTransit"]}))
        .fact("key_directory", json!({
            "description": "The folder of the root keyring's file, on one machine: absolute, without `.` and `..`.",
            "pattern": "^/",
            "maxLength": 4096,
        }))
        .fact("default_key_id", key_or_empty())
        .fact("cache_ttl_seconds", json!({"minimum": 1, "maximum": 86_400, "default": 600}))
        .fact("max_cached_keys", json!({"minimum": 1, "maximum": 100_000, "default": 1024}))
        .fact("timeout_seconds", json!({"minimum": 1, "maximum": 300, "default": 30}))
        .fact("retry_attempts", json!({"minimum": 0, "maximum": 10, "default": 3}))
        .fact("address", address())
        .fact("auth_method", json!({
            "description": "One of these; a token or secret id that is blank or left out stays what it was.",
            "minProperties": 1,
            "maxProperties": 1,
        }))
        .fact("auth_method.token", secret("A token."))
        .fact("auth_method.Token.token", secret("A token."))
        .fact("auth_method.AppRole.secret_id", secret("The role's secret."))
        .fact("auth_method.TokenFile.path", json!({"description": "A file that holds a token, below a folder that the operator allows.", "pattern": "^/", "maxLength": 4096}))
        .fact("namespace", path_or_empty("Vault's namespace."))
        .fact("mount_path", path("Where the transit engine is; `transit` when nothing is said."))
        .fact("kv_mount", path("Where the KV v2 engine is; `secret` when nothing is said."))
        .fact("key_path_prefix", path("Below what the sealed copies of keys are."))
        .fact("tls", json!({"description": "Refused: Vault's certificate is verified by the machine's authorities.", "enum": [null]}))
        .fact("auth_method.Kubernetes", json!({"description": "Refused: have Vault's agent log in, and use `TokenFile`.", "enum": [null]}))
        .fact("auth_method.AppRole.secret_id_file", json!({"description": "Refused: give `secret_id`.", "enum": [null]}))
        .fact("auth_method.AppRole.refresh_safety_window_secs", json!({"description": "Refused: tokens are renewed when two thirds of their life are over.", "enum": [null]}))
        .fact("auth_method.TokenFile.poll_interval_secs", json!({"description": "The file is read again after a minute at the latest.", "minimum": 60}))
        .fact("file_permissions", json!({"description": "0600: files are their owner's alone.", "enum": [384]}))
        .fact("skip_tls_verify", json!({"description": "Certificates are always verified.", "enum": [false]}))
        .fact("allow_insecure_dev_defaults", json!({"description": "Without effect."}))
        .fact("master_key", json!({"description": "Without effect: the root keyring is random.", "writeOnly": true}))
}

fn first_body() -> Schema {
    Schema::decoded::<FirstBody>("FirstSettings")
        .fact("kms_type", json!({"enum": ["local", "Local", "vault", "Vault", "vault-transit", "vault_transit", "VaultTransit"]}))
        .fact("vault_address", address())
        .fact("vault_token", secret("A token."))
        .fact("vault_namespace", path_or_empty("Vault's namespace."))
        .fact(
            "vault_mount_path",
            path_or_empty("Where the transit engine is."),
        )
        .fact("default_key_id", key_or_empty())
}
