//! Examines a deployment through its ports. The checks read, and change nothing. A check that cannot run is a finding
//! too, and the others go on.

mod access_keys;
mod clock;
mod finding;
mod keyring;
mod keys;

use std::sync::Arc;

use jiff::Timestamp;

use crate::keyring::KeyringOnDemand;
use crate::ports::{Clock, TableReader};
use crate::service::Service;
use crate::wrappers::Wrappers;

pub use clock::compare as compare_clocks;
pub use finding::{Code, Finding, Severity, worst};

/// The examined deployment.
pub struct Doctor {
    /// The table, whose records are verified.
    pub table: Arc<dyn TableReader>,
    /// The table as it is stored.
    pub stored: Arc<dyn TableReader>,
    /// The root keyring, which need not be open.
    pub keyring: Arc<KeyringOnDemand>,
    /// Everything that wraps keys.
    pub wrappers: Arc<Wrappers>,
    /// The service, which caches nothing.
    pub service: Arc<Service>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// At most this many findings of one code are listed; the last one then says how many more there are.
const LISTED: usize = 20;

impl Doctor {
    /// Every finding of the keyring, the records, the backend, the keys, the access keys and the clock. `newest_event` is
    /// the newest date of the audit log, which the clock is compared with too.
    pub async fn examine(&self, newest_event: Option<Timestamp>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut newest = newest_event;
        let is_open = self.examine_keyring(&mut findings).await;
        if is_open {
            self.examine_roots(&mut findings).await;
            self.examine_records(&mut findings).await;
            self.examine_service(&mut findings, &mut newest).await;
            self.examine_access_keys(&mut findings, &mut newest).await;
        } else {
            let why = "the root keyring does not open, so records cannot be verified";
            for subject in ["records", "backend", "keys", "access keys"] {
                findings.push(Finding::failed(subject, why));
            }
        }
        findings.push(clock::judge(newest, self.clock.now()));
        findings
    }
}

/// The later one of two dates.
fn later(newest: &mut Option<Timestamp>, date: Timestamp) {
    if newest.is_none_or(|newest| date > newest) {
        *newest = Some(date);
    }
}

/// Adds findings of one code; beyond [`LISTED`], only their number.
fn list(findings: &mut Vec<Finding>, code: Code, found: Vec<(String, String)>) {
    let more = found.len().saturating_sub(LISTED);
    let listed = found.into_iter().take(LISTED);
    findings.extend(listed.map(|(subject, seen)| Finding::new(code, subject, seen)));
    if more > 0 {
        findings.push(Finding::new(code, "others", format!("and {more} more")));
    }
}
