//! Every example of RustFS's three documents against the running binary. The request is the document's; the answer has
//! every field of the document's with the same name, type and value. Our answers may have more fields.
//!
//! `varies` names the fields whose values are examples only: ids, dates, keys, ciphertexts, our own address. Where the
//! guide shows types, `$string` and the like stand for them. Where the documents contradict each other, `note` says
//! which answer we give and why.

use std::process::Stdio;

use http::{Method, Request};
use keyway_tests::{Answer, Bao, Server, ServerOptions, Signer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{access_key, create, data_dir, eventually, folder, is_set, on, signer, wall_clock};

/// A document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Document {
    /// The KMS admin HTTP API reference.
    AdminApi,
    /// The KMS API documentation of the first generation.
    FirstGeneration,
    /// The frontend integration guide.
    Guide,
}
use Document::{AdminApi, FirstGeneration, Guide};

/// How a request is sent.
#[derive(Debug, Clone, Copy)]
enum By {
    /// The root access key signs it.
    Root,
    /// A caller without the permission signs it.
    Auditor,
    /// It is unsigned.
    Nobody,
    /// A shell runs the document's own command, which has method, path and request.
    Curl(&'static str),
}
use By::{Auditor, Curl, Nobody, Root};

/// The rule for a value that differs from the document's.
#[derive(Debug, Clone, Copy)]
enum How {
    Id,
    Date,
    Base64,
    /// It begins with the document's.
    Begins,
    /// The address of the Vault of this test, or of this server.
    Address,
}

#[derive(Debug, Clone, Copy)]
struct Example {
    document: Document,
    /// The section, and the number of the example in it.
    section: &'static str,
    by: By,
    method: &'static str,
    /// With the prefix, where the document has it.
    path: &'static str,
    /// The body, as it stands in the document.
    request: &'static str,
    status: u16,
    /// The body, as it stands in the document; empty for an empty one.
    response: &'static str,
    varies: &'static [(&'static str, How)],
    note: &'static str,
}

const EXAMPLE: Example = Example {
    document: AdminApi,
    section: "",
    by: Root,
    method: "GET",
    path: "",
    request: "",
    status: 200,
    response: "",
    varies: &[],
    note: "",
};

const UUID: &str = "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85";

/// For a running service without keys.
const ADMIN_API_CREATE: &[Example] = &[Example {
    section: "Create Key",
    method: "POST",
    path: "/kms/keys",
    request: r#"{
  "KeyUsage": "ENCRYPT_DECRYPT",
  "Description": "project-alpha",
  "Tags": {
    "owner": "security",
    "env": "prod"
  }
}"#,
    response: r#"{
  "key_id": "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85",
  "key_metadata": {
    "key_id": "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85",
    "description": "project-alpha",
    "enabled": true,
    "key_usage": "ENCRYPT_DECRYPT",
    "creation_date": "2024-09-18T07:10:42.012345Z",
    "rotation_enabled": false
  }
}"#,
    varies: &[
        ("/key_id", How::Id),
        ("/key_metadata/key_id", How::Id),
        ("/key_metadata/creation_date", How::Date),
    ],
    ..EXAMPLE
}];

/// For a running service with the document's one key.
const ADMIN_API_KEY: &[Example] = &[
    Example {
        section: "List Keys",
        path: "/kms/keys?limit=50&marker=",
        response: r#"{
  "keys": [
    { "key_id": "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85", "description": "project-alpha" }
  ],
  "truncated": false,
  "next_marker": null
}"#,
        note: "`<token>` is the first page's: a marker that was never given out is refused",
        ..EXAMPLE
    },
    Example {
        section: "Describe Key",
        path: "/kms/keys/fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85",
        response: r#"{
  "key_metadata": {
    "key_id": "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85",
    "description": "project-alpha",
    "enabled": true,
    "key_usage": "ENCRYPT_DECRYPT",
    "creation_date": "2024-09-18T07:10:42.012345Z",
    "deletion_date": null
  }
}"#,
        varies: &[("/key_metadata/creation_date", How::Date)],
        ..EXAMPLE
    },
    Example {
        section: "Data Key Operations",
        method: "POST",
        path: "/kms/generate-data-key",
        request: r#"{
  "key_id": "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85",
  "key_spec": "AES_256",
  "encryption_context": {
    "bucket": "analytics-data",
    "object": "2024/09/18/report.parquet"
  }
}"#,
        response: r#"{
  "key_id": "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85",
  "plaintext_key": "sQW6qt0yS7CqD6c8hY7GZg==",
  "ciphertext_blob": "gAAAAABlLK..."
}"#,
        varies: &[
            ("/plaintext_key", How::Base64),
            ("/ciphertext_blob", How::Base64),
        ],
        note: "the document's key is 16 bytes long; one for AES_256 has 32",
        ..EXAMPLE
    },
    Example {
        section: "Delete & Cancel Deletion: delete",
        method: "DELETE",
        path: "/kms/keys/delete",
        request: r#"{
  "key_id": "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85",
  "pending_window_in_days": 7
}"#,
        response: r#"{"key_metadata":{"key_id":"fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85","enabled":false,"deletion_date":""}}"#,
        varies: &[("/key_metadata/deletion_date", How::Date)],
        note: "the document says in words that the updated key_metadata is answered",
        ..EXAMPLE
    },
    Example {
        section: "Delete & Cancel Deletion: cancel",
        method: "POST",
        path: "/kms/keys/cancel-deletion",
        request: r#"{
  "key_id": "fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85"
}"#,
        response: r#"{"key_metadata":{"key_id":"fa5bac0e-2a2c-4f9a-a09d-2f5b8a59ed85","enabled":true,"deletion_date":null}}"#,
        note: "the document says in words that the updated key_metadata is answered",
        ..EXAMPLE
    },
];

/// For a running service.
const ADMIN_API_SERVICE: &[Example] = &[
    Example {
        section: "Error Handling: 400",
        method: "POST",
        path: "/kms/keys",
        request: "{",
        status: 400,
        response: r#"{ "code": "InvalidRequest", "message": "invalid JSON" }"#,
        varies: &[("/message", How::Begins)],
        ..EXAMPLE
    },
    Example {
        section: "Error Handling: 401",
        by: Nobody,
        path: "/kms/keys",
        status: 401,
        response: r#"{ "code": "AccessDenied", "message": "authentication required" }"#,
        varies: &[("/message", How::Begins)],
        ..EXAMPLE
    },
    Example {
        section: "Error Handling: 403",
        by: Auditor,
        method: "POST",
        path: "/kms/keys",
        status: 403,
        response: r#"{ "code": "AccessDenied", "message": "unauthorised" }"#,
        varies: &[("/message", How::Begins)],
        ..EXAMPLE
    },
    Example {
        section: "Error Handling: 409",
        method: "POST",
        path: "/kms/configure",
        request: r#"{"backend_type":"local"}"#,
        status: 409,
        response: r#"{ "code": "Conflict", "message": "KMS already running" }"#,
        ..EXAMPLE
    },
    Example {
        section: "Start / Stop: stop",
        method: "POST",
        path: "/kms/stop",
        response: r#"{
  "success": true,
  "message": "KMS service stopped successfully",
  "status": "Configured"
}"#,
        ..EXAMPLE
    },
    Example {
        section: "Start / Stop: start",
        method: "POST",
        path: "/kms/start",
        response: r#"{
  "success": true,
  "message": "KMS service started successfully",
  "status": "Running"
}"#,
        ..EXAMPLE
    },
    Example {
        section: "Service Lifecycle: clear-cache",
        method: "POST",
        path: "/kms/clear-cache",
        status: 204,
        ..EXAMPLE
    },
];

/// For a service with a damaged table.
const ADMIN_API_DAMAGED: &[Example] = &[Example {
    section: "Error Handling: 500",
    path: "/kms/keys/damaged",
    status: 500,
    response: r#"{ "code": "$string", "message": "$string" }"#,
    note: "the document has InternalError for what the guide calls BackendError, and what fails cannot be the creation of \
           a key here; BackendError is answered, with its reason in the log alone",
    ..EXAMPLE
}];

/// For a service with a Vault, in this order.
const ADMIN_API_VAULT: &[Example] = &[
    Example {
        section: "Configure / Reconfigure",
        method: "POST",
        path: "/kms/configure",
        request: r#"{
  "backend_type": "vault",
  "address": "https://vault.example.com:8200",
  "auth_method": { "token": "s.XYZ" },
  "mount_path": "transit",
  "kv_mount": "secret",
  "key_path_prefix": "rustfs/kms/keys",
  "default_key_id": "rustfs-master",
  "enable_cache": true,
  "cache_ttl_seconds": 600,
  "timeout_seconds": 30,
  "retry_attempts": 3
}"#,
        response: r#"{
  "success": true,
  "message": "KMS configured successfully",
  "status": "Configured"
}"#,
        ..EXAMPLE
    },
    Example {
        section: "Start / Stop: start",
        method: "POST",
        path: "/kms/start",
        response: r#"{
  "success": true,
  "message": "KMS service started successfully",
  "status": "Running"
}"#,
        ..EXAMPLE
    },
    Example {
        section: "Status & Config: status",
        path: "/kms/status",
        response: r#"{
  "status": "Running",
  "backend_type": "vault",
  "healthy": true,
  "config_summary": {
    "backend_type": "vault",
    "default_key_id": "rustfs-master",
    "timeout_seconds": 30,
    "retry_attempts": 3,
    "enable_cache": true,
    "cache_summary": {
      "max_keys": 1024,
      "ttl_seconds": 600,
      "enable_metrics": true
    },
    "backend_summary": {
      "backend_type": "vault",
      "address": "https://vault.example.com:8200",
      "auth_method_type": "token",
      "namespace": null,
      "mount_path": "transit",
      "kv_mount": "secret",
      "key_path_prefix": "rustfs/kms/keys"
    }
  }
}"#,
        varies: &[("/config_summary/backend_summary/address", How::Address)],
        note: "the first generation shows another object for this path; it is answered below /minio/admin/v3",
        ..EXAMPLE
    },
    Example {
        section: "Status & Config: config",
        path: "/kms/config",
        response: r#"{
  "backend": "vault",
  "cache_enabled": true,
  "cache_max_keys": 1024,
  "cache_ttl_seconds": 600,
  "default_key_id": "rustfs-master"
}"#,
        ..EXAMPLE
    },
];

const FIRST: Example = Example {
    document: FirstGeneration,
    ..EXAMPLE
};

/// For a running service without keys.
const FIRST_KEYS: &[Example] = &[
    Example {
        section: "Create KMS Key",
        method: "POST",
        path: "/rustfs/admin/v3/kms/key/create?keyName=my-encryption-key",
        response: r#"{
  "keyId": "my-encryption-key",
  "status": "created",
  "createdAt": "2024-01-15T10:30:00Z"
}"#,
        varies: &[("/createdAt", How::Date)],
        ..FIRST
    },
    Example {
        section: "List KMS Keys",
        path: "/rustfs/admin/v3/kms/key/list",
        response: r#"{
  "keys": [
    {
      "keyId": "my-encryption-key",
      "status": "enabled",
      "createdAt": "2024-01-15T10:30:00Z"
    }
  ]
}"#,
        varies: &[("/keys/0/createdAt", How::Date)],
        ..FIRST
    },
    Example {
        section: "Get KMS Key Status",
        path: "/rustfs/admin/v3/kms/key/status?keyName=my-encryption-key",
        response: r#"{
  "keyId": "my-encryption-key",
  "status": "enabled",
  "createdAt": "2024-01-15T10:30:00Z",
  "algorithm": "AES256"
}"#,
        varies: &[("/createdAt", How::Date)],
        ..FIRST
    },
    Example {
        section: "Disable KMS Key",
        method: "POST",
        path: "/rustfs/admin/v3/kms/key/disable?keyName=my-encryption-key",
        response: r#"{
  "keyId": "my-encryption-key",
  "status": "disabled",
  "message": "Key disabled successfully"
}"#,
        ..FIRST
    },
    Example {
        section: "Enable KMS Key",
        method: "POST",
        path: "/rustfs/admin/v3/kms/key/enable?keyName=my-encryption-key",
        response: r#"{
  "keyId": "my-encryption-key",
  "status": "enabled",
  "message": "Key enabled successfully"
}"#,
        ..FIRST
    },
    Example {
        section: "Error Handling: response",
        path: "/minio/admin/v3/kms/key/status?keyName=absent",
        status: 404,
        response: r#"{
  "error": {
    "code": "KMSKeyNotFound",
    "message": "The specified KMS key does not exist",
    "resource": "/minio/admin/v3/kms/key/status"
  }
}"#,
        ..FIRST
    },
    Example {
        section: "Error Handling: KMSKeyAlreadyExists",
        method: "POST",
        path: "/rustfs/admin/v3/kms/key/create?keyName=my-encryption-key",
        status: 409,
        response: r#"{"error":{"code":"KMSKeyAlreadyExists"}}"#,
        ..FIRST
    },
    Example {
        section: "Error Handling: KMSInvalidRequest",
        path: "/rustfs/admin/v3/kms/key/status",
        status: 400,
        response: r#"{"error":{"code":"KMSInvalidRequest"}}"#,
        ..FIRST
    },
];

/// As [`FIRST_KEYS`], after it: the document's status of a service without a Vault.
const FIRST_STATUS: &[Example] = &[
    Example {
        section: "Get KMS Status: local",
        path: "/minio/admin/v3/kms/status",
        response: r#"{"status":"connected","kmsType":"local","endpoint":null,"keyCount":1,"defaultKeyId":null}"#,
        note: "the document shows this below /rustfs/admin/v3, where the two others show the object of Running",
        ..FIRST
    },
    Example {
        section: "Get KMS Status: local",
        path: "/rustfs/admin/v3/kms/status",
        response: r#"{"status":"Running","kmsType":"local","endpoint":null,"keyCount":1,"defaultKeyId":null}"#,
        note: "but for `status`, this object has the document's fields too",
        ..FIRST
    },
];

/// For a service that was never configured.
const FIRST_IDLE: &[Example] = &[Example {
    section: "Error Handling: KMSNotConfigured",
    path: "/rustfs/admin/v3/kms/key/list",
    status: 503,
    response: r#"{"error":{"code":"KMSNotConfigured"}}"#,
    ..FIRST
}];

/// For a service with a damaged table.
const FIRST_DAMAGED: &[Example] = &[Example {
    section: "Error Handling: KMSConnectionError",
    path: "/rustfs/admin/v3/kms/key/status?keyName=damaged",
    status: 500,
    response: r#"{"error":{"code":"KMSConnectionError"}}"#,
    ..FIRST
}];

const CURL_CONFIGURE: &str = r#"curl -X POST http://localhost:9000/minio/admin/v3/kms/configure \
  -H "Content-Type: application/json" \
  -H "Authorization: AWS4-HMAC-SHA256 ..." \
  -d '{
    "kms_type": "vault",
    "vault_address": "https://vault.example.com:8200",
    "vault_token": "your-vault-token"
  }'"#;

/// For a running service without keys, in this order.
const FIRST_CURL: &[Example] = &[
    Example {
        section: "Using curl: create",
        by: Curl(
            r#"curl -X POST "http://localhost:9000/minio/admin/v3/kms/key/create?keyName=my-key" \
  -H "Authorization: AWS4-HMAC-SHA256 ...""#,
        ),
        response: r#"{"keyId":"my-key","status":"created","createdAt":""}"#,
        varies: &[("/createdAt", How::Date)],
        ..FIRST
    },
    Example {
        section: "Using curl: list",
        by: Curl(
            r#"curl -X GET http://localhost:9000/minio/admin/v3/kms/key/list \
  -H "Authorization: AWS4-HMAC-SHA256 ...""#,
        ),
        response: r#"{"keys":[{"keyId":"my-key","status":"enabled","createdAt":""}]}"#,
        varies: &[("/keys/0/createdAt", How::Date)],
        ..FIRST
    },
    Example {
        section: "Using curl: status",
        by: Curl(
            r#"curl -X GET "http://localhost:9000/minio/admin/v3/kms/key/status?keyName=my-key" \
  -H "Authorization: AWS4-HMAC-SHA256 ...""#,
        ),
        response: r#"{"keyId":"my-key","status":"enabled","createdAt":"","algorithm":"AES256"}"#,
        varies: &[("/createdAt", How::Date)],
        ..FIRST
    },
    Example {
        section: "Authentication",
        by: Curl(
            r#"curl -X GET http://localhost:9000/rustfs/admin/v3/kms/key/list \
  -H "Authorization: AWS4-HMAC-SHA256 Credential=...""#,
        ),
        response: r#"{"keys":[{"keyId":"my-key"}]}"#,
        note: "curl sends the three headers of the section for the service s3",
        ..FIRST
    },
];

/// For a service with a Vault of this test.
const FIRST_VAULT: &[Example] = &[
    Example {
        section: "Configure KMS",
        method: "POST",
        path: "/rustfs/admin/v3/kms/configure",
        request: r#"{
  "kms_type": "vault",
  "vault_address": "https://vault.example.com:8200",
  "vault_token": "your-vault-token",
  "vault_namespace": "admin",
  "vault_mount_path": "transit"
}"#,
        response: r#"{
  "status": "success",
  "message": "KMS configured successfully"
}"#,
        ..FIRST
    },
    Example {
        section: "Get KMS Status",
        path: "/minio/admin/v3/kms/status",
        response: r#"{
  "status": "connected",
  "kmsType": "vault",
  "endpoint": "https://vault.example.com:8200",
  "keyCount": 5,
  "defaultKeyId": "my-encryption-key"
}"#,
        varies: &[("/endpoint", How::Address)],
        note: "the document shows this below /rustfs/admin/v3, where the two others show the object of Running",
        ..FIRST
    },
    Example {
        section: "Using curl: configure",
        by: Curl(CURL_CONFIGURE),
        response: r#"{"status":"success","message":"KMS configured successfully"}"#,
        ..FIRST
    },
];

const GUIDE: Example = Example {
    document: Guide,
    ..EXAMPLE
};

/// For a server that is not configured, in this order. `DIRECTORY` is a folder of this test.
const GUIDE_SERVICE: &[Example] = &[
    Example {
        section: "Common Error Codes: ServiceNotConfigured",
        method: "POST",
        path: "/kms/start",
        status: 503,
        response: r#"{"error":{"code":"ServiceNotConfigured","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "4. Service status: NotConfigured",
        path: "/kms/service-status",
        response: r#"{"status":"NotConfigured"}"#,
        note: "what there is nothing to say of is null",
        ..GUIDE
    },
    Example {
        section: "1. Configure KMS",
        method: "POST",
        path: "/kms/configure",
        request: r#"{"backend_type":"local","key_directory":"DIRECTORY","default_key_id":"guide","enable_cache":true,
            "cache_ttl_seconds":600,"timeout_seconds":30,"retry_attempts":3}"#,
        response: r#"{
  "success": "$boolean",
  "message": "$string",
  "config_id": "$string"
}"#,
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: ServiceNotRunning",
        path: "/kms/keys",
        status: 503,
        response: r#"{"error":{"code":"ServiceNotRunning","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "2. Start KMS",
        method: "POST",
        path: "/kms/start",
        response: r#"{"success":true,"message":"$string","status":"Running"}"#,
        ..GUIDE
    },
    Example {
        section: "4. Service status",
        path: "/kms/service-status",
        response: r#"{
  "status": "Running",
  "backend_type": "local",
  "healthy": true,
  "config_summary": {
    "backend_type": "local",
    "default_key_id": "guide",
    "timeout_seconds": "$integer",
    "retry_attempts": "$integer",
    "enable_cache": "$boolean"
  }
}"#,
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: Conflict",
        method: "POST",
        path: "/kms/configure",
        request: r#"{"backend_type":"local"}"#,
        status: 409,
        response: r#"{"error":{"code":"Conflict","message":"$string","request_id":"$string"}}"#,
        note: "EncryptionFailed is the one code of the guide that nothing here answers: what cannot be encrypted has a \
               reason of its own",
        ..GUIDE
    },
    Example {
        section: "3. Stop KMS",
        method: "POST",
        path: "/kms/stop",
        response: r#"{"success":true,"message":"$string","status":"Configured"}"#,
        note: "the guide's Stopped is Configured in the reference and in RustFS",
        ..GUIDE
    },
    Example {
        section: "5. Reconfigure",
        method: "POST",
        path: "/kms/reconfigure",
        request: r#"{"backend_type":"local","key_directory":"DIRECTORY","default_key_id":"guide","enable_cache":true,
            "cache_ttl_seconds":600,"timeout_seconds":30,"retry_attempts":3}"#,
        response: r#"{"success":true,"message":"$string","config_id":"$string","status":"Running"}"#,
        ..GUIDE
    },
    Example {
        section: "Monitoring & Cache APIs: config",
        path: "/kms/config",
        response: r#"{"backend":"local","cache_enabled":true,"cache_max_keys":"$integer","cache_ttl_seconds":600,"default_key_id":"guide"}"#,
        ..GUIDE
    },
    Example {
        section: "Monitoring & Cache APIs: clear-cache",
        method: "POST",
        path: "/kms/clear-cache",
        status: 204,
        ..GUIDE
    },
    Example {
        section: "Monitoring & Cache APIs: legacy status",
        path: "/kms/status",
        response: r#"{"cache_stats":{"hit_count":"$integer","miss_count":"$integer"}}"#,
        ..GUIDE
    },
];

/// For a running service without keys, in this order. `BLOB` is the ciphertext of the last answer.
const GUIDE_KEYS: &[Example] = &[
    Example {
        section: "1. Create key",
        method: "POST",
        path: "/kms/keys",
        request: r#"{"KeyUsage":"ENCRYPT_DECRYPT","Description":"a key","Tags":{"name":"guide","team":"web"}}"#,
        response: r#"{
  "key_id": "guide",
  "key_metadata": {
    "key_id": "guide",
    "description": "a key",
    "enabled": true,
    "key_usage": "ENCRYPT_DECRYPT",
    "creation_date": "",
    "rotation_enabled": false,
    "deletion_date": null
  }
}"#,
        varies: &[("/key_metadata/creation_date", How::Date)],
        note: "with every field of the guide's KeyMetadata",
        ..GUIDE
    },
    Example {
        section: "2. Key metadata",
        path: "/kms/keys/guide",
        response: r#"{"key_metadata":{"key_id":"guide","enabled":true,"key_usage":"ENCRYPT_DECRYPT"}}"#,
        ..GUIDE
    },
    Example {
        section: "3. List keys",
        path: "/kms/keys?limit=&marker=",
        status: 400,
        response: r#"{"error":{"code":"InvalidRequest","message":"$string","request_id":"$string"}}"#,
        note: "a limit that is no number is refused; the guide names the parameters without values",
        ..GUIDE
    },
    Example {
        section: "3. List keys",
        path: "/kms/keys?limit=10&marker=",
        response: r#"{"keys":[{"key_id":"guide"}],"truncated":false,"next_marker":null}"#,
        ..GUIDE
    },
    Example {
        section: "1. Generate data key: AES_128",
        method: "POST",
        path: "/kms/generate-data-key",
        request: r#"{"key_id":"guide","key_spec":"AES_128"}"#,
        response: r#"{"plaintext_key":"","ciphertext_blob":""}"#,
        varies: &[
            ("/plaintext_key", How::Base64),
            ("/ciphertext_blob", How::Base64),
        ],
        ..GUIDE
    },
    Example {
        section: "1. Generate data key",
        method: "POST",
        path: "/kms/generate-data-key",
        request: r#"{"key_id":"guide","key_spec":"AES_256","encryption_context":{"bucket":"b"}}"#,
        response: r#"{"plaintext_key":"","ciphertext_blob":""}"#,
        varies: &[
            ("/plaintext_key", How::Base64),
            ("/ciphertext_blob", How::Base64),
        ],
        ..GUIDE
    },
    Example {
        section: "2. Decrypt data key",
        method: "POST",
        path: "/kms/decrypt",
        request: r#"{"ciphertext_blob":"BLOB","encryption_context":{"bucket":"b"}}"#,
        response: r#"{"key_id":"guide","plaintext":""}"#,
        varies: &[("/plaintext", How::Base64)],
        note: "the guide has it as not implemented yet",
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: DecryptionFailed",
        method: "POST",
        path: "/kms/decrypt",
        request: r#"{"ciphertext_blob":"BLOB","encryption_context":{"bucket":"another"}}"#,
        status: 400,
        response: r#"{"error":{"code":"DecryptionFailed","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "4. Schedule deletion",
        method: "DELETE",
        path: "/kms/keys/delete",
        request: r#"{"key_id":"guide"}"#,
        response: r#"{"key_id":"guide","deletion_date":""}"#,
        varies: &[("/deletion_date", How::Date)],
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: InvalidKeyState",
        method: "POST",
        path: "/kms/generate-data-key",
        request: r#"{"key_id":"guide"}"#,
        status: 409,
        response: r#"{"error":{"code":"InvalidKeyState","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "5. Cancel deletion",
        method: "POST",
        path: "/kms/keys/cancel-deletion",
        request: r#"{"key_id":"guide"}"#,
        response: r#"{"key_metadata":{"key_id":"guide","deletion_date":null}}"#,
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: InvalidRequest",
        method: "POST",
        path: "/kms/keys",
        request: r#"{"Colour":"red"}"#,
        status: 400,
        response: r#"{"error":{"code":"InvalidRequest","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: AccessDenied",
        by: Nobody,
        path: "/kms/keys",
        status: 401,
        response: r#"{"error":{"code":"AccessDenied","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: AccessDenied",
        by: Auditor,
        method: "POST",
        path: "/kms/generate-data-key",
        request: r#"{"key_id":"guide"}"#,
        status: 403,
        response: r#"{"error":{"code":"AccessDenied","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: KeyNotFound",
        path: "/kms/keys/absent",
        status: 404,
        response: r#"{"error":{"code":"KeyNotFound","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "Common Error Codes: NotFound",
        path: "/kms/absent",
        status: 404,
        response: r#"{"error":{"code":"NotFound","message":"$string","request_id":"$string"}}"#,
        ..GUIDE
    },
    Example {
        section: "Legacy compatibility endpoints: create-key",
        method: "POST",
        path: "/kms/create-key?keyName=legacy",
        response: r#"{"key_id":"legacy","key_metadata":{"key_id":"legacy"}}"#,
        ..GUIDE
    },
    Example {
        section: "Legacy compatibility endpoints: describe-key",
        path: "/kms/describe-key?keyId=legacy",
        response: r#"{"key_metadata":{"key_id":"legacy"}}"#,
        ..GUIDE
    },
    Example {
        section: "Legacy compatibility endpoints: list-keys",
        path: "/kms/list-keys",
        response: r#"{"keys":[{"key_id":"guide"},{"key_id":"legacy"}]}"#,
        ..GUIDE
    },
];

/// For a service with a damaged table.
const GUIDE_DAMAGED: &[Example] = &[Example {
    section: "Common Error Codes: BackendError",
    path: "/kms/keys/damaged",
    status: 500,
    response: r#"{"error":{"code":"BackendError","message":"$string","request_id":"$string"}}"#,
    ..GUIDE
}];

/// For a service with a Vault of this test.
const GUIDE_VAULT: &[Example] = &[Example {
    section: "1. Configure KMS: vault",
    method: "POST",
    path: "/kms/configure",
    request: r#"{"backend_type":"vault","address":"https://vault.example.com:8200","auth_method":{"token":"s.XYZ"},
        "mount_path":"transit","kv_mount":"secret","key_path_prefix":"rustfs/kms/keys"}"#,
    response: r#"{"success":true,"message":"$string","config_id":"$string"}"#,
    ..GUIDE
}];

/// For a running service with the key `guide` and the bucket `analytics-data`, in this order.
const GUIDE_BUCKETS: &[Example] = &[
    Example {
        section: "Bucket Encryption Configuration APIs: list",
        path: "/api/v1/buckets",
        response: r#"{"buckets":[{"name":"analytics-data","creation_date":"$string"}]}"#,
        ..GUIDE
    },
    Example {
        section: "Bucket Encryption Configuration APIs: none",
        path: "/api/v1/bucket-encryption/analytics-data",
        status: 404,
        response: r#"{"error":{"code":"ServerSideEncryptionConfigurationNotFoundError"}}"#,
        ..GUIDE
    },
    Example {
        section: "Bucket Encryption Configuration APIs: set",
        method: "PUT",
        path: "/api/v1/bucket-encryption/analytics-data",
        request: r#"{"sse_algorithm":"aws:kms","kms_master_key_id":"guide"}"#,
        response: "$any",
        ..GUIDE
    },
    Example {
        section: "Bucket Encryption Configuration APIs: get",
        path: "/api/v1/bucket-encryption/analytics-data",
        response: r#"{"ServerSideEncryptionConfiguration":{"Rules":[{"ApplyServerSideEncryptionByDefault":
            {"SSEAlgorithm":"aws:kms","KMSMasterKeyID":"guide"}}]}}"#,
        ..GUIDE
    },
    Example {
        section: "Bucket Encryption Configuration APIs: SSE-S3",
        method: "PUT",
        path: "/api/v1/bucket-encryption/analytics-data",
        request: r#"{"sse_algorithm":"AES256"}"#,
        response: "$any",
        ..GUIDE
    },
    Example {
        section: "Bucket Encryption Configuration APIs: delete",
        method: "DELETE",
        path: "/api/v1/bucket-encryption/analytics-data",
        response: "$any",
        ..GUIDE
    },
];

const ALL: &[&[Example]] = &[
    ADMIN_API_CREATE,
    ADMIN_API_KEY,
    ADMIN_API_SERVICE,
    ADMIN_API_DAMAGED,
    ADMIN_API_VAULT,
    FIRST_KEYS,
    FIRST_STATUS,
    FIRST_IDLE,
    FIRST_DAMAGED,
    FIRST_CURL,
    FIRST_VAULT,
    GUIDE_SERVICE,
    GUIDE_KEYS,
    GUIDE_DAMAGED,
    GUIDE_VAULT,
    GUIDE_BUCKETS,
];

/// The sections with examples, and the numbers of their requests, answers and error codes.
const SHOWN: &[(Document, &str, usize)] = &[
    (AdminApi, "Configure / Reconfigure", 2),
    (AdminApi, "Create Key", 2),
    (AdminApi, "Data Key Operations", 2),
    (AdminApi, "Delete & Cancel Deletion", 2),
    (AdminApi, "Describe Key", 1),
    (AdminApi, "Error Handling", 5),
    (AdminApi, "List Keys", 1),
    (AdminApi, "Service Lifecycle", 1),
    (AdminApi, "Start / Stop", 2),
    (AdminApi, "Status & Config", 2),
    (FirstGeneration, "Authentication", 1),
    (FirstGeneration, "Configure KMS", 2),
    (FirstGeneration, "Create KMS Key", 1),
    (FirstGeneration, "Disable KMS Key", 1),
    (FirstGeneration, "Enable KMS Key", 1),
    (FirstGeneration, "Error Handling", 5),
    (FirstGeneration, "Get KMS Key Status", 1),
    (FirstGeneration, "Get KMS Status", 1),
    (FirstGeneration, "List KMS Keys", 1),
    (FirstGeneration, "Using curl", 4),
    (Guide, "1. Configure KMS", 1),
    (Guide, "1. Create key", 1),
    (Guide, "1. Generate data key", 2),
    (Guide, "2. Decrypt data key", 1),
    (Guide, "2. Key metadata", 1),
    (Guide, "2. Start KMS", 1),
    (Guide, "3. List keys", 1),
    (Guide, "3. Stop KMS", 1),
    (Guide, "4. Schedule deletion", 1),
    (Guide, "4. Service status", 1),
    (Guide, "5. Cancel deletion", 1),
    (Guide, "5. Reconfigure", 1),
    (Guide, "Bucket Encryption Configuration APIs", 4),
    (Guide, "Common Error Codes", 10),
    (Guide, "Legacy compatibility endpoints", 3),
    (Guide, "Monitoring & Cache APIs", 3),
];

#[test]
fn example_of_the_documents_has_a_test() {
    let mut tried = std::collections::BTreeMap::<(Document, &str), usize>::new();
    for example in ALL.iter().copied().flatten() {
        let section = example
            .section
            .split_once(": ")
            .map_or(example.section, |(section, _)| section);
        // Most requests come with their answer in one example.
        let parts = usize::from(!example.request.is_empty()) + 1;
        *tried.entry((example.document, section)).or_default() += parts;
    }
    let shown: Vec<_> = SHOWN
        .iter()
        .map(|(document, section, _)| (*document, *section))
        .collect();
    assert_eq!(tried.keys().copied().collect::<Vec<_>>(), shown);
    for (document, section, count) in SHOWN {
        let found = tried[&(*document, *section)];
        assert!(found >= *count, "{document:?}, {section}: {found}");
    }
    for (document, count) in [(AdminApi, 20), (FirstGeneration, 18), (Guide, 33)] {
        let shown = SHOWN.iter().filter(|shown| shown.0 == document);
        assert_eq!(shown.map(|shown| shown.2).sum::<usize>(), count);
    }
    // A value that differs from the document's has a reason.
    for example in ALL.iter().copied().flatten() {
        if example.document != Guide && example.response.contains('$') {
            assert!(!example.note.is_empty(), "{}", example.section);
        }
    }
}

/// The values of this test that replace those of an example.
#[derive(Default)]
struct Here {
    /// For the document's `https://vault.example.com:8200`.
    vault: Option<Vault>,
    /// For `DIRECTORY`.
    directory: String,
    /// For `BLOB`.
    blob: String,
}

/// A Vault that examples may use.
struct Vault {
    address: String,
    token: String,
}

impl Here {
    fn put_in(&self, text: &str) -> String {
        let mut text = text
            .replace("DIRECTORY", &self.directory)
            .replace("BLOB", &self.blob);
        if let Some(vault) = &self.vault {
            text = text
                .replace("https://vault.example.com:8200", &vault.address)
                .replace("s.XYZ", &vault.token)
                .replace("your-vault-token", &vault.token);
        }
        text
    }
}

/// A server and what is needed to call it.
struct Tried {
    server: Server,
    auditor: Signer,
    here: Here,
    folder: TempDir,
}

impl Tried {
    async fn start(options: &ServerOptions) -> Self {
        let folder = folder();
        let data_dir = data_dir(&folder);
        let server = options.start(&data_dir).await;
        let auditor = signer(&access_key(&data_dir, &["--policy", "kms-auditor"]).await);
        let here = Here {
            directory: folder.path().join("keyring").display().to_string(),
            ..Here::default()
        };
        Self {
            server,
            auditor,
            here,
            folder,
        }
    }

    /// Damages the record of the key `damaged`.
    async fn damage(&self) {
        create(&self.server, "damaged").await;
        let table = rusqlite::Connection::open(data_dir(&self.folder).join("keyway.db")).unwrap();
        let changed = table
            .execute(
                "UPDATE records SET value = CAST('{' AS BLOB) WHERE kind = 'key'",
                [],
            )
            .unwrap();
        assert_eq!(changed, 1);
    }

    async fn send(&self, example: &Example) -> Option<Answer> {
        let signer = match example.by {
            Root => Some(self.server.root()),
            Auditor => Some(&self.auditor),
            Nobody => None,
            Curl(command) => return self.curl(command).await,
        };
        let path = if example.path.contains("/admin/v3/") || example.path.starts_with("/api/") {
            example.path.to_owned()
        } else {
            format!("/rustfs/admin/v3{}", example.path)
        };
        let body = self.here.put_in(example.request);
        let host = &self.server.address;
        let mut request = match signer {
            Some(signer) => {
                signer.request(example.method, host, &path, body.as_bytes(), wall_clock())
            }
            None => Request::builder()
                .method(example.method)
                .uri(path)
                .header("host", host)
                .body(body.into())
                .unwrap(),
        };
        if !example.request.is_empty() {
            let json = "application/json".parse().unwrap();
            request.headers_mut().insert("content-type", json);
        }
        Some(self.server.send(request).await.unwrap())
    }

    /// Runs a document's command in a shell. curl signs, since the document leaves the signature out. `None`, and a printed
    /// line, where curl cannot sign; in CI that is a failure.
    async fn curl(&self, command: &str) -> Option<Answer> {
        let signs = std::process::Command::new("curl")
            .args(["--help", "auth"])
            .output()
            .is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--aws-sigv4"));
        if !signs {
            assert!(!is_set("CI"), "there is no curl that signs");
            eprintln!("\n*** SKIPPED: an example: there is no curl that signs ***\n");
            return None;
        }
        let (_, rest) = command.split_once("curl ").expect("a command");
        let sign = r#"--aws-sigv4 "aws:amz:us-east-1:s3" --user "test-root:test-root-secret""#;
        let mut command = format!("curl -sS -w '\\n%{{http_code}}' {rest}");
        for header in [
            r#"-H "Authorization: AWS4-HMAC-SHA256 ...""#,
            r#"-H "Authorization: AWS4-HMAC-SHA256 Credential=...""#,
        ] {
            command = command.replace(header, sign);
        }
        assert!(command.contains(sign), "{command}");
        let address = format!("http://{}", self.server.address);
        let command = self
            .here
            .put_in(&command.replace("http://localhost:9000", &address));
        let output = Command::new("sh")
            .args(["-c", &command])
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let (body, status) = said.rsplit_once('\n').unwrap_or_else(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            panic!("{command}: {error}")
        });
        let response = http::Response::builder().status(status);
        Some(response.body(body.to_owned().into()).unwrap().into())
    }

    async fn try_all(&mut self, examples: &[Example]) {
        for example in examples {
            let Some(answer) = self.send(example).await else {
                continue;
            };
            let which = format!("{:?}, {}", example.document, example.section);
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, example.status, "{which}: {body}");
            match example.response {
                "" => assert_eq!(body, "", "{which}"),
                "$any" => {}
                shown => {
                    let shown = serde_json::from_str(shown).unwrap();
                    let actual = answer.json();
                    self.compare(&which, "", &shown, &actual, example.varies);
                    if let Some(blob) = actual["ciphertext_blob"].as_str() {
                        self.here.blob = blob.to_owned();
                    }
                }
            }
        }
    }

    /// The answer has everything that the document shows.
    fn compare(
        &self,
        which: &str,
        at: &str,
        shown: &Value,
        actual: &Value,
        varies: &[(&str, How)],
    ) {
        if let Some((_, how)) = varies.iter().find(|(pointer, _)| *pointer == at) {
            let text = actual.as_str().unwrap_or_default();
            let shown = shown.as_str().expect("only texts vary");
            let fits = match how {
                How::Id => text.len() == 36 && text.split('-').count() == 5,
                How::Date => text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(),
                How::Base64 => !text.is_empty() && is_base64(text),
                How::Begins => text.starts_with(shown),
                How::Address => text == self.here.put_in(shown),
            };
            assert!(fits, "{which}: {at} is {actual}, not {how:?} like {shown}");
            return;
        }
        match (shown, actual) {
            (Value::String(kind), _) if kind.starts_with('$') => {
                let fits = match kind.as_str() {
                    "$string" => actual.is_string(),
                    "$boolean" => actual.is_boolean(),
                    "$integer" => actual.is_u64(),
                    other => panic!("{which}: what is {other}?"),
                };
                assert!(fits, "{which}: {at} is {actual}, not {kind}");
            }
            (Value::Object(shown), Value::Object(found)) => {
                for (name, value) in shown {
                    let at = format!("{at}/{name}");
                    let found = found.get(name);
                    let found = found.unwrap_or_else(|| panic!("{which}: no {at} in {actual}"));
                    self.compare(which, &at, value, found, varies);
                }
            }
            (Value::Array(shown), Value::Array(found)) => {
                assert_eq!(shown.len(), found.len(), "{which}: {at} is {actual}");
                for (number, (value, found)) in shown.iter().zip(found).enumerate() {
                    self.compare(which, &format!("{at}/{number}"), value, found, varies);
                }
            }
            _ => assert_eq!(actual, shown, "{which}: {at}"),
        }
    }
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

#[tokio::test]
async fn admin_api_reference_answers_as_documented() {
    let mut tried = Tried::start(&ServerOptions::default()).await;
    tried.try_all(ADMIN_API_CREATE).await;
    let mut tried = Tried::start(&ServerOptions::default()).await;
    let key = format!(r#"{{"key_id":"{UUID}","description":"project-alpha"}}"#);
    tried.server.call("POST", "/kms/keys", &key).await.ok();
    tried.try_all(ADMIN_API_KEY).await;
    tried.try_all(ADMIN_API_SERVICE).await;
    let mut tried = Tried::start(&ServerOptions::default()).await;
    tried.damage().await;
    tried.try_all(ADMIN_API_DAMAGED).await;
}

#[tokio::test]
async fn first_generation_answers_as_documented() {
    let mut tried = Tried::start(&ServerOptions::not_started()).await;
    tried.try_all(FIRST_IDLE).await;
    let mut tried = Tried::start(&ServerOptions::default()).await;
    tried.try_all(FIRST_KEYS).await;
    tried.try_all(FIRST_STATUS).await;
    let mut tried = Tried::start(&ServerOptions::default()).await;
    tried.damage().await;
    tried.try_all(FIRST_DAMAGED).await;
}

#[tokio::test]
async fn first_generation_curl_commands_work() {
    let mut tried = Tried::start(&ServerOptions::default()).await;
    tried.try_all(FIRST_CURL).await;
}

#[tokio::test]
async fn frontend_guide_answers_as_documented() {
    let mut tried = Tried::start(&ServerOptions::not_started()).await;
    tried.try_all(GUIDE_SERVICE).await;
    let mut tried = Tried::start(&ServerOptions::default()).await;
    tried.try_all(GUIDE_KEYS).await;
    let mut tried = Tried::start(&ServerOptions::default()).await;
    tried.damage().await;
    tried.try_all(GUIDE_DAMAGED).await;
}

/// A Vault with the engines `transit` and `secret` that the documents name, also in a namespace `admin`.
async fn vault_for_examples() -> Option<Bao> {
    let bao = Bao::start().await?;
    bao.post("sys/namespaces/admin", json!({})).await;
    for namespace in ["", "admin/"] {
        let transit = format!("{namespace}sys/mounts/transit");
        bao.post(&transit, json!({"type": "transit"})).await;
        let secret = format!("{namespace}sys/mounts/secret");
        let second = json!({"type": "kv", "options": {"version": "2"}});
        bao.post(&secret, second).await;
        // The second version of the engine becomes ready some time after the mount.
        let config = format!("{namespace}secret/config");
        eventually("the engine is ready", async || {
            let (status, _) = bao.call(Method::GET, &config, None).await;
            (status == 200).then_some(())
        })
        .await;
    }
    Some(bao)
}

#[tokio::test]
async fn examples_with_a_vault_answer_as_documented() {
    let Some(bao) = vault_for_examples().await else {
        return;
    };
    let tried = async || {
        let mut tried = Tried::start(&ServerOptions::not_started()).await;
        tried.here.vault = Some(Vault {
            address: bao.address.clone(),
            token: bao.root.clone(),
        });
        tried
    };
    for examples in [ADMIN_API_VAULT, GUIDE_VAULT] {
        tried().await.try_all(examples).await;
    }
    // The status has the number of keys and the default key, so the document's keys are made first.
    let [configure, status, curl] = FIRST_VAULT else {
        panic!("the first generation shows three examples with a Vault");
    };
    let mut first = tried().await;
    first.try_all(&[*configure]).await;
    for id in ["my-encryption-key", "two", "three", "four", "five"] {
        create(&first.server, id).await;
    }
    let default = r#"{"default_key_id":"my-encryption-key"}"#;
    first
        .server
        .call("POST", "/kms/reconfigure", default)
        .await
        .ok();
    first.try_all(&[*status]).await;
    tried().await.try_all(&[*curl]).await;
}

#[tokio::test]
async fn examples_of_buckets_answer_as_documented() {
    let mut tried = Tried::start(&ServerOptions::default()).await;
    tried
        .server
        .call("POST", "/kms/keys", &on("guide"))
        .await
        .ok();
    // S3's own protocol makes the bucket.
    let s3 = tried.server.root().clone().for_service("s3");
    let made = s3.declared_request(
        "PUT",
        &tried.server.address,
        "/analytics-data",
        b"",
        Some("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        wall_clock(),
    );
    assert_eq!(tried.server.send(made).await.unwrap().status, 200);
    tried.try_all(GUIDE_BUCKETS).await;
}
