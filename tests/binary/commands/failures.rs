//! Exit codes, retries and what a command says of a change whose answer was lost.

use std::sync::{Arc, Mutex};

use keyway_tests::ServerOptions;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Operator;
use crate::{access_key, data_dir, folder};

#[tokio::test]
async fn exit_code_says_why_a_command_failed() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    let root = Operator::root(&server);
    root.json(&["key", "create", "k"]).await;
    root.json(&["key", "create", "disabled"]).await;
    root.json(&["key", "disable", "disabled"]).await;
    let auditor = access_key(&data_dir, &["--policy", "kms-auditor"]).await;
    let auditor = Operator::root(&server)
        .with(
            "AWS_ACCESS_KEY_ID",
            auditor["access_key_id"].as_str().unwrap(),
        )
        .with(
            "AWS_SECRET_ACCESS_KEY",
            auditor["secret_access_key"].as_str().unwrap(),
        );
    let unknown = Operator::root(&server).with("AWS_SECRET_ACCESS_KEY", "wrong");
    for (who, arguments, code, said) in [
        (&root, &["key", "list", "--timeout", "0"][..], 2, "timeout"),
        (&root, &["key", "tag", "k", "a=1", "a=2"], 2, "twice"),
        (&root, &["key", "show", "absent"], 3, "`absent` not found"),
        (&root, &["key", "rotate", "absent"], 3, "KeyNotFound"),
        (&unknown, &["key", "list"], 4, "status 401"),
        (&auditor, &["key", "rotate", "k"], 4, "status 403"),
        (
            &auditor,
            &["data-key", "generate", "--key", "absent"],
            4,
            "AccessDenied",
        ),
        (&root, &["key", "create", "k"], 5, "already exists"),
        (&root, &["key", "rotate", "disabled"], 5, "InvalidKeyState"),
        (
            &root,
            &["data-key", "generate", "--key", "disabled"],
            5,
            "is disabled",
        ),
        (&root, &["key", "cancel-deletion", "k"], 5, "status 409"),
        (&root, &["data-key", "generate"], 1, "status 400"),
        (
            &root,
            &["key", "delete", "k", "--days", "99"],
            1,
            "pending_window_in_days",
        ),
        (
            &root,
            &["key", "list", "--endpoint", "http://127.0.0.1:1"],
            6,
            "cannot be reached",
        ),
    ] {
        let (found, stderr) = who.fails(arguments).await;
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("test-root-secret"), "{stderr}");
    }
    // What is wrong with the command line itself is found before.
    for arguments in [
        &["key", "show", "../k"][..],
        &["key", "tag", "k", "no-pair"],
        &["key", "delete", "k", "--immediately"],
        &[
            "data-key",
            "generate",
            "--show-plaintext",
            "--plaintext-to",
            "f",
        ],
        &["key", "list", "--access-key", "id"],
    ] {
        let (code, _, stderr) = root.run(arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
    }
    for arguments in [
        &["key", "rotate", "--help"][..],
        &["encrypt", "--help"],
        &["audit", "tail", "--help"],
    ] {
        let help = root.text(arguments).await;
        assert!(help.contains("3  the key is not there"), "{help}");
    }
    let (code, stderr) = Operator::nobody().fails(&["key", "list"]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("AWS_ACCESS_KEY_ID"), "{stderr}");
}

/// A server that gives these answers, a connection each; then it closes each connection without one. Returns its address
/// and the requests' first lines.
async fn scripted(answers: Vec<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 1 << 16];
            let length = socket.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let line = text.lines().next().unwrap_or_default().to_owned();
            told.lock().unwrap().push(line);
            if let Some(answer) = answers.next() {
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (address, requests)
}

fn answer(status: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn of(address: &str) -> Operator {
    Operator::nobody()
        .with("KEYWAY_ENDPOINT", &format!("http://{address}"))
        .with("AWS_ACCESS_KEY_ID", "id")
        .with("AWS_SECRET_ACCESS_KEY", "secret")
}

#[tokio::test]
async fn change_is_not_sent_twice_when_its_answer_is_lost() {
    for change in [
        &["key", "rotate", "k"][..],
        &["key", "create", "k"],
        &["key", "delete", "k"],
        &["service", "stop"],
    ] {
        let (address, requests) = scripted(Vec::new()).await;
        let (code, stderr) = of(&address).fails(change).await;
        assert_eq!(code, 6);
        assert!(
            stderr.contains("may have carried out the change"),
            "{stderr}"
        );
        assert_eq!(requests.lock().unwrap().len(), 1, "{change:?}");
        // Neither when the server asks for patience: it may have begun.
        let busy = answer(
            "503 Service Unavailable",
            "retry-after: 0\r\n",
            &json!({"code": "BackendError", "message": "m"}),
        );
        let (address, requests) = scripted(vec![busy]).await;
        assert_eq!(of(&address).fails(change).await.0, 6);
        assert_eq!(requests.lock().unwrap().len(), 1, "{change:?}");
        // A proxy that gave up does not know what the server did.
        let gave_up = answer("504 Gateway Timeout", "", &json!("<html>"));
        let (address, requests) = scripted(vec![gave_up]).await;
        let (code, stderr) = of(&address).fails(change).await;
        assert_eq!(code, 6, "{stderr}");
        assert!(
            stderr.contains("may have carried out the change"),
            "{stderr}"
        );
        assert_eq!(requests.lock().unwrap().len(), 1, "{change:?}");
    }
}

#[tokio::test]
async fn read_is_repeated_until_the_server_answers() {
    let busy = answer(
        "503 Service Unavailable",
        "retry-after: 0\r\n",
        &json!({"code": "Throttled", "message": "too many requests"}),
    );
    let listed = answer(
        "200 OK",
        "",
        &json!({"success": true, "keys": [], "next_marker": null}),
    );
    let (address, requests) = scripted(vec![busy.clone(), busy.clone(), listed]).await;
    assert_eq!(of(&address).json(&["key", "list"]).await, json!([]));
    assert_eq!(requests.lock().unwrap().len(), 3);
    let (address, requests) = scripted(vec![busy.clone(), busy.clone(), busy]).await;
    let (code, stderr) = of(&address).fails(&["key", "list"]).await;
    assert_eq!(code, 6);
    assert!(
        stderr.contains("too many requests (Throttled, status 503)"),
        "{stderr}"
    );
    assert_eq!(requests.lock().unwrap().len(), 3);
    // A server that is stopped stays stopped.
    let stopped = json!({"code": "ServiceNotRunning", "message": "not running"});
    let stopped = answer("503 Service Unavailable", "", &stopped);
    let (address, requests) = scripted(vec![stopped]).await;
    assert_eq!(of(&address).fails(&["key", "list"]).await.0, 5);
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn long_list_is_printed_page_by_page() {
    let page = |from: u32, next: Option<&str>| {
        let keys: Vec<Value> = (from..from + 3)
            .map(|number| json!({"key_id": format!("k{number}"), "status": "Active", "tags": {}}))
            .collect();
        answer(
            "200 OK",
            "",
            &json!({"success": true, "keys": keys, "next_marker": next}),
        )
    };
    let none = answer("200 OK", "", &json!({"keys": [], "next_marker": "b c"}));
    let pages = vec![page(0, Some("a/b")), none, page(3, None)];
    let (address, requests) = scripted(pages.clone()).await;
    let listed = of(&address).json(&["key", "list"]).await;
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 6);
    assert_eq!(
        (&listed[5]["key_id"], &listed[5]["state"]),
        (&json!("k5"), &json!("Enabled"))
    );
    let markers: Vec<bool> = (requests.lock().unwrap().iter())
        .zip(["limit=1000 ", "marker=a%2Fb ", "marker=b+c "])
        .map(|(line, expected)| line.contains(expected))
        .collect();
    assert_eq!(markers, [true; 3]);
    let (address, _) = scripted(pages).await;
    let table = of(&address).text(&["key", "list"]).await;
    assert_eq!(table.lines().count(), 7, "{table}");
    // A page that fails makes the command fail, and the array is left open.
    let (address, _) = scripted(vec![page(0, Some("next"))]).await;
    let arguments = ["key", "list", "--output", "json"];
    let (code, stdout, _) = of(&address).run(&arguments).await;
    assert_eq!(code, Some(6));
    serde_json::from_str::<Value>(&stdout).unwrap_err();
}

#[tokio::test]
async fn answer_of_another_kind_of_server_is_refused() {
    let page = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>";
    let (address, _) = scripted(vec![page.to_owned()]).await;
    let (code, stderr) = of(&address).fails(&["key", "list"]).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("check the endpoint"), "{stderr}");
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
    let (address, _) = scripted(vec![long.to_owned(); 3]).await;
    let (code, stderr) = of(&address).fails(&["key", "list"]).await;
    assert_eq!(code, 6);
    assert!(stderr.contains("longer than"), "{stderr}");
    // Texts of a server do not reach the terminal as they are.
    let evil = json!({"code": "KeyNotFound", "message": "a\u{1b}[2Jb\nc"});
    let (address, _) = scripted(vec![answer("404 Not Found", "", &evil)]).await;
    let (code, stderr) = of(&address).fails(&["key", "show", "k"]).await;
    assert_eq!(code, 3);
    assert!(!stderr.contains('\u{1b}'), "{stderr}");
}
