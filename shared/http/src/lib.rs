//! The one request pipeline: a request read whole and still raw, routes as values, and the order
//! in which every request is judged. Nothing here knows a path, a field or an error text of any dialect.

mod bom;
mod cors;
mod memory;
mod page;
mod pipeline;
mod query;
mod request;
mod route;
mod served;
mod site;
mod tail;
mod witness;

pub use bom::without_bom;
pub use cors::{Cors, NotAnOrigin};
pub use memory::{BodyMemory, Connection};
pub use page::{NoPage, Page};
pub use pipeline::{
    Body, BodyCheck, Call, Dialect, Handler, Mount, Place, Proof, Refused, Unreadable,
};
pub use query::{Query, QueryError, percent_decode};
pub use request::{BasePath, ClientCertificate, IamCaller, Peer, Request};
pub use route::{NO_BODY, Params, Route, RouteError};
pub use served::{Figures, Served};
pub use site::Site;
pub use tail::{KEEP_ALIVE, Tail, Trailers, kept_alive};
pub use witness::{
    Answered, Class, Context, Item, Operation, Outcome, Stopwatch, Subject, Trace, TraceHeaders,
    Unwitnessed, Witness, class_of,
};
