//! `keyway reencrypt`: ciphertexts of AWS KMS, decrypted there and encrypted under a key here.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use keyway_audit::OperatorAction;
use keyway_deployment_assembly::environment;
use keyway_domain::keys::KeyId;
use keyway_domain::one_line;
use keyway_reencryption::{Event, Output, Reencryption};

use crate::command_log::CommandLog;
use crate::location::DeploymentLocation;
use crate::tell;

/// Where AWS's tools look for the endpoint, in this order.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"];

#[derive(Args)]
#[command(
    after_help = "Each line of the input is a ciphertext in base64, or a JSON object:
  {\"ciphertext\": \"AQIDAH...\", \"encryption_context\": {\"bucket\": \"reports\"}}
AWS's own names, CiphertextBlob and EncryptionContext, do as well. Each line of the output is a JSON object with the
ciphertext of AWS KMS as `source`, and with `ciphertext`, `key_id` and `encryption_context` for Keyway. Plaintexts are
only in memory. A line that cannot be moved is reported, and the others are moved."
)]
pub(crate) struct Reencrypt {
    #[command(flatten)]
    location: DeploymentLocation,

    /// Decrypt at AWS KMS, with the credentials that AWS's own tools would use here; they need kms:Decrypt
    #[arg(long, required = true)]
    from_aws: bool,

    /// The region of AWS KMS, when it is not that of --region
    #[arg(long, value_name = "REGION")]
    from_region: Option<String>,

    /// The key here that encrypts
    #[arg(long, value_name = "KEY_ID")]
    key: String,

    /// The file with the ciphertexts; else standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// The file for the new ciphertexts, with which a later run can go on; else standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// The number of ciphertexts that move at once
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=128))]
    concurrency: u8,
}

pub(crate) async fn run(job: Reencrypt) -> anyhow::Result<()> {
    debug_assert!(job.from_aws, "clap requires it");
    let key = KeyId::parse("--key", &job.key).map_err(|error| anyhow::anyhow!("{error}"))?;
    let input = input(job.input.as_deref())?;
    let mut output = output(job.to.as_deref(), &key)?;
    let source = (job.location)
        .aws_kms(job.from_region.as_deref(), endpoint()?)
        .await?;
    let ports = match &job.from_region {
        Some(_) => job.location.open().await?,
        None => job.location.open_beside_account().await?,
    };
    let action = OperatorAction::Reencrypt;
    let log = CommandLog::begin(&ports, action).await?;
    let key_id = key.as_str().to_owned();
    let data_keys = ports.operated_data_keys();
    let reencryption = Reencryption::new(source, data_keys, key, job.concurrency.into());
    let bar = bar()?;
    let ended = reencryption
        .run(input, &mut output, |event| match event {
            Event::Done => bar.inc(1),
            Event::Failed { line, reason } => {
                bar.suspend(|| tell(&format!("line {line}: {reason}")));
            }
        })
        .await;
    bar.finish_and_clear();
    let ended = ended.map_err(|error| {
        anyhow::anyhow!(one_line(&error)).context(if job.to.is_some() {
            "stopped; what was done stays done, run it again to go on"
        } else {
            "stopped; what was printed is done"
        })
    });
    let report = log.ended(action, ended, |report, event| {
        event
            .on_keys([key_id])
            .counted("reencrypted", report.reencrypted)
            .counted("already_there", report.already_there)
            .counted("failed", report.failed)
    });
    let report = report.await?;
    tell(&format!(
        "{} ciphertexts moved, {} were moved already, {} failed",
        report.reencrypted, report.already_there, report.failed
    ));
    if report.failed > 0 {
        bail!("{} lines could not be moved", report.failed);
    }
    Ok(())
}

fn endpoint() -> anyhow::Result<Option<String>> {
    for name in ENDPOINTS {
        if let Some(endpoint) = environment(name)? {
            return Ok(Some(endpoint.to_string()));
        }
    }
    Ok(None)
}

fn input(path: Option<&Path>) -> anyhow::Result<Box<dyn BufRead + Send>> {
    Ok(match path {
        None => Box::new(BufReader::new(io::stdin())),
        Some(path) => {
            let file = File::open(path);
            let file =
                file.with_context(|| format!("the file {} cannot be read", path.display()))?;
            Box::new(BufReader::new(file))
        }
    })
}

fn output(path: Option<&Path>, key: &KeyId) -> anyhow::Result<Output> {
    Ok(match path {
        None => Output::stream(io::stdout()),
        Some(path) => {
            let output = Output::file(path, key);
            output.with_context(|| format!("the file {} cannot be used", path.display()))?
        }
    })
}

/// It is shown only on a terminal. The length of the input is unknown.
fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {pos} ciphertexts, {elapsed} gone")?;
    Ok(ProgressBar::no_length().with_style(style))
}
