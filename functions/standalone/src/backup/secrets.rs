//! The passphrase and the shares of a backup's root keyring.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use keyway_backup::{Bundle, RootProtection, Share, combine, open_root};
use keyway_deployment_assembly::secret_line;
use keyway_domain::SecretBytes;
use zeroize::Zeroizing;

/// More than all shares of a backup have.
const MOST_BYTES: u64 = 1 << 16;

#[derive(Args)]
pub(crate) struct Passphrase {
    /// File whose first line is the passphrase of the backup's root keyring (or set KEYWAY_BACKUP_PASSPHRASE)
    #[arg(long, env = "KEYWAY_BACKUP_PASSPHRASE_FILE", value_name = "FILE")]
    backup_passphrase_file: Option<PathBuf>,
}

impl Passphrase {
    pub(crate) fn read(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        let file = self.backup_passphrase_file.as_deref();
        secret_line("KEYWAY_BACKUP_PASSPHRASE", file)
    }
}

/// What opens a backup's root keyring.
#[derive(Args)]
pub(crate) struct BundleSecret {
    #[command(flatten)]
    passphrase: Passphrase,

    /// File with a share of the backup's root keyring, or several, one a line; - is standard input. May be given more than
    /// once
    #[arg(long = "share-file", value_name = "FILE")]
    share_files: Vec<PathBuf>,
}

impl BundleSecret {
    /// The backup's root keyring; `None` if nothing that opens it was given.
    pub(crate) fn open<R>(&self, bundle: &Bundle<R>) -> anyhow::Result<Option<SecretBytes>> {
        let passphrase = self.passphrase.read()?;
        let protection = bundle.header().root;
        let secret = match (protection, passphrase) {
            (Some(RootProtection::Passphrase), Some(passphrase)) => passphrase,
            (Some(RootProtection::Shares { .. }), _) if !self.share_files.is_empty() => {
                self.combined(&bundle.header().bundle)?
            }
            (Some(RootProtection::Passphrase), None) if !self.share_files.is_empty() => {
                bail!("the backup's root keyring is under a passphrase, and shares are given")
            }
            (Some(RootProtection::Shares { needed, .. }), Some(_)) => bail!(
                "the backup's root keyring is under shares, and a passphrase is given; pass {needed} of them by --share-file"
            ),
            (None, _) if !self.share_files.is_empty() => {
                bail!("shares are given, and the backup has no root keyring")
            }
            (Some(_), None) | (None, _) => return Ok(None),
        };
        let age = bundle.root().context("the backup has no root keyring")?;
        Ok(Some(open_root(age, &secret)?))
    }

    fn combined(&self, bundle: &str) -> anyhow::Result<Zeroizing<String>> {
        let mut shares = Vec::new();
        for file in &self.share_files {
            let text = read(file)?;
            for (number, line) in text.lines().enumerate() {
                if line.trim().is_empty() {
                    continue;
                }
                let share = Share::parse(line);
                shares.push(share.with_context(|| {
                    format!("{}: line {}", file.display(), number.saturating_add(1))
                })?);
            }
        }
        combine(&shares, bundle).context("the shares")
    }
}

fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let input: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(file);
        Box::new(opened.with_context(|| file.display().to_string())?)
    };
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let read = input.take(MOST_BYTES).read_to_string(&mut text);
    read.with_context(|| file.display().to_string())?;
    Ok(text)
}
