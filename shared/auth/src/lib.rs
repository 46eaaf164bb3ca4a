//! Authentication: finds the caller of a raw request, or the error response that refuses it.

mod authenticator;
pub mod certificate;
mod error_response;
mod signed;
pub mod sigv4;
mod trace;

pub use authenticator::{AuthError, Authenticator};
pub use error_response::{Coded, ErrorResponse, ErrorTable};
pub use signed::{Signed, SignedApi, SignedErrors};
pub use trace::{WHO_CALLS, operation, trace};
