//! The OpenAPI description of this dialect. AWS's own documentation describes its XML.

use http::Method;
use keyway_openapi::{Answer, Description, Operation, Parameter, RequestBody, Schema};
use serde_json::json;

use crate::Sts;

const XML: &str = "text/xml";
const FORM: &str = "application/x-www-form-urlencoded";

/// The description of this dialect's route.
pub fn description() -> Description<Sts> {
    let form = Schema::of(json!({"type": "string"}));
    let operation = Operation::new(
        Method::POST,
        "/",
        "sts",
        "AssumeRole or GetCallerIdentity, by the form's `Action`",
    )
    .text(
        "With the header `X-Amz-Target`, the request is one of AWS KMS's API, and is answered as `POST /aws` answers it.",
    )
    .parameters([Parameter::header(
        "X-Amz-Target",
        "The operation of AWS KMS; absent for STS.",
        json!({"type": "string", "pattern": "^TrentService\\.[A-Za-z]+$"}),
    )])
    .body(RequestBody::json_or_none(form).media_type(FORM))
    .answer(200, xml("The temporary credentials, or who calls."));
    let operation = [400, 403, 413, 415, 500, 503]
        .into_iter()
        .fold(operation, |operation, status| {
            operation.answer(status, xml("It is refused; `Code` says why."))
        });
    Description::new(
        "sts",
        "AWS's Security Token Service, as far as temporary credentials need it.",
    )
    .security(
        "SigV4OfSts",
        json!({
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "AWS Signature Version 4 for the service `sts`.",
        }),
    )
    .operation(operation)
}

fn xml(text: &str) -> Answer {
    Answer::with(text, XML, Schema::of(json!({"type": "string"})))
}
