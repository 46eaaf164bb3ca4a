//! Makes the document. Paths, methods, prefixes and limits come from the mounts, request bodies from their observed
//! decoders, and answers from the derived schemas of what is encoded. A dialect adds the texts.

mod document;
mod observed;
mod operation;
mod schema;

pub use document::{Description, Document};
pub use operation::{Answer, Operation, Parameter, RequestBody};
pub use schema::Schema;

use http::Method;
use serde_json::json;

use keyway_http::Page;

/// The description of the document's own route.
pub fn own_description() -> Description<Page> {
    let document = Schema::of(json!({
        "type": "object",
        "required": ["openapi", "info", "paths", "components"],
        "properties": {"openapi": {"const": "3.1.0"}, "info": {"type": "object"}, "paths": {"type": "object"}},
    }));
    let tag = "description";
    Description::new(tag, "This document.")
        .anonymous()
        .operation(
            Operation::new(Method::GET, "", "describe", "This document")
                .answer(200, Answer::json("This document.", document))
                .answer(400, Answer::empty("The query cannot be decoded."))
                .answer(413, Answer::empty("The request has a long body."))
                .answer(
                    429,
                    Answer::empty(
                        "A function sends the document once a minute; ask again after Retry-After.",
                    ),
                ),
        )
        .operation(
            Operation::new(
                Method::HEAD,
                "",
                "describeHead",
                "Whether this document is there",
            )
            .answer(200, Answer::empty("It is."))
            .answer(400, Answer::empty("The query cannot be decoded."))
            .answer(413, Answer::empty("The request has a long body.")),
        )
}
