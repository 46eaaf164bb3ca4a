//! `keyway access-key create|list|revoke`.

use std::io::Read;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use keyway_deployment_assembly::duration;
use keyway_domain::SecretBytes;
use keyway_domain::access::{AccessKeyId, AccessKeySummary, Envelope, NewAccessKey};
use keyway_domain::policy::{MAX_POLICY_BYTES, Policy};
use serde::Serialize;

use crate::location::DeploymentLocation;
use crate::{explain, print};

#[derive(Subcommand)]
pub(crate) enum AccessKeyCommand {
    /// Make an access key; its secret is shown this once
    Create(Create),
    /// List the access keys, without their secrets
    List(List),
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

fn lifetime(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        life if life >= Duration::from_secs(1) => Ok(life),
        _ => Err("is shorter than a second".to_owned()),
    }
}

pub(crate) async fn run(command: AccessKeyCommand) -> anyhow::Result<()> {
    match command {
        AccessKeyCommand::Create(arguments) => create(arguments).await,
        AccessKeyCommand::List(arguments) => list(arguments).await,
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
}

async fn create(arguments: Create) -> anyhow::Result<()> {
    let policy = policy(&arguments.policy, &arguments.keys)?;
    let deployment = arguments.location.open().await?;
    let key = deployment
        .access_keys()
        .create_with(
            policy,
            arguments.expires_in,
            arguments.envelope.map(Envelope::from),
        )
        .await
        .map_err(explain)?;
    let NewAccessKey {
        id,
        secret,
        session_token,
        expires_at,
    } = &key;
    let (secret, token) = (text(secret), session_token.as_ref().map(text));
    let lines = |prefix: &str| {
        let mut lines = vec![
            format!("{prefix}AWS_ACCESS_KEY_ID={}", id.as_str()),
            format!("{prefix}AWS_SECRET_ACCESS_KEY={secret}"),
        ];
        lines.extend(token.map(|token| format!("{prefix}AWS_SESSION_TOKEN={token}")));
        lines.join("\n")
    };
    print(&match arguments.output {
        Output::Text => lines(""),
        // A token that is left from a temporary key would be sent along with this key.
        Output::Env if token.is_none() => lines("export ") + "\nunset AWS_SESSION_TOKEN",
        Output::Env => lines("export "),
        Output::Json => serde_json::to_string(&Created {
            access_key_id: id.as_str(),
            secret_access_key: secret,
            session_token: token,
            expiration: expires_at.map(|expiry| format!("{expiry:.0}")),
        })?,
    });
    Ok(())
}

#[derive(Serialize)]
struct Listed<'a> {
    access_key_id: &'a str,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<&'static str>,
}

async fn list(arguments: List) -> anyhow::Result<()> {
    let deployment = arguments.location.open().await?;
    let keys = deployment.access_keys().list().await.map_err(explain)?;
    let listed: Vec<Listed<'_>> = keys
        .iter()
        .map(
            |AccessKeySummary {
                 id,
                 policy,
                 created_at,
                 expires_at,
                 session,
                 fault,
                 envelope,
             }| Listed {
                envelope: envelope.map(Envelope::as_str),
                invalid: fault.as_deref(),
                access_key_id: id.as_str(),
                owner: policy.is_none() && session.is_none(),
                session_of: session.as_ref().map(|session| session.parent.as_str()),
                session_name: session.as_ref().map(|session| session.name.as_str()),
                policy: policy.as_ref(),
                created_at: format!("{created_at:.0}"),
                expires_at: expires_at.map(|expiry| format!("{expiry:.0}")),
            },
        )
        .collect();
    match arguments.output {
        ListOutput::Json => print(&serde_json::to_string(&listed)?),
        ListOutput::Text => {
            for key in &listed {
                let session = match (key.session_of, key.session_name) {
                    (Some(parent), Some(name)) => format!("session {name} of {parent}  "),
                    _ => String::new(),
                };
                let policy = match key.policy {
                    Some(policy) => serde_json::to_string(policy)?,
                    None if key.owner => "root: everything".to_owned(),
                    None => "as the access key that began it".to_owned(),
                };
                let expiry = key.expires_at.as_deref().unwrap_or("never");
                let invalid = key.invalid.map_or_else(String::new, |fault| {
                    format!("invalid, and allows nothing ({fault}): ")
                });
                let envelope = key
                    .envelope
                    .map_or_else(String::new, |envelope| format!("envelope {envelope}  "));
                print(&format!(
                    "{}  made {}  expires {expiry}  {session}{envelope}{invalid}{policy}",
                    key.access_key_id, key.created_at
                ));
            }
        }
    }
    Ok(())
}

async fn revoke(arguments: Revoke) -> anyhow::Result<()> {
    let id = AccessKeyId::parse(&arguments.id).map_err(explain)?;
    let deployment = arguments.location.open().await?;
    deployment
        .access_keys()
        .revoke(&id)
        .await
        .map_err(explain)?;
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
