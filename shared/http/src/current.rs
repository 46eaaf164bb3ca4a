//! The request that the running task works on.

use std::fmt;
use std::ops::Deref;

use http::HeaderValue;

/// A request's id: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; Self::LENGTH]);

impl RequestId {
    const LENGTH: usize = 32;

    /// The id of a process's request with this number.
    pub(crate) fn new(instance: u64, number: u64) -> Self {
        let halves = [instance.to_be_bytes(), number.to_be_bytes()];
        let mut digits = [b'0'; Self::LENGTH];
        let bytes = halves.as_flattened().iter();
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [byte >> 4, byte & 0xf].map(digit);
        }
        Self(digits)
    }
}

const fn digit(value: u8) -> u8 {
    value + if value < 10 { b'0' } else { b'a' - 10 }
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        // The digits are ASCII.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self)
    }
}

/// What the log says of a request in the lines that are logged for it.
pub struct CurrentRequest {
    /// The request's id.
    pub id: RequestId,
    /// The name of the dialect that answers.
    pub dialect: &'static str,
    /// The operation's name.
    pub operation: &'static str,
    pub(crate) trace: Option<HeaderValue>,
}

tokio::task_local! {
    static CURRENT: CurrentRequest;
}

impl CurrentRequest {
    /// The header that names the request's trace, if there is one.
    pub fn trace(&self) -> Option<&str> {
        self.trace.as_ref()?.to_str().ok()
    }

    /// Calls `seen` with the request that the running task works on, if it works on one.
    pub fn seen<T>(seen: impl FnOnce(&Self) -> T) -> Option<T> {
        CURRENT.try_with(seen).ok()
    }

    /// Makes this the current request of a future.
    pub(crate) fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_has_the_digits_of_both_halves() {
        let id = RequestId::new(0x0123_4567_89ab_cdef, 26);
        assert_eq!(&*id, "0123456789abcdef000000000000001a");
        let id = RequestId::new(u64::MAX, 0);
        assert_eq!(&*id, "ffffffffffffffff0000000000000000");
    }

    #[tokio::test]
    async fn current_request_is_seen_within_its_future_alone() {
        let current = CurrentRequest {
            id: RequestId::new(1, 2),
            dialect: "kes",
            operation: "kms:Decrypt",
            trace: Some(HeaderValue::from_static("Root=1")),
        };
        let within = async {
            tokio::task::yield_now().await;
            CurrentRequest::seen(|request| request.trace().map(str::to_owned))
        };
        let within = current.scope(within).await;
        assert_eq!(within, Some(Some("Root=1".to_owned())));
        assert_eq!(CurrentRequest::seen(|_| ()), None);
    }
}
