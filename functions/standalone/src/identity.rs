//! `keyway identity new|of`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use keyway_auth::certificate::{ApiKey, Identity};
use keyway_deployment_assembly::{SystemRandom, secret};
use keyway_domain::ports::Random;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RsaKeySize,
};
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

impl From<Bits> for RsaKeySize {
    fn from(bits: Bits) -> Self {
        match bits {
            Bits::Short => Self::_2048,
            Bits::Medium => Self::_3072,
            Bits::Long => Self::_4096,
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
            let pair = match arguments.kind {
                Kind::Rsa => {
                    let bits = arguments.bits.unwrap_or(Bits::Medium);
                    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, bits.into())
                }
                Kind::Ecdsa | Kind::ApiKey => KeyPair::generate(),
            };
            let pair = pair.context("the key could not be made")?;
            let made = self_signed(&pair)?;
            let secret = Zeroizing::new(pair.serialize_pem());
            write_new(key, 0o600, secret.as_bytes())?;
            write_new(certificate, 0o644, made.pem().as_bytes()).inspect_err(|_| {
                // Alone it would only be in the way of another try.
                drop(std::fs::remove_file(key));
            })?;
            Shown {
                identity: Identity::of_chain([made.der().as_ref()])?.to_string(),
                api_key: None,
            }
            .print(arguments.output)
        }
        _ => bail!("--cert and --key belong to --kind ecdsa and rsa"),
    }
}

/// A client's certificate, and no authority's. It holds for as long as one can: who it is, is its key's matter, and
/// the operator takes rights away by identity.
fn self_signed(pair: &KeyPair) -> anyhow::Result<rcgen::Certificate> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "keyway client");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params
        .self_signed(pair)
        .context("the certificate could not be made")
}

/// Writes a file that is not there yet: a key that is, may be all that somebody has.
pub(crate) fn write_new(path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

/// Longer than any chain that somebody would show.
const LONGEST_INPUT: u64 = 1 << 20;

fn of(arguments: &Of) -> anyhow::Result<()> {
    let text = match &arguments.certificate {
        None => secret("KEYWAY_API_KEY")?
            .context("say which certificate, or - for standard input, or set KEYWAY_API_KEY")?,
        Some(path) if path.as_os_str() == "-" => read(std::io::stdin().lock(), "standard input")?,
        // It is in the machine's list of processes by now, and should not be in a log too.
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
