//! `keyway doctor`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use keyway_deployment_assembly::SystemClock;
use keyway_deployment_embedded::{
    Inspected, Purpose, backup_finding, certificate_findings, endpoint_findings,
    listener_certificate,
};
use keyway_domain::doctor::{Code, Finding, Severity, worst};
use keyway_domain::ports::Clock;
use keyway_runtime_hyper::{Clients, Tls};
use serde_json::json;

use crate::listener_files::{KesFiles, TlsFiles};
use crate::location::DeploymentLocation;
use crate::migration::Output;
use crate::{print, tell};

/// What the exit codes mean, for the help.
pub(crate) const EXIT_CODES: &str =
    "Exit codes: 0 nothing above a notice, 1 an error, 2 wrong usage, 3 a warning and no error.
docs/doctor.md lists the codes of findings.";

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    location: DeploymentLocation,

    /// Ask this server too, such as https://kms.example.com:9000: whether it answers, its certificate and its clock; may be
    /// given more than once
    #[arg(long, value_name = "URL")]
    endpoint: Vec<http::Uri>,

    #[command(flatten)]
    tls: TlsFiles,

    #[command(flatten)]
    kes: KesFiles,

    /// The newest backup, whose age is checked by its date of modification
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,

    /// How to print the findings
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(doctor: Doctor) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let findings = examine(&doctor, &clock).await?;
    match doctor.output {
        Output::Json => print(&encoded(&findings).to_string()),
        Output::Text => findings.iter().for_each(show),
    }
    if matches!(doctor.output, Output::Text) {
        tell(&summary(&findings));
    }
    Ok(match worst(&findings) {
        Severity::Ok | Severity::Notice => ExitCode::SUCCESS,
        Severity::Warning => ExitCode::from(3),
        Severity::Error => ExitCode::FAILURE,
    })
}

async fn examine(doctor: &Doctor, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Finding>> {
    let Inspected {
        mut findings,
        unverified,
        ports,
        dated,
    } = doctor.location.inspect().await?;
    let mut newest_event = None;
    match unverified {
        Some((table, clock)) => {
            let (found, newest) = keyway_audit::doctor::examine(table, clock).await;
            findings.extend(found);
            newest_event = newest;
        }
        None => findings.push(Finding::failed("audit log", "the table does not open")),
    }
    match &ports {
        Some(ports) => findings.extend(ports.doctor().examine(newest_event).await),
        None => {
            let why = "the table or the root keyring does not open";
            for subject in ["records", "backend", "keys", "access keys"] {
                findings.push(Finding::failed(subject, why));
            }
        }
    }
    findings.extend(certificates(doctor, clock.now()));
    findings.extend(endpoint_findings(&doctor.endpoint, &dated, ports.as_ref(), clock).await);
    findings.push(backup_finding(doctor.backup.as_deref(), clock.now()));
    Ok(findings)
}

/// Findings about the certificates of the listeners, as far as the options or the data folder name them.
fn certificates(doctor: &Doctor, now: Timestamp) -> Vec<Finding> {
    let made = doctor.location.folder().and_then(listener_certificate);
    let listeners = [
        (
            doctor.tls.tls_cert.as_deref(),
            doctor.tls.tls_key.as_deref(),
        ),
        (
            doctor.kes.kes_cert.as_deref(),
            doctor.kes.kes_key.as_deref(),
        ),
        (made.as_deref(), None),
    ];
    let mut findings = Vec::new();
    for (certificate, key) in listeners {
        let Some(certificate) = certificate else {
            continue;
        };
        findings.extend(certificate_findings(certificate, Purpose::Listener, now));
        findings.extend(key.and_then(|key| pair(certificate, key)));
    }
    if let Some(authorities) = &doctor.kes.kes_client_ca {
        findings.extend(certificate_findings(authorities, Purpose::Authority, now));
    }
    findings
}

/// A finding if a listener could not serve with this certificate and key.
fn pair(certificate: &Path, key: &Path) -> Option<Finding> {
    let refused = Tls::from_files(certificate, key, Clients::Anonymous).err()?;
    let subject = key.display().to_string();
    Some(Finding::new(
        Code::CertificateUnreadable,
        subject,
        refused.to_string(),
    ))
}

fn encoded(findings: &[Finding]) -> serde_json::Value {
    let each = findings.iter().map(|finding| {
        let code = finding.code;
        let action = Some(code.action()).filter(|action| !action.is_empty());
        json!({
            "severity": finding.severity().as_str(),
            "code": code.as_str(),
            "subject": finding.subject,
            "seen": finding.seen,
            "action": action,
        })
    });
    json!({
        "worst": worst(findings).as_str(),
        "findings": each.collect::<Vec<_>>(),
    })
}

fn show(finding: &Finding) {
    let (code, severity) = (finding.code, finding.severity().as_str());
    let name = code.as_str();
    let line = format!(
        "{severity:<8} {name:<27} {}: {}",
        finding.subject, finding.seen
    );
    print(&line);
    if !code.action().is_empty() {
        print(&format!("{:<36} {}", "", code.action()));
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |severity| {
        let found = findings.iter();
        found
            .filter(|finding| finding.severity() == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    format!(
        "{errors} errors, {warnings} warnings, {} notices, {} ok",
        count(Severity::Notice),
        count(Severity::Ok)
    )
}
