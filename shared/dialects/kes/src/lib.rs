//! KES's server API: its paths, shapes and error responses.
//!
//! Three generations of KES's servers and clients speak this API, and all differ. Keyway accepts whatever any of their
//! clients sends. Where one answer does not suit all of them, Keyway answers as the [`Generation`] that is set. Clients
//! tell answers apart by status and message, so both are exactly KES's.
//!
//! There is no prefix: the paths are `/version` and those below `/v1/`.

mod access;
mod datakey;
mod endpoint;
mod error_response;
mod generation;
mod hmac;
mod import;
mod keys;
mod log;
mod names;
#[cfg(feature = "openapi")]
mod openapi;
mod sender;
mod server;
mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, request};
use keyway_auth::certificate::{TrustedProxy, Unidentified};
use keyway_domain::access::Caller;
use keyway_domain::identity::Identities;
use keyway_domain::policy::Action;
use keyway_http::{
    Class, Dialect, Mount, Operation, Proof, Rejection, Request, RequestLine, Route, RouteError,
    Trace, percent_decode,
};

pub use access::matches_no_path;
pub use endpoint::{
    MetricsSource, access_routes, datakey_routes, inventory, key_routes, log_routes, service_routes,
};
pub use error_response::{Api, ErrorResponse, Message};
use error_response::{malformed_path, not_encrypted, unidentified};
pub use generation::{Generation, NoGeneration};
#[cfg(feature = "openapi")]
pub use openapi::description;
pub use sender::{IdentityOf, Proven, Sender};

/// The prefixes of the paths.
pub const PREFIXES: [&str; 1] = [""];

/// The longest body of a route that takes one, in bytes. Other routes read none, as KES does.
const BODY_LIMIT: usize = 1_000_000;

/// Paths that may be called without a certificate and without permission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenPaths(BTreeSet<&'static str>);

/// An entry of the list is not a path that can be open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of /v1/ready, /v1/status, /v1/metrics, /v1/api")]
pub struct CannotBeOpen(String);

impl OpenPaths {
    const ALL: [&'static str; 4] = ["/v1/ready", "/v1/status", "/v1/metrics", "/v1/api"];

    /// Parses a list of paths, separated by commas.
    ///
    /// # Errors
    /// [`CannotBeOpen`] with the entry.
    pub fn parse(list: &str) -> Result<Self, CannotBeOpen> {
        list.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                Self::ALL
                    .into_iter()
                    .find(|path| *path == entry)
                    .ok_or_else(|| CannotBeOpen(entry.to_owned()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A setting of this API is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The list of open paths.
    #[error("--kes-open (KEYWAY_KES_OPEN)")]
    Open(#[source] CannotBeOpen),
    /// The release of KES.
    #[error("--kes-generation (KEYWAY_KES_GENERATION)")]
    Generation(#[source] NoGeneration),
}

/// The dialect: how this API authenticates callers, and how it refuses requests.
pub struct Kes {
    identity_of: Box<dyn IdentityOf>,
    identities: Arc<Identities>,
    open: OpenPaths,
    generation: Generation,
}

impl Kes {
    /// The dialect's name in the audit log.
    const WORD: &'static str = "kes";

    /// The dialect with an operator's settings. Callers authenticate by certificate, their own or one that `proxy`
    /// vouches for. `open` lists the paths that need no permission; `generation` is the release of KES to answer as.
    ///
    /// # Errors
    /// [`Unusable`] naming the setting.
    pub fn configured(
        proxy: Option<TrustedProxy>,
        identities: Arc<Identities>,
        open: &str,
        generation: &str,
    ) -> Result<Self, Unusable> {
        let open = OpenPaths::parse(open).map_err(Unusable::Open)?;
        let generation = generation.parse().map_err(Unusable::Generation)?;
        Ok(Self::new(Proven::new(proxy), identities, open, generation))
    }

    /// The release of KES whose answers are given.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// `identity_of` finds the identity that a request proves. Error responses are those of `generation`.
    pub fn new(
        identity_of: impl IdentityOf,
        identities: Arc<Identities>,
        open: OpenPaths,
        generation: Generation,
    ) -> Self {
        Self {
            identity_of: Box::new(identity_of),
            identities,
            open,
            generation,
        }
    }
}

/// Mounts these routes. Other paths below `/v1` are refused here too.
///
/// # Errors
/// [`RouteError`] when two routes cannot be told apart.
pub fn mount(dialect: Kes, routes: Vec<Route<Kes>>) -> Result<Mount<Kes>, RouteError> {
    Ok(Mount::new(dialect, PREFIXES.to_vec(), routes)?.owning("/v1"))
}

/// The permission and the timeout of a route.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    permission: Permission,
    /// The path lacks the slash at its end that paths in policies have.
    lacks_slash: bool,
    /// The longest time that a call may take. `/v1/api` lists it.
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Permission {
    /// Nothing, not even an identity.
    None,
    /// An identity.
    Identity,
    /// Permission to call the path.
    Path,
    /// Permission to call the path, which performs this action.
    Call(Action),
}

impl Dialect for Kes {
    type Caller = Sender;
    type Action = Needs;
    type Error = ErrorResponse;

    fn name(&self) -> &'static str {
        Self::WORD
    }

    /// Never refuses, because some routes need no identity: `authorize` decides by route. The body is not needed, since the
    /// TLS handshake proves that the client holds the certificate's key.
    async fn authenticate(
        &self,
        request: &Request,
    ) -> Result<Proof<Sender, ErrorResponse>, ErrorResponse> {
        let identity = match self.identity_of.identity(request) {
            Ok(identity) => identity,
            // A connection without TLS cannot have a certificate.
            Err(Unidentified::Missing) if !request.peer.encrypted => {
                return Ok(Proof::Proven(Sender::Nobody(not_encrypted())));
            }
            Err(why) => return Ok(Proof::Proven(Sender::Nobody(unidentified(why)))),
        };
        Ok(Proof::Proven(
            match self.identities.caller(&identity).await {
                Ok(caller) => Sender::Known(identity, caller),
                Err(error) => Sender::Nobody(error.into()),
            },
        ))
    }

    fn is_known(sender: &Sender) -> bool {
        match sender {
            Sender::Known(_, caller) => caller.is_known(),
            Sender::Nobody(_) => false,
        }
    }

    fn authorize(&self, sender: Sender, needs: Needs, path: &str) -> Result<Sender, ErrorResponse> {
        let mut path = percent_decode(path).map_err(|_| malformed_path())?;
        if needs.lacks_slash {
            path.to_mut().push('/');
        }
        let is_open = || self.open.0.contains(&*path);
        let call = |caller: Caller| -> Result<Caller, ErrorResponse> {
            match needs.permission {
                Permission::None | Permission::Identity => Ok(caller),
                Permission::Path => {
                    caller.may_call(&path)?;
                    Ok(caller)
                }
                Permission::Call(action) => Ok(caller.for_call(action, &path)?),
            }
        };
        match (needs.permission, sender) {
            (Permission::None, sender) => Ok(sender),
            (Permission::Path, sender) if is_open() => Ok(sender),
            (_, Sender::Known(identity, caller)) => Ok(Sender::Known(identity, call(caller)?)),
            (_, Sender::Nobody(why)) => Err(why),
        }
    }

    fn operation(&self, route: &Route<Self>, _: &request::Parts) -> Operation {
        match route.action.permission {
            Permission::Call(action) => keyway_auth::operation(action),
            Permission::None | Permission::Identity | Permission::Path => Operation {
                name: route.path,
                class: Class::Read,
            },
        }
    }

    fn timeout(&self, route: &Route<Self>) -> Option<Duration> {
        route.action.timeout
    }

    fn trace(&self, sender: &Sender) -> Option<Box<dyn Trace>> {
        match sender {
            Sender::Known(_, caller) => keyway_auth::trace(caller),
            Sender::Nobody(_) => None,
        }
    }

    fn class(refusal: &ErrorResponse) -> &'static str {
        refusal.class()
    }

    fn refuse(
        &self,
        rejection: Rejection<ErrorResponse>,
        line: &RequestLine<'_>,
    ) -> Response<Bytes> {
        let refusal = rejection.by_dialect().unwrap_or_else(|rejection| {
            error_response::of_pipeline(&rejection, line, self.generation)
        });
        error_response::answer(refusal, line, self.generation)
    }
}
