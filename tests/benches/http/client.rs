//! Requests as bytes, signed once and sent many times: a signature is valid for 15 minutes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use keyway_tests::Signer;
use serde_json::Value;

use crate::Fallible;
use crate::process::{ROOT_ACCESS_KEY, ROOT_SECRET_KEY};

/// The request's bytes, signed by root; `path` is below the prefix.
pub(crate) fn signed(address: &str, method: &str, path: &str, body: &str) -> Fallible<Vec<u8>> {
    let signer = Signer::new(ROOT_ACCESS_KEY, ROOT_SECRET_KEY);
    let path = format!("/rustfs/admin/v3/kms{path}");
    signed_by(&signer, address, method, &path, body)
}

/// The request's bytes, signed by `signer`; `path` is the whole path and may carry a query.
pub(crate) fn signed_by(
    signer: &Signer,
    address: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Fallible<Vec<u8>> {
    let request = signer.request(method, address, path, body.as_bytes(), SystemTime::now());
    Ok(request_bytes(&request, path))
}

/// The bytes of a request for this path, which may carry a query.
pub(crate) fn request_bytes(request: &Request<Bytes>, path: &str) -> Vec<u8> {
    let (method, body) = (request.method(), request.body());
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\ncontent-length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in request.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend([b"\r\n", body.as_ref()].concat());
    bytes
}

/// The lengths of the head and of the whole first answer in `bytes`, once they are known.
pub(crate) fn answer_length(bytes: &[u8]) -> Option<(usize, usize)> {
    const NAME: &[u8] = b"\ncontent-length: ";
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let lines = bytes.get(..head)?;
    let digits = lines
        .windows(NAME.len())
        .position(|window| window.eq_ignore_ascii_case(NAME))?
        + NAME.len();
    let digits = lines
        .get(digits..)?
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    Some((head, head + body))
}

/// Whether an answer's status is 200.
pub(crate) fn is_ok(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ")
}

/// Sends one request on a connection of its own, and gives the whole answer.
pub(crate) fn exchange(address: &str, request: &[u8]) -> Fallible<Vec<u8>> {
    exchange_over(&mut TcpStream::connect(address)?, request)
}

/// Sends one request, and gives the whole answer.
pub(crate) fn exchange_over(stream: &mut TcpStream, request: &[u8]) -> Fallible<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err("the connection was closed before the answer was complete".into());
        }
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if answer_length(&answer).is_some_and(|(_, whole)| answer.len() >= whole) {
            return Ok(answer);
        }
    }
}

/// Calls as root, and gives the JSON of an answer that must be 200.
pub(crate) fn call(address: &str, method: &str, path: &str, body: &str) -> Fallible<Value> {
    let answer = exchange(address, &signed(address, method, path, body)?)?;
    let (head, _) = answer_length(&answer).ok_or("an answer without a length")?;
    if !is_ok(&answer) {
        return Err(format!("{method} {path}: {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok(serde_json::from_slice(
        answer.get(head..).unwrap_or_default(),
    )?)
}
