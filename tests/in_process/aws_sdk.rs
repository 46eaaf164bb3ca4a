//! AWS KMS's API by AWS's own SDK for Rust, whose HTTP connector is the site.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_kms::config::{
    BehaviorVersion, Credentials, HttpClient, Region, RuntimeComponents, SharedHttpClient,
};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyState, Tag};
use aws_sdk_kms::{Client, Config};
use aws_smithy_async::time::StaticTimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use bytes::Bytes;
use keyway_domain::ports::Clock;
use keyway_tests::MemorySite;

/// Hands the SDK's requests to a site.
#[derive(Clone)]
struct Connector(Arc<MemorySite>);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpClient for Connector {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let site = Arc::clone(&self.0);
        let request = request.try_into_http1x().unwrap();
        HttpConnectorFuture::new(async move {
            let (mut parts, body) = request.into_parts();
            // A client puts the URI's host there, and its path on the wire.
            let uri = std::mem::take(&mut parts.uri);
            let host = uri.authority().unwrap().as_str().parse().unwrap();
            parts.headers.insert("host", host);
            parts.uri = uri.path_and_query().unwrap().as_str().parse().unwrap();
            let body = Bytes::copy_from_slice(body.bytes().unwrap_or_default());
            let answer = site.send(http::Request::from_parts(parts, body)).await;
            let mut response = http::Response::new(SdkBody::from(answer.body));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            HttpResponse::try_from(response)
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// A client of the site, whose endpoint has this path.
fn client(site: &Arc<MemorySite>, path: &str, secret: &str) -> Client {
    let time = SystemTime::from(site.clock.now());
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(SharedHttpClient::new(Connector(Arc::clone(site))))
        .credentials_provider(Credentials::new("root", secret, None, None, "a test"))
        .region(Region::new("eu-north-1"))
        .endpoint_url(format!("https://kms.test{path}"))
        .time_source(StaticTimeSource::new(time))
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

async fn site() -> (Arc<MemorySite>, Client) {
    let site = Arc::new(MemorySite::running().await);
    let kms = client(&site, "", "root-secret");
    (site, kms)
}

/// The code of a refusal. Its request id is that of the answer.
fn code<T: std::fmt::Debug, E: ProvideErrorMetadata>(
    result: Result<T, SdkError<E, HttpResponse>>,
) -> String {
    use aws_sdk_kms::operation::RequestId;
    let error = result.unwrap_err();
    let response = error.raw_response().unwrap();
    assert_eq!(response.status().as_u16(), 400);
    assert!(response.headers().request_id().is_some());
    error.code().unwrap().to_owned()
}

#[tokio::test]
async fn keys_of_the_sdk_live_from_creation_to_deletion() {
    let (site, kms) = site().await;
    let tag = Tag::builder().tag_key("team").tag_value("data").build();
    let made = kms
        .create_key()
        .description("by Rust")
        .tags(tag.unwrap())
        .send();
    let made = made.await.unwrap().key_metadata.unwrap();
    assert_eq!(
        made.arn.as_deref(),
        Some(&*format!(
            "arn:aws:kms:eu-north-1:000000000000:key/{}",
            made.key_id
        ))
    );
    let created = SystemTime::try_from(made.creation_date.unwrap()).unwrap();
    let now = SystemTime::from(site.clock.now());
    assert!(now.duration_since(created).unwrap() < Duration::from_secs(1));
    let id = made.key_id;

    kms.disable_key().key_id(&id).send().await.unwrap();
    let refused = kms.generate_random().number_of_bytes(0).send().await;
    assert_eq!(code(refused), "ValidationException");
    let refused = kms.encrypt().key_id(&id).plaintext(Blob::new(*b"x"));
    let refused = refused.send().await.unwrap_err().into_service_error();
    assert!(refused.is_disabled_exception(), "{refused}");
    kms.enable_key().key_id(&id).send().await.unwrap();
    let due = kms.schedule_key_deletion().key_id(&id);
    let due = due.pending_window_in_days(7).send().await.unwrap();
    assert_eq!(due.key_state, Some(KeyState::PendingDeletion));
    let date = SystemTime::try_from(due.deletion_date.unwrap()).unwrap();
    let week = Duration::from_secs(7 * 86_400);
    let off = (now + week).duration_since(date).unwrap();
    assert!(off < Duration::from_secs(1), "{off:?}");
    kms.cancel_key_deletion().key_id(&id).send().await.unwrap();
    let key = kms.describe_key().key_id(&id).send().await.unwrap();
    let state = key.key_metadata.unwrap().key_state;
    assert_eq!(state, Some(KeyState::Disabled));
    let refused = kms.describe_key().key_id("absent").send().await;
    let refused = refused.unwrap_err().into_service_error();
    assert!(refused.is_not_found_exception(), "{refused}");
}

#[tokio::test]
async fn data_keys_of_the_sdk_open_and_move_to_another_key() {
    let (_site, kms) = site().await;
    let create = async || kms.create_key().send().await.unwrap().key_metadata.unwrap();
    let (first, second) = (create().await, create().await);
    let made = kms
        .generate_data_key()
        .key_id(&first.key_id)
        .key_spec(DataKeySpec::Aes256)
        .encryption_context("bucket", "bucket/a.txt")
        .send()
        .await
        .unwrap();
    let blob = made.ciphertext_blob.unwrap();
    let open = |blob: &Blob| kms.decrypt().ciphertext_blob(blob.clone());
    let opened = open(&blob).encryption_context("bucket", "bucket/a.txt");
    let opened = opened.send().await.unwrap();
    assert_eq!(opened.plaintext, made.plaintext);
    assert_eq!(opened.key_id, first.arn);
    assert_eq!(opened.key_material_id, made.key_material_id);
    let refused = open(&blob).send().await.unwrap_err().into_service_error();
    assert!(refused.is_invalid_ciphertext_exception(), "{refused}");

    let moved = kms
        .re_encrypt()
        .ciphertext_blob(blob)
        .source_encryption_context("bucket", "bucket/a.txt")
        .destination_key_id(second.arn.as_deref().unwrap())
        .send()
        .await
        .unwrap();
    let moved = moved.ciphertext_blob.unwrap();
    let opened = open(&moved).key_id(&second.key_id).send().await.unwrap();
    assert_eq!(opened.plaintext, made.plaintext);
    let refused = open(&moved).key_id(&first.key_id).send().await;
    let refused = refused.unwrap_err().into_service_error();
    assert!(refused.is_incorrect_key_exception(), "{refused}");
    let refused = open(&moved).dry_run(true).send().await;
    let refused = refused.unwrap_err().into_service_error();
    assert!(refused.is_dry_run_operation_exception(), "{refused}");
}

#[tokio::test]
async fn paginators_of_the_sdk_list_every_key_once() {
    let (_site, kms) = site().await;
    for _ in 0..5 {
        kms.create_key().send().await.unwrap();
    }
    let pages = kms.list_keys().into_paginator().page_size(2).send();
    let pages: Vec<_> = pages.try_collect().await.unwrap();
    assert_eq!(pages.len(), 3);
    let mut ids: Vec<_> = pages
        .iter()
        .flat_map(|page| page.keys())
        .map(|key| key.key_id().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn sdk_reaches_every_prefix_and_is_refused_with_another_secret() {
    let (site, kms) = site().await;
    let made = kms.create_key().send().await.unwrap();
    let id = made.key_metadata.unwrap().key_id;
    for path in ["/", "/aws", "/aws/", "/aws/data", "/aws/data/"] {
        let kms = client(&site, path, "root-secret");
        let found = kms.describe_key().key_id(&id).send().await.unwrap();
        assert_eq!(found.key_metadata.unwrap().key_id, id, "{path}");
        let made = kms.create_key().send().await;
        match path.contains("data") {
            true => assert_eq!(code(made), "AccessDeniedException", "{path}"),
            false => drop(made.unwrap()),
        }
    }
    let refused = client(&site, "", "wrong").list_keys().send().await;
    assert_eq!(code(refused), "InvalidSignatureException");
}
