//! Raw request in, caller or refusal out.

mod authenticator;
pub mod certificate;
pub mod sigv4;
mod trace;

pub use authenticator::{AuthError, Authenticator};
pub use trace::{WHO_CALLS, operation, trace};
