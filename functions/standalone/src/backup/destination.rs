//! Where a backup is written to.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use async_trait::async_trait;
use keyway_backup::{FileOutput, Output};
use keyway_deployment_aws::{ObjectStore, S3Upload};
use keyway_domain::ports::StoreError;

use crate::location::upload;
use crate::tell;

/// A file, or an object of a bucket.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    File(PathBuf),
    Object { bucket: String, key: String },
}

impl FromStr for Destination {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(object) = text.strip_prefix("s3://") else {
            return Ok(Self::File(PathBuf::from(text)));
        };
        match object.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => Ok(Self::Object {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
            }),
            _ => Err("is not s3://BUCKET/KEY"),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Object { bucket, key } => write!(f, "s3://{bucket}/{key}"),
        }
    }
}

impl Destination {
    /// Begins to write. `drawn` are random bytes for a temporary name.
    pub(crate) async fn open(
        &self,
        store: &ObjectStore,
        drawn: [u8; 8],
    ) -> anyhow::Result<Box<dyn Output>> {
        match self {
            Self::File(path) => {
                let output = FileOutput::create(path, drawn);
                Ok(Box::new(output.with_context(|| self.to_string())?))
            }
            Self::Object { bucket, key } => Ok(Box::new(Object(upload(store, bucket, key).await?))),
        }
    }
}

struct Object(S3Upload);

fn failed(error: &StoreError) -> io::Error {
    io::Error::other(keyway_domain::one_line(error))
}

#[async_trait]
impl Output for Object {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes).await.map_err(|error| failed(&error))
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.finish().await.map_err(|error| failed(&error))
    }

    async fn abandon(&mut self) {
        if let Err(error) = self.0.abandon().await {
            let error = keyway_domain::one_line(&error);
            tell(&format!(
                "warning: parts of the object may be left: {error}"
            ));
        }
    }
}
