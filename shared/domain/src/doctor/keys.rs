//! The service's state, its backend, and the keys.

use jiff::{SignedDuration, Timestamp};

use super::{Code, Doctor, Finding, later, list};
use crate::error::KmsError;
use crate::keyring::RootKeyring;
use crate::keys::{KeyState, MasterKey};
use crate::ports::{Clock, Kind};
use crate::repository::Noun;
use crate::scan::Scan;
use crate::service::{BackendType, ServiceConfig, ServiceState};
use crate::vault::VAULT_WRAPPER;

/// A backend that takes longer is slow, in milliseconds.
const SLOW: u128 = 1000;
/// The janitor looks twice, an hour apart, before it destroys a key.
const OVERDUE: SignedDuration = SignedDuration::from_hours(24);

/// What the keys of the table have in common.
#[derive(Default)]
struct Census {
    keys: u64,
    /// Keys that are not wrapped by the configured backend alone.
    elsewhere: Vec<String>,
    pending: Vec<(String, String)>,
    overdue: Vec<(String, String)>,
    unreadable: Vec<(String, String)>,
}

impl Doctor {
    pub(super) async fn examine_service(
        &self,
        findings: &mut Vec<Finding>,
        newest: &mut Option<Timestamp>,
    ) {
        let config = match self.service.config().await {
            Ok(config) => config,
            Err(error) => {
                findings.push(Finding::failed("configuration", error.for_operator()));
                findings.push(Finding::failed("keys", "the configuration cannot be read"));
                return;
            }
        };
        match &config {
            None => {
                let seen = "there is no configuration";
                findings.push(Finding::new(Code::ServiceNotConfigured, "service", seen));
            }
            Some(config) => {
                if config.state == ServiceState::Configured {
                    findings.push(Finding::new(
                        Code::ServiceStopped,
                        "service",
                        "it is stopped",
                    ));
                }
                findings.push(self.backend(config).await);
            }
        }
        match self.census(config.as_deref(), newest).await {
            Ok(census) => census.tell(config.as_deref(), findings),
            Err(error) => findings.push(Finding::failed("keys", error.for_operator())),
        }
    }

    async fn backend(&self, config: &ServiceConfig) -> Finding {
        let subject = match (&config.backend_type, &config.vault) {
            (BackendType::Vault, Some(vault)) => {
                format!("Vault at {}", vault.settings.address.as_str())
            }
            (BackendType::Vault, None) => "Vault".to_owned(),
            (BackendType::Local, _) => "the local backend".to_owned(),
        };
        let begun = self.clock.monotonic();
        let checked = self.wrappers.check(config).await;
        let took = self.clock.monotonic().saturating_sub(begun).as_millis();
        match checked {
            Err(error) => Finding::new(Code::BackendUnavailable, subject, error.for_operator()),
            Ok(()) if took > SLOW => {
                Finding::new(Code::BackendSlow, subject, format!("it took {took} ms"))
            }
            Ok(()) => Finding::new(Code::BackendOk, subject, format!("it took {took} ms")),
        }
    }

    async fn census(
        &self,
        config: Option<&ServiceConfig>,
        newest: &mut Option<Timestamp>,
    ) -> Result<Census, KmsError> {
        let backend = config.map_or(BackendType::Local, |config| config.backend_type);
        let wrapper = wrapper_of(backend);
        let mut census = Census::default();
        let mut scan = Scan::all(self.table.as_ref(), Kind::Key);
        while let Some(record) = scan.record().await? {
            census.keys += 1;
            match MasterKey::of(&record) {
                Ok(key) => {
                    later(newest, key.newest_date());
                    census.add(&key, wrapper, self.clock.as_ref());
                }
                Err(error) => {
                    let name = format!("{}/{}", Kind::Key.as_str(), record.id);
                    census.unreadable.push((name, error.for_operator()));
                }
            }
        }
        Ok(census)
    }
}

const fn wrapper_of(backend: BackendType) -> &'static str {
    match backend {
        BackendType::Local => RootKeyring::NAME,
        BackendType::Vault => VAULT_WRAPPER,
    }
}

impl Census {
    fn add(&mut self, key: &MasterKey, wrapper: &str, clock: &dyn Clock) {
        let id = || key.id.as_str().to_owned();
        if !key.is_wrapped_only_by(wrapper) {
            self.elsewhere.push(id());
        }
        if let KeyState::PendingDeletion { at, .. } = key.state {
            let late = clock.now().duration_since(at);
            let seen = format!("it is due at {at:.0}");
            if late > OVERDUE {
                self.overdue.push((id(), seen));
            } else {
                self.pending.push((id(), seen));
            }
        }
    }

    fn tell(self, config: Option<&ServiceConfig>, findings: &mut Vec<Finding>) {
        let keys = self.keys;
        if self.pending.is_empty() && self.overdue.is_empty() {
            let seen = format!("{keys} keys, none of which is pending deletion");
            findings.push(Finding::new(Code::KeysOk, "keys", seen));
        }
        list(findings, Code::RecordUnreadable, self.unreadable);
        list(findings, Code::KeyPendingDeletion, self.pending);
        list(findings, Code::KeyDeletionOverdue, self.overdue);
        let Some(first) = self.elsewhere.first() else {
            let seen = format!("{keys} keys are wrapped by it");
            findings.push(Finding::new(Code::WrappersOk, "configured backend", seen));
            return;
        };
        let has_vault = config.is_some_and(|config| config.vault.is_some());
        let code = match has_vault {
            true => Code::KeyWrappedElsewhere,
            // Keys that the root does not wrap are a Vault's.
            false => Code::KeyUnopenable,
        };
        let seen = format!(
            "{} of {keys} keys, among them {first}",
            self.elsewhere.len()
        );
        findings.push(Finding::new(code, "keys", seen));
    }
}
