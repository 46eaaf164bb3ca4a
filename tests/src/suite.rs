//! The behaviour of all routes, which must be the same however Keyway is reached.

use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::{Answer, Described, Signer};

/// Something that answers requests.
pub trait Target {
    /// The host that signatures are made for.
    fn host(&self) -> String;

    /// The time that signatures are made at.
    fn now(&self) -> SystemTime;

    /// Sends a request whose URI is path and query, and reads the answer whole.
    fn send(&self, request: Request<Bytes>) -> impl Future<Output = Answer>;
}

/// Calls every route, for answers and refusals, with ids that begin with `scope`. The deployment must be running and
/// allow immediate deletion; `root` is its root access key.
/// Returns every answer in the order of its request.
pub async fn every_route(target: &impl Target, root: (&str, &str), scope: &str) -> Vec<Answer> {
    let mut walk = Walk {
        target,
        root: Signer::new(root.0, root.1),
        answers: Vec::new(),
    };
    walk.strangers(root).await;
    walk.life_of_a_key(scope).await;
    walk.lists(scope).await;
    walk.data_keys(scope).await;
    walk.aws(scope).await;
    walk.bad_requests(scope).await;
    walk.buckets(scope).await;
    walk.deletion(scope).await;
    walk.first_generation(scope).await;
    walk.minio(scope).await;
    walk.service().await;
    walk.answers
}

/// Makes a key by AWS KMS's API, uses it and schedules its deletion: the operations are below two paths.
pub async fn life_of_an_aws_key(target: &impl Target, root: (&str, &str)) {
    let mut walk = Walk {
        target,
        root: Signer::new(root.0, root.1),
        answers: Vec::new(),
    };
    walk.life_of_an_aws_key().await;
}

struct Walk<'t, T> {
    target: &'t T,
    root: Signer,
    answers: Vec<Answer>,
}

const PREFIXES: [&str; 2] = ["/rustfs/admin/v3", "/minio/admin/v3"];

impl<T: Target> Walk<'_, T> {
    async fn send(&mut self, request: Request<Bytes>) -> Answer {
        let answer = self.target.send(request.clone()).await;
        assert_eq!(Described::committed().check(&request, &answer), Ok(()));
        self.answers.push(answer.clone());
        answer
    }

    async fn call_below(&mut self, prefix: &str, method: &str, path: &str, body: &str) -> Answer {
        let path = format!("{prefix}{path}");
        let (host, now) = (self.target.host(), self.target.now());
        let request = self
            .root
            .request(method, &host, &path, body.as_bytes(), now);
        self.send(request).await
    }

    async fn call(&mut self, method: &str, path: &str, body: &Value) -> Answer {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        self.call_below(PREFIXES[0], method, path, &body).await
    }

    async fn refused(&mut self, method: &str, path: &str, body: &Value) -> (u16, String) {
        self.call(method, path, body).await.refusal()
    }

    async fn strangers(&mut self, root: (&str, &str)) {
        let (host, now) = (self.target.host(), self.target.now());
        let path = "/rustfs/admin/v3/kms/keys";
        let unsigned = Request::builder()
            .uri(path)
            .header("host", &host)
            .body(Bytes::new())
            .expect("a request");
        let answer = self.send(unsigned).await;
        assert_eq!(answer.refusal(), (401, "AccessDenied".to_owned()));
        for stranger in [
            Signer::new(root.0, "wrong-secret"),
            Signer::new("nobody", root.1),
        ] {
            let request = stranger.request("GET", &host, path, b"", now);
            let answer = self.send(request).await;
            assert_eq!(answer.refusal(), (401, "AccessDenied".to_owned()));
        }
        let presented = self
            .root
            .request("GET", &host, &format!("{path}?limit=1"), b"", now);
        let (mut parts, body) = presented.into_parts();
        parts.uri = format!("{path}?limit=2").parse().expect("a URI");
        let answer = self.send(Request::from_parts(parts, body)).await;
        assert_eq!(answer.refusal().0, 401, "signatures cover the query");
    }

    async fn life_of_a_key(&mut self, scope: &str) {
        let id = format!("{scope}-life");
        let create = json!({
            "key_id": id, "KeyUsage": "ENCRYPT_DECRYPT", "Description": "project-alpha",
            "Tags": {"owner": "security"},
        });
        let created = self.call("POST", "/kms/keys", &create).await.ok();
        assert_eq!(created["key_id"], id.as_str());
        let duplicate = self.refused("POST", "/kms/keys", &create).await;
        assert_eq!(duplicate, (409, "KeyAlreadyExists".to_owned()));
        let on = json!({"key_id": id});
        for path in [
            format!("/kms/keys/{id}"),
            format!("/kms/describe-key?keyId={id}"),
        ] {
            for prefix in PREFIXES {
                let described = self.call_below(prefix, "GET", &path, "").await.ok();
                assert_eq!(described["key_metadata"], created["key_metadata"]);
            }
        }
        let tag = json!({"key_id": id, "tags": {"env": "dev", "stage": "a b+c&d=e"}});
        let tagged = self.call("POST", "/kms/keys/tag", &tag).await.ok();
        assert_eq!(tagged["key_metadata"]["tags"]["stage"], "a b+c&d=e");
        let untag = json!({"key_id": id, "tag_keys": ["env"]});
        let untagged = self.call("POST", "/kms/keys/untag", &untag).await.ok();
        assert_eq!(untagged["key_metadata"]["tags"]["env"], Value::Null);
        let text = json!({"key_id": id, "description": "Grüße \u{1f511}"});
        let described = self
            .call("POST", "/kms/keys/update-description", &text)
            .await
            .ok();
        assert_eq!(described["key_metadata"]["description"], "Grüße \u{1f511}");
        let rotated = self.call("POST", "/kms/keys/rotate", &on).await.ok();
        assert_eq!(rotated["key_metadata"]["key_version"], 2);
        let disabled = self.call("POST", "/kms/keys/disable", &on).await.ok();
        assert_eq!(disabled["key_metadata"]["key_state"], "Disabled");
        let rotate = self.refused("POST", "/kms/keys/rotate", &on).await;
        assert_eq!(rotate, (409, "InvalidKeyState".to_owned()));
        let by_query = format!("/kms/keys/enable?keyId={id}");
        let enabled = self.call("POST", &by_query, &Value::Null).await.ok();
        assert_eq!(enabled["key_metadata"]["key_state"], "Enabled");
        let legacy = format!("/kms/create-key?keyName={scope}-legacy");
        self.call("POST", &legacy, &Value::Null).await.ok();
    }

    async fn lists(&mut self, scope: &str) {
        for n in 0..5 {
            let body = json!({"key_id": format!("{scope}-list-{n}")});
            self.call("POST", "/kms/keys", &body).await.ok();
        }
        let mut found = Vec::new();
        let mut marker = String::new();
        loop {
            let path = format!("/kms/keys?limit=2&prefix={scope}-list-&marker={marker}");
            let page = self.call("GET", &path, &Value::Null).await.ok();
            for key in page["keys"].as_array().expect("keys") {
                found.push(key["key_id"].as_str().expect("an id").to_owned());
            }
            if page["truncated"] != true {
                break;
            }
            marker = page["next_marker"]
                .as_str()
                .expect("a marker")
                .replace('+', "%2B");
        }
        let expected: Vec<String> = (0..5).map(|n| format!("{scope}-list-{n}")).collect();
        assert_eq!(found, expected);
        let legacy = format!("/kms/list-keys?pattern={scope}-list-%3F");
        let listed = self.call("GET", &legacy, &Value::Null).await.ok();
        assert_eq!(listed["keys"].as_array().expect("keys").len(), 5);
        for query in ["limit=0", "limit=x", "marker=never-given-out"] {
            let refused = self
                .refused("GET", &format!("/kms/keys?{query}"), &Value::Null)
                .await;
            assert_eq!(refused, (400, "InvalidRequest".to_owned()), "{query}");
        }
    }

    async fn data_keys(&mut self, scope: &str) {
        let id = format!("{scope}-data");
        self.call("POST", "/kms/keys", &json!({"key_id": id}))
            .await
            .ok();
        let context = json!({"bucket": "b", "object": "2026/q4 report.txt"});
        let generate = json!({"key_id": id, "encryption_context": context});
        let generated = self.call("POST", "/kms/generate-data-key", &generate).await;
        assert_eq!(generated.header("cache-control"), Some("no-store"));
        let (key, blob) = (
            generated.text("plaintext_key"),
            generated.text("ciphertext_blob"),
        );
        let decrypt = json!({"ciphertext_blob": blob, "encryption_context": context});
        for prefix in PREFIXES {
            let body = decrypt.to_string();
            let opened = self.call_below(prefix, "POST", "/kms/decrypt", &body).await;
            assert_eq!(opened.text("plaintext"), key);
        }
        let without = self
            .refused("POST", "/kms/decrypt", &json!({"ciphertext_blob": blob}))
            .await;
        assert_eq!(without, (400, "DecryptionFailed".to_owned()));
        let short = json!({"key_id": id, "key_spec": "AES_128"});
        let short = self.call("POST", "/kms/generate-data-key", &short).await;
        assert_eq!(short.text("plaintext_key").len(), 24);
        let encrypt = json!({"key_id": id, "plaintext": "aGVsbG8="});
        let sealed = self
            .call("POST", "/kms/encrypt", &encrypt)
            .await
            .text("ciphertext_blob");
        let opened = self
            .call("POST", "/kms/decrypt", &json!({"ciphertext_blob": sealed}))
            .await;
        assert_eq!(opened.text("plaintext"), "aGVsbG8=");
        self.call("POST", "/kms/keys/rotate", &json!({"key_id": id}))
            .await
            .ok();
        let rewrapped = self.call("POST", "/kms/rewrap", &decrypt).await.ok();
        assert_eq!(rewrapped["key_version"], 2);
        let items = json!({"items": [decrypt, {"ciphertext_blob": "%"}]});
        let items = self.call("POST", "/kms/rewrap", &items).await.ok();
        assert_eq!(items["items"][0]["key_version"], 2);
        assert_eq!(items["items"][1]["code"], "InvalidRequest");
    }

    async fn bad_requests(&mut self, scope: &str) {
        let nothing = self.refused("GET", "/kms/nothing", &Value::Null).await;
        assert_eq!(nothing, (404, "NotFound".to_owned()));
        let absent = format!("/kms/keys/{scope}-absent");
        let absent = self.refused("GET", &absent, &Value::Null).await;
        assert_eq!(absent, (404, "KeyNotFound".to_owned()));
        let method = self.call("PUT", "/kms/keys", &Value::Null).await;
        assert_eq!(method.refusal(), (405, "MethodNotAllowed".to_owned()));
        for (path, body) in [
            ("/kms/keys", json!({"colour": "red"})),
            ("/kms/keys", json!({"key_id": "../x"})),
            ("/kms/keys", json!([])),
            ("/kms/encrypt", json!({"key_id": "k", "plaintext": "%"})),
            ("/kms/generate-data-key", json!({"key_id": ""})),
        ] {
            let refused = self.refused("POST", path, &body).await;
            assert_eq!(refused, (400, "InvalidRequest".to_owned()), "{path} {body}");
        }
        let segment = self
            .refused("GET", "/kms/keys/%2E%2E%2Fconfig", &Value::Null)
            .await;
        assert_eq!(segment.0, 400);
        let large = " ".repeat((1 << 20) + 1);
        let large = self
            .call_below(PREFIXES[0], "POST", "/kms/keys", &large)
            .await;
        assert_eq!(large.refusal(), (413, "RequestTooLarge".to_owned()));
    }

    /// An operation of AWS KMS's API.
    async fn aws_kms(&mut self, path: &str, operation: &str, body: &Value) -> Answer {
        let (host, now) = (self.target.host(), self.target.now());
        let signer = self.root.clone().for_service("kms");
        let signer = signer.with_target(&format!("TrentService.{operation}"));
        let body = body.to_string();
        let request = signer.request("POST", &host, path, body.as_bytes(), now);
        self.send(request).await
    }

    async fn life_of_an_aws_key(&mut self) {
        // The function of keys makes a key, and the function of data keys uses it.
        let created = self.aws_kms("/aws", "CreateKey", &json!({})).await.ok();
        let made = json!({"KeyId": created["KeyMetadata"]["KeyId"]});
        let mut new = made.clone();
        new["NumberOfBytes"] = 16.into();
        let data_key = self
            .aws_kms("/aws/data", "GenerateDataKey", &new)
            .await
            .ok();
        assert_eq!(data_key["KeyId"], created["KeyMetadata"]["Arn"]);
        let sealed = json!({"CiphertextBlob": data_key["CiphertextBlob"]});
        let opened = self.aws_kms("/aws/data", "Decrypt", &sealed).await.ok();
        assert_eq!(opened["Plaintext"], data_key["Plaintext"]);
        let scheduled = self.aws_kms("/aws", "ScheduleKeyDeletion", &made).await;
        assert_eq!(scheduled.ok()["KeyState"], "PendingDeletion");
        let refused = self.aws_kms("/aws/data", "Decrypt", &sealed).await;
        assert_eq!(refused.json()["__type"], "KMSInvalidStateException");
    }

    async fn aws(&mut self, scope: &str) {
        let key = format!("{scope}-data");
        let on = json!({"KeyId": key});
        for path in ["/aws", "/aws/data"] {
            let described = self.aws_kms(path, "DescribeKey", &on).await.ok();
            assert_eq!(described["KeyMetadata"]["KeyId"], key.as_str(), "{path}");
            let listed = self.aws_kms(path, "ListKeys", &json!({"Limit": 1})).await;
            assert_eq!(listed.ok()["Keys"].as_array().map(Vec::len), Some(1));
            let context = json!({"photos": "photos/a.jpg"});
            let new = json!({"KeyId": key, "KeySpec": "AES_256", "EncryptionContext": context});
            let made = self.aws_kms(path, "GenerateDataKey", &new).await.ok();
            let sealed =
                json!({"CiphertextBlob": made["CiphertextBlob"], "EncryptionContext": context});
            let opened = self.aws_kms(path, "Decrypt", &sealed).await.ok();
            assert_eq!(opened["Plaintext"], made["Plaintext"], "{path}");
        }
        self.life_of_an_aws_key().await;
        let text = json!({"KeyId": key, "Description": "by AWS"});
        let changed = self.aws_kms("/aws", "UpdateKeyDescription", &text).await;
        assert_eq!((changed.status.as_u16(), changed.body.len()), (200, 0));
        let refused = self
            .aws_kms("/aws/data", "UpdateKeyDescription", &text)
            .await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["__type"], "AccessDeniedException");
        let (host, now) = (self.target.host(), self.target.now());
        let signer = self.root.clone().for_service("kms");
        let unnamed = signer.request("POST", &host, "/aws/data", b"{}", now);
        let unnamed = self.send(unnamed).await;
        assert_eq!(unnamed.json()["__type"], "IncompleteSignature");
    }

    async fn first_generation(&mut self, scope: &str) {
        let by_name = format!("keyName={scope}-first");
        for (method, route, field, expected) in [
            ("POST", "create", "status", "created"),
            ("GET", "status", "algorithm", "AES256"),
            ("POST", "disable", "status", "disabled"),
            ("PUT", "enable", "status", "enabled"),
            ("PUT", "disable", "message", "Key disabled successfully"),
            ("POST", "enable", "message", "Key enabled successfully"),
        ] {
            for prefix in PREFIXES {
                if route == "create" && prefix == PREFIXES[1] {
                    continue;
                }
                let path = format!("/kms/key/{route}?{by_name}");
                let answer = self.call_below(prefix, method, &path, "").await.ok();
                assert_eq!(answer[field], expected, "{method} {route}");
            }
        }
        let path = format!("/kms/key/list?pattern={scope}-fir*");
        let listed = self.call("GET", &path, &Value::Null).await.ok();
        assert_eq!(listed["keys"].as_array().expect("keys").len(), 1);
        let absent = format!("/kms/key/status?keyName={scope}-absent");
        let absent = self.refused("GET", &absent, &Value::Null).await;
        assert_eq!(absent, (404, "KMSKeyNotFound".to_owned()));
    }

    async fn minio(&mut self, scope: &str) {
        let id = format!("{scope}-mc");
        let prefix = "/minio/kms/v1";
        let create = format!("/key/create?key-id={id}");
        let created = self.call_below(prefix, "POST", &create, "").await;
        assert_eq!((created.status.as_u16(), created.body.len()), (200, 0));
        let again = self.call_below(prefix, "POST", &create, "").await;
        assert_eq!(again.status, 409);
        assert_eq!(again.json()["Code"], "kms:KeyAlreadyExists");
        let list = format!("/key/list?pattern={scope}-m*");
        let listed = self.call_below(prefix, "GET", &list, "").await.ok();
        assert_eq!(listed[0]["name"], id.as_str());
        assert_eq!(listed.as_array().expect("keys").len(), 1);
        let status = format!("/key/status?key-id={id}");
        let status = self.call_below(prefix, "GET", &status, "").await.ok();
        assert_eq!(status, json!({"key-id": id}));
        let absent = format!("/key/status?key-id={scope}-absent");
        let absent = self.call_below(prefix, "GET", &absent, "").await.ok();
        assert!(absent["encryption-error"].is_string(), "{absent}");
        let version = self.call_below(prefix, "GET", "/version", "").await.ok();
        assert!(version["version"].is_string(), "{version}");
        let apis = self.call_below(prefix, "GET", "/apis", "").await.ok();
        assert_eq!(apis.as_array().expect("routes").len(), 7, "{apis}");
        self.call_below(prefix, "GET", "/metrics", "").await.ok();
        let metrics = self.answers.pop().expect("an answer").json();
        assert!(metrics["kes_http_request_success"].is_u64(), "{metrics}");
        self.call_below(prefix, "GET", "/status", "").await.ok();
        // This answer is about the process, and differs each time.
        let status = self.answers.pop().expect("an answer").json();
        assert_eq!(status["state"]["KeyStoreReachable"], true, "{status}");
        let (host, now) = (self.target.host(), self.target.now());
        let path = format!("{prefix}/key/list?pattern=*");
        let stranger = Signer::new(&format!("{scope}-nobody"), "secret");
        let request = stranger.request("GET", &host, &path, b"", now);
        let refused = self.send(request).await;
        assert_eq!(refused.status, 403);
        assert_eq!(refused.json()["Code"], "InvalidAccessKeyId");
    }

    async fn service(&mut self) {
        for (method, path) in [
            ("GET", "/kms/service-status"),
            ("GET", "/kms/status"),
            ("POST", "/kms/status"),
        ] {
            let status = self.call(method, path, &Value::Null).await.ok();
            assert_eq!(status["status"], "Running", "{path}: {status}");
            assert_eq!(status["healthy"], true, "{path}: {status}");
        }
        let first = self.call_below(PREFIXES[1], "GET", "/kms/status", "").await;
        assert_eq!(first.ok()["status"], "connected");
        let cleared = self
            .call("POST", "/kms/clear-cache", &Value::Null)
            .await
            .status;
        assert_eq!(cleared, 204);
        let running = json!({"backend_type": "local"});
        let refused = self.refused("POST", "/kms/configure", &running).await;
        assert_eq!(refused, (409, "Conflict".to_owned()));
        let stopped = self.call("POST", "/kms/stop", &Value::Null).await.ok();
        assert_eq!(stopped["status"], "Configured");
        let configure = json!({"backend_type": "local", "cache_ttl_seconds": 300});
        self.call("POST", "/kms/configure", &configure).await.ok();
        // Its id differs each time.
        let configured = self.answers.pop().expect("an answer").json();
        assert_eq!(configured["message"], "KMS configured successfully");
        let started = self.call("POST", "/kms/start", &json!({})).await.ok();
        assert_eq!(started["status"], "Running");
        let config = self.call("GET", "/kms/config", &Value::Null).await.ok();
        assert_eq!(config["cache_ttl_seconds"], 300);
        let changes = json!({"cache_ttl_seconds": 600});
        self.call("POST", "/kms/reconfigure", &changes).await.ok();
        self.answers.pop().expect("an answer");
        let config = self.call("GET", "/kms/config", &Value::Null).await.ok();
        assert_eq!(config["cache_ttl_seconds"], 600);
    }

    /// In S3's own protocol.
    async fn s3(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (host, now) = (self.target.host(), self.target.now());
        let signer = self.root.clone().for_service("s3");
        let request = signer.request(method, &host, path, body.as_bytes(), now);
        let answer = self.send(request).await;
        let text = String::from_utf8(answer.body.to_vec()).expect("text");
        (answer.status.as_u16(), text)
    }

    async fn buckets(&mut self, scope: &str) {
        let (bucket, key) = (format!("{scope}-photos"), format!("{scope}-data"));
        let of_bucket = format!("/api/v1/bucket-encryption/{bucket}");
        let absent = self.refused("GET", &of_bucket, &Value::Null).await;
        assert_eq!(absent, (404, "NotFound".to_owned()));
        assert_eq!(self.s3("HEAD", &format!("/{bucket}"), "").await.0, 404);
        assert_eq!(self.s3("PUT", &format!("/{bucket}"), "").await.0, 200);
        let (status, again) = self.s3("PUT", &format!("/{bucket}"), "").await;
        assert_eq!(status, 409, "{again}");
        assert_eq!(self.s3("HEAD", &format!("/{bucket}"), "").await.0, 200);
        let listed = self.call("GET", "/api/v1/buckets", &Value::Null).await.ok();
        assert_eq!(listed["buckets"][0]["name"], bucket.as_str());
        let (_, listed) = self.s3("GET", "/?x-id=ListBuckets", "").await;
        assert!(
            listed.contains(&format!("<Name>{bucket}</Name>")),
            "{listed}"
        );
        let none = self.refused("GET", &of_bucket, &Value::Null).await;
        let no_encryption = "ServerSideEncryptionConfigurationNotFoundError";
        assert_eq!(none, (404, no_encryption.to_owned()));

        let short = json!({"sse_algorithm": "aws:kms", "kms_master_key_id": key});
        let put = self.call("PUT", &of_bucket, &short).await.ok();
        for prefix in ["", PREFIXES[0], PREFIXES[1]] {
            let got = self.call_below(prefix, "GET", &of_bucket, "").await.ok();
            let rules = "ServerSideEncryptionConfiguration";
            assert_eq!(got[rules], put[rules]);
        }
        let (_, got) = self.s3("GET", &format!("/{bucket}?encryption"), "").await;
        assert!(
            got.contains(&format!("<KMSMasterKeyID>{key}</KMSMasterKeyID>")),
            "{got}"
        );
        let described = format!("/kms/keys/{key}?impact=true");
        let described = self.call("GET", &described, &Value::Null).await.ok();
        let used_by = &described["impact"]["references"][0]["id"];
        assert_eq!(used_by, bucket.as_str());
        let at_once = json!({"key_id": key, "force_immediate": true, "confirm_key_id": key});
        let refused = self.refused("DELETE", "/kms/keys/delete", &at_once).await;
        assert_eq!(refused, (409, "Conflict".to_owned()));

        let rules = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
            <SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>absent</KMSMasterKeyID>\
            </ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
        let encryption = format!("/{bucket}?encryption=");
        let (status, refused) = self.s3("PUT", &encryption, rules).await;
        assert!(
            status == 400 && refused.contains("KMS.NotFoundException"),
            "{refused}"
        );
        let aes = rules
            .replace("aws:kms", "AES256")
            .replace("<KMSMasterKeyID>absent</KMSMasterKeyID>", "");
        assert_eq!(self.s3("PUT", &encryption, &aes).await.0, 200);
        assert_eq!(self.s3("DELETE", &encryption, "").await.0, 204);
        self.call("DELETE", &of_bucket, &Value::Null).await.ok();
        let (status, none) = self.s3("GET", &encryption, "").await;
        assert!(status == 404 && none.contains(no_encryption), "{none}");
    }

    async fn deletion(&mut self, scope: &str) {
        let on = json!({"key_id": format!("{scope}-data")});
        let deleted = self.call("DELETE", "/kms/keys/delete", &on).await.ok();
        assert!(deleted["deletion_date"].is_string());
        let again = self.refused("DELETE", "/kms/keys/delete", &on).await;
        assert_eq!(again, (409, "InvalidKeyState".to_owned()));
        let spared = self
            .call("POST", "/kms/keys/cancel-deletion", &on)
            .await
            .ok();
        assert_eq!(spared["key_metadata"]["key_state"], "Enabled");
        let id = format!("{scope}-legacy");
        let at_once = json!({"key_id": id, "force_immediate": true, "confirm_key_id": id});
        self.call("DELETE", "/kms/keys/delete", &at_once).await.ok();
        let gone = self
            .refused("GET", &format!("/kms/keys/{id}"), &Value::Null)
            .await;
        assert_eq!(gone, (404, "KeyNotFound".to_owned()));
    }
}
