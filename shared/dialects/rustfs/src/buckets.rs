//! The default encryption of buckets: decode, operate, encode. Fields have S3's own names.

#[cfg(feature = "openapi")]
pub(crate) mod openapi;

use std::sync::Arc;

use http::Method;
use keyway_domain::bucket_operations::BucketOperations;
use keyway_domain::buckets::{BucketName, DefaultEncryption, WantedEncryption};
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, RouteEntry};
use serde::{Deserialize, Serialize};

use crate::error_response::invalid_field;
use crate::{ErrorResponse, RustFs, route, wire};

pub(crate) fn entries() -> Vec<RouteEntry<RustFs, BucketOperations>> {
    let encryption = "/api/v1/bucket-encryption/{bucket}";
    vec![
        route(
            Method::GET,
            "/api/v1/buckets",
            Action::ListAllMyBuckets,
            list,
        ),
        route(
            Method::GET,
            encryption,
            Action::GetEncryptionConfiguration,
            get,
        ),
        route(
            Method::PUT,
            encryption,
            Action::PutEncryptionConfiguration,
            put,
        ),
        route(
            Method::DELETE,
            encryption,
            Action::PutEncryptionConfiguration,
            delete,
        )
        .without_body(),
    ]
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ListAnswer<'a> {
    buckets: Vec<BucketOut<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct BucketOut<'a> {
    name: &'a str,
    creation_date: String,
}

async fn list(buckets: Arc<BucketOperations>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let found = buckets.list(&call.caller).await?;
    let out = found.iter().map(|bucket| BucketOut {
        name: bucket.name.as_str(),
        creation_date: wire::date(bucket.created_at),
    });
    wire::ok(&ListAnswer {
        buckets: out.collect(),
    })
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase")]
struct GetAnswer<'a> {
    server_side_encryption_configuration: ConfigurationOut<'a>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase")]
struct ConfigurationOut<'a> {
    rules: [RuleOut<'a>; 1],
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase")]
struct RuleOut<'a> {
    apply_server_side_encryption_by_default: DefaultOut<'a>,
    bucket_key_enabled: bool,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct DefaultOut<'a> {
    #[serde(rename = "SSEAlgorithm")]
    algorithm: &'a str,
    #[serde(rename = "KMSMasterKeyID", skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> From<&'a DefaultEncryption> for GetAnswer<'a> {
    fn from(encryption: &'a DefaultEncryption) -> Self {
        let rule = RuleOut {
            apply_server_side_encryption_by_default: DefaultOut {
                algorithm: encryption.algorithm_name(),
                key: encryption.key(),
            },
            bucket_key_enabled: encryption.bucket_key_enabled,
        };
        Self {
            server_side_encryption_configuration: ConfigurationOut { rules: [rule] },
        }
    }
}

async fn get(buckets: Arc<BucketOperations>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let encryption = buckets.encryption(&call.caller, &bucket(&call)?).await?;
    wire::ok(&GetAnswer::from(&encryption))
}

/// S3's configuration, with or without its outermost element, or the short form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody {
    #[serde(rename = "ServerSideEncryptionConfiguration")]
    configuration: Option<Configuration>,
    #[serde(rename = "Rules")]
    rules: Option<Vec<Rule>>,
    #[serde(alias = "sseAlgorithm", alias = "SSEAlgorithm")]
    sse_algorithm: Option<String>,
    #[serde(alias = "kmsMasterKeyId", alias = "KMSMasterKeyID")]
    kms_master_key_id: Option<String>,
    #[serde(alias = "bucketKeyEnabled", alias = "BucketKeyEnabled")]
    bucket_key_enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    #[serde(rename = "Rules")]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Rule {
    apply_server_side_encryption_by_default: Default,
    bucket_key_enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Default {
    #[serde(rename = "SSEAlgorithm")]
    algorithm: String,
    #[serde(rename = "KMSMasterKeyID")]
    key: Option<String>,
}

fn wanted(body: PutBody) -> Result<WantedEncryption, ErrorResponse> {
    let PutBody {
        configuration,
        rules,
        sse_algorithm,
        kms_master_key_id,
        bucket_key_enabled,
    } = body;
    let is_short =
        sse_algorithm.is_some() || kms_master_key_id.is_some() || bucket_key_enabled.is_some();
    let rules = match (configuration, rules) {
        (Some(_), Some(_)) => {
            return Err(invalid_field(
                "Rules",
                "cannot be combined with `ServerSideEncryptionConfiguration`",
            ));
        }
        (Some(Configuration { rules }), None) | (None, Some(rules)) => rules,
        (None, None) => {
            let algorithm = sse_algorithm.ok_or_else(|| {
                invalid_field(
                    "ServerSideEncryptionConfiguration",
                    "is required, or `sse_algorithm`",
                )
            })?;
            return Ok(WantedEncryption::parse(
                &algorithm,
                kms_master_key_id.as_deref(),
                bucket_key_enabled.unwrap_or_default(),
            )?);
        }
    };
    if is_short {
        return Err(invalid_field(
            "sse_algorithm",
            "the short form cannot be combined with `Rules`",
        ));
    }
    let [rule] = <[Rule; 1]>::try_from(rules)
        .map_err(|_| invalid_field("Rules", "must be exactly one rule"))?;
    let default = rule.apply_server_side_encryption_by_default;
    Ok(WantedEncryption::parse(
        &default.algorithm,
        default.key.as_deref(),
        rule.bucket_key_enabled.unwrap_or_default(),
    )?)
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct PutAnswer<'a> {
    success: bool,
    message: &'static str,
    bucket: &'a str,
    #[serde(flatten)]
    configuration: GetAnswer<'a>,
}

async fn put(buckets: Arc<BucketOperations>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let bucket = bucket(&call)?;
    call.caller
        .may_on_bucket(Action::PutEncryptionConfiguration, &bucket)?;
    let wanted = wanted(wire::json(&call.request.body)?)?;
    let encryption = buckets
        .set_encryption(&call.caller, &bucket, &wanted)
        .await?;
    wire::ok(&PutAnswer {
        success: true,
        message: "bucket encryption set successfully",
        bucket: bucket.as_str(),
        configuration: GetAnswer::from(&encryption),
    })
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct DeleteAnswer<'a> {
    success: bool,
    message: &'static str,
    bucket: &'a str,
}

async fn delete(buckets: Arc<BucketOperations>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let bucket = bucket(&call)?;
    buckets.clear_encryption(&call.caller, &bucket).await?;
    wire::ok(&DeleteAnswer {
        success: true,
        message: "bucket encryption removed successfully",
        bucket: bucket.as_str(),
    })
}

fn bucket(call: &Call<RustFs>) -> Result<BucketName, ErrorResponse> {
    Ok(BucketName::parse(call.params.get("bucket"))?)
}
