use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::Request;

/// Signs requests with the AWS SDK's own signer.
#[derive(Debug, Clone)]
pub struct Signer {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    service: &'static str,
    region: &'static str,
    declares_hash: bool,
    target: Option<String>,
}

impl Signer {
    /// For this access key, in the scope of `execute-api`.
    pub fn new(access_key_id: &str, secret_access_key: &str) -> Self {
        Self {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            session_token: None,
            service: "execute-api",
            region: "us-east-1",
            declares_hash: false,
            target: None,
        }
    }

    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// With a session token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.session_token = Some(token.to_owned());
        self
    }

    /// In the scope of another service.
    #[must_use]
    pub fn for_service(mut self, service: &'static str) -> Self {
        self.service = service;
        self
    }

    /// In the scope of another region than `us-east-1`.
    #[must_use]
    pub fn for_region(mut self, region: &'static str) -> Self {
        self.region = region;
        self
    }

    /// Declaring the payload's hash in `x-amz-content-sha256`, as AWS's SDKs do.
    #[must_use]
    pub fn declaring_hash(mut self) -> Self {
        self.declares_hash = true;
        self
    }

    /// With this text in `X-Amz-Target`.
    #[must_use]
    pub fn with_target(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }

    /// A signed request. `path` may carry a query, and goes to the wire as it is.
    pub fn request(
        &self,
        method: &str,
        host: &str,
        path: &str,
        body: &[u8],
        time: SystemTime,
    ) -> Request<Bytes> {
        self.declared_request(method, host, path, body, None, time)
    }

    /// A signed request that declares its payload in `x-amz-content-sha256`, as S3's clients do.
    pub fn declared_request(
        &self,
        method: &str,
        host: &str,
        path: &str,
        body: &[u8],
        declared: Option<&str>,
        time: SystemTime,
    ) -> Request<Bytes> {
        let credentials = Credentials::new(
            &self.access_key_id,
            &self.secret_access_key,
            self.session_token.clone(),
            None,
            "keyway-tests",
        );
        let identity = credentials.into();
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            // S3 takes paths as they are.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        if declared.is_some() || self.declares_hash {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let params = SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(time)
            .settings(settings)
            .build()
            .expect("every field is set")
            .into();
        let uri = format!("http://{host}{path}");
        let target = (self.target.as_deref()).map(|target| ("x-amz-target", target));
        let headers = [("host", host)].into_iter().chain(target);
        let payload = declared.map_or(SignableBody::Bytes(body), |declared| {
            SignableBody::Precomputed(declared.to_owned())
        });
        let signable = SignableRequest::new(method, &uri, headers.clone(), payload).expect("a URI");
        let (instructions, _) = sign(signable, &params).expect("a signature").into_parts();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Bytes::copy_from_slice(body));
        let mut request = request.expect("a request");
        instructions.apply_to_request_http1x(&mut request);
        request
    }
}
