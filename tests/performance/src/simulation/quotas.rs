//! AWS's default quotas and fixed limits in us-east-1, as its documents gave them in November 2026.

/// Execution environments of an account at the same time; AWS raises it on request.
pub(super) const CONCURRENCY: f64 = 1000.0;
/// Requests a second that Lambda takes for each environment of the quota, however short they are.
pub(super) const REQUESTS_AN_ENVIRONMENT: f64 = 10.0;
/// New environments of a function in [`SCALING_SECONDS`], and as much again times [`REQUESTS_AN_ENVIRONMENT`] of requests a
/// second. The allowance is refilled continuously and does not add up.
pub(super) const SCALING: f64 = 1000.0;
pub(super) const SCALING_SECONDS: f64 = 10.0;
/// Requests a second of an account through API Gateway; AWS raises it on request.
pub(super) const GATEWAY: f64 = 10_000.0;
/// `GetSecretValue` a second of an account; fixed.
pub(super) const SECRETS: f64 = 10_000.0;
/// Units a second of a partition, which is at most what one partition key can have while its sort keys only grow.
pub(super) const PARTITION_READS: f64 = 3000.0;
pub(super) const PARTITION_WRITES: f64 = 1000.0;
/// Units a second of a table with on-demand capacity; AWS raises it on request.
pub(super) const TABLE_READS: f64 = 40_000.0;
pub(super) const TABLE_WRITES: f64 = 40_000.0;
/// A function gets a whole core with this memory, in MB, and a share of one with less.
pub(super) const MEMORY_OF_A_CORE: f64 = 1769.0;
