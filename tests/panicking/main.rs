//! One machine's deployment, served as `keyway serve` does, with one more route: its handler panics while it holds
//! secrets. The product has no such route.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it panics on purpose, and a test that cannot go on must stop"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use keyway_crypto::{EncryptionContext, Key256, SecretBytes};
use keyway_deployment_assembly::{
    AuditSettings, AwsCiphertext, KesSettings, Process, Proof, Settings, VaultFiles, environment,
    instance, metrics, root_access_key,
};
use keyway_deployment_embedded::{self as embedded, Operator};
use keyway_dialect_rustfs::{RustFs, mount};
use keyway_domain::datakey::{DataKeyRequest, DataKeys, MAX_PLAINTEXT_BYTES, Opened};
use keyway_domain::keys::KeyId;
use keyway_domain::machine::Machine;
use keyway_domain::policy::Action;
use keyway_http::{Call, Cors, HandlerResult, Route};
use keyway_logging::{LogFormat, start_log};
use keyway_metrics::Open;
use keyway_runtime_hyper::{listen, serve, stop_signal};
use keyway_sites::Composition;

/// The secrets that a handler may hold when it panics.
struct Held {
    call: Call<RustFs>,
    sent: SecretBytes,
    opened: Opened,
    material: Key256,
}

/// Runs operations on the body, and then panics as the path says. The body is 32 bytes: a plaintext and a key.
async fn panicking(data_keys: Arc<DataKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let how = call.params.get("how").to_owned();
    let sent = SecretBytes::from(call.request.body.to_vec());
    let material = Key256::try_from(sent.expose()).unwrap();
    let (key, none) = (
        KeyId::parse("key_id", "k").unwrap(),
        EncryptionContext::none(),
    );
    let caller = &call.caller;
    let sealed = data_keys
        .encrypt(
            caller,
            &DataKeyRequest::new(key, &none),
            &sent,
            MAX_PLAINTEXT_BYTES,
        )
        .await?;
    let opened = data_keys
        .decrypt(
            caller,
            &DataKeyRequest::of_ciphertext(None, &none),
            &sealed.blob,
        )
        .await?;
    let text = String::from_utf8(call.request.body.to_vec()).unwrap();
    let request = DataKeyRequest::of_ciphertext(None, &none);
    let refused = data_keys.decrypt(caller, &request, text.as_bytes());
    let refused = refused.await.map(|_| ());
    let held = Held {
        call,
        sent,
        opened,
        material,
    };
    match how.as_str() {
        "message" => panic!("on purpose"),
        "bounds" => panic!("{}", held.sent.expose()[usize::from(u16::MAX)]),
        "length" => held.opened.plaintext.expose().split_at(1 << 16).0.len(),
        "refused" => {
            refused.unwrap();
            0
        }
        "parsed" => {
            // A key id has no blank.
            KeyId::parse("key_id", &format!("{text} ")).unwrap();
            0
        }
        "task" => {
            let task = tokio::spawn(async move {
                let held = held;
                panic!("on purpose, on {}", held.call.request.method)
            });
            task.await.unwrap()
        }
        "thread" => {
            let task = tokio::task::spawn_blocking(move || {
                let short = Key256::try_from(&held.material.expose()[..7]);
                short.map(|_| 0).unwrap()
            });
            task.await.unwrap()
        }
        other => panic!("{other} is no way to panic"),
    };
    Ok(Response::new(Bytes::new()))
}

#[tokio::main]
async fn main() {
    start_log(LogFormat::Json, "trace").unwrap();
    let stop = stop_signal().unwrap();
    let machine: Arc<dyn Machine> =
        Arc::new(keyway_deployment_assembly::SystemMachine::start(None));
    let metrics = metrics(&machine).unwrap();
    let data_dir = environment("KEYWAY_DATA_DIR").unwrap().unwrap();
    let operator = Operator {
        data_dir: data_dir.as_str().into(),
        root_keyring_file: None,
        passphrase_file: None,
    };
    let ports = embedded::open(&operator, &VaultFiles::default())
        .await
        .unwrap()
        .counted(&metrics);
    let settings = Settings {
        signing_region: None,
        state_ttl: Duration::from_secs(5),
        allow_immediate_deletion: false,
        cors_origins: Cors::Off,
        rustfs_spelling: String::new(),
        aws_account_id: "000000000000".parse().unwrap(),
        aws_region: None,
        aws_ciphertext: AwsCiphertext::default(),
        open_legacy_kes: false,
        audit: AuditSettings::default(),
        kes: KesSettings::default(),
    };
    let proof = Proof::Signature(root_access_key().unwrap());
    let server = ports.reading().server(&settings, proof);
    let started = ports.start_if_new(&server.service, None).await;
    started.unwrap();
    let process = Process {
        settings: &settings,
        machine: &machine,
        clock: &ports.clock,
        metrics: &metrics,
        kes_proxy: None,
        pays_for_transfer: false,
    };
    let keys = ports.keys(&server, &settings);
    let composition = Composition::of(&server, &process).keys(&keys).data_keys();
    let route = Route::over(
        Method::POST,
        "/panic/{how}",
        1 << 10,
        Some(Action::Decrypt),
        &server.data_keys,
        panicking,
    );
    let panics = mount(&server.authenticator, vec![route]).unwrap();
    let errors = Arc::new(keyway_logging::errors);
    let audit = ports.audit(&settings.audit, errors).unwrap();
    let instance = instance(ports.random.as_ref()).unwrap();
    let site = composition.mounts().unwrap().site(instance).unwrap();
    let site = site
        .with(panics)
        .with(keyway_metrics::mount(&metrics, Open::ToLoopback).unwrap());
    let site = audit.observer(site);
    let clock = Arc::clone(&ports.clock);
    let site = site.observed_by(metrics, Arc::new(move || clock.monotonic()));
    let listener = listen(
        "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap(),
        false,
    )
    .await
    .unwrap();
    tracing::info!(listen = %listener.local_addr().unwrap(), "serving");
    serve(listener, Arc::new(site), stop).await;
    audit.finish().await;
}
