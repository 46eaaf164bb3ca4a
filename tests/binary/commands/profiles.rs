//! Profiles, and which of options, variables and profiles wins.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use keyway_tests::ServerOptions;
use serde_json::json;

use super::Operator;
use crate::{access_key, data_dir, folder};

fn write(operator: &Operator, text: &str, mode: u32) {
    fs::create_dir_all(operator.path("keyway")).unwrap();
    let path = operator.path("keyway/config.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
}

fn write_secret(operator: &Operator, name: &str, text: &str) {
    let path = operator.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn options_win_over_variables_and_those_over_the_profile() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let endpoint = format!("http://{}", server.address);
    let user = Operator::nobody();
    write(
        &user,
        &format!(
            "[default]\nendpoint = \"{endpoint}\"\naccess_key = \"test-root\"\nsecret_key_file = \"root.secret\"\n\
             [wrong]\nendpoint = \"http://127.0.0.1:1\"\naccess_key = \"nobody\"\nsecret_key_file = \"root.secret\"\n"
        ),
        0o644,
    );
    // The file is beside the profiles.
    write_secret(&user, "keyway/root.secret", "test-root-secret\n");
    assert_eq!(user.json(&["key", "list"]).await, json!([]));
    let (code, stderr) = user.fails(&["key", "list", "--profile", "absent"]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("it has: default, wrong"), "{stderr}");
    let wrong = ["key", "list", "--profile", "wrong"];
    assert_eq!(user.fails(&wrong).await.0, 6);
    let to_server = [&wrong[..], &["--endpoint", &endpoint]].concat();
    assert_eq!(user.fails(&to_server).await.0, 4, "nobody's access key");
    let secret = user.path("keyway/root.secret");
    let key = ["--access-key", "test-root", "--secret-key-file", &secret];
    let by_options = [&to_server[..], &key].concat();
    assert_eq!(user.json(&by_options).await, json!([]));

    let by_variables = user
        .with("KEYWAY_PROFILE", "wrong")
        .with("KEYWAY_ENDPOINT", &endpoint)
        .with("AWS_ACCESS_KEY_ID", "test-root")
        .with("AWS_SECRET_ACCESS_KEY", "test-root-secret");
    assert_eq!(by_variables.json(&["key", "list"]).await, json!([]));
    let (code, _) = by_variables
        .fails(&["key", "list", "--endpoint", "http://127.0.0.1:1"])
        .await;
    assert_eq!(code, 6);
    let half = by_variables.with("AWS_SECRET_ACCESS_KEY", "");
    let (code, stderr) = half.fails(&["key", "list"]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("belong together"), "{stderr}");
}

#[tokio::test]
async fn temporary_access_key_is_sent_with_its_token() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    let temporary = ["--policy", "kms-auditor", "--expires-in", "1h"];
    let key = access_key(&data_dir, &temporary).await;
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    let user = Operator::root(&server)
        .with("AWS_ACCESS_KEY_ID", &text("access_key_id"))
        .with("AWS_SECRET_ACCESS_KEY", &text("secret_access_key"));
    assert_eq!(user.fails(&["key", "list"]).await.0, 4);
    let user = user.with("AWS_SESSION_TOKEN", &text("session_token"));
    assert_eq!(user.json(&["key", "list"]).await, json!([]));
}

#[tokio::test]
async fn faulty_profile_is_refused_by_its_line_and_without_its_secret() {
    let user = Operator::nobody();
    let path = user.path("keyway/config.toml");
    let secret = "access_key = \"id\"\nsecret_key = \"hunter2\"\n";
    for (text, mode, said) in [
        (
            format!("[default]\n{secret}region = 1\n"),
            0o600,
            format!("{path}:4: expected a string"),
        ),
        (
            format!("[default]\n{secret}secret = \"x\"\n"),
            0o600,
            format!("{path}:4: unknown field `secret`"),
        ),
        (
            format!("[default]\n{secret}"),
            0o640,
            format!("chmod 600 '{path}'"),
        ),
        (
            format!("[default]\n{secret}secret_key_file = \"f\"\n"),
            0o600,
            "remove one".to_owned(),
        ),
        (
            "[default]\naccess_key = \"id\"\n".to_owned(),
            0o600,
            "secret_key_file".to_owned(),
        ),
        (
            format!("[default]\nendpoint = \"http://kms.example.com\"\n{secret}"),
            0o600,
            "plain HTTP".to_owned(),
        ),
        (
            format!("[default]\nendpoint = \"https://u:hunter2@h\"\n{secret}"),
            0o600,
            "credentials".to_owned(),
        ),
        (
            format!("[default]\nendpoint = \"ftp://h\"\n{secret}"),
            0o600,
            "https://".to_owned(),
        ),
        (
            format!("[default]\nca = \"absent.pem\"\n{secret}"),
            0o600,
            "absent.pem".to_owned(),
        ),
    ] {
        write(&user, &text, mode);
        let (code, stderr) = user.fails(&["key", "list"]).await;
        assert_eq!(code, 2, "{text}: {stderr}");
        assert!(stderr.contains(&said), "{text}: {stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
    write(
        &user,
        "[default]\naccess_key = \"id\"\nsecret_key_file = \"s\"\n",
        0o644,
    );
    let secret_file = user.path("keyway/s");
    fs::write(&secret_file, "hunter2").unwrap();
    fs::set_permissions(&secret_file, Permissions::from_mode(0o644)).unwrap();
    let (code, stderr) = user.fails(&["key", "list"]).await;
    assert_eq!(code, 2);
    assert!(
        stderr.contains(&format!("chmod 600 '{secret_file}'")),
        "{stderr}"
    );
}

#[tokio::test]
async fn server_with_tls_is_called_with_its_authority() {
    let folder = folder();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(file("cert.pem"), made.cert.pem()).unwrap();
    fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let server = ServerOptions::default()
        .argument("--tls-cert")
        .argument(&file("cert.pem"))
        .argument("--tls-key")
        .argument(&file("key.pem"))
        .start(&data_dir(&folder))
        .await;
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let root =
        Operator::root(&server).with("KEYWAY_ENDPOINT", &format!("https://localhost:{port}/"));
    let (code, stderr) = root.fails(&["key", "list"]).await;
    assert_eq!(code, 6, "the system does not know the authority: {stderr}");
    let listed = root.json(&["key", "list", "--ca", &file("cert.pem")]).await;
    assert_eq!(listed, json!([]));
}

#[tokio::test]
async fn signature_names_the_service_and_region_of_the_settings() {
    let folder = folder();
    let server = ServerOptions::default()
        .variable("KEYWAY_SIGNING_REGION", "eu-west-1")
        .start(&data_dir(&folder))
        .await;
    let root = Operator::root(&server);
    assert_eq!(root.fails(&["key", "list"]).await.0, 4);
    let here = ["key", "list", "--region", "eu-west-1"];
    assert_eq!(root.json(&here).await, json!([]));
    write(
        &root,
        "[default]\nregion = \"eu-west-1\"\nservice = \"execute-api\"\n",
        0o644,
    );
    assert_eq!(root.json(&["key", "list"]).await, json!([]));
    write(
        &root,
        "[default]\nregion = \"eu-west-1\"\nservice = \"ec2\"\n",
        0o644,
    );
    assert_eq!(root.fails(&["key", "list"]).await.0, 4);
}
