//! Answers that go on.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::BoxStream;

/// In a response's extensions: what follows its body, for as long as there is something. A runtime that can send it takes it
/// from there; a dialect that does not know whether one can must not promise it.
#[derive(Clone)]
pub struct Tail(Arc<Mutex<Option<BoxStream<'static, Bytes>>>>);

impl Tail {
    /// What is to follow.
    pub fn new(stream: BoxStream<'static, Bytes>) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// What is to follow, for the first who asks.
    pub fn take(&self) -> Option<BoxStream<'static, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
