//! Moves ciphertexts of AWS KMS to a master key of Keyway. AWS never gives out the material of its keys, so each
//! ciphertext is decrypted there and encrypted here.
//!
//! A plaintext lives only in this process's memory, between the two operations. The result is one line of JSON for each
//! ciphertext, in the order of the input.

mod aws;
mod line;
mod output;

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use futures_util::{Stream, StreamExt, pin_mut, stream};
use keyway_crypto::{EncryptionContext, SecretBytes};
use keyway_domain::KmsError;
use keyway_domain::access::{Caller, Grant};
use keyway_domain::datakey::{DataKeyRequest, DataKeys};
use keyway_domain::keys::KeyId;
use tokio::sync::mpsc;

pub use aws::AwsKms;
pub use line::{Ciphertext, MAX_LINE_BYTES};
pub use output::{Output, OutputError};

use aws::SourceError;
use line::Reencrypted;

/// The longest plaintext that AWS KMS encrypts, in bytes.
const MAX_PLAINTEXT_BYTES: usize = 4096;

/// A job that moves ciphertexts from AWS KMS to one master key.
pub struct Reencryption {
    source: AwsKms,
    data_keys: DataKeys,
    owner: Arc<Grant>,
    key: KeyId,
    concurrency: usize,
}

/// The counts of a job. Every line of the input that is not blank counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Ciphertexts that were written to the output.
    pub reencrypted: u64,
    /// Ciphertexts that the output had already.
    pub already_there: u64,
    /// Lines that could not be moved.
    pub failed: u64,
}

/// What the caller is told while a job runs.
#[derive(Debug)]
pub enum Event {
    /// A line was moved, or found in the output.
    Done,
    /// A line could not be moved. The job goes on.
    Failed {
        /// The line's number in the input, from 1.
        line: u64,
        /// Why. Repeats nothing of the line.
        reason: String,
    },
}

/// Why a job stopped early. The lines that were written stay.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The input cannot be read.
    #[error("the input cannot be read")]
    Input(#[source] io::Error),
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Output(#[source] OutputError),
    /// AWS KMS decrypts nothing at present.
    #[error("{0}")]
    Source(String),
    /// The key encrypts nothing at present.
    #[error("{0}")]
    Key(String),
}

/// The result for one line.
enum Moved {
    Written(Reencrypted),
    AlreadyThere,
    Failed(String),
}

impl Reencryption {
    /// A job that decrypts at `source` and encrypts under `key`, with `concurrency` ciphertexts at once.
    pub fn new(source: AwsKms, data_keys: DataKeys, key: KeyId, concurrency: usize) -> Self {
        Self {
            source,
            data_keys,
            owner: Arc::new(Grant::Owner),
            key,
            concurrency: concurrency.max(1),
        }
    }

    /// Moves each line of `input` whose ciphertext the output does not have yet.
    ///
    /// # Errors
    /// [`Stopped`] when no other line could be moved either.
    pub async fn run(
        &self,
        input: impl BufRead + Send + 'static,
        output: &mut Output,
        mut on_event: impl FnMut(Event),
    ) -> Result<Report, Stopped> {
        // Without this, a fault of the key would show only after a plaintext was fetched from AWS.
        self.try_key().await?;
        let mut report = Report::default();
        let already = output.already();
        let moving = lines(input, self.concurrency)
            .map(|(number, line)| {
                let already = Arc::clone(&already);
                async move {
                    let moved = match line? {
                        Ok(ciphertext) if already.has(&ciphertext) => Moved::AlreadyThere,
                        Ok(ciphertext) => self.reencrypt(ciphertext).await?,
                        Err(reason) => Moved::Failed(reason),
                    };
                    Ok::<_, Stopped>((number, moved))
                }
            })
            .buffered(self.concurrency);
        pin_mut!(moving);
        while let Some(moved) = moving.next().await {
            let (line, moved) = moved?;
            match moved {
                Moved::AlreadyThere => report.already_there += 1,
                Moved::Written(reencrypted) => {
                    output.write(&reencrypted).map_err(Stopped::Output)?;
                    report.reencrypted += 1;
                }
                Moved::Failed(reason) => {
                    report.failed += 1;
                    on_event(Event::Failed { line, reason });
                    continue;
                }
            }
            on_event(Event::Done);
        }
        output.finish().map_err(Stopped::Output)?;
        Ok(report)
    }

    fn caller(&self) -> Caller {
        Caller::new("operator", Arc::clone(&self.owner))
    }

    async fn try_key(&self) -> Result<(), Stopped> {
        let none = EncryptionContext::none();
        self.seal(&none, &SecretBytes::from(vec![0; 32]))
            .await
            .map(|_| ())
            .map_err(|error| Stopped::Key(error.for_operator()))
    }

    async fn seal(
        &self,
        context: &EncryptionContext,
        plaintext: &SecretBytes,
    ) -> Result<Vec<u8>, KmsError> {
        let request = DataKeyRequest::new(self.key.clone(), context);
        let sealed = self
            .data_keys
            .encrypt(&self.caller(), &request, plaintext, MAX_PLAINTEXT_BYTES)
            .await?;
        Ok(sealed.blob)
    }

    async fn reencrypt(&self, ciphertext: Ciphertext) -> Result<Moved, Stopped> {
        let plaintext = match self.source.decrypt(&ciphertext).await {
            Ok(plaintext) => plaintext,
            Err(SourceError::OfCiphertext(reason)) => return Ok(Moved::Failed(reason)),
            Err(SourceError::OfSource(reason)) => return Err(Stopped::Source(reason)),
        };
        let context = ciphertext.context();
        let stopped = |error: KmsError| Stopped::Key(error.for_operator());
        let sealed = match self.seal(context, &plaintext).await {
            Ok(sealed) => sealed,
            Err(error @ KmsError::Invalid { .. }) => {
                return Ok(Moved::Failed(error.for_operator()));
            }
            Err(error) => return Err(stopped(error)),
        };
        // The operator may delete the source after this. So each new ciphertext is opened once before it counts.
        let request = DataKeyRequest::new(self.key.clone(), context);
        let opened = self
            .data_keys
            .decrypt(&self.caller(), &request, &sealed)
            .await
            .map_err(stopped)?;
        if !opened.plaintext.ct_eq(plaintext.expose()) {
            return Err(Stopped::Key(
                "the new ciphertext opens to another plaintext".to_owned(),
            ));
        }
        Ok(Moved::Written(Reencrypted::new(
            &ciphertext,
            &sealed,
            &self.key,
        )))
    }
}

/// The lines of the input with their numbers, without blank ones. A thread of its own reads them, because reading standard
/// input blocks; it reads only a few lines ahead.
fn lines(
    mut input: impl BufRead + Send + 'static,
    ahead: usize,
) -> impl Stream<Item = (u64, Result<Parsed, Stopped>)> {
    let (sender, receiver) = mpsc::channel(ahead);
    std::thread::spawn(move || {
        for number in 1.. {
            let line = match next_line(&mut input) {
                Ok(Some(None)) => continue,
                Ok(Some(Some(parsed))) => Ok(parsed),
                Ok(None) => return,
                Err(error) => Err(Stopped::Input(error)),
            };
            let ends = line.is_err();
            // An error means that the job has stopped.
            if sender.blocking_send((number, line)).is_err() || ends {
                return;
            }
        }
    });
    stream::unfold(receiver, async |mut receiver| {
        let line = receiver.recv().await?;
        Some((line, receiver))
    })
}

/// A line that was read: a ciphertext, or what is wrong with the line.
type Parsed = Result<Ciphertext, String>;

/// The next line; an inner `None` is a blank one. Of a line that is too long, the rest is skipped.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Option<Parsed>>> {
    let (mut line, limit) = (Vec::new(), MAX_LINE_BYTES as u64 + 1);
    if Read::take(&mut *input, limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
    } else if line.len() > MAX_LINE_BYTES {
        input.skip_until(b'\n')?;
        let reason = format!("the line is longer than {MAX_LINE_BYTES} bytes");
        return Ok(Some(Some(Err(reason))));
    }
    Ok(Some(match str::from_utf8(&line).map(str::trim) {
        Ok("") => None,
        Ok(text) => Some(Ciphertext::parse(text)),
        Err(_) => Some(Err("the line is not UTF-8".to_owned())),
    }))
}
