//! Buckets and their default encryption: decode, operate, encode.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::header;
use http::{HeaderValue, Response, StatusCode};
use keyway_domain::buckets::{BucketName, WantedEncryption};
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, Query};

use crate::error_response::{
    invalid_argument, invalid_tag, malformed_xml, not_implemented, not_supported, reserved_name,
};
use crate::xml::{Document, Element};
use crate::{ErrorResponse, S3, Served, checksum};

/// The subresource of a bucket for its default encryption.
pub(crate) const ENCRYPTION: &str = "encryption";
/// The subresource of a bucket for its location.
pub(crate) const LOCATION: &str = "location";

/// The region that a location constraint represents as empty.
const HOME_REGION: &str = "us-east-1";

/// First segments of other dialects' paths: a bucket with such a name would not always be reachable.
const TAKEN: [&str; 9] = [
    "api",
    "aws",
    "health",
    "metrics",
    "minio",
    "openapi.json",
    "ready",
    "rustfs",
    "version",
];

/// The subresource that a request names, such as `encryption`. Skips the parameters of the signature and the SDK's name
/// of the operation.
pub(crate) fn part(query: &Query) -> Option<&str> {
    query.names().find(|name| {
        let is_signature = name
            .get(..6)
            .is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"));
        !is_signature && *name != "x-id"
    })
}

fn bucket(call: &Call<S3>) -> Result<BucketName, ErrorResponse> {
    Ok(BucketName::parse(call.params.get("bucket"))?)
}

pub(crate) async fn list(served: Arc<Served>, call: Call<S3>) -> HandlerResult<S3> {
    let parameter = |name: &'static str| {
        let value = call.query.one(name);
        value.map_err(|error| invalid_argument(format!("{name} {error}")))
    };
    let prefix = parameter("prefix")?.unwrap_or_default();
    let after = parameter("continuation-token")?.unwrap_or_default();
    let most = match parameter("max-buckets")? {
        None => usize::MAX,
        Some(text) => text
            .parse()
            .ok()
            .filter(|most| (1..=10_000).contains(most))
            .ok_or_else(|| invalid_argument("max-buckets must be from 1 to 10000"))?,
    };
    let mut found = served.buckets.list(&call.caller).await?;
    found.retain(|bucket| {
        let name = bucket.name.as_str();
        name.starts_with(prefix) && name > after
    });
    let is_cut = found.len() > most;
    found.truncate(most);
    let mut document = Document::new("ListAllMyBucketsResult");
    document.within("Owner", |owner| {
        owner.text("ID", call.caller.principal());
        owner.text("DisplayName", call.caller.principal());
    });
    document.within("Buckets", |list| {
        for bucket in &found {
            list.within("Bucket", |out| {
                out.text("Name", bucket.name.as_str());
                out.text("CreationDate", &format!("{:.3}", bucket.created_at));
            });
        }
    });
    if let Some(last) = found.last().filter(|_| is_cut) {
        document.text("ContinuationToken", last.name.as_str());
    }
    if !prefix.is_empty() {
        document.text("Prefix", prefix);
    }
    Ok(document.into_response())
}

pub(crate) async fn head(served: Arc<Served>, call: Call<S3>) -> HandlerResult<S3> {
    served.buckets.find(&call.caller, &bucket(&call)?).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn get(served: Arc<Served>, call: Call<S3>) -> HandlerResult<S3> {
    match part(&call.query) {
        Some(ENCRYPTION) => encryption(&served, &call).await,
        Some(LOCATION) => location(&served, &call).await,
        _ => Err(not_implemented()),
    }
}

/// An empty constraint means us-east-1, S3's first region.
async fn location(served: &Served, call: &Call<S3>) -> HandlerResult<S3> {
    served.buckets.locate(&call.caller, &bucket(call)?).await?;
    let mut document = Document::new("LocationConstraint");
    if let Some(region) = served.region.as_deref().filter(|name| *name != HOME_REGION) {
        document.content(region);
    }
    Ok(document.into_response())
}

async fn encryption(served: &Served, call: &Call<S3>) -> HandlerResult<S3> {
    let encryption = served
        .buckets
        .encryption(&call.caller, &bucket(call)?)
        .await?;
    let mut document = Document::new("ServerSideEncryptionConfiguration");
    document.within("Rule", |rule| {
        rule.within("ApplyServerSideEncryptionByDefault", |default| {
            default.text("SSEAlgorithm", encryption.algorithm_name());
            if let Some(key) = encryption.key() {
                default.text("KMSMasterKeyID", key);
            }
        });
        rule.text(
            "BucketKeyEnabled",
            if encryption.bucket_key_enabled {
                "true"
            } else {
                "false"
            },
        );
    });
    Ok(document.into_response())
}

pub(crate) async fn put(served: Arc<Served>, call: Call<S3>) -> HandlerResult<S3> {
    match part(&call.query) {
        Some(ENCRYPTION) => {
            let bucket = bucket(&call)?;
            let action = Action::PutEncryptionConfiguration;
            call.caller.may_on_bucket(action, &bucket)?;
            checksum::verify(&call.request)?;
            let wanted = wanted(&Element::parse(&call.request.body)?)?;
            served
                .buckets
                .set_encryption(&call.caller, &bucket, &wanted)
                .await?;
            Ok(empty(StatusCode::OK))
        }
        None => {
            let bucket = bucket(&call)?;
            call.caller.may_on_bucket(Action::CreateBucket, &bucket)?;
            if TAKEN.contains(&bucket.as_str()) {
                return Err(reserved_name());
            }
            checksum::verify(&call.request)?;
            can_be_created(&call)?;
            served.buckets.create(&call.caller, &bucket).await?;
            let mut answer = empty(StatusCode::OK);
            if let Ok(path) = HeaderValue::from_str(&format!("/{bucket}")) {
                answer.headers_mut().insert(header::LOCATION, path);
            }
            Ok(answer)
        }
        Some(_) => Err(not_implemented()),
    }
}

pub(crate) async fn delete(served: Arc<Served>, call: Call<S3>) -> HandlerResult<S3> {
    let bucket = bucket(&call);
    match part(&call.query) {
        Some(ENCRYPTION) => {
            served
                .buckets
                .clear_encryption(&call.caller, &bucket?)
                .await?;
        }
        None => served.buckets.remove(&call.caller, &bucket?).await?,
        Some(_) => return Err(not_implemented()),
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Checks that the requested bucket can be created. The deployment determines where buckets are, so a location is
/// accepted without effect. Object lock is refused, because nothing here provides it.
fn can_be_created(call: &Call<S3>) -> Result<(), ErrorResponse> {
    let locks = call
        .request
        .headers
        .get("x-amz-bucket-object-lock-enabled")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if locks {
        return Err(not_implemented());
    }
    if call.request.body.is_empty() {
        return Ok(());
    }
    let root = Element::parse(&call.request.body)?;
    root.must_be("CreateBucketConfiguration")?;
    root.children_among(&["LocationConstraint", "Location", "Bucket", "Tags"])?;
    root.child("Tags").map_or(Ok(()), can_be_tags)
}

/// S3's limit of tags for a bucket.
const MOST_TAGS: usize = 50;
/// The maximum lengths of a tag's key and value, in characters.
const LONGEST_TAG: (usize, usize) = (128, 256);

/// Checks that S3 would accept these tags. They are not stored: no operation here returns them.
fn can_be_tags(tags: &Element) -> Result<(), ErrorResponse> {
    let mut seen = BTreeSet::new();
    for tag in tags.children_all("Tag")? {
        tag.children_among(&["Key", "Value"])?;
        let key = tag.child("Key").ok_or_else(malformed_xml)?.text();
        let value = tag.child("Value").ok_or_else(malformed_xml)?.text();
        let fits = |text: &str, longest| text.chars().count() <= longest;
        let (longest_key, longest_value) = LONGEST_TAG;
        if key.is_empty() || !fits(key, longest_key) || !fits(value, longest_value) {
            return Err(invalid_tag(
                "a tag has a key of 1 to 128 characters and a value of up to 256",
            ));
        }
        if !seen.insert(key) {
            return Err(invalid_tag("two tags have the same key"));
        }
    }
    if seen.len() > MOST_TAGS {
        return Err(invalid_tag("a bucket has at most 50 tags"));
    }
    Ok(())
}

/// The encryption types that a rule of S3 may also forbid, which nothing here enforces.
const BLOCKED: &str = "BlockedEncryptionTypes";

fn wanted(root: &Element) -> Result<WantedEncryption, ErrorResponse> {
    root.must_be("ServerSideEncryptionConfiguration")?;
    root.children_among(&["Rule"])?;
    let rule = root.child("Rule").ok_or_else(malformed_xml)?;
    if rule.child(BLOCKED).is_some() {
        return Err(not_supported(BLOCKED));
    }
    rule.children_among(&["ApplyServerSideEncryptionByDefault", "BucketKeyEnabled"])?;
    let default = rule
        .child("ApplyServerSideEncryptionByDefault")
        .ok_or_else(malformed_xml)?;
    default.children_among(&["SSEAlgorithm", "KMSMasterKeyID"])?;
    let algorithm = default.child("SSEAlgorithm").ok_or_else(malformed_xml)?;
    let key = default.child("KMSMasterKeyID").map(Element::text);
    let bucket_key_enabled = match rule.child("BucketKeyEnabled").map(Element::text) {
        Some("true" | "1") => true,
        Some("false" | "0") | None => false,
        Some(_) => return Err(malformed_xml()),
    };
    Ok(WantedEncryption::parse(
        algorithm.text(),
        key,
        bucket_key_enabled,
    )?)
}

fn empty(status: StatusCode) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    answer
}
