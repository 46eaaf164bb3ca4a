//! AWS KMS's API: arbitrary operations and bodies. Nothing panics, every refusal is a 400 with a code, every other
//! answer is JSON or empty, and what is encrypted decrypts in its own encryption context alone.
//!
//! The input is the value of `X-Amz-Target`, a line feed and the body. In the body, `$SEALED` stands for a ciphertext of
//! the key `k` under the context {"a":"b"}.
#![no_main]

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use keyway_auth::Authenticator;
use keyway_dialect_aws::{Serving, root_mount};
use keyway_domain::access::{Caller, Grant};
use keyway_domain::datakey::DataKeys;
use keyway_domain::keyring::KeyWrapper;
use keyway_domain::keys::{KeyDirectory, KeyId, KeyReader, Keys, NewKey};
use keyway_domain::policy::Policy;
use keyway_domain::ports::{Clock, Random};
use keyway_domain::service::Service;
use keyway_domain::wrappers::Wrappers;
use keyway_http::{Body, IamCaller, Peer, Site};
use keyway_testkit::{
    FixedClock, MemorySecrets, MemoryTable, MemoryVault, MemoryVaults, SeededRandom, signed_table,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// After so many inputs the keys that they made are dropped.
const LIFE: u32 = 2000;

fuzz_target!(|data: &[u8]| {
    thread_local! {
        static SERVER: RefCell<Option<(Server, u32)>> = const { RefCell::new(None) };
    }
    SERVER.with_borrow_mut(|kept| {
        let (server, asked) = kept.get_or_insert_with(|| (Server::new(), 0));
        server.input(data);
        *asked += 1;
        if *asked == LIFE {
            *kept = None;
        }
    });
});

struct Server {
    runtime: Runtime,
    site: Site,
    sealed: String,
}

impl Server {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().build().unwrap();
        let site = runtime.block_on(site());
        let mut server = Self {
            runtime,
            site,
            sealed: String::new(),
        };
        server.restore();
        let body = json!({"KeyId": "k", "Plaintext": "eA==", "EncryptionContext": {"a": "b"}});
        let (_, made) = server.kms("Encrypt", &body);
        server.sealed = made["CiphertextBlob"].as_str().unwrap().to_owned();
        server
    }

    /// The key `k`, enabled.
    fn restore(&self) {
        for operation in ["CancelKeyDeletion", "EnableKey"] {
            self.kms(operation, &json!({"KeyId": "k"}));
        }
    }

    fn input(&self, data: &[u8]) {
        let end = data.iter().position(|byte| *byte == b'\n');
        let (target, body) = data.split_at(end.unwrap_or(data.len()));
        let body = body.strip_prefix(b"\n").unwrap_or_default();
        let body = self.filled_in(body);
        let Some((status, answer)) = self.send(target, &body) else {
            return;
        };
        match (status, target) {
            (200, b"TrentService.Encrypt" | b"TrentService.GenerateDataKey") => {
                // A text in an ignored member may be no UTF-8.
                if let Ok(asked) = serde_json::from_slice(&body) {
                    self.opens(&asked, &answer);
                }
            }
            (
                200,
                b"TrentService.DisableKey"
                | b"TrentService.ScheduleKeyDeletion"
                | b"TrentService.CancelKeyDeletion",
            ) => self.restore(),
            _ => {}
        }
    }

    fn filled_in(&self, body: &[u8]) -> Vec<u8> {
        const NAME: &[u8] = b"$SEALED";
        match body.windows(NAME.len()).position(|window| window == NAME) {
            Some(at) => [
                &body[..at],
                self.sealed.as_bytes(),
                &body[at + NAME.len()..],
            ]
            .concat(),
            None => body.to_vec(),
        }
    }

    /// What was encrypted opens in its own context alone.
    fn opens(&self, asked: &Value, made: &Value) {
        let mut body = json!({"CiphertextBlob": made["CiphertextBlob"]});
        if let Some(context) = asked.get("EncryptionContext") {
            body["EncryptionContext"] = context.clone();
        }
        let (status, opened) = self.kms("Decrypt", &body);
        assert_eq!(status, 200, "{asked} {opened}");
        let plaintext = made.get("Plaintext").unwrap_or(&asked["Plaintext"]);
        assert_eq!(&opened["Plaintext"], plaintext, "{asked}");
        body["EncryptionContext"] = json!({"another": "context"});
        let (status, opened) = self.kms("Decrypt", &body);
        if asked["EncryptionContext"] != body["EncryptionContext"] {
            assert_eq!(status, 400, "{asked} {opened}");
            assert_eq!(opened["__type"], "InvalidCiphertextException");
        }
    }

    fn kms(&self, operation: &str, body: &Value) -> (u16, Value) {
        let target = format!("TrentService.{operation}");
        self.send(target.as_bytes(), body.to_string().as_bytes())
            .unwrap()
    }

    /// The status and body of the answer, which has one of the forms of AWS's answers. `None` if HTTP has no such header.
    fn send(&self, target: &[u8], body: &[u8]) -> Option<(u16, Value)> {
        let body = Full::new(Bytes::copy_from_slice(body));
        let body: Body = Box::pin(body.map_err(|never| match never {}));
        let request = Request::post("/")
            .header("host", "kms.test")
            // RustFS's data keys come in an envelope.
            .header("user-agent", "aws-sdk-rust/1.3")
            .header("x-amz-date", "20260304T050607Z")
            .header("x-amz-target", target)
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AK/20260304/us-east-1/execute-api/aws4_request, \
                 SignedHeaders=host;x-amz-date;x-amz-target, Signature=00",
            )
            .body(body)
            .ok()?;
        let mut peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true);
        peer.iam_caller = Some(IamCaller {
            arn: "arn:aws:iam::000000000000:user/app".to_owned(),
            account_id: "000000000000".to_owned(),
            access_key_id: "AK".to_owned(),
        });
        let answer = self.runtime.block_on(self.site.respond(request, peer));
        let status = answer.status();
        assert!(
            status == StatusCode::OK || status == StatusCode::BAD_REQUEST,
            "{answer:?}"
        );
        assert!(
            answer.headers().contains_key("x-amzn-requestid"),
            "{answer:?}"
        );
        let held = match answer.body().is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(answer.body()).unwrap(),
        };
        assert_eq!(
            status == StatusCode::BAD_REQUEST,
            held["__type"].is_string(),
            "{answer:?}"
        );
        Some((status.as_u16(), held))
    }
}

/// The API over memory, behind a gateway that has authenticated its caller.
async fn site() -> Site {
    let clock: Arc<dyn Clock> = Arc::new(FixedClock::new("2026-03-04T05:06:07Z".parse().unwrap()));
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    let stored = Arc::new(MemoryTable::new(clock.clone()));
    let secrets = Arc::new(MemorySecrets::new());
    let Ok((table, keyring)) = signed_table(&stored, secrets, &clock, &random).await else {
        panic!("memory does not fail")
    };
    let wrapper: Arc<dyn KeyWrapper> = keyring;
    let vaults = Arc::new(MemoryVaults::new(Arc::new(MemoryVault::new(9))));
    let wrappers = Arc::new(Wrappers::new(wrapper, vaults));
    let ttl = Duration::from_secs(5);
    let service = Arc::new(Service::new(table.clone(), clock.clone(), ttl));
    service
        .start_if_new(table.as_ref(), random.as_ref(), None)
        .await
        .unwrap();
    let reader = Arc::new(KeyReader::new(
        table.clone(),
        wrappers.clone(),
        clock.clone(),
        ttl,
    ));
    let data_keys = DataKeys::new(reader.clone(), service.clone(), random.clone());
    let directory = KeyDirectory::new(reader.clone(), service.clone());
    let of_serving = clock.clone();
    let keys = Keys::new(table, reader, service, wrappers, clock, random, false);
    let authenticator = Authenticator::by_gateway(Policy::canned("kms-admin").unwrap());
    let everything = Grant::Policy(Policy::canned("kms-admin").unwrap());
    let caller = Caller::new("fuzz", Arc::new(everything));
    let new = NewKey {
        id: Some(KeyId::parse("key_id", "k").unwrap()),
        ..NewKey::default()
    };
    keys.create(&caller, new).await.unwrap();
    let serving = Serving {
        directory: Arc::new(directory),
        data_keys: Arc::new(data_keys),
        account: "000000000000".parse().unwrap(),
        region: None,
        envelope: None,
        clock: of_serving,
    };
    let mount = root_mount(
        &Arc::new(authenticator),
        &Arc::new(serving),
        &Arc::new(keys),
    );
    Site::new(7, mount.unwrap())
}
