//! Events as each source sends them, and malformed events.

mod answers;
mod events;
mod hostile;

#[path = "echo.rs"]
mod echo;

use http_body_util::BodyExt;
use keyway_http::{BasePath, Peer, Site};
use lambda_runtime::FunctionResponse;
use serde_json::{Value, json};

use crate::event::Refusal;
use crate::{EventSource, Ingress};

fn ingress(source: &str) -> Ingress {
    Ingress {
        source: source.parse().unwrap(),
        stage: None,
        streaming: false,
    }
}

/// The facts of the request that an event carries.
#[derive(Debug)]
struct Read {
    line: String,
    base: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    peer: Peer,
}

impl Read {
    fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

fn read(ingress: &Ingress, event: &Value) -> Result<Read, Refusal> {
    let (request, peer) = ingress.read(&event.to_string()).request?;
    let (parts, body) = request.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8(value.as_bytes().to_vec()).unwrap();
    Ok(Read {
        line: format!("{} {}", parts.method, parts.uri),
        base: parts.extensions.get().map(|BasePath(base)| base.clone()),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: block_on(body.collect()).unwrap().to_bytes().to_vec(),
        peer,
    })
}

/// The answer to an event, both in the JSON that Lambda passes on.
fn answer(site: &Site, ingress: &Ingress, event: &str) -> Value {
    match block_on(crate::respond(site, ingress, event)) {
        FunctionResponse::BufferedResponse(answer) => serde_json::to_value(answer).unwrap(),
        FunctionResponse::StreamingResponse(answer) => json!({
            "prelude": answer.metadata_prelude,
            "body": *block_on(answer.stream.collect()).unwrap().to_bytes(),
        }),
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// The event with the member at the JSON pointer changed, or added to the object that it points into.
fn with(event: &Value, pointer: &str, value: Value) -> Value {
    let mut event = event.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    event.pointer_mut(parent).unwrap()[name] = value;
    event
}

fn without(event: &Value, pointer: &str) -> Value {
    let mut event = event.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.remove(name).unwrap();
    event
}

const SOURCES: [&str; 5] = ["http-api", "rest-api", "alb", "function-url", "api-gateway"];

fn event_of(source: EventSource) -> Value {
    match source {
        EventSource::HttpApi => http_api(),
        // The one of the two that no other source shares.
        EventSource::RestApi | EventSource::ApiGateway => rest_api(),
        EventSource::Alb => alb(),
        EventSource::FunctionUrl => function_url(),
    }
}

fn http_api() -> Value {
    json!({
        "version": "2.0",
        "routeKey": "POST /rustfs/admin/v3/kms/keys/{key_id}",
        "rawPath": "/echo/facts",
        "rawQueryString": "b=2&a=%2f&a=1",
        "cookies": ["c=1", "d=2"],
        "headers": {
            "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00",
            "content-length": "13",
            "content-type": "application/json",
            "host": "abcdefghij.execute-api.eu-central-1.amazonaws.com",
            "x-amz-date": "20260102T030405Z",
            "x-amzn-trace-id": "Root=1-65958f85-000000000000000000000001",
            "x-forwarded-for": "198.51.100.9, 203.0.113.7",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            "x-twice": "one,two"
        },
        "queryStringParameters": { "a": "/,1", "b": "2" },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abcdefghij",
            "domainName": "abcdefghij.execute-api.eu-central-1.amazonaws.com",
            "domainPrefix": "abcdefghij",
            "http": {
                "method": "POST",
                "path": "/echo/facts",
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "test/1"
            },
            "requestId": "ZLEiXg1hliAEPnw=",
            "routeKey": "POST /rustfs/admin/v3/kms/keys/{key_id}",
            "stage": "$default",
            "time": "02/Jan/2026:03:04:05 +0000",
            "timeEpoch": 1767323045000_u64
        },
        "pathParameters": { "key_id": "a" },
        "body": "{\"key\":\"a b\"}",
        "isBase64Encoded": false
    })
}

fn function_url() -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/echo/facts",
        "rawQueryString": "a=1",
        "headers": {
            "host": "abcdefghijklmnopqrstuvwxyz012345.lambda-url.eu-central-1.on.aws",
            "x-amzn-tls-cipher-suite": "TLS_AES_128_GCM_SHA256",
            "x-amzn-tls-version": "TLSv1.3",
            "x-forwarded-for": "203.0.113.7",
            "x-forwarded-proto": "https"
        },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abcdefghijklmnopqrstuvwxyz012345",
            "authentication": null,
            "authorizer": {
                "iam": {
                    "accessKey": "AKIDEXAMPLE",
                    "accountId": "111122223333",
                    "callerId": "AIDAEXAMPLE",
                    "cognitoIdentity": null,
                    "principalOrgId": null,
                    "userArn": "arn:aws:iam::111122223333:user/alice",
                    "userId": "AIDAEXAMPLE"
                }
            },
            "domainName": "abcdefghijklmnopqrstuvwxyz012345.lambda-url.eu-central-1.on.aws",
            "domainPrefix": "abcdefghijklmnopqrstuvwxyz012345",
            "http": {
                "method": "POST",
                "path": "/echo/facts",
                "protocol": "HTTP/1.1",
                "sourceIp": "2001:db8::7",
                "userAgent": "test/1"
            },
            "requestId": "00000000-0000-4000-8000-000000000001",
            "routeKey": "$default",
            "stage": "$default",
            "time": "02/Jan/2026:03:04:05 +0000",
            "timeEpoch": 1767323045000_u64
        },
        "body": "eyJrZXkiOiJhIn0=",
        "isBase64Encoded": true
    })
}

fn rest_api() -> Value {
    json!({
        "resource": "/{proxy+}",
        "path": "/echo/facts",
        "httpMethod": "POST",
        "headers": {
            "Accept": "*/*",
            "Content-Type": "application/json",
            "Host": "abcdefghij.execute-api.eu-central-1.amazonaws.com",
            "X-Forwarded-For": "198.51.100.9, 203.0.113.7",
            "X-Forwarded-Proto": "https",
            "X-Twice": "two"
        },
        "multiValueHeaders": {
            "Accept": ["*/*"],
            "Content-Type": ["application/json"],
            "Host": ["abcdefghij.execute-api.eu-central-1.amazonaws.com"],
            "X-Forwarded-For": ["198.51.100.9, 203.0.113.7"],
            "X-Forwarded-Proto": ["https"],
            "X-Twice": ["one", "two"]
        },
        "queryStringParameters": { "b": "2", "a": "1" },
        "multiValueQueryStringParameters": { "b": ["2"], "a": ["/ +é~*", "1"] },
        "pathParameters": { "proxy": "echo/facts" },
        "stageVariables": null,
        "requestContext": {
            "resourceId": "abcdef",
            "resourcePath": "/{proxy+}",
            "httpMethod": "POST",
            "extendedRequestId": "ZLEiXg1hliAEPnw=",
            "requestTime": "02/Jan/2026:03:04:05 +0000",
            "path": "/prod/echo/facts",
            "accountId": "123456789012",
            "protocol": "HTTP/1.1",
            "stage": "prod",
            "domainPrefix": "abcdefghij",
            "requestTimeEpoch": 1767323045000_u64,
            "requestId": "00000000-0000-4000-8000-000000000001",
            "identity": {
                "cognitoIdentityPoolId": null,
                "accountId": null,
                "cognitoIdentityId": null,
                "caller": null,
                "sourceIp": "203.0.113.7",
                "principalOrgId": null,
                "accessKey": null,
                "cognitoAuthenticationType": null,
                "cognitoAuthenticationProvider": null,
                "userArn": null,
                "userAgent": "test/1",
                "user": null
            },
            "domainName": "abcdefghij.execute-api.eu-central-1.amazonaws.com",
            "apiId": "abcdefghij"
        },
        "body": "{\"key\":\"a b\"}",
        "isBase64Encoded": false
    })
}

/// A load balancer's event with multi-value headers turned off.
fn alb() -> Value {
    json!({
        "requestContext": {
            "elb": {
                "targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/keyway/0123456789abcdef"
            }
        },
        "httpMethod": "POST",
        "path": "/echo/facts",
        "queryStringParameters": { "a": "%2f+%C3%A9", "b": "2" },
        "headers": {
            "accept": "*/*",
            "host": "keyway.example.com",
            "x-amzn-trace-id": "Root=1-65958f85-000000000000000000000001",
            "x-forwarded-for": "127.0.0.1, 203.0.113.7",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https"
        },
        "body": "{}",
        "isBase64Encoded": false
    })
}

fn alb_multi() -> Value {
    let mut event = alb();
    for (single, multi) in [
        ("headers", "multiValueHeaders"),
        ("queryStringParameters", "multiValueQueryStringParameters"),
    ] {
        let members = event.as_object_mut().unwrap().remove(single).unwrap();
        let lists = members.as_object().unwrap().iter();
        event[multi] = lists
            .map(|(name, value)| (name.clone(), json!([value])))
            .collect();
    }
    event
}
