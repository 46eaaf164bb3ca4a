//! The OpenAPI description of the audit log.

use http::Method;
use keyway_openapi::{Operation, Parameter, Schema};
use serde_json::json;

use crate::openapi::{Refusals as _, SERVICE, ok};

pub(crate) fn operations() -> Vec<Operation> {
    let text = || json!({"type": "string"});
    // No `date-time` format, because other spellings of ISO 8601 than RFC 3339's are accepted too.
    let time = || json!({"type": "string"});
    vec![
        Operation::new(Method::GET, "/kms/audit", "audit", "Read the audit log")
            .tag(SERVICE)
            .text("What the table has of it, oldest first. A page may be empty and not the last: its `next_marker` says so.")
            .parameters([
                Parameter::query("since", "Not before this time, such as 2026-01-02T03:04:05Z; when nothing is said, of the last 24 hours.", time()),
                Parameter::query("until", "Before this time.", time()),
                Parameter::query("key_id", "Only events of this key.", text()),
                Parameter::query("principal", "Only events of this principal.", text()),
                Parameter::query(
                    "limit",
                    "How many at most: 100 when nothing is said, and never more than 1,000.",
                    json!({"type": "integer", "minimum": 1, "default": 100}),
                ),
                Parameter::query("marker", "The `next_marker` of the page before; empty for the first.", text()),
            ])
            .answer(200, ok("Events.", events()))
            .refuses(&[]),
    ]
}

fn events() -> Schema {
    let text = || json!({"type": "string"});
    let number = || json!({"type": "integer", "minimum": 0});
    let hash = || json!({"type": "string", "pattern": "^([A-Za-z0-9_-]{43}|[0-9a-f]{64})$"});
    let counts = json!({"type": "object", "additionalProperties": number()});
    let key = || {
        json!({
            "key_id": text(), "key_version": number(),
            "source_key_id": text(), "source_key_version": number(),
            "context": {"type": "array", "items": text(), "description": "The names of the encryption context."},
            "context_values": {"type": "object", "additionalProperties": text()},
            "context_bytes": number(),
            "error": text(),
        })
    };
    let items = json!({
        "type": "array",
        "description": "Of a request that asks for several things, each of them, or those from `first_item` on.",
        "items": {"type": "object", "additionalProperties": false, "properties": key()},
    });
    let event = json!({
        "type": "object",
        "description": "A request and what came of it, or something that the log says of itself. The `hash` is over the event \
                        without it, with its fields in this order.",
        "additionalProperties": false,
        "required": ["audit", "time", "writer", "seq", "prev", "dialect", "operation", "hash"],
        "properties": {
            "audit": {"enum": [1, 2]},
            "time": {"type": "string", "format": "date-time"},
            "writer": text(), "seq": number(), "prev": hash(),
            "request_id": text(), "dialect": text(), "operation": text(),
            "class": {"enum": ["read", "mutation", "data_key"]},
            "method": text(), "path": text(), "route": text(), "principal": text(),
            "key_id": text(), "key_version": number(),
            "source_key_id": text(), "source_key_version": number(),
            "resource": text(),
            "context": {"type": "array", "items": text(), "description": "The names of the encryption context."},
            "context_values": {"type": "object", "additionalProperties": text()},
            "context_bytes": number(),
            "items": items, "first_item": number(), "item_count": number(),
            "address": text(), "status": number(), "duration_us": number(), "error": text(),
            "counts": counts,
            "hash": hash(),
        },
    });
    Schema::named(
        "AuditEvents",
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["success", "events", "next_marker"],
            "properties": {
                "success": {"const": true},
                "events": {"type": "array", "items": event},
                "next_marker": {"type": ["string", "null"]},
            },
        }),
    )
}
