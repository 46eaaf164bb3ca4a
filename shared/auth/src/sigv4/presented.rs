use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac};
use http::header::HOST;
use jiff::{SignedDuration, Timestamp};
use keyway_domain::SecretBytes;
use keyway_http::Request;
use percent_encoding::percent_decode_str;

use super::canonical::{self, Query, SignedHeaders};
use super::credential::Credential;
use super::received::Received;
use super::signing_keys::{self, SigningKeys};
use super::stamp::Stamp;
use super::{ALGORITHM, Rules, SignatureError};

const MAX_AUTHORIZATION: usize = 8 * 1024;
const MAX_SIGNED_HEADERS: usize = 100;
const MAX_SIGNED_HEADER_BYTES: usize = 64 * 1024;
/// The most bytes of canonical requests that wait for a body as text.
const MAX_WAITING_TEXT: usize = 2 * 1024;
const MAX_SESSION_TOKEN: usize = 8 * 1024;
/// Seven days, AWS's limit too.
const MAX_EXPIRES: i64 = 7 * 24 * 60 * 60;

const X_AMZ_CONTENT_SHA256: &str = "x-amz-content-sha256";
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// CloudFront adds this header after the client signs. Nothing here reads it.
const ADDED_ON_THE_WAY: &str = "x-amz-cf-id";

/// The signature that a request presents, in a header or a presigned query. Nothing in it is verified yet.
pub struct Presented<'r> {
    request: &'r Request,
    credential: Credential<'r>,
    session_token: Option<Cow<'r, str>>,
    /// Names in lower case, ascending, separated by semicolons. The request has every one.
    signed_headers: Cow<'r, str>,
    header_lines: SignedHeaders,
    signature: [u8; 32],
    stamp: Stamp,
    expires: Option<SignedDuration>,
    max_skew: SignedDuration,
    paths: Vec<Cow<'r, str>>,
    queries: Vec<String>,
    /// The host with its default port added or removed.
    other_host: Option<String>,
    payload: Payload<'r>,
}

/// The last line of the canonical request.
enum Payload<'r> {
    /// The request declares the hash. The text is what was signed, in the client's own letter case.
    Declared {
        text: Cow<'r, str>,
        digest: [u8; 32],
    },
    /// The signature does not cover the body.
    Unsigned,
    /// The request declares nothing, so both sides use the body's hash.
    Computed,
}

/// The parts of a signature in the header or query form.
pub(super) struct Parts<'r> {
    pub(super) credential: Cow<'r, str>,
    pub(super) signed_headers: Cow<'r, str>,
    signature: Cow<'r, str>,
    stamp: Stamp,
    /// How long a presigned request is valid, as it declares. Any other is valid within the clock skew.
    expires: Option<SignedDuration>,
    session_token: Option<Cow<'r, str>>,
    /// The presigned form may declare the payload in the query.
    content_sha256: Option<Cow<'r, str>>,
}

impl<'r> Presented<'r> {
    /// Parses the signature of the request. The head is bounded and read once; the body is not read.
    pub fn parse(request: &'r Request, rules: &Rules) -> Result<Self, SignatureError> {
        let query = Query::parse(&request.raw_query)?;
        let received = Received::of(&request.headers);
        let authorization = received.authorization.text("the Authorization header")?;
        let is_presigned = is_presigned(&query);
        let parts = match (authorization, is_presigned) {
            (Some(_), true) => return Err(SignatureError::BothForms),
            (Some(authorization), false) => Parts::of_header(&received, authorization)?,
            (None, true) => Parts::of_query(&received, &query)?,
            (None, false) if is_version_2(&query) => return Err(SignatureError::Version2),
            (None, false) => return Err(SignatureError::Missing),
        };
        let credential = Credential::parse(parts.credential, rules)?;
        if credential.day() != parts.stamp.day() {
            return Err(SignatureError::ScopeDate);
        }
        // Lower case only: a signature must match byte by byte.
        let signature =
            canonical::read_lower_hex(&parts.signature).ok_or(SignatureError::Malformed {
                what: "Signature",
                expected: "64 lower-case hex digits",
            })?;
        let header_lines = signed_headers(request, &received, &parts.signed_headers, is_presigned)?;
        if parts
            .session_token
            .as_ref()
            .is_some_and(|token| token.len() > MAX_SESSION_TOKEN)
        {
            return Err(SignatureError::TooLong {
                what: "the session token",
                limit: MAX_SESSION_TOKEN,
                unit: "characters",
            });
        }
        let payload = Payload::parse(
            request,
            &received,
            parts.content_sha256,
            is_presigned && credential.is_s3(),
        )?;
        let queries = if is_presigned {
            vec![query.signed()]
        } else {
            canonical::queries(&query, &request.raw_query)
        };
        Ok(Self {
            request,
            paths: canonical::paths(&request.raw_path, credential.is_s3())?,
            queries,
            other_host: (received.host.text("the Host header")?)
                .and_then(|host| canonical::other_host(host, is_over_tls(request, &received))),
            credential,
            session_token: parts.session_token,
            signed_headers: parts.signed_headers,
            header_lines,
            signature,
            stamp: parts.stamp,
            expires: parts.expires,
            max_skew: SignedDuration::try_from(rules.max_skew).unwrap_or(SignedDuration::MAX),
            payload,
        })
    }

    /// The service that the request is signed for.
    pub fn service(&self) -> &str {
        self.credential.service()
    }

    /// The access key that the request claims to be signed with.
    pub fn access_key_id(&self) -> &str {
        self.credential.access_key_id()
    }

    /// The session token of the request. The signature covers it, but this code's
    /// caller must check it.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }

    /// Verifies that `secret` signed this request, with its body, and that the signature is valid at `now`.
    ///
    /// # Errors
    /// [`SignatureError`] otherwise.
    pub fn verify(
        &self,
        secret: &Arc<SecretBytes>,
        now: Timestamp,
        signing_keys: &SigningKeys,
    ) -> Result<(), SignatureError> {
        self.verify_head(secret, now, signing_keys)?
            .verify(&self.request.body, signing_keys)
    }

    /// Verifies what the head alone can prove; the body is not read. Returns what the body must prove.
    ///
    /// # Errors
    /// [`SignatureError`] if the head already shows that `secret` did not sign it, or that it is not valid at `now`.
    pub fn verify_head(
        &self,
        secret: &Arc<SecretBytes>,
        now: Timestamp,
        signing_keys: &SigningKeys,
    ) -> Result<Remainder, SignatureError> {
        self.check_time(now)?;
        // No one can sign for an account without a secret. Otherwise everyone could.
        if secret.is_empty() {
            return Err(SignatureError::SignatureMismatch);
        }
        let known = signing_keys.find(self.credential.text(), secret);
        let (key, new) = match known {
            Some(key) => (key, None),
            None => {
                let key = signing_keys::derive(secret.expose(), self.credential.scope())
                    .ok_or(SignatureError::SignatureMismatch)?;
                (Arc::new(key), Some(secret))
            }
        };
        let remainder = match &self.payload {
            Payload::Declared { text, digest } => {
                self.check_signature(&key, text)?;
                Remainder::Payload(*digest)
            }
            Payload::Unsigned => {
                self.check_signature(&key, UNSIGNED_PAYLOAD)?;
                Remainder::Nothing
            }
            Payload::Computed => {
                return Ok(Remainder::Signature(self.unfinished(key, new)));
            }
        };
        if let Some(secret) = new {
            signing_keys.keep(self.credential.text(), secret, key);
        }
        Ok(remainder)
    }

    fn check_time(&self, now: Timestamp) -> Result<(), SignatureError> {
        let age = now.duration_since(self.stamp.at());
        match self.expires {
            None if age.abs() > self.max_skew => Err(SignatureError::Skewed),
            Some(_) if age < -self.max_skew => Err(SignatureError::NotYetValid),
            Some(expires) if age > expires => Err(SignatureError::Expired),
            None | Some(_) => Ok(()),
        }
    }

    fn check_signature(&self, key: &hmac::Key, payload: &str) -> Result<(), SignatureError> {
        let to_sign = self.to_sign();
        let is_signed = self.forms().any(|mut form| {
            form.extend_from_slice(payload.as_bytes());
            is_signature(key, &to_sign, sha256(&form).as_ref(), &self.signature)
        });
        if is_signed {
            Ok(())
        } else {
            Err(SignatureError::SignatureMismatch)
        }
    }

    /// Keeps short forms as texts, because nearly always the first one is what was signed, and the others need no hash
    /// then. Keeps the rest as hashes, because their texts would take much memory while a request waits for its body.
    fn unfinished(&self, key: Arc<hmac::Key>, new: Option<&Arc<SecretBytes>>) -> Unfinished {
        let mut bytes = 0;
        let kept = |form: Vec<u8>| {
            bytes += form.len();
            if bytes <= MAX_WAITING_TEXT {
                return Form::Text(form);
            }
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(&form);
            Form::Hashed(context)
        };
        Unfinished {
            forms: self.forms().map(kept).collect(),
            to_sign: self.to_sign(),
            signature: self.signature,
            key,
            new: new.map(|secret| (self.credential.text().into(), Arc::clone(secret))),
        }
    }

    /// The canonical requests that the client may have signed, the likeliest first, each up to the payload's hash: at most
    /// three paths, three queries and two hosts.
    fn forms(&self) -> impl Iterator<Item = Vec<u8>> {
        let hosts = std::iter::once(None).chain(self.other_host.as_deref().map(Some));
        hosts.flat_map(move |host| {
            self.paths.iter().flat_map(move |path| {
                (self.queries.iter()).map(move |query| self.canonical_request(host, path, query))
            })
        })
    }

    /// `Method \n CanonicalPath \n CanonicalQuery \n CanonicalHeaders \n SignedHeaders \n`
    fn canonical_request(&self, host: Option<&str>, path: &str, query: &str) -> Vec<u8> {
        // The method, the line ends and the payload's hash.
        const BESIDES: usize = 128;
        let mut out = Vec::with_capacity(
            path.len()
                + query.len()
                + self.header_lines.len()
                + host.map_or(0, str::len)
                + self.signed_headers.len()
                + BESIDES,
        );
        push_lines(&mut out, [self.request.method.as_str(), path, query]);
        self.header_lines.push_to(&mut out, host);
        push_lines(&mut out, ["", &self.signed_headers]);
        out
    }

    /// The string to sign, without the canonical request's hash.
    fn to_sign(&self) -> Vec<u8> {
        let mut to_sign = Vec::with_capacity(192);
        push_lines(
            &mut to_sign,
            [ALGORITHM, self.stamp.text(), self.credential.scope()],
        );
        to_sign
    }
}

/// What a request's body must prove once its head is verified.
#[derive(Debug)]
pub enum Remainder {
    /// Nothing: the signature is verified and does not cover the body.
    Nothing,
    /// The signature is verified and covers a body with this SHA-256.
    Payload([u8; 32]),
    /// The signature, which covers the body's hash.
    Signature(Unfinished),
}

impl Remainder {
    /// Verifies the rest.
    ///
    /// # Errors
    /// [`SignatureError`] if the body is not the one that was signed.
    pub fn verify(self, body: &[u8], signing_keys: &SigningKeys) -> Result<(), SignatureError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Payload(digest) if is_equal(sha256(body).as_ref(), &digest) => Ok(()),
            Self::Payload(_) => Err(SignatureError::PayloadMismatch),
            Self::Signature(unfinished) => unfinished.verify(body, signing_keys),
        }
    }
}

/// A signature that is verified once the body is read. It contains all that it needs of the head.
pub struct Unfinished {
    /// The canonical requests that the client may have signed, up to the body's hash.
    forms: Vec<Form>,
    to_sign: Vec<u8>,
    signature: [u8; 32],
    key: Arc<hmac::Key>,
    /// The cache entry for the key, unless the key is cached.
    new: Option<(Box<str>, Arc<SecretBytes>)>,
}

/// A canonical request up to the body's hash.
enum Form {
    Text(Vec<u8>),
    Hashed(digest::Context),
}

impl Form {
    /// The hash of the canonical request that ends in this hash of the body.
    fn ended_by(self, payload: &[u8]) -> digest::Digest {
        match self {
            Self::Text(mut text) => {
                text.extend_from_slice(payload);
                sha256(&text)
            }
            Self::Hashed(mut context) => {
                context.update(payload);
                context.finish()
            }
        }
    }
}

impl Unfinished {
    fn verify(self, body: &[u8], signing_keys: &SigningKeys) -> Result<(), SignatureError> {
        let mut payload = Vec::with_capacity(64);
        canonical::push_hex(&mut payload, sha256(body).as_ref());
        let is_signed = self.forms.into_iter().any(|form| {
            let hash = form.ended_by(&payload);
            is_signature(&self.key, &self.to_sign, hash.as_ref(), &self.signature)
        });
        if !is_signed {
            return Err(SignatureError::SignatureMismatch);
        }
        if let Some((credential, secret)) = self.new {
            signing_keys.keep(&credential, &secret, self.key);
        }
        Ok(())
    }
}

impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unfinished").finish_non_exhaustive()
    }
}

/// Returns whether the query has any part of a signature.
pub(super) fn is_presigned(query: &Query) -> bool {
    query.pairs().any(|(name, _)| {
        matches!(
            name,
            "X-Amz-Algorithm" | "X-Amz-Credential" | "X-Amz-SignedHeaders" | "X-Amz-Signature"
        )
    })
}

/// `to_sign` is the string to sign without the canonical request's hash.
fn is_signature(key: &hmac::Key, to_sign: &[u8], hash: &[u8], signature: &[u8]) -> bool {
    let mut whole = Vec::with_capacity(to_sign.len() + 2 * hash.len());
    whole.extend_from_slice(to_sign);
    canonical::push_hex(&mut whole, hash);
    // aws-lc's `verify` takes constant time.
    hmac::verify(key, &whole, signature).is_ok()
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("access_key_id", &self.access_key_id())
            .finish_non_exhaustive()
    }
}

impl<'r> Parts<'r> {
    /// `AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...`, in any order.
    pub(super) fn of_header(
        received: &Received<'r>,
        authorization: &'r str,
    ) -> Result<Self, SignatureError> {
        const MALFORMED: SignatureError = SignatureError::Malformed {
            what: "the Authorization header",
            expected: "AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...",
        };
        if authorization.len() > MAX_AUTHORIZATION {
            return Err(SignatureError::TooLong {
                what: "the Authorization header",
                limit: MAX_AUTHORIZATION,
                unit: "bytes",
            });
        }
        let (algorithm, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if algorithm == "AWS" {
            return Err(SignatureError::Version2);
        }
        if algorithm != ALGORITHM {
            return Err(SignatureError::Algorithm);
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',').map(|part| part.trim_matches([' ', '\t'])) {
            let (name, value) = part.split_once('=').ok_or(MALFORMED)?;
            let (slot, name) = match name {
                "Credential" => (&mut credential, "Credential"),
                "SignedHeaders" => (&mut signed_headers, "SignedHeaders"),
                "Signature" => (&mut signature, "Signature"),
                _ => return Err(MALFORMED),
            };
            if slot.replace(Cow::Borrowed(value)).is_some() {
                return Err(SignatureError::Repeated(name));
            }
        }
        let stamp = if let Some(date) = received.amz_date.text("x-amz-date")? {
            Stamp::basic(date).ok_or(SignatureError::Malformed {
                what: "x-amz-date",
                expected: "YYYYMMDDTHHMMSSZ",
            })?
        } else {
            let date = received
                .date
                .text("the Date header")?
                .ok_or(SignatureError::Absent("x-amz-date"))?;
            Stamp::of_date_header(date).ok_or(SignatureError::Malformed {
                what: "the Date header",
                expected: "an HTTP date",
            })?
        };
        Ok(Self {
            credential: credential.ok_or(SignatureError::Absent("Credential"))?,
            signed_headers: signed_headers.ok_or(SignatureError::Absent("SignedHeaders"))?,
            signature: signature.ok_or(SignatureError::Absent("Signature"))?,
            stamp,
            expires: None,
            session_token: received
                .security_token
                .text("x-amz-security-token")?
                .map(Cow::Borrowed),
            content_sha256: None,
        })
    }

    fn of_query(received: &Received<'_>, query: &Query) -> Result<Self, SignatureError> {
        // In this form the token belongs to the query, where it is signed. In a header
        // it would be unsigned.
        if received.security_token.is_there() {
            return Err(SignatureError::BothForms);
        }
        let [
            mut algorithm,
            mut credential,
            mut date,
            mut expires,
            mut signed_headers,
            mut signature,
            mut session_token,
            mut content_sha256,
        ] = [const { None }; 8];
        for (name, value) in query.pairs() {
            let (slot, name) = match name {
                "X-Amz-Algorithm" => (&mut algorithm, "X-Amz-Algorithm"),
                "X-Amz-Credential" => (&mut credential, "X-Amz-Credential"),
                "X-Amz-Date" => (&mut date, "X-Amz-Date"),
                "X-Amz-Expires" => (&mut expires, "X-Amz-Expires"),
                "X-Amz-SignedHeaders" => (&mut signed_headers, "X-Amz-SignedHeaders"),
                "X-Amz-Signature" => (&mut signature, "X-Amz-Signature"),
                "X-Amz-Security-Token" => (&mut session_token, "X-Amz-Security-Token"),
                // The JavaScript SDK's presigner moves this header into the query.
                "X-Amz-Content-Sha256" => (&mut content_sha256, "X-Amz-Content-Sha256"),
                _ => continue,
            };
            // All of these are ASCII in a valid request; other values fail their own checks.
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            if slot.replace(value).is_some() {
                return Err(SignatureError::Repeated(name));
            }
        }
        if algorithm.ok_or(SignatureError::Absent("X-Amz-Algorithm"))? != ALGORITHM {
            return Err(SignatureError::Algorithm);
        }
        if session_token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(SignatureError::Malformed {
                what: "X-Amz-Security-Token",
                expected: "a token without spaces; a plus is written %2B",
            });
        }
        // aws4fetch and aws4 omit it for services other than S3.
        let expires = expires
            .map(|text| {
                let seconds = text
                    .parse()
                    .ok()
                    .filter(|seconds| (1..=MAX_EXPIRES).contains(seconds));
                seconds
                    .map(SignedDuration::from_secs)
                    .ok_or(SignatureError::Malformed {
                        what: "X-Amz-Expires",
                        expected: "1 to 604800 seconds",
                    })
            })
            .transpose()?;
        Ok(Self {
            credential: credential
                .ok_or(SignatureError::Absent("X-Amz-Credential"))?
                .into(),
            signed_headers: signed_headers
                .ok_or(SignatureError::Absent("X-Amz-SignedHeaders"))?
                .into(),
            signature: signature
                .ok_or(SignatureError::Absent("X-Amz-Signature"))?
                .into(),
            stamp: Stamp::basic(&date.ok_or(SignatureError::Absent("X-Amz-Date"))?).ok_or(
                SignatureError::Malformed {
                    what: "X-Amz-Date",
                    expected: "YYYYMMDDTHHMMSSZ",
                },
            )?,
            expires,
            session_token: session_token.map(Cow::Owned),
            content_sha256: content_sha256.map(Cow::Owned),
        })
    }
}

impl<'r> Payload<'r> {
    fn parse(
        request: &'r Request,
        received: &Received<'r>,
        in_query: Option<Cow<'r, str>>,
        unsigned_by_default: bool,
    ) -> Result<Self, SignatureError> {
        if received.is_chunked {
            return Err(SignatureError::Chunked);
        }
        let in_header = received.content_sha256.text(X_AMZ_CONTENT_SHA256)?;
        let in_header = in_header.map(Cow::Borrowed);
        if in_header.is_some() && in_query.is_some() && in_header != in_query {
            return Err(SignatureError::Repeated(X_AMZ_CONTENT_SHA256));
        }
        let unsigned = || {
            if request.peer.is_private() {
                Ok(Self::Unsigned)
            } else {
                Err(SignatureError::UnsignedPayload)
            }
        };
        match in_header.or(in_query) {
            None if unsigned_by_default => unsigned(),
            None => Ok(Self::Computed),
            Some(text) if text == UNSIGNED_PAYLOAD => unsigned(),
            Some(text) if text.starts_with("STREAMING-") => Err(SignatureError::Chunked),
            Some(text) => {
                let digest =
                    canonical::read_hex(&text).ok_or(SignatureError::PayloadDeclaration)?;
                Ok(Self::Declared { text, digest })
            }
        }
    }
}

/// Whether the query is presigned with Signature Version 2.
fn is_version_2(query: &Query) -> bool {
    let has = |wanted: &str| query.pairs().any(|(name, _)| name == wanted);
    has("AWSAccessKeyId") && has("Signature")
}

/// Returns whether the client uses TLS, to this process or to a proxy. A proxy's header is trusted only from loopback,
/// because any other peer could forge it. Only the default port depends on the answer.
fn is_over_tls(request: &Request, received: &Received<'_>) -> bool {
    let by_proxy = || {
        let scheme = received.forwarded_proto.text("x-forwarded-proto");
        matches!(scheme, Ok(Some(scheme)) if scheme.eq_ignore_ascii_case("https"))
    };
    request.peer.encrypted || (request.peer.address.is_loopback() && by_proxy())
}

/// The lines of the signed headers, whose names are listed in `signed`.
fn signed_headers(
    request: &Request,
    received: &Received<'_>,
    signed: &str,
    is_presigned: bool,
) -> Result<SignedHeaders, SignatureError> {
    const MALFORMED: SignatureError = SignatureError::Malformed {
        what: "SignedHeaders",
        expected: "lower-case header names in ascending order, separated by semicolons",
    };
    let mut names: Vec<&[u8]> = Vec::with_capacity(8);
    let mut lines = SignedHeaders::with_capacity(512);
    for name in signed.as_bytes().split(|byte| *byte == b';') {
        if names.len() == MAX_SIGNED_HEADERS {
            return Err(SignatureError::TooLong {
                what: "SignedHeaders",
                limit: MAX_SIGNED_HEADERS,
                unit: "names",
            });
        }
        // Ascending order excludes duplicates.
        if name.is_empty()
            || names.last().is_some_and(|before| *before >= name)
            || !name
                .iter()
                .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
        {
            return Err(MALFORMED);
        }
        if !lines.add(&request.headers, name) {
            return Err(SignatureError::SignedHeaderAbsent(
                String::from_utf8_lossy(name).into_owned(),
            ));
        }
        names.push(name);
    }
    if lines.received_bytes() > MAX_SIGNED_HEADER_BYTES {
        return Err(SignatureError::TooLong {
            what: "the text of the signed headers",
            limit: MAX_SIGNED_HEADER_BYTES,
            unit: "bytes",
        });
    }
    if names.binary_search(&HOST.as_str().as_bytes()).is_err() {
        return Err(SignatureError::Unsigned(HOST));
    }
    received.host.text("the Host header")?;
    // Someone else must not add a header that controls AWS's services. A presigned URL is made before
    // its sender's headers are known; Keyway then reads none of these headers but the payload's hash,
    // which the canonical request contains anyway.
    let unsigned = request.headers.keys().find(|name| {
        name.as_str().starts_with("x-amz-")
            && name.as_str() != ADDED_ON_THE_WAY
            && names.binary_search(&name.as_str().as_bytes()).is_err()
    });
    match unsigned {
        Some(name) if !is_presigned => Err(SignatureError::Unsigned(name.clone())),
        Some(_) | None => Ok(lines),
    }
}

fn push_lines<const N: usize>(out: &mut Vec<u8>, lines: [&str; N]) {
    for line in lines {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
}

fn sha256(data: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, data)
}

fn is_equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}
