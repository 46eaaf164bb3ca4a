//! Who sent a request, as this API tells it: by the public key of a client's certificate.

use keyway_auth::certificate::{Front, Unidentified};
use keyway_domain::access::Caller;
use keyway_domain::identity::Identity;
use keyway_http::Request;

use crate::Refusal;

/// Says which identity a request proves: that of the certificate whose key the other end of the connection was shown
/// to hold, or of one that a trusted front vouches for.
pub trait IdentityOf: Send + Sync + 'static {
    /// The identity.
    ///
    /// # Errors
    /// [`Unidentified`].
    fn identity(&self, request: &Request) -> Result<Identity, Unidentified>;
}

impl<F> IdentityOf for F
where
    F: Fn(&Request) -> Result<Identity, Unidentified> + Send + Sync + 'static,
{
    fn identity(&self, request: &Request) -> Result<Identity, Unidentified> {
        self(request)
    }
}

/// What certificates prove: the connection's own, or one that this front vouches for, if there is one.
pub struct Proven(pub Option<Front>);

impl IdentityOf for Proven {
    fn identity(&self, request: &Request) -> Result<Identity, Unidentified> {
        let identity = Front::identify(self.0.as_ref(), request)?;
        Identity::parse(&identity.to_string()).map_err(|_| Unidentified::Malformed)
    }
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
            Self::Nobody(_) => Err(Unidentified::Missing.into()),
        }
    }

    /// The identity of a route that needs one.
    pub(crate) fn identity(&self) -> Result<&Identity, Refusal> {
        match self {
            Self::Known(identity, _) => Ok(identity),
            Self::Nobody(_) => Err(Unidentified::Missing.into()),
        }
    }
}
