//! Who sent a request, as this API tells it: by the public key of a client's certificate.

use keyway_domain::access::Caller;
use keyway_domain::identity::Identity;
use keyway_http::Request;

use crate::Refusal;

/// Says which identity a request proves: that of the certificate whose key the other end of the connection was shown
/// to hold, or of one that a trusted front vouches for.
pub trait IdentityOf: Send + Sync + 'static {
    /// The identity; `None` when no certificate was presented.
    ///
    /// # Errors
    /// [`Unidentified`] when something was presented that is no identity.
    fn identity(&self, request: &Request) -> Result<Option<Identity>, Unidentified>;
}

impl<F> IdentityOf for F
where
    F: Fn(&Request) -> Result<Option<Identity>, Unidentified> + Send + Sync + 'static,
{
    fn identity(&self, request: &Request) -> Result<Option<Identity>, Unidentified> {
        self(request)
    }
}

/// Why a request proves no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unidentified {
    /// The connection is not encrypted, so nothing on it proves anything.
    NotEncrypted,
    /// More than one certificate of a client was presented.
    Several,
    /// What was presented is not a certificate that is accepted.
    Unfit,
}

/// Who sent a request. Whether it matters is the route's to say.
#[derive(Debug)]
pub enum Sender {
    /// Somebody whose identity is proven; the caller is narrowed to the call that was allowed.
    Known(Identity, Caller),
    /// Nobody, and what to say to it.
    Nobody(Refusal),
}

impl Sender {
    /// The caller of a route that needs one.
    pub(crate) fn caller(&self) -> Result<&Caller, Refusal> {
        match self {
            Self::Known(_, caller) => Ok(caller),
            Self::Nobody(_) => Err(Refusal::no_certificate()),
        }
    }

    /// The identity of a route that needs one.
    pub(crate) fn identity(&self) -> Result<&Identity, Refusal> {
        match self {
            Self::Known(identity, _) => Ok(identity),
            Self::Nobody(_) => Err(Refusal::no_certificate()),
        }
    }
}
