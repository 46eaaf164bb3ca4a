//! Who sent a request: by its signature and the access keys of the deployment, or by the gateway in front.

use std::num::NonZeroUsize;
use std::sync::Arc;

use keyway_domain::KmsError;
use keyway_domain::access::{Caller, Credentials, Grant};
use keyway_domain::policy::Policy;
use keyway_domain::ports::Clock;
use keyway_http::{Proof, Request};

use crate::sigv4::{Presented, Remainder, Rules, SignatureError, SigningKeys};

/// One per access key, day, region and service in use.
const SIGNING_KEYS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Tells who sent a request.
pub struct Authenticator(Source);

/// There is one, never both: a caller whom one of them refuses must not try the other.
enum Source {
    Signature(Box<Signatures>),
    /// The grant that every caller has whom the gateway lets through.
    Gateway(Arc<Grant>),
}

struct Signatures {
    credentials: Arc<Credentials>,
    clock: Arc<dyn Clock>,
    rules: Rules,
    signing_keys: Arc<SigningKeys>,
}

/// Why nobody was found behind a request.
#[derive(Debug)]
pub enum AuthError {
    /// The signature or what it is made with is not accepted.
    Signature(SignatureError),
    /// The access keys could not be looked at.
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
    /// A word for it that says nothing of the request.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Signature(_) => "unauthenticated",
            Self::Kms(error) => error.class(),
        }
    }
}

impl Authenticator {
    /// By signatures that are made with these access keys.
    pub fn new(credentials: Arc<Credentials>, clock: Arc<dyn Clock>, rules: Rules) -> Self {
        Self(Source::Signature(Box::new(Signatures {
            credentials,
            clock,
            rules,
            signing_keys: Arc::new(SigningKeys::new(SIGNING_KEYS)),
        })))
    }

    /// The one region that requests must be signed for, if there is one.
    pub fn region(&self) -> Option<&str> {
        match &self.0 {
            Source::Signature(signatures) => signatures.rules.region.as_deref(),
            Source::Gateway(_) => None,
        }
    }

    /// The access keys that signatures are made with, if there are signatures.
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        match &self.0 {
            Source::Signature(signatures) => Some(&signatures.credentials),
            Source::Gateway(_) => None,
        }
    }

    /// By the word of a gateway that verifies IAM callers. IAM decides who comes through and to which routes;
    /// `policy` is what they may do here. Signatures and access keys of this deployment are not looked at.
    pub fn by_gateway(policy: Policy) -> Self {
        Self(Source::Gateway(Arc::new(Grant::Policy(policy))))
    }

    /// Reads what the first request would wait for.
    pub async fn warm(&self) {
        if let Source::Signature(signatures) = &self.0 {
            signatures.credentials.warm().await;
        }
    }

    /// The caller that the request's signature proves, as far as the request's head tells; its body is not looked at.
    ///
    /// # Errors
    /// [`AuthError::Signature`] when it proves nobody. An access key that comes with the wrong session token
    /// is the same as a wrong signature; one that does not exist or has expired reads the same. A session token that
    /// a permanent key does not have is refused by its name, once the signature is proven.
    pub async fn authenticate<E: From<AuthError> + 'static>(
        &self,
        request: &Request,
    ) -> Result<Proof<Caller, E>, AuthError> {
        match &self.0 {
            Source::Signature(signatures) => signatures.authenticate(request).await,
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
    ) -> Result<Proof<Caller, E>, AuthError> {
        let presented = Presented::parse(request, &self.rules)?;
        let credential = self
            .credentials
            .find(presented.access_key_id())
            .await?
            .ok_or(SignatureError::UnknownAccessKey)?;
        let remainder = presented.verify_head(
            credential.secret.expose(),
            self.clock.now(),
            &self.signing_keys,
        )?;
        let (matches, is_needless) = match (&credential.session_token, presented.session_token()) {
            (None, None) => (true, false),
            (Some(expected), Some(given)) => (expected.ct_eq(given.as_bytes()), false),
            (Some(_), None) => (false, false),
            // Only who has proven to hold the secret is told that the key is permanent.
            (None, Some(_)) => (true, true),
        };
        if !matches {
            return Err(SignatureError::SignatureMismatch.into());
        }
        if is_needless && !matches!(remainder, Remainder::Signature(_)) {
            return Err(SignatureError::SessionTokenNotNeeded.into());
        }
        let caller = credential.caller.of_new_request();
        let signing_keys = Arc::clone(&self.signing_keys);
        let verify = move |remainder: Remainder, body: &[u8]| {
            let verified = remainder.verify(body, &signing_keys);
            verified.map_err(|denied| E::from(AuthError::Signature(denied)))
        };
        Ok(match remainder {
            Remainder::Nothing => Proof::Proven(caller),
            remainder @ Remainder::Payload(_) => {
                Proof::Signed(caller, Box::new(move |body| verify(remainder, body)))
            }
            remainder @ Remainder::Signature(_) => Proof::Unproven(Box::new(move |body| {
                verify(remainder, body)?;
                if is_needless {
                    return Err(E::from(SignatureError::SessionTokenNotNeeded.into()));
                }
                Ok(caller)
            })),
        })
    }
}
