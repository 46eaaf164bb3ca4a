//! The caller's account and permissions, which RustFS's console requests at each sign-in: decode, operate, encode.

#[cfg(feature = "openapi")]
pub(crate) mod openapi;

use std::sync::Arc;

use http::Method;
use keyway_domain::access::{Caller, Grant};
use keyway_domain::bucket_operations::BucketOperations;
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, NO_BODY, RouteEntry};
use serde::Serialize;
use serde_json::json;

use crate::{RustFs, wire};

pub(crate) fn entries() -> Vec<RouteEntry<RustFs, BucketOperations>> {
    vec![
        RouteEntry::new(Method::GET, "/is-admin", NO_BODY, None, is_admin),
        RouteEntry::new(Method::GET, "/accountinfo", NO_BODY, None, account_info),
    ]
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct IsAdminAnswer<'a> {
    is_admin: bool,
    access_key: &'a str,
    message: &'static str,
}

fn is_owner(caller: &Caller) -> bool {
    *caller.grant() == Grant::Owner
}

async fn is_admin(_: Arc<BucketOperations>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let is_admin = is_owner(&call.caller);
    wire::ok(&IsAdminAnswer {
        is_admin,
        access_key: call.caller.principal(),
        message: if is_admin {
            "User is an administrator"
        } else {
            "User is not an administrator"
        },
    })
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct AccountAnswer<'a> {
    account_name: &'a str,
    server: Server,
    /// A policy as JSON text.
    policy: String,
    buckets: Vec<BucketOut<'a>>,
}

/// What stores objects: nothing here does.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase")]
struct Server {
    backend_type: &'static str,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct BucketOut<'a> {
    name: &'a str,
    size: u64,
    objects: u64,
    /// RustFS has the date of creation under this name.
    expiration: String,
    access: Access,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct Access {
    read: bool,
    write: bool,
}

async fn account_info(buckets: Arc<BucketOperations>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let caller = &call.caller;
    let found = match caller.may_ever(Action::ListAllMyBuckets) {
        Ok(()) => buckets.list(caller).await?,
        Err(_) => Vec::new(),
    };
    let out = found.iter().map(|bucket| BucketOut {
        name: bucket.name.as_str(),
        size: 0,
        objects: 0,
        expiration: wire::date(bucket.created_at),
        access: Access {
            read: true,
            write: caller
                .may_on_bucket(Action::PutEncryptionConfiguration, &bucket.name)
                .is_ok(),
        },
    });
    let session = caller.session();
    wire::ok(&AccountAnswer {
        account_name: session.map_or(caller.principal(), |session| session.parent.as_str()),
        server: Server {
            backend_type: "Unknown",
        },
        policy: policy(caller),
        buckets: out.collect(),
    })
}

/// The permission that opens the console's page of the KMS.
const KMS_PAGE: &str = "console:SSESettings";
/// RustFS's name for the permission, which is that of S3's operation.
const PUT_BUCKET_ENCRYPTION: &str = "s3:PutBucketEncryption";

/// A policy with the actions that the caller may be permitted. It only tells the console what to show: every request is
/// authorized separately.
fn policy(caller: &Caller) -> String {
    let actions: Vec<&str> = if is_owner(caller) {
        vec!["admin:*", "kms:*", "s3:*"]
    } else {
        let permitted = |action: &Action| caller.may_ever(*action).is_ok();
        let mut names: Vec<&str> = (Action::ALL.iter().filter(|action| permitted(action)))
            .map(|action| action.as_str())
            .collect();
        if [Action::Configure, Action::ServiceControl]
            .iter()
            .any(permitted)
        {
            names.push(KMS_PAGE);
        }
        if permitted(&Action::PutEncryptionConfiguration) {
            names.push(PUT_BUCKET_ENCRYPTION);
        }
        names
    };
    let statements = if actions.is_empty() {
        json!([])
    } else {
        json!([{"Effect": "Allow", "Action": actions, "Resource": ["arn:aws:s3:::*"]}])
    };
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}
