//! Lost answers, cut and frozen links, crashes, failovers, and servers that are refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keyway_domain::ports::{Consistency, Kind, StoreError, TableReader, TableWriter};
use keyway_store_postgres::{OPERATION_TIMEOUT, PostgresTable, Server};
use keyway_tests::{Link, LinkState, Postgres};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use tokio::task::JoinSet;

use crate::{open, record, server, shared, through, try_open};

const WRITERS: usize = 16;

/// Sixteen writers each add their own words to one record. A write that acts twice adds a word twice; an acknowledged
/// write that is lost leaves a word out.
#[tokio::test(flavor = "multi_thread")]
async fn writers_under_faults_act_once_each() {
    const WORDS: usize = 6;
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let calm = open(&url).await;
    calm.put_new(&record("words", "")).await.unwrap();
    let link = Arc::new(Link::to(postgres.socket()).await);
    let hindered = open(&through(&link, &url)).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let table = Arc::clone(&hindered);
        writers.spawn(async move {
            for word in 0..WORDS {
                add(&table, &format!("{writer}-{word}")).await;
            }
        });
    }
    let weather = tokio::spawn(async move {
        loop {
            for fault in [
                LinkState::LosesAnswers,
                LinkState::Up,
                LinkState::Cut,
                LinkState::Up,
            ] {
                link.set(fault);
                let lasts = if fault == LinkState::Up { 60 } else { 15 };
                tokio::time::sleep(Duration::from_millis(lasts)).await;
            }
        }
    });
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    weather.abort();
    let last = read(&calm).await;
    let words: Vec<&str> = last.split_whitespace().collect();
    let different: BTreeSet<&str> = words.iter().copied().collect();
    assert_eq!(words.len(), different.len(), "a write was done twice");
    assert_eq!(different.len(), WRITERS * WORDS, "a write was lost");
}

/// Adds a word. If the table cannot tell whether it did, reads the record to find out.
async fn add(table: &PostgresTable, word: &str) {
    loop {
        let Ok(current) = table.get(Kind::Key, "words", Consistency::Strong).await else {
            continue;
        };
        let current = current.unwrap();
        let text = String::from_utf8(current.value).unwrap();
        if text.split(' ').any(|known| known == word) {
            return;
        }
        match table
            .replace(
                &record("words", &format!("{text} {word}")),
                current.revision,
            )
            .await
        {
            Ok(()) => return,
            Err(StoreError::Conflict | StoreError::Failed { .. } | StoreError::Away(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn read(table: &PostgresTable) -> String {
    let record = table.get(Kind::Key, "words", Consistency::Strong).await;
    String::from_utf8(record.unwrap().unwrap().value).unwrap()
}

/// The answer to a write is lost, others write, and the store sends the write again: it must not act twice.
#[tokio::test(flavor = "multi_thread")]
async fn write_with_a_lost_answer_is_recognised_after_later_writes() {
    let Some(postgres) = shared().await else {
        return;
    };
    for others in [0_usize, 1, 16, 17] {
        let url = postgres.database();
        let calm = open(&url).await;
        let link = Link::to(postgres.socket()).await;
        let hindered = open(&through(&link, &url)).await;
        let first = record("words", "0");
        calm.put_new(&first).await.unwrap();
        // The connection has prepared its statement before the answer is lost.
        hindered
            .replace(&record("words", "x"), record("", "").revision)
            .await
            .unwrap_err();
        link.set(LinkState::LosesAnswers);
        let lost = record("words", "lost");
        let (outcome, ()) = tokio::join!(hindered.replace(&lost, first.revision), async {
            while read(&calm).await != "lost" {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut seen = lost.revision;
            for n in 0..others {
                let next = record("words", &n.to_string());
                calm.replace(&next, seen).await.unwrap();
                seen = next.revision;
            }
            link.set(LinkState::Up);
        });
        match others {
            ..=16 => outcome.unwrap(),
            _ => assert!(
                matches!(outcome, Err(StoreError::Failed { .. })),
                "{outcome:?}"
            ),
        }
        let expected = others.checked_sub(1);
        let expected = expected.map_or("lost".to_owned(), |last| last.to_string());
        assert_eq!(read(&calm).await, expected, "nothing was written over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_does_not_answer_is_away_and_is_used_again_afterwards() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let link = Link::to(postgres.socket()).await;
    let table = open(&through(&link, &url)).await;
    let made = record("words", "made");
    table.put_new(&made).await.unwrap();
    link.set(LinkState::Frozen);
    let limit = OPERATION_TIMEOUT + Duration::from_secs(10);
    let reading = table.get(Kind::Key, "words", Consistency::Strong);
    let outcome = tokio::time::timeout(limit, reading).await.unwrap();
    assert!(matches!(outcome, Err(StoreError::Away(_))), "{outcome:?}");
    link.set(LinkState::Up);
    assert_eq!(read(&table).await, "made");
    link.set(LinkState::Cut);
    let outcome = table.put_new(&record("other", "")).await;
    assert!(matches!(outcome, Err(StoreError::Away(_))), "{outcome:?}");
    link.set(LinkState::Up);
    assert_eq!(read(&table).await, "made");
}

/// Writers that make records one after another, and what was acknowledged to them.
struct Load {
    writers: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
}

impl Load {
    fn on(table: &Arc<PostgresTable>) -> Self {
        let mut load = Self {
            writers: JoinSet::new(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
        };
        for writer in 0..WRITERS {
            let (table, stop) = (Arc::clone(table), Arc::clone(&load.stop));
            let acknowledged = Arc::clone(&load.acknowledged);
            load.writers.spawn(async move {
                let mut made = Vec::new();
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    let id = format!("{writer}-{number}");
                    number += 1;
                    if table.put_new(&record(&id, "")).await.is_ok() {
                        made.push(id);
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                }
                made
            });
        }
        load
    }

    /// Waits until so many more writes were acknowledged.
    async fn goes_on(&self, more: usize) {
        let until = self.acknowledged.load(Ordering::SeqCst) + more;
        let going = async {
            while self.acknowledged.load(Ordering::SeqCst) < until {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, going)
            .await
            .expect("the writers go on");
    }

    /// Ends the writers; every acknowledged record must be there.
    async fn end(self, table: &PostgresTable) {
        self.stop.store(true, Ordering::SeqCst);
        let made: Vec<String> = self
            .writers
            .join_all()
            .await
            .into_iter()
            .flatten()
            .collect();
        for id in &made {
            let found = table.get(Kind::Key, id, Consistency::Strong).await.unwrap();
            assert!(found.is_some(), "the acknowledged {id} is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_lose_no_acknowledged_write_although_the_server_is_configured_to() {
    // Its own flushes come late, so that an acknowledged write that is not flushed is lost.
    let settings = "synchronous_commit = off\nwal_writer_delay = 10s";
    let Some(postgres) = Postgres::start_with(settings).await else {
        return;
    };
    let table = open(&postgres.database()).await;
    let load = Load::on(&table);
    for _ in 0..2 {
        load.goes_on(100).await;
        postgres.crash();
        postgres.launch().await;
    }
    load.goes_on(100).await;
    load.end(&table).await;
    drop(table);

    postgres.crash();
    postgres.configure("fsync = off");
    postgres.launch().await;
    let error = try_open(&postgres.url("test0"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("fsync = off"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_to_a_synchronous_standby_loses_no_acknowledged_write() {
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
    let links = [
        Link::to(standby.socket()).await,
        Link::to(primary.socket()).await,
    ];
    let [first, second] = &links;
    let database = url.rsplit('/').next().unwrap();
    // The standby is named first, and passed over while it accepts no writes.
    let both = format!(
        "postgres://keyway@127.0.0.1:{},127.0.0.1:{}/{database}?target_session_attrs=read-write",
        first.port, second.port
    );
    let table = open(&both).await;
    let load = Load::on(&table);
    load.goes_on(200).await;
    primary.crash();
    standby.sql("postgres", "SELECT pg_promote()");
    load.goes_on(200).await;
    load.end(&table).await;
    assert_eq!(standby.sql("postgres", "SELECT pg_is_in_recovery()"), "f");
}

#[tokio::test]
async fn database_that_accepts_no_writes_is_refused() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let database = url.rsplit('/').next().unwrap();
    let sql = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    postgres.sql("postgres", &sql);
    let error = try_open(&url).await.unwrap_err().to_string();
    assert!(error.contains("no server accepts writes"), "{error}");
    let absent = postgres.url("absent");
    let error = try_open(&absent).await.unwrap_err().to_string();
    assert!(error.contains("\"absent\" does not exist"), "{error}");
}

/// An authority's certificate, and a certificate and key of a server with this name.
fn certificates(name: &str) -> [String; 3] {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    [root.pem(), leaf.pem(), key.serialize_pem()]
}

#[tokio::test]
async fn server_knows_the_client_by_its_certificate() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.crash();
    let [root, certificate, key] = certificates("localhost");
    let postgres = postgres.with_tls(&certificate, &key);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (authority, client, client_key) = client_certificate("keyway");
    postgres.demand_certificates(&authority);
    postgres.launch().await;
    let (root, port) = (file("root.pem", &root), postgres.port().unwrap());
    let url = |more: &str| {
        format!(
            "postgres://keyway@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={root}{more}"
        )
    };
    let (certificate, key) = (file("client.pem", &client), file("client.key", &client_key));
    let with_both = url(&format!("&sslcert={certificate}&sslkey={key}"));
    let table = open(&with_both).await;
    table.put_new(&record("words", "sealed")).await.unwrap();
    let known = "SELECT bool_and(client_dn = '/CN=keyway') FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_port > 0";
    assert_eq!(postgres.sql("postgres", known), "t");

    let without = try_open(&url("")).await.unwrap_err().to_string();
    assert!(without.contains("certificate"), "{without}");
    let (_, other, other_key) = client_certificate("keyway");
    let (other, other_key) = (file("other.pem", &other), file("other.key", &other_key));
    let foreign = try_open(&url(&format!("&sslcert={other}&sslkey={other_key}"))).await;
    assert!(foreign.is_err(), "another authority issued it");
    for (certificate, key, named) in [
        (&certificate, &other_key, "client.pem"),
        (&certificate, &root, "root.pem"),
        (&key, &key, "client.key"),
    ] {
        let url = url(&format!("&sslcert={certificate}&sslkey={key}"));
        let refused = Server::new(url.parse().unwrap()).err().unwrap().to_string();
        assert!(refused.contains("sslcert and sslkey"), "{refused}");
        assert!(refused.contains(named), "{refused}");
    }
}

/// An authority's certificate, and a certificate and key of a client with this common name.
fn client_certificate(name: &str) -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.distinguished_name.push(DnType::CommonName, name);
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    (root.pem(), leaf.pem(), key.serialize_pem())
}

#[tokio::test]
async fn server_is_verified_by_its_authority_and_name() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.crash();
    let [root, certificate, key] = certificates("localhost");
    let postgres = postgres.with_tls(&certificate, &key);
    postgres.launch().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("root.pem");
    std::fs::write(&file, root).unwrap();
    let [other, ..] = certificates("localhost");
    let foreign = folder.path().join("foreign.pem");
    std::fs::write(&foreign, other).unwrap();
    let port = postgres.port().unwrap();
    let url = |host: &str, root: &std::path::Path| {
        let root = root.display();
        format!("postgres://keyway@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={root}")
    };
    let table = open(&url("localhost", &file)).await;
    table.put_new(&record("words", "sealed")).await.unwrap();
    let used = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_port > 0";
    assert_eq!(postgres.sql("postgres", used), "t");
    for (url, words) in [
        (url("127.0.0.1", &file), "not valid for name"),
        (url("localhost", &foreign), "invalid peer certificate"),
    ] {
        let error = try_open(&url).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let missing = url("localhost", &folder.path().join("missing.pem"));
    let error = Server::new(missing.parse().unwrap()).err().unwrap();
    assert!(error.to_string().contains("missing.pem"), "{error}");
    drop(server(&url("localhost", &file)));
}
