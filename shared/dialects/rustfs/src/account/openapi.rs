//! The OpenAPI description of the caller's account.

use http::Method;
use keyway_openapi::{Operation, Schema};
use serde_json::json;

use super::{AccountAnswer, IsAdminAnswer};
use crate::openapi::{ACCOUNT, Refusals as _, ok};

pub(crate) fn operations() -> Vec<Operation> {
    let operation = |path, id, summary| Operation::new(Method::GET, path, id, summary).tag(ACCOUNT);
    vec![
        operation(
            "/is-admin",
            "isAdmin",
            "Tell whether the caller may do everything",
        )
        .answer(
            200,
            ok(
                "Whether it is so.",
                Schema::encoded::<IsAdminAnswer<'_>>("IsAdmin"),
            ),
        )
        .refuses(&[]),
        operation(
            "/accountinfo",
            "accountInfo",
            "Tell who calls, and what they may do",
        )
        .answer(
            200,
            ok(
                "The caller's access key, or the one that began the session, and the buckets that may be listed.",
                Schema::encoded::<AccountAnswer<'_>>("AccountInfo")
                    .fact("policy", json!({"description": "What can be permitted, as the JSON text of a policy."})),
            ),
        )
        .refuses(&[]),
    ]
}
