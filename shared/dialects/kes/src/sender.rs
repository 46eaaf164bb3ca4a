//! The sender of a request, identified by the public key of a client certificate.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyway_auth::certificate::{TrustedProxy, Unidentified};
use keyway_domain::access::Caller;
use keyway_domain::identity::Identity;
use keyway_http::{ClientCertificate, Request};
use lru::LruCache;

use crate::ErrorResponse;
use crate::error_response::unidentified;

/// Finds the identity that a request proves: that of the certificate whose key the client proved to hold, or of one that a
/// trusted proxy vouches for.
pub trait IdentityOf: Send + Sync + 'static {
    /// The identity of the request's sender.
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

/// Identifies senders by the connection's certificate, or by the one that the proxy vouches for, if there is a proxy.
///
/// Parsing a certificate costs more than the rest of a request, and a connection has the same one for all requests. So the
/// connection keeps its identity. A gateway's requests have no connection: the latest identities of their certificates are
/// cached, by all bytes of the certificates.
pub struct Proven {
    proxy: Option<TrustedProxy>,
    read: Mutex<LruCache<ClientCertificate, Identity>>,
}

/// How many identities are cached.
const KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Longer certificates are parsed each time: clients make them, and the cache must be bounded.
const LONGEST_KEPT: usize = 4 << 10;

impl Proven {
    /// Accepts the connections' own certificates, and those that `proxy` vouches for.
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
        // No code that can panic runs under the lock.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdentityOf for Proven {
    fn identity(&self, request: &Request) -> Result<Identity, Unidentified> {
        let own = request.peer.client_certificate.as_ref();
        // Behind a proxy many clients share a connection, and the certificate is in a header.
        let Some(own) = own.filter(|_| self.proxy.is_none()) else {
            return self.by(request);
        };
        let connection = &request.peer.connection;
        if let Some(identity) = connection.sender(|| self.by(request)) {
            return identity.clone();
        }
        if own.size() > LONGEST_KEPT {
            return self.by(request);
        }
        if let Some(identity) = self.read().get(own) {
            return Ok(identity.clone());
        }
        let identity = self.by(request)?;
        self.read().put(own.clone(), identity.clone());
        Ok(identity)
    }
}

/// The sender of a request. The route decides whether it needs to be known.
#[derive(Debug)]
pub enum Sender {
    /// The identity is proven. The caller is restricted to the call that was authorized.
    Known(Identity, Caller),
    /// No identity is proven. The answer to routes that need one.
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
