//! Buckets and their default encryption, in JSON and in S3's protocol.

use bytes::Bytes;
use http::StatusCode;
use keyway_domain::ports::Kind;
use keyway_tests::{Answer, MemorySite, Signer};
use serde_json::{Value, json};

const ENCRYPTION: &str = "/photos?encryption";

fn xml(rules: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{rules}</ServerSideEncryptionConfiguration>"#
    )
}

fn rule(inner: &str) -> String {
    xml(&format!(
        "<Rule><ApplyServerSideEncryptionByDefault>{inner}</ApplyServerSideEncryptionByDefault></Rule>"
    ))
}

fn aes() -> String {
    rule("<SSEAlgorithm>AES256</SSEAlgorithm>")
}

fn kms(key: &str) -> String {
    rule(&format!(
        "<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>{key}</KMSMasterKeyID>"
    ))
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// Status, the headers that S3's clients read, and the exact body.
fn shown(answer: &Answer) -> String {
    let headers: Vec<String> = ["content-type", "location", "allow", "retry-after"]
        .iter()
        .filter_map(|name| Some(format!("{name}: {}\n", answer.header(name)?)))
        .collect();
    assert!(answer.header("x-amz-request-id").is_some());
    format!("{}\n{}\n{}", answer.status, headers.concat(), text(answer))
}

/// Status and code of an S3 refusal; also checks its shape.
fn refusal(answer: &Answer) -> (u16, String) {
    let body = text(answer);
    let inner = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
    };
    assert_eq!(answer.header("content-type"), Some("application/xml"));
    assert_eq!(
        inner("RequestId").as_deref(),
        answer.header("x-amz-request-id"),
        "{body}"
    );
    assert_eq!(
        answer.header("x-request-id"),
        answer.header("x-amz-request-id")
    );
    assert!(inner("Message").is_some() && inner("Resource").is_some());
    (answer.status.as_u16(), inner("Code").unwrap())
}

fn no(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A site with the bucket `photos` and the keys `k`, `off` and `doomed`.
async fn with_photos() -> MemorySite {
    let site = MemorySite::running_with(None, true).await;
    for key in ["k", "off", "doomed"] {
        let body = json!({"key_id": key}).to_string();
        site.call("POST", "/kms/keys", &body).await.ok();
    }
    site.call("POST", "/kms/keys/disable?keyId=off", "")
        .await
        .ok();
    site.call("DELETE", "/kms/keys/delete?keyId=doomed", "")
        .await
        .ok();
    assert_eq!(site.s3("PUT", "/photos", "").await.status, StatusCode::OK);
    site
}

#[tokio::test]
async fn json_answers_are_the_golden_ones() {
    let site = with_photos().await;
    let path = "/api/v1/bucket-encryption/photos";
    macro_rules! golden {
        ($name:expr, $answer:expr) => {
            let answer = $answer;
            let body = serde_json::to_string_pretty(&answer.json()).unwrap();
            insta::assert_snapshot!($name, format!("{}\n{body}", answer.status));
        };
    }
    golden!(
        "buckets_list",
        site.call("GET", "/api/v1/buckets", "").await
    );
    golden!("buckets_get_none", site.call("GET", path, "").await);
    let whole = r#"{"ServerSideEncryptionConfiguration":{"Rules":[{"ApplyServerSideEncryptionByDefault":
        {"SSEAlgorithm":"aws:kms","KMSMasterKeyID":"k"},"BucketKeyEnabled":true}]}}"#;
    golden!("buckets_put", site.call("PUT", path, whole).await);
    golden!("buckets_get", site.call("GET", path, "").await);
    golden!(
        "buckets_impact",
        site.call("GET", "/kms/keys/k?impact=true", "").await
    );
    golden!(
        "buckets_key_in_use",
        site.call(
            "DELETE",
            "/kms/keys/delete",
            r#"{"key_id":"k","force_immediate":true,"confirm_key_id":"k"}"#
        )
        .await
    );
    golden!("buckets_delete", site.call("DELETE", path, "").await);
    golden!(
        "buckets_absent",
        site.call("GET", "/api/v1/bucket-encryption/absent", "")
            .await
    );
}

#[tokio::test]
async fn s3_answers_are_the_golden_ones() {
    let site = with_photos().await;
    macro_rules! golden {
        ($name:expr, $answer:expr) => {
            insta::assert_snapshot!($name, shown(&$answer));
        };
    }
    golden!("s3_create", site.s3("PUT", "/holidays/", "").await);
    golden!("s3_create_again", site.s3("PUT", "/photos", "").await);
    golden!("s3_list", site.s3("GET", "/?x-id=ListBuckets", "").await);
    golden!("s3_head", site.s3("HEAD", "/photos", "").await);
    golden!("s3_head_absent", site.s3("HEAD", "/absent", "").await);
    golden!("s3_get_none", site.s3("GET", ENCRYPTION, "").await);
    golden!("s3_put", site.s3("PUT", ENCRYPTION, &kms("k")).await);
    golden!("s3_get", site.s3("GET", ENCRYPTION, "").await);
    golden!("s3_delete", site.s3("DELETE", ENCRYPTION, "").await);
    golden!("s3_absent", site.s3("GET", "/absent?encryption", "").await);
    golden!("s3_other", site.s3("GET", "/photos?list-type=2", "").await);
    golden!("s3_method", site.s3("POST", "/photos", "").await);
}

#[tokio::test]
async fn spellings_of_a_setting_are_one_setting() {
    let site = with_photos().await;
    let default = json!({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"});
    let rules = json!([{"ApplyServerSideEncryptionByDefault": default}]);
    let expected = json!({"ServerSideEncryptionConfiguration": {"Rules": [
        {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": false}
    ]}});
    let prefixes = ["", "/rustfs/admin/v3", "/minio/admin/v3"];
    for (n, body) in [
        json!({"ServerSideEncryptionConfiguration": {"Rules": rules}}),
        json!({"Rules": rules}),
        json!({"sse_algorithm": "aws:kms", "kms_master_key_id": "k"}),
        json!({"sse_algorithm": "aws:kms", "kms_master_key_id": "k", "bucket_key_enabled": false}),
    ]
    .iter()
    .enumerate()
    {
        let path = format!("{}/api/v1/bucket-encryption/photos", prefixes[n % 3]);
        let put = site.root_request("PUT", &path, body.to_string().as_bytes());
        let answer = site.send(put).await.ok();
        assert_eq!(answer["success"], true);
        for prefix in prefixes {
            let path = format!("{prefix}/api/v1/bucket-encryption/photos");
            let got = site.send(site.root_request("GET", &path, b"")).await.ok();
            assert_eq!(got, expected, "{body}");
        }
        let cleared = site.s3("DELETE", "/photos/?encryption=", "").await;
        assert_eq!(cleared.status, StatusCode::NO_CONTENT);
    }
    for body in [
        kms("k"),
        kms(" k\n").replace("<Rule>", "\n  <!-- one --> <Rule>"),
        kms("k").replace("xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"", ""),
        kms("k").replace(
            "</Rule>",
            "<BucketKeyEnabled>false</BucketKeyEnabled></Rule>",
        ),
        kms("<![CDATA[k]]>"),
        kms("&#107;"),
        kms("&#x6b;"),
    ] {
        let put = site
            .s3("PUT", "/photos?encryption&x-id=PutBucketEncryption", &body)
            .await;
        assert_eq!(put.status, StatusCode::OK, "{}", text(&put));
        let got = site
            .call("GET", "/api/v1/bucket-encryption/photos", "")
            .await;
        assert_eq!(got.ok(), expected, "{body}");
        site.s3("DELETE", ENCRYPTION, "").await;
    }
}

#[tokio::test]
async fn key_given_as_an_arn_reads_back_as_that_arn() {
    let site = with_photos().await;
    let path = "/api/v1/bucket-encryption/photos";
    for arn in [
        "arn:aws:kms:us-east-1:123456789012:key/k",
        "arn:aws:kms:::key/k",
        "arn:aws-cn:kms:cn-north-1::key/k",
    ] {
        let put = site.s3("PUT", ENCRYPTION, &kms(arn)).await;
        assert_eq!(put.status, StatusCode::OK, "{}", text(&put));
        let named = format!("<KMSMasterKeyID>{arn}</KMSMasterKeyID>");
        let got = text(&site.s3("GET", ENCRYPTION, "").await);
        assert!(got.contains(&named), "{got}");
        let body = json!({"sse_algorithm": "aws:kms", "kms_master_key_id": arn}).to_string();
        for answer in [
            site.call("PUT", path, &body).await.ok(),
            site.call("GET", path, "").await.ok(),
        ] {
            let rule = &answer["ServerSideEncryptionConfiguration"]["Rules"][0];
            let default = &rule["ApplyServerSideEncryptionByDefault"];
            assert_eq!(default["KMSMasterKeyID"], arn);
        }
        // The key is this service's, whatever the account in the ARN.
        let described = site.call("GET", "/kms/keys/k?impact=true", "").await.ok();
        let references = described["impact"]["references"].as_array().unwrap();
        assert_eq!(references.len(), 1, "{described}");
    }
    let put = site.s3("PUT", ENCRYPTION, &kms("k")).await;
    assert_eq!(put.status, StatusCode::OK);
    let got = text(&site.s3("GET", ENCRYPTION, "").await);
    assert!(got.contains("<KMSMasterKeyID>k<"), "{got}");
    let long = format!("arn:aws:kms:{}::key/k", "r".repeat(2048));
    let answer = site.s3("PUT", ENCRYPTION, &kms(&long)).await;
    assert_eq!(refusal(&answer), no(400, "InvalidArgument"));
}

#[tokio::test]
async fn bucket_tells_its_location_and_can_be_removed() {
    let site = with_photos().await;
    for query in [
        "?location",
        "?location=",
        "?location&x-id=GetBucketLocation",
    ] {
        let answer = site.s3("GET", &format!("/photos{query}"), "").await;
        assert_eq!(answer.status, StatusCode::OK);
        let body = text(&answer);
        assert!(
            body.ends_with(
                r#"<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></LocationConstraint>"#
            ),
            "{body}"
        );
    }
    let absent = site.s3("GET", "/absent?location", "").await;
    assert_eq!(refusal(&absent), no(404, "NoSuchBucket"));
    let put = site.s3("PUT", ENCRYPTION, &kms("k")).await;
    assert_eq!(put.status, StatusCode::OK);
    let before = site.records(Kind::Bucket).await.len();
    let removed = site.s3("DELETE", "/photos?x-id=DeleteBucket", "").await;
    assert_eq!(
        (removed.status, removed.body.len()),
        (StatusCode::NO_CONTENT, 0)
    );
    assert_eq!(site.records(Kind::Bucket).await.len(), before - 1);
    let again = site.s3("DELETE", "/photos/", "").await;
    assert_eq!(refusal(&again), no(404, "NoSuchBucket"));
    assert_eq!(site.s3("HEAD", "/photos", "").await.status, 404);
    let described = site.call("GET", "/kms/keys/k?impact=true", "").await.ok();
    assert_eq!(described["impact"]["references"], json!([]));
    // A new bucket of the same name does not have the old settings.
    assert_eq!(site.s3("PUT", "/photos", "").await.status, 200);
    let none = site.s3("GET", ENCRYPTION, "").await;
    assert_eq!(
        refusal(&none),
        no(404, "ServerSideEncryptionConfigurationNotFoundError")
    );
}

#[tokio::test]
async fn new_bucket_takes_tags_as_s3_does() {
    let site = with_photos().await;
    let tag = |key: &str, value: &str| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
    let with = |tags: &str| {
        format!("<CreateBucketConfiguration><Tags>{tags}</Tags></CreateBucketConfiguration>")
    };
    let numbered =
        |count: usize| -> String { (0..count).map(|n| tag(&n.to_string(), "")).collect() };
    for (n, tags) in [
        numbered(0),
        numbered(50),
        tag("a &amp; b", "&#65;&#x1F511;&lt;"),
        tag(&"&amp;".repeat(128), &"\u{e9}".repeat(256)),
    ]
    .iter()
    .enumerate()
    {
        let answer = site.s3("PUT", &format!("/tagged-{n}"), &with(tags)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", text(&answer));
    }
    for (tags, code) in [
        (numbered(51), "InvalidTag"),
        (tag("", "v"), "InvalidTag"),
        (tag(&"k".repeat(129), ""), "InvalidTag"),
        (tag("k", &"v".repeat(257)), "InvalidTag"),
        (tag("&#65;", "") + &tag("A", ""), "InvalidTag"),
        (tag("&lol;", ""), "MalformedXML"),
        ("<Tag><Key>k</Key></Tag>".to_owned(), "MalformedXML"),
        ("<Other/>".to_owned(), "MalformedXML"),
        ("text".to_owned(), "MalformedXML"),
    ] {
        let answer = site.s3("PUT", "/never", &with(&tags)).await;
        assert_eq!(refusal(&answer), no(400, code), "{tags}");
    }
    assert_eq!(site.s3("HEAD", "/never", "").await.status, 404);
}

#[tokio::test]
async fn setting_not_supported_is_refused_by_its_name() {
    let site = with_photos().await;
    let blocked = aes().replace(
        "</Rule>",
        "<BlockedEncryptionTypes><EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes></Rule>",
    );
    let answer = site.s3("PUT", ENCRYPTION, &blocked).await;
    assert_eq!(refusal(&answer), no(501, "NotImplemented"));
    assert!(text(&answer).contains("BlockedEncryptionTypes"));
    let dsse = rule("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>");
    let answer = site.s3("PUT", ENCRYPTION, &dsse).await;
    assert_eq!(refusal(&answer), no(400, "MalformedXML"));
    assert!(text(&answer).contains("`aws:kms:dsse` is not supported"));
    let path = "/api/v1/bucket-encryption/photos";
    let rule = r#"{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"},"BlockedEncryptionTypes":{}}"#;
    for (body, name) in [
        (format!(r#"{{"Rules":[{rule}]}}"#), "BlockedEncryptionTypes"),
        (
            r#"{"sse_algorithm":"aws:kms:dsse"}"#.to_owned(),
            "aws:kms:dsse",
        ),
    ] {
        let answer = site.call("PUT", path, &body).await;
        assert_eq!(answer.refusal(), no(400, "InvalidRequest"));
        assert!(answer.message().contains(name), "{}", answer.message());
    }
}

#[tokio::test]
async fn path_of_another_dialect_is_no_object() {
    let site = with_photos().await;
    for path in [
        "/rustfs/admin/v3/nothing",
        "/rustfs/other",
        "/minio/admin/v3/a/b",
        "/api/v1/nothing",
    ] {
        let answer = site.s3("GET", path, "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_ne!(answer.header("content-type"), Some("application/xml"));
    }
}

#[tokio::test]
async fn bucket_named_like_a_page_is_refused_by_s3() {
    let site = with_photos().await;
    for name in [
        "metrics",
        "openapi.json",
        "version",
        "health",
        "minio",
        "rustfs",
        "api",
    ] {
        for path in [format!("/{name}"), format!("/{name}/")] {
            let answer = site.s3("PUT", &path, "").await;
            assert_eq!(refusal(&answer), no(400, "InvalidBucketName"), "{path}");
            for (method, query) in [("DELETE", ""), ("GET", "?location"), ("PUT", "?encryption")] {
                let is_page =
                    method == "GET" && ["/openapi.json", "/health"].contains(&path.as_str());
                if is_page {
                    continue;
                }
                let body = if method == "PUT" {
                    aes()
                } else {
                    String::new()
                };
                let answer = site.s3(method, &format!("{path}{query}"), &body).await;
                assert_eq!(refusal(&answer), no(404, "NoSuchBucket"), "{method} {path}");
            }
        }
    }
    assert_eq!(site.s3("GET", "/openapi.json", "").await.status, 200);
    assert_eq!(site.s3("GET", "/health", "").await.status, 200);
}

#[tokio::test]
async fn json_malformed_is_refused_and_changes_nothing() {
    let site = with_photos().await;
    let path = "/api/v1/bucket-encryption/photos";
    let before = site.records(Kind::Bucket).await;
    let rule = r#"{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"AES256"}}"#;
    for (body, word) in [
        ("", "JSON"),
        ("[]", "JSON"),
        ("{}", "ServerSideEncryptionConfiguration"),
        (r#"{"colour":"red"}"#, "colour"),
        (
            r#"{"sse_algorithm":"AES256","sse_algorithm":"AES256"}"#,
            "duplicate",
        ),
        (
            r#"{"sse_algorithm":"aws:kms:dsse","kms_master_key_id":"k"}"#,
            "SSEAlgorithm",
        ),
        (r#"{"sse_algorithm":"aes256"}"#, "SSEAlgorithm"),
        (
            r#"{"sse_algorithm":"AES256","kms_master_key_id":"k"}"#,
            "KMSMasterKeyID",
        ),
        (r#"{"sse_algorithm":"aws:kms"}"#, "KMSMasterKeyID"),
        (
            r#"{"sse_algorithm":"aws:kms","kms_master_key_id":""}"#,
            "KMSMasterKeyID",
        ),
        (
            r#"{"sse_algorithm":"aws:kms","kms_master_key_id":"../k"}"#,
            "KMSMasterKeyID",
        ),
        (
            r#"{"sse_algorithm":"aws:kms","kms_master_key_id":"arn:aws:s3:::k"}"#,
            "KMSMasterKeyID",
        ),
        (r#"{"kms_master_key_id":"k"}"#, "sse_algorithm"),
        (r#"{"Rules":[]}"#, "Rules"),
        (r#"{"Rules":[{}]}"#, "ApplyServerSideEncryptionByDefault"),
        (
            r#"{"Rules":[{"ApplyServerSideEncryptionByDefault":{}}]}"#,
            "SSEAlgorithm",
        ),
        (
            r#"{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":7}}]}"#,
            "SSEAlgorithm",
        ),
        (&format!(r#"{{"Rules":[{rule},{rule}]}}"#), "Rules"),
        (
            &format!(r#"{{"Rules":[{rule}],"sse_algorithm":"AES256"}}"#),
            "sse_algorithm",
        ),
        (
            &format!(
                r#"{{"Rules":[{rule}],"ServerSideEncryptionConfiguration":{{"Rules":[{rule}]}}}}"#
            ),
            "Rules",
        ),
        (
            &format!(r#"{{"ServerSideEncryptionConfiguration":{{"Rules":[{rule}],"x":1}}}}"#),
            "x",
        ),
    ] {
        let answer = site.call("PUT", path, body).await;
        assert_eq!(answer.refusal(), no(400, "InvalidRequest"), "{body}");
        assert!(
            answer.message().contains(word),
            "{body}: {}",
            answer.message()
        );
    }
    for (key, expected) in [
        ("absent", no(404, "KeyNotFound")),
        ("off", no(409, "InvalidKeyState")),
        ("doomed", no(409, "InvalidKeyState")),
    ] {
        let body = json!({"sse_algorithm": "aws:kms", "kms_master_key_id": key}).to_string();
        assert_eq!(site.call("PUT", path, &body).await.refusal(), expected);
    }
    for name in [
        "ab",
        "Photos",
        "a..b",
        "192.168.0.1",
        "xn--a",
        "a%2Fb",
        "%00",
        "a%20b",
        &"a".repeat(64),
    ] {
        let path = format!("/api/v1/bucket-encryption/{name}");
        for (method, body) in [
            ("GET", ""),
            ("PUT", r#"{"sse_algorithm":"AES256"}"#),
            ("DELETE", ""),
        ] {
            let answer = site.call(method, &path, body).await;
            assert_eq!(
                answer.refusal(),
                no(400, "InvalidRequest"),
                "{method} {name}"
            );
            assert!(answer.message().contains("bucket"), "{}", answer.message());
        }
    }
    for (method, body) in [("PUT", r#"{"sse_algorithm":"AES256"}"#), ("DELETE", "")] {
        let answer = site
            .call(method, "/api/v1/bucket-encryption/absent", body)
            .await;
        assert_eq!(answer.refusal(), no(404, "NotFound"));
    }
    let method = site.call("POST", path, "{}").await;
    assert_eq!(method.refusal(), no(405, "MethodNotAllowed"));
    assert_eq!(site.records(Kind::Bucket).await, before);
}

#[tokio::test]
async fn xml_malformed_is_refused_and_changes_nothing() {
    let site = with_photos().await;
    let before = site.records(Kind::Bucket).await;
    let entity = format!(
        "<!DOCTYPE a [<!ENTITY k SYSTEM 'file:///etc/passwd'>]>{}",
        kms("&k;").split_once("?>").unwrap().1
    );
    let laughs = format!(
        "<!DOCTYPE a [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]>{}",
        kms("&b;").split_once("?>").unwrap().1
    );
    let deep = format!("{}{}", "<Rule>".repeat(30_000), "</Rule>".repeat(30_000));
    let many = xml(&"<Rule></Rule>".repeat(10_000));
    let one = "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault>";
    for body in [
        String::new(),
        "{}".to_owned(),
        "<a".to_owned(),
        "<a/>".to_owned(),
        entity,
        laughs,
        deep,
        many,
        xml(""),
        xml("<Rule/>"),
        xml(&format!("<Rule>{one}</Rule><Rule>{one}</Rule>")),
        xml(&format!("<Rule>{one}{one}</Rule>")),
        xml(&format!("<Rule>{one}<Colour>red</Colour></Rule>")),
        xml(&format!(
            "<Rule>{one}<BucketKeyEnabled>maybe</BucketKeyEnabled></Rule>"
        )),
        xml(&format!("<Rule>{one}text</Rule>")),
        rule(""),
        rule("<SSEAlgorithm>rot13</SSEAlgorithm>"),
        rule("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>"),
        rule("<SSEAlgorithm/>"),
        aes().replace("</ServerSideEncryptionConfiguration>", ""),
        format!("{}<more/>", aes()),
        kms("&k;"),
        kms("&#0;"),
    ] {
        let answer = site.s3("PUT", ENCRYPTION, &body).await;
        let shown: String = body.chars().take(200).collect();
        assert_eq!(refusal(&answer), no(400, "MalformedXML"), "{shown}");
        assert!(answer.body.len() < 2000);
    }
    let key_beside = "<SSEAlgorithm>AES256</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID>";
    for (body, code) in [
        (rule(key_beside), "InvalidArgument"),
        (
            rule("<SSEAlgorithm>aws:kms</SSEAlgorithm>"),
            "InvalidArgument",
        ),
        (kms(""), "InvalidArgument"),
        (kms("a/b"), "InvalidArgument"),
        (kms("absent"), "KMS.NotFoundException"),
        (kms("off"), "KMS.DisabledException"),
        (kms("doomed"), "KMS.DisabledException"),
    ] {
        let answer = site.s3("PUT", ENCRYPTION, &body).await;
        assert_eq!(refusal(&answer), no(400, code), "{body}");
    }
    let large = format!("{}{}", " ".repeat(2 << 20), aes());
    let answer = site.s3("PUT", ENCRYPTION, &large).await;
    assert_eq!(refusal(&answer), no(413, "EntityTooLarge"));
    for name in [
        "ab",
        "Photos",
        "a..b",
        "192.168.0.1",
        "a%2Fb",
        "a_b",
        "a%00b",
    ] {
        for (method, query) in [
            ("GET", "?encryption"),
            ("PUT", "?encryption"),
            ("PUT", ""),
            ("DELETE", "?encryption"),
        ] {
            let answer = site.s3(method, &format!("/{name}{query}"), &aes()).await;
            assert_eq!(
                refusal(&answer),
                no(400, "InvalidBucketName"),
                "{method} {name}{query}"
            );
        }
        assert_eq!(site.s3("HEAD", &format!("/{name}"), "").await.status, 400);
    }
    for taken in ["aws", "minio", "rustfs", "version", "metrics"] {
        let answer = site.s3("PUT", &format!("/{taken}"), "").await;
        assert_eq!(refusal(&answer), no(400, "InvalidBucketName"), "{taken}");
    }
    for body in [
        "<a/>",
        "<CreateBucketConfiguration><Colour/></CreateBucketConfiguration>",
        "x",
    ] {
        let answer = site.s3("PUT", "/another", body).await;
        assert_eq!(refusal(&answer), no(400, "MalformedXML"), "{body}");
    }
    for (method, path) in [
        ("GET", "/photos"),
        ("GET", "/photos?versioning"),
        ("PUT", "/photos?policy"),
        ("PUT", "/photos?acl"),
        ("DELETE", "/photos?policy"),
        ("GET", "/photos/a/b.txt"),
        ("PUT", "/photos/key"),
        ("PATCH", "/photos/key?x"),
        ("DELETE", "/photos/key?versionId=1"),
        ("POST", "/photos/key?uploads"),
        ("POST", "/photos"),
    ] {
        let answer = site.s3(method, path, "").await;
        assert_eq!(
            refusal(&answer),
            no(501, "NotImplemented"),
            "{method} {path}"
        );
    }
    for (method, path) in [("DELETE", "/"), ("PUT", "/"), ("POST", "/photos?delete")] {
        let answer = site.s3(method, path, "").await;
        assert_eq!(
            refusal(&answer),
            no(501, "NotImplemented"),
            "{method} {path}"
        );
    }
    let head = site.s3("HEAD", "/photos/key", "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (501, 0));
    assert_eq!(site.records(Kind::Bucket).await, before);
    let located = "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    assert_eq!(site.s3("PUT", "/another", located).await.status, 200);
}

#[tokio::test]
async fn checksum_other_than_the_bodys_is_refused() {
    let site = with_photos().await;
    let body = aes();
    let send = async |header: &'static str, value: &str| {
        let request = site.root_request("PUT", ENCRYPTION, body.as_bytes());
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(header, value.parse().unwrap());
        site.send(http::Request::from_parts(parts, body)).await
    };
    for (header, value, code) in [
        ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==", "BadDigest"),
        ("content-md5", "AAAA", "InvalidDigest"),
        ("content-md5", "%", "InvalidDigest"),
    ] {
        assert_eq!(
            refusal(&send(header, value).await),
            no(400, code),
            "{header} {value}"
        );
    }
    let chunked = site.declared_request(
        "PUT",
        ENCRYPTION,
        body.as_bytes(),
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    );
    assert_eq!(
        refusal(&site.send(chunked).await),
        no(400, "InvalidRequest")
    );
}

#[tokio::test]
async fn unauthenticated_request_is_refused_in_the_shape_of_s3() {
    let site = with_photos().await;
    let before = site.records(Kind::Bucket).await;
    let nobody = site
        .signer(r#"{"Statement":{"Effect":"Allow","Action":"kms:*"}}"#)
        .await;
    let elsewhere = site
        .signer(
            r#"{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::app-*"}}"#,
        )
        .await;
    let calls = [
        ("GET", "/"),
        ("PUT", "/holidays"),
        ("HEAD", "/photos"),
        ("GET", ENCRYPTION),
        ("PUT", ENCRYPTION),
        ("DELETE", ENCRYPTION),
        ("GET", "/photos?location"),
        ("DELETE", "/photos"),
    ];
    for (method, path) in calls {
        let unsigned = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "keyway.test")
            .body(Bytes::new())
            .unwrap();
        let of = |answer: Answer| {
            if method == "HEAD" {
                assert!(answer.body.is_empty());
                (answer.status.as_u16(), String::new())
            } else {
                refusal(&answer)
            }
        };
        let expected = |code: &str| {
            let code = if method == "HEAD" { "" } else { code };
            no(403, code)
        };
        assert_eq!(of(site.send(unsigned).await), expected("AccessDenied"));
        for (stranger, code) in [
            (
                &Signer::new("root", "wrong-secret"),
                "SignatureDoesNotMatch",
            ),
            (&Signer::new("nobody", "root-secret"), "InvalidAccessKeyId"),
            (
                &Signer::new("root", "root-secret").with_token("t"),
                "AccessDenied",
            ),
            (&nobody, "AccessDenied"),
            (&elsewhere, "AccessDenied"),
        ] {
            if path == "/" && std::ptr::eq(stranger, &elsewhere) {
                continue;
            }
            let answer = site.s3_as(stranger, method, path, "not even XML").await;
            assert_eq!(of(answer), expected(code), "{method} {path}");
        }
        let request = site.root_request(method, path, b"");
        site.clock
            .advance(std::time::Duration::from_secs(15 * 60 + 1));
        assert_eq!(
            of(site.send(request).await),
            expected("RequestTimeTooSkewed")
        );
    }
    let listed = text(&site.s3_as(&elsewhere, "GET", "/", "").await);
    assert!(listed.contains("<Buckets></Buckets>"), "{listed}");
    assert_eq!(site.records(Kind::Bucket).await, before);
}

#[tokio::test]
async fn list_with_a_limit_comes_in_pages() {
    let site = MemorySite::not_configured(false).await;
    for name in ["app-1", "app-2", "app-3", "zoo"] {
        assert_eq!(site.s3("PUT", &format!("/{name}"), "").await.status, 200);
    }
    let names = |answer: &Answer| -> Vec<String> {
        text(answer)
            .split("<Name>")
            .skip(1)
            .map(|rest| rest.split('<').next().unwrap().to_owned())
            .collect()
    };
    let first = site.s3("GET", "/?max-buckets=2&prefix=app-", "").await;
    assert_eq!(names(&first), ["app-1", "app-2"]);
    assert!(text(&first).contains("<ContinuationToken>app-2</ContinuationToken>"));
    let rest = site
        .s3(
            "GET",
            "/?max-buckets=2&prefix=app-&continuation-token=app-2",
            "",
        )
        .await;
    assert_eq!(names(&rest), ["app-3"]);
    assert!(!text(&rest).contains("ContinuationToken"));
    for query in [
        "max-buckets=0",
        "max-buckets=x",
        "max-buckets=10001",
        "prefix=a&prefix=b",
    ] {
        let answer = site.s3("GET", &format!("/?{query}"), "").await;
        assert_eq!(refusal(&answer), no(400, "InvalidArgument"), "{query}");
    }
    // Buckets work while no service runs; a setting with a key needs the service.
    assert_eq!(site.s3("PUT", "/zoo?encryption", &aes()).await.status, 200);
    let answer = site.s3("PUT", "/zoo?encryption", &kms("k")).await;
    assert_eq!(refusal(&answer), no(503, "ServiceUnavailable"));
}

#[tokio::test]
async fn scheduled_deletion_names_the_buckets_of_the_key() {
    let site = with_photos().await;
    site.s3("PUT", "/albums", "").await;
    for bucket in ["photos", "albums"] {
        let put = site
            .s3("PUT", &format!("/{bucket}?encryption"), &kms("k"))
            .await;
        assert_eq!(put.status, StatusCode::OK);
    }
    let deleted = site
        .call("DELETE", "/kms/keys/delete?keyId=k", "")
        .await
        .ok();
    let references: Vec<&Value> = deleted["impact"]["references"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reference| &reference["id"])
        .collect();
    assert_eq!(references, ["albums", "photos"]);
}
