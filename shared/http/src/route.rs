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
    /// The longest body that is read, in bytes. With 0 none is read, and what a client sends all the same is ignored.
    pub body_limit: usize,
    /// What the caller must be permitted before the body is looked at.
    pub action: D::Action,
    /// What answers.
    pub run: Handler<D>,
}

/// The body limit, in bytes, of a route that takes no body but whose callers sign one: some clients send `{}` with
/// everything, and their signature covers it.
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

/// An entry of a dialect's table of routes: a route without the operations that it runs on. So the routes can be listed
/// where there is no deployment.
pub struct RouteEntry<D: Dialect, O> {
    method: Method,
    path: &'static str,
    body_limit: usize,
    action: D::Action,
    bind: Bind<D, O>,
}

type Bind<D, O> = Box<dyn FnOnce(Arc<O>) -> Handler<D>>;

impl<D: Dialect, O: Send + Sync + 'static> RouteEntry<D, O> {
    /// An entry whose handler runs `run` on the operations that [`RouteEntry::on`] gives.
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

    /// An entry whose handler `bind` makes of the operations that [`RouteEntry::on`] gives.
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

    /// The entry, which takes no body.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.body_limit = NO_BODY;
        self
    }

    /// The route, which runs on these operations.
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

/// The routes of these entries, on the same operations.
pub fn routes_on<D: Dialect, O: Send + Sync + 'static>(
    entries: Vec<RouteEntry<D, O>>,
    operations: &Arc<O>,
) -> Vec<Route<D>> {
    entries
        .into_iter()
        .map(|entry| entry.on(operations))
        .collect()
}

/// What a route is about. Each function of a deployment serves the routes of some groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Master keys.
    Keys,
    /// Data keys.
    DataKeys,
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
    /// What it is about.
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

/// The path's parameters, each decoded once.
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

/// Two routes of one mount cannot be told apart.
#[derive(Debug, thiserror::Error)]
#[error("route {method} {path}: {source}")]
pub struct RouteError {
    method: Method,
    path: &'static str,
    source: matchit::InsertError,
}

/// What the routes of a mount say to a method and path.
pub(crate) enum Found {
    /// The route of this number, and the path's parameters.
    Route(usize, Result<Params, QueryError>),
    /// Only other methods have this path: their names, joined as `Allow` wants them.
    OtherMethods(String),
    Nothing,
}

/// Routes by method, so that a parameter of one method and a word of another can share a place in the path.
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

    /// The number of the route that has this path by this method, and the path's parameters.
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
            .map(|(name, raw)| Ok((name.to_owned(), percent_decode(raw)?)));
        Some((*hit.value, params.collect::<Result<_, _>>().map(Params)))
    }

    /// The methods by which a route has this path, joined as `Allow` wants them.
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
