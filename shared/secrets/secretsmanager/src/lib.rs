//! The SecretStore port on AWS Secrets Manager.
//!
//! **Stages:** the version at `AWSCURRENT` is the secret. A write that replaces it has four steps: it makes a version at
//! `AWSPENDING`, reads that version back and compares it, moves `AWSCURRENT` to it, which moves `AWSPREVIOUS` to the one
//! before, and takes `AWSPENDING` away. So readers never get a value that was not read back. An operator may move
//! `AWSCURRENT` back to an earlier version; the next write follows that version.
//!
//! **Compare and swap:** Secrets Manager moves `AWSCURRENT` only away from the version that the request names. It also
//! refuses a version whose id belongs to another content, and the id of a new version is derived from the version that its
//! writer saw. If several writers saw the same version, the first gets the id. The others complete that write, in case
//! its writer has crashed, and are refused. A write that is sent twice, because its answer was lost, is one write.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Builder;
use aws_sdk_secretsmanager::operation::create_secret::CreateSecretError;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use aws_sdk_secretsmanager::operation::put_secret_value::PutSecretValueError;
use aws_sdk_secretsmanager::operation::update_secret_version_stage::UpdateSecretVersionStageError;
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType};
use aws_types::SdkConfig;
use keyway_aws::Service;
use keyway_crypto::{SecretBytes, sha256};
use keyway_domain::ports::{SecretStore, SecretVersion, StoreError};

/// One write can skip this many versions that an operator took back.
const STEPS: u32 = 16;

/// The stage of the version that is the secret.
const CURRENT: &str = "AWSCURRENT";
/// The stage of a version that a write has made and not yet moved to [`CURRENT`].
const PENDING: &str = "AWSPENDING";

/// Secrets in AWS Secrets Manager.
pub struct SecretsManager {
    client: Client,
    service: Service,
    ids: BTreeMap<String, String>,
}

impl SecretsManager {
    /// A store that uses `config`. [`SecretsManager::with`] says where its secrets are.
    pub fn new(config: &SdkConfig) -> Self {
        let service = Service::new("Secrets Manager", config);
        let config = Builder::from(config)
            .retry_partition(keyway_aws::retry_partition("secretsmanager"))
            .interceptor(keyway_aws::CountRetries)
            .build();
        Self {
            client: Client::from_conf(config),
            service,
            ids: BTreeMap::new(),
        }
    }

    /// Keeps the secret `name` in the Secrets Manager secret with this name or ARN.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, id: impl Into<String>) -> Self {
        self.ids.insert(name.into(), id.into());
        self
    }

    /// The sorted names of the account's secrets in this region that begin with `prefix`, without those that are
    /// scheduled for deletion. [`SecretStore::get`] finds them by these names.
    ///
    /// # Errors
    /// [`StoreError::Throttled`] or [`StoreError::Failed`].
    pub async fn names(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let filter = (!prefix.is_empty()).then(|| {
            Filter::builder()
                .key(FilterNameStringType::Name)
                .values(prefix)
                .build()
        });
        let mut names = Vec::new();
        let mut next = None;
        loop {
            let page = self
                .client
                .list_secrets()
                .max_results(100)
                .set_filters(filter.clone().map(|filter| vec![filter]))
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| self.service.failed("list secrets", &error))?;
            let found = page.secret_list.unwrap_or_default();
            names.extend(found.into_iter().filter_map(|secret| secret.name));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
        // Services that implement this API filter by prefix in different ways.
        names.retain(|name| name.starts_with(prefix));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn id(&self, name: &str) -> String {
        // Without another place, a secret has the same name in Secrets Manager.
        self.ids
            .get(name)
            .cloned()
            .unwrap_or_else(|| name.to_owned())
    }

    async fn current(&self, id: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        let found = self.read(id, Which::Current).await?;
        Ok(found.map(|found| (found.value, found.version)))
    }

    async fn read(&self, id: &str, which: Which<'_>) -> Result<Option<Found>, StoreError> {
        let request = self.client.get_secret_value().secret_id(id);
        let request = match which {
            Which::Current => request.version_stage(CURRENT),
            Which::Version(version) => request.version_id(version),
        };
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) => match error.as_service_error() {
                // The secret is absent, or has no version yet.
                Some(GetSecretValueError::ResourceNotFoundException(_)) => return Ok(None),
                _ => return Err(self.service.failed("read a secret", &error)),
            },
        };
        let value = match (output.secret_binary, output.secret_string) {
            (Some(bytes), _) => SecretBytes::from(bytes.into_inner()),
            (None, Some(text)) => SecretBytes::from(text.into_bytes()),
            (None, None) => return Err(garbled("it has neither bytes nor text")),
        };
        let version = output
            .version_id
            .ok_or_else(|| garbled("it has no version id"))?;
        let is_pending = output
            .version_stages
            .is_some_and(|stages| stages.iter().any(|stage| stage == PENDING));
        Ok(Some(Found {
            value,
            version: SecretVersion(version),
            is_pending,
        }))
    }

    async fn create(&self, id: &str, token: &str, value: &SecretBytes) -> Result<Put, StoreError> {
        let created = self
            .client
            .create_secret()
            .name(id)
            .client_request_token(token)
            .secret_binary(Blob::new(value.expose()))
            .send()
            .await;
        match created {
            Ok(_) => Ok(Put::Done),
            Err(error) => match error.as_service_error() {
                Some(CreateSecretError::ResourceExistsException(_)) => Ok(Put::Taken),
                _ => Err(self.service.failed("create a secret", &error)),
            },
        }
    }

    async fn add_version(
        &self,
        id: &str,
        token: &str,
        value: &SecretBytes,
        stage: &str,
    ) -> Result<Put, StoreError> {
        let put = self
            .client
            .put_secret_value()
            .secret_id(id)
            .client_request_token(token)
            .secret_binary(Blob::new(value.expose()))
            .version_stages(stage)
            .send()
            .await;
        match put {
            Ok(_) => Ok(Put::Done),
            Err(error) => match error.as_service_error() {
                Some(PutSecretValueError::ResourceExistsException(_)) => Ok(Put::Taken),
                Some(PutSecretValueError::ResourceNotFoundException(_)) => Ok(Put::NoSecret),
                _ => Err(self.service.failed("write a secret", &error)),
            },
        }
    }
}

enum Put {
    Done,
    /// The version id belongs to another content.
    Taken,
    NoSecret,
}

/// Which version of a secret.
#[derive(Clone, Copy)]
enum Which<'a> {
    Current,
    Version(&'a str),
}

/// A version of a secret that was read.
struct Found {
    value: SecretBytes,
    version: SecretVersion,
    is_pending: bool,
}

impl SecretsManager {
    /// Makes the first version of a secret.
    async fn put_first(
        &self,
        id: &str,
        token: &str,
        value: &SecretBytes,
    ) -> Result<Put, StoreError> {
        match self.add_version(id, token, value, CURRENT).await? {
            Put::NoSecret => self.create(id, token, value).await,
            put => Ok(put),
        }
    }

    /// Makes the version that follows `seen`, and moves [`CURRENT`] to it.
    async fn put_next(
        &self,
        id: &str,
        token: &str,
        value: &SecretBytes,
        seen: &SecretVersion,
    ) -> Result<Put, StoreError> {
        let put = self.add_version(id, token, value, PENDING).await?;
        if let Put::NoSecret = put {
            return Ok(put);
        }
        let found = self.read(id, Which::Version(token)).await?;
        let found = found.ok_or_else(|| garbled("the version that was just written is absent"))?;
        match put {
            // Stand-ins for Secrets Manager let another writer replace a pending version; it has won then.
            Put::Done if !found.value.ct_eq(value.expose()) => Err(StoreError::Conflict),
            // An operator has taken that version back.
            Put::Taken if !found.is_pending => Ok(Put::Taken),
            put => {
                self.make_current(id, token, seen).await?;
                Ok(put)
            }
        }
    }

    /// Moves [`CURRENT`] from the version that was seen to another one. Does nothing if it is no longer there.
    async fn make_current(
        &self,
        id: &str,
        token: &str,
        seen: &SecretVersion,
    ) -> Result<(), StoreError> {
        let moved = self
            .client
            .update_secret_version_stage()
            .secret_id(id)
            .version_stage(CURRENT)
            .move_to_version_id(token)
            .remove_from_version_id(&seen.0)
            .send()
            .await;
        match moved {
            Ok(_) => {}
            Err(error) => match error.as_service_error() {
                Some(
                    UpdateSecretVersionStageError::InvalidParameterException(_)
                    | UpdateSecretVersionStageError::InvalidRequestException(_),
                ) => return Ok(()),
                _ => {
                    return Err(self
                        .service
                        .failed("move a secret's current version", &error));
                }
            },
        }
        // The secret is written. Where this fails, the next write moves that stage anyway.
        let tidied = self
            .client
            .update_secret_version_stage()
            .secret_id(id)
            .version_stage(PENDING)
            .remove_from_version_id(token)
            .send()
            .await;
        drop(tidied);
        Ok(())
    }
}

#[async_trait]
impl SecretStore for SecretsManager {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        self.current(&self.id(name)).await
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        let id = self.id(name);
        let mut tried = None;
        for step in 0..STEPS {
            let (current, version) = self.current(&id).await?.unzip();
            if version.as_ref() != seen {
                // The version may be from this same write, sent again after its answer was lost.
                let is_own = version == tried
                    && current.is_some_and(|current| current.ct_eq(value.expose()));
                return version.filter(|_| is_own).ok_or(StoreError::Conflict);
            }
            let token = version_id(name, seen, step);
            let put = match seen {
                None => self.put_first(&id, &token, value).await?,
                Some(seen) => self.put_next(&id, &token, value, seen).await?,
            };
            match (put, seen) {
                (Put::Done, None) => return Ok(SecretVersion(token)),
                (Put::NoSecret, _) => return Err(StoreError::Conflict),
                // The current version tells next time whether this write or another one has won, or whether an operator
                // has taken that version back; then the next step's id is free.
                (Put::Done, Some(_)) | (Put::Taken, _) => tried = Some(SecretVersion(token)),
            }
        }
        Err(StoreError::Failed {
            what: "write a secret",
            source: "too many of its versions were taken back".into(),
        })
    }
}

/// The id of the version that follows `seen`: 64 hexadecimal digits, the most that Secrets Manager accepts.
fn version_id(name: &str, seen: Option<&SecretVersion>, step: u32) -> String {
    let seen = seen.map_or("", |version| version.0.as_str());
    let input = format!("keyway secret version\0{name}\0{seen}\0{step}");
    let digest = sha256(&[input.as_bytes()]);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn garbled(why: &'static str) -> StoreError {
    StoreError::Failed {
        what: "read a secret",
        source: why.into(),
    }
}

impl fmt::Debug for SecretsManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsManager")
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_ids_follow_from_what_was_seen() {
        let version = |text: &str| SecretVersion(text.to_owned());
        let ids = [
            version_id("a", None, 0),
            version_id("a", None, 1),
            version_id("b", None, 0),
            version_id("a", Some(&version("1")), 0),
            version_id("a", Some(&version("2")), 0),
        ];
        for (n, id) in ids.iter().enumerate() {
            assert!(
                id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{id}"
            );
            assert!(!ids[..n].contains(id));
        }
        assert_eq!(version_id("a", Some(&version("1")), 0), ids[3]);
    }
}
