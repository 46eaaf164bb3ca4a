//! Resources as AWS writes them, with a region and an account.

use std::borrow::Cow;

use super::{Effect, Policy, SERVICE_RESOURCE};
use crate::glob;

/// The parts of a resource of AWS KMS.
struct Parts<'a> {
    partition: &'a str,
    region: &'a str,
    account: &'a str,
    /// `key/ID`, `alias/NAME` or `*`.
    name: &'a str,
}

impl<'a> Parts<'a> {
    fn of(resource: &'a str) -> Option<Self> {
        let mut parts = resource.strip_prefix("arn:")?.splitn(5, ':');
        let (partition, service) = (parts.next()?, parts.next()?);
        let (region, account, name) = (parts.next()?, parts.next()?, parts.next()?);
        (service == "kms").then_some(Self {
            partition,
            region,
            account,
            name,
        })
    }

    fn is_fit(&self) -> bool {
        let is_region = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'*' | b'?')
        };
        let is_account = |account: &str| {
            account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())
        };
        matches!(self.partition, "aws" | "aws-cn" | "aws-us-gov" | "*")
            && self.region.bytes().all(is_region)
            && (matches!(self.account, "" | "*") || is_account(self.account))
    }

    /// Whether the resource is one of this account, and of this region if there is only one. An empty part is any.
    fn is_here(&self, account: &str, region: Option<&str>) -> bool {
        let is_region = |region| self.region.is_empty() || glob::matches(self.region, region);
        let is_account = matches!(self.account, "" | "*") || self.account == account;
        is_account && region.is_none_or(is_region)
    }
}

/// The resource without partition, region and account, as Keyway writes it. Whether it is one of this deployment is for
/// [`Policy::here`] to say.
pub(super) fn canonical(resource: &str) -> Cow<'_, str> {
    if resource.starts_with(SERVICE_RESOURCE) {
        return Cow::Borrowed(resource);
    }
    match Parts::of(resource).filter(Parts::is_fit) {
        Some(parts) => Cow::Owned(format!("{SERVICE_RESOURCE}{}", parts.name)),
        None => Cow::Borrowed(resource),
    }
}

fn is_elsewhere(resource: &str, account: &str, region: Option<&str>) -> bool {
    Parts::of(resource).is_some_and(|parts| !parts.is_here(account, region))
}

impl Policy {
    /// The policy as it applies to a deployment of this account, and of this region if its keys are in one region only.
    /// Leaves out the resources of an `Allow` that are elsewhere.
    ///
    /// # Errors
    /// What is wrong: a `Deny` names a resource that is elsewhere, so it would not deny what it names.
    pub fn here(mut self, account: &str, region: Option<&str>) -> Result<Self, String> {
        for (number, statement) in (1..).zip(&mut self.statement) {
            let Some(resources) = &mut statement.resource else {
                continue;
            };
            let is_here = |resource: &String| !is_elsewhere(resource, account, region);
            if statement.effect == Effect::Deny && !resources.iter().all(is_here) {
                return Err(format!(
                    "statement {number}: denies nothing on a resource of another account or region"
                ));
            }
            resources.retain(is_here);
            for resource in resources {
                if let Cow::Owned(own) = canonical(resource) {
                    *resource = own;
                }
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_of_aws_is_the_same_as_our_own() {
        for (resource, own) in [
            (
                "arn:aws:kms:eu-west-1:123456789012:key/a",
                "arn:aws:kms:::key/a",
            ),
            ("arn:aws:kms:*:*:key/app-*", "arn:aws:kms:::key/app-*"),
            ("arn:aws:kms:eu-*::alias/a/b", "arn:aws:kms:::alias/a/b"),
            ("arn:aws-cn:kms:cn-north-1:*:*", "arn:aws:kms:::*"),
            ("arn:*:kms:*:*:key/*", "arn:aws:kms:::key/*"),
            ("arn:aws:kms:::key/a", "arn:aws:kms:::key/a"),
            ("*", "*"),
        ] {
            assert_eq!(canonical(resource), own);
        }
        for other in [
            "arn:aws:kms:EU:123456789012:key/a",
            "arn:aws:kms:eu-west-1:12345678901?:key/a",
            "arn:aws:kms:eu-west-1:1234:key/a",
            "arn:azure:kms:eu-west-1:123456789012:key/a",
            "arn:aws:kms:*",
            "arn:aws:kms:*:*",
            "arn:aws:s3:::bucket",
        ] {
            assert_eq!(canonical(other), other);
        }
    }

    #[test]
    fn resource_elsewhere_is_left_out_of_an_allow_and_refused_in_a_deny() {
        let policy = |effect: &str, resource: &str| {
            let document = serde_json::json!({"Statement": {
                "Effect": effect, "Action": "kms:Decrypt", "Resource": [resource],
            }});
            Policy::parse(&document.to_string()).unwrap()
        };
        for (resource, is_here, is_in_region) in [
            ("arn:aws:kms:eu-west-1:123456789012:key/a", true, true),
            ("arn:aws:kms:eu-*:*:key/a", true, true),
            ("arn:aws:kms:*:123456789012:key/a", true, true),
            ("arn:aws:kms:::key/a", true, true),
            ("*", true, true),
            ("arn:aws:kms:us-east-1:123456789012:key/a", true, false),
            ("arn:aws:kms:eu-west-1:000000000000:key/a", false, false),
        ] {
            for (region, expected) in [(None, is_here), (Some("eu-west-1"), is_in_region)] {
                let key = super::super::Target::Key("a");
                let action = super::super::Action::Decrypt;
                let allowing = policy("Allow", resource).here("123456789012", region);
                let allows = allowing.unwrap().allows(action, Some(key));
                assert_eq!(allows, expected, "{resource} {region:?}");
                let denying = policy("Deny", resource).here("123456789012", region);
                assert_eq!(denying.is_ok(), expected, "{resource} {region:?}");
            }
        }
    }
}
