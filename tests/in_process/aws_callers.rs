//! AWS KMS's API: signatures, permissions, and the paths that serve a part of the operations.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::Request;
use keyway_domain::ports::{Clock, Kind};
use keyway_tests::{Answer, MemorySite, Signer};
use serde_json::json;

use crate::aws::{ARN, for_target, kms_as, refusal, refused, site_with};
use crate::aws_rotation::DAY;

#[tokio::test]
async fn signature_that_is_not_for_this_service_is_refused() {
    let site = site_with(&["app-1"]).await;
    let time = || SystemTime::from(site.clock.now());
    let signed = |signer: &Signer| signer.request("POST", "keyway.test", "/", b"{}", time());
    let code = |answer: Answer| refused(&answer).0;

    for service in ["s3", "sts", "execute-api"] {
        let signer = site.root().clone().for_service(service);
        let request = signed(&signer.with_target("TrentService.ListKeys"));
        assert_eq!(code(site.send(request).await), "InvalidSignatureException");
    }
    let unknown = Signer::new("nobody", "secret");
    let request = signed(&for_target(&unknown, "ListKeys"));
    assert_eq!(
        code(site.send(request).await),
        "UnrecognizedClientException"
    );
    let wrong = Signer::new("root", "another secret");
    let request = signed(&for_target(&wrong, "ListKeys"));
    assert_eq!(code(site.send(request).await), "InvalidSignatureException");

    // The name of the operation is another one than was signed, or is not signed at all.
    let mut request = signed(&for_target(site.root(), "ListKeys"));
    let target = "TrentService.CreateKey".parse().unwrap();
    request.headers_mut().insert("x-amz-target", target);
    assert_eq!(code(site.send(request).await), "InvalidSignatureException");
    let mut request = signed(&site.root().clone().for_service("kms"));
    let target = "TrentService.CreateKey".parse().unwrap();
    request.headers_mut().insert("x-amz-target", target);
    assert_eq!(code(site.send(request).await), "IncompleteSignature");
    let request = Request::post("/").header("host", "keyway.test");
    let request = request.header("x-amz-target", "TrentService.CreateKey");
    let answer = site.send(request.body(Bytes::new()).unwrap()).await;
    assert_eq!(code(answer), "MissingAuthenticationTokenException");
    assert_eq!(site.records(Kind::Key).await.len(), 1);
}

/// A request of root whose signature is in the query, and covers the host alone.
fn presigned(time: SystemTime) -> Request<Bytes> {
    let identity = Credentials::new("root", "root-secret", None, None, "keyway-tests").into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(300));
    let params = SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("kms")
        .time(time)
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let (uri, headers) = ("http://keyway.test/", [("host", "keyway.test")]);
    let body = SignableBody::Bytes(b"");
    let signable = SignableRequest::new("POST", uri, headers.into_iter(), body);
    let (instructions, _) = sign(signable.unwrap(), &params).unwrap().into_parts();
    let mut request = Request::post(uri).body(Bytes::new()).unwrap();
    instructions.apply_to_request_http1x(&mut request);
    let (mut parts, body) = request.into_parts();
    parts.uri = parts
        .uri
        .path_and_query()
        .unwrap()
        .as_str()
        .parse()
        .unwrap();
    parts.headers.insert("host", "keyway.test".parse().unwrap());
    Request::from_parts(parts, body)
}

#[tokio::test]
async fn presigned_request_is_refused_because_its_operation_is_not_signed() {
    let site = MemorySite::running().await;
    let mut request = presigned(SystemTime::from(site.clock.now()));
    let target = "TrentService.CreateKey".parse().unwrap();
    request.headers_mut().insert("x-amz-target", target);
    let (code, text) = refused(&site.send(request).await);
    assert_eq!(code, "IncompleteSignature");
    assert_eq!(text, "sign the request in the Authorization header");
    assert!(site.records(Kind::Key).await.is_empty());
}

#[tokio::test]
async fn refusal_of_a_permission_does_not_tell_whether_the_key_exists() {
    let site = site_with(&["app-1", "db"]).await;
    let policy = r#"{"Statement":{"Effect":"Allow","Action":"kms:Encrypt","Resource":"arn:aws:kms:::key/app-*"}}"#;
    let signer = site.signer(policy).await;
    let user = format!("arn:aws:iam::000000000000:user/{}", signer.access_key_id());
    for id in ["db", "none"] {
        let body = json!({"KeyId": id, "Plaintext": "QUJD"}).to_string();
        let answer = kms_as(&site, &signer, "Encrypt", &body).await;
        let text = format!(
            "User: {user} is not authorized to perform: kms:Encrypt on resource: {ARN}{id}"
        );
        assert_eq!(refused(&answer), ("AccessDeniedException".to_owned(), text));
    }
    let body = json!({"KeyId": "app-1", "Plaintext": "QUJD"}).to_string();
    assert_eq!(kms_as(&site, &signer, "Encrypt", &body).await.status, 200);
    // Who can never do it does not reach the parser.
    for target in ["ScheduleKeyDeletion", "GenerateRandom", "CreateKey"] {
        let answer = kms_as(&site, &signer, target, "no JSON").await;
        assert_eq!(refused(&answer).0, "AccessDeniedException", "{target}");
    }
    let user = site.signer("kms-key-user").await;
    let drawn = kms_as(&site, &user, "GenerateRandom", r#"{"NumberOfBytes":8}"#).await;
    assert_eq!(drawn.text("Plaintext").len(), 12);
}

#[tokio::test]
async fn path_for_data_keys_changes_no_key() {
    let site = site_with(&["app-1"]).await;
    let before = site.records(Kind::Key).await;
    for path in ["/aws", "/aws/", "/aws/data", "/aws/data/"] {
        let is_data = path.starts_with("/aws/data");
        let describe = for_target(site.root(), "DescribeKey");
        let answer = site
            .call_at(&describe, "POST", path, r#"{"KeyId":"app-1"}"#)
            .await;
        assert_eq!(answer.status, 200, "{path}");
        let disable = for_target(site.root(), "DisableKey");
        let answer = site
            .call_at(&disable, "POST", path, r#"{"KeyId":"app-1"}"#)
            .await;
        if is_data {
            let text = "kms:DisableKey is not served below this path";
            let expected = ("AccessDeniedException".to_owned(), text.to_owned());
            assert_eq!(refused(&answer), expected, "{path}");
        } else {
            assert_eq!(
                (answer.status.as_u16(), &answer.body[..]),
                (200, &b""[..]),
                "{path}"
            );
            let enable = for_target(site.root(), "EnableKey");
            site.call_at(&enable, "POST", path, r#"{"KeyId":"app-1"}"#)
                .await;
        }
    }
    assert_eq!(before.len(), site.records(Kind::Key).await.len());
}

#[tokio::test]
async fn refusal_before_the_operation_is_a_400_too() {
    let site = MemorySite::running().await;
    let signer = for_target(site.root(), "ListKeys");
    let long = "x".repeat((256 << 10) + 1);
    let answer = site.call_at(&signer, "POST", "/aws", &long).await;
    assert_eq!(refused(&answer).0, "RequestEntityTooLargeException");
    for (method, path) in [("GET", "/aws/data"), ("POST", "/aws/nothing")] {
        let answer = site.call_at(&signer, method, path, "").await;
        assert_eq!(refused(&answer).0, "UnknownOperationException", "{path}");
    }
}

/// The answer to a request, signed at the site's present time.
async fn list_keys(site: &MemorySite, signer: &Signer) -> Answer {
    let signer = for_target(signer, "ListKeys");
    site.call_at(&signer, "POST", "/aws", "{}").await
}

#[tokio::test]
async fn expired_access_key_is_told_so_if_its_signature_is_right() {
    let site = site_with(&["k"]).await;
    let life = Some(Duration::from_secs(900));
    let right = site.signer_for("kms-admin", life).await;
    assert_eq!(list_keys(&site, &right).await.status, 200);
    site.clock.advance(Duration::from_secs(901));
    let text = "The security token included in the request is expired";
    let expected = refusal("ExpiredTokenException", text);
    assert_eq!(refused(&list_keys(&site, &right).await), expected);
    let wrong = Signer::new(right.access_key_id(), "another secret");
    let wrong = refused(&list_keys(&site, &wrong).await);
    assert_eq!(wrong.0, "InvalidSignatureException");
    // RustFS's API refuses it as any request without valid credentials.
    let answer = site.call_as(&right, "GET", "/kms/keys", "").await;
    assert_eq!(answer.status, 401);
    // After a day, the access key is gone.
    site.clock.advance(DAY);
    let gone = refused(&list_keys(&site, &right).await);
    assert_eq!(gone.0, "UnrecognizedClientException");
    assert_eq!(site.records(Kind::Key).await.len(), 1);
}
