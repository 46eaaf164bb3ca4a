//! Values in a KV v2 engine, each under its own name: the sealed copies of keys' records, and the root keyring.
//!
//! Every write is a check-and-set. A write that fails and then finds its own value at the version that it would have made
//! has succeeded before.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use keyway_crypto::SecretBytes;
use keyway_domain::vault::VaultPath;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::http::{LONGEST_LIST, Limits, body};

const LONGEST_NAME: usize = 128;
const WHAT: &str = "a value in a KV version 2 engine";

/// The values below one prefix of one engine.
pub(crate) struct Kv<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) mount: &'a VaultPath,
    pub(crate) prefix: &'a VaultPath,
}

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
    data: Option<Record<Zeroizing<String>>>,
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

/// The result of looking for a value.
pub(crate) enum Found {
    /// The newest version's value and number.
    Value(SecretBytes, u64),
    /// An operator deleted the newest version, which has this number. Earlier versions and the metadata remain.
    Deleted(u64),
    Nothing,
}

/// What a write does where an operator deleted the newest version.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverDeleted {
    /// It counts as no value, so a first write follows it.
    Writes,
    /// The write has lost.
    Loses,
}

impl Kv<'_> {
    pub(crate) fn path(&self, part: &str, name: &str) -> Result<String, Failure> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty()
            || name.len() > LONGEST_NAME
            || matches!(name, "." | "..")
            || !name.bytes().all(plain)
        {
            return Err(Failure::Input(
                "the name is none that a value in the KV engine can have",
            ));
        }
        Ok(format!("{}/{name}", self.folder(part)))
    }

    pub(crate) fn folder(&self, part: &str) -> String {
        format!("{}/{part}/{}", self.mount.as_str(), self.prefix.as_str())
    }

    pub(crate) async fn find(&self, limits: Limits, name: &str) -> Result<Found, Failure> {
        let path = self.path("data", name)?;
        let answer = self.connection.ask(limits, Method::GET, &path, None);
        let answer = answer.await?;
        match answer.status {
            StatusCode::OK => {
                let found: Version = answer.json::<WithData<_>>(WHAT)?.data;
                let value = found.data.ok_or(Failure::Garbled(WHAT))?.record;
                let value = STANDARD.decode(value.as_bytes());
                let value = value.map_err(|_| Failure::Garbled(WHAT))?;
                Ok(Found::Value(value.into(), found.metadata.version))
            }
            // The answer has data if the value was deleted and can be restored, and none if it never existed.
            StatusCode::NOT_FOUND => Ok(answer
                .json::<WithData<Version>>(WHAT)
                .map_or(Found::Nothing, |deleted| {
                    Found::Deleted(deleted.data.metadata.version)
                })),
            _ => Err(answer.unforeseen(&path)),
        }
    }

    /// Writes the value as the version that follows `seen`. Returns the number of that version, or `None` if the value is
    /// not at the version `seen`.
    pub(crate) async fn write(
        &self,
        limits: Limits,
        name: &str,
        value: &[u8],
        seen: u64,
        over_deleted: OverDeleted,
    ) -> Result<Option<u64>, Failure> {
        let mut seen = seen;
        let mut may_follow_deleted = seen == 0 && over_deleted == OverDeleted::Writes;
        loop {
            let own = seen.checked_add(1);
            if self.put(limits, name, value, seen).await? {
                return Ok(own);
            }
            match self.find(limits, name).await? {
                // This operation may have written it, in an attempt whose answer was lost.
                Found::Value(found, version) => {
                    return Ok(own.filter(|own| version == *own && found.ct_eq(value)));
                }
                Found::Deleted(version) if may_follow_deleted => {
                    seen = version;
                    may_follow_deleted = false;
                }
                Found::Deleted(_) | Found::Nothing => return Ok(None),
            }
        }
    }

    async fn put(
        &self,
        limits: Limits,
        name: &str,
        value: &[u8],
        seen: u64,
    ) -> Result<bool, Failure> {
        let path = self.path("data", name)?;
        let record = Zeroizing::new(STANDARD.encode(value));
        let put = Put {
            options: Options { cas: seen },
            data: Record {
                record: record.as_str(),
            },
        };
        let body = Some(body(&put, 128 + record.len())?);
        let answer = self.connection.ask(limits, Method::POST, &path, body);
        let answer = answer.await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::BAD_REQUEST if answer.says(&["check-and-set"]) => Ok(false),
            // Only version 1 of the engine answers a write without content.
            StatusCode::NO_CONTENT => Err(Failure::WrongEngine {
                path: self.mount.as_str().to_owned(),
                wanted: "KV version 2",
            }),
            _ => Err(answer.unforeseen(&path)),
        }
    }

    /// Removes every version of the value.
    pub(crate) async fn remove(&self, limits: Limits, name: &str) -> Result<(), Failure> {
        let path = self.path("metadata", name)?;
        let answer = self.connection.ask(limits, Method::DELETE, &path, None);
        let answer = answer.await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(answer.unforeseen(&path)),
        }
    }

    /// The sorted names of all values.
    pub(crate) async fn names(&self, limits: Limits) -> Result<Vec<String>, Failure> {
        // Not every gateway passes on Vault's own method for this, LIST.
        let path = format!("{}?list=true", self.folder("metadata"));
        let answer = self
            .connection
            .ask_for(limits, Method::GET, &path, None, LONGEST_LIST)
            .await?;
        let mut names = match answer.status {
            StatusCode::OK => answer.json::<WithData<Names>>("a list of keys")?.data.keys,
            StatusCode::NOT_FOUND => Vec::new(),
            _ => return Err(answer.unforeseen(&path)),
        };
        // A name that ends in a slash is a folder, which Keyway does not make.
        names.retain(|name| !name.ends_with('/'));
        names.sort_unstable();
        Ok(names)
    }
}
