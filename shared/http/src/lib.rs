//! The request pipeline of every dialect: the whole, raw request, routes as values, and the order of the checks that
//! every request passes. Nothing here knows a path, a field or an error text of a dialect.

mod bom;
mod cors;
mod current;
mod memory;
mod observer;
mod page;
mod pairs;
mod pipeline;
mod query;
mod rejection;
mod request;
mod route;
mod served;
mod site;
mod tail;
mod timeout;
mod uncached;

pub use bom::without_bom;
pub use cors::{Cors, NotAnOrigin};
pub use current::{CurrentRequest, RequestId};
pub use memory::{BodyMemory, Connection};
pub use observer::{
    Answered, Class, Context, Item, Observer, Operation, Outcome, Stopwatch, Subject, Trace,
    TraceHeaders, Unrecorded, class_of,
};
pub use page::{Page, PageError};
pub use pairs::Pairs;
pub use pipeline::{
    Body, BodyCheck, Call, Dialect, Handler, Mount, Proof, Rejection, RequestLine, Unreadable,
};
pub use query::{Query, QueryError, percent_decode};
pub use rejection::ONE_SECOND;
pub use request::{BasePath, ClientCertificate, IamCaller, Peer, Request};
pub use route::{
    Group, HandlerResult, Listed, NO_BODY, Params, Route, RouteEntry, RouteError, listed, routes_on,
};
pub use served::{MetricsSource, Served};
pub use site::Site;
pub use tail::{KEEP_ALIVE, Tail, Trailers, kept_alive};
pub use timeout::TimedOut;
pub use uncached::{NO_STORE, uncached};
