//! The Table port on DynamoDB: one table, with the kind as partition key and the id as sort key, so that a function's IAM
//! policy can be limited to the kinds that it uses (`dynamodb:LeadingKeys`). Kinds that grow without end have several
//! partitions, such as `audit#20260102T03`, because a single one would be a hot partition.
//!
//! **Exactly once:** an item holds the revision of its newest write and the revisions of the writes before. The SDK sends
//! a write again when its answer is lost. If the first attempt had succeeded, the second finds its own revision in the
//! item, even when other writers have replaced the record since, and succeeds. If more than [`item::PAST`] writes came
//! in between, the outcome is unknown, and [`StoreError::Failed`] says so.
//!
//! **Throttling:** the SDK retries with growing pauses; after that, the error is [`StoreError::Throttled`].

mod attempts;
mod item;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnValuesOnConditionCheckFailure, Select, TableDescription,
};
use aws_types::SdkConfig;
use keyway_aws::Service;
use keyway_domain::one_line;
use keyway_domain::ports::{
    Clock, Consistency, Kind, Page, Record, Revision, StoreError, TableReader, TableWriter,
};

use crate::attempts::Attempts;
use crate::item::{Found, Item, key};

/// The table in DynamoDB. Its keys are `kind` (string, partition) and `id` (string, sort).
pub struct DynamoTable {
    client: Client,
    name: String,
    service: Service,
    clock: Arc<dyn Clock>,
}

impl DynamoTable {
    /// The table of this name, in the account and region of `config`.
    pub fn new(config: &SdkConfig, name: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        let name = name.into();
        let service = Service::new(&format!("DynamoDB's table `{name}`"), config);
        let config = Builder::from(config)
            .retry_partition(keyway_aws::retry_partition("dynamodb"))
            .interceptor(keyway_aws::CountRetries)
            .build();
        Self {
            client: Client::from_conf(config),
            name,
            service,
            clock,
        }
    }

    /// Turns the table's protection from deletion on, if it is off.
    ///
    /// # Errors
    /// [`StoreError::Throttled`], [`StoreError::Away`] or [`StoreError::Failed`].
    pub async fn protect(&self) -> Result<(), StoreError> {
        let described = self
            .client
            .describe_table()
            .table_name(&self.name)
            .send()
            .await
            .map_err(|error| self.service.failed("describe the table", &error))?;
        let table = described.table.as_ref();
        if table.and_then(TableDescription::deletion_protection_enabled) == Some(true) {
            return Ok(());
        }
        self.client
            .update_table()
            .table_name(&self.name)
            .deletion_protection_enabled(true)
            .send()
            .await
            .map_err(|error| {
                self.service
                    .failed("protect the table from deletion", &error)
            })?;
        Ok(())
    }

    fn now(&self) -> AttributeValue {
        item::micros(self.clock.now())
    }

    /// The item, expired or not, read after the condition of a write failed.
    async fn current(&self, kind: Kind, id: &str) -> Result<Option<Found>, StoreError> {
        let read = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key(kind, id)))
            .consistent_read(true)
            .send()
            .await;
        match read {
            Ok(output) => output.item.map(|item| Found::parse(&item)).transpose(),
            Err(error) => Err(self.service.failed("read a record", &error)),
        }
    }

    /// The result of a write over `seen` whose condition failed. An earlier attempt of it may have succeeded.
    async fn after_conflict(
        &self,
        record: &Record,
        seen: Option<Revision>,
        reported: Option<Item>,
        attempts: &Attempts,
    ) -> Result<(), StoreError> {
        let own = record.revision;
        let found = match reported {
            Some(item) => Some(Found::parse(&item)?),
            None => self.current(record.kind, &record.id).await?,
        };
        let Some(found) = found else {
            return Err(StoreError::Conflict);
        };
        if found.revision == own && !found.expired(self.clock.now()) || found.past.contains(&own) {
            return Ok(());
        }
        let reaches_back = found.past.len() < item::PAST
            || seen.is_some_and(|seen| found.past.contains(&seen) || found.revision == seen);
        if attempts.all_answered() || reaches_back {
            Err(StoreError::Conflict)
        } else {
            Err(StoreError::Failed {
                what: "tell whether a write took place",
                source: "its answer was lost, and too many others have followed it".into(),
            })
        }
    }
}

impl DynamoTable {
    /// A query for the items of this kind whose ids begin with `prefix`.
    fn query(&self, kind: Kind, prefix: &str) -> QueryFluentBuilder {
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .expression_attribute_names("#kind", item::KIND)
            .expression_attribute_values(":kind", AttributeValue::S(item::partition(kind, prefix)));
        if prefix.is_empty() {
            return query.key_condition_expression("#kind = :kind");
        }
        query
            .key_condition_expression("#kind = :kind AND begins_with(#id, :prefix)")
            .expression_attribute_names("#id", item::ID)
            .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()))
    }
}

#[async_trait]
impl TableReader for DynamoTable {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        consistency: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.name)
            .set_key(Some(key(kind, id)))
            .consistent_read(consistency == Consistency::Strong)
            .send()
            .await
            .map_err(|error| self.service.failed("read a record", &error))?;
        let Some(item) = output.item else {
            return Ok(None);
        };
        let found = Found::parse(&item)?;
        if found.expired(self.clock.now()) {
            return Ok(None);
        }
        item::record(kind, item, &found).map(Some)
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        let (mut counted, mut start) = (0_u64, None);
        loop {
            let output = self
                .query(kind, prefix)
                .select(Select::Count)
                .filter_expression("attribute_not_exists(#expires) OR #expires > :now")
                .expression_attribute_names("#expires", item::EXPIRES_AT)
                .expression_attribute_values(":now", item::micros(self.clock.now()))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| self.service.failed("count records", &error))?;
            counted = counted.saturating_add(u64::from(output.count.unsigned_abs()));
            start = output.last_evaluated_key.filter(|key| !key.is_empty());
            if start.is_none() {
                return Ok(counted);
            }
        }
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        // DynamoDB refuses a start key outside of the range. Such an id is before the range, or past its end.
        let mut start = match after {
            Some(after) if after.starts_with(prefix) => Some(key(kind, after)),
            Some(after) if after > prefix => return Ok(Page::default()),
            _ => None,
        };
        let limit = limit.clamp(1, 1000);
        let mut records = Vec::new();
        loop {
            // Read one more than asked for, to learn whether more follow.
            let wanted = limit.saturating_add(1).saturating_sub(records.len());
            let output = self
                .query(kind, prefix)
                .consistent_read(true)
                .limit(i32::try_from(wanted).unwrap_or(i32::MAX))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| self.service.failed("read a page", &error))?;
            for item in output.items.unwrap_or_default() {
                let id = item.get(item::ID).and_then(|id| id.as_s().ok()).cloned();
                let read = Found::parse(&item).and_then(|found| {
                    let expired = found.expired(self.clock.now());
                    let record = item::record(kind, item, &found)?;
                    Ok((!expired).then_some(record))
                });
                match read {
                    Ok(record) => records.extend(record),
                    // A broken item must not hide all the others.
                    Err(error) => tracing::error!(
                        kind = kind.as_str(),
                        id,
                        error = one_line(&error),
                        "an item of the table is not one that keyway writes and is left out"
                    ),
                }
            }
            start = output.last_evaluated_key.filter(|key| !key.is_empty());
            if records.len() > limit || start.is_none() {
                break;
            }
        }
        let more = records.len() > limit;
        records.truncate(limit);
        Ok(Page {
            records,
            more,
            refused: Vec::new(),
        })
    }
}

#[async_trait]
impl TableWriter for DynamoTable {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        let attempts = Attempts::default();
        let sent = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(item::item(record)))
            // TTL removes expired items only after days. Until then, a new item may replace them.
            .condition_expression("attribute_not_exists(#id) OR #expires <= :now")
            .expression_attribute_names("#id", item::ID)
            .expression_attribute_names("#expires", item::EXPIRES_AT)
            .expression_attribute_values(":now", self.now())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .customize()
            .interceptor(attempts.clone())
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(conflict)) => {
                let reported = conflict.item().cloned();
                self.after_conflict(record, None, reported, &attempts).await
            }
            _ => Err(attempts.failed(&self.service, "make a record", &error)),
        }
    }

    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError> {
        let attempts = Attempts::default();
        let sent = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key(record.kind, &record.id)))
            .update_expression(item::replacement(record.expires_at.is_some()))
            .condition_expression(
                "#revision = :seen AND (attribute_not_exists(#expires) OR #expires > :now)",
            )
            .set_expression_attribute_names(Some(item::replacement_names()))
            .set_expression_attribute_values(Some(item::replacement_values(record)))
            .expression_attribute_values(":seen", item::revision(seen))
            .expression_attribute_values(":now", self.now())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .customize()
            .interceptor(attempts.clone())
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(conflict)) => {
                let reported = conflict.item().cloned();
                self.after_conflict(record, Some(seen), reported, &attempts)
                    .await
            }
            _ => Err(attempts.failed(&self.service, "replace a record", &error)),
        }
    }

    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError> {
        let attempts = Attempts::default();
        let sent = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(key(kind, id)))
            .condition_expression(
                "attribute_not_exists(#id) OR #revision = :seen OR #expires <= :now",
            )
            .set_expression_attribute_names(Some(HashMap::from(
                [
                    ("#id", item::ID),
                    ("#revision", item::REVISION),
                    ("#expires", item::EXPIRES_AT),
                ]
                .map(|(name, attribute)| (name.to_owned(), attribute.to_owned())),
            )))
            .expression_attribute_values(":seen", item::revision(seen))
            .expression_attribute_values(":now", self.now())
            .customize()
            .interceptor(attempts.clone())
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        match error.as_service_error() {
            // This is a conflict even if an earlier attempt succeeded and another writer has used the id since:
            // the record is now another one.
            Some(DeleteItemError::ConditionalCheckFailedException(_)) => Err(StoreError::Conflict),
            _ => Err(attempts.failed(&self.service, "remove a record", &error)),
        }
    }
}

impl fmt::Debug for DynamoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoTable")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
