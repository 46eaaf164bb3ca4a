//! A table with an interceptor before it, for health checks, metrics and fault injection.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Consistency, Kind, Page, Record, Revision, StoreError, TableReader, TableWriter};

/// A call of a table.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "each variant is the method of its name")]
pub enum TableCall<'c> {
    Get(Kind, &'c str),
    Count,
    Page,
    PutNew,
    Replace,
    Remove,
}

impl TableCall<'_> {
    /// The name of the method.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get(..) => "get",
            Self::Count => "count",
            Self::Page => "page",
            Self::PutNew => "put_new",
            Self::Replace => "replace",
            Self::Remove => "remove",
        }
    }

    /// Whether the call changes the table.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::PutNew | Self::Replace | Self::Remove)
    }
}

/// Runs the calls of a table, or makes them fail.
pub trait TableInterceptor: Send + Sync {
    /// Runs `run`, which is `call`. The caller gets what this returns.
    fn intercept<T: Send>(
        &self,
        call: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send;

    /// Receives each page that was read.
    fn read(&self, _page: &Page) {}
}

/// A table whose calls an interceptor runs.
pub struct InterceptedTable<T: ?Sized, I> {
    table: Arc<T>,
    interceptor: I,
}

impl<T: ?Sized, I> InterceptedTable<T, I> {
    /// `table`, with `interceptor` before it.
    pub const fn new(table: Arc<T>, interceptor: I) -> Self {
        Self { table, interceptor }
    }

    /// The interceptor before the table.
    pub const fn interceptor(&self) -> &I {
        &self.interceptor
    }
}

#[async_trait]
impl<T: TableReader + ?Sized, I: TableInterceptor> TableReader for InterceptedTable<T, I> {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        consistency: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        let run = self.table.get(kind, id, consistency);
        self.interceptor
            .intercept(TableCall::Get(kind, id), run)
            .await
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        let run = self.table.count(kind, prefix);
        self.interceptor.intercept(TableCall::Count, run).await
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let run = self.table.page(kind, prefix, after, limit);
        let page = self.interceptor.intercept(TableCall::Page, run).await?;
        self.interceptor.read(&page);
        Ok(page)
    }
}

#[async_trait]
impl<T: TableWriter + ?Sized, I: TableInterceptor> TableWriter for InterceptedTable<T, I> {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        let run = self.table.put_new(record);
        self.interceptor.intercept(TableCall::PutNew, run).await
    }

    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError> {
        let run = self.table.replace(record, seen);
        self.interceptor.intercept(TableCall::Replace, run).await
    }

    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError> {
        let run = self.table.remove(kind, id, seen);
        self.interceptor.intercept(TableCall::Remove, run).await
    }
}
