//! Writes the policies of a configuration, and their identities, into the table.

use std::sync::Arc;

use keyway_domain::KmsError;
use keyway_domain::access::{Caller, Grant};
use keyway_domain::identity::{Identities, Identity, IdentityControl, PolicyName, Rules, Written};
use serde::Serialize;

use super::{ConfiguredPolicy, KesConfig, TrustedProxies};

/// Writes a configuration's policies, or says what writing them would do. It changes nothing else in the table.
pub struct ConfigImport {
    /// Reads the table.
    pub identities: Arc<Identities>,
    /// Writes the table.
    pub control: Arc<IdentityControl>,
    /// Only report what would be done.
    pub dry_run: bool,
}

/// What an import did, or with `dry_run` would do.
#[derive(Debug, Serialize)]
pub struct ImportedConfig {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// The admin, which is a setting of the server and not in the table.
    pub admin: Option<String>,
    /// The paths that need no certificate, also a setting of the server.
    pub open: Vec<String>,
    /// The trusted proxies, also a setting of the server.
    pub proxy: Option<TrustedProxies>,
    /// Fields that are not taken over, and what to do instead.
    pub left_out: Vec<String>,
    /// The policies in the order of their names.
    pub policies: Vec<ImportedPolicy>,
    /// What the operator should check.
    pub warnings: Vec<String>,
}

/// The result for one policy.
#[derive(Debug, Serialize)]
pub struct ImportedPolicy {
    /// Its name.
    pub name: String,
    /// `created`, `replaced` or `unchanged`.
    pub result: &'static str,
    /// How many patterns it allows.
    pub allow: usize,
    /// How many patterns it denies.
    pub deny: usize,
    /// The identities that have the policy.
    pub identities: Vec<ImportedIdentity>,
}

/// The result for one identity that has a policy.
#[derive(Debug, Serialize)]
pub struct ImportedIdentity {
    /// The identity.
    pub identity: String,
    /// `created`, `replaced` or `unchanged`.
    pub result: &'static str,
}

/// The result of what the table already has.
pub const UNCHANGED: &str = "unchanged";

const fn word(written: Written) -> &'static str {
    match written {
        Written::Created => "created",
        Written::Replaced => "replaced",
        Written::Unchanged => UNCHANGED,
    }
}

impl ConfigImport {
    /// Imports the configuration. It may run again, and then leaves equal policies unchanged.
    ///
    /// # Errors
    /// [`KmsError`] of the first policy or identity that could not be written. Those before it stay written.
    pub async fn run(&self, config: &KesConfig) -> Result<ImportedConfig, KmsError> {
        let principal = config.admin.as_ref().map_or("keyway", Identity::as_str);
        let caller = Caller::new(principal, Arc::new(Grant::Owner));
        let mut policies = Vec::new();
        for policy in &config.policies {
            policies.push(self.policy(&caller, policy).await?);
        }
        Ok(ImportedConfig {
            dry_run: self.dry_run,
            admin: config.admin.as_ref().map(Identity::to_string),
            open: config.open.clone(),
            proxy: config.proxy.clone(),
            left_out: config.left_out.clone(),
            policies,
            warnings: config.warnings.clone(),
        })
    }

    async fn policy(
        &self,
        caller: &Caller,
        policy: &ConfiguredPolicy,
    ) -> Result<ImportedPolicy, KmsError> {
        let ConfiguredPolicy {
            name,
            rules,
            identities: holders,
        } = policy;
        let result = word(self.write(caller, name, rules).await?);
        let mut identities = Vec::new();
        for identity in holders {
            identities.push(ImportedIdentity {
                identity: identity.to_string(),
                result: word(self.assign(caller, name, identity).await?),
            });
        }
        Ok(ImportedPolicy {
            name: name.to_string(),
            result,
            allow: rules.allow().len(),
            deny: rules.deny().len(),
            identities,
        })
    }

    async fn write(
        &self,
        caller: &Caller,
        name: &PolicyName,
        rules: &Rules,
    ) -> Result<Written, KmsError> {
        if !self.dry_run {
            return self.control.write(caller, name, rules).await;
        }
        match self.identities.policy(caller, name).await {
            Ok(policy) if policy.rules == *rules => Ok(Written::Unchanged),
            Ok(_) => Ok(Written::Replaced),
            Err(KmsError::PolicyNotFound(_)) => Ok(Written::Created),
            Err(error) => Err(error),
        }
    }

    async fn assign(
        &self,
        caller: &Caller,
        name: &PolicyName,
        identity: &Identity,
    ) -> Result<Written, KmsError> {
        if !self.dry_run {
            return self.control.assign(caller, name, identity).await;
        }
        match self.identities.describe_self(identity).await {
            Ok((known, _)) if known.policy.as_ref() == Some(name) => Ok(Written::Unchanged),
            Ok(_) => Ok(Written::Replaced),
            Err(KmsError::IdentityNotFound(_)) => Ok(Written::Created),
            Err(error) => Err(error),
        }
    }
}
