//! Buckets and their default encryption: decode, operate, encode.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use keyway_domain::buckets::{BucketName, BucketOperations, WantedEncryption};
use keyway_domain::policy::Action;
use keyway_http::{Call, Query};

use crate::xml::{Document, Element, malformed};
use crate::{Refusal, S3, checksum};

type Answer = Result<Response<Bytes>, Refusal>;

/// First segments of other dialects' paths: a bucket of such a name could not always be reached.
const TAKEN: [&str; 8] = [
    "api",
    "health",
    "metrics",
    "minio",
    "openapi.json",
    "ready",
    "rustfs",
    "version",
];

/// The part of a bucket that a request is about, such as `encryption`. What signs a request, and what tells the SDK's
/// operation, says nothing of that.
pub(crate) fn part(query: &Query) -> Option<&str> {
    query.names().find(|name| {
        let is_signature = name
            .get(..6)
            .is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"));
        !is_signature && *name != "x-id"
    })
}

fn bucket(call: &Call<S3>) -> Result<BucketName, Refusal> {
    Ok(BucketName::parse(call.params.get("bucket"))?)
}

pub(crate) async fn list(buckets: Arc<BucketOperations>, call: Call<S3>) -> Answer {
    let parameter = |name: &'static str| {
        let value = call.query.one(name);
        value.map_err(|error| Refusal::invalid_argument(format!("{name} {error}")))
    };
    let prefix = parameter("prefix")?.unwrap_or_default();
    let after = parameter("continuation-token")?.unwrap_or_default();
    let most = match parameter("max-buckets")? {
        None => usize::MAX,
        Some(text) => text
            .parse()
            .ok()
            .filter(|most| (1..=10_000).contains(most))
            .ok_or_else(|| Refusal::invalid_argument("max-buckets must be from 1 to 10000"))?,
    };
    let mut found = buckets.list(&call.caller).await?;
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
    Ok(xml(document))
}

pub(crate) async fn head(buckets: Arc<BucketOperations>, call: Call<S3>) -> Answer {
    buckets.find(&call.caller, &bucket(&call)?).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn get(buckets: Arc<BucketOperations>, call: Call<S3>) -> Answer {
    if part(&call.query) != Some("encryption") {
        return Err(Refusal::not_implemented());
    }
    let encryption = buckets.encryption(&call.caller, &bucket(&call)?).await?;
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
    Ok(xml(document))
}

pub(crate) async fn put(buckets: Arc<BucketOperations>, call: Call<S3>) -> Answer {
    match part(&call.query) {
        Some("encryption") => {
            let bucket = bucket(&call)?;
            let action = Action::PutEncryptionConfiguration;
            call.caller.may_on_bucket(action, &bucket)?;
            checksum::verify(&call.request)?;
            let wanted = wanted(&Element::parse(&call.request.body)?)?;
            buckets
                .set_encryption(&call.caller, &bucket, &wanted)
                .await?;
            Ok(empty(StatusCode::OK))
        }
        None => {
            let bucket = bucket(&call)?;
            call.caller.may_on_bucket(Action::CreateBucket, &bucket)?;
            if TAKEN.contains(&bucket.as_str()) {
                return Err(Refusal::reserved_name());
            }
            checksum::verify(&call.request)?;
            can_be_created(&call)?;
            buckets.create(&call.caller, &bucket).await?;
            let mut answer = empty(StatusCode::OK);
            if let Ok(path) = HeaderValue::from_str(&format!("/{bucket}")) {
                answer.headers_mut().insert(LOCATION, path);
            }
            Ok(answer)
        }
        Some(_) => Err(Refusal::not_implemented()),
    }
}

pub(crate) async fn delete(buckets: Arc<BucketOperations>, call: Call<S3>) -> Answer {
    if part(&call.query) != Some("encryption") {
        return Err(Refusal::not_implemented());
    }
    buckets
        .clear_encryption(&call.caller, &bucket(&call)?)
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Whether a bucket can be what the request says of it. Where buckets are is settled by the deployment, so a location is
/// read and not obeyed; a promise that would not be kept is refused.
fn can_be_created(call: &Call<S3>) -> Result<(), Refusal> {
    let locks = call
        .request
        .headers
        .get("x-amz-bucket-object-lock-enabled")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if locks {
        return Err(Refusal::not_implemented());
    }
    if call.request.body.is_empty() {
        return Ok(());
    }
    let root = Element::parse(&call.request.body)?;
    root.must_be("CreateBucketConfiguration")?;
    root.children_among(&["LocationConstraint", "Location", "Bucket", "Tags"])?;
    Ok(())
}

fn wanted(root: &Element) -> Result<WantedEncryption, Refusal> {
    root.must_be("ServerSideEncryptionConfiguration")?;
    root.children_among(&["Rule"])?;
    let rule = root.child("Rule").ok_or_else(malformed)?;
    rule.children_among(&["ApplyServerSideEncryptionByDefault", "BucketKeyEnabled"])?;
    let default = rule
        .child("ApplyServerSideEncryptionByDefault")
        .ok_or_else(malformed)?;
    default.children_among(&["SSEAlgorithm", "KMSMasterKeyID"])?;
    let algorithm = default.child("SSEAlgorithm").ok_or_else(malformed)?;
    let key = default.child("KMSMasterKeyID").map(Element::text);
    let bucket_key_enabled = match rule.child("BucketKeyEnabled").map(Element::text) {
        Some("true" | "1") => true,
        Some("false" | "0") | None => false,
        Some(_) => return Err(malformed()),
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

fn xml(document: Document) -> Response<Bytes> {
    let mut answer = Response::new(document.into_bytes());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
