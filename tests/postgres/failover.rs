//! Three nodes over a primary and its standby, and clients that try the next node after a failure.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keyway_tests::{Link, Postgres, Server};
use serde_json::json;
use tokio::task::JoinSet;

use crate::nodes::{copied, folder, node, now};

const CLIENTS: usize = 6;
/// How long a client waits for an answer before it tries the next node.
const PATIENCE: Duration = Duration::from_secs(3);

/// Clients that create keys and make data keys of them.
struct Clients {
    tasks: JoinSet<(Vec<String>, Duration)>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
}

impl Clients {
    fn of(nodes: &[Arc<Server>]) -> Self {
        let mut clients = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
        };
        for client in 0..CLIENTS {
            let nodes = nodes.to_vec();
            let (stop, acknowledged) =
                (Arc::clone(&clients.stop), Arc::clone(&clients.acknowledged));
            clients.tasks.spawn(async move {
                let (mut made, mut longest, mut last) = (Vec::new(), Duration::ZERO, now());
                let (mut number, mut at) = (0, client);
                while !stop.load(Ordering::SeqCst) {
                    let id = format!("client-{client}.{number}");
                    number += 1;
                    let server = &nodes[at % nodes.len()];
                    if creates(server, &id).await {
                        made.push(id);
                        longest = longest.max(last.elapsed());
                        last = now();
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    } else {
                        at += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                (made, longest)
            });
        }
        clients
    }

    /// Waits until so many more keys were acknowledged.
    async fn go_on(&self, more: usize) {
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

    /// Ends the clients: the acknowledged keys, and the longest time without one.
    async fn end(self) -> (Vec<String>, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.tasks.join_all().await;
        let longest = ended.iter().map(|(_, longest)| *longest).max();
        let made = ended.into_iter().flat_map(|(made, _)| made).collect();
        (made, longest.unwrap_or_default())
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

async fn three_nodes(url: &str, folder: &Path) -> Vec<Arc<Server>> {
    let keyring = folder.join("node-0");
    let mut nodes = vec![Arc::new(node(url, &keyring).start(folder).await)];
    for number in 1..3 {
        let copy = copied(&keyring, &folder.join(format!("node-{number}")));
        nodes.push(Arc::new(node(url, &copy).start(folder).await));
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_lose_no_acknowledged_key_in_a_kill_a_pause_and_a_failover() {
    let Some(primary) = Postgres::start().await else {
        return;
    };
    let url = primary.database();
    let standby = primary.standby().await;
    primary.sql(
        "postgres",
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
    );
    primary.sql("postgres", "SELECT pg_reload_conf()");
    let (first, second) = (
        Link::to(primary.socket()).await,
        Link::to(standby.socket()).await,
    );
    let database = url.rsplit('/').next().unwrap();
    let both = format!(
        "postgres://keyway@127.0.0.1:{},127.0.0.1:{}/{database}",
        first.port, second.port
    );
    let folder = folder();
    let nodes = three_nodes(&both, folder.path()).await;
    let clients = Clients::of(&nodes);
    clients.go_on(50).await;
    nodes[0].signal("KILL");
    clients.go_on(50).await;
    nodes[1].signal("STOP");
    clients.go_on(20).await;
    nodes[1].signal("CONT");
    clients.go_on(50).await;
    primary.crash();
    standby.sql("postgres", "SELECT pg_promote()");
    clients.go_on(50).await;
    let (made, longest) = clients.end().await;
    // Both surviving nodes have every key, and open each other's data keys.
    for (id, at) in made.iter().zip([1, 2].into_iter().cycle()) {
        let answer = nodes[at].call("GET", &format!("/kms/keys/{id}"), "").await;
        assert_eq!(answer.status, 200, "the acknowledged {id} is lost");
    }
    let body = json!({ "key_id": made[0] }).to_string();
    let made_by_one = nodes[1].call("POST", "/kms/generate-data-key", &body).await;
    let blob = made_by_one.text("ciphertext_blob");
    let body = json!({ "ciphertext_blob": blob }).to_string();
    nodes[2].call("POST", "/kms/decrypt", &body).await.ok();
    // An operation with all its retries, two connections and the client's own patience.
    assert!(
        longest < Duration::from_secs(45),
        "{longest:?} without a key"
    );
}
