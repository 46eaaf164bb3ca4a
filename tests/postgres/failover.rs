//! Three nodes over a primary and its standby, and clients that try the next node after a failure.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keyway_tests::{KesClient, KesIdentity, Link, LinkState, Postgres, Server, ServerOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::nodes::{copied, folder, node, now};

const CLIENTS: usize = 6;
const KES_CLIENTS: usize = 3;
/// How long a client waits for an answer before it tries the next node.
const PATIENCE: Duration = Duration::from_secs(3);
/// An operation with all its retries, two connections and the client's own patience.
const LONGEST_GAP: Duration = Duration::from_secs(45);

/// Clients that create keys and make data keys of them.
pub(crate) struct Clients {
    tasks: JoinSet<Done>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
}

/// What one client did.
#[derive(Default)]
pub(crate) struct Done {
    api: &'static str,
    /// The keys that were acknowledged.
    pub(crate) made: Vec<String>,
    /// Ciphertexts of data keys with their key and plaintext, of KES's API.
    data_keys: Vec<(String, Value)>,
    /// The longest time without a success.
    longest: Duration,
}

impl Clients {
    pub(crate) fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
        }
    }

    /// Adds clients of RustFS's API, which know all nodes.
    pub(crate) fn of(&mut self, nodes: &[Arc<Server>]) {
        // Clients that were added before have the lower numbers: a key exists once.
        let first = self.tasks.len();
        for client in first..first + CLIENTS {
            let nodes = nodes.to_vec();
            let (stop, acknowledged) = (Arc::clone(&self.stop), Arc::clone(&self.acknowledged));
            self.tasks.spawn(async move {
                let (mut done, mut last) = (Done::default(), now());
                done.api = "rustfs";
                let (mut number, mut at) = (0, client);
                while !stop.load(Ordering::SeqCst) {
                    let id = format!("client-{client}.{number}");
                    number += 1;
                    let server = &nodes[at % nodes.len()];
                    if creates(server, &id).await {
                        done.made.push(id);
                        done.longest = done.longest.max(last.elapsed());
                        last = now();
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    } else {
                        at += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                done
            });
        }
    }

    /// Adds clients of KES's API with a certificate, which know two nodes, as MinIO does. They stay with one endpoint, and
    /// take the other after a failed connection, a missing answer or a status of 5xx.
    fn of_kes(&mut self, kes: &Kes, nodes: &[Arc<Server>; 2]) {
        for client in 0..KES_CLIENTS {
            let endpoints = nodes.each_ref().map(|node| kes.client(node));
            let (stop, acknowledged) = (Arc::clone(&self.stop), Arc::clone(&self.acknowledged));
            self.tasks.spawn(async move {
                let (mut done, mut last) = (Done::default(), now());
                done.api = "kes";
                let (mut number, mut at) = (0, client);
                while !stop.load(Ordering::SeqCst) {
                    let id = format!("kes-client-{client}-{number}");
                    number += 1;
                    let endpoint = &endpoints[at % endpoints.len()];
                    let Some(data_key) = creates_by_kes(endpoint, &id, &mut done.made).await else {
                        at += 1;
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    };
                    done.data_keys.push((id, data_key));
                    done.longest = done.longest.max(last.elapsed());
                    last = now();
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                done
            });
        }
    }

    /// Waits until so many more keys were acknowledged.
    pub(crate) async fn go_on(&self, more: usize) {
        let until = self.acknowledged.load(Ordering::SeqCst) + more;
        let going = async {
            while self.acknowledged.load(Ordering::SeqCst) < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let limit = Duration::from_secs(90);
        tokio::time::timeout(limit, going)
            .await
            .expect("the clients go on");
    }

    /// Ends the clients.
    pub(crate) async fn end(self) -> Vec<Done> {
        self.stop.store(true, Ordering::SeqCst);
        self.tasks.join_all().await
    }
}

/// Whether the node acknowledges the key.
async fn creates(server: &Server, id: &str) -> bool {
    let body = json!({ "key_id": id }).to_string();
    let call = server.try_call(server.root(), "POST", "/kms/keys", &body);
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => answer.status == 200,
        _ => false,
    }
}

/// A data key of a new key, if the node acknowledges both.
async fn creates_by_kes(client: &KesClient, id: &str, made: &mut Vec<String>) -> Option<Value> {
    let call = async |path: &str, body: Option<&str>| {
        let json = [("content-type", "application/json")];
        let sent = client.send("POST", path, &json, body);
        let answer = tokio::time::timeout(PATIENCE, sent).await.ok()?.ok()?;
        (answer.status == 200).then_some(answer)
    };
    call(&format!("/v1/key/create/{id}"), None).await?;
    made.push(id.to_owned());
    let data_key = call(&format!("/v1/key/generate/{id}"), Some("{}")).await?;
    Some(data_key.json())
}

/// KES's API on every node: one certificate for all, and the client that may do everything.
struct Kes {
    identity: KesIdentity,
    certificate: CertificateDer<'static>,
    files: [String; 2],
}

impl Kes {
    fn new(folder: &Path) -> Self {
        let made = generate_simple_self_signed(["localhost".to_owned()]);
        let CertifiedKey { cert, signing_key } = made.unwrap();
        let files = [
            ("kes.crt", cert.pem()),
            ("kes.key", signing_key.serialize_pem()),
        ];
        let files = files.map(|(name, pem)| {
            let path = folder.join(name);
            std::fs::write(&path, pem).unwrap();
            let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, own).unwrap();
            path.to_str().unwrap().to_owned()
        });
        Self {
            identity: KesIdentity::ecdsa(),
            certificate: cert.der().clone(),
            files,
        }
    }

    fn listened(&self, options: ServerOptions) -> ServerOptions {
        options
            .variable("KEYWAY_KES_LISTEN", "127.0.0.1:0")
            .variable("KEYWAY_KES_CERT", &self.files[0])
            .variable("KEYWAY_KES_KEY", &self.files[1])
            .variable("KEYWAY_KES_ADMIN", &self.identity.name())
    }

    fn client(&self, node: &Server) -> KesClient {
        KesClient::new(node.kes(), self.certificate.clone(), &self.identity)
    }
}

/// A node's ways to the primary and to the standby.
struct Ways([Link; 2]);

impl Ways {
    async fn to(primary: &Postgres, standby: &Postgres) -> Self {
        let primary = Link::to(primary.socket()).await;
        Self([primary, Link::to(standby.socket()).await])
    }

    fn url(&self, database: &str) -> String {
        let [first, second] = &self.0;
        format!(
            "postgres://keyway@127.0.0.1:{},127.0.0.1:{}/{database}",
            first.port, second.port
        )
    }

    fn set(&self, state: LinkState) {
        for link in &self.0 {
            link.set(state);
        }
    }
}

async fn three_nodes(
    ways: &[Ways; 3],
    database: &str,
    kes: &Kes,
    folder: &Path,
) -> [Arc<Server>; 3] {
    let keyring = folder.join("node-0");
    let start = async |ways: &Ways, keyring: &Path| {
        let options = kes.listened(node(&ways.url(database), keyring));
        Arc::new(options.start(folder).await)
    };
    let first = start(&ways[0], &keyring).await;
    let second = copied(&keyring, &folder.join("node-1"));
    let third = copied(&keyring, &folder.join("node-2"));
    [
        first,
        start(&ways[1], &second).await,
        start(&ways[2], &third).await,
    ]
}

/// Every surviving node has each acknowledged key, and opens the data keys that another one made.
async fn nothing_is_lost(kes: &Kes, survivors: [&Server; 2], done: &[Done]) {
    for done in done {
        for (id, node) in done.made.iter().zip(survivors.into_iter().cycle()) {
            let answer = node.call("GET", &format!("/kms/keys/{id}"), "").await;
            assert_eq!(answer.status, 200, "the acknowledged {id} is lost");
        }
        let Some((id, data_key)) = done.data_keys.first() else {
            continue;
        };
        for node in survivors {
            let body = json!({"ciphertext": data_key["ciphertext"]});
            let path = format!("/v1/key/decrypt/{id}");
            let opened = kes.client(node).call("POST", &path, Some(&body)).await;
            assert_eq!(
                opened.text("plaintext"),
                data_key["plaintext"].as_str().unwrap()
            );
        }
    }
    let of_rustfs = done.iter().find(|done| done.api == "rustfs").unwrap();
    let body = json!({ "key_id": of_rustfs.made[0] }).to_string();
    let [one, other] = survivors;
    let made_by_one = one.call("POST", "/kms/generate-data-key", &body).await;
    let blob = made_by_one.text("ciphertext_blob");
    let body = json!({ "ciphertext_blob": blob }).to_string();
    other.call("POST", "/kms/decrypt", &body).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_lose_no_acknowledged_key_in_a_kill_a_pause_a_cut_and_a_failover() {
    let Some(primary) = Postgres::start().await else {
        return;
    };
    let url = primary.database();
    let database = url.rsplit('/').next().unwrap();
    let standby = primary.standby().await;
    primary.sql(
        "postgres",
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
    );
    primary.sql("postgres", "SELECT pg_reload_conf()");
    let folder = folder();
    let kes = Kes::new(folder.path());
    let ways = [
        Ways::to(&primary, &standby).await,
        Ways::to(&primary, &standby).await,
        Ways::to(&primary, &standby).await,
    ];
    let nodes = three_nodes(&ways, database, &kes, folder.path()).await;
    let mut clients = Clients::new();
    clients.of(&nodes);
    let [_, second, third] = &nodes;
    clients.of_kes(&kes, &[Arc::clone(second), Arc::clone(third)]);
    clients.go_on(50).await;
    nodes[0].signal("KILL");
    clients.go_on(50).await;
    nodes[1].signal("STOP");
    clients.go_on(20).await;
    nodes[1].signal("CONT");
    clients.go_on(50).await;
    ways[2].set(LinkState::Cut);
    clients.go_on(50).await;
    ways[2].set(LinkState::Up);
    clients.go_on(50).await;
    primary.crash();
    standby.sql("postgres", "SELECT pg_promote()");
    clients.go_on(50).await;
    let done = clients.end().await;
    nothing_is_lost(&kes, [second, third], &done).await;
    for done in &done {
        let (api, longest) = (done.api, done.longest);
        assert!(longest < LONGEST_GAP, "{api}: {longest:?} without a key");
        assert!(!done.made.is_empty(), "a client of {api} made nothing");
    }
}
