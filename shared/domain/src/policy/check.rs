//! Checks that a statement can take effect: each action exists, each resource can name a key or bucket, and the actions
//! apply to the resources.

use super::{
    ALIAS_RESOURCE, Action, BUCKET_RESOURCE, Effect, KEY_RESOURCE, MAX_ENTRIES, MAX_PATTERN_BYTES,
    SERVICE_RESOURCE, Statement, UMBRELLA, resource,
};
use crate::glob;
use crate::ids::{AliasName, BucketName, KeyId};

/// What an action applies to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Key,
    /// An alias, and the key that it stands for.
    Alias,
    Service,
    Bucket,
    /// The permission that allows everything.
    Any,
}

/// What a resource names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everything,
    /// Every key, and the service.
    Kms,
    Keys,
    Aliases,
    Buckets,
}

impl Subject {
    const fn of(action: Action) -> Self {
        if matches!(action.resources().as_bytes(), b"arn:aws:s3:::") {
            Self::Bucket
        } else if action.is_about_alias() {
            Self::Alias
        } else if action.is_about_one_key()
            || matches!(action, Action::ListKeys | Action::ListAliases)
        {
            Self::Key
        } else {
            Self::Service
        }
    }

    const fn is_in(self, scope: Scope) -> bool {
        matches!(
            (self, scope),
            (Self::Any, _)
                | (_, Scope::Everything)
                | (Self::Key, Scope::Kms | Scope::Keys)
                | (Self::Alias, Scope::Kms | Scope::Keys | Scope::Aliases)
                | (Self::Service, Scope::Kms)
                | (Self::Bucket, Scope::Buckets)
        )
    }
}

/// Checks a statement.
pub(super) fn statement(statement: &Statement) -> Result<(), String> {
    let given = statement.resource.as_deref();
    let resources = given.unwrap_or_default();
    if statement.action.is_empty() || given.is_some_and(<[String]>::is_empty) {
        return Err("its `Action` or `Resource` is empty".to_owned());
    }
    let is_too_long = |pattern: &String| pattern.len() > MAX_PATTERN_BYTES;
    if statement.action.len().max(resources.len()) > MAX_ENTRIES
        || statement.action.iter().chain(resources).any(is_too_long)
    {
        return Err(format!(
            "has more than {MAX_ENTRIES} entries, or one longer than {MAX_PATTERN_BYTES} bytes"
        ));
    }
    let mut named = Vec::new();
    for (number, pattern) in (1..).zip(&statement.action) {
        let subjects = subjects(pattern);
        if subjects.is_empty() {
            return Err(format!(
                "Action {number} is no action, and no pattern of one: they are `kms:Decrypt` and the like, `s3:ListBucket`, `admin:ServerInfo`"
            ));
        }
        named.push(subjects);
    }
    let mut scopes = Vec::new();
    for (number, resource) in (1..).zip(resources) {
        let scope = scope(resource).map_err(|why| format!("Resource {number} {why}"))?;
        scopes.push(scope);
    }
    if given.is_none() {
        scopes.push(Scope::Everything);
    }
    let meets = |subjects: &[Subject], scope: Scope| subjects.iter().any(|one| one.is_in(scope));
    match statement.effect {
        // Some actions may allow nothing: a policy that is limited to some keys keeps its actions on the service.
        Effect::Allow => {
            let is_met = |&scope: &Scope| named.iter().any(|subjects| meets(subjects, scope));
            match scopes.iter().any(is_met) {
                true => Ok(()),
                false => Err("none of its actions is about one of its resources".to_owned()),
            }
        }
        Effect::Deny => {
            for (number, subjects) in (1..).zip(&named) {
                if !scopes.iter().any(|&scope| meets(subjects, scope)) {
                    return Err(format!(
                        "denies nothing by Action {number}, which is about none of its resources: those of keys are `arn:aws:kms:::key/ID`, those of aliases `arn:aws:kms:::alias/NAME`, those of buckets `arn:aws:s3:::NAME`, and the service's `*` or `arn:aws:kms:::*`"
                    ));
                }
            }
            for (number, &scope) in (1..).zip(&scopes) {
                if !named.iter().any(|subjects| meets(subjects, scope)) {
                    return Err(format!(
                        "denies nothing on Resource {number}, which none of its actions is about"
                    ));
                }
            }
            Ok(())
        }
    }
}

/// What the actions that match the pattern apply to; empty when no action matches.
fn subjects(pattern: &str) -> Vec<Subject> {
    let is_named = |name: &&str| glob::matches_ignoring_case(pattern, name);
    let mut found = Vec::new();
    for action in Action::ALL {
        let subject = Subject::of(action);
        if !found.contains(&subject) && action.denied_names().iter().any(is_named) {
            found.push(subject);
        }
    }
    if UMBRELLA.iter().any(is_named) {
        found.push(Subject::Any);
    }
    found
}

/// What a resource names, if it can name anything.
fn scope(resource: &str) -> Result<Scope, &'static str> {
    let resource = &*resource::canonical(resource);
    if resource == "*" {
        return Ok(Scope::Everything);
    }
    if resource == "arn:aws:kms:::*" {
        return Ok(Scope::Kms);
    }
    if let Some(pattern) = resource.strip_prefix(KEY_RESOURCE) {
        let is_id = |text: &str| KeyId::parse("key_id", text).is_ok();
        return match can_match(pattern, is_id) {
            true => Ok(Scope::Keys),
            false => Err(
                "can be no key's: `arn:aws:kms:::key/` must be followed by an id, or a pattern of ids with `*` and `?`, of A-Z, a-z, 0-9, `.`, `_`, `-`",
            ),
        };
    }
    if let Some(pattern) = resource.strip_prefix(ALIAS_RESOURCE) {
        let is_name = |text: &str| AliasName::parse("alias", &format!("alias/{text}")).is_ok();
        return match can_match(pattern, is_name) {
            true => Ok(Scope::Aliases),
            false => Err(
                "can be no alias's: `arn:aws:kms:::alias/` must be followed by a name, or a pattern of names with `*` and `?`, of A-Z, a-z, 0-9, `/`, `_`, `-`",
            ),
        };
    }
    if resource.starts_with(SERVICE_RESOURCE) {
        return Err(
            "can be no key's: `arn:aws:kms:::` must be followed by `key/` and an id or a pattern of ids, by `alias/` and a name or a pattern of names, or by `*`",
        );
    }
    if resource.starts_with("arn:aws:kms:") {
        return Err(
            "can be no key's: `arn:aws:kms:REGION:ACCOUNT:` needs a region, or a pattern of regions, and an account of 12 digits or `*`",
        );
    }
    if let Some(pattern) = resource.strip_prefix(BUCKET_RESOURCE) {
        let is_name = |text: &str| BucketName::parse(text).is_ok();
        return match can_match(pattern, is_name) {
            true => Ok(Scope::Buckets),
            false => Err(
                "can be no bucket's: `arn:aws:s3:::` must be followed by a bucket's name, or a pattern of names with `*` and `?`; objects are not governed here",
            ),
        };
    }
    Err("is neither `*` nor an `arn:aws:kms:::` or `arn:aws:s3:::` name")
}

/// Whether a valid name can match the pattern. Tries a few replacements for the wildcards, so it refuses a pattern that
/// only an unusual name matches. No key becomes accessible by that.
fn can_match(pattern: &str, is_fit: impl Fn(&str) -> bool) -> bool {
    ["", "a", "aaa"]
        .iter()
        .any(|star| is_fit(&pattern.replace('*', star).replace('?', "a")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_can_match_an_id_or_a_name_are_told_from_others() {
        for (resource, is_scope) in [
            ("*", true),
            ("arn:aws:kms:::*", true),
            ("arn:aws:kms:::key/*", true),
            ("arn:aws:kms:::key/?", true),
            ("arn:aws:kms:::key/*.x-_?", true),
            ("arn:aws:kms:::key/a", true),
            ("arn:aws:kms:::key/-a", false),
            ("arn:aws:kms:::key/.*", false),
            ("arn:aws:kms:::key/", false),
            ("arn:aws:kms:::key/é", false),
            ("arn:aws:kms:::?ey/x", false),
            ("arn:aws:kms:::key*", false),
            ("arn:aws:kms:::", false),
            ("arn:aws:kms::*", false),
            ("arn:aws:kms:::alias/*", true),
            ("arn:aws:kms:::alias/a/b-_?", true),
            ("arn:aws:kms:::alias/", false),
            ("arn:aws:kms:::alias/a.b", false),
            ("arn:aws:kms:::alias/a:b", false),
            ("arn:aws:kms:eu-west-1:123456789012:key/a", true),
            ("arn:aws-us-gov:kms:*:*:alias/a", true),
            ("arn:aws:kms:eu-west-1:123456789012:*", true),
            ("arn:aws:kms:eu-west-1:12345:key/a", false),
            ("arn:aws:kms:*:*:ke?/a", false),
            ("arn:aws:*", false),
            ("arn:aws:s3:::*", true),
            ("arn:aws:s3:::a*", true),
            ("arn:aws:s3:::?-?", true),
            ("arn:aws:s3:::logs-*-eu", true),
            ("arn:aws:s3:::Logs", false),
            ("arn:aws:s3:::ab", false),
            ("arn:aws:s3:::b/*", false),
            ("arn:aws:s3:::-*", false),
            ("arn:aws:s3:::", false),
        ] {
            assert_eq!(scope(resource).is_ok(), is_scope, "{resource}");
        }
        let long = format!("arn:aws:kms:::key/{}*", "x".repeat(129));
        assert!(scope(&long).is_err());
    }
}
