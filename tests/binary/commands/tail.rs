//! `keyway audit tail`.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use keyway_tests::{Server, ServerOptions, binary};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Operator;
use crate::kes::{ADMIN_KEY, options};
use crate::{create, data_dir, eventually, folder};

/// A command that follows a log: what it has printed so far.
struct Follower {
    _child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Follower {
    fn start(variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut child = Command::new(binary("keyway"))
            .args(["audit", "tail"])
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                sink.lock().unwrap().push(line);
            }
        });
        Self {
            _child: child,
            lines,
        }
    }

    fn of(server: &Server, arguments: &[&str]) -> Self {
        let variables = [
            ("KEYWAY_ENDPOINT", &*format!("http://{}", server.address)),
            ("AWS_ACCESS_KEY_ID", "test-root"),
            ("AWS_SECRET_ACCESS_KEY", "test-root-secret"),
        ];
        Self::start(&variables, arguments)
    }

    fn so_far(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    async fn sees(&self, what: &str) -> String {
        let found = async || self.so_far().into_iter().find(|line| line.contains(what));
        eventually(what, found).await
    }
}

#[tokio::test]
async fn events_are_printed_once_as_they_come() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    create(&server, "before").await;
    let text = Follower::of(&server, &[]);
    let json = Follower::of(&server, &["--output", "json", "--key", "after"]);
    text.sees("before").await;
    create(&server, "after").await;
    let line = text.sees("  after  ").await;
    let columns: Vec<&str> = line.split("  ").collect();
    assert_eq!(
        columns[1..5],
        ["200", "kms:CreateKey", "after", "test-root"]
    );
    let event: Value = serde_json::from_str(&json.sees("after").await).unwrap();
    assert_eq!(
        (&event["key_id"], &event["status"]),
        (&"after".into(), &200.into())
    );
    create(&server, "last").await;
    text.sees("  last  ").await;
    for id in ["  before  ", "  after  ", "  last  "] {
        let lines = text.so_far();
        let printed = lines.iter().filter(|line| line.contains(id)).count();
        assert_eq!(printed, 1, "{id}: {lines:?}");
    }
    assert_eq!(json.so_far().len(), 1, "only events of this key");
    let own = |line: &String| line.contains("ReadAudit");
    assert!(
        !text.so_far().iter().any(own),
        "its own requests are left out"
    );
}

#[tokio::test]
async fn follower_waits_for_a_server_that_comes_back() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    let address = server.address.clone();
    create(&server, "first").await;
    let follower = Follower::of(&server, &[]);
    follower.sees("  first  ").await;
    server.stop().await;
    let again = ServerOptions::default()
        .argument("--listen")
        .argument(&address);
    let server = again.start(&data_dir).await;
    create(&server, "second").await;
    follower.sees("  second  ").await;
    let lines = follower.so_far();
    let first = lines
        .iter()
        .filter(|line| line.contains("  first  "))
        .count();
    assert_eq!(first, 1, "{lines:?}");
}

#[tokio::test]
async fn events_that_are_there_are_printed_and_the_command_ends() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    create(&server, "k").await;
    let root = Operator::root(&server);
    let tail = ["audit", "tail", "--no-follow"];
    let printed = root.text(&tail).await;
    assert!(printed.contains("kms:CreateKey  k  test-root"), "{printed}");
    let later = [&tail[..], &["--since", "2999-01-01T00:00:00Z"]].concat();
    assert_eq!(root.text(&later).await, "");
    let other = [&tail[..], &["--principal", "somebody"]].concat();
    assert_eq!(root.text(&other).await, "");
}

#[tokio::test]
async fn kes_stream_is_followed() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = options().start(&data_dir).await;
    let authority = data_dir.join("kes-listener.crt");
    let variables = [
        ("KEYWAY_API", "kes"),
        ("KEYWAY_API_KEY", ADMIN_KEY),
        (
            "KEYWAY_ENDPOINT",
            &*format!("https://localhost:{}", server.kes().port()),
        ),
        ("KEYWAY_CA_FILE", authority.to_str().unwrap()),
    ];
    let text = Follower::start(&variables, &[]);
    let json = Follower::start(&variables, &["--output", "json"]);
    let mut number = 0;
    // The stream begins when the server has the request.
    eventually("an event is streamed to both", async || {
        create(&server, &format!("k{number}")).await;
        number += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let both = [&text, &json].map(|follower| !follower.so_far().is_empty());
        (both == [true; 2]).then_some(())
    })
    .await;
    let line = text.sees("/kms/keys").await;
    assert!(
        line.contains("  200  /rustfs/admin/v3/kms/keys  "),
        "{line}"
    );
    let event: Value = serde_json::from_str(&json.so_far()[0]).unwrap();
    assert_eq!(event["response"]["code"], 200);
}
