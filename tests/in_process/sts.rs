//! STS: temporary credentials, their permissions, and the identity of a caller.

use std::time::Duration;

use keyway_domain::ports::Kind;
use keyway_tests::{Answer, MemorySite, Signer};
use serde_json::{Value, json};

/// The text of the first element of this name.
fn text(answer: &Answer, name: &str) -> Option<String> {
    let body = std::str::from_utf8(&answer.body).unwrap();
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.to_owned())
}

async fn sts(site: &MemorySite, signer: &Signer, form: &str) -> Answer {
    let signer = signer.clone().for_service("sts");
    site.call_at(&signer, "POST", "/", form).await
}

const CONSOLE: &str = "RoleArn=arn%3Aaws%3Aiam%3A%3A%2A%3Arole%2FAdmin&RoleSessionName=console\
    &DurationSeconds=43200&Action=AssumeRole&Version=2011-06-15";

/// A signer of the credentials in an answer.
fn signer(answer: &Answer) -> Signer {
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |name| text(answer, name).unwrap();
    Signer::new(&text("AccessKeyId"), &text("SecretAccessKey")).with_token(&text("SessionToken"))
}

async fn assume(site: &MemorySite, parent: &Signer, form: &str) -> Signer {
    signer(&sts(site, parent, form).await)
}

fn refused(answer: &Answer) -> (u16, String, String) {
    let text = |name| text(answer, name).unwrap_or_default();
    assert_eq!(answer.header("content-type"), Some("text/xml"));
    assert_eq!(
        answer.header("x-amzn-requestid"),
        answer.header("x-request-id")
    );
    assert_eq!(
        Some(text("RequestId").as_str()),
        answer.header("x-request-id")
    );
    (answer.status.as_u16(), text("Code"), text("Message"))
}

#[tokio::test]
async fn assume_role_answers_as_aws_does() {
    let site = MemorySite::running().await;
    let answer = sts(&site, site.root(), CONSOLE).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/xml"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = std::str::from_utf8(&answer.body).unwrap();
    let start = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>";
    assert!(body.starts_with(start), "{body}");
    let arn = "arn:aws:sts::000000000000:assumed-role/root/console";
    assert_eq!(text(&answer, "Arn").as_deref(), Some(arn));
    assert_eq!(
        text(&answer, "AssumedRoleId").as_deref(),
        Some("root:console")
    );
    // The site's clock is fixed at 03:04:05.
    let expiration = text(&answer, "Expiration").unwrap();
    assert!(expiration.ends_with("T15:04:05Z"), "{expiration}");
    assert!(text(&answer, "RequestId").is_some());
}

#[tokio::test]
async fn credentials_of_assume_role_need_their_token_and_end() {
    let site = MemorySite::running().await;
    let answer = sts(&site, site.root(), CONSOLE).await;
    let session = signer(&answer);
    assert_eq!(
        site.call_as(&session, "GET", "/kms/keys", "").await.status,
        200
    );
    let id = text(&answer, "AccessKeyId").unwrap();
    let secret = text(&answer, "SecretAccessKey").unwrap();
    let without = Signer::new(&id, &secret);
    assert_eq!(
        site.call_as(&without, "GET", "/kms/keys", "").await.status,
        401
    );
    site.clock.advance(Duration::from_secs(43_200));
    assert_eq!(
        site.call_as(&session, "GET", "/kms/keys", "").await.status,
        401
    );
}

#[tokio::test]
async fn session_may_do_no_more_than_its_parent_and_its_policy() {
    let site = MemorySite::running().await;
    for key in ["app-1", "app-2", "db"] {
        let body = json!({"key_id": key}).to_string();
        assert_eq!(site.call("POST", "/kms/keys", &body).await.status, 200);
    }
    let parent = site
        .signer(r#"{"Statement":{"Effect":"Allow","Action":["kms:ListKeys","kms:GenerateDataKey"],"Resource":"arn:aws:kms:::key/app-*"}}"#)
        .await;
    let narrow = r#"{"Statement":{"Effect":"Allow","Action":"kms:ListKeys","Resource":["arn:aws:kms:::key/app-2","arn:aws:kms:::key/db"]}}"#;
    let narrow: String = narrow.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let narrow = assume(&site, &parent, &format!("{CONSOLE}&Policy={narrow}")).await;
    let whole = assume(&site, &parent, CONSOLE).await;
    for (session, keys, generates) in [
        (&whole, &["app-1", "app-2"][..], 200),
        (&narrow, &["app-2"], 403),
    ] {
        let listed = site.call_as(session, "GET", "/kms/keys", "").await.json();
        let listed: Vec<&str> = (listed["keys"].as_array().unwrap().iter())
            .map(|key| key["key_id"].as_str().unwrap())
            .collect();
        assert_eq!(listed, keys);
        let path = "/kms/generate-data-key";
        let made = site
            .call_as(session, "POST", path, r#"{"key_id":"app-2"}"#)
            .await;
        assert_eq!(made.status, generates);
        let made = site.call_as(session, "POST", "/kms/keys", "{}").await;
        assert_eq!(made.status, 403);
    }
}

#[tokio::test]
async fn unsupported_parameter_is_refused_and_makes_no_access_key() {
    let site = MemorySite::running().await;
    let long = "a".repeat(2049);
    for (form, code, name) in [
        ("", "MissingAction", "Action"),
        ("Version=2011-06-15", "MissingAction", "Action"),
        ("Action=AssumeRoleWithSAML", "InvalidAction", "AssumeRole"),
        (
            "Action=AssumeRole&Version=2010-01-01",
            "ValidationError",
            "Version",
        ),
        (
            "Action=AssumeRole&DurationSeconds=899",
            "ValidationError",
            "DurationSeconds",
        ),
        (
            "Action=AssumeRole&DurationSeconds=43201",
            "ValidationError",
            "DurationSeconds",
        ),
        (
            "Action=AssumeRole&DurationSeconds=1h",
            "ValidationError",
            "DurationSeconds",
        ),
        (
            "Action=AssumeRole&DurationSeconds=-900",
            "ValidationError",
            "DurationSeconds",
        ),
        (
            "Action=AssumeRole&RoleSessionName=a",
            "ValidationError",
            "RoleSessionName",
        ),
        (
            "Action=AssumeRole&RoleSessionName=a%2Fb",
            "ValidationError",
            "RoleSessionName",
        ),
        (
            "Action=AssumeRole&RoleSessionName=ab&RoleSessionName=ab",
            "ValidationError",
            "RoleSessionName",
        ),
        (
            "Action=AssumeRole&SerialNumber=x",
            "ValidationError",
            "SerialNumber",
        ),
        (
            "Action=AssumeRole&PolicyArns.member.1.arn=x",
            "ValidationError",
            "PolicyArns.member.1.arn",
        ),
        (
            "Action=AssumeRole&Policy=%7B%7D",
            "MalformedPolicyDocument",
            "Policy",
        ),
        (
            "Action=AssumeRole&Policy=no",
            "MalformedPolicyDocument",
            "Policy",
        ),
        (
            "Action=GetCallerIdentity&RoleArn=x",
            "ValidationError",
            "RoleArn",
        ),
        (
            &format!("Action=AssumeRole&RoleArn={long}"),
            "ValidationError",
            "RoleArn",
        ),
    ] {
        let (status, found, message) = refused(&sts(&site, site.root(), form).await);
        assert_eq!((status, found.as_str()), (400, code), "{form}: {message}");
        assert!(message.contains(name), "{form}: {message}");
    }
    let strange = sts(&site, site.root(), "Action=AssumeRole&%00a%1B%3Cb=1").await;
    let body = String::from_utf8(strange.body.to_vec()).unwrap();
    assert!(!body.contains(char::is_control), "{body}");
    assert!(refused(&strange).2.starts_with("a&lt;b is not supported"));
    let large = format!("Action=AssumeRole&Policy={}", "x".repeat(64 << 10));
    assert_eq!(refused(&sts(&site, site.root(), &large).await).0, 413);
    assert!(site.records(Kind::AccessKey).await.is_empty());
}

#[tokio::test]
async fn unauthenticated_request_gets_the_codes_of_sts() {
    let site = MemorySite::running().await;
    let unknown = Signer::new("nobody", "secret");
    let wrong = Signer::new("root", "wrong");
    for (signer, code) in [
        (&unknown, "InvalidClientTokenId"),
        (&wrong, "SignatureDoesNotMatch"),
    ] {
        let (status, found, _) = refused(&sts(&site, signer, CONSOLE).await);
        assert_eq!((status, found.as_str()), (403, code));
    }
    let unsigned = http::Request::post("/")
        .header("host", "keyway.test")
        .body(bytes::Bytes::from_static(CONSOLE.as_bytes()))
        .unwrap();
    let (status, code, _) = refused(&site.send(unsigned).await);
    assert_eq!((status, code.as_str()), (403, "MissingAuthenticationToken"));
    assert!(site.records(Kind::AccessKey).await.is_empty());
}

#[tokio::test]
async fn session_begins_no_other_but_an_expiring_access_key_may() {
    let site = MemorySite::running().await;
    let session = assume(&site, site.root(), CONSOLE).await;
    let (status, code, _) = refused(&sts(&site, &session, CONSOLE).await);
    assert_eq!((status, code.as_str()), (403, "AccessDenied"));
    let expiring = site
        .signer_for("kms-auditor", Some(Duration::from_secs(1000)))
        .await;
    let answer = sts(&site, &expiring, CONSOLE).await;
    let expiration = text(&answer, "Expiration").unwrap();
    assert!(
        expiration.ends_with("T03:20:45Z"),
        "cut short: {expiration}"
    );
}

#[tokio::test]
async fn get_caller_identity_names_every_kind_of_caller() {
    let site = MemorySite::running().await;
    let user = site.signer("kms-auditor").await;
    let session = assume(&site, &user, "Action=AssumeRole").await;
    let id = user.access_key_id();
    for (signer, arn, user_id) in [
        (
            site.root(),
            "arn:aws:iam::000000000000:root".to_owned(),
            "000000000000".to_owned(),
        ),
        (
            &user,
            format!("arn:aws:iam::000000000000:user/{id}"),
            id.to_owned(),
        ),
        (
            &session,
            format!("arn:aws:sts::000000000000:assumed-role/{id}/session"),
            format!("{id}:session"),
        ),
    ] {
        let form = "Action=GetCallerIdentity&Version=2011-06-15";
        let answer = sts(&site, signer, form).await;
        assert_eq!(answer.status, 200);
        assert_eq!(text(&answer, "Arn"), Some(arn));
        assert_eq!(text(&answer, "UserId"), Some(user_id));
        assert_eq!(text(&answer, "Account").as_deref(), Some("000000000000"));
    }
}

#[tokio::test]
async fn audit_log_names_operation_and_session() {
    let site = MemorySite::running().await;
    let answer = sts(&site, site.root(), CONSOLE).await;
    let id = text(&answer, "AccessKeyId").unwrap();
    let begun = site.audited().pop().unwrap();
    assert_eq!(
        (&begun["operation"], &begun["principal"], &begun["resource"]),
        (&json!("sts:AssumeRole"), &json!("root"), &json!(id))
    );
    sts(&site, site.root(), "Action=GetCallerIdentity").await;
    assert_eq!(
        site.audited().pop().unwrap()["operation"],
        "sts:GetCallerIdentity"
    );
    sts(&site, site.root(), "Action=AssumeRole&DurationSeconds=1").await;
    let refused = site.audited().pop().unwrap();
    assert_eq!(refused["operation"], "sts:AssumeRole");
    sts(&site, site.root(), "Action=Other").await;
    assert_eq!(site.audited().pop().unwrap()["operation"], "sts");
    let session = signer(&answer);
    site.call_as(&session, "POST", "/kms/keys", "{}").await;
    assert_eq!(site.audited().pop().unwrap()["principal"], json!(id));
}

#[tokio::test]
async fn is_admin_and_accountinfo_name_the_caller() {
    let site = MemorySite::running().await;
    site.s3("PUT", "/photos", "").await;
    let kms_admin = site.signer("kms-admin").await;
    let nothing = site
        .signer(r#"{"Statement":{"Effect":"Allow","Action":"kms:Decrypt","Resource":"arn:aws:kms:::key/x"}}"#)
        .await;
    for (parent, is_admin, page, buckets) in [
        (site.root(), true, None, 1),
        (&kms_admin, false, Some("console:SSESettings"), 1),
        (&nothing, false, None, 0),
    ] {
        let session = assume(&site, parent, CONSOLE).await;
        let (of_parent, of_session) = (parent.access_key_id(), session.access_key_id());
        for (signer, id) in [(parent, of_parent), (&session, of_session)] {
            let found = site.call_as(signer, "GET", "/is-admin", "").await;
            assert_eq!(found.status, 200);
            let found = found.json();
            assert_eq!(
                (&found["is_admin"], &found["access_key"]),
                (&json!(is_admin), &json!(id))
            );
            let account = site.call_as(signer, "GET", "/accountinfo", "").await;
            assert_eq!(account.status, 200);
            let account = account.json();
            assert_eq!(account["account_name"], json!(of_parent));
            assert_eq!(account["buckets"].as_array().unwrap().len(), buckets);
            let policy: Value = serde_json::from_str(account["policy"].as_str().unwrap()).unwrap();
            let actions = policy["Statement"][0]["Action"].as_array().unwrap();
            if is_admin {
                assert!(actions.contains(&json!("kms:*")));
            }
            let has_page = actions.contains(&json!("console:SSESettings"));
            assert_eq!(has_page, page.is_some(), "{policy}");
        }
    }
    let unsigned = site.call_unsigned("GET", "/is-admin", "").await;
    assert_eq!(unsigned.status, 401);
}

#[tokio::test]
async fn session_gets_the_spelling_of_rustfs_1_0() {
    let site = MemorySite::running().await;
    let session = assume(&site, site.root(), CONSOLE).await;
    let status = async |signer: &Signer| {
        let answer = site.call_as(signer, "GET", "/kms/service-status", "").await;
        answer.json()
    };
    let (of_session, of_root) = (status(&session).await, status(site.root()).await);
    assert_eq!(of_root["backend_type"], "local");
    assert_eq!(
        of_root["config_summary"]["backend_summary"]["key_dir"],
        Value::Null
    );
    assert_eq!(of_session["backend_type"], "Local");
    assert_eq!(of_session["config_summary"]["backend_type"], "Local");
    let folder = &of_session["config_summary"]["backend_summary"]["key_dir"];
    assert!(folder.as_str().unwrap().starts_with('/'));
    assert_eq!(of_session["status"], "Running");
    let cleared = site
        .call_as(&session, "POST", "/kms/clear-cache", "{}")
        .await;
    assert_eq!(
        (cleared.status.as_u16(), &cleared.json()["success"]),
        (200, &json!(true))
    );
    assert_eq!(site.call("POST", "/kms/clear-cache", "").await.status, 204);
    // The console can save the shown policy unchanged.
    let body = json!({
        "backend_type": "Local",
        "key_dir": folder,
        "file_permissions": 384,
        "allow_insecure_dev_defaults": false,
        "timeout_seconds": 30,
        "retry_attempts": 3,
        "enable_cache": true,
        "max_cached_keys": 1000,
        "cache_ttl_seconds": 3600,
    });
    let saved = site
        .call_as(&session, "POST", "/kms/reconfigure", &body.to_string())
        .await;
    assert_eq!(saved.status, 200, "{saved:?}");
}
