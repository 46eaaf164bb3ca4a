//! Requests, and AWS's own signer for them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation,
    SigningSettings, UriPathNormalizationMode,
};
use aws_sigv4::sign::v4;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use keyway_auth::sigv4::{Presented, Rules, SignatureError, SigningKeys};
use keyway_domain::SecretBytes;
use keyway_http::{Peer, Request};

pub(crate) const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub(crate) const TOKEN: &str = "FwoGZXIvYXdzEXAMPLE+token/with==signs";
pub(crate) const HOST: &str = "kms.example.com";

/// A secret in memory of its own. A cached signing key is used for the same memory alone.
pub(crate) fn secret(text: &str) -> Arc<SecretBytes> {
    Arc::new(SecretBytes::from(text.as_bytes().to_vec()))
}

pub(crate) fn now() -> Timestamp {
    "2026-03-04T05:06:07Z".parse().unwrap()
}

pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let (raw_path, raw_query) = target.split_once('?').unwrap_or((target, ""));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    Request {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        raw_path: raw_path.to_owned(),
        raw_query: raw_query.to_owned(),
        headers: map,
        body: body.to_owned().into(),
        peer: Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false),
    }
}

/// How a request is signed.
#[derive(Debug, Clone)]
pub(crate) struct Signing {
    pub(crate) service: &'static str,
    pub(crate) region: &'static str,
    pub(crate) presigned: bool,
    pub(crate) session_token: Option<&'static str>,
    pub(crate) unsigned_payload: bool,
    /// Send `x-amz-content-sha256`; S3's signer always does.
    pub(crate) declare_payload: bool,
    pub(crate) expires_in: u64,
}

impl Signing {
    pub(crate) const KMS: Self = Self {
        service: "execute-api",
        region: "us-east-1",
        presigned: false,
        session_token: None,
        unsigned_payload: false,
        declare_payload: false,
        expires_in: 300,
    };
    pub(crate) const S3: Self = Self {
        service: "s3",
        declare_payload: true,
        ..Self::KMS
    };

    /// `unsigned` with a signature of `now`.
    pub(crate) fn sign(&self, unsigned: &Request) -> Request {
        let credentials = Credentials::new(
            ACCESS_KEY_ID,
            SECRET,
            self.session_token.map(str::to_owned),
            None,
            "test",
        );
        let identity = credentials.into();
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        if self.declare_payload {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        if self.presigned {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = Some(Duration::from_secs(self.expires_in));
        }
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(SystemTime::from(now()))
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let question_mark = if unsigned.raw_query.is_empty() {
            ""
        } else {
            "?"
        };
        let uri = format!(
            "https://{HOST}{}{question_mark}{}",
            unsigned.raw_path, unsigned.raw_query
        );
        let body = if self.unsigned_payload {
            SignableBody::UnsignedPayload
        } else {
            SignableBody::Bytes(&unsigned.body)
        };
        let headers = unsigned
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        let signable = SignableRequest::new(unsigned.method.as_str(), uri, headers, body).unwrap();
        let (instructions, _) = aws_sigv4::http_request::sign(signable, &params)
            .unwrap()
            .into_parts();

        let mut signed = unsigned.clone();
        signed
            .headers
            .entry("host")
            .or_insert(HeaderValue::from_static(HOST));
        for (name, value) in instructions.headers() {
            signed.headers.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        for (name, value) in instructions.params() {
            if !signed.raw_query.is_empty() {
                signed.raw_query.push('&');
            }
            let value =
                percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            signed.raw_query.push_str(&format!("{name}={value}"));
        }
        signed
    }
}

/// The verdict on a request at the time it was signed, by a server that knows one access key.
pub(crate) fn verdict(request: &Request) -> Result<(), SignatureError> {
    verdict_at(request, now())
}

pub(crate) fn verdict_at(request: &Request, now: Timestamp) -> Result<(), SignatureError> {
    let presented = Presented::parse(request, &Rules::default())?;
    if presented.access_key_id() != ACCESS_KEY_ID {
        return Err(SignatureError::SignatureMismatch);
    }
    presented.verify(&secret(SECRET), now, &SigningKeys::default())
}

/// A signature of our own making for a GET without body or query, for what AWS's signer does not sign.
pub(crate) fn sign_plain(unsigned: &Request, signed_headers: &str) -> Request {
    use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
    let mut signed = unsigned.clone();
    signed
        .headers
        .entry("host")
        .or_insert(HeaderValue::from_static(HOST));
    let headers: String = signed_headers
        .split(';')
        .map(|name| format!("{name}:{}\n", signed.headers[name].to_str().unwrap()))
        .collect();
    let empty = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b""));
    let canonical = format!(
        "GET\n{}\n\n{headers}\n{signed_headers}\n{empty}",
        signed.raw_path
    );
    let hash = hex::encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        canonical.as_bytes(),
    ));
    let scope = "20260304/us-east-1/kms/aws4_request";
    let to_sign = format!("AWS4-HMAC-SHA256\n20260304T050607Z\n{scope}\n{hash}");
    let key = generate_signing_key(SECRET, SystemTime::from(now()), "us-east-1", "kms");
    let signature = calculate_signature(key, to_sign.as_bytes());
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/{scope}, SignedHeaders={signed_headers}, Signature={signature}"
    );
    signed
        .headers
        .insert("authorization", authorization.parse().unwrap());
    signed
}
