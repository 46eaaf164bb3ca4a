//! The operator's settings of every deployment. Secrets come only from the environment or a file: arguments are visible
//! to every user of the machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, ValueEnum};
use jiff::{Span, SpanRelativeTo};
use keyway_crypto::SecretBytes;
use keyway_domain::access::{AccessKeyId, AccountId, Envelope, ROOT_SECRET_LENGTHS, RootAccessKey};
use keyway_domain::keys::KeyId;
use keyway_http::Cors;
use keyway_secrets_vault::TokenFolders;

use crate::audit::AuditSettings;
use crate::kes::KesSettings;
use crate::variables::secret;

/// How requests are served.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Only accept signatures for this region; any region when not given
    #[arg(long, env = "KEYWAY_SIGNING_REGION", value_name = "REGION")]
    pub signing_region: Option<String>,

    /// How long another process may act on a state that was changed here, such as 30s or 5m, at most 1h; a bare number is
    /// seconds; 0 reads it for every request
    #[arg(long = "state-ttl-seconds", visible_alias = "state-ttl", env = "KEYWAY_STATE_TTL_SECONDS", value_name = "DURATION",
          default_value = "5s", value_parser = state_ttl)]
    pub state_ttl: Duration,

    /// Allow keys to be destroyed without a waiting time, when a request confirms it
    #[arg(long, env = "KEYWAY_ALLOW_IMMEDIATE_DELETION", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub allow_immediate_deletion: bool,

    /// Origins whose pages may call, such as https://console.example.com, with commas between them; * for any
    #[arg(long, env = "KEYWAY_CORS_ORIGINS", value_name = "ORIGINS", default_value = "", hide_default_value = true,
          value_parser = Cors::parse)]
    pub cors_origins: Cors,

    /// Spelling of backends and states in RustFS's API: documents or 1.0. By default sessions get 1.0's, which RustFS's
    /// console needs, and everybody else gets the documents'
    #[arg(long, env = "KEYWAY_RUSTFS_SPELLING", value_name = "SPELLING", default_value = "", hide_default_value = true,
          value_parser = PossibleValuesParser::new([PossibleValue::new("").hide(true), "documents".into(), "1.0".into()]))]
    pub rustfs_spelling: String,

    /// The account that ARNs name, 12 digits
    #[arg(
        long,
        env = "KEYWAY_AWS_ACCOUNT_ID",
        value_name = "ACCOUNT",
        default_value = AccountId::DEFAULT
    )]
    pub aws_account_id: AccountId,

    /// The region that ARNs of keys name; the region that a request is signed for when not given
    #[arg(long, env = "KEYWAY_AWS_REGION", value_name = "REGION", value_parser = aws_region)]
    pub aws_region: Option<String>,

    /// How AWS KMS's API returns the ciphertext of a new data key, for access keys without an envelope of their own
    #[arg(
        long,
        env = "KEYWAY_AWS_CIPHERTEXT",
        value_name = "SHAPE",
        value_enum,
        default_value_t
    )]
    pub aws_ciphertext: AwsCiphertext,

    /// Also open ciphertexts of KES v0.1 to v0.6.0, whose derivation is weak, by keys that were brought from there
    #[arg(long, env = "KEYWAY_OPEN_LEGACY_KES", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub open_legacy_kes: bool,

    /// The audit log.
    #[command(flatten)]
    pub audit: AuditSettings,

    /// KES's server API.
    #[command(flatten)]
    pub kes: KesSettings,
}

/// A duration as options take it: `30m`, `1h 30m`, `2 days`, or a bare number of seconds.
///
/// # Errors
/// When the text is none, or negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration_in(Duration::from_secs(1), text)
}

/// Like [`duration`], where a bare number is of this unit.
pub(crate) fn duration_in(unit: Duration, text: &str) -> Result<Duration, String> {
    if let Ok(number) = text.parse() {
        let length = unit.checked_mul(number);
        return length.ok_or_else(|| "is too long".to_owned());
    }
    let days_are_24_hours = SpanRelativeTo::days_are_24_hours();
    let span = text.parse::<Span>();
    let length = span.and_then(|span| span.to_duration(days_are_24_hours));
    let length = length.ok().and_then(|length| length.try_into().ok());
    length.ok_or_else(|| "is no duration such as 30s, 30m, 1h or 7d".to_owned())
}

/// The longest state TTL.
const MAX_STATE_TTL: Duration = Duration::from_secs(3600);

fn state_ttl(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        ttl if ttl <= MAX_STATE_TTL => Ok(ttl),
        _ => Err("is longer than 1h".to_owned()),
    }
}

/// Parses a region's name, such as `eu-west-1`.
fn aws_region(text: &str) -> Result<String, &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 of a-z, 0-9 and `-`")
    }
}

/// How AWS KMS's API returns the ciphertext of a new data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum AwsCiphertext {
    /// In RustFS's envelope if the request looks like a RustFS server's, else as it is
    #[default]
    Auto,
    /// As it is
    Plain,
    /// In RustFS's envelope, without which a RustFS server cannot read its objects
    Rustfs,
}

impl AwsCiphertext {
    /// The envelope; `None` if the request decides.
    pub const fn envelope(self) -> Option<Envelope> {
        match self {
            Self::Auto => None,
            Self::Plain => Some(Envelope::Plain),
            Self::Rustfs => Some(Envelope::RustFs),
        }
    }
}

/// How Vaults are reached.
#[derive(Debug, Clone, Default, Args)]
pub struct VaultFiles {
    /// Folder below which files with a token for Vault may be, when the service is configured with one; may be given
    /// more than once, or with commas between; without it there are none
    #[arg(
        long,
        env = "KEYWAY_VAULT_TOKEN_DIR",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub vault_token_dir: Vec<String>,

    /// PEM file of certificate authorities to trust for Vault, besides the system's
    #[arg(long, env = "KEYWAY_VAULT_CA_FILE", value_name = "FILE")]
    pub vault_ca_file: Option<PathBuf>,
}

impl VaultFiles {
    /// The folders below which the operator allows files with a token.
    pub fn token_folders(&self) -> TokenFolders {
        TokenFolders::below(self.vault_token_dir.iter().map(PathBuf::from))
    }
}

/// The key that `--default-key-id` names.
///
/// # Errors
/// When it is not a key id.
pub fn default_key_id(text: Option<&str>) -> anyhow::Result<Option<KeyId>> {
    match text
        .map(|id| KeyId::parse("default_key_id", id))
        .transpose()
    {
        Ok(id) => Ok(id),
        Err(_) => bail!("--default-key-id (KEYWAY_DEFAULT_KEY_ID) is not a key id"),
    }
}

/// The root access key that `KEYWAY_ROOT_ACCESS_KEY` and `KEYWAY_ROOT_SECRET_KEY` give; else the table's.
///
/// # Errors
/// When only one of them is set, or one is invalid.
pub fn root_access_key() -> anyhow::Result<RootAccessKey> {
    match (
        secret("KEYWAY_ROOT_ACCESS_KEY")?,
        secret("KEYWAY_ROOT_SECRET_KEY")?,
    ) {
        (None, None) => Ok(RootAccessKey::InTable),
        (Some(id), Some(key)) => {
            let Ok(id) = AccessKeyId::parse(&id) else {
                bail!("KEYWAY_ROOT_ACCESS_KEY must be 3 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`");
            };
            if !ROOT_SECRET_LENGTHS.contains(&key.len()) {
                bail!("KEYWAY_ROOT_SECRET_KEY must be 8 to 256 bytes long");
            }
            let secret = SecretBytes::from(key.as_bytes().to_vec());
            Ok(RootAccessKey::Given(id, secret))
        }
        _ => bail!(
            "KEYWAY_ROOT_ACCESS_KEY and KEYWAY_ROOT_SECRET_KEY must be set together, or neither of them"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_a_number_with_a_unit_or_of_seconds() {
        for (text, seconds) in [
            ("0", 0),
            ("90", 90),
            ("90s", 90),
            ("30m", 1800),
            ("1h", 3600),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("2 hours", 7200),
            ("7d", 604_800),
            ("1w", 604_800),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for text in [
            "",
            "h",
            "1x",
            "-5",
            "-5s",
            "1 month",
            "1y",
            "3600 s x",
            "\u{0661}s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn state_ttl_is_an_hour_at_most() {
        assert_eq!(state_ttl("1h"), Ok(MAX_STATE_TTL));
        assert_eq!(state_ttl("3600"), Ok(MAX_STATE_TTL));
        assert!(state_ttl("3601").is_err() && state_ttl("2h").is_err());
    }
}
