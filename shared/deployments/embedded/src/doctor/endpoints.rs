//! Findings about servers that answer over HTTP: this deployment's own, and those whose dates the clock is compared with.

use std::sync::Arc;

use http::Uri;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use keyway_auth::certificate::Validity;
use keyway_deployment_assembly::Reading;
use keyway_domain::doctor::{Code, Finding, compare_clocks};
use keyway_domain::ports::Clock;
use keyway_runtime_hyper::{Answered, examine};

use super::certificates::{Purpose, judge};

/// The page that says whether a server can do its work.
const READY: &str = "/health/ready";

/// Findings about these servers, and about the clocks of the deployment's services that answer, and of its Vault. A server's
/// certificate is examined and not verified: nothing secret is sent, and nothing but dates is believed.
pub async fn endpoint_findings(
    servers: &[Uri],
    dated_services: &[String],
    ports: Option<&Reading>,
    clock: &Arc<dyn Clock>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for server in servers {
        findings.extend(server_findings(server, clock.as_ref()).await);
    }
    for address in dated_services {
        if let Ok(service) = address.parse()
            && let Ok(answered) = examine(&service, "/").await
        {
            findings.extend(dated(address, &answered, clock.now()));
        }
    }
    if let Some(vault) = vault_of(ports).await
        && let Ok(answered) = examine(&vault, "/v1/sys/health").await
    {
        // The backend's own finding says whether it answers.
        let subject = format!("Vault at {vault}");
        findings.extend(dated(&subject, &answered, clock.now()));
        findings.extend(certificate(&subject, &answered, clock.now()));
    }
    findings
}

async fn server_findings(server: &Uri, clock: &dyn Clock) -> Vec<Finding> {
    let subject = server.to_string();
    let begun = clock.monotonic();
    let answered = match examine(server, READY).await {
        Ok(answered) => answered,
        Err(error) => {
            return vec![Finding::new(
                Code::EndpointUnavailable,
                subject,
                error.to_string(),
            )];
        }
    };
    let took = clock.monotonic().saturating_sub(begun).as_millis();
    let status = answered.status;
    let (code, seen) = match status.is_server_error() {
        true => (
            Code::EndpointUnavailable,
            format!("it answered with status {status}"),
        ),
        false => (Code::EndpointOk, format!("it answered in {took} ms")),
    };
    let mut findings = vec![Finding::new(code, &subject, seen)];
    findings.extend(certificate(&subject, &answered, clock.now()));
    findings.extend(dated(&subject, &answered, clock.now()));
    findings
}

fn certificate(subject: &str, answered: &Answered, now: Timestamp) -> Option<Finding> {
    let der = answered.certificate.as_deref()?;
    Some(match Validity::of_der(der) {
        Ok(validity) => judge(subject, Purpose::Listener, &validity, now),
        Err(error) => Finding::new(Code::CertificateUnreadable, subject, error.to_string()),
    })
}

fn dated(subject: &str, answered: &Answered, now: Timestamp) -> Option<Finding> {
    let date = rfc2822::parse(answered.date.as_deref()?).ok()?;
    Some(compare_clocks(subject, date.timestamp(), now))
}

async fn vault_of(ports: Option<&Reading>) -> Option<Uri> {
    let config = ports?.doctor().service.config().await.ok()??;
    config
        .vault
        .as_ref()?
        .settings
        .address
        .as_str()
        .parse()
        .ok()
}
