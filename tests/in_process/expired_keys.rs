//! A rotated access key that has expired, in every API of signed requests.

use std::time::Duration;

use keyway_domain::access::AccessKeyId;
use keyway_tests::{MemorySite, Signer};

const HOUR: Duration = Duration::from_secs(3600);

/// A call of each API that every access key of `kms-admin` may make: its name, signer, method, path and body.
fn calls(
    signer: &Signer,
) -> Vec<(
    &'static str,
    Signer,
    &'static str,
    &'static str,
    &'static str,
)> {
    let signed_for = |service| signer.clone().for_service(service);
    let kms = signed_for("kms").with_target("TrentService.ListKeys");
    let caller = "Action=GetCallerIdentity&Version=2011-06-15";
    vec![
        (
            "RustFS",
            signer.clone(),
            "GET",
            "/rustfs/admin/v3/kms/keys",
            "",
        ),
        (
            "MinIO",
            signed_for("s3"),
            "GET",
            "/minio/kms/v1/key/list?pattern=*",
            "",
        ),
        ("S3", signed_for("s3"), "GET", "/", ""),
        ("AWS KMS", kms.clone(), "POST", "/", "{}"),
        ("AWS KMS at /aws", kms, "POST", "/aws", "{}"),
        ("STS", signed_for("sts"), "POST", "/", caller),
    ]
}

#[tokio::test]
async fn rotated_access_key_is_refused_by_every_api_after_the_overlap() {
    let site = MemorySite::running().await;
    let signer = site.signer("kms-admin").await;
    let id = AccessKeyId::parse(signer.access_key_id()).unwrap();
    site.access_keys().rotate(&id, HOUR).await.unwrap();
    site.clock.advance(HOUR - Duration::from_secs(1));
    for (api, signer, method, path, body) in calls(&signer) {
        let answer = site.call_at(&signer, method, path, body).await;
        assert_eq!(answer.status, 200, "{api}: {answer:?}");
    }
    site.clock.advance(Duration::from_secs(1));
    for (api, signer, method, path, body) in calls(&signer) {
        let answer = site.call_at(&signer, method, path, body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let is_told = [
            "ExpiredToken",
            "have expired",
            "AccessDenied",
            "InvalidTokenId",
        ]
        .iter()
        .any(|word| text.contains(word));
        assert!(answer.status.is_client_error() && is_told, "{api}: {text}");
    }
}
