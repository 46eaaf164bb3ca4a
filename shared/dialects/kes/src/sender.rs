//! Who sent a request, as this API tells it: by the public key of a client's certificate.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyway_auth::certificate::{TrustedProxy, Unidentified};
use keyway_domain::access::Caller;
use keyway_domain::identity::Identity;
use keyway_http::{ClientCertificate, Request};
use lru::LruCache;

use crate::ErrorResponse;
use crate::error_response::unidentified;

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
///
/// Reading a certificate costs more than the rest of a request, and a connection shows the same one with each. So what
/// was read last is kept, found again by all of the certificates' bytes.
pub struct Proven {
    proxy: Option<TrustedProxy>,
    read: Mutex<LruCache<ClientCertificate, Identity>>,
}

/// So many clients are told apart without reading their certificates again.
const KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Longer ones are read each time: a certificate is the client's to make, and what is kept must be bounded.
const LONGEST_KEPT: usize = 4 << 10;

impl Proven {
    /// By the connections' own certificates, and by those that this front vouches for.
    pub fn new(proxy: Option<TrustedProxy>) -> Self {
        Self {
            proxy,
            read: Mutex::new(LruCache::new(KEPT)),
        }
    }

    fn by(&self, request: &Request) -> Result<Identity, Unidentified> {
        let identity = TrustedProxy::identify(self.proxy.as_ref(), request)?;
        Identity::parse(&identity.to_string()).map_err(|_| Unidentified::Malformed)
    }

    fn read(&self) -> MutexGuard<'_, LruCache<ClientCertificate, Identity>> {
        // Nothing that can panic runs under the lock.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdentityOf for Proven {
    fn identity(&self, request: &Request) -> Result<Identity, Unidentified> {
        let own = request.peer.client_certificate.as_ref();
        // Through a front many clients share a connection, and what it vouches for is in a header.
        let Some(own) = own.filter(|own| self.proxy.is_none() && own.size() <= LONGEST_KEPT) else {
            return self.by(request);
        };
        if let Some(identity) = self.read().get(own) {
            return Ok(identity.clone());
        }
        let identity = self.by(request)?;
        self.read().put(own.clone(), identity.clone());
        Ok(identity)
    }
}

/// Who sent a request. Whether it matters is the route's to say.
#[derive(Debug)]
pub enum Sender {
    /// Somebody whose identity is proven; the caller is narrowed to the call that was allowed.
    Known(Identity, Caller),
    /// Nobody, and what to say to it.
    Nobody(ErrorResponse),
}

impl Sender {
    /// The caller of a route that needs one.
    pub(crate) fn caller(&self) -> Result<&Caller, ErrorResponse> {
        match self {
            Self::Known(_, caller) => Ok(caller),
            Self::Nobody(_) => Err(unidentified(Unidentified::Missing)),
        }
    }

    /// The identity of a route that needs one.
    pub(crate) fn identity(&self) -> Result<&Identity, ErrorResponse> {
        match self {
            Self::Known(identity, _) => Ok(identity),
            Self::Nobody(_) => Err(unidentified(Unidentified::Missing)),
        }
    }
}
