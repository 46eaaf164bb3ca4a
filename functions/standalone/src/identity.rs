//! `keyway identity new|of`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use keyway_auth::certificate::{ApiKey, Identity};
use keyway_certificates::{CertifiedKey, ClientKey};
use keyway_deployment_assembly::{SystemRandom, secret};
use keyway_domain::ports::Random;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::print;

#[derive(Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make an identity: an API key, which is shown this once, or a certificate and its key in files
    New(New),
    /// Show whose a certificate or an API key is; an API key from standard input (-) or KEYWAY_API_KEY, never from an argument
    Of(Of),
}

#[derive(Args)]
pub(crate) struct New {
    /// What proves it
    #[arg(long, value_enum, default_value_t = Kind::ApiKey)]
    kind: Kind,

    /// With --kind ecdsa or rsa: the file to write the certificate to, which must not be there yet
    #[arg(long, value_name = "FILE", required_if_eq_any([("kind", "ecdsa"), ("kind", "rsa")]))]
    cert: Option<PathBuf>,

    /// With --kind ecdsa or rsa: the file to write the key to, which must not be there yet
    #[arg(long, value_name = "FILE", required_if_eq_any([("kind", "ecdsa"), ("kind", "rsa")]))]
    key: Option<PathBuf>,

    /// With --kind rsa: the length of the key; 3072 without it
    #[arg(long, value_enum)]
    bits: Option<Bits>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Of {
    /// The file of a certificate in PEM, or - for standard input; without it, KEYWAY_API_KEY is looked at
    #[arg(value_name = "CERT_FILE|-")]
    certificate: Option<PathBuf>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An API key (Ed25519), of which clients make certificates themselves
    ApiKey,
    /// A certificate of an ECDSA key on P-256, for gateways that refuse Ed25519
    Ecdsa,
    /// A certificate of an RSA key, for gateways and devices that take nothing else
    Rsa,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bits {
    #[value(name = "2048")]
    Short,
    #[value(name = "3072")]
    Medium,
    #[value(name = "4096")]
    Long,
}

impl From<Bits> for ClientKey {
    fn from(bits: Bits) -> Self {
        match bits {
            Bits::Short => Self::Rsa2048,
            Bits::Medium => Self::Rsa3072,
            Bits::Long => Self::Rsa4096,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// One JSON object
    Json,
}

pub(crate) fn run(command: IdentityCommand) -> anyhow::Result<()> {
    match command {
        IdentityCommand::New(arguments) => new(&arguments),
        IdentityCommand::Of(arguments) => of(&arguments),
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
}

impl Shown<'_> {
    fn print(&self, output: Output) -> anyhow::Result<()> {
        print(&match (output, self.api_key) {
            (Output::Json, _) => serde_json::to_string(self)?,
            (Output::Text, None) => self.identity.clone(),
            (Output::Text, Some(key)) => format!("api key   {key}\nidentity  {}", self.identity),
        });
        Ok(())
    }
}

fn new(arguments: &New) -> anyhow::Result<()> {
    if arguments.bits.is_some() && arguments.kind != Kind::Rsa {
        bail!("--bits belongs to --kind rsa");
    }
    match (arguments.kind, &arguments.cert, &arguments.key) {
        (Kind::ApiKey, None, None) => {
            let mut seed = Zeroizing::new([0; 32]);
            SystemRandom::default()
                .fill(seed.as_mut_slice())
                .map_err(|_| anyhow!("there are no random bytes to be had"))?;
            let key = ApiKey::from_seed(seed);
            Shown {
                identity: key.identity()?.to_string(),
                api_key: Some(&key.expose()),
            }
            .print(arguments.output)
        }
        (Kind::Ecdsa | Kind::Rsa, Some(certificate), Some(key)) => {
            let kind = match (arguments.kind, arguments.bits) {
                (Kind::Rsa, bits) => bits.unwrap_or(Bits::Medium).into(),
                (Kind::Ecdsa | Kind::ApiKey, _) => ClientKey::Ecdsa,
            };
            let made = CertifiedKey::of_client(kind)?;
            made.write(certificate, key)?;
            Shown {
                identity: Identity::of_chain([made.certificate_der()])?.to_string(),
                api_key: None,
            }
            .print(arguments.output)
        }
        _ => bail!("--cert and --key belong to --kind ecdsa and rsa"),
    }
}

/// The longest input in bytes, longer than any certificate chain.
const LONGEST_INPUT: u64 = 1 << 20;

fn of(arguments: &Of) -> anyhow::Result<()> {
    let text = match &arguments.certificate {
        None => secret("KEYWAY_API_KEY")?
            .context("say which certificate, or - for standard input, or set KEYWAY_API_KEY")?,
        Some(path) if path.as_os_str() == "-" => read(std::io::stdin().lock(), "standard input")?,
        // The key is already in the machine's list of processes; keep it out of the log.
        Some(path) if path.as_os_str().as_encoded_bytes().starts_with(b"kes:") => bail!(
            "an API key is no argument: every user of the machine can see those; give it on standard input (-) or in KEYWAY_API_KEY, and replace this one"
        ),
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| name.clone())?;
            read(file, &name)?
        }
    };
    let text = text.trim();
    let identity = if text.contains("-----BEGIN") {
        Identity::of_pem(text)?
    } else {
        let key = ApiKey::parse(text);
        key.map_err(|_| anyhow!("this is neither a certificate in PEM nor an API key"))?
            .identity()?
    };
    Shown {
        identity: identity.to_string(),
        api_key: None,
    }
    .print(arguments.output)
}

fn read(from: impl Read, name: &str) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    from.take(LONGEST_INPUT)
        .read_to_string(&mut text)
        .with_context(|| name.to_owned())?;
    Ok(text)
}
