//! The exact answers of every route, kept in files. A change of a file changes the contract.

use keyway_tests::{Answer, MemorySite};

/// Status, the headers that clients read, and the exact body.
pub(crate) fn shown(answer: &Answer) -> String {
    let headers: Vec<String> = [
        "content-type",
        "cache-control",
        "allow",
        "retry-after",
        "www-authenticate",
    ]
    .iter()
    .filter_map(|name| {
        answer
            .header(name)
            .map(|value| format!("{name}: {value}\n"))
    })
    .collect();
    let body = if answer.body.is_empty() {
        String::new()
    } else {
        serde_json::to_string_pretty(&answer.json()).unwrap()
    };
    format!("{}\n{}\n{body}", answer.status, headers.concat())
}

macro_rules! golden {
    ($name:expr, $answer:expr) => {
        insta::assert_snapshot!($name, shown(&$answer))
    };
}

#[tokio::test]
async fn answers_about_keys_are_the_golden_ones() {
    let site = MemorySite::running_with(Some("default"), true).await;
    let create = r#"{"KeyUsage":"ENCRYPT_DECRYPT","Description":"project-alpha","Tags":{"owner":"security","env":"prod"}}"#;
    golden!("create", site.call("POST", "/kms/keys", create).await);
    let named = r#"{"key_usage":"EncryptDecrypt","tags":{"name":"app-1","created_by":"console"}}"#;
    golden!("create_named", site.call("POST", "/kms/keys", named).await);
    golden!(
        "create_legacy",
        site.call("POST", "/kms/create-key?keyName=app-2", "").await
    );
    golden!(
        "create_duplicate",
        site.call("POST", "/kms/keys", named).await
    );
    golden!("describe", site.call("GET", "/kms/keys/app-1", "").await);
    golden!(
        "describe_legacy",
        site.call("GET", "/kms/describe-key?keyId=app-1", "").await
    );
    golden!(
        "describe_missing",
        site.call("GET", "/kms/keys/nope", "").await
    );
    golden!("list", site.call("GET", "/kms/keys?limit=2", "").await);
    golden!(
        "list_legacy",
        site.call("GET", "/kms/list-keys?prefix=app-", "").await
    );
    golden!(
        "disable",
        site.call("POST", "/kms/keys/disable", r#"{"key_id":"app-1"}"#)
            .await
    );
    golden!(
        "disabled_generate",
        site.call("POST", "/kms/generate-data-key", r#"{"key_id":"app-1"}"#)
            .await
    );
    golden!(
        "disabled_rotate",
        site.call("POST", "/kms/keys/rotate", r#"{"key_id":"app-1"}"#)
            .await
    );
    golden!(
        "enable",
        site.call("POST", "/kms/keys/enable?keyId=app-1", "").await
    );
    golden!(
        "rotate",
        site.call("POST", "/kms/keys/rotate", r#"{"key_id":"app-1"}"#)
            .await
    );
    golden!(
        "list_rotated",
        site.call("GET", "/kms/keys?pattern=app-?&status=Active", "")
            .await
    );
    let description = r#"{"key_id":"app-1","description":"first"}"#;
    golden!(
        "update_description",
        site.call("POST", "/kms/keys/update-description", description)
            .await
    );
    let tags = r#"{"key_id":"app-1","tags":{"env":"dev","created_by":"me"}}"#;
    golden!("tag", site.call("POST", "/kms/keys/tag", tags).await);
    let untag = r#"{"key_id":"app-1","tag_keys":["env","absent"]}"#;
    golden!("untag", site.call("POST", "/kms/keys/untag", untag).await);
    golden!(
        "delete",
        site.call("DELETE", "/kms/keys/delete", r#"{"key_id":"app-1"}"#)
            .await
    );
    golden!(
        "delete_again",
        site.call("DELETE", "/kms/keys/delete", r#"{"key_id":"app-1"}"#)
            .await
    );
    golden!(
        "cancel_deletion",
        site.call("POST", "/kms/keys/cancel-deletion?keyId=app-1", "{}")
            .await
    );
    site.call("POST", "/kms/keys", r#"{"key_id":"default"}"#)
        .await
        .ok();
    golden!(
        "describe_impact",
        site.call("GET", "/kms/keys/default?impact=true", "").await
    );
    let immediate =
        |id: &str| format!(r#"{{"key_id":"{id}","force_immediate":true,"confirm_key_id":"{id}"}}"#);
    golden!(
        "delete_referenced",
        site.call("DELETE", "/kms/keys/delete", &immediate("default"))
            .await
    );
    golden!(
        "delete_default",
        site.call(
            "DELETE",
            "/kms/keys/delete?keyId=default&pending_window_in_days=30",
            ""
        )
        .await
    );
    golden!(
        "delete_immediate",
        site.call("DELETE", "/kms/keys/delete", &immediate("app-2"))
            .await
    );
}

#[tokio::test]
async fn answers_about_data_keys_are_the_golden_ones() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let context =
        r#""encryption_context":{"bucket":"analytics-data","object":"2024/09/18/report.parquet"}"#;
    let generated = site
        .call(
            "POST",
            "/kms/generate-data-key",
            &format!(r#"{{"key_id":"k","key_spec":"AES_256",{context}}}"#),
        )
        .await;
    golden!("generate", generated);
    let blob = generated.text("ciphertext_blob");
    golden!(
        "generate_128",
        site.call(
            "POST",
            "/kms/generate-data-key",
            r#"{"key_id":"k","key_spec":"Aes128"}"#
        )
        .await
    );
    let decrypt = format!(r#"{{"ciphertext_blob":"{blob}",{context}}}"#);
    let decrypted = site.call("POST", "/kms/decrypt", &decrypt).await;
    assert_eq!(decrypted.text("plaintext"), generated.text("plaintext_key"));
    golden!("decrypt", decrypted);
    golden!(
        "decrypt_wrong_context",
        site.call(
            "POST",
            "/kms/decrypt",
            &format!(r#"{{"ciphertext_blob":"{blob}"}}"#)
        )
        .await
    );
    golden!(
        "encrypt",
        site.call(
            "POST",
            "/kms/encrypt",
            r#"{"key_id":"k","plaintext":"aGVsbG8="}"#
        )
        .await
    );
    site.call("POST", "/kms/keys/rotate", r#"{"key_id":"k"}"#)
        .await
        .ok();
    golden!("rewrap", site.call("POST", "/kms/rewrap", &decrypt).await);
    let items = format!(
        r#"{{"items":[{decrypt},{{"ciphertext_blob":"AAAA"}},{{"ciphertext_blob":"%"}},{decrypt}]}}"#
    );
    golden!(
        "rewrap_items",
        site.call("POST", "/kms/rewrap", &items).await
    );
    golden!(
        "generate_without_key",
        site.call("POST", "/kms/generate-data-key", "{}").await
    );
    golden!(
        "generate_missing_key",
        site.call("POST", "/kms/generate-data-key", r#"{"key_id":"nope"}"#)
            .await
    );
}

#[tokio::test]
async fn refusals_are_the_golden_ones() {
    let site = MemorySite::running().await;
    golden!("unsigned", site.call_unsigned("GET", "/kms/keys", "").await);
    let auditor = site.signer("kms-auditor").await;
    golden!(
        "not_permitted",
        site.call_as(&auditor, "POST", "/kms/keys", "{").await
    );
    golden!("no_route", site.call("GET", "/kms/nothing", "").await);
    golden!("wrong_method", site.call("PUT", "/kms/keys", "").await);
    golden!(
        "too_large",
        site.call("POST", "/kms/keys", &" ".repeat((1 << 20) + 1))
            .await
    );
    golden!("invalid_json", site.call("POST", "/kms/keys", "{").await);
    golden!(
        "unknown_field",
        site.call("POST", "/kms/keys", r#"{"colour":"red"}"#).await
    );
    let idle = MemorySite::not_configured(false).await;
    golden!("not_configured", idle.call("GET", "/kms/keys", "").await);
}
