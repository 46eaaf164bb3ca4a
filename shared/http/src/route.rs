use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};

use crate::pipeline::{Call, Dialect, Handler};
use crate::query::{QueryError, percent_decode};

/// What a handler returns.
pub type HandlerResult<D> = Result<Response<Bytes>, <D as Dialect>::Error>;

/// One endpoint as a value.
pub struct Route<D: Dialect> {
    /// The method.
    pub method: Method,
    /// The path below the mount's prefix; a segment `{name}` is a parameter.
    pub path: &'static str,
    /// The body limit in bytes. With 0 the body is not read: what the client sends is ignored.
    pub body_limit: usize,
    /// The action that the caller needs permission for before the body is read.
    pub action: D::Action,
    /// The handler.
    pub run: Handler<D>,
}

/// The body limit, in bytes, of a route without a body whose callers sign one: some clients send `{}` with every
/// request, and their signature covers it.
pub const NO_BODY: usize = 1024;

impl<D: Dialect> Route<D> {
    /// A route whose handler runs `run` on `operations`.
    pub fn over<O, F>(
        method: Method,
        path: &'static str,
        body_limit: usize,
        action: D::Action,
        operations: &Arc<O>,
        run: fn(Arc<O>, Call<D>) -> F,
    ) -> Self
    where
        O: Send + Sync + 'static,
        F: Future<Output = HandlerResult<D>> + Send + 'static,
    {
        RouteEntry::new(method, path, body_limit, action, run).on(operations)
    }
}

/// An entry of a dialect's route table: a route without the operations that it runs on. So the routes can be listed
/// without a deployment.
pub struct RouteEntry<D: Dialect, O> {
    method: Method,
    path: &'static str,
    body_limit: usize,
    action: D::Action,
    bind: Bind<D, O>,
}

type Bind<D, O> = Box<dyn FnOnce(Arc<O>) -> Handler<D>>;

impl<D: Dialect, O: Send + Sync + 'static> RouteEntry<D, O> {
    /// An entry whose handler runs `run` on the operations that [`RouteEntry::on`] gets.
    pub fn new<F>(
        method: Method,
        path: &'static str,
        body_limit: usize,
        action: D::Action,
        run: fn(Arc<O>, Call<D>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<Response<Bytes>, D::Error>> + Send + 'static,
    {
        Self::handled(method, path, body_limit, action, move |operations| {
            Box::new(move |call| Box::pin(run(Arc::clone(&operations), call)))
        })
    }

    /// An entry whose handler `bind` makes from the operations that [`RouteEntry::on`] gets.
    pub fn handled(
        method: Method,
        path: &'static str,
        body_limit: usize,
        action: D::Action,
        bind: impl FnOnce(Arc<O>) -> Handler<D> + 'static,
    ) -> Self {
        Self {
            method,
            path,
            body_limit,
            action,
            bind: Box::new(bind),
        }
    }

    /// Sets the body limit to [`NO_BODY`].
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.body_limit = NO_BODY;
        self
    }

    /// The entry's route on these operations.
    pub fn on(self, operations: &Arc<O>) -> Route<D> {
        Route {
            method: self.method,
            path: self.path,
            body_limit: self.body_limit,
            action: self.action,
            run: (self.bind)(Arc::clone(operations)),
        }
    }
}

/// The routes of these entries on the same operations.
pub fn routes_on<D: Dialect, O: Send + Sync + 'static>(
    entries: Vec<RouteEntry<D, O>>,
    operations: &Arc<O>,
) -> Vec<Route<D>> {
    entries
        .into_iter()
        .map(|entry| entry.on(operations))
        .collect()
}

/// The subject of a route. Each function of a deployment serves the routes of some groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Master keys.
    Keys,
    /// Data keys.
    DataKeys,
    /// Master keys and data keys, by one route whose requests name the operation in a header.
    AllKeys,
    /// The service itself: its configuration, state and metrics.
    Service,
    /// The audit log and the error log.
    Log,
    /// Policies and identities.
    Access,
    /// Buckets and their default encryption.
    Buckets,
    /// The caller's own account.
    Account,
    /// Temporary credentials.
    Sessions,
    /// Health probes.
    Health,
    /// The OpenAPI document.
    Document,
}

/// A route as an inventory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The subject.
    pub group: Group,
    /// The method.
    pub method: Method,
    /// The path below the mount's prefix.
    pub path: &'static str,
}

/// These entries as an inventory lists them.
pub fn listed<D: Dialect, O>(group: Group, entries: &[RouteEntry<D, O>]) -> Vec<Listed> {
    let line = |entry: &RouteEntry<D, O>| Listed {
        group,
        method: entry.method.clone(),
        path: entry.path,
    };
    entries.iter().map(line).collect()
}

/// The path's parameters, decoded once.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// The parameter of this name; empty when the route has none.
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }
}

/// Two routes of one mount match the same path.
#[derive(Debug, thiserror::Error)]
#[error("route {method} {path}: {source}")]
pub struct RouteError {
    method: Method,
    path: &'static str,
    source: matchit::InsertError,
}

/// What a mount's router found for a method and path.
pub(crate) enum Found {
    /// The route's index, and the path's parameters.
    Route(usize, Result<Params, QueryError>),
    /// Only routes with other methods have this path: the methods, joined for the `Allow` header.
    OtherMethods(String),
    Nothing,
}

/// Routes by method, so that one method can have a parameter where another has a literal segment.
pub(crate) struct Router<D: Dialect> {
    routes: Vec<Route<D>>,
    by_method: BTreeMap<String, matchit::Router<usize>>,
}

impl<D: Dialect> Router<D> {
    pub(crate) fn new(routes: Vec<Route<D>>) -> Result<Self, RouteError> {
        let mut by_method: BTreeMap<String, matchit::Router<usize>> = BTreeMap::new();
        for (index, route) in routes.iter().enumerate() {
            by_method
                .entry(route.method.to_string())
                .or_default()
                .insert(route.path, index)
                .map_err(|source| RouteError {
                    method: route.method.clone(),
                    path: route.path,
                    source,
                })?;
        }
        Ok(Self { routes, by_method })
    }

    /// The index of the route with this method and path, and the path's parameters.
    pub(crate) fn find(
        &self,
        method: &Method,
        path: &str,
    ) -> Option<(usize, Result<Params, QueryError>)> {
        let router = self.by_method.get(method.as_str())?;
        let hit = router.at(path).ok()?;
        let params = hit
            .params
            .iter()
            .map(|(name, raw)| Ok((name.to_owned(), percent_decode(raw)?.into_owned())));
        Some((*hit.value, params.collect::<Result<_, _>>().map(Params)))
    }

    /// The methods of the routes with this path, joined for the `Allow` header.
    pub(crate) fn methods(&self, path: &str) -> Option<String> {
        let methods: Vec<&str> = self
            .by_method
            .iter()
            .filter(|(_, router)| router.at(path).is_ok())
            .map(|(method, _)| method.as_str())
            .collect();
        (!methods.is_empty()).then(|| methods.join(", "))
    }

    pub(crate) fn routes(&self) -> &[Route<D>] {
        &self.routes
    }
}
