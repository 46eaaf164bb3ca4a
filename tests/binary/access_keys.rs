//! `keyway access-key` beside a server that runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use keyway_deployment_assembly::VaultFiles;
use keyway_deployment_embedded::{self as embedded, Operator};
use keyway_domain::policy::Policy;
use keyway_tests::{Server, ServerOptions, Signer};
use serde_json::{Value, json};

use crate::{access_key, create, data_dir, folder, generate, now, on, signer, wall_clock};

/// Runs `keyway access-key` with these arguments on this folder.
async fn tool(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = data_dir.to_str().unwrap();
    let all = [&["access-key"], arguments, &["--data-dir", folder]].concat();
    ServerOptions::default().run(&all).await
}

async fn list(data_dir: &Path) -> Vec<Value> {
    let (code, stdout, stderr) = tool(data_dir, &["list", "--output", "json"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// The status of generating a data key, which must be 200 or a plain refusal.
async fn generates(server: &Server, signer: &Signer, id: &str) -> u16 {
    let answer = server
        .call_as(signer, "POST", "/kms/generate-data-key", &on(id))
        .await;
    if answer.status != 200 {
        assert_eq!(answer.refusal().1, "AccessDenied");
    }
    answer.status.as_u16()
}

#[tokio::test]
async fn envelope_of_an_access_key_is_listed_and_takes_effect() {
    let folder = folder();
    let server = ServerOptions::default()
        .argument("--aws-ciphertext")
        .argument("plain")
        .start(folder.path())
        .await;
    create(&server, "k").await;
    let make = ["create", "--policy", "kms-key-user", "--output", "json"];
    for (shape, is_enveloped) in [
        (Some("rustfs"), true),
        (Some("plain"), false),
        (None, false),
    ] {
        let envelope = shape.map(|shape| ["--envelope", shape]);
        let arguments: Vec<&str> = make
            .into_iter()
            .chain(envelope.into_iter().flatten())
            .collect();
        let (code, made, stderr) = tool(folder.path(), &arguments).await;
        assert_eq!(code, Some(0), "{stderr}");
        let made: Value = serde_json::from_str(&made).unwrap();
        let text = |name: &str| made[name].as_str().unwrap();
        let listed = list(folder.path()).await;
        let id = text("access_key_id");
        let key = listed.iter().find(|key| key["access_key_id"] == id);
        assert_eq!(key.unwrap()["envelope"].as_str(), shape);
        let (_, lines, _) = tool(folder.path(), &["list"]).await;
        let line = lines.lines().find(|line| line.starts_with(id)).unwrap();
        let shown = shape.map_or("envelope".to_owned(), |shape| {
            format!("  envelope {shape}  ")
        });
        assert_eq!(line.contains(&shown), shape.is_some(), "{line}");

        let signer = Signer::new(id, text("secret_access_key")).for_service("kms");
        let signer = signer.with_target("TrentService.GenerateDataKey");
        let body = r#"{"KeyId":"k","KeySpec":"AES_256"}"#;
        let request = signer.request("POST", &server.address, "/", body.as_bytes(), wall_clock());
        let answer = server.send(request).await.unwrap();
        // The base64 of `{"`.
        let blob = answer.text("CiphertextBlob");
        assert_eq!(blob.starts_with("eyJ"), is_enveloped, "{shape:?}");
    }
    let (code, _, _) = tool(
        folder.path(),
        &["create", "--policy", "kms-key-user", "--envelope", "other"],
    )
    .await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn canned_policy_permits_its_routes_and_no_others() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    let with = |more: &str| format!(r#"{{"key_id":"k",{more}}}"#);
    let sealed = format!(r#"{{"ciphertext_blob":"{blob}"}}"#);
    const ADMIN: &str = "kms-admin";
    const ADMINISTRATOR: &str = "kms-key-administrator";
    const USER: &str = "kms-key-user";
    const AUDITOR: &str = "kms-auditor";
    let manage = &[ADMIN, ADMINISTRATOR][..];
    let seal = &[ADMIN, USER][..];
    let look = &[ADMIN, ADMINISTRATOR, AUDITOR][..];
    let all = &[ADMIN, ADMINISTRATOR, USER, AUDITOR][..];
    // In this order, every permitted call gets a 200 and leaves the key as it was.
    let matrix = [
        ("POST", "/kms/keys", "{}".to_owned(), manage),
        ("POST", "/kms/create-key", String::new(), manage),
        ("GET", "/kms/keys", String::new(), look),
        ("GET", "/kms/list-keys", String::new(), look),
        ("GET", "/kms/keys/k", String::new(), all),
        ("GET", "/kms/describe-key?keyId=k", String::new(), all),
        ("POST", "/kms/keys/tag", with(r#""tags":{"a":"b"}"#), manage),
        (
            "POST",
            "/kms/keys/untag",
            with(r#""tag_keys":["a"]"#),
            manage,
        ),
        (
            "POST",
            "/kms/keys/update-description",
            with(r#""description":"d""#),
            manage,
        ),
        ("POST", "/kms/keys/rotate", on("k"), manage),
        ("POST", "/kms/generate-data-key", on("k"), seal),
        (
            "POST",
            "/kms/encrypt",
            with(r#""plaintext":"aGVsbG8=""#),
            seal,
        ),
        ("POST", "/kms/decrypt", sealed.clone(), seal),
        ("POST", "/kms/rewrap", sealed, seal),
        ("POST", "/kms/keys/disable", on("k"), manage),
        ("POST", "/kms/keys/enable", on("k"), manage),
        ("DELETE", "/kms/keys/delete", on("k"), manage),
        ("POST", "/kms/keys/cancel-deletion", on("k"), manage),
    ];
    for policy in all {
        let caller = signer(&access_key(folder.path(), &["--policy", policy]).await);
        for (method, path, body, allowed) in &matrix {
            let answer = server.call_as(&caller, method, path, body).await;
            if allowed.contains(policy) {
                assert_eq!(answer.status, 200, "{policy}: {method} {path}");
            } else {
                let refusal = (403, "AccessDenied".to_owned());
                assert_eq!(answer.refusal(), refusal, "{policy}: {method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn policy_can_be_limited_to_keys_or_come_from_a_file() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    for id in ["app-1", "app-2", "apple", "exact", "exact-2"] {
        create(&server, id).await;
    }
    let limited = [
        "--policy",
        "kms-key-user",
        "--key",
        "exact",
        "--key",
        "app-*",
    ];
    let user = signer(&access_key(folder.path(), &limited).await);
    for (id, status) in [
        ("app-1", 200),
        ("app-2", 200),
        ("exact", 200),
        ("exact-2", 403),
        ("apple", 403),
        ("absent", 403),
    ] {
        assert_eq!(generates(&server, &user, id).await, status, "{id}");
    }
    let limited = ["--policy", "kms-auditor", "--key", "app*"];
    let auditor = signer(&access_key(folder.path(), &limited).await);
    let answer = server.call_as(&auditor, "GET", "/kms/keys", "").await.ok();
    let listed: Vec<_> = answer["keys"].as_array().unwrap().iter().collect();
    let ids: Vec<_> = listed.iter().map(|key| key["key_id"].clone()).collect();
    assert_eq!(json!(ids), json!(["app-1", "app-2", "apple"]));

    let file = folder.path().join("policy.json");
    let write = |resource: &str| {
        let policy = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["kms:Generate*"], "Resource": resource},
            {"Effect": "Deny", "Action": "kms:*", "Resource": "arn:aws:kms:::key/app-2"},
        ]});
        fs::write(&file, policy.to_string()).unwrap();
    };
    write("arn:aws:kms:::key/app-?");
    let path = file.to_str().unwrap();
    let filed = signer(&access_key(folder.path(), &["--policy", path]).await);
    for (id, status) in [("app-1", 200), ("app-2", 403), ("apple", 403)] {
        assert_eq!(generates(&server, &filed, id).await, status, "{id}");
    }
    // The policy is stored as written.
    write("*");
    assert_eq!(generates(&server, &filed, "apple").await, 403);
    let answer = server.call_as(&filed, "GET", "/kms/keys/app-1", "").await;
    assert_eq!(answer.refusal().0, 403);
}

#[tokio::test]
async fn access_key_that_expires_needs_its_token_and_ends() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    let auditor = ["--policy", "kms-auditor"];
    let lasting = access_key(folder.path(), &auditor).await;
    let fields = |key: &Value| key.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&lasting), ["access_key_id", "secret_access_key"]);

    let expiring = [&auditor[..], &["--expires-in", "600"]].concat();
    let expiring = access_key(folder.path(), &expiring).await;
    assert_eq!(
        fields(&expiring),
        [
            "access_key_id",
            "expiration",
            "secret_access_key",
            "session_token"
        ]
    );
    let expiration = expiring["expiration"].as_str().unwrap();
    assert!(
        expiration.len() == 20 && expiration.ends_with('Z'),
        "{expiration}"
    );

    let bare = |key: &Value| {
        let mut bare = key.clone();
        bare.as_object_mut().unwrap().remove("session_token");
        signer(&bare)
    };
    let token = expiring["session_token"].as_str().unwrap();
    let status = async |signer: Signer| {
        let answer = server.call_as(&signer, "GET", "/kms/keys/k", "").await;
        if answer.status != 200 {
            assert_eq!(answer.refusal().1, "AccessDenied");
        }
        answer.status.as_u16()
    };
    assert_eq!(status(signer(&lasting)).await, 200);
    assert_eq!(status(signer(&lasting).with_token(token)).await, 401);
    assert_eq!(status(signer(&expiring)).await, 200);
    assert_eq!(status(bare(&expiring)).await, 401);
    let wrong = format!("{}x", &token[1..]);
    assert_eq!(status(bare(&expiring).with_token(&wrong)).await, 401);

    let life = Duration::from_secs(2);
    let before = now();
    let brief = [&auditor[..], &["--expires-in", "2"]].concat();
    let brief = access_key(folder.path(), &brief).await;
    let made = now();
    loop {
        let began = now();
        let status = status(signer(&brief)).await;
        if now() < before + life {
            assert_eq!(status, 200, "it works while it lives");
        } else if began > made + life {
            assert_eq!(status, 401, "it ends");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let listed = list(folder.path()).await;
    assert_eq!(
        listed.len(),
        2,
        "what has expired is not listed: {listed:?}"
    );
}

#[tokio::test]
async fn listing_shows_no_secret_and_revocation_ends_a_key() {
    let folder = folder();
    let options = ServerOptions::default().variable("KEYWAY_STATE_TTL_SECONDS", "0");
    let server = options.start(folder.path()).await;
    create(&server, "k").await;
    let limited = ["--policy", "kms-key-user", "--key", "k"];
    let key = access_key(folder.path(), &limited).await;
    let brief = ["--policy", "kms-auditor", "--expires-in", "600"];
    let brief = access_key(folder.path(), &brief).await;

    let mut ids = [&key["access_key_id"], &brief["access_key_id"]];
    ids.sort_by_key(|id| id.as_str());
    let listed = list(folder.path()).await;
    let listed_ids: Vec<_> = listed.iter().map(|key| &key["access_key_id"]).collect();
    assert_eq!(listed_ids, ids);
    let (_, text, _) = tool(folder.path(), &["list"]).await;
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("arn:aws:kms:::key/k"), "{text}");
    let json = serde_json::to_string(&listed).unwrap();
    for key in [&key, &brief] {
        for secret in ["secret_access_key", "session_token"] {
            if let Some(secret) = key[secret].as_str() {
                assert!(!text.contains(secret) && !json.contains(secret));
            }
        }
    }

    assert_eq!(generates(&server, &signer(&key), "k").await, 200);
    let id = key["access_key_id"].as_str().unwrap();
    let (code, stdout, _) = tool(folder.path(), &["revoke", id]).await;
    assert_eq!((code, stdout), (Some(0), format!("revoked {id}\n")));
    assert_eq!(generates(&server, &signer(&key), "k").await, 401);
    let listed = list(folder.path()).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["access_key_id"], brief["access_key_id"]);
    assert_eq!(listed[0]["owner"], false);
}

#[tokio::test]
async fn rotated_access_key_hands_over_to_the_new_one() {
    let folder = folder();
    let options = ServerOptions::default().variable("KEYWAY_STATE_TTL_SECONDS", "0");
    let server = options.start(folder.path()).await;
    create(&server, "k").await;
    let limited = ["--policy", "kms-key-user", "--key", "k", "--name", "node-1"];
    let old = access_key(folder.path(), &limited).await;
    let old_id = old["access_key_id"].as_str().unwrap();
    let rotate = ["rotate", old_id, "--overlap", "1h", "--output", "json"];
    let (code, stdout, stderr) = tool(folder.path(), &rotate).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let new: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(new["replaces"], old_id);
    for key in [&old, &new] {
        assert_eq!(generates(&server, &signer(key), "k").await, 200);
        assert_eq!(generates(&server, &signer(key), "other").await, 403);
    }
    let listed = list(folder.path()).await;
    let of = |key: &Value| {
        let id = &key["access_key_id"];
        let found = listed.iter().find(|listed| listed["access_key_id"] == *id);
        found.unwrap().clone()
    };
    assert_eq!(of(&old)["expires_at"], new["old_expiration"]);
    assert_eq!(of(&old)["replaced_by"], new["access_key_id"]);
    assert_eq!(
        (&of(&new)["name"], &of(&new)["expires_at"]),
        (&json!("node-1"), &Value::Null)
    );

    let (code, _, stderr) = tool(folder.path(), &["rotate", old_id]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("was rotated already"), "{stderr}");
    let new_id = new["access_key_id"].as_str().unwrap();
    let (code, text, stderr) = tool(folder.path(), &["rotate", new_id, "--overlap", "0"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(text.starts_with("AWS_ACCESS_KEY_ID=KW"), "{text}");
    assert!(
        stderr.starts_with(&format!("{new_id} works until ")),
        "{stderr}"
    );
    assert_eq!(generates(&server, &signer(&new), "k").await, 401);
    assert_eq!(
        generates(&server, &signer(&old), "k").await,
        200,
        "its overlap lasts"
    );
    for overlap in ["367d", "-1h", "soon"] {
        let (code, _, stderr) =
            tool(folder.path(), &["rotate", old_id, "--overlap", overlap]).await;
        assert_eq!(code, Some(2), "{stderr}");
    }
    let named = ["create", "--policy", "kms-admin", "--name", "two words"];
    let (code, _, stderr) = tool(folder.path(), &named).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("name: must be 1 to 64 of"), "{stderr}");
}

/// Makes an access key with a policy that only an older release accepts.
async fn made_before(data_dir: &Path, policy: &Value) -> Signer {
    let operator = Operator {
        data_dir: data_dir.to_owned(),
        passphrase_file: None,
        root_keyring_file: None,
    };
    let policy: Policy = serde_json::from_value(policy.clone()).unwrap();
    let deployment = embedded::open(&operator, &VaultFiles::default()).await;
    let keys = deployment.unwrap().access_keys();
    let made = keys.create(policy, None).await.unwrap();
    let secret = std::str::from_utf8(made.secret.expose()).unwrap();
    Signer::new(made.id.as_str(), secret)
}

#[tokio::test]
async fn access_key_with_a_void_deny_may_do_nothing_and_is_listed_as_invalid() {
    let folder = folder();
    let options = ServerOptions::default().variable("KEYWAY_STATE_TTL_SECONDS", "0");
    let server = options.start(folder.path()).await;
    create(&server, "k").await;
    let policy = json!({"Statement": [
        {"Effect": "Allow", "Action": ["kms:*"]},
        {"Effect": "Deny", "Action": ["kms:*"], "Resource": ["arn:aws:kms:::reports"]},
    ]});
    let key = made_before(folder.path(), &policy).await;
    for _ in 0..3 {
        assert_eq!(generates(&server, &key, "k").await, 403);
    }
    let listed = list(folder.path()).await;
    let invalid = listed[0]["invalid"].as_str().unwrap();
    assert!(invalid.contains("statement 2: Resource 1"), "{invalid}");
    let (_, text, _) = tool(folder.path(), &["list"]).await;
    assert!(text.contains("invalid, and allows nothing"), "{text}");
    let (_, log, _) = server.stop().await;
    assert_eq!(
        log.matches("has a Deny that denies nothing").count(),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn refusal_of_a_policy_names_the_unsupported_part() {
    let folder = folder();
    ServerOptions::default()
        .start(folder.path())
        .await
        .stop()
        .await;
    let file = folder.path().join("policy.json");
    for element in ["Condition", "NotAction", "Principal"] {
        let statement = json!({"Effect": "Allow", "Action": "kms:*", element: "x"});
        for statement in [statement.clone(), json!([statement])] {
            fs::write(&file, json!({"Statement": statement}).to_string()).unwrap();
            let create = ["create", "--policy", file.to_str().unwrap()];
            let (code, _, stderr) = tool(folder.path(), &create).await;
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.contains(element), "no {element} in: {stderr}");
        }
    }
}

#[tokio::test]
async fn command_with_a_mistake_names_it_and_changes_nothing() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    access_key(folder.path(), &["--policy", "kms-admin"]).await;
    let before = list(folder.path()).await;

    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let statement =
        |more: &str| format!(r#"{{"Statement":{{"Effect":"Allow","Action":"kms:*"{more}}}}}"#);
    let no_json = file("no-json", "Statement: all");
    let no_action = file("no-action", &statement("").replace("kms:*", "kms:Fly"));
    let no_resource = file("no-resource", &statement(r#","Resource":"k""#));
    let long = file("long", &format!("{}{}", statement(""), " ".repeat(20_480)));
    let own = file("own", &statement(r#","Resource":"arn:aws:kms:::key/k""#));
    let folder_itself = folder.path().to_str().unwrap().to_owned();
    for (arguments, words) in [
        (
            &["create", "--policy", "kms-everything"][..],
            "`kms-everything` is neither",
        ),
        (&["create", "--policy", &folder_itself], &folder_itself),
        (&["create", "--policy", &no_json], "policy:"),
        (
            &["create", "--policy", &no_action],
            "statement 1: Action 1 is no action",
        ),
        (
            &["create", "--policy", &no_resource],
            "statement 1: Resource 1 is neither",
        ),
        (&["create", "--policy", &long], "longer than 20480"),
        (
            &["create", "--policy", &own, "--key", "k"],
            "names resources itself",
        ),
        (
            &["create", "--policy", "kms-admin", "--key", "no/id"],
            "key:",
        ),
        (&["create", "--policy", "kms-admin", "--key", "a*b"], "key:"),
        (
            &[
                "create",
                "--policy",
                "kms-admin",
                "--expires-in",
                "99999999",
            ],
            "366 days",
        ),
        (
            &["revoke", "KWNOSUCHACCESSKEY000"],
            "there is no access key KWNOSUCHACCESSKEY000",
        ),
        (&["revoke", "no id"], "access_key_id:"),
    ] {
        let (code, stdout, stderr) = tool(folder.path(), arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("keyway: "), "{stderr}");
        assert!(
            stderr.contains(words),
            "{words:?} for {arguments:?}: {stderr}"
        );
        assert_eq!(stdout, "");
    }
    for arguments in [
        &["create"][..],
        &["create", "--policy", "kms-admin", "--expires-in", "0"],
        &["create", "--policy", "kms-admin", "--output", "xml"],
        &["revoke"],
    ] {
        let (code, _, stderr) = tool(folder.path(), arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
    }
    assert_eq!(list(folder.path()).await, before);

    let nothing = data_dir(&folder);
    for arguments in [
        &["create", "--policy", "kms-admin"][..],
        &["list"],
        &["revoke", "KWX"],
    ] {
        let (code, _, stderr) = tool(&nothing, arguments).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("there is no deployment in"), "{stderr}");
        assert!(!nothing.exists());
    }
}
