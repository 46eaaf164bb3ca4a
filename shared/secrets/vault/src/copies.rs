//! Sealed copies in the KV v2 engine.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use keyway_domain::vault::{CopyVersion, KeyCopy};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::failure::Failure;
use crate::http::{LONGEST_LIST, Limits, body};

const LONGEST_ID: usize = 128;

#[derive(Serialize)]
struct Put<'a> {
    options: Options,
    data: Record<&'a str>,
}

#[derive(Serialize)]
struct Options {
    cas: u64,
}

#[derive(Serialize, Deserialize)]
struct Record<T> {
    record: T,
}

#[derive(Deserialize)]
struct WithData<T> {
    data: T,
}

#[derive(Deserialize)]
struct Version {
    data: Option<Record<String>>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

#[derive(Deserialize)]
struct Names {
    keys: Vec<String>,
}

/// The result of looking for a copy.
enum Found {
    Copy(KeyCopy),
    /// An operator deleted the newest version, and the copy's earlier versions and metadata remain.
    Deleted(u64),
    Nothing,
}

impl Client {
    pub(crate) fn copy_path(&self, part: &str, id: &str) -> Result<String, Failure> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if id.is_empty()
            || id.len() > LONGEST_ID
            || matches!(id, "." | "..")
            || !id.bytes().all(plain)
        {
            return Err(Failure::Input(
                "the id of a key is none that a copy can have",
            ));
        }
        Ok(format!("{}/{id}", self.copies_path(part)))
    }

    pub(crate) fn copies_path(&self, part: &str) -> String {
        let (mount, prefix) = (&self.settings.kv_mount, &self.settings.key_path_prefix);
        format!("{}/{part}/{}", mount.as_str(), prefix.as_str())
    }

    pub(crate) async fn read_copy(
        &self,
        limits: Limits,
        id: &str,
    ) -> Result<Option<KeyCopy>, Failure> {
        match self.find_copy(limits, id).await? {
            Found::Copy(copy) => Ok(Some(copy)),
            Found::Deleted(_) | Found::Nothing => Ok(None),
        }
    }

    async fn find_copy(&self, limits: Limits, id: &str) -> Result<Found, Failure> {
        const WHAT: &str = "a copy in a KV version 2 engine";
        let path = self.copy_path("data", id)?;
        let answer = self.ask(limits, Method::GET, &path, None).await?;
        match answer.status {
            StatusCode::OK => {
                let found: Version = answer.json::<WithData<_>>(WHAT)?.data;
                let value = found.data.ok_or(Failure::Garbled(WHAT))?.record;
                let value = STANDARD.decode(value);
                Ok(Found::Copy(KeyCopy {
                    value: value.map_err(|_| Failure::Garbled(WHAT))?,
                    version: CopyVersion(found.metadata.version),
                }))
            }
            // The answer has data if the copy was deleted and can be restored, and none if it never existed.
            StatusCode::NOT_FOUND => Ok(answer
                .json::<WithData<Version>>(WHAT)
                .map_or(Found::Nothing, |deleted| {
                    Found::Deleted(deleted.data.metadata.version)
                })),
            _ => Err(answer.unforeseen(&path)),
        }
    }

    /// Writes the value as the version that follows `seen`. Returns `false` if the copy is not at the version `seen`.
    pub(crate) async fn write_copy(
        &self,
        limits: Limits,
        id: &str,
        value: &[u8],
        seen: CopyVersion,
    ) -> Result<bool, Failure> {
        let mut seen = seen.0;
        let mut may_follow_deleted = seen == 0;
        loop {
            if self.put(limits, id, value, seen).await? {
                return Ok(true);
            }
            match self.find_copy(limits, id).await? {
                // This operation may have written it, in an attempt whose answer was lost.
                Found::Copy(found) => {
                    return Ok(Some(found.version.0) == seen.checked_add(1) && found.value == value);
                }
                Found::Deleted(version) if may_follow_deleted => {
                    seen = version;
                    may_follow_deleted = false;
                }
                Found::Deleted(_) | Found::Nothing => return Ok(false),
            }
        }
    }

    async fn put(
        &self,
        limits: Limits,
        id: &str,
        value: &[u8],
        seen: u64,
    ) -> Result<bool, Failure> {
        let path = self.copy_path("data", id)?;
        let record = STANDARD.encode(value);
        let put = Put {
            options: Options { cas: seen },
            data: Record { record: &record },
        };
        let body = body(&put, 128 + record.len())?;
        let answer = self.ask(limits, Method::POST, &path, Some(body)).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::BAD_REQUEST if answer.says(&["check-and-set"]) => Ok(false),
            // Only version 1 of the engine answers a write without content.
            StatusCode::NO_CONTENT => Err(Failure::WrongEngine {
                path: self.settings.kv_mount.as_str().to_owned(),
                wanted: "KV version 2",
            }),
            _ => Err(answer.unforeseen(&path)),
        }
    }

    pub(crate) async fn delete_copy(&self, limits: Limits, id: &str) -> Result<(), Failure> {
        let path = self.copy_path("metadata", id)?;
        let answer = self.ask(limits, Method::DELETE, &path, None).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(answer.unforeseen(&path)),
        }
    }

    pub(crate) async fn list_copies(&self, limits: Limits) -> Result<Vec<String>, Failure> {
        // Not every gateway passes on Vault's own method for this, LIST.
        let path = format!("{}?list=true", self.copies_path("metadata"));
        let answer = self
            .ask_for(limits, Method::GET, &path, None, LONGEST_LIST)
            .await?;
        let mut ids = match answer.status {
            StatusCode::OK => answer.json::<WithData<Names>>("a list of keys")?.data.keys,
            StatusCode::NOT_FOUND => Vec::new(),
            _ => return Err(answer.unforeseen(&path)),
        };
        // A name that ends in a slash is a folder, which Keyway does not make.
        ids.retain(|id| !id.ends_with('/'));
        ids.sort_unstable();
        Ok(ids)
    }
}
