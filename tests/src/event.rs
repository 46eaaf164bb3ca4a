//! Requests as the events that API Gateway passes to a function.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use serde_json::{Map, Value, json};

const API: &str = "a1b2c3d4e5";
const CLIENT: &str = "203.0.113.7";

/// The event in which an HTTP API passes this request on: payload format 2.0, stage `$default`, a route of its own.
/// A body that is not UTF-8 is base64.
pub fn http_api_event(request: &Request<Bytes>) -> Value {
    let method = request.method().as_str();
    let path = request.uri().path();
    let query = request.uri().query().unwrap_or_default();
    let host = text(request.headers(), "host");
    let mut headers = joined(request.headers());
    let cookies = headers.remove(header::COOKIE.as_str());
    for (name, value) in [
        (
            "x-amzn-trace-id",
            "Root=1-6b003640-0f1e2d3c4b5a69788796a5b4",
        ),
        ("x-forwarded-for", CLIENT),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
    ] {
        headers.insert(name.to_owned(), value.into());
    }
    if !request.body().is_empty() {
        headers.insert(
            "content-length".to_owned(),
            request.body().len().to_string().into(),
        );
    }
    let mut event = json!({
        "version": "2.0",
        "routeKey": format!("{method} {path}"),
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": API,
            "domainName": host,
            "domainPrefix": host.split('.').next(),
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": CLIENT,
                "userAgent": text(request.headers(), "user-agent"),
            },
            "requestId": "Xk3aWhZyoAMESLw=",
            "routeKey": format!("{method} {path}"),
            "stage": "$default",
            // No check uses this time: a signed header has the time of the request.
            "time": "20/Nov/2026:12:00:00 +0000",
            "timeEpoch": 1_795_176_000_000_u64,
        },
        "isBase64Encoded": false,
    });
    if let Some(Value::String(cookies)) = cookies {
        event["cookies"] = cookies.split("; ").collect();
    }
    if !query.is_empty() {
        event["queryStringParameters"] = parameters(query).into();
    }
    match std::str::from_utf8(request.body()) {
        Ok("") => {}
        Ok(body) => event["body"] = body.into(),
        Err(_) => {
            event["body"] = STANDARD.encode(request.body()).into();
            event["isBase64Encoded"] = true.into();
        }
    }
    event
}

/// Repeated headers are joined by commas, cookies as a browser sends them.
fn joined(headers: &HeaderMap) -> Map<String, Value> {
    headers
        .keys()
        .map(|name| {
            let separator = if name == header::COOKIE { "; " } else { "," };
            let values: Vec<_> = headers.get_all(name).iter().map(latin1).collect();
            (name.as_str().to_owned(), values.join(separator).into())
        })
        .collect()
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(latin1).unwrap_or_default()
}

/// JSON has no bytes, so each byte becomes the character with its number.
fn latin1(value: &http::HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// Decoded, and repeated ones joined by commas.
fn parameters(query: &str) -> Map<String, Value> {
    let mut parameters = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value);
        let joined = match parameters.get(&decoded(name)) {
            Some(Value::String(first)) => format!("{first},{value}"),
            _ => value,
        };
        parameters.insert(decoded(name), joined.into());
    }
    parameters
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let escaped = after
            .split_first_chunk::<2>()
            .filter(|_| first == b'%')
            .and_then(|(digits, after)| {
                let digits = std::str::from_utf8(digits).ok()?;
                Some((u8::from_str_radix(digits, 16).ok()?, after))
            });
        match (first, escaped) {
            (_, Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            (b'+', None) => bytes.push(b' '),
            (other, None) => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_keeps_its_bytes() {
        let request = Request::post("/a%2Fb?x=1&y=%C3%A9+%2&x=2")
            .header("host", "keyway.test")
            .header("cookie", "c=1; d=2")
            .header("X-Twice", "one")
            .header("x-twice", "two")
            .body(Bytes::from_static(b"\xff"))
            .unwrap();
        let event = http_api_event(&request);
        assert_eq!(event["rawPath"], "/a%2Fb");
        assert_eq!(event["rawQueryString"], "x=1&y=%C3%A9+%2&x=2");
        assert_eq!(
            event["queryStringParameters"],
            json!({ "x": "1,2", "y": "\u{e9} %2" })
        );
        assert_eq!(event["headers"]["x-twice"], "one,two");
        assert_eq!(event["headers"].get("cookie"), None);
        assert_eq!(event["cookies"], json!(["c=1", "d=2"]));
        assert_eq!(
            (&event["body"], &event["isBase64Encoded"]),
            (&json!("/w=="), &json!(true))
        );
    }

    /// Compares the event with those of the repository, which are as API Gateway sends them.
    #[test]
    fn event_has_the_shape_of_a_real_one() {
        fn shape(value: &Value, at: &str, found: &mut Vec<String>) {
            match value {
                Value::Object(members) if !at.ends_with("/headers") => {
                    for (name, member) in members {
                        shape(member, &format!("{at}/{name}"), found);
                    }
                }
                Value::Object(_) => found.push(at.to_owned()),
                other => found.push(format!("{at}: {:?}", std::mem::discriminant(other))),
            }
        }
        let real = include_str!("../../events/http-api/generate-data-key.json");
        let real: Value = serde_json::from_str(real).unwrap();
        let mut request = Request::post(real["rawPath"].as_str().unwrap());
        for (name, value) in real["headers"].as_object().unwrap() {
            request = request.header(name, value.as_str().unwrap());
        }
        let body = real["body"].as_str().unwrap().to_owned();
        let event = http_api_event(&request.body(body.into()).unwrap());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        shape(&event, "", &mut ours);
        shape(&real, "", &mut theirs);
        assert_eq!(ours, theirs);
        assert_eq!(event, real, "nor does anything else differ here");
    }
}
