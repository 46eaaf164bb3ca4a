//! `keyway encrypt-file` and `keyway decrypt-file`.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, anyhow};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keyway_client::{Class, DataKeySpec};
use keyway_deployment_assembly::SystemRandom;
use keyway_domain::keys::KeyId;
use keyway_domain::ports::Random;
use keyway_domain::{EncryptionContext, Key256, SecretBytes};
use keyway_files::{EncryptedFile, FileError, Header, NewFile, is_same_file};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::client::{Server, key_id, no_repeats, pair, usage};

/// For the help of both commands.
pub(crate) const AFTER_HELP: &str =
    "OUT has its name only when it is complete. Standard output gets each part when it is authenticated: a file that was
cut short shows only at its end, by exit code 1.
Exit codes: those of keyway encrypt, and 129, 130 or 143 after SIGHUP, SIGINT or SIGTERM";

#[derive(Args)]
pub(crate) struct EncryptFile {
    #[command(flatten)]
    server: Server,

    /// The key that encrypts the file's data key
    #[arg(long, value_name = "ID", value_parser = key_id)]
    key: KeyId,

    /// A name and a value of the encryption context, which the file holds in the clear; may be given more than once
    #[arg(long = "context", value_name = "NAME=VALUE", value_parser = pair)]
    pairs: Vec<(String, String)>,

    #[command(flatten)]
    paths: Paths,
}

#[derive(Args)]
pub(crate) struct DecryptFile {
    #[command(flatten)]
    server: Server,

    #[command(flatten)]
    paths: Paths,
}

#[derive(Args)]
struct Paths {
    /// The file to read; - is standard input
    #[arg(value_name = "IN")]
    input: PathBuf,

    /// The file to write, which others cannot read; - is standard output
    #[arg(value_name = "OUT")]
    output: PathBuf,

    /// Replace OUT if it exists
    #[arg(long)]
    force: bool,
}

pub(crate) async fn encrypt(arguments: EncryptFile) -> anyhow::Result<()> {
    let EncryptFile {
        server,
        key,
        pairs,
        paths,
    } = arguments;
    until_stopped(async {
        let opened = paths.open().await?;
        if opened.new.is_none() && opened.output.is_terminal() {
            return Err(usage(
                "standard output is a terminal, which cannot show an encrypted file",
            ));
        }
        let pairs = no_repeats(pairs)?;
        let context = EncryptionContext::from_pairs(pairs.clone())?;
        let made = server
            .connect()?
            .generate_data_key(Some(&key), DataKeySpec::Aes256, &pairs)
            .await?;
        let data_key = file_key(&made.plaintext)?;
        let mut salt = [0; 32];
        SystemRandom::default().fill(&mut salt)?;
        let header = Header::new(&made.key_id, &made.ciphertext, &context, salt)
            .context("the server's data key does not fit into a file")?;
        let (mut input, mut output) = (opened.input, opened.output);
        let bar = bar(opened.length, opened.new.is_some())?;
        let moved = moving(bar, move |progress| {
            keyway_files::encrypt(&header, &data_key, &mut input, &mut output, progress)
        });
        paths.finish(moved.await?, opened.new)
    })
    .await
}

pub(crate) async fn decrypt(DecryptFile { server, paths }: DecryptFile) -> anyhow::Result<()> {
    until_stopped(async {
        let opened = paths.open().await?;
        let input = opened.input;
        let file = on_a_thread(move || EncryptedFile::open(input)).await?;
        let file = file.with_context(|| shown(&paths.input))?;
        let header = file.header();
        let key = key_id(header.key_id())
            .map_err(|reason| anyhow!("its key id {reason}").context(shown(&paths.input)))?;
        let pairs = header.context().pairs();
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs = pairs.collect();
        let decrypted = server
            .connect()?
            .decrypt(Some(&key), header.wrapped_key(), &pairs)
            .await;
        let decrypted = decrypted.map_err(|error| {
            let api_may_differ = error.class() == Class::Failed && !pairs.is_empty();
            let error = anyhow::Error::from(error);
            // KES's API takes a context as bytes, so the two APIs do not open each other's data keys.
            match api_may_differ {
                true => error.context("a file with a context opens by the API that encrypted it"),
                false => error,
            }
        })?;
        let data_key = file_key(&decrypted.plaintext)?;
        let mut output = opened.output;
        let bar = bar(opened.length, opened.new.is_some() || !output.is_terminal())?;
        let moved = moving(bar, move |progress| {
            file.decrypt(&data_key, &mut output, progress)
        });
        paths.finish(moved.await?, opened.new)
    })
    .await
}

fn file_key(plaintext: &SecretBytes) -> anyhow::Result<Key256> {
    Key256::try_from(plaintext.expose()).context("the server's data key does not fit a file")
}

/// The open input and output.
struct Opened {
    input: File,
    /// The length of the input. Pipes have none.
    length: Option<u64>,
    /// The output that gets its name at the end, unless it is standard output. Dropping it removes the file.
    new: Option<NewFile>,
    output: File,
}

impl Paths {
    async fn open(&self) -> anyhow::Result<Opened> {
        let to_standard = is_standard(&self.output);
        if to_standard && self.force {
            return Err(usage("--force has no effect on standard output"));
        }
        let input = match is_standard(&self.input) {
            true => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            false => {
                // A pipe with a name is open only when its writer is there.
                let path = self.input.clone();
                let opened = on_a_thread(move || File::open(path)).await?;
                opened.with_context(|| shown(&self.input))?
            }
        };
        let metadata = input.metadata()?;
        if metadata.is_dir() {
            return Err(usage("IN is a folder; pack it first, for example with tar"));
        }
        let length = metadata.is_file().then_some(metadata.len());
        let standard = match to_standard {
            true => Some(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            false => None,
        };
        let existing = match &standard {
            Some(output) => output.metadata().ok(),
            None => self.output.metadata().ok(),
        };
        if length.is_some() && existing.is_some_and(|existing| is_same_file(&metadata, &existing)) {
            return Err(usage("IN and OUT are the same file"));
        }
        let (new, output) = match standard {
            Some(output) => (None, output),
            None => {
                let new = NewFile::create(&self.output, self.force);
                let new = new.with_context(|| shown(&self.output))?;
                let output = new.writer()?;
                (Some(new), output)
            }
        };
        Ok(Opened {
            input,
            length,
            new,
            output,
        })
    }

    /// Gives the output its name if everything was written.
    fn finish(&self, moved: Result<(), FileError>, new: Option<NewFile>) -> anyhow::Result<()> {
        moved.with_context(|| shown(&self.input))?;
        match new {
            Some(new) => new.finish().with_context(|| shown(&self.output)),
            None => Ok(()),
        }
    }
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// It is shown only on a terminal, and not in between of a plaintext.
fn bar(length: Option<u64>, is_visible: bool) -> anyhow::Result<ProgressBar> {
    Ok(match (is_visible, length) {
        (false, _) => ProgressBar::hidden(),
        (true, Some(length)) => ProgressBar::new(length).with_style(ProgressStyle::with_template(
            "{bar:40} {bytes}/{total_bytes}, {elapsed} gone, {eta} left",
        )?),
        (true, None) => ProgressBar::no_length().with_style(ProgressStyle::with_template(
            "{spinner} {bytes}, {elapsed} gone",
        )?),
    })
}

/// Runs the work on a thread of its own, and shows its progress.
async fn moving(
    bar: ProgressBar,
    work: impl FnOnce(&mut dyn FnMut(u64)) -> Result<(), FileError> + Send + 'static,
) -> anyhow::Result<Result<(), FileError>> {
    let shown = bar.clone();
    let ended = on_a_thread(move || work(&mut |done| shown.set_position(done))).await;
    bar.finish_and_clear();
    ended
}

/// Runs blocking work. A thread of the runtime would keep the process alive while it waits for input.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (done, ended) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        // Nobody waits any more when the command was stopped.
        done.send(work()).ok();
    })?;
    ended.await.context("the work was not finished")
}

/// Runs the command until a signal stops it. What it has not finished is then dropped, an output without its name included.
async fn until_stopped(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = command => ended,
        _ = hangup.recv() => Err(Stopped(1).into()),
        _ = interrupt.recv() => Err(Stopped(2).into()),
        _ = terminate.recv() => Err(Stopped(15).into()),
    }
}

/// The number of the signal that stopped the command.
#[derive(Debug)]
struct Stopped(u8);

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped by signal {}; no output was kept", self.0)
    }
}

impl std::error::Error for Stopped {}

/// The exit code of a command that a signal stopped: as shells have it.
pub(crate) fn exit_code(error: &anyhow::Error) -> Option<ExitCode> {
    let Stopped(signal) = error.downcast_ref()?;
    Some(ExitCode::from(128 + signal))
}
