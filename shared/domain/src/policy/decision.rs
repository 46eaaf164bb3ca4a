//! Explains to the author of a policy why it allows or denies something.

use super::{Action, Effect, Policy, Statement, Target, UMBRELLA, resource};
use crate::error::KmsError;
use crate::ids::{AliasName, BucketName, KeyId};

/// The resource that a decision is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Some key or bucket: can the action be allowed on any?
    Ever,
    /// The service itself.
    Service,
    /// This key.
    Key(KeyId),
    /// This alias.
    Alias(AliasName),
    /// This bucket.
    Bucket(BucketName),
}

/// The statement that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decisive {
    /// Its number, from 1.
    pub number: usize,
    pub sid: Option<String>,
    /// Whether it is a `Deny`.
    pub denies: bool,
}

/// A policy's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// The statement that decided; `None` when no statement matches, so that the action is denied.
    pub by: Option<Decisive>,
}

impl Asked {
    /// Parses the resource of an action: for an action on keys `arn:aws:kms:::key/ID` or a key's id, for one on aliases
    /// also `arn:aws:kms:::alias/NAME` or `alias/NAME`, for one on buckets `arn:aws:s3:::NAME` or a bucket's name, and for
    /// one on the service `*` or `arn:aws:kms:::*`. A resource of KMS may have a region and an account.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when the action cannot have this resource.
    pub fn parse(action: Action, resource: Option<&str>) -> Result<Self, KmsError> {
        let is_about_key =
            action.is_about_one_key() || matches!(action, Action::ListKeys | Action::ListAliases);
        let is_about_bucket = action.resources() == super::BUCKET_RESOURCE;
        let resource = resource.map(resource::canonical);
        match resource.as_deref() {
            Some(resource) if action.is_about_alias() && alias(resource).is_some() => {
                let name = alias(resource).unwrap_or_default();
                Ok(Self::Alias(AliasName::parse("resource", name)?))
            }
            Some(resource) if is_about_key => {
                let id = resource.strip_prefix(super::KEY_RESOURCE);
                Ok(Self::Key(KeyId::parse("resource", id.unwrap_or(resource))?))
            }
            Some(resource) if is_about_bucket => {
                let name = resource.strip_prefix(super::BUCKET_RESOURCE);
                Ok(Self::Bucket(BucketName::parse(name.unwrap_or(resource))?))
            }
            Some("*" | "arn:aws:kms:::*") => Ok(Self::Service),
            Some(_) => Err(KmsError::invalid(
                "resource",
                "this action is about the service, whose resource is `*`",
            )),
            None if is_about_key || is_about_bucket => Ok(Self::Ever),
            None => Ok(Self::Service),
        }
    }

    fn target(&self) -> Option<Target<'_>> {
        match self {
            Self::Ever => None,
            Self::Service => Some(Target::Service),
            Self::Key(id) => Some(Target::Key(id.as_str())),
            Self::Alias(name) => Some(Target::Alias(name.as_str())),
            Self::Bucket(name) => Some(Target::Bucket(name.as_str())),
        }
    }
}

/// The alias's name in a resource, with its prefix.
fn alias(resource: &str) -> Option<&str> {
    let name = resource.strip_prefix(super::SERVICE_RESOURCE);
    let name = name.unwrap_or(resource);
    name.starts_with(AliasName::PREFIX).then_some(name)
}

impl Policy {
    /// Whether the action is allowed on the resource, and which statement decides.
    pub fn decide(&self, action: Action, on: &Asked) -> Decision {
        let target = on.target();
        let target = target.unwrap_or_else(|| Target::Unknown(action.resources()));
        let first = |effect: Effect, names: &[&str]| -> Option<Decisive> {
            let found = |(_, statement): &(usize, &Statement)| {
                statement.effect == effect && statement.covers(names, target)
            };
            let (number, statement) = (1..).zip(&self.statement).find(found)?;
            Some(Decisive {
                number,
                sid: statement.sid.clone(),
                denies: effect == Effect::Deny,
            })
        };
        let by = first(Effect::Deny, &action.denied_names())
            .or_else(|| first(Effect::Allow, &action.names()))
            .or_else(|| {
                let opens = first(Effect::Allow, &UMBRELLA)?;
                Some(first(Effect::Deny, &UMBRELLA).unwrap_or(opens))
            });
        Decision {
            allowed: by.as_ref().is_some_and(|by| !by.denies),
            by,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: [&str; 6] = ["a", "reports", "reports-1", "x.y", "aaaa", "k_"];
    const ALIASES: [&str; 3] = ["alias/a", "alias/reports", "alias/x/y"];
    const BUCKETS: [&str; 4] = ["aaa", "logs-eu", "reports", "x.y"];

    fn asked() -> Vec<Asked> {
        let keys = KEYS.map(|id| Asked::Key(KeyId::parse("key", id).unwrap()));
        let buckets = BUCKETS.map(|name| Asked::Bucket(BucketName::parse(name).unwrap()));
        let mut all = vec![Asked::Ever, Asked::Service];
        all.extend(keys);
        all.extend(ALIASES.map(|name| Asked::Alias(AliasName::parse("alias", name).unwrap())));
        all.extend(buckets);
        all
    }

    /// Valid and invalid entries in similar numbers. A case whose policy is refused is skipped.
    fn action() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::sample::select(Action::ALL.to_vec())
                .prop_map(|action| action.as_str().to_owned()),
            proptest::sample::select(vec![
                "*",
                "kms:*",
                "s3:*",
                "admin:*",
                "kms:Enc*",
                "kms:?ecrypt",
                "KMS:decrypt",
                "admin:ServerInfo",
                "admin:serverinfoadminaction",
                "s3:GetBucketEncryption",
                "s3:DeleteBucketEncryption",
                "kms:Decrpt",
                "s3:GetObject",
                "sts:*",
                "kms:",
                "",
                "*:ListKeys",
                "*Key*",
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn resource() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::sample::select(KEYS.to_vec())
                .prop_map(|id| format!("arn:aws:kms:::key/{id}")),
            proptest::sample::select(vec![
                "*",
                "arn:aws:kms:::*",
                "arn:aws:kms:::key/*",
                "arn:aws:kms:::key/a?a*",
                "arn:aws:kms:::alias/*",
                "arn:aws:kms:::alias/rep*",
                "arn:aws:kms:eu-west-1:123456789012:key/a",
                "arn:aws:kms:*:*:*",
                "arn:aws:kms:*:*:alias/x/?",
                "arn:aws:s3:::*",
                "arn:aws:s3:::logs-*",
                "arn:aws:s3:::aaa",
                "arn:aws:kms:::reports",
                "arn:aws:kms:::key/",
                "arn:aws:s3:::aaa/*",
            ])
            .prop_map(str::to_owned),
            "arn:aws:(kms:::key/|kms:::alias/|kms:eu:\\*:key/|s3:::)[a-zA. */?$-]{0,6}",
        ]
    }

    fn statement() -> impl Strategy<Value = serde_json::Value> {
        let resources = proptest::option::of(proptest::collection::vec(resource(), 1..3));
        let actions = proptest::collection::vec(action(), 1..3);
        (any::<bool>(), actions, resources).prop_map(|(denies, actions, resources)| {
            let mut made = serde_json::json!({
                "Effect": if denies { "Deny" } else { "Allow" },
                "Action": actions,
            });
            if let Some(resources) = resources {
                made["Resource"] = resources.into();
            }
            made
        })
    }

    /// Resources that the policy covers, found in the same way as in the check.
    fn samples(policy: &Policy) -> Vec<Asked> {
        let mut all = asked();
        let resources = policy
            .statement
            .iter()
            .flat_map(|one| one.resource.iter().flatten());
        for resource in resources {
            for star in ["", "a", "aaa"] {
                let text = resource::canonical(resource);
                let text = text.replace('*', star).replace('?', "a");
                let alias = text.strip_prefix(super::super::SERVICE_RESOURCE);
                all.extend(AliasName::parse("alias", alias.unwrap_or("")).map(Asked::Alias));
                let (key, bucket) = (
                    text.strip_prefix(super::super::KEY_RESOURCE).unwrap_or(""),
                    text.strip_prefix(super::super::BUCKET_RESOURCE)
                        .unwrap_or(""),
                );
                all.extend(KeyId::parse("key", key).map(Asked::Key));
                all.extend(BucketName::parse(bucket).map(Asked::Bucket));
            }
        }
        all
    }

    fn decisions(policy: &Policy, on: &[Asked]) -> Vec<bool> {
        let pairs = on
            .iter()
            .flat_map(|on| Action::ALL.map(|action| (action, on)));
        pairs
            // Actions on buckets are never tried on a key.
            .filter(|(action, on)| match on {
                Asked::Key(_) => {
                    Asked::parse(*action, Some("a")).is_ok_and(|on| matches!(on, Asked::Key(_)))
                }
                Asked::Alias(_) => action.is_about_alias(),
                Asked::Bucket(_) => Asked::parse(*action, Some("aaa"))
                    .is_ok_and(|on| matches!(on, Asked::Bucket(_))),
                Asked::Service => *on == &Asked::parse(*action, None).unwrap_or(Asked::Ever),
                Asked::Ever => false,
            })
            .map(|(action, on)| policy.allows(action, on.target()))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn entry_of_a_parsed_deny_denies_something(made in statement()) {
            let document = serde_json::json!({"Statement": made}).to_string();
            let Ok(policy) = Policy::parse(&document) else { return Ok(()) };
            let statement = &policy.statement[0];
            if statement.effect == Effect::Allow {
                return Ok(());
            }
            // Each entry on its own must deny something.
            for action in &statement.action {
                let denied = Statement { action: vec![action.clone()], ..statement.clone() };
                prop_assert!(takes_away(&denied), "{} of {}", action, document);
            }
            for resource in statement.resource.iter().flatten() {
                let denied = Statement { resource: Some(vec![resource.clone()]), ..statement.clone() };
                prop_assert!(takes_away(&denied), "{} of {}", resource, document);
            }
        }

        #[test]
        fn explanation_agrees_with_the_decision(
            statements in proptest::collection::vec(statement(), 1..4),
        ) {
            let document = serde_json::json!({"Statement": statements}).to_string();
            let Ok(policy) = Policy::parse(&document) else { return Ok(()) };
            for on in samples(&policy) {
                for action in Action::ALL {
                    let decision = policy.decide(action, &on);
                    prop_assert_eq!(decision.allowed, policy.allows(action, on.target()));
                    if let Some(by) = decision.by {
                        let statement = &policy.statement[by.number - 1];
                        prop_assert_eq!(by.denies, statement.effect == Effect::Deny);
                        prop_assert_eq!(by.denies, !decision.allowed);
                    } else {
                        prop_assert!(!decision.allowed);
                    }
                }
            }
        }

        #[test]
        fn stored_policy_that_parses_has_no_fault(
            statements in proptest::collection::vec(statement(), 1..3),
        ) {
            let document = serde_json::json!({"Statement": statements}).to_string();
            let Ok(policy) = Policy::parse(&document) else { return Ok(()) };
            let stored: Policy = serde_json::from_str(&serde_json::to_string(&policy).unwrap()).unwrap();
            prop_assert_eq!(&stored, &policy);
            prop_assert_eq!(stored.fault(), None);
        }
    }

    /// Whether the statement denies anything to a caller who may do everything, by `*` or by the permission that allows
    /// everything.
    fn takes_away(denied: &Statement) -> bool {
        ["*", "admin:ServerInfo"].iter().any(|all| {
            let allow = format!(r#"{{"Statement":{{"Effect":"Allow","Action":"{all}"}}}}"#);
            let all = Policy::parse(&allow).unwrap();
            let mut less = all.clone();
            less.statement.push(denied.clone());
            let on = samples(&less);
            decisions(&all, &on) != decisions(&less, &on)
        })
    }
}
