//! AWS KMS's API: rotation.

use std::time::Duration;

use keyway_tests::MemorySite;
use serde_json::json;

use crate::aws::{ARN, golden, kms, refusal, refused, site_with};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

const HOUR: Duration = Duration::from_secs(3600);

async fn sweep_twice(site: &MemorySite) -> Vec<String> {
    site.sweep().await;
    site.clock.advance(HOUR);
    let swept = site.sweep().await;
    swept.rotated.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn answers_about_rotation_are_the_golden_ones() {
    let site = site_with(&["k"]).await;
    let key = json!({"KeyId": "k"});
    golden!(site, "rotation_off", "GetKeyRotationStatus", key.clone());
    golden!(
        site,
        "enable_rotation",
        "EnableKeyRotation",
        json!({"KeyId": "k", "RotationPeriodInDays": 90})
    );
    golden!(site, "rotation_on", "GetKeyRotationStatus", key.clone());
    kms(&site, "RotateKeyOnDemand", key.clone()).await.ok();
    site.clock.advance(90 * DAY);
    assert_eq!(sweep_twice(&site).await, ["k"]);
    golden!(
        site,
        "rotation_on_after",
        "GetKeyRotationStatus",
        key.clone()
    );
    golden!(
        site,
        "list_rotations",
        "ListKeyRotations",
        json!({"KeyId": "k", "IncludeKeyMaterial": "ALL_KEY_MATERIAL"})
    );
    golden!(
        site,
        "list_rotations_page",
        "ListKeyRotations",
        json!({"KeyId": "k", "Limit": 1})
    );
    let first = json!({"KeyId": "k", "Limit": 1});
    let marker = kms(&site, "ListKeyRotations", first)
        .await
        .text("NextMarker");
    golden!(
        site,
        "list_rotations_rest",
        "ListKeyRotations",
        json!({"KeyId": "k", "Limit": 1, "Marker": marker})
    );
    // RustFS's API shows the rotation as it is.
    let described = site.call("GET", "/kms/keys/k", "").await.ok();
    assert_eq!(described["key_metadata"]["rotation_enabled"], true);
    assert_eq!(described["key_metadata"]["key_version"], 3);
    golden!(site, "disable_rotation", "DisableKeyRotation", key.clone());
    golden!(site, "rotation_off_again", "GetKeyRotationStatus", key);
    let event = site
        .audited()
        .into_iter()
        .find(|event| event["dialect"] == "janitor")
        .unwrap();
    assert_eq!(event["operation"], "kms:RotateKey");
    assert_eq!(
        (&event["key_id"], &event["key_version"]),
        (&json!("k"), &json!(3))
    );
}

#[tokio::test]
async fn rotation_parameters_and_states_are_checked() {
    let site = site_with(&["k", "off", "gone"]).await;
    kms(&site, "EnableKeyRotation", json!({"KeyId": "gone"})).await;
    kms(&site, "DisableKey", json!({"KeyId": "off"})).await;
    kms(&site, "ScheduleKeyDeletion", json!({"KeyId": "gone"})).await;
    let days = |value: i64, rule: &str| {
        format!(
            "1 validation error detected: Value '{value}' at 'rotationPeriodInDays' failed to satisfy constraint: Member must have value {rule}"
        )
    };
    for (target, body, code, text) in [
        (
            "EnableKeyRotation",
            json!({"KeyId": "k", "RotationPeriodInDays": 89}),
            "ValidationException",
            days(89, "greater than or equal to 90"),
        ),
        (
            "EnableKeyRotation",
            json!({"KeyId": "k", "RotationPeriodInDays": 2561}),
            "ValidationException",
            days(2561, "less than or equal to 2560"),
        ),
        (
            "EnableKeyRotation",
            json!({"KeyId": "off"}),
            "DisabledException",
            format!("{ARN}off is disabled."),
        ),
        (
            "DisableKeyRotation",
            json!({"KeyId": "off"}),
            "DisabledException",
            format!("{ARN}off is disabled."),
        ),
        (
            "EnableKeyRotation",
            json!({"KeyId": "gone"}),
            "KMSInvalidStateException",
            format!("{ARN}gone is pending deletion."),
        ),
        (
            "ListKeyRotations",
            json!({"KeyId": "k", "Marker": "2"}),
            "InvalidMarkerException",
            "Marker is not one that this service gave out".to_owned(),
        ),
        (
            "ListKeyRotations",
            json!({"KeyId": "k", "Marker": "01"}),
            "InvalidMarkerException",
            "Marker is not one that this service gave out".to_owned(),
        ),
    ] {
        let answer = kms(&site, target, body).await;
        assert_eq!(refused(&answer), refusal(code, text), "{target}");
    }
    let status = kms(&site, "GetKeyRotationStatus", json!({"KeyId": "gone"}))
        .await
        .ok();
    assert_eq!(
        status,
        json!({"KeyId": format!("{ARN}gone"), "KeyRotationEnabled": false})
    );
    kms(&site, "EnableKeyRotation", json!({"KeyId": "k"})).await;
    let status = kms(&site, "GetKeyRotationStatus", json!({"KeyId": "k"}))
        .await
        .ok();
    assert_eq!(status["RotationPeriodInDays"], 365);
}
