//! Authenticates requests: by signature with the deployment's access keys, or by the gateway in front.

use std::num::NonZeroUsize;
use std::sync::Arc;

use keyway_domain::KmsError;
use keyway_domain::access::{Caller, Credentials, Grant};
use keyway_domain::policy::Policy;
use keyway_domain::ports::Clock;
use keyway_http::{Proof, Request};

use crate::sigv4::{Presented, Remainder, Rules, SignatureError, SigningKeys};

/// The capacity of the cache: one entry per access key, day, region and service in use.
const SIGNING_KEYS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Authenticates requests.
pub struct Authenticator(Source);

/// The one source of callers. There are never both: a caller whom one refuses must not try the other.
enum Source {
    Signature(Box<Signatures>),
    /// The grant of every caller that the gateway admits.
    Gateway(Arc<Grant>),
}

struct Signatures {
    credentials: Arc<Credentials>,
    clock: Arc<dyn Clock>,
    rules: Rules,
    signing_keys: Arc<SigningKeys>,
}

/// Why a request is not authenticated.
#[derive(Debug)]
pub enum AuthError {
    /// The signature, or a part of the request that it needs, is not accepted.
    Signature(SignatureError),
    /// The access keys could not be read.
    Kms(KmsError),
}

impl From<SignatureError> for AuthError {
    fn from(denied: SignatureError) -> Self {
        Self::Signature(denied)
    }
}

impl From<KmsError> for AuthError {
    fn from(error: KmsError) -> Self {
        Self::Kms(error)
    }
}

impl AuthError {
    /// The error's class: one of a few words, without data of the request.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Signature(_) => "unauthenticated",
            Self::Kms(error) => error.class(),
        }
    }
}

impl Authenticator {
    /// Authenticates by signatures with these access keys.
    pub fn new(credentials: Arc<Credentials>, clock: Arc<dyn Clock>, rules: Rules) -> Self {
        Self(Source::Signature(Box::new(Signatures {
            credentials,
            clock,
            rules,
            signing_keys: Arc::new(SigningKeys::new(SIGNING_KEYS)),
        })))
    }

    /// The region that requests must be signed for; `None` if any is accepted.
    pub fn region(&self) -> Option<&str> {
        match &self.0 {
            Source::Signature(signatures) => signatures.rules.region.as_deref(),
            Source::Gateway(_) => None,
        }
    }

    /// The access keys; `None` if a gateway authenticates.
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        match &self.0 {
            Source::Signature(signatures) => Some(&signatures.credentials),
            Source::Gateway(_) => None,
        }
    }

    /// Trusts a gateway that verifies IAM callers. IAM decides which callers reach which routes; `policy` says what they
    /// may do here. Signatures and access keys of this deployment are ignored.
    pub fn by_gateway(policy: Policy) -> Self {
        Self(Source::Gateway(Arc::new(Grant::Policy(policy))))
    }

    /// Loads the data that the first request would wait for.
    pub async fn warm(&self) {
        if let Source::Signature(signatures) = &self.0 {
            signatures.credentials.warm().await;
        }
    }

    /// The caller that the request's signature proves, as far as the head shows. The body is not read.
    ///
    /// # Errors
    /// [`AuthError::Signature`] if it proves no caller. An access key with the wrong session token gets the error of a
    /// wrong signature; a key that does not exist gets the same text. An expired key, and a session token with a permanent
    /// key, get errors of their own, once the signature is verified.
    ///
    /// A signature for a service that is not one of `services` is refused too: it was made for another API. A gateway
    /// checks that itself.
    pub async fn authenticate<E: From<AuthError> + 'static>(
        &self,
        request: &Request,
        services: &'static [&'static str],
    ) -> Result<Proof<Caller, E>, AuthError> {
        match &self.0 {
            Source::Signature(signatures) => signatures.authenticate(request, services).await,
            Source::Gateway(grant) => match &request.peer.iam_caller {
                Some(caller) => Ok(Proof::Proven(Caller::new(
                    caller.arn.as_str(),
                    Arc::clone(grant),
                ))),
                None => Err(SignatureError::NoVerifiedCaller.into()),
            },
        }
    }
}

impl Signatures {
    async fn authenticate<E: From<AuthError> + 'static>(
        &self,
        request: &Request,
        services: &'static [&'static str],
    ) -> Result<Proof<Caller, E>, AuthError> {
        let presented = Presented::parse(request, &self.rules)?;
        let credential = self
            .credentials
            .find_even_expired(presented.access_key_id())
            .await?
            .ok_or(SignatureError::UnknownAccessKey)?;
        let is_for_service = services.contains(&presented.service());
        let remainder =
            presented.verify_head(&credential.secret, self.clock.now(), &self.signing_keys)?;
        let is_expired = self.credentials.is_expired(&credential);
        let (matches, is_needless) = match (&credential.session_token, presented.session_token()) {
            (None, None) => (true, false),
            (Some(expected), Some(given)) => (expected.ct_eq(given.as_bytes()), false),
            (Some(_), None) => (false, false),
            (None, Some(_)) => (true, true),
        };
        if !matches {
            return Err(SignatureError::SignatureMismatch.into());
        }
        // What is wrong with the key is told only after the signature proves that the caller has its secret.
        let refusal = move || {
            if is_expired {
                Err(SignatureError::ExpiredCredentials)
            } else if is_needless {
                Err(SignatureError::SessionTokenNotNeeded)
            } else {
                Ok(())
            }
        };
        if !matches!(remainder, Remainder::Signature(_)) {
            refusal()?;
        }
        if !is_for_service {
            return Err(SignatureError::Service { accepted: services }.into());
        }
        let caller = credential.caller.of_new_request();
        let used = {
            let credentials = Arc::clone(&self.credentials);
            move || credentials.used(&credential)
        };
        let signing_keys = Arc::clone(&self.signing_keys);
        let verify = move |remainder: Remainder, body: &[u8]| {
            let verified = remainder.verify(body, &signing_keys);
            verified.map_err(|denied| E::from(AuthError::Signature(denied)))
        };
        Ok(match remainder {
            Remainder::Nothing => {
                used();
                Proof::Proven(caller)
            }
            remainder @ Remainder::Payload(_) => {
                used();
                Proof::Signed(caller, Box::new(move |body| verify(remainder, body)))
            }
            remainder @ Remainder::Signature(_) => Proof::Unproven(Box::new(move |body| {
                verify(remainder, body)?;
                refusal().map_err(|denied| E::from(AuthError::Signature(denied)))?;
                used();
                Ok(caller)
            })),
        })
    }
}
