//! Does with its KMS what a RustFS server does, with RustFS's own crate. RustFS's variables configure it.
//!
//! `KEYWAY_EXPECTS=envelope|plain` is how data keys must come. `KEYWAY_PROBE=yes|no` says whether the probe's key exists.
//! `KEYWAY_OBJECT` is a file that keeps the data key of an object: a second run opens it. With `KEYWAY_ROLE=server`, the access
//! key has only the permissions that a server needs.

use std::path::Path;
use std::time::Duration;

use rustfs_kms::probe::{PROBE_KEY_ID, ProbeResult};
use rustfs_kms::service::{DataKey, ObjectEncryptionService};
use rustfs_kms::service_manager::{KmsServiceManager, KmsServiceStatus};
use rustfs_kms::{
    CancelKeyDeletionRequest, CreateKeyRequest, DeleteKeyRequest, DescribeKeyRequest, KeyState,
    KmsConfig, KmsError, ListKeysRequest, ObjectEncryptionContext, is_data_key_envelope,
};
use serde_json::{Value, json};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set"))
}

fn object(bucket: &str, key: &str) -> ObjectEncryptionContext {
    ObjectEncryptionContext::new(bucket.to_owned(), key.to_owned())
}

/// A running KMS of RustFS.
struct Kms {
    manager: KmsServiceManager,
    is_enveloped: bool,
}

impl Kms {
    async fn start() -> Self {
        let manager = KmsServiceManager::new();
        let config = KmsConfig::from_env().expect("RustFS's variables");
        manager.configure(config).await.expect("it is configured");
        manager.start().await.expect("it starts");
        assert_eq!(manager.get_status().await, KmsServiceStatus::Running);
        assert!(manager.health_check().await.expect("its health check runs"));
        let is_enveloped = match variable("KEYWAY_EXPECTS").as_str() {
            "envelope" => true,
            "plain" => false,
            other => panic!("KEYWAY_EXPECTS is {other}"),
        };
        Self {
            manager,
            is_enveloped,
        }
    }

    async fn objects(&self) -> std::sync::Arc<ObjectEncryptionService> {
        let service = self.manager.get_encryption_service().await;
        service.expect("it is running")
    }

    /// A data key for an object, as a PUT makes it.
    async fn put(&self, key: Option<&str>, object: &ObjectEncryptionContext) -> (DataKey, Vec<u8>) {
        let made = self.objects().await;
        let key = key.map(str::to_owned);
        let (data_key, blob) = made
            .create_data_key(&key, object)
            .await
            .expect("a data key");
        // RustFS's object layer asks this to choose who decrypts: without an envelope, its GET fails.
        assert_eq!(is_data_key_envelope(&blob), self.is_enveloped);
        (data_key, blob)
    }

    /// Decrypts a data key, as a GET does.
    async fn get(
        &self,
        blob: &[u8],
        object: &ObjectEncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.objects().await.decrypt_data_key(blob, object).await
    }

    async fn state(&self, key: &str) -> KeyState {
        let key_id = key.to_owned();
        let described = self
            .objects()
            .await
            .describe_key(DescribeKeyRequest { key_id })
            .await;
        described.expect("the key exists").key_metadata.key_state
    }

    /// The probe's first result.
    async fn probed(&self) -> ProbeResult {
        let status = self.manager.probe_status().expect("the probe is on");
        for _ in 0..600 {
            let _ = &status;
            let result = self.manager.probe_status().expect("the probe is on").result;
            if result != ProbeResult::Pending {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the probe has no result after a minute");
    }
}

#[tokio::main]
async fn main() {
    let kms = Kms::start().await;
    let kept = variable("KEYWAY_OBJECT");
    if Path::new(&kept).exists() {
        reads_what_an_earlier_process_wrote(&kms, &kept).await;
        return;
    }
    if std::env::var("KEYWAY_ROLE").is_ok_and(|role| role == "server") {
        server_with_the_least_permissions(&kms).await;
        keeps_an_object(&kms, "default", &kept).await;
        return;
    }
    let expected = match variable("KEYWAY_PROBE").as_str() {
        "yes" => ProbeResult::Success,
        _ => ProbeResult::Unsupported,
    };
    assert_eq!(kms.probed().await, expected);
    let key = objects_of_a_key(&kms).await;
    states_of_a_key(&kms, &key).await;
    defaults_and_lists(&kms, &key).await;
    keeps_an_object(&kms, &key, &kept).await;
}

async fn server_with_the_least_permissions(kms: &Kms) {
    // The probe's key is absent, and its description permitted: the probe turns itself off.
    assert_eq!(kms.probed().await, ProbeResult::Unsupported);
    let photo = object("photos", "2026/a.jpg");
    let (data_key, blob) = kms.put(None, &photo).await;
    let opened = kms.get(&blob, &photo).await.expect("the same object");
    assert_eq!(opened.plaintext_key, data_key.plaintext_key);
    let listed = kms
        .objects()
        .await
        .list_keys(ListKeysRequest::default())
        .await;
    let listed = listed.expect("a list").keys;
    let listed: Vec<&str> = listed.iter().map(|key| key.key_id.as_str()).collect();
    assert_eq!(listed, ["default"]);
    let service = kms.objects().await;
    let other = Some("other".to_owned());
    let other = service.create_data_key(&other, &photo).await;
    assert!(matches!(other, Err(KmsError::AccessDenied { .. })));
    let new = kms
        .objects()
        .await
        .create_key(CreateKeyRequest::default())
        .await;
    assert!(matches!(new, Err(KmsError::AccessDenied { .. })), "{new:?}");
}

async fn objects_of_a_key(kms: &Kms) -> String {
    let new = CreateKeyRequest {
        description: Some("objects".to_owned()),
        tags: [("team".to_owned(), "storage".to_owned())].into(),
        ..CreateKeyRequest::default()
    };
    let key = kms
        .objects()
        .await
        .create_key(new)
        .await
        .expect("a key")
        .key_id;
    assert_eq!(kms.state(&key).await, KeyState::Enabled);

    let photo = object("photos", "2026/a.jpg");
    let (data_key, blob) = kms.put(Some(&key), &photo).await;
    let opened = kms.get(&blob, &photo).await.expect("the same object");
    assert_eq!(opened.plaintext_key, data_key.plaintext_key);
    for other in [
        object("photos", "2026/b.jpg"),
        object("videos", "2026/a.jpg"),
    ] {
        assert!(
            kms.get(&blob, &other).await.is_err(),
            "the context is bound"
        );
    }
    // The client's own context, as a header of S3 carries it.
    let mut tagged = object("photos", "a b/ü.jpg");
    tagged
        .encryption_context
        .insert("team".to_owned(), "a".to_owned());
    let (data_key, blob) = kms.put(Some(&key), &tagged).await;
    let opened = kms.get(&blob, &tagged).await.expect("the same object");
    assert_eq!(opened.plaintext_key, data_key.plaintext_key);
    tagged.encryption_context.clear();
    assert!(
        kms.get(&blob, &tagged).await.is_err(),
        "the client's part is bound too"
    );
    key
}

async fn states_of_a_key(kms: &Kms, key: &str) {
    let manager = kms.manager.get_manager().await.expect("it is running");
    let photo = object("photos", "2026/c.jpg");
    let (old, blob) = kms.put(Some(key), &photo).await;
    let opens = async || {
        let opened = kms.get(&blob, &photo).await.expect("the same object");
        assert_eq!(opened.plaintext_key, old.plaintext_key);
    };
    let is_refused = async || {
        assert!(kms.get(&blob, &photo).await.is_err());
        let key = Some(key.to_owned());
        assert!(
            kms.objects()
                .await
                .create_data_key(&key, &photo)
                .await
                .is_err()
        );
    };

    manager.rotate_key(key).await.expect("it rotates");
    opens().await;
    let (new, after) = kms.put(Some(key), &photo).await;
    let opened = kms.get(&after, &photo).await.expect("the same object");
    assert_eq!(opened.plaintext_key, new.plaintext_key);

    manager.disable_key(key).await.expect("it is disabled");
    assert_eq!(kms.state(key).await, KeyState::Disabled);
    is_refused().await;
    manager.enable_key(key).await.expect("it is enabled");
    opens().await;

    let deletion = DeleteKeyRequest {
        key_id: key.to_owned(),
        pending_window_in_days: Some(7),
        force_immediate: None,
        confirm_key_id: None,
    };
    manager.delete_key(deletion).await.expect("it is scheduled");
    assert_eq!(kms.state(key).await, KeyState::PendingDeletion);
    is_refused().await;
    let cancel = CancelKeyDeletionRequest {
        key_id: key.to_owned(),
    };
    manager
        .cancel_key_deletion(cancel)
        .await
        .expect("it is cancelled");
    // As on AWS, and other than in Keyway's other APIs.
    assert_eq!(kms.state(key).await, KeyState::Disabled);
    manager.enable_key(key).await.expect("it is enabled");
    opens().await;
}

async fn defaults_and_lists(kms: &Kms, key: &str) {
    // RUSTFS_KMS_DEFAULT_KEY_ID names a key of Keyway that has a name as its id.
    let photo = object("photos", "2026/d.jpg");
    let (data_key, blob) = kms.put(None, &photo).await;
    let opened = kms.get(&blob, &photo).await.expect("the same object");
    assert_eq!(opened.plaintext_key, data_key.plaintext_key);

    let listed = kms
        .objects()
        .await
        .list_keys(ListKeysRequest::default())
        .await;
    let listed: Vec<String> = (listed.expect("a list").keys.into_iter())
        .map(|key| key.key_id)
        .collect();
    for wanted in [key, "default"] {
        assert!(listed.iter().any(|id| id == wanted), "{listed:?}");
    }
    let is_probe = |id: &String| id == PROBE_KEY_ID;
    assert_eq!(
        listed.iter().any(is_probe),
        variable("KEYWAY_PROBE") == "yes"
    );
    let absent = DescribeKeyRequest {
        key_id: "absent".to_owned(),
    };
    let absent = kms.objects().await.describe_key(absent).await;
    assert!(
        matches!(absent, Err(KmsError::KeyNotFound { .. })),
        "{absent:?}"
    );
}

async fn keeps_an_object(kms: &Kms, key: &str, file: &str) {
    let (data_key, blob) = kms.put(Some(key), &object("photos", "kept")).await;
    kms.manager.restart().await.expect("it restarts");
    let opened = kms.get(&blob, &object("photos", "kept")).await;
    assert_eq!(
        opened.expect("the same object").plaintext_key,
        data_key.plaintext_key
    );
    let kept = json!({"blob": blob, "plaintext": data_key.plaintext_key});
    std::fs::write(file, kept.to_string()).expect("the file can be written");
}

async fn reads_what_an_earlier_process_wrote(kms: &Kms, file: &str) {
    let kept: Value =
        serde_json::from_slice(&std::fs::read(file).expect("the file is there")).expect("JSON");
    let bytes =
        |name: &str| -> Vec<u8> { serde_json::from_value(kept[name].clone()).expect("bytes") };
    let opened = kms.get(&bytes("blob"), &object("photos", "kept")).await;
    assert_eq!(
        opened.expect("the same object").plaintext_key,
        *bytes("plaintext")
    );
}
