//! Servers of others, where they are installed: a KES server, OpenBao and moto.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Fallible;
use crate::client::{answer_length, exchange, is_ok};
use crate::kes::ADMIN;
use crate::process::Server;

/// The token that may do everything in OpenBao.
pub(crate) const BAO_TOKEN: &str = "bench-root";

/// The project's folder.
fn project() -> &'static Path {
    keyway_tests::project()
}

fn free_port() -> Fallible<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A KES server of the binary that `KES_BINARY` names, with its keys in files, its logs off, and the certificate in `folder`.
pub(crate) fn kes(folder: &Path) -> Fallible<Option<Server>> {
    let Some(program) = std::env::var_os("KES_BINARY") else {
        return Ok(None);
    };
    let address = format!("127.0.0.1:{}", free_port()?);
    let own = folder.join("kes-server");
    std::fs::create_dir_all(own.join("keys"))?;
    let config = json!({
        "version": "v1",
        "address": address,
        "admin": {"identity": ADMIN},
        "tls": {
            "key": folder.join("kes-listener.key"),
            "cert": folder.join("kes-listener.crt"),
        },
        "log": {"error": "off", "audit": "off"},
        "keystore": {"fs": {"path": own.join("keys")}},
    });
    // JSON is YAML.
    let file = own.join("config.yml");
    std::fs::write(&file, config.to_string())?;
    let mut command = Command::new(program);
    command.arg("server").arg("--config").arg(file);
    Ok(Some(Server::start_at(&mut command, address)?))
}

/// OpenBao with its data in memory and a transit key named `bench`, if `scripts/bao` has installed it.
pub(crate) fn bao() -> Fallible<Option<Server>> {
    let program = project().join(".cache/bao/bin/bao");
    if !program.exists() {
        return Ok(None);
    }
    let address = format!("127.0.0.1:{}", free_port()?);
    let home = tempfile::tempdir()?;
    let mut command = Command::new(program);
    command
        .args(["server", "-dev", "-dev-no-store-token"])
        .arg(format!("-dev-listen-address={address}"))
        .arg(format!("-dev-root-token-id={BAO_TOKEN}"))
        .env_clear()
        .env("HOME", home.path());
    let server = Server::start_at(&mut command, address)?;
    let mut tries = 0;
    // It listens before it is ready.
    while !is_done(
        &server.address,
        "sys/mounts/transit",
        &json!({"type": "transit"}),
    )? {
        tries += 1;
        if tries > 100 {
            return Err("OpenBao does not mount its transit engine".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let derived = json!({"derived": true});
    if !is_done(&server.address, "transit/keys/bench", &derived)? {
        return Err("OpenBao does not make a key".into());
    }
    Ok(Some(server))
}

/// Whether OpenBao carries out this request. Its answer may have no body, and then has no length either.
fn is_done(address: &str, path: &str, body: &Value) -> Fallible<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(&bao_request(path, body))?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status.starts_with(b"HTTP/1.1 20"))
}

/// A request of OpenBao's API.
pub(crate) fn bao_request(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST /v1/{path} HTTP/1.1\r\nhost: localhost\r\nx-vault-token: {BAO_TOKEN}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Moto with a KMS key, whose id is returned, if `scripts/with-aws` has installed it.
pub(crate) fn moto() -> Fallible<Option<(Server, String)>> {
    let python: PathBuf = project().join(".cache/aws/moto/bin/python");
    if !python.exists() {
        return Ok(None);
    }
    let port = free_port()?;
    let mut command = Command::new(python);
    command
        .arg("-I")
        .arg(project().join("scripts/aws/moto_server.py"))
        .arg(port.to_string());
    let server = Server::start_at(&mut command, format!("127.0.0.1:{port}"))?;
    let request = crate::aws::aws_signed(&server.address, "CreateKey", &json!({}))?;
    let answer = exchange(&server.address, &request)?;
    let (head, _) = answer_length(&answer).ok_or("an answer without a length")?;
    if !is_ok(&answer) {
        return Err(format!("moto: {}", String::from_utf8_lossy(&answer)).into());
    }
    let made: Value = serde_json::from_slice(answer.get(head..).unwrap_or_default())?;
    let id = made.pointer("/KeyMetadata/KeyId").and_then(Value::as_str);
    let id = id.ok_or("moto does not say the key's id")?.to_owned();
    Ok(Some((server, id)))
}
