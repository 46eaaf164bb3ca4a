//! `keyway serve`: its options, its start, its stop, and what it does with connections.

use std::net::TcpListener;

use keyway_tests::{MemorySite, ServerOptions};
use serde_json::json;

use crate::raw::{Connection, Http2, head, presigned_get, signed};
use crate::{access_key, create, data_dir, eventually, folder, generate, on, shown_root, signer};

#[tokio::test]
async fn service_once_started_serves_after_restarts() {
    let folder = folder();
    let idle = ServerOptions::not_started().start(folder.path()).await;
    let first = idle.first_line();
    assert_eq!(first["healthy"], true, "{first}");
    assert_eq!(first["status"], "NotConfigured", "{first}");
    assert_eq!(first["listen"], json!(idle.address), "{first}");
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"), "{first}");

    let other_folder = crate::folder();
    let other = ServerOptions::default().start(other_folder.path()).await;
    create(&other, "k").await;
    let blob = generate(&other, "k").await.text("ciphertext_blob");
    let site = MemorySite::not_configured(false).await;
    let (keys, data_keys) = (site.routes_of("keys"), site.routes_of("datakey"));
    for (method, route) in keys.iter().chain(&data_keys) {
        let body = match route.rsplit('/').next().unwrap() {
            "update-description" => r#"{"key_id":"k","description":"d"}"#.to_owned(),
            "tag" => r#"{"key_id":"k","tags":{"a":"b"}}"#.to_owned(),
            "untag" => r#"{"key_id":"k","tag_keys":["a"]}"#.to_owned(),
            "encrypt" => r#"{"key_id":"k","plaintext":""}"#.to_owned(),
            "decrypt" | "rewrap" => format!(r#"{{"ciphertext_blob":"{blob}"}}"#),
            // Routes that use no key work without the service.
            _ if route.starts_with("/api/v1/") && method != "PUT" => continue,
            "{bucket}" => r#"{"sse_algorithm":"aws:kms"}"#.to_owned(),
            _ if method == "GET" => String::new(),
            _ => on("k"),
        };
        let path = route.replace("{key_id}", "k").replace("{bucket}", "photos");
        let first_generation = route.starts_with("/kms/key/");
        let query = if first_generation || route.ends_with("describe-key") {
            "?keyId=k"
        } else {
            ""
        };
        let (body, code) = if first_generation {
            (String::new(), "KMSNotConfigured")
        } else {
            (body, "ServiceNotConfigured")
        };
        let answer = idle.call(method, &format!("{path}{query}"), &body).await;
        let expected = (503, code.to_owned());
        assert_eq!(answer.refusal(), expected, "{method} {route}");
    }
    assert_eq!(idle.stop().await.0, Some(0));

    let with_default = |id| {
        ServerOptions::default()
            .argument("--default-key-id")
            .argument(id)
    };
    let started = with_default("main").start(folder.path()).await;
    assert_eq!(started.first_line()["status"], "Running");
    create(&started, "main").await;
    create(&started, "other").await;
    started.stop().await;

    for options in [with_default("other"), ServerOptions::not_started()] {
        let again = options.start(folder.path()).await;
        assert_eq!(again.first_line()["status"], "Running");
        let answer = again.call("POST", "/kms/generate-data-key", "{}").await;
        assert_eq!(answer.text("key_id"), "main", "the first start decides");
        again.stop().await;
    }
}

/// The lines of the ordinary log.
fn without_audit(log: &str) -> String {
    let lines = log.split_inclusive('\n');
    lines
        .filter(|line| !line.starts_with("{\"audit\":"))
        .collect()
}

#[tokio::test]
async fn help_and_version_list_the_settings() {
    let keyway = ServerOptions::default();
    let (code, version, _) = keyway.run(&["--version"]).await;
    assert_eq!(code, Some(0));
    let commit = option_env!("KEYWAY_COMMIT").unwrap_or("unknown");
    let expected = format!("keyway {} (commit {commit})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version, expected);
    let (code, version, _) = ServerOptions::function("keyway-fn-keys")
        .run(&["--version"])
        .await;
    assert_eq!((code, version), (Some(0), expected));

    let (code, help, _) = keyway.run(&["--help"]).await;
    assert_eq!(code, Some(0));
    for command in ["serve", "access-key"] {
        assert!(help.contains(command), "{help}");
    }

    let (code, help, _) = keyway.run(&["serve", "--help"]).await;
    assert_eq!(code, Some(0));
    let options: Vec<&str> = help.split("\n      --").skip(1).collect();
    assert!(options.len() >= 11, "{help}");
    for option in options {
        let name = option.split([' ', '\n']).next().unwrap();
        let variable = match name {
            // Without options, as most callers start it.
            "kes-admin-identity" => "KEYWAY_KES_ADMIN".to_owned(),
            // AWS's own variable.
            "region" => continue,
            name => format!("KEYWAY_{}", name.replace('-', "_").to_uppercase()),
        };
        // Values that may hold a secret are not shown.
        let begin = format!("[env: {variable}");
        let rest = option.split_once(&begin).map(|(_, rest)| &rest[..1]);
        assert!(matches!(rest, Some("=" | "]")), "{option}");
    }

    let (code, help, _) = keyway.run(&["access-key", "create", "--help"]).await;
    assert_eq!(code, Some(0));
    for word in [
        "[env: KEYWAY_DATA_DIR=",
        "[env: KEYWAY_PASSPHRASE_FILE=",
        "KEYWAY_PASSPHRASE)",
        "--policy",
        "--key <",
        "--expires-in",
        "--output",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[tokio::test]
async fn help_names_variables_without_options() {
    let (_, help, _) = ServerOptions::default().run(&["serve", "--help"]).await;
    for variable in [
        "KEYWAY_ROOT_ACCESS_KEY",
        "KEYWAY_ROOT_SECRET_KEY",
        "KEYWAY_PASSPHRASE",
    ] {
        assert!(help.contains(variable), "{variable}: {help}");
    }
}

#[tokio::test]
async fn option_set_by_its_variable_works() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::not_started()
        .variable("KEYWAY_DATA_DIR", data_dir.to_str().unwrap())
        .variable("KEYWAY_LISTEN", "0.0.0.0:0")
        .variable("KEYWAY_INSECURE_HTTP", "yes")
        .variable("KEYWAY_START", "1")
        .variable("KEYWAY_DEFAULT_KEY_ID", "main")
        .variable("KEYWAY_ALLOW_IMMEDIATE_DELETION", "true")
        .variable("KEYWAY_STATE_TTL_SECONDS", "0")
        .variable("KEYWAY_LOG_FORMAT", "text")
        .variable("KEYWAY_LOG", "trace")
        .start(folder.path())
        .await;
    assert!(server.address.starts_with("0.0.0.0:"));
    assert!(data_dir.join("keyway.db").exists());
    create(&server, "main").await;
    create(&server, "gone").await;
    let answer = server.call("POST", "/kms/generate-data-key", "{}").await;
    assert_eq!(answer.text("key_id"), "main");
    let immediately = r#"{"key_id":"gone","force_immediate":true,"confirm_key_id":"gone"}"#;
    let answer = server.call("DELETE", "/kms/keys/delete", immediately).await;
    answer.ok();
    let mut garbled = Connection::open(&server).await;
    garbled.send("\0\r\n\r\n").await;
    garbled.read_to_end().await;
    eventually("the broken connection is logged", async || {
        server.log().contains("DEBUG").then_some(())
    })
    .await;
    let (code, log, _) = server.stop().await;
    assert_eq!(code, Some(0));
    assert!(
        log.lines().any(|line| line.contains("INFO")
            && line.contains("keyway is serving")
            && line.contains("status=\"Running\"")),
        "{log}"
    );
    let log = without_audit(&log);
    assert!(!log.contains('{') && !log.contains('\x1b'), "{log}");

    let regional = ServerOptions::default()
        .variable("KEYWAY_SIGNING_REGION", "eu-north-1")
        .start(&data_dir)
        .await;
    let refusal = regional.call("GET", "/kms/keys", "").await;
    assert_eq!(refusal.refusal(), (401, "AccessDenied".to_owned()));
}

#[tokio::test]
async fn former_spellings_of_the_signing_region_work_with_a_warning() {
    let folder = folder();
    for (options, warning) in [
        (
            ServerOptions::default().variable("KEYWAY_REGION", "eu-north-1"),
            "KEYWAY_REGION is an older name of KEYWAY_SIGNING_REGION",
        ),
        (
            ServerOptions::default()
                .argument("--region")
                .argument("eu-north-1"),
            "use --signing-region for the region of signatures",
        ),
    ] {
        let regional = options.start(folder.path()).await;
        let refusal = regional.call("GET", "/kms/keys", "").await;
        assert_eq!(refusal.refusal(), (401, "AccessDenied".to_owned()));
        let (_, log, _) = regional.stop().await;
        assert_eq!(log.matches(warning).count(), 1, "{log}");
    }
    // The signing region's own option wins.
    let server = ServerOptions::default()
        .variable("KEYWAY_REGION", "eu-north-1")
        .argument("--signing-region")
        .argument("us-east-1")
        .start(folder.path())
        .await;
    server.call("GET", "/kms/keys", "").await.ok();
}

#[tokio::test]
async fn unusable_settings_are_refused_at_the_start() {
    let folder = folder();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let listen = |address: &str| {
        ServerOptions::default()
            .argument("--listen")
            .argument(address)
    };
    let only = |name, value| {
        ServerOptions::default()
            .without_root()
            .variable(name, value)
    };
    for (options, words) in [
        (listen("0.0.0.0:0"), &["loopback", "--insecure-http"][..]),
        (listen("[::]:0"), &["loopback", "--insecure-http"]),
        (listen("0.0.0.0:0"), &["--tls-cert", "--tls-key"]),
        (
            ServerOptions::default()
                .variable("KEYWAY_TLS_CERT", "/nowhere/cert.pem")
                .variable("KEYWAY_TLS_KEY", "/nowhere/key.pem"),
            &["--tls-cert", "/nowhere/cert.pem"],
        ),
        (
            only("KEYWAY_ROOT_ACCESS_KEY", "somebody"),
            &["KEYWAY_ROOT_SECRET_KEY", "together"],
        ),
        (
            only("KEYWAY_ROOT_SECRET_KEY", "a-canary-of-a-secret"),
            &["KEYWAY_ROOT_ACCESS_KEY", "together"],
        ),
        (
            only("KEYWAY_ROOT_SECRET_KEY", "canary").variable("KEYWAY_ROOT_ACCESS_KEY", "root"),
            &["KEYWAY_ROOT_SECRET_KEY", "8 to 256"],
        ),
        (
            ServerOptions::default()
                .argument("--default-key-id")
                .argument("no/id"),
            &["--default-key-id"],
        ),
        (
            ServerOptions::default().argument("--log").argument("a=b=c"),
            &["--log"],
        ),
    ] {
        let (code, stderr) = options.fail(&data_dir(&folder)).await;
        assert_eq!(code, Some(1), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
        assert!(stderr.starts_with("keyway: "), "{stderr}");
        assert!(!stderr.contains("canary"), "{stderr}");
    }

    let (code, stderr) = listen(&taken).fail(&data_dir(&folder)).await;
    drop(holder);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("--listen {taken}")), "{stderr}");
    assert!(stderr.to_lowercase().contains("in use"), "{stderr}");
}

#[tokio::test]
async fn root_access_key_is_made_and_shown_once_and_stays() {
    let folder = folder();
    let options = ServerOptions::default().without_root();
    let server = options.start(folder.path()).await;
    let shown = shown_root(&[&server]).await;
    let [id, secret] = ["access_key_id", "secret_access_key"].map(|name| shown[name].clone());
    let (id, secret) = (id.as_str().unwrap(), secret.as_str().unwrap());
    let root = signer(&shown);
    server
        .call_as(&root, "POST", "/kms/keys", &on("k"))
        .await
        .ok();
    let (code, log, stderr) = server.stop().await;
    assert_eq!(code, Some(0));
    assert_eq!(stderr.matches(secret).count(), 1);
    // The audit log names the caller by the key's id only.
    assert!(
        !log.contains(secret) && !without_audit(&log).contains(id),
        "{log}"
    );

    let again = options.start(folder.path()).await;
    again.call_as(&root, "GET", "/kms/keys/k", "").await.ok();
    let (_, log, stderr) = again.stop().await;
    assert_eq!(stderr, "");
    assert!(!log.contains(secret), "{log}");

    // A given root access key replaces it.
    let set = ServerOptions::default().start(folder.path()).await;
    set.call("GET", "/kms/keys/k", "").await.ok();
    let refusal = set.call_as(&root, "GET", "/kms/keys/k", "").await;
    assert_eq!(refusal.refusal(), (401, "AccessDenied".to_owned()));
    assert_eq!(set.stop().await.2, "");
}

#[tokio::test]
async fn root_access_key_is_not_shown_by_a_start_that_fails() {
    let folder = folder();
    let options = ServerOptions::default().without_root();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    for last_step in ["--listen", "--kes-listen"] {
        let failing = options.clone().argument(last_step).argument(&taken);
        let (code, stderr) = failing.fail(folder.path()).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(!stderr.contains("AWS_SECRET_ACCESS_KEY"), "{stderr}");
    }
    // The next start still shows it, and it is the root access key.
    let server = options.start(folder.path()).await;
    let root = signer(&shown_root(&[&server]).await);
    let made = server.call_as(&root, "POST", "/kms/keys", &on("k")).await;
    made.ok();
    server.stop().await;
}

#[tokio::test]
async fn request_in_flight_is_finished_before_the_process_ends() {
    for signal in ["TERM", "INT"] {
        let folder = folder();
        let server = ServerOptions::default().start(folder.path()).await;
        let body = r#"{"key_id":"slow"}"#;
        let request = signed(&server, "POST", "/kms/keys", body);
        let mut slow = Connection::open(&server).await;
        slow.send(head(&request, "expect: 100-continue\r\n")).await;
        // The server has read the head: it asks for the body.
        let asked = slow.read_until("\r\n\r\n").await;
        assert!(asked.starts_with("HTTP/1.1 100"), "{asked}");
        slow.send(&body[..5]).await;

        server.signal(signal);
        eventually("new connections are refused", async || {
            let refused = tokio::net::TcpStream::connect(&server.address)
                .await
                .err()?;
            (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
        })
        .await;
        slow.send(&body[5..]).await;
        let answer = slow.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        let (code, log, _) = server.ended().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(log.lines().last().unwrap().contains("keyway has stopped"));
        assert!(!log.contains("grace period"), "{log}");
        let again = ServerOptions::default().start(folder.path()).await;
        again.call("GET", "/kms/keys/slow", "").await.ok();
    }
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_stop() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let silent = Connection::open(&server).await;
    let mut half = Connection::open(&server).await;
    half.send("GET /rustfs/admin/v3/kms/keys HTTP/1.1\r\nho")
        .await;
    let mut kept = Connection::open(&server).await;
    let request = signed(&server, "GET", "/kms/keys", "");
    kept.send(head(&request, "")).await;
    let answer = kept.read_until("\"next_marker\":null}").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let http2 = Http2::new();
    let request = signed(&server, "GET", "/kms/keys", "");
    http2.send(&server, request).await.ok();

    let (code, log, _) = server.stop().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("grace period"), "{log}");
    assert_eq!(silent.read_to_end().await, "");
    assert_eq!(kept.read_to_end().await, "");
}

#[tokio::test]
async fn http_1_http_2_and_presigned_requests_are_answered() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let http2 = Http2::new();
    let request = signed(&server, "POST", "/kms/keys?keyName=two", "");
    http2.send(&server, request).await.ok();
    let one = server.call("GET", "/kms/keys/two", "").await.ok();
    let request = signed(&server, "GET", "/kms/keys/two", "");
    assert_eq!(http2.send(&server, request).await.ok(), one);

    let root = json!({"access_key_id": "test-root", "secret_access_key": "test-root-secret"});
    let expiring = ["--policy", "kms-auditor", "--expires-in", "600"];
    let expiring = access_key(folder.path(), &expiring).await;
    server
        .call_as(&signer(&expiring), "GET", "/kms/keys/two", "")
        .await
        .ok();
    for key in [&root, &expiring] {
        let presigned = presigned_get(&server, key, "/kms/keys/two");
        assert_eq!(server.send(presigned.clone()).await.unwrap().ok(), one);
        assert_eq!(http2.send(&server, presigned.clone()).await.ok(), one);
        let other = presigned.uri().to_string().replace("keys/two", "keys/one");
        let (mut parts, body) = presigned.into_parts();
        parts.uri = other.parse().unwrap();
        let refused = server
            .send(http::Request::from_parts(parts, body))
            .await
            .unwrap();
        assert_eq!(refused.refusal(), (401, "AccessDenied".to_owned()));
    }
}

#[tokio::test]
async fn bad_connections_do_not_affect_others() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;

    // Half requests that stay open during the whole test.
    let mut halves = Vec::new();
    let request = signed(&server, "POST", "/kms/keys", &on("half"));
    let whole = head(&request, "") + &on("half");
    for length in (1..whole.len()).step_by(whole.len() / 100) {
        let mut half = Connection::open(&server).await;
        half.send(&whole[..length]).await;
        halves.push(half);
    }
    generate(&server, "k").await.ok();

    let good = head(&signed(&server, "GET", "/kms/keys/k", ""), "");
    for garbage in [
        "\0\x01\x02garbage\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header: x\r\n\r\n",
    ] {
        let mut pipelined = Connection::open(&server).await;
        pipelined.send(format!("{good}{garbage}")).await;
        let answers = pipelined.read_to_end().await;
        let statuses: Vec<&str> = answers
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answers[at + 9..at + 10])
            .collect();
        assert_eq!(statuses, ["2", "4"], "{garbage:?}: {answers}");
        generate(&server, "k").await.ok();
    }

    let headers = (0..200).map(|n| format!("x-{n}: y\r\n"));
    let long = format!("x-long: {}\r\n", "y".repeat(1 << 20));
    for flood in [headers.collect::<String>(), long] {
        let mut flooding = Connection::open(&server).await;
        let sent = format!("GET /rustfs/admin/v3/kms/keys HTTP/1.1\r\nhost: x\r\n{flood}\r\n");
        // The server may close the connection before everything is sent.
        flooding.try_send(sent).await;
        let answer = flooding.read_until("\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        generate(&server, "k").await.ok();
    }

    let body = " ".repeat(1_100_000);
    let request = signed(&server, "POST", "/kms/keys", &body);
    let mut large = Connection::open(&server).await;
    large.send(head(&request, "connection: close\r\n")).await;
    large.send(&body).await;
    let answer = large.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("\"RequestTooLarge\""), "{answer}");
    let answer = server.call("POST", "/kms/keys", &body).await;
    assert_eq!(answer.refusal(), (413, "RequestTooLarge".to_owned()));

    generate(&server, "k").await.ok();
    let half = server.call("GET", "/kms/keys/half", "").await;
    assert_eq!(half.status, 404);
    drop(halves);
    assert_eq!(server.stop().await.0, Some(0));
}

/// An operator who sets a collector expects traces.
#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn collector_set_in_a_build_without_traces_is_warned_of() {
    let folder = folder();
    let server = ServerOptions::default()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .start(&data_dir(&folder))
        .await;
    let (code, log, _) = server.stop().await;
    assert_eq!(code, Some(0));
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(
        matches!(&warnings[..], [line] if line.contains("built without the feature otlp")),
        "{log}"
    );
}

/// `keyway ... | head` is no fault of the command.
#[tokio::test]
async fn command_whose_reader_goes_away_ends_without_a_word() {
    let script = r#"{ "$0" config example; echo "$?" >&2; } | true"#;
    let mut shell = tokio::process::Command::new("sh");
    let shell = shell
        .args(["-c", script])
        .arg(keyway_tests::binary("keyway"));
    let output = shell.output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(["141\n", "0\n"].contains(&stderr.as_str()), "{stderr}");
}

#[tokio::test]
async fn result_that_cannot_be_printed_is_an_error() {
    let mut shell = tokio::process::Command::new("sh");
    let shell = shell
        .args(["-c", r#""$0" config example > /dev/full"#])
        .arg(keyway_tests::binary("keyway"));
    let output = shell.output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("keyway: standard output: "), "{stderr}");
}
