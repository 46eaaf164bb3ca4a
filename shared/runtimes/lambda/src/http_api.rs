//! Payload format 2.0, which HTTP APIs and function URLs use.

use http::header::COOKIE;
use keyway_http::{ClientCertificate, Connection, Peer};
use serde::Deserialize;

use crate::event::{
    Context, Event, Facts, Pairs, Refusal, address, headers, iam_caller, push_header,
};
use crate::ingress::EventSource;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Http {
    method: String,
    source_ip: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Authentication {
    client_cert: Option<ClientCert>,
}

/// The certificate of a mutual-TLS handshake, in every API's events.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientCert {
    client_cert_pem: Option<String>,
}

impl ClientCert {
    /// The certificate that the client showed to the gateway, with proof of its key.
    pub(crate) fn shown(self) -> Option<ClientCertificate> {
        let pem = self.client_cert_pem.filter(|pem| !pem.is_empty())?;
        Some(ClientCertificate::Pem(pem.into()))
    }
}

#[derive(Deserialize)]
pub(crate) struct Authorizer {
    iam: Option<Iam>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Iam {
    user_arn: Option<String>,
    account_id: Option<String>,
    access_key: Option<String>,
}

/// A refusal names `source`.
pub(crate) fn read(event: Event, source: EventSource) -> Result<Facts, Refusal> {
    let is_version_two = event.is_version_two();
    let Context {
        http,
        authentication,
        authorizer,
        ..
    } = event.request_context;
    let (true, Some(path), Some(http)) = (is_version_two, event.raw_path, http) else {
        return Err(Refusal::OtherEvent(source));
    };
    let mut headers = headers(event.headers.map_or_else(Vec::new, |Pairs(pairs)| pairs))?;
    if let Some(cookies) = event.cookies.filter(|cookies| !cookies.is_empty()) {
        push_header(&mut headers, COOKIE.as_str(), cookies.join("; "))?;
    }
    Ok(Facts {
        method: http.method,
        base: String::new(),
        path,
        query: event.raw_query_string.unwrap_or_default(),
        headers,
        body: event.body,
        is_base64: event.is_base64_encoded.unwrap_or(false),
        peer: Peer {
            address: address(http.source_ip.as_deref()),
            // Neither HTTP APIs nor function URLs accept plain HTTP.
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
