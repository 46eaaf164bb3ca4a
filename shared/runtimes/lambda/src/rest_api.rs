use keyway_http::{Connection, Peer};
use serde::Deserialize;

use crate::event::{Event, Facts, Refusal, address, encoded_query, headers, iam_caller, members};
use crate::http_api::ClientCert;
use crate::ingress::EventSource;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    source_ip: Option<String>,
    client_cert: Option<ClientCert>,
    user_arn: Option<String>,
    account_id: Option<String>,
    access_key: Option<String>,
}

/// A refusal names `source`.
pub(crate) fn read(event: Event, source: EventSource) -> Result<Facts, Refusal> {
    let is_other = event.version.is_some_and(|version| version != "1.0");
    let context = event.request_context;
    // Events of load balancers have no identity.
    let (false, Some(method), Some(path), Some(identity)) =
        (is_other, event.http_method, event.path, context.identity)
    else {
        return Err(Refusal::OtherEvent(source));
    };
    // The client signed the path with its stage or base path. Only the context has that path.
    let base = context
        .path
        .as_deref()
        .and_then(|whole| whole.strip_suffix(&path))
        .unwrap_or_default();
    let query = members(
        event.multi_value_query_string_parameters,
        event.query_string_parameters,
    );
    Ok(Facts {
        method,
        base: base.to_owned(),
        path,
        query: encoded_query(&query),
        headers: headers(members(event.multi_value_headers, event.headers))?,
        body: event.body,
        is_base64: event.is_base64_encoded.unwrap_or(false),
        peer: Peer {
            address: address(identity.source_ip.as_deref()),
            // A REST API accepts no plain HTTP.
            encrypted: true,
            client_certificate: identity.client_cert.and_then(ClientCert::shown),
            iam_caller: iam_caller(identity.user_arn, identity.account_id, identity.access_key),
            connection: Connection::NONE,
        },
    })
}
