use http::header::COOKIE;
use keyway_http::{ClientCertificate, Connection, Peer};
use serde::Deserialize;

use crate::event::{Facts, Pairs, Refusal, address, headers, iam_caller, parse, push_header};
use crate::ingress::EventSource;

/// Payload format 2.0, by which HTTP APIs and function URLs speak.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    version: String,
    raw_path: String,
    raw_query_string: Option<String>,
    cookies: Option<Vec<String>>,
    headers: Option<Pairs<String>>,
    request_context: Context,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
}

#[derive(Deserialize)]
struct Context {
    http: Http,
    authentication: Option<Authentication>,
    authorizer: Option<Authorizer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Http {
    method: String,
    source_ip: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authentication {
    client_cert: Option<ClientCert>,
}

/// The certificate of a mutual-TLS handshake, in every API's events.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientCert {
    client_cert_pem: Option<String>,
}

impl ClientCert {
    /// What the gateway says that the client showed and proved to it.
    pub(crate) fn shown(self) -> Option<ClientCertificate> {
        let pem = self.client_cert_pem.filter(|pem| !pem.is_empty())?;
        Some(ClientCertificate::Pem(pem.into()))
    }
}

#[derive(Deserialize)]
struct Authorizer {
    iam: Option<Iam>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Iam {
    user_arn: Option<String>,
    account_id: Option<String>,
    access_key: Option<String>,
}

/// Whether the event is one of payload format 2.0, which has an answer of its own.
pub(crate) fn is_version_two(event: &str) -> bool {
    #[derive(Deserialize)]
    struct Version {
        version: Option<String>,
    }

    serde_json::from_str::<Version>(event)
        .is_ok_and(|event| event.version.as_deref() == Some("2.0"))
}

pub(crate) fn read(event: &str, source: EventSource) -> Result<Facts, Refusal> {
    let event: Event = parse(event, source)?;
    if event.version != "2.0" {
        return Err(Refusal::OtherEvent(source));
    }
    let mut headers = headers(event.headers.map_or_else(Vec::new, |Pairs(pairs)| pairs))?;
    if let Some(cookies) = event.cookies.filter(|cookies| !cookies.is_empty()) {
        push_header(&mut headers, COOKIE.as_str(), cookies.join("; "))?;
    }
    let Context {
        http,
        authentication,
        authorizer,
    } = event.request_context;
    Ok(Facts {
        method: http.method,
        base: String::new(),
        path: event.raw_path,
        query: event.raw_query_string.unwrap_or_default(),
        headers,
        body: event.body,
        is_base64: event.is_base64_encoded.unwrap_or(false),
        peer: Peer {
            address: address(http.source_ip.as_deref()),
            // There is no plain HTTP in front of either.
            encrypted: true,
            client_certificate: authentication
                .and_then(|authentication| authentication.client_cert)
                .and_then(ClientCert::shown),
            iam_caller: authorizer
                .and_then(|authorizer| authorizer.iam)
                .and_then(|iam| iam_caller(iam.user_arn, iam.account_id, iam.access_key)),
            connection: Connection::NONE,
        },
    })
}
