//! Ports that count the calls of the ports behind them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyway_domain::keyring::{Binding, KeyWrapper, WrapError};
use keyway_domain::ports::{
    Clock, InterceptedTable, SecretStore, SecretVersion, StoreError, TableCall, TableInterceptor,
};
use keyway_domain::vault::{
    CopyError, CopyVersion, KeyCopy, TransitKey, TransitVersions, Vault, VaultRetryPolicy,
    VaultSettings, Vaults,
};
use keyway_domain::{Fault, SecretBytes};
use prometheus::IntCounterVec;

use crate::Metrics;

fn outcome<T>(result: &Result<T, StoreError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(StoreError::Conflict) => "conflict",
        Err(StoreError::Throttled | StoreError::Busy(_)) => "throttled",
        Err(StoreError::Refused { .. }) => "refused",
        Err(StoreError::Failed { .. } | StoreError::Unavailable(_) | StoreError::Away(_)) => {
            "failed"
        }
    }
}

/// A table whose calls are counted and timed.
pub type CountedTable<T> = InterceptedTable<T, TableCalls>;

/// Counts and times the calls of a table.
pub struct TableCalls {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl TableCalls {
    /// Reports to these metrics, and takes times from this clock.
    pub fn new(metrics: &Arc<Metrics>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            clock: Arc::clone(clock),
        }
    }
}

impl TableInterceptor for TableCalls {
    async fn intercept<T: Send>(
        &self,
        call: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let begun = self.clock.monotonic();
        let result = run.await;
        let took: Duration = self.clock.monotonic().saturating_sub(begun);
        let metrics = &self.metrics;
        let operation = call.name();
        let labels = [operation, outcome(&result)];
        metrics
            .backends
            .table_calls
            .with_label_values(&labels)
            .inc();
        let seconds = metrics
            .backends
            .table_seconds
            .with_label_values(&[operation]);
        seconds.observe(took.as_secs_f64());
        result
    }
}

/// A store of secrets whose calls are counted.
pub struct CountedSecrets {
    metrics: Arc<Metrics>,
    inner: Arc<dyn SecretStore>,
}

impl CountedSecrets {
    /// Counts the calls of `inner`.
    pub fn new(inner: Arc<dyn SecretStore>, metrics: &Arc<Metrics>) -> Self {
        let metrics = Arc::clone(metrics);
        Self { metrics, inner }
    }

    fn count<T>(&self, operation: &str, result: &Result<T, StoreError>) {
        let labels = [operation, outcome(result)];
        self.metrics
            .backends
            .secret_calls
            .with_label_values(&labels)
            .inc();
    }
}

#[async_trait]
impl SecretStore for CountedSecrets {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        let result = self.inner.get(name).await;
        self.count("get", &result);
        result
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        let result = self.inner.put(name, value, seen).await;
        self.count("put", &result);
        result
    }
}

fn count<T>(counters: &IntCounterVec, wrapper: &str, result: &Result<T, WrapError>) {
    let result = match result {
        Ok(_) => "ok",
        Err(WrapError::Unavailable(_)) => "unavailable",
        Err(WrapError::NotAuthentic | WrapError::UnknownRoot) => "refused",
        Err(_) => "failed",
    };
    counters.with_label_values(&[wrapper, result]).inc();
}

/// A key wrapper whose calls are counted.
pub struct CountedWrapper<W: ?Sized> {
    metrics: Arc<Metrics>,
    inner: Arc<W>,
}

impl<W: ?Sized> CountedWrapper<W> {
    /// Counts the calls of `inner`.
    pub fn new(inner: Arc<W>, metrics: &Arc<Metrics>) -> Self {
        let metrics = Arc::clone(metrics);
        Self { metrics, inner }
    }
}

#[async_trait]
impl<W: KeyWrapper + ?Sized> KeyWrapper for CountedWrapper<W> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn wrap(&self, binding: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError> {
        let result = self.inner.wrap(binding, material).await;
        count(&self.metrics.backends.wraps, self.name(), &result);
        result
    }

    async fn unwrap(
        &self,
        binding: &Binding<'_>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, WrapError> {
        let result = self.inner.unwrap(binding, wrapped).await;
        count(&self.metrics.backends.unwraps, self.name(), &result);
        result
    }
}

#[async_trait]
impl Vault for CountedWrapper<dyn Vault> {
    async fn check(&self, key: TransitKey) -> Result<(), WrapError> {
        self.inner.check(key).await
    }

    async fn renew(&self) -> Result<(), WrapError> {
        self.inner.renew().await
    }

    async fn copy(&self, id: &str) -> Result<Option<KeyCopy>, WrapError> {
        self.inner.copy(id).await
    }

    async fn put_copy(&self, id: &str, value: &[u8], seen: CopyVersion) -> Result<(), CopyError> {
        self.inner.put_copy(id, value, seen).await
    }

    async fn remove_copy(&self, id: &str) -> Result<(), WrapError> {
        self.inner.remove_copy(id).await
    }

    async fn copies(&self) -> Result<Vec<String>, WrapError> {
        self.inner.copies().await
    }

    async fn transit_versions(&self) -> Result<TransitVersions, WrapError> {
        self.inner.transit_versions().await
    }

    async fn rotate_transit(&self) -> Result<(), WrapError> {
        self.inner.rotate_transit().await
    }

    async fn rewrap(&self, binding: &Binding<'_>, wrapped: &[u8]) -> Result<Vec<u8>, WrapError> {
        self.inner.rewrap(binding, wrapped).await
    }

    fn version_of(&self, wrapped: &[u8]) -> Option<u64> {
        self.inner.version_of(wrapped)
    }

    async fn refuse_below(&self, version: u64) -> Result<(), WrapError> {
        self.inner.refuse_below(version).await
    }
}

/// Vaults whose wrapping and unwrapping calls are counted.
pub struct CountedVaults {
    metrics: Arc<Metrics>,
    inner: Arc<dyn Vaults>,
}

impl CountedVaults {
    /// Counts the calls of `inner`.
    pub fn new(inner: Arc<dyn Vaults>, metrics: &Arc<Metrics>) -> Self {
        let metrics = Arc::clone(metrics);
        Self { metrics, inner }
    }
}

#[async_trait]
impl Vaults for CountedVaults {
    async fn token_file(&self, path: &str) -> Result<(), String> {
        self.inner.token_file(path).await
    }

    fn open(
        &self,
        settings: &VaultSettings,
        credential: Option<&SecretBytes>,
        timeout: VaultRetryPolicy,
    ) -> Result<Arc<dyn Vault>, Fault> {
        let vault = self.inner.open(settings, credential, timeout)?;
        Ok(Arc::new(CountedWrapper::new(vault, &self.metrics)))
    }
}
