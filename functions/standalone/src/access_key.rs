//! `keyway access-key create|list|rotate|revoke`.

use std::io::Read;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use keyway_audit::OperatorAction;
use keyway_deployment_assembly::duration;
use keyway_domain::SecretBytes;
use keyway_domain::access::{
    AccessKeyId, AccessKeyName, AccessKeySummary, Envelope, LONGEST_OVERLAP, NewAccessKey,
    WantedAccessKey,
};
use keyway_domain::policy::{MAX_POLICY_BYTES, Policy};
use serde::Serialize;

use crate::command_log::CommandLog;
use crate::location::DeploymentLocation;
use crate::{explain, print, tell};

#[derive(Subcommand)]
pub(crate) enum AccessKeyCommand {
    /// Make an access key; its secret is shown this once
    Create(Create),
    /// List the access keys, without their secrets
    List(List),
    /// Make an access key in the place of another one, which works for a while longer; the new secret is shown this once
    Rotate(Rotate),
    /// Revoke an access key; servers stop honouring it within their state TTL
    Revoke(Revoke),
}

#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    location: DeploymentLocation,

    /// kms-admin, kms-key-administrator, kms-key-user, kms-auditor, or the file of an IAM-style policy
    #[arg(long, value_name = "NAME|FILE")]
    policy: String,

    /// Limit the policy to this key, or to the keys that begin so; may be given more than once
    #[arg(long = "key", value_name = "ID|PREFIX*")]
    keys: Vec<String>,

    /// Let the access key expire after so long, such as 30m, 1h or 7d; a bare number is seconds. It then comes with a
    /// session token
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires_in: Option<Duration>,

    /// Who uses it: 1 to 64 of A-Z, a-z, 0-9, `_`, `+`, `=`, `,`, `.`, `@`, `-`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The shape in which AWS KMS's API returns new data keys to the holder; overrides --aws-ciphertext
    #[arg(long, value_enum, value_name = "SHAPE")]
    envelope: Option<WantedEnvelope>,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    location: DeploymentLocation,

    /// How to print them
    #[arg(long, value_enum, default_value_t = ListOutput::Text)]
    output: ListOutput,
}

#[derive(Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    location: DeploymentLocation,

    /// The access key's id
    #[arg(value_name = "ID")]
    id: String,

    /// How long the old access key still works, such as 30m, 24h or 7d; 0 ends it at once; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = overlap)]
    overlap: Duration,

    /// How to print the new one
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    location: DeploymentLocation,

    /// The access key's id
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum WantedEnvelope {
    /// As they are
    Plain,
    /// In RustFS's envelope, for a RustFS server
    Rustfs,
}

impl From<WantedEnvelope> for Envelope {
    fn from(wanted: WantedEnvelope) -> Self {
        match wanted {
            WantedEnvelope::Plain => Self::Plain,
            WantedEnvelope::Rustfs => Self::RustFs,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// One JSON object
    Json,
    /// Lines of `export AWS_...`, for `eval` in a shell
    Env,
}

#[derive(Clone, Copy, ValueEnum)]
enum ListOutput {
    /// For people
    Text,
    /// One JSON array
    Json,
}

/// The kind of object under which events name an access key.
const ACCESS_KEY: &str = "access-key";

fn lifetime(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        life if life >= Duration::from_secs(1) => Ok(life),
        _ => Err("is shorter than a second".to_owned()),
    }
}

fn overlap(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        overlap if overlap <= LONGEST_OVERLAP => Ok(overlap),
        _ => Err("is longer than 366 days".to_owned()),
    }
}

pub(crate) async fn run(command: AccessKeyCommand) -> anyhow::Result<()> {
    match command {
        AccessKeyCommand::Create(arguments) => create(arguments).await,
        AccessKeyCommand::List(arguments) => list(arguments).await,
        AccessKeyCommand::Rotate(arguments) => rotate(arguments).await,
        AccessKeyCommand::Revoke(arguments) => revoke(arguments).await,
    }
}

#[derive(Serialize)]
struct Created<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    /// The old access key of a rotation, and when it stops working.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_expiration: Option<String>,
}

async fn create(arguments: Create) -> anyhow::Result<()> {
    let policy = policy(&arguments.policy, &arguments.keys)?;
    let name = arguments.name.as_deref().map(AccessKeyName::parse);
    let name = name.transpose().map_err(explain)?;
    let deployment = arguments.location.open().await?;
    let wanted = WantedAccessKey {
        life: arguments.expires_in,
        envelope: arguments.envelope.map(Envelope::from),
        name,
        ..WantedAccessKey::new(policy)
    };
    let action = OperatorAction::CreateAccessKey;
    let log = CommandLog::begin(&deployment, action).await?;
    let key = deployment.access_keys().create_with(wanted).await;
    let key = log.ended(action, key.map_err(explain), |key, event| {
        event.of(ACCESS_KEY, key.id.as_str())
    });
    let key = key.await?;
    show_new(&key, None, arguments.output)
}

async fn rotate(arguments: Rotate) -> anyhow::Result<()> {
    let id = AccessKeyId::parse(&arguments.id).map_err(explain)?;
    let deployment = arguments.location.open().await?;
    let action = OperatorAction::RotateAccessKey;
    let log = CommandLog::begin(&deployment, action).await?;
    let keys = deployment.access_keys();
    let rotated = keys.rotate(&id, arguments.overlap).await.map_err(explain);
    let rotated = log.ended(action, rotated, |rotated, event| {
        let (old, new) = (id.as_str(), rotated.new.id.as_str());
        event.of(ACCESS_KEY, &format!("{old}/{new}"))
    });
    let rotated = rotated.await?;
    let old_expires_at = format!("{:.0}", rotated.old_expires_at);
    show_new(
        &rotated.new,
        Some((id.as_str(), &old_expires_at)),
        arguments.output,
    )?;
    if !matches!(arguments.output, Output::Json) {
        tell(&format!("{} works until {old_expires_at}", id.as_str()));
    }
    Ok(())
}

/// Prints a new access key, and for a rotation the old one's id and expiry.
fn show_new(
    key: &NewAccessKey,
    replaces: Option<(&str, &str)>,
    output: Output,
) -> anyhow::Result<()> {
    let NewAccessKey {
        id,
        secret,
        session_token,
        expires_at,
    } = key;
    let (secret, token) = (text(secret), session_token.as_ref().map(text));
    let lines = |prefix: &str| {
        let mut lines = vec![
            format!("{prefix}AWS_ACCESS_KEY_ID={}", id.as_str()),
            format!("{prefix}AWS_SECRET_ACCESS_KEY={secret}"),
        ];
        lines.extend(token.map(|token| format!("{prefix}AWS_SESSION_TOKEN={token}")));
        lines.join("\n")
    };
    print(&match output {
        Output::Text => lines(""),
        // A token that is left from a temporary key would be sent along with this key.
        Output::Env if token.is_none() => lines("export ") + "\nunset AWS_SESSION_TOKEN",
        Output::Env => lines("export "),
        Output::Json => serde_json::to_string(&Created {
            access_key_id: id.as_str(),
            secret_access_key: secret,
            session_token: token,
            expiration: expires_at.map(|expiry| format!("{expiry:.0}")),
            replaces: replaces.map(|(old, _)| old),
            old_expiration: replaces.map(|(_, expiry)| expiry.to_owned()),
        })?,
    });
    Ok(())
}

#[derive(Serialize)]
struct Listed<'a> {
    access_key_id: &'a str,
    name: Option<&'a str>,
    owner: bool,
    /// The access key that began the session, for a session's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_name: Option<&'a str>,
    policy: Option<&'a Policy>,
    /// Why the policy is invalid, and allows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<&'a str>,
    created_at: String,
    expires_at: Option<String>,
    /// To an hour; `None` if no use is recorded.
    last_used_at: Option<String>,
    /// The access key that took its place in a rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<&'static str>,
}

impl<'a> From<&'a AccessKeySummary> for Listed<'a> {
    fn from(key: &'a AccessKeySummary) -> Self {
        let session = key.session.as_ref();
        let date = |time: jiff::Timestamp| format!("{time:.0}");
        Self {
            access_key_id: key.id.as_str(),
            name: key.name.as_ref().map(AccessKeyName::as_str),
            owner: key.policy.is_none() && session.is_none(),
            session_of: session.map(|session| session.parent.as_str()),
            session_name: session.map(|session| session.name.as_str()),
            policy: key.policy.as_ref(),
            invalid: key.fault.as_deref(),
            created_at: date(key.created_at),
            expires_at: key.expires_at.map(date),
            last_used_at: key.last_used_at.map(date),
            replaced_by: key.replaced_by.as_ref().map(AccessKeyId::as_str),
            envelope: key.envelope.map(Envelope::as_str),
        }
    }
}

impl Listed<'_> {
    fn line(&self) -> anyhow::Result<String> {
        let mut parts = vec![self.access_key_id.to_owned()];
        parts.extend(self.name.map(|name| format!("name {name}")));
        parts.push(format!("made {}", self.created_at));
        let expiry = self.expires_at.as_deref().unwrap_or("never");
        parts.push(format!("expires {expiry}"));
        // A session's requests count as uses of the access key that began it.
        if self.session_of.is_none() {
            let used = self.last_used_at.as_deref().unwrap_or("unknown");
            parts.push(format!("last used {used}"));
        }
        parts.extend(self.replaced_by.map(|new| format!("replaced by {new}")));
        if let (Some(parent), Some(name)) = (self.session_of, self.session_name) {
            parts.push(format!("session {name} of {parent}"));
        }
        parts.extend(self.envelope.map(|envelope| format!("envelope {envelope}")));
        let policy = match self.policy {
            Some(policy) => serde_json::to_string(policy)?,
            None if self.owner => "root: everything".to_owned(),
            None => "as the access key that began it".to_owned(),
        };
        parts.push(match self.invalid {
            Some(fault) => format!("invalid, and allows nothing ({fault}): {policy}"),
            None => policy,
        });
        Ok(parts.join("  "))
    }
}

async fn list(arguments: List) -> anyhow::Result<()> {
    let deployment = arguments.location.open().await?;
    let keys = deployment.access_keys().list().await.map_err(explain)?;
    let listed: Vec<Listed<'_>> = keys.iter().map(Listed::from).collect();
    match arguments.output {
        ListOutput::Json => print(&serde_json::to_string(&listed)?),
        ListOutput::Text => {
            for key in &listed {
                print(&key.line()?);
            }
        }
    }
    Ok(())
}

async fn revoke(arguments: Revoke) -> anyhow::Result<()> {
    let id = AccessKeyId::parse(&arguments.id).map_err(explain)?;
    let deployment = arguments.location.open().await?;
    let action = OperatorAction::RevokeAccessKey;
    let log = CommandLog::begin(&deployment, action).await?;
    let revoked = deployment.access_keys().revoke(&id).await;
    let revoked = log.ended(action, revoked.map_err(explain), |(), event| {
        event.of(ACCESS_KEY, id.as_str())
    });
    revoked.await?;
    print(&format!("revoked {}", id.as_str()));
    Ok(())
}

fn policy(name_or_file: &str, keys: &[String]) -> anyhow::Result<Policy> {
    let document = match Policy::canned(name_or_file) {
        Some(policy) => return policy.limited_to(keys).map_err(explain),
        None => policy_file(name_or_file)?,
    };
    let policy = Policy::parse(&document).map_err(explain);
    let policy = policy.with_context(|| name_or_file.to_owned())?;
    policy.limited_to(keys).map_err(explain)
}

/// A policy's file as text.
pub(crate) fn policy_file(path: &str) -> anyhow::Result<String> {
    let file = std::fs::File::open(path).with_context(|| {
        format!("`{path}` is neither a canned policy nor a file that can be read")
    })?;
    let mut document = String::new();
    // One byte more than the limit shows that the file is too long.
    file.take(MAX_POLICY_BYTES as u64 + 1)
        .read_to_string(&mut document)
        .with_context(|| path.to_owned())?;
    Ok(document)
}

/// The secret as text: access keys are ASCII.
pub(crate) fn text(secret: &SecretBytes) -> &str {
    std::str::from_utf8(secret.expose()).unwrap_or_default()
}
