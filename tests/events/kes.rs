//! The events of KES's API: of a REST API behind a domain that demands certificates, and of a load balancer.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Response, StatusCode};
use keyway_auth::certificate::{ProxyCertificateHeader, TrustedProxies, TrustedProxy};
use keyway_runtime_lambda::{EventSource, serve};
use keyway_tests::MemorySite;
use serde_json::{Value, json};

use crate::{Event, Function, events, is_page, life};

/// The identity of the certificate in the events.
const ADMIN: &str = "54f9cbe5cfa204bd7eb2c9ed4cfaad7aaeb85e43e06f428525fac5a1d35631cb";

async fn function(source: EventSource, proxy: Option<ProxyCertificateHeader>) {
    let proxy = proxy.map(|header| TrustedProxy {
        header,
        proxies: TrustedProxies::Everybody,
    });
    let site = MemorySite::with_certificates(proxy, ADMIN).await;
    let proxy = keyway_runtime_lambda::Ingress {
        source,
        stage: None,
        streaming: false,
    };
    serve(site.kes_site(), proxy).await.unwrap();
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn rest_api() {
    function(EventSource::RestApi, None).await;
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn api_gateway() {
    function(EventSource::ApiGateway, None).await;
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn alb() {
    function(
        EventSource::Alb,
        Some(ProxyCertificateHeader::AmznMtlsClientcertLeaf),
    )
    .await;
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn alb_that_is_not_believed() {
    function(EventSource::Alb, None).await;
}

fn json_of(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_default()
}

/// The status and message of a refusal.
fn refusal(answer: &Response<Bytes>) -> (u16, String) {
    let message = json_of(answer)["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status().as_u16(), message)
}

/// The answer without the parts that differ between processes and calls.
fn comparable(name: &str, answer: &Response<Bytes>) -> (StatusCode, Bytes) {
    let body = match name {
        "generate-key" | "encrypt-key" | "metrics" => Bytes::new(),
        _ => answer.body().clone(),
    };
    (answer.status(), body)
}

/// Has the function answer every event of the folder in the order of a key's life.
async fn a_life(folder: &str, function: &str) -> Vec<(StatusCode, Bytes)> {
    let mut events = events(folder);
    let life = life("kes-rest-api");
    let names: BTreeSet<&String> = events.keys().collect();
    assert_eq!(
        names,
        life.iter().collect(),
        "each event has its place in the order"
    );
    let function = Function::of(function).await;
    let mut sealed = Value::Null;
    let mut answers = Vec::new();
    for name in life.iter().map(String::as_str) {
        let mut event = events.remove(name).unwrap();
        if name.ends_with("decrypt-key") {
            let mut body: Value = serde_json::from_str(event["body"].as_str().unwrap()).unwrap();
            let item = if body.is_array() {
                &mut body[0]
            } else {
                &mut body
            };
            assert!(item["ciphertext"].is_string());
            item["ciphertext"] = sealed.clone();
            event["body"] = body.to_string().into();
        }
        let answer = function.answer(&Event(event)).await;
        let body = json_of(&answer);
        assert_eq!(answer.status(), StatusCode::OK, "{folder}/{name}: {body}");
        match name {
            "encrypt-key" => sealed = body["ciphertext"].clone(),
            "decrypt-key" => assert_eq!(body["plaintext"], "aGVsbG8sIHdvcmxk"),
            "bulk-decrypt-key" => assert_eq!(body[0]["plaintext"], "aGVsbG8sIHdvcmxk"),
            "list-keys" => assert_eq!(body["name"], "backups"),
            "describe-self" => assert_eq!(
                (&body["identity"], &body["admin"]),
                (&json!(ADMIN), &json!(true))
            ),
            "describe-identity" => assert_eq!(body["policy"], "minio"),
            _ => {}
        }
        answers.push(comparable(name, &answer));
    }
    answers
}

#[tokio::test]
async fn every_ingress_serves_keys_and_policies_alike() {
    let over_rest = a_life("kes-rest-api", "kes::rest_api").await;
    let over_either = a_life("kes-rest-api", "kes::api_gateway").await;
    let over_alb = a_life("kes-alb", "kes::alb").await;
    assert_eq!(over_rest, over_either);
    assert_eq!(over_rest, over_alb);
}

#[tokio::test]
async fn event_without_a_certificate_is_refused() {
    for (folder, function) in [("kes-rest-api", "kes::rest_api"), ("kes-alb", "kes::alb")] {
        let function = Function::of(function).await;
        for (name, mut event) in events(folder) {
            match folder {
                "kes-alb" => event["multiValueHeaders"]
                    .as_object_mut()
                    .unwrap()
                    .remove("x-amzn-mtls-clientcert-leaf"),
                _ => event["requestContext"]["identity"]
                    .as_object_mut()
                    .unwrap()
                    .remove("clientCert"),
            }
            .unwrap();
            let answer = function.answer(&Event(event)).await;
            if name == "version" || is_page(&name) {
                assert_eq!(answer.status(), StatusCode::OK);
                continue;
            }
            let required = (400, "tls: client certificate is required".to_owned());
            assert_eq!(refusal(&answer), required, "{folder}/{name}");
        }
    }
}

/// A client's own header gives it no identity.
#[tokio::test]
async fn certificate_header_is_trusted_from_the_load_balancer_only() {
    let of_alb = events("kes-alb").remove("create-key").unwrap();
    let header = "x-amzn-mtls-clientcert-leaf";
    let value = of_alb["multiValueHeaders"][header][0].clone();
    let text = value.as_str().unwrap();
    assert!(
        text.contains('+') && text.contains("%0A"),
        "as it comes: {text}"
    );
    let required = (400, "tls: client certificate is required".to_owned());

    let alb = Function::of("kes::alb_that_is_not_believed").await;
    let answer = alb.answer(&Event(of_alb.clone())).await;
    assert_eq!(refusal(&answer), required);

    for function in ["kes::rest_api", "kes::api_gateway"] {
        let mut forged = events("kes-rest-api").remove("create-key").unwrap();
        let identity = forged["requestContext"]["identity"]
            .as_object_mut()
            .unwrap();
        identity.remove("clientCert").unwrap();
        for (name, value) in [
            (header, value.clone()),
            ("X-Amzn-Mtls-Clientcert", value.clone()),
            ("X-Tls-Client-Cert", value.clone()),
        ] {
            forged["headers"][name] = value.clone();
            forged["multiValueHeaders"][name] = json!([value]);
        }
        let answer = Function::of(function).await.answer(&Event(forged)).await;
        assert_eq!(refusal(&answer), required, "{function}");
    }

    // One of two values is the client's own.
    let alb = Function::of("kes::alb").await;
    let mut twice = of_alb.clone();
    twice["multiValueHeaders"][header] = json!([value, value]);
    let several = (
        400,
        "tls: received more than one client certificate".to_owned(),
    );
    assert_eq!(refusal(&alb.answer(&Event(twice)).await), several);
    assert_eq!(alb.answer(&Event(of_alb)).await.status(), StatusCode::OK);
}

/// An HTTP API's domain may demand certificates too; its events have the certificate in another place.
#[tokio::test]
async fn certificate_of_an_http_api_is_trusted() {
    let of_rest = events("kes-rest-api").remove("describe-self").unwrap();
    let certificate = &of_rest["requestContext"]["identity"]["clientCert"];
    let event = |shown: &Value| {
        let pem = certificate["clientCertPem"].as_str().unwrap();
        Event(json!({
            "version": "2.0",
            "rawPath": of_rest["path"],
            "rawQueryString": "",
            "headers": {"host": "kes.example.com", "x-tls-client-cert": pem.replace('\n', "%0A")},
            "requestContext": {
                "http": {"method": "GET", "sourceIp": "203.0.113.7"},
                "authentication": {"clientCert": shown},
            },
        }))
    };
    let function = Function::of("kes::api_gateway").await;
    let answer = function.answer(&event(certificate)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(json_of(&answer)["identity"], ADMIN);
    let required = (400, "tls: client certificate is required".to_owned());
    assert_eq!(
        refusal(&function.answer(&event(&Value::Null)).await),
        required
    );
}
