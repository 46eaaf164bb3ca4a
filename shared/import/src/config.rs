//! Reads a KES server's configuration: what Keyway takes over, what it does not, and what the operator should check.
//!
//! No error and no warning repeats a value that may be a credential.

mod apply;
mod fields;
mod file;
mod patterns;

use std::collections::BTreeMap;
use std::error::Error;

use keyway_auth::certificate::ProxyCertificateHeader;
use keyway_dialect_kes::OpenPaths;
use keyway_domain::identity::{Identity, PolicyName, Rules, is_kes_name};
use keyway_domain::keys::KeyId;
use keyway_domain::{InvalidId, KmsError};
use serde::Serialize;
use serde_json::Value;

pub use apply::{ConfigImport, ImportedConfig, ImportedIdentity, ImportedPolicy, UNCHANGED};
use file::File;

/// The longest configuration that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The settings of a configuration.
#[derive(Debug, Default)]
pub struct KesConfig {
    /// The identity that may do everything.
    pub admin: Option<Identity>,
    /// The policies, in the order of their names.
    pub policies: Vec<ConfiguredPolicy>,
    /// Paths that need no certificate.
    pub open: Vec<String>,
    /// The proxies whose header about a client's certificate is believed.
    pub proxy: Option<TrustedProxies>,
    /// Fields that are not taken over, and what to do instead.
    pub left_out: Vec<String>,
    /// What the operator should check.
    pub warnings: Vec<String>,
}

/// A policy, and the identities that have it.
#[derive(Debug)]
pub struct ConfiguredPolicy {
    /// Its name.
    pub name: PolicyName,
    /// The patterns that it allows and denies.
    pub rules: Rules,
    /// The identities that have the policy.
    pub identities: Vec<Identity>,
}

/// The proxies whose header about a client's certificate is believed.
#[derive(Debug, Clone, Serialize)]
pub struct TrustedProxies {
    /// The header that holds the certificate.
    pub header: &'static str,
    /// The proxies' identities.
    pub identities: Vec<String>,
}

/// Why a configuration cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not YAML, or a field has another type. The place follows where it is known.
    #[error(
        "is not YAML as KES's configuration has it: not YAML, or `root`, `admin`, `policy`, `api`, `tls` or `keys` is of another type than it should be{0}"
    )]
    NotYaml(String),
    /// A variable could not be read.
    #[error(transparent)]
    Variable(Box<dyn Error + Send + Sync>),
    /// `root` and `admin.identity` contradict each other.
    #[error("`root` and `admin.identity` name two different identities")]
    TwoAdmins,
    /// The admin is not an identity, or a policy's name is not valid.
    #[error(transparent)]
    Invalid(#[from] InvalidId),
    /// A policy's pattern or identity is not valid.
    #[error("policy {policy}: {}", .reason.for_operator())]
    InvalidPolicy {
        /// The policy.
        policy: PolicyName,
        /// What is wrong with it.
        reason: KmsError,
    },
    /// The admin has a policy.
    #[error("policy {policy}: the admin {admin} cannot have a policy")]
    AdminWithPolicy {
        /// The policy.
        policy: PolicyName,
        /// The admin.
        admin: Identity,
    },
    /// An identity has two policies.
    #[error("identity {number} of policy {policy} cannot have the policy {other} as well")]
    TwoPolicies {
        /// The identity's number within the policy, from 1.
        number: usize,
        /// The policy.
        policy: PolicyName,
        /// The other policy.
        other: PolicyName,
    },
}

impl KesConfig {
    /// Reads a configuration. `variable` gives the value of each `${NAME}`.
    ///
    /// # Errors
    /// [`ConfigError`], also for configurations that KES itself refuses.
    pub fn parse<E: Into<Box<dyn Error + Send + Sync>>>(
        text: &str,
        variable: impl Fn(&str) -> Result<Option<String>, E>,
    ) -> Result<Self, ConfigError> {
        // Some editors put a byte order mark before the text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let whole: Option<Value> =
            serde_saphyr::from_str(text).map_err(|error| not_yaml(&error))?;
        let file: Option<File> = serde_saphyr::from_str(text).map_err(|error| not_yaml(&error))?;
        let file = file.unwrap_or_default();
        let variable =
            |name: &str| variable(name).map_err(|error| ConfigError::Variable(error.into()));
        let mut reader = Reader {
            variable: &variable,
            config: Self {
                left_out: fields::left_out(&whole.unwrap_or_default()),
                ..Self::default()
            },
        };
        reader.admin(file.root, file.admin)?;
        reader.policies(file.policy.unwrap_or_default())?;
        reader.proxy(file.tls.and_then(|tls| tls.proxy).unwrap_or_default())?;
        reader.open_paths(file.api.unwrap_or_default());
        reader.keys(file.keys);
        Ok(reader.config)
    }
}

/// Keeps only the place: the parser's own texts quote lines of the configuration, which holds credentials.
fn not_yaml(error: &serde_saphyr::Error) -> ConfigError {
    let place = error.location();
    let place = place.map(|place| format!(" (line {}, column {})", place.line(), place.column()));
    ConfigError::NotYaml(place.unwrap_or_default())
}

/// The values with which KES's configuration says that there is no admin.
const DISABLED: [&str; 3] = ["disabled", "_", "none"];

struct Reader<'v> {
    variable: &'v dyn Fn(&str) -> Result<Option<String>, ConfigError>,
    config: KesConfig,
}

impl Reader<'_> {
    fn warn(&mut self, warning: impl Into<String>) {
        self.config.warnings.push(warning.into());
    }

    /// The text, or the value of the variable that it names. A warning for an unset variable names `what`.
    fn resolved(&mut self, text: &str, what: &str) -> Result<String, ConfigError> {
        let text = text.trim();
        let Some(name) = text
            .strip_prefix("${")
            .and_then(|text| text.strip_suffix('}'))
        else {
            return Ok(text.to_owned());
        };
        let value = (self.variable)(name.trim())?;
        if value.is_none() {
            self.warn(if is_variable(name.trim()) {
                format!("{what}: the variable {name} is not set; left out")
            } else {
                format!("{what}: a variable that is none is not set; left out")
            });
        }
        Ok(value.unwrap_or_default().trim().to_owned())
    }

    /// The resolved texts that are not empty.
    fn all_resolved(
        &mut self,
        texts: Option<Vec<String>>,
        what: &str,
    ) -> Result<Vec<String>, ConfigError> {
        let mut resolved = Vec::new();
        for text in texts.unwrap_or_default() {
            let text = self.resolved(&text, what)?;
            if !text.is_empty() {
                resolved.push(text);
            }
        }
        Ok(resolved)
    }

    fn admin(
        &mut self,
        root: Option<String>,
        admin: Option<file::Admin>,
    ) -> Result<(), ConfigError> {
        let admin = match (root, admin.and_then(|admin| admin.identity)) {
            (Some(root), Some(admin)) if root != admin => return Err(ConfigError::TwoAdmins),
            (root, admin) => admin.or(root),
        };
        let Some(admin) = admin else {
            return Ok(());
        };
        let admin = self.resolved(&admin, "admin")?;
        // A value that is not the hash of a key, such as `disabled`, means in KES that there is no admin.
        if is_hash(&admin) {
            self.config.admin = Some(Identity::parse(&admin)?);
        } else if DISABLED.contains(&admin.as_str()) {
            self.warn(format!("admin: `{admin}` is no identity, so there is none"));
        } else if !admin.is_empty() {
            // Do not repeat it: it may be an API key in the wrong place.
            self.warn("admin: what stands there is no identity, so there is none");
        }
        Ok(())
    }

    fn policies(
        &mut self,
        policies: BTreeMap<String, Option<file::Policy>>,
    ) -> Result<(), ConfigError> {
        let mut holders = BTreeMap::new();
        for (name, policy) in policies {
            let name = PolicyName::parse(&name)?;
            let policy = self.policy(name, policy.unwrap_or_default(), &mut holders)?;
            self.config.policies.push(policy);
        }
        Ok(())
    }

    fn policy(
        &mut self,
        name: PolicyName,
        policy: file::Policy,
        holders: &mut BTreeMap<Identity, PolicyName>,
    ) -> Result<ConfiguredPolicy, ConfigError> {
        let what = format!("policy {name}");
        let mut allow = self.all_resolved(policy.paths, &what)?;
        allow.extend(self.all_resolved(policy.allow, &what)?);
        let deny = self.all_resolved(policy.deny, &what)?;
        let members = self.all_resolved(policy.identities, &what)?;
        self.warn_of_patterns(&name, &allow, false);
        self.warn_of_patterns(&name, &deny, true);
        let invalid = |reason| ConfigError::InvalidPolicy {
            policy: name.clone(),
            reason,
        };
        let rules = Rules::parse(allow, deny).map_err(invalid)?;
        let mut identities = Vec::new();
        for (number, member) in (1..).zip(members) {
            let identity = Identity::parse(&member)
                .map_err(KmsError::from)
                .map_err(invalid)?;
            if !is_hash(&member) {
                self.warn(format!(
                    "policy {name}: nobody can prove to be identity {number}, for it is not the hash of a key"
                ));
            }
            if self.config.admin.as_ref() == Some(&identity) {
                return Err(ConfigError::AdminWithPolicy {
                    policy: name,
                    admin: identity,
                });
            }
            match holders.insert(identity.clone(), name.clone()) {
                Some(other) if other != name => {
                    return Err(ConfigError::TwoPolicies {
                        number,
                        policy: name,
                        other,
                    });
                }
                _ => identities.push(identity),
            }
        }
        Ok(ConfiguredPolicy {
            name,
            rules,
            identities,
        })
    }

    fn warn_of_patterns(&mut self, policy: &PolicyName, patterns: &[String], is_denied: bool) {
        let word = if is_denied { "deny" } else { "allow" };
        for (number, pattern) in (1..).zip(patterns) {
            if let Some(why) = patterns::warning(pattern, is_denied) {
                // A text that is not a path may be a credential in the wrong place.
                let shown = if pattern.starts_with("/v1/") {
                    format!("`{pattern}`")
                } else {
                    format!("{word} pattern {number}")
                };
                self.warn(format!("policy {policy}: {shown} {why}"));
            }
        }
    }

    fn proxy(&mut self, proxy: file::Proxy) -> Result<(), ConfigError> {
        let identities = self.all_resolved(proxy.identities, "tls.proxy")?;
        if identities.is_empty() {
            return Ok(());
        }
        let header = proxy.header.and_then(|header| header.cert);
        let header = header.filter(|header| !header.is_empty());
        let header = header.map_or(Ok(ProxyCertificateHeader::TlsClientCert), |header| {
            header.parse()
        });
        let Ok(header) = header else {
            self.warn(
                "tls.proxy.header.cert: only X-Tls-Client-Cert, X-Amzn-Mtls-Clientcert and X-Amzn-Mtls-Clientcert-Leaf are read; the proxy is left out",
            );
            return Ok(());
        };
        let (identities, others): (Vec<_>, Vec<_>) = identities
            .into_iter()
            .partition(|identity| is_hash(identity));
        if !others.is_empty() {
            self.warn(format!(
                "tls.proxy.identities: {} of them are no hash of a key; left out",
                others.len()
            ));
        }
        if !identities.is_empty() {
            self.config.proxy = Some(TrustedProxies {
                header: header.as_str(),
                identities,
            });
        }
        Ok(())
    }

    fn open_paths(&mut self, api: BTreeMap<String, Option<file::Api>>) {
        for (path, api) in api {
            if api.is_none_or(|api| api.skip_auth != Some(true)) {
                continue;
            }
            if OpenPaths::parse(&path).is_ok() {
                self.config.open.push(path);
            } else {
                self.warn(
                    "api: a path other than /v1/ready, /v1/status, /v1/metrics and /v1/api needs a certificate here",
                );
            }
        }
    }

    fn keys(&mut self, keys: Option<file::Keys>) {
        let Some(file::Keys::ToMake(keys)) = keys else {
            return;
        };
        for key in keys {
            self.warn(match KeyId::parse("keys", &key.name) {
                Ok(id) => format!("keys: `{id}` is not made here"),
                Err(_) => "keys: one whose name is no key's is not made here".to_owned(),
            });
        }
    }
}

/// Whether a variable can have this name.
fn is_variable(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether the identity is the SHA-256 of a public key in hex.
fn is_hash(identity: &str) -> bool {
    is_kes_name(identity)
        && identity.len() == 64
        && identity
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc";
    const B: &str = "1d7562ffd775ed4da949e4b08fe1085fba4991cadba4a96142a578c30106ba23";

    fn config(text: &str) -> Result<KesConfig, ConfigError> {
        KesConfig::parse(text, |name| {
            Ok::<_, ConfigError>((name == "MINIO_IDENTITY").then(|| A.to_owned()))
        })
    }

    #[test]
    fn fields_of_every_generation_are_read() {
        let old = config(&format!(
            "address: 0.0.0.0:7373\nroot: {B}\ntls:\n  key: server.key\npolicy:\n  minio:\n    paths:\n    - /v1/key/create/minio-*\n    - /v1/key/*/x\n    identities:\n    - ${{MINIO_IDENTITY}}\n    - ${{NOT_SET}}\n"
        ))
        .unwrap();
        assert_eq!(old.admin.as_ref().unwrap().as_str(), B);
        let marked = config(&format!("\u{feff}root: {B}\n")).unwrap();
        assert_eq!(marked.admin.as_ref().unwrap().as_str(), B);
        let minio = &old.policies[0];
        assert_eq!(minio.identities, [Identity::parse(A).unwrap()]);
        assert_eq!(
            minio.rules.allow().collect::<Vec<_>>(),
            ["/v1/key/*/x", "/v1/key/create/minio-*"]
        );
        assert_eq!(old.warnings.len(), 2, "{:?}", old.warnings);

        let new = config(&format!(
            "version: v1\nadmin:\n  identity: ${{MINIO_IDENTITY}} # the env's\napi:\n  /v1/ready:\n    skip_auth: true\n    timeout: 15s\n  /v1/status:\n    skip_auth: false\npolicy:\n  my-app:\n    allow: [/v1/key/*, \"/v1/status\"]\n    deny:\n    - /v1/key/delete/*\n    - /v1/[\n    identities: [{B}]\n  empty:\nkeys:\n  - name: k\nkeystore:\n  fs:\n    path: ./keys\n"
        ))
        .unwrap();
        assert_eq!(new.admin.as_ref().unwrap().as_str(), A);
        assert_eq!(new.open, ["/v1/ready"]);
        assert_eq!(new.policies.len(), 2);
        assert_eq!(new.policies[1].rules.deny().len(), 2);
        assert_eq!(new.warnings.len(), 3, "{:?}", new.warnings);
        assert!(
            new.warnings
                .iter()
                .any(|warning| warning.contains("`/v1/key/*` now allows"))
        );
    }

    #[test]
    fn proxy_becomes_settings() {
        let text = |header: &str| {
            format!(
                "tls:\n  proxy:\n    identities:\n    - {B}\n    - ${{MINIO_IDENTITY}}\n    - ${{NOT_SET}}\n{header}"
            )
        };
        for header in ["", "    header:\n      cert: x-tls-client-cert\n"] {
            let proxy = config(&text(header)).unwrap().proxy.unwrap();
            assert_eq!(proxy.header, "X-Tls-Client-Cert");
            assert_eq!(proxy.identities, [B, A]);
        }
        let other = config(&text("    header:\n      cert: X-Client\n")).unwrap();
        assert!(other.proxy.is_none());
        let said =
            |read: &KesConfig, what: &str| read.warnings.iter().any(|line| line.contains(what));
        assert!(said(&other, "tls.proxy.header.cert"), "{other:?}");
        let wrong = config("tls: {proxy: {identities: [proxy]}}").unwrap();
        assert!(wrong.proxy.is_none());
        assert!(said(&wrong, "tls.proxy.identities"), "{wrong:?}");
        let none = config("tls: {proxy: {identities: [], header: {cert: X-Tls-Client-Cert}}}");
        let none = none.unwrap();
        assert!(none.proxy.is_none() && none.warnings.is_empty());
    }

    #[test]
    fn every_field_is_taken_over_or_named() {
        let all = "version: v1\naddress: 0.0.0.0:7373\nadmin: {identity: disabled}\ntls:\n  key: k\n  cert: c\n  password: hunter2\n  auth: on\n  ca: a\napi:\n  /v1/ready: {skip_auth: true, timeout: 15s}\n  /v1/key/create/: {skip_auth: true}\ncache: {expiry: {any: 5m, unused: 20s, offline: 0s}}\nlog: {error: on, audit: off}\nkeys: [{name: k}]\nkeystore:\n  fs: {path: keys}\n  vault: {endpoint: \"\", tls: {ca: \"\"}}\nnew: {field: 5}\nAKIAEXAMPLE: x\n";
        let read = config(all).unwrap();
        let fields: Vec<&str> = read
            .left_out
            .iter()
            .map(|line| line.split(": ").next().unwrap())
            .collect();
        let mut expected = [
            "address",
            "tls.key",
            "tls.cert",
            "tls.password",
            "tls.auth",
            "tls.ca",
            "api./v1/ready.timeout",
            "cache.expiry.any",
            "cache.expiry.unused",
            "cache.expiry.offline",
            "log.error",
            "log.audit",
            "keystore.fs",
            "new.field",
            "?",
        ];
        let mut fields = fields;
        fields.sort_unstable();
        expected.sort_unstable();
        assert_eq!(fields, expected);
        assert!(!read.left_out.iter().any(|line| line.contains("hunter2")));
        assert_eq!(read.open, ["/v1/ready"]);
        let of_api = |line: &String| line.starts_with("api: ");
        assert_eq!(read.warnings.iter().filter(|line| of_api(line)).count(), 1);
        // The first generation of KES has its key store in another field.
        let old = config("keys: {fs: {path: keys}, aws: {region: x}}");
        let left_out = old.unwrap().left_out;
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        assert!(
            left_out
                .iter()
                .any(|line| line.contains("--from-secrets-manager"))
        );
    }

    #[test]
    fn configuration_without_an_admin_is_read() {
        for text in [
            "",
            "admin:\n  identity: disabled\n",
            "root: _\n",
            "admin: {identity: \"\"}\n",
        ] {
            let read = config(text).unwrap();
            assert!(read.admin.is_none() && read.policies.is_empty(), "{text}");
        }
    }

    #[test]
    fn configuration_that_kes_refuses_is_refused() {
        for text in [
            "policy: [".to_owned(),
            "policy: 5".to_owned(),
            format!("root: {A}\nadmin: {{identity: {B}}}"),
            format!("root: {A}\npolicy: {{p: {{identities: [{A}]}}}}"),
            format!("policy: {{p: {{identities: [{A}]}}, q: {{identities: [{A}]}}}}"),
            "policy: {a.b: {allow: [/x]}}".to_owned(),
            "policy: {p: {identities: [a/b]}}".to_owned(),
        ] {
            assert!(config(&text).is_err(), "{text}");
        }
    }
}
