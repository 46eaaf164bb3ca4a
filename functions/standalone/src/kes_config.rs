//! `keyway import kes-config`.

mod fields;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use keyway_auth::certificate::ProxyCertificateHeader;
use keyway_deployment_assembly::environment;
use keyway_dialect_kes::{self as kes, OpenPaths};
use keyway_domain::KmsError;
use keyway_domain::access::{Caller, Grant};
use keyway_domain::identity::{
    Identities, Identity, IdentityControl, PolicyName, Rules, Written, is_kes_name,
};
use keyway_domain::keys::KeyId;
use keyway_domain::paths::{PathPattern, PatternKind};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::location::DeploymentLocation;
use crate::migration::Output;
use crate::{explain, print, tell};

/// Policies are made or overwritten and identities get them; what the table has besides is left as it is.
#[derive(Args)]
pub(crate) struct KesConfig {
    #[command(flatten)]
    place: DeploymentLocation,

    /// KES's configuration file
    #[arg(value_name = "SERVER-CONFIG.YAML")]
    file: PathBuf,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,

    /// How to print what was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The fields that are taken over, as any generation of KES spells them; [`fields`] names the others.
#[derive(Default, Deserialize)]
struct File {
    /// Of the first generation.
    root: Option<String>,
    /// Of the later ones.
    admin: Option<Admin>,
    policy: Option<BTreeMap<String, Option<Policy>>>,
    api: Option<BTreeMap<String, Option<Api>>>,
    keys: Option<Keys>,
    tls: Option<Tls>,
}

#[derive(Deserialize)]
struct Admin {
    identity: Option<String>,
}

#[derive(Default, Deserialize)]
struct Policy {
    /// What the first generation calls `allow`.
    paths: Option<Vec<String>>,
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
    identities: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Api {
    skip_auth: Option<bool>,
}

/// Keys that are to be made, or up to v0.18 the key store.
#[derive(Deserialize)]
#[serde(untagged)]
enum Keys {
    ToMake(Vec<Key>),
    Store(IgnoredAny),
}

#[derive(Deserialize)]
struct Key {
    name: String,
}

#[derive(Deserialize)]
struct Tls {
    proxy: Option<TlsProxy>,
}

#[derive(Deserialize)]
struct TlsProxy {
    identities: Option<Vec<String>>,
    header: Option<ProxyHeader>,
}

#[derive(Deserialize)]
struct ProxyHeader {
    cert: Option<String>,
}

/// What a file asks for.
#[derive(Debug, Default)]
struct Plan {
    admin: Option<Identity>,
    policies: Vec<Planned>,
    open: Vec<String>,
    proxy: Option<Proxy>,
    left_out: Vec<String>,
    warnings: Vec<String>,
}

/// The proxies that are believed about their clients' certificates.
#[derive(Debug, Clone, Serialize)]
struct Proxy {
    header: &'static str,
    identities: Vec<String>,
}

#[derive(Debug)]
struct Planned {
    name: PolicyName,
    rules: Rules,
    identities: Vec<Identity>,
}

const LONGEST_FILE: u64 = 1 << 20;

pub(crate) async fn run(arguments: KesConfig) -> anyhow::Result<()> {
    let shown = arguments.file.display().to_string();
    let mut text = String::new();
    std::fs::File::open(&arguments.file)
        .and_then(|file| file.take(LONGEST_FILE + 1).read_to_string(&mut text))
        .with_context(|| shown.clone())?;
    if text.len() as u64 > LONGEST_FILE {
        bail!("{shown}: is longer than {LONGEST_FILE} bytes");
    }
    let variable = |name: &str| Ok(environment(name)?.map(|value| value.to_string()));
    let plan = Plan::parse(&text, variable).with_context(|| shown)?;
    let ports = arguments.place.open().await?;
    let (identities, control) = ports.identities_of(plan.admin.clone());
    let principal = plan.admin.as_ref().map_or("keyway", Identity::as_str);
    let importing = Importing {
        caller: Caller::new(principal, Arc::new(Grant::Owner)),
        identities,
        control,
        dry_run: arguments.dry_run,
    };
    let done = importing.all(&plan).await.map_err(|error| {
        explain(error).context("stopped; what was done stays done, run it again to go on")
    })?;
    match arguments.output {
        Output::Json => print(&serde_json::to_string(&done)?),
        Output::Text => done.print(),
    }
    Ok(())
}

impl Plan {
    fn parse(
        text: &str,
        variable: impl Fn(&str) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<Self> {
        // Some editors put a byte order mark before the text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // The parser's own texts show the lines around what is wrong; a configuration holds credentials.
        let unreadable = |error: serde_saphyr::Error| {
            let place = error.location();
            let place =
                place.map(|place| format!(" (line {}, column {})", place.line(), place.column()));
            anyhow!(
                "is not YAML as KES's configuration has it: not YAML, or `root`, `admin`, `policy`, `api`, `tls` or `keys` is of another type than it should be{}",
                place.unwrap_or_default()
            )
        };
        let whole: Option<Value> = serde_saphyr::from_str(text).map_err(unreadable)?;
        let file: Option<File> = serde_saphyr::from_str(text).map_err(unreadable)?;
        let file = file.unwrap_or_default();
        let mut plan = Self {
            left_out: fields::left_out(&whole.unwrap_or_default()),
            ..Self::default()
        };
        let mut meant = |text: String, what: &str| -> anyhow::Result<String> {
            let text = text.trim().to_owned();
            let Some(name) = text
                .strip_prefix("${")
                .and_then(|text| text.strip_suffix('}'))
            else {
                return Ok(text);
            };
            let value = variable(name.trim())?;
            if value.is_none() {
                plan.warnings.push(match is_variable(name.trim()) {
                    true => format!("{what}: the variable {name} is not set; left out"),
                    false => format!("{what}: a variable that is none is not set; left out"),
                });
            }
            Ok(value.unwrap_or_default().trim().to_owned())
        };
        let admin = match (file.root, file.admin.and_then(|admin| admin.identity)) {
            (Some(root), Some(admin)) if root != admin => {
                bail!("`root` and `admin.identity` name two different identities")
            }
            (root, admin) => admin.or(root),
        };
        let admin = admin.map(|admin| meant(admin, "admin")).transpose()?;
        let mut policies = Vec::new();
        for (name, policy) in file.policy.unwrap_or_default() {
            let policy = policy.unwrap_or_default();
            let mut all = |patterns: Option<Vec<String>>| -> anyhow::Result<Vec<String>> {
                patterns
                    .unwrap_or_default()
                    .into_iter()
                    .map(|text| meant(text, &format!("policy {name}")))
                    .filter(|text| !text.as_ref().is_ok_and(String::is_empty))
                    .collect()
            };
            let mut allow = all(policy.paths)?;
            allow.extend(all(policy.allow)?);
            let (deny, identities) = (all(policy.deny)?, all(policy.identities)?);
            policies.push((name, allow, deny, identities));
        }
        let proxy = file.tls.and_then(|tls| tls.proxy);
        let (members, header) = proxy.map_or((None, None), |proxy| {
            let header = proxy.header.and_then(|header| header.cert);
            (proxy.identities, header)
        });
        let of_proxy = |text| meant(text, "tls.proxy");
        let proxies: Vec<String> = members
            .unwrap_or_default()
            .into_iter()
            .map(of_proxy)
            .filter(|text| !text.as_ref().is_ok_and(String::is_empty))
            .collect::<anyhow::Result<_>>()?;
        plan.take_proxies(proxies, header.as_deref());
        // Whatever is not the hash of a key, such as `disabled`, is how KES says that there is none.
        plan.admin = match admin.filter(|admin| !admin.is_empty()) {
            Some(admin) if is_hash(&admin) => Some(Identity::parse(&admin).map_err(explain)?),
            Some(admin) => {
                // It may be an API key in the wrong place.
                plan.warnings
                    .push(match DISABLED.contains(&admin.as_str()) {
                        true => format!("admin: `{admin}` is no identity, so there is none"),
                        false => {
                            "admin: what stands there is no identity, so there is none".to_owned()
                        }
                    });
                None
            }
            None => None,
        };
        let mut holders: BTreeMap<Identity, String> = BTreeMap::new();
        for (name, allow, deny, members) in policies {
            let name = PolicyName::parse(&name).map_err(explain)?;
            let of = || format!("policy {name}");
            for (patterns, word, is_denied) in [(&allow, "allow", false), (&deny, "deny", true)] {
                for (number, pattern) in (1..).zip(patterns) {
                    let why = match PathPattern::parse(pattern).kind() {
                        PatternKind::Malformed => None,
                        _ if is_denied => kes::matches_no_path(pattern).then(|| {
                            "denies nothing, for no path of KES's API begins so".to_owned()
                        }),
                        _ => None,
                    };
                    if let Some(why) = why.or_else(|| changed_meaning(pattern, is_denied)) {
                        let shown = match pattern.starts_with("/v1/") {
                            true => format!("`{pattern}`"),
                            false => format!("{word} pattern {number}"),
                        };
                        plan.warnings.push(format!("policy {name}: {shown} {why}"));
                    }
                }
            }
            let rules = Rules::parse(allow, deny)
                .map_err(explain)
                .with_context(of)?;
            let mut identities = Vec::new();
            for (number, member) in (1..).zip(members) {
                let identity = Identity::parse(&member).map_err(explain).with_context(of)?;
                if !is_hash(&member) {
                    plan.warnings.push(format!(
                        "policy {name}: nobody can prove to be identity {number}, for it is not the hash of a key"
                    ));
                }
                if plan.admin.as_ref() == Some(&identity) {
                    bail!("policy {name}: the admin {identity} cannot have a policy");
                }
                if let Some(other) = holders.insert(identity.clone(), name.to_string())
                    && other != name.as_str()
                {
                    bail!(
                        "identity {number} of policy {name} cannot have the policy {other} as well"
                    );
                }
                identities.push(identity);
            }
            plan.policies.push(Planned {
                name,
                rules,
                identities,
            });
        }
        for (path, api) in file.api.unwrap_or_default() {
            if api.is_none_or(|api| api.skip_auth != Some(true)) {
                continue;
            }
            if OpenPaths::parse(&path).is_ok() {
                plan.open.push(path);
            } else {
                plan.warnings.push(
                    "api: a path other than /v1/ready, /v1/status, /v1/metrics and /v1/api needs a certificate here"
                        .to_owned(),
                );
            }
        }
        let to_make = match file.keys {
            Some(Keys::ToMake(keys)) => keys,
            Some(Keys::Store(IgnoredAny)) | None => Vec::new(),
        };
        for key in to_make {
            plan.warnings.push(match KeyId::parse("keys", &key.name) {
                Ok(id) => format!("keys: `{id}` is not made here"),
                Err(_) => "keys: one whose name is no key's is not made here".to_owned(),
            });
        }
        Ok(plan)
    }
}

impl Plan {
    fn take_proxies(&mut self, identities: Vec<String>, header: Option<&str>) {
        if identities.is_empty() {
            return;
        }
        let header = header.filter(|header| !header.is_empty());
        let header = header.map_or(Ok(ProxyCertificateHeader::TlsClientCert), str::parse);
        let Ok(header) = header else {
            self.warnings.push(
                "tls.proxy.header.cert: only X-Tls-Client-Cert, X-Amzn-Mtls-Clientcert and X-Amzn-Mtls-Clientcert-Leaf are read; the proxy is left out".to_owned(),
            );
            return;
        };
        let (identities, others): (Vec<String>, Vec<String>) = identities
            .into_iter()
            .partition(|identity| is_hash(identity));
        if !others.is_empty() {
            self.warnings.push(format!(
                "tls.proxy.identities: {} of them are no hash of a key; left out",
                others.len()
            ));
        }
        if !identities.is_empty() {
            self.proxy = Some(Proxy {
                header: header.as_str(),
                identities,
            });
        }
    }
}

/// How KES says that there is no admin.
const DISABLED: [&str; 3] = ["disabled", "_", "none"];

/// Whether a variable can have this name.
fn is_variable(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether it is the SHA-256 of a public key in hex.
fn is_hash(identity: &str) -> bool {
    is_kes_name(identity)
        && identity.len() == 64
        && identity
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// How a pattern does not mean the same to every generation of KES. Up to 2023-10-03 it was Go's `path.Match` for all,
/// and since then it is a prefix if it ends in `*`, or else exact.
fn changed_meaning(pattern: &str, is_denied: bool) -> Option<String> {
    let parsed = PathPattern::parse(pattern);
    match parsed.kind() {
        PatternKind::Exact => None,
        PatternKind::Prefix => {
            // Below the kind and the verb of a path there is nothing but a name, which has no slash.
            let segments = parsed.literal_prefix().matches('/').count();
            (segments < 4).then(|| {
                format!(
                    "now {} whatever is below as well; up to KES 2023-10-03 its `*` ended at the next `/`",
                    if is_denied { "denies" } else { "allows" }
                )
            })
        }
        PatternKind::Glob => Some(
            "is matched as up to KES 2023-10-03, each `*` up to the next `/`; later ones took it literally".to_owned(),
        ),
        PatternKind::Malformed => Some("is malformed and matches nothing".to_owned()),
    }
}

struct Importing {
    caller: Caller,
    identities: Arc<Identities>,
    control: Arc<IdentityControl>,
    dry_run: bool,
}

#[derive(Serialize)]
struct Done {
    dry_run: bool,
    /// To be given to the server, for it is not kept in the table.
    admin: Option<String>,
    /// To be given to the server as well.
    open: Vec<String>,
    /// This too.
    proxy: Option<Proxy>,
    /// Fields that are not taken over, and what to do instead.
    left_out: Vec<String>,
    policies: Vec<DonePolicy>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct DonePolicy {
    name: String,
    result: &'static str,
    allow: usize,
    deny: usize,
    identities: Vec<DoneIdentity>,
}

#[derive(Serialize)]
struct DoneIdentity {
    identity: String,
    result: &'static str,
}

const fn word(written: Written) -> &'static str {
    match written {
        Written::Created => "created",
        Written::Replaced => "replaced",
        Written::Unchanged => "unchanged",
    }
}

impl Importing {
    async fn all(&self, plan: &Plan) -> Result<Done, KmsError> {
        let mut policies = Vec::new();
        for planned in &plan.policies {
            let Planned {
                name,
                rules,
                identities,
            } = planned;
            let result = word(self.policy(name, rules).await?);
            let mut holders = Vec::new();
            for identity in identities {
                holders.push(DoneIdentity {
                    identity: identity.to_string(),
                    result: word(self.holder(name, identity).await?),
                });
            }
            policies.push(DonePolicy {
                name: name.to_string(),
                result,
                allow: rules.allow().len(),
                deny: rules.deny().len(),
                identities: holders,
            });
        }
        Ok(Done {
            dry_run: self.dry_run,
            admin: plan.admin.as_ref().map(Identity::to_string),
            open: plan.open.clone(),
            proxy: plan.proxy.clone(),
            left_out: plan.left_out.clone(),
            policies,
            warnings: plan.warnings.clone(),
        })
    }

    async fn policy(&self, name: &PolicyName, rules: &Rules) -> Result<Written, KmsError> {
        if !self.dry_run {
            return self.control.write(&self.caller, name, rules).await;
        }
        match self.identities.policy(&self.caller, name).await {
            Ok(policy) if policy.rules == *rules => Ok(Written::Unchanged),
            Ok(_) => Ok(Written::Replaced),
            Err(KmsError::PolicyNotFound(_)) => Ok(Written::Created),
            Err(error) => Err(error),
        }
    }

    async fn holder(&self, name: &PolicyName, identity: &Identity) -> Result<Written, KmsError> {
        if !self.dry_run {
            return self.control.assign(&self.caller, name, identity).await;
        }
        match self.identities.describe_self(identity).await {
            Ok((known, _)) if known.policy.as_ref() == Some(name) => Ok(Written::Unchanged),
            Ok(_) => Ok(Written::Replaced),
            Err(KmsError::IdentityNotFound(_)) => Ok(Written::Created),
            Err(error) => Err(error),
        }
    }
}

impl Done {
    fn print(&self) {
        for warning in &self.warnings {
            tell(&format!("warning: {warning}"));
        }
        for policy in &self.policies {
            print(&format!(
                "policy {}: {}, allows {} and denies {} patterns",
                policy.name, policy.result, policy.allow, policy.deny
            ));
            for identity in &policy.identities {
                print(&format!("  {}: {}", identity.identity, identity.result));
            }
        }
        if let Some(admin) = &self.admin {
            print(&format!("the admin is a setting: KEYWAY_KES_ADMIN={admin}"));
        }
        if !self.open.is_empty() {
            print(&format!(
                "so is what needs no certificate: KEYWAY_KES_OPEN={}",
                self.open.join(",")
            ));
        }
        if let Some(proxy) = &self.proxy {
            print(&format!(
                "so is the proxy: KEYWAY_KES_PROXY_HEADER={} KEYWAY_KES_PROXIES={}",
                proxy.header,
                proxy.identities.join(",")
            ));
        }
        for line in &self.left_out {
            print(&format!("left out: {line}"));
        }
        if self.dry_run {
            print("nothing was changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc";
    const B: &str = "1d7562ffd775ed4da949e4b08fe1085fba4991cadba4a96142a578c30106ba23";

    fn plan(text: &str) -> anyhow::Result<Plan> {
        Plan::parse(text, |name| {
            Ok((name == "MINIO_IDENTITY").then(|| A.to_owned()))
        })
    }

    #[test]
    fn the_words_of_every_generation_are_read() {
        let old = plan(&format!(
            "address: 0.0.0.0:7373\nroot: {B}\ntls:\n  key: server.key\npolicy:\n  minio:\n    paths:\n    - /v1/key/create/minio-*\n    - /v1/key/*/x\n    identities:\n    - ${{MINIO_IDENTITY}}\n    - ${{NOT_SET}}\n"
        ))
        .unwrap();
        assert_eq!(old.admin.as_ref().unwrap().as_str(), B);
        let marked = plan(&format!("\u{feff}root: {B}\n")).unwrap();
        assert_eq!(marked.admin.as_ref().unwrap().as_str(), B);
        let minio = &old.policies[0];
        assert_eq!(minio.identities, [Identity::parse(A).unwrap()]);
        assert_eq!(
            minio.rules.allow().collect::<Vec<_>>(),
            ["/v1/key/*/x", "/v1/key/create/minio-*"]
        );
        assert_eq!(old.warnings.len(), 2, "{:?}", old.warnings);

        let new = plan(&format!(
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
            let proxy = plan(&text(header)).unwrap().proxy.unwrap();
            assert_eq!(proxy.header, "X-Tls-Client-Cert");
            assert_eq!(proxy.identities, [B, A]);
        }
        let other = plan(&text("    header:\n      cert: X-Client\n")).unwrap();
        assert!(other.proxy.is_none());
        let said = |plan: &Plan, what: &str| plan.warnings.iter().any(|line| line.contains(what));
        assert!(said(&other, "tls.proxy.header.cert"), "{other:?}");
        let wrong = plan("tls: {proxy: {identities: [proxy]}}").unwrap();
        assert!(wrong.proxy.is_none());
        assert!(said(&wrong, "tls.proxy.identities"), "{wrong:?}");
        let none = plan("tls: {proxy: {identities: [], header: {cert: X-Tls-Client-Cert}}}");
        let none = none.unwrap();
        assert!(none.proxy.is_none() && none.warnings.is_empty());
    }

    #[test]
    fn every_field_is_taken_over_or_named() {
        let all = "version: v1\naddress: 0.0.0.0:7373\nadmin: {identity: disabled}\ntls:\n  key: k\n  cert: c\n  password: hunter2\n  auth: on\n  ca: a\napi:\n  /v1/ready: {skip_auth: true, timeout: 15s}\n  /v1/key/create/: {skip_auth: true}\ncache: {expiry: {any: 5m, unused: 20s, offline: 0s}}\nlog: {error: on, audit: off}\nkeys: [{name: k}]\nkeystore:\n  fs: {path: keys}\n  vault: {endpoint: \"\", tls: {ca: \"\"}}\nnew: {field: 5}\nAKIAEXAMPLE: x\n";
        let plan = plan(all).unwrap();
        let fields: Vec<&str> = plan
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
        assert!(!plan.left_out.iter().any(|line| line.contains("hunter2")));
        assert_eq!(plan.open, ["/v1/ready"]);
        let of_api = |line: &String| line.starts_with("api: ");
        assert_eq!(plan.warnings.iter().filter(|line| of_api(line)).count(), 1);
        // The first generation has its key store elsewhere.
        let old = Plan::parse("keys: {fs: {path: keys}, aws: {region: x}}", |_| Ok(None));
        let left_out = old.unwrap().left_out;
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        assert!(
            left_out
                .iter()
                .any(|line| line.contains("--from-secrets-manager"))
        );
    }

    #[test]
    fn there_may_be_no_admin_and_nothing_at_all() {
        for text in [
            "",
            "admin:\n  identity: disabled\n",
            "root: _\n",
            "admin: {identity: \"\"}\n",
        ] {
            let plan = plan(text).unwrap();
            assert!(plan.admin.is_none() && plan.policies.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_kes_refuses_is_refused() {
        for text in [
            "policy: [".to_owned(),
            "policy: 5".to_owned(),
            format!("root: {A}\nadmin: {{identity: {B}}}"),
            format!("root: {A}\npolicy: {{p: {{identities: [{A}]}}}}"),
            format!("policy: {{p: {{identities: [{A}]}}, q: {{identities: [{A}]}}}}"),
            "policy: {a.b: {allow: [/x]}}".to_owned(),
            "policy: {p: {identities: [a/b]}}".to_owned(),
        ] {
            assert!(plan(&text).is_err(), "{text}");
        }
    }
}
