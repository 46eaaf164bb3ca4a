//! The one request pipeline: a request read whole and still raw, routes as values, and the order
//! in which every request is judged. Nothing here knows a path, a field or an error text of any dialect.

mod cors;
mod pipeline;
mod query;
mod request;
mod route;
mod tail;
mod witness;

pub use cors::{Cors, NotAnOrigin};
pub use pipeline::{Body, Call, Dialect, Handler, Mount, Place, Refused, Site};
pub use query::{Query, QueryError, percent_decode};
pub use request::{BasePath, ClientCertificate, IamCaller, Peer, Request};
pub use route::{Params, Route, RouteError};
pub use tail::Tail;
pub use witness::{
    Answered, Class, Context, Item, Operation, Stopwatch, Subject, Trace, TraceHeaders,
    Unwitnessed, Witness, class_of,
};
