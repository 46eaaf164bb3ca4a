//! `keyway data-key`, `keyway encrypt` and `keyway decrypt`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use keyway_client::Context;
use keyway_domain::SecretBytes;
use keyway_domain::keys::KeyId;
use serde::Serialize;
use zeroize::Zeroizing;

use super::printing;
use super::{EXIT_CODES, Server, key_id, usage};
use crate::migration::Output;

/// The longest plaintext that servers encrypt, in bytes.
const LONGEST_PLAINTEXT: usize = 64 << 10;
/// The longest ciphertext that servers accept, in bytes of base64.
const LONGEST_CIPHERTEXT: usize = 1 << 20;

#[derive(Subcommand)]
pub(crate) enum DataKeyCommand {
    /// Make a data key under a key of the server
    #[command(after_help = EXIT_CODES)]
    Generate(Box<Generate>),
    /// Decrypt a data key that was made earlier
    #[command(after_help = EXIT_CODES)]
    Decrypt(Box<DecryptKey>),
}

/// The encryption context.
#[derive(Args)]
pub(crate) struct ContextArguments {
    /// A name and a value of the encryption context, which decryption must repeat; may be given more than once
    #[arg(long = "context", value_name = "NAME=VALUE", value_parser = pair)]
    pairs: Vec<(String, String)>,
}

pub(crate) fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE"),
    }
}

impl ContextArguments {
    /// The encryption context. A name must not be given twice.
    pub(crate) fn context(self) -> anyhow::Result<Context> {
        no_repeats(self.pairs)
    }
}

/// The pairs of a context or of tags, which must have different names.
pub(crate) fn no_repeats(pairs: Vec<(String, String)>) -> anyhow::Result<Context> {
    let count = pairs.len();
    let named: Context = pairs.into_iter().collect();
    match named.len() == count {
        true => Ok(named),
        false => Err(usage("the same name is given twice")),
    }
}

/// Where a plaintext data key goes.
#[derive(Args)]
struct Plaintext {
    /// Write the plaintext data key to this file, which must not be there yet; only its owner may read it
    #[arg(long, value_name = "FILE")]
    plaintext_to: Option<PathBuf>,

    /// Print the plaintext data key too, in base64
    #[arg(long, conflicts_with = "plaintext_to")]
    show_plaintext: bool,
}

#[derive(Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    server: Server,

    /// The key; without it the server's default key
    #[arg(long, value_name = "ID", value_parser = key_id)]
    key: Option<KeyId>,

    /// The data key's length
    #[arg(long, value_enum, default_value_t = Spec::Aes256)]
    spec: Spec,

    #[command(flatten)]
    context: ContextArguments,

    #[command(flatten)]
    plaintext: Plaintext,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct DecryptKey {
    #[command(flatten)]
    server: Server,

    /// The encrypted data key in base64; without it standard input
    #[arg(value_name = "CIPHERTEXT")]
    ciphertext: Option<String>,

    /// The key, which KES's API needs; other ciphertexts name theirs
    #[arg(long, value_name = "ID", value_parser = key_id)]
    key: Option<KeyId>,

    #[command(flatten)]
    context: ContextArguments,

    #[command(flatten)]
    plaintext: Plaintext,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Encrypt {
    #[command(flatten)]
    server: Server,

    /// The key; without it the server's default key
    #[arg(long, value_name = "ID", value_parser = key_id)]
    key: Option<KeyId>,

    #[command(flatten)]
    context: ContextArguments,

    /// How to print it; as text, it is the ciphertext in base64
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Decrypt {
    #[command(flatten)]
    server: Server,

    /// The key, which KES's API needs; other ciphertexts name theirs
    #[arg(long, value_name = "ID", value_parser = key_id)]
    key: Option<KeyId>,

    #[command(flatten)]
    context: ContextArguments,

    /// How to print it; as text, it is the plaintext as it is
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Spec {
    /// 32 bytes
    #[value(name = "aes-256")]
    Aes256,
    /// 16 bytes
    #[value(name = "aes-128")]
    Aes128,
}

impl From<Spec> for keyway_client::DataKeySpec {
    fn from(spec: Spec) -> Self {
        match spec {
            Spec::Aes256 => Self::Aes256,
            Spec::Aes128 => Self::Aes128,
        }
    }
}

/// A result as JSON. Bytes are base64.
#[derive(Serialize)]
struct Shown<'a> {
    key_id: &'a str,
    key_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
}

impl Shown<'_> {
    fn print(&self, output: Output) -> anyhow::Result<()> {
        match output {
            Output::Json => {
                let texts = [Some(self.key_id), self.ciphertext, self.plaintext];
                let room = texts.into_iter().flatten().map(str::len).sum::<usize>();
                printing::json(self, room + 256)
            }
            Output::Text => {
                let version = self.key_version.map(|version| version.to_string());
                Ok(printing::fields(&[
                    ("key", Some(&printing::shown(self.key_id))),
                    ("version", version.as_deref()),
                    ("ciphertext", self.ciphertext),
                    ("plaintext", self.plaintext),
                ])?)
            }
        }
    }
}

pub(crate) async fn run(command: DataKeyCommand) -> anyhow::Result<()> {
    match command {
        DataKeyCommand::Generate(arguments) => generate(*arguments).await,
        DataKeyCommand::Decrypt(arguments) => decrypt_key(*arguments).await,
    }
}

async fn generate(arguments: Generate) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    let context = arguments.context.context()?;
    let file = (arguments.plaintext.plaintext_to.as_deref())
        .map(SecretFile::new)
        .transpose()?;
    let spec = arguments.spec.into();
    let made = client
        .generate_data_key(arguments.key.as_ref(), spec, &context)
        .await?;
    if let Some(file) = file {
        file.write(&made.plaintext)?;
    }
    let plaintext = (arguments.plaintext.show_plaintext).then(|| base64(&made.plaintext));
    Shown {
        key_id: &made.key_id,
        key_version: made.key_version,
        ciphertext: Some(&STANDARD.encode(&made.ciphertext)),
        plaintext: plaintext.as_ref().map(|text| text.as_str()),
    }
    .print(arguments.output)
}

async fn decrypt_key(arguments: DecryptKey) -> anyhow::Result<()> {
    let Plaintext {
        plaintext_to,
        show_plaintext,
    } = arguments.plaintext;
    if plaintext_to.is_none() && !show_plaintext {
        return Err(usage(
            "say where the plaintext goes: --plaintext-to FILE or --show-plaintext",
        ));
    }
    let client = arguments.server.connect()?;
    let context = arguments.context.context()?;
    let ciphertext = match &arguments.ciphertext {
        Some(text) => decoded(text)?,
        None => ciphertext_of_input()?,
    };
    let file = plaintext_to.as_deref().map(SecretFile::new).transpose()?;
    let opened = client
        .decrypt(arguments.key.as_ref(), &ciphertext, &context)
        .await?;
    if let Some(file) = file {
        file.write(&opened.plaintext)?;
    }
    let plaintext = show_plaintext.then(|| base64(&opened.plaintext));
    Shown {
        key_id: &opened.key_id,
        key_version: opened.key_version,
        ciphertext: None,
        plaintext: plaintext.as_ref().map(|text| text.as_str()),
    }
    .print(arguments.output)
}

pub(crate) async fn encrypt(arguments: Encrypt) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    let context = arguments.context.context()?;
    let plaintext = input(LONGEST_PLAINTEXT, "encrypt-file encrypts larger ones")?.into();
    let made = client
        .encrypt(arguments.key.as_ref(), &plaintext, &context)
        .await?;
    let ciphertext = STANDARD.encode(&made.ciphertext);
    match arguments.output {
        Output::Text => Ok(printing::line(&ciphertext)?),
        Output::Json => Shown {
            key_id: &made.key_id,
            key_version: made.key_version,
            ciphertext: Some(&ciphertext),
            plaintext: None,
        }
        .print(Output::Json),
    }
}

pub(crate) async fn decrypt(arguments: Decrypt) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    let context = arguments.context.context()?;
    let ciphertext = ciphertext_of_input()?;
    let opened = client
        .decrypt(arguments.key.as_ref(), &ciphertext, &context)
        .await?;
    match arguments.output {
        Output::Text => Ok(printing::write(opened.plaintext.expose())?),
        Output::Json => Shown {
            key_id: &opened.key_id,
            key_version: opened.key_version,
            ciphertext: None,
            plaintext: Some(&base64(&opened.plaintext)),
        }
        .print(Output::Json),
    }
}

/// Standard input, in memory that is wiped. It has at most `most` bytes; `instead` says what to do with more.
pub(super) fn input(most: usize, instead: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // Reading to the end of a full buffer makes it grow, and leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 64));
    let limit = u64::try_from(most)? + 1;
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
    read.context("standard input")?;
    match bytes.len() > most {
        false => Ok(bytes),
        true => Err(usage(&format!(
            "standard input has more than {} KiB; {instead}",
            most >> 10
        ))),
    }
}

fn ciphertext_of_input() -> anyhow::Result<Vec<u8>> {
    let bytes = input(LONGEST_CIPHERTEXT, "no ciphertext of a server is so long")?;
    decoded(std::str::from_utf8(&bytes).unwrap_or("?"))
}

/// Decodes base64, which may be on several lines.
fn decoded(text: &str) -> anyhow::Result<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    match STANDARD.decode(text) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(usage("the ciphertext is not base64")),
    }
}

fn base64(secret: &SecretBytes) -> Zeroizing<String> {
    // The full length at once: growing would leave copies in memory.
    let mut text = Zeroizing::new(String::with_capacity(secret.len().div_ceil(3) * 4));
    STANDARD.encode_string(secret.expose(), &mut text);
    text
}

/// A file for a secret, which must not be there yet. It is made when the secret is known, so that a command that is
/// stopped leaves none.
struct SecretFile<'a>(&'a Path);

impl<'a> SecretFile<'a> {
    fn new(path: &'a Path) -> anyhow::Result<Self> {
        match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self(path)),
            Err(error) => Err(usage(&format!("{}: {error}", path.display()))),
            Ok(_) => Err(usage(&format!(
                "{} is there already, and is not written over",
                path.display()
            ))),
        }
    }

    fn write(&self, secret: &SecretBytes) -> anyhow::Result<()> {
        let path = self.0;
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| {
                let written = file.write_all(secret.expose());
                let written = written.and_then(|()| file.sync_all());
                written.inspect_err(|_| {
                    // The error that ends the command says more than one of this.
                    drop(fs::remove_file(path));
                })
            });
        written.with_context(|| path.display().to_string())
    }
}
