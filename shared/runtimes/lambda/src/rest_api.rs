use keyway_http::{Connection, Peer};
use serde::Deserialize;

use crate::event::{
    Facts, Pairs, Refusal, address, encoded_query, headers, iam_caller, members, parse,
};
use crate::http_api::ClientCert;
use crate::ingress::EventSource;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    /// Not there, save where REST APIs are emulated.
    version: Option<String>,
    http_method: String,
    path: String,
    headers: Option<Pairs<String>>,
    multi_value_headers: Option<Pairs<Vec<String>>>,
    query_string_parameters: Option<Pairs<String>>,
    multi_value_query_string_parameters: Option<Pairs<Vec<String>>>,
    request_context: Context,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
}

#[derive(Deserialize)]
struct Context {
    path: Option<String>,
    /// Load balancers send none, which tells their events from these.
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    source_ip: Option<String>,
    client_cert: Option<ClientCert>,
    user_arn: Option<String>,
    account_id: Option<String>,
    access_key: Option<String>,
}

pub(crate) fn read(event: &str) -> Result<Facts, Refusal> {
    let event: Event = parse(event, EventSource::RestApi)?;
    if event.version.is_some_and(|version| version != "1.0") {
        return Err(Refusal::OtherEvent(EventSource::RestApi));
    }
    let Context { path, identity } = event.request_context;
    // The client signed the path with the stage or base path in it, which only the context has.
    let base = path
        .as_deref()
        .and_then(|path| path.strip_suffix(&event.path))
        .unwrap_or_default();
    let query = members(
        event.multi_value_query_string_parameters,
        event.query_string_parameters,
    );
    Ok(Facts {
        method: event.http_method,
        base: base.to_owned(),
        path: event.path,
        query: encoded_query(&query),
        headers: headers(members(event.multi_value_headers, event.headers))?,
        body: event.body,
        is_base64: event.is_base64_encoded.unwrap_or(false),
        peer: Peer {
            address: address(identity.source_ip.as_deref()),
            // There is no plain HTTP in front of a REST API.
            encrypted: true,
            client_certificate: identity.client_cert.and_then(ClientCert::shown),
            iam_caller: iam_caller(identity.user_arn, identity.account_id, identity.access_key),
            connection: Connection::NONE,
        },
    })
}
