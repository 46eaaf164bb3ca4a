//! The audit log of real processes: events after a kill, the cost of a flood, and the findings of `keyway audit`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyway_domain::ports::Kind;
use keyway_tests::{Server, ServerOptions};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{create, eventually, folder, generate, logged};

/// Many times the events that fit into a pipe or a socket.
const MANY: usize = 600;

/// Runs `keyway audit` over the folder.
async fn audit(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = data_dir.to_str().unwrap();
    let all = [&["audit"][..], arguments, &["--data-dir", folder]].concat();
    ServerOptions::default().run(&all).await
}

fn events(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| line.starts_with("{\"audit\":"));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn exported(data_dir: &Path) -> Vec<Value> {
    let (code, stdout, stderr) = audit(data_dir, &["export"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    events(&stdout)
}

fn ids(events: &[Value], operation: &str) -> BTreeSet<String> {
    events
        .iter()
        .filter(|event| event["operation"] == operation)
        .map(|event| event["request_id"].as_str().unwrap().to_owned())
        .collect()
}

fn id(answer: &keyway_tests::Answer) -> String {
    answer.header("x-request-id").unwrap().to_owned()
}

#[tokio::test]
async fn audit_log_is_read_without_the_keyring_and_its_passphrase() {
    let folder = folder();
    let options = ServerOptions::default().variable("KEYWAY_PASSPHRASE", "a passphrase");
    let server = options.start(folder.path()).await;
    create(&server, "k").await;
    server.stop().await;
    std::fs::remove_dir_all(folder.path().join("secrets")).unwrap();
    assert_eq!(
        ids(&exported(folder.path()).await, "kms:CreateKey").len(),
        1
    );
    let (code, stdout, stderr) = audit(folder.path(), &["verify"]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_loses_no_mutation_and_few_data_key_events() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let mut made = BTreeSet::new();
    for n in 0..20 {
        made.insert(id(&create(&server, &format!("k{n}")).await));
    }
    let mut early = BTreeSet::new();
    for _ in 0..20 {
        early.insert(id(&generate(&server, "k0").await));
    }
    // The events are written without another request.
    eventually("early data keys are in the table", async || {
        let kept = ids(&exported(folder.path()).await, "kms:GenerateDataKey");
        (kept == early).then_some(())
    })
    .await;
    let mut late = BTreeSet::new();
    for _ in 0..20 {
        late.insert(id(&generate(&server, "k0").await));
    }
    made.insert(id(&create(&server, "last").await));
    late.insert(id(&generate(&server, "k0").await));
    server.signal("KILL");
    let (code, log, _) = server.ended().await;
    assert_eq!(code, None, "it was killed");

    let kept = exported(folder.path()).await;
    assert_eq!(ids(&kept, "kms:CreateKey"), made);
    let kept = ids(&kept, "kms:GenerateDataKey");
    let all: BTreeSet<String> = early.union(&late).cloned().collect();
    assert!(kept.is_superset(&early) && kept.is_subset(&all));
    // A mutation flushes the pending events. Only later ones can be missing in the table, and standard output has those.
    assert!(
        kept.len() + 1 >= all.len(),
        "{} of {}",
        kept.len(),
        all.len()
    );
    assert_eq!(ids(&events(&log), "kms:GenerateDataKey"), all);
    let (code, stdout, stderr) = audit(folder.path(), &["verify"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("OK: "), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_unauthenticated_requests_is_counted() {
    const FLOOD: u64 = 300;
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let stranger = keyway_tests::Signer::new("nobody", "wrong-secret");
    for _ in 0..FLOOD {
        let answer = server.call_as(&stranger, "POST", "/kms/keys", "{}").await;
        assert_eq!(answer.status, 401);
    }
    let (code, log, _) = server.stop().await;
    assert_eq!(code, Some(0));
    assert_eq!(ids(&events(&log), "kms:CreateKey").len() as u64, FLOOD);
    let kept = exported(folder.path()).await;
    let sampled = ids(&kept, "kms:CreateKey").len() as u64;
    let counted: u64 = kept
        .iter()
        .filter_map(|event| event["counts"]["unauthenticated"].as_u64())
        .sum();
    assert_eq!(sampled + counted, FLOOD);
    assert!(sampled < FLOOD / 3, "{sampled} of them are in the table");
    assert_eq!(audit(folder.path(), &["verify"]).await.0, Some(0));
}

async fn verify_file(
    file: &Path,
    lines: &[String],
    more: &[&str],
) -> (Option<i32>, String, String) {
    std::fs::write(file, lines.join("\n")).unwrap();
    let arguments = ["audit", "verify", "--file", file.to_str().unwrap()];
    let all = [&arguments[..], more].concat();
    ServerOptions::default().run(&all).await
}

async fn some_log(server: &Server) {
    create(server, "k").await;
    for _ in 0..5 {
        generate(server, "k").await;
    }
    create(server, "other").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_of_a_file_finds_every_change() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    some_log(&server).await;
    let (_, log, _) = server.stop().await;
    // The process's output also has lines of the ordinary log.
    let lines: Vec<String> = log.lines().map(str::to_owned).collect();
    assert!(lines.iter().any(|line| !line.starts_with("{\"audit\":")));
    let of_events: Vec<usize> = (0..lines.len())
        .filter(|&n| lines[n].starts_with("{\"audit\":"))
        .collect();
    let file = folder.path().join("copied.log");
    let (code, stdout, stderr) = verify_file(&file, &lines, &[]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let known = stdout.split(' ').next().unwrap().to_owned();
    let middle = of_events[3];

    let mut removed = lines.clone();
    removed.remove(middle);
    let mut altered = lines.clone();
    altered[middle] = altered[middle].replace("test-root", "somebody");
    assert_ne!(altered, lines);
    let mut reordered = lines.clone();
    reordered.swap(middle, of_events[4]);
    for (lines, finding) in [
        (&removed, "is missing"),
        (&altered, "was altered"),
        (&reordered, "is not in its place"),
    ] {
        let (code, _, stderr) = verify_file(&file, lines, &[]).await;
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("event 3 of writer") && stderr.contains(finding),
            "{stderr}"
        );
    }
    // Truncation shows only with a known head.
    let cut = &lines[..*of_events.last().unwrap()];
    assert_eq!(verify_file(&file, cut, &[]).await.0, Some(0));
    let expect = ["--expect", known.as_str()];
    assert_eq!(verify_file(&file, &lines, &expect).await.0, Some(0));
    let (code, _, stderr) = verify_file(&file, cut, &expect).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("missing at the end"), "{stderr}");
}

/// The lines in the format of a log driver; also as `jq` writes them, where it is installed.
fn kept(lines: &[String]) -> Vec<(&'static str, Vec<String>)> {
    let each = |wrap: &dyn Fn(&String) -> String| lines.iter().map(wrap).collect();
    let mut kept: Vec<(_, Vec<String>)> = vec![
        (
            "docker json-file",
            each(&|line| {
                serde_json::json!({"log": format!("{line}\n"), "stream": "stdout", "time": "t"})
                    .to_string()
            }),
        ),
        (
            "cri",
            each(&|line| format!("2026-11-22T12:00:00.1Z stdout F {line}")),
        ),
        ("compose", each(&|line| format!("keyway-1  | {line}"))),
        (
            "journald",
            each(&|line| format!("Nov 22 12:00:00 host keyway[7]: {line}")),
        ),
        (
            "journald json",
            each(&|line| serde_json::json!({"MESSAGE": line, "_PID": "7"}).to_string()),
        ),
        ("ts", each(&|line| format!("Nov 22 12:00:00 {line}"))),
    ];
    for options in ["-S", "-cS", "-cSa"] {
        let jq = Command::new("jq")
            .args([options, "."])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut jq) = jq else { continue };
        let mut input = jq.stdin.take().unwrap();
        let text = lines.join("\n");
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
        let output = jq.wait_with_output().unwrap();
        writer.join().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        kept.push((options, text.lines().map(str::to_owned).collect()));
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_reads_log_drivers_formats_and_finds_removed_events() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    some_log(&server).await;
    let (_, log, _) = server.stop().await;
    let lines: Vec<String> = log.lines().map(str::to_owned).collect();
    let mut cut = lines.clone();
    cut.retain(|line| !line.contains("\"seq\":3,"));
    assert_ne!(cut, lines);
    let file = folder.path().join("copied.log");
    let count = events(&log).len();
    for (name, lines) in kept(&lines) {
        let (code, stdout, stderr) = verify_file(&file, &lines, &[]).await;
        assert_eq!(code, Some(0), "{name}: {stderr}");
        assert!(
            stdout.contains(&format!("OK: {count} events")),
            "{name}: {stdout}"
        );
    }
    for (name, lines) in kept(&cut) {
        let (code, _, stderr) = verify_file(&file, &lines, &[]).await;
        assert_eq!(code, Some(1), "{name}");
        assert!(stderr.contains("event 3 of writer"), "{name}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_of_a_log_without_events_fails_unless_allowed() {
    let folder = folder();
    let file = folder.path().join("some.log");
    let name = file.to_str().unwrap();
    for lines in [
        &[][..],
        &["some other log".to_owned(), "{\"a\":1}".to_owned()],
    ] {
        let (code, stdout, stderr) = verify_file(&file, lines, &[]).await;
        assert_eq!(code, Some(1));
        let said = format!("no audit events found in {name}");
        assert!(
            stderr.contains(&said) && !stdout.contains("OK"),
            "{stdout}{stderr}"
        );
        let (code, stdout, _) = verify_file(&file, lines, &["--output", "json"]).await;
        assert_eq!(code, Some(1));
        let verified: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(
            (&verified["ok"], &verified["events"]),
            (&false.into(), &0.into())
        );
        assert_eq!(verified["findings"], serde_json::json!([said]));
        assert_eq!(
            verify_file(&file, lines, &["--allow-empty"]).await.0,
            Some(0)
        );
    }
    // All records of this table were deleted or have expired.
    let off = ServerOptions::default().variable("KEYWAY_AUDIT", "off");
    off.start(folder.path()).await.stop().await;
    let (code, _, stderr) = audit(folder.path(), &["verify"]).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("no audit events found in the table"),
        "{stderr}"
    );
    assert_eq!(
        audit(folder.path(), &["verify", "--midway"]).await.0,
        Some(1)
    );
    assert_eq!(
        audit(folder.path(), &["verify", "--allow-empty"]).await.0,
        Some(0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_of_an_expired_beginning_fails_unless_allowed() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    some_log(&server).await;
    server.stop().await;
    let database = rusqlite::Connection::open(folder.path().join("keyway.db")).unwrap();
    let gone = database
        .execute("DELETE FROM logs WHERE kind = 'audit' AND id = (SELECT min(id) FROM logs WHERE kind = 'audit')", [])
        .unwrap();
    assert_eq!(gone, 1);
    let (code, _, stderr) = audit(folder.path(), &["verify"]).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("missing") && stderr.contains("--midway"),
        "{stderr}"
    );
    let (code, stdout, stderr) = audit(folder.path(), &["verify", "--midway"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("OK: "), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_reported_by_every_status() {
    let folder = folder();
    // No file grows beyond 512 KiB; the write-ahead log reaches that first.
    let options = ServerOptions::default().largest_file(1024);
    let server = options.start(folder.path()).await;
    let status = async || server.call("GET", "/kms/service-status", "").await.json();
    assert_eq!(status().await["healthy"], true);
    let tags = serde_json::json!({ "filler": "x".repeat(256) });
    let mut refused = None;
    for n in 0..2000 {
        let body = serde_json::json!({ "key_id": format!("k{n}"), "tags": tags });
        let answer = server.call("POST", "/kms/keys", &body.to_string()).await;
        if answer.status != 200 {
            refused = Some(answer.status.as_u16());
            break;
        }
    }
    assert!(matches!(refused, Some(500 | 502 | 503)), "{refused:?}");
    let degraded = eventually("it says so", async || {
        let status = status().await;
        (status["healthy"] == false).then_some(status)
    })
    .await;
    assert_eq!(degraded["status"], "Error");
    let said = degraded["error"].as_str().unwrap();
    assert!(said.contains("table"), "{said}");
    let answer = server
        .call("POST", "/kms/keys", r#"{"key_id":"more"}"#)
        .await;
    assert_ne!(answer.status, 200);
    assert_eq!(status().await["healthy"], false);
    server.signal("KILL");
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_over_one_folder_have_chains_of_their_own() {
    let folder = folder();
    let first = ServerOptions::default().start(folder.path()).await;
    let second = ServerOptions::default().start(folder.path()).await;
    some_log(&first).await;
    generate(&second, "k").await;
    create(&second, "third").await;
    first.stop().await;
    second.stop().await;
    let (code, stdout, stderr) = audit(folder.path(), &["verify", "--output", "json"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let verified: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(verified["writers"].as_array().unwrap().len(), 2);
    assert_eq!(verified["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_log_can_be_turned_off() {
    let folder = folder();
    let off = ServerOptions::default().variable("KEYWAY_AUDIT", "off");
    let server = off.start(folder.path()).await;
    some_log(&server).await;
    let (_, log, _) = server.stop().await;
    assert!(events(&log).is_empty());
    assert!(exported(folder.path()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_are_in_the_table_after_the_process_ends_unless_the_log_is_off() {
    for (auditing, expected) in [("required", 1), ("best-effort", 1), ("off", 0)] {
        let folder = folder();
        // The server warns that KES's API has no admin.
        let options = ServerOptions::default()
            .argument("--kes-listen")
            .argument("127.0.0.1:0")
            .variable("KEYWAY_AUDIT", auditing);
        let server = options.start(folder.path()).await;
        let (code, log, _) = server.stop().await;
        assert_eq!(code, Some(0));
        assert!(log.contains("has no admin"), "{log}");
        let values = logged(folder.path(), Kind::ErrorLog);
        assert_eq!(values.len(), expected, "{auditing}: {values:?}");
        assert!(values.iter().all(|text| text.contains("has no admin")));
    }
}

/// A server with this standard output.
fn serving_to(data_dir: &Path, output: impl Into<Stdio>) -> Child {
    Command::new(keyway_tests::binary("keyway"))
        .args(["serve", "--start", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The address of a server, from its log.
fn listens_at(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some(line["listen"].as_str()?.to_owned())
}

/// Makes an audited request on a connection of its own; returns its id.
async fn ask(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("X-Request-Id: "));
    id.unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pipe_that_is_not_read_delays_no_request() {
    let (reader, writer) = std::io::pipe().unwrap();
    nobody_waits(writer, reader).await;
}

/// A socket as standard output, as systemd gives its services.
#[tokio::test(flavor = "multi_thread")]
async fn socket_that_is_not_read_delays_no_request() {
    let (reader, writer) = UnixStream::pair().unwrap();
    nobody_waits(OwnedFd::from(writer), reader).await;
}

async fn nobody_waits(output: impl Into<Stdio>, log: impl Read + Send + 'static) {
    let folder = folder();
    let mut server = serving_to(folder.path(), output);
    let mut log = BufReader::new(log);
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let address = listens_at(&line).unwrap();
    // Many times the socket's capacity: a write that waits would block for ever.
    let asking = async {
        for _ in 0..MANY {
            ask(&address).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking)
        .await
        .unwrap();
    // A new reader first gets the notice of lost events, then the new ones.
    let seen = Arc::new(Mutex::new(String::new()));
    let reader = std::thread::spawn({
        let seen = Arc::clone(&seen);
        move || {
            for line in log.lines().map(Result::unwrap) {
                *seen.lock().unwrap() += &(line + "\n");
            }
        }
    });
    let mut asked = Vec::new();
    eventually("events come again", async || {
        asked.push(ask(&address).await);
        let seen = seen.lock().unwrap();
        asked.iter().any(|id| seen.contains(id)).then_some(())
    })
    .await;
    server.kill().unwrap();
    server.wait().unwrap();
    reader.join().unwrap();
    let rest = seen.lock().unwrap();
    let whole: Vec<_> = rest.lines().filter(|line| line.ends_with('}')).collect();
    let read = events(&whole.join("\n"));
    assert!(rest.contains("left_out"), "{rest}");
    assert!(read.len() > 20 && read.len() < MANY, "{}", read.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn file_has_each_line_before_its_answer() {
    let folder = folder();
    let log = folder.path().join("log");
    let mut server = serving_to(&folder.path().join("data"), File::create(&log).unwrap());
    let said = || std::fs::read_to_string(&log).unwrap();
    let address = eventually("it listens", async || said().lines().find_map(listens_at)).await;
    for _ in 0..20 {
        let id = ask(&address).await;
        assert!(said().contains(&id), "{id}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
