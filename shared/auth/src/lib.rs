//! Raw request in, caller or refusal out.

mod authenticator;
pub mod certificate;
pub mod sigv4;

pub use authenticator::{AuthError, Authenticator};
