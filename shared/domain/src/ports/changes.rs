//! Changes of the table by other processes, for stores that announce them.

use std::sync::Arc;

use async_trait::async_trait;

use super::Kind;

/// What another process may have changed in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    /// The record of this kind and id.
    Record(Kind, String),
    /// Any record: announcements may have been missed.
    Any,
}

/// Receives changes.
pub type Obey = Arc<dyn Fn(TableChange) + Send + Sync>;

/// Announces the changes of the table. What it misses is bounded by the state TTL.
#[async_trait]
pub trait ChangeFeed: Send + Sync {
    /// Reports every change to `obey`, and [`TableChange::Any`] after each interruption. Runs until it is dropped.
    async fn follow(&self, obey: Obey);
}
