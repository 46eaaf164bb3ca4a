//! Permissions, and the IAM-style policies that grant them.
//!
//! **Invariant:** a policy is accepted only if each entry of each `Deny` can deny something.

mod check;
mod decision;
mod document;
mod resource;

use serde::{Deserialize, Serialize};

use crate::error::KmsError;
use crate::glob;
use crate::ids::KeyId;
use crate::ranges::{NameRange, in_order};

pub use decision::{Asked, Decision, Decisive};
use document::{one_or_many, some_one_or_many};

/// A permission. The names are those of RustFS 1.0's policies. Actions that RustFS does not have are named as in AWS.
/// Some operations of AWS KMS have a name of their own besides the permission that covers them: see
/// [`Action::permission`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Configure,
    ServiceControl,
    ClearCache,
    CreateKey,
    DescribeKey,
    ListKeys,
    EnableKey,
    DisableKey,
    RotateKey,
    DeleteKey,
    TagResource,
    UntagResource,
    UpdateKeyDescription,
    GenerateDataKey,
    Encrypt,
    Decrypt,
    Rewrap,
    GenerateMac,
    VerifyMac,
    /// Get random bytes, without a key.
    GenerateRandom,
    ImportKeyMaterial,
    /// Put on a key the one policy of a key that is accepted.
    PutKeyPolicy,
    CreateAlias,
    UpdateAlias,
    DeleteAlias,
    ListAliases,
    GetKeyPolicy,
    ListKeyPolicies,
    GetKeyRotationStatus,
    ListKeyRotations,
    ListResourceTags,
    ScheduleKeyDeletion,
    CancelKeyDeletion,
    RotateKeyOnDemand,
    EnableKeyRotation,
    DisableKeyRotation,
    GenerateDataKeyWithoutPlaintext,
    /// Open a ciphertext to encrypt its plaintext again.
    ReEncryptFrom,
    /// Encrypt such a plaintext.
    ReEncryptTo,
    ListAllMyBuckets,
    CreateBucket,
    DeleteBucket,
    ListBucket,
    GetBucketLocation,
    GetEncryptionConfiguration,
    PutEncryptionConfiguration,
    /// Read which identity has which KES policy.
    ReadAccess,
    /// Change which identity has which KES policy.
    ManageAccess,
    /// Read the audit log.
    ReadAudit,
}

/// What an action does to the service and its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consequence {
    /// Changes nothing and uses no key.
    Reads,
    /// Uses a key's material.
    UsesKeys,
    /// Changes something.
    Changes,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 49] = [
        Self::Configure,
        Self::ServiceControl,
        Self::ClearCache,
        Self::CreateKey,
        Self::DescribeKey,
        Self::ListKeys,
        Self::EnableKey,
        Self::DisableKey,
        Self::RotateKey,
        Self::DeleteKey,
        Self::TagResource,
        Self::UntagResource,
        Self::UpdateKeyDescription,
        Self::GenerateDataKey,
        Self::Encrypt,
        Self::Decrypt,
        Self::Rewrap,
        Self::GenerateMac,
        Self::VerifyMac,
        Self::GenerateRandom,
        Self::ImportKeyMaterial,
        Self::PutKeyPolicy,
        Self::CreateAlias,
        Self::UpdateAlias,
        Self::DeleteAlias,
        Self::ListAliases,
        Self::GetKeyPolicy,
        Self::ListKeyPolicies,
        Self::GetKeyRotationStatus,
        Self::ListKeyRotations,
        Self::ListResourceTags,
        Self::ScheduleKeyDeletion,
        Self::CancelKeyDeletion,
        Self::RotateKeyOnDemand,
        Self::EnableKeyRotation,
        Self::DisableKeyRotation,
        Self::GenerateDataKeyWithoutPlaintext,
        Self::ReEncryptFrom,
        Self::ReEncryptTo,
        Self::ListAllMyBuckets,
        Self::CreateBucket,
        Self::DeleteBucket,
        Self::ListBucket,
        Self::GetBucketLocation,
        Self::GetEncryptionConfiguration,
        Self::PutEncryptionConfiguration,
        Self::ReadAccess,
        Self::ManageAccess,
        Self::ReadAudit,
    ];

    /// The action's name in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "kms:Configure",
            Self::ServiceControl => "kms:ServiceControl",
            Self::ClearCache => "kms:ClearCache",
            Self::CreateKey => "kms:CreateKey",
            Self::DescribeKey => "kms:DescribeKey",
            Self::ListKeys => "kms:ListKeys",
            Self::EnableKey => "kms:EnableKey",
            Self::DisableKey => "kms:DisableKey",
            Self::RotateKey => "kms:RotateKey",
            Self::DeleteKey => "kms:DeleteKey",
            Self::TagResource => "kms:TagResource",
            Self::UntagResource => "kms:UntagResource",
            Self::UpdateKeyDescription => "kms:UpdateKeyDescription",
            Self::GenerateDataKey => "kms:GenerateDataKey",
            Self::Encrypt => "kms:Encrypt",
            Self::Decrypt => "kms:Decrypt",
            Self::Rewrap => "kms:Rewrap",
            Self::GenerateMac => "kms:GenerateMac",
            Self::VerifyMac => "kms:VerifyMac",
            Self::GenerateRandom => "kms:GenerateRandom",
            Self::ImportKeyMaterial => "kms:ImportKeyMaterial",
            Self::PutKeyPolicy => "kms:PutKeyPolicy",
            Self::CreateAlias => "kms:CreateAlias",
            Self::UpdateAlias => "kms:UpdateAlias",
            Self::DeleteAlias => "kms:DeleteAlias",
            Self::ListAliases => "kms:ListAliases",
            Self::GetKeyPolicy => "kms:GetKeyPolicy",
            Self::ListKeyPolicies => "kms:ListKeyPolicies",
            Self::GetKeyRotationStatus => "kms:GetKeyRotationStatus",
            Self::ListKeyRotations => "kms:ListKeyRotations",
            Self::ListResourceTags => "kms:ListResourceTags",
            Self::ScheduleKeyDeletion => "kms:ScheduleKeyDeletion",
            Self::CancelKeyDeletion => "kms:CancelKeyDeletion",
            Self::RotateKeyOnDemand => "kms:RotateKeyOnDemand",
            Self::EnableKeyRotation => "kms:EnableKeyRotation",
            Self::DisableKeyRotation => "kms:DisableKeyRotation",
            Self::GenerateDataKeyWithoutPlaintext => "kms:GenerateDataKeyWithoutPlaintext",
            Self::ReEncryptFrom => "kms:ReEncryptFrom",
            Self::ReEncryptTo => "kms:ReEncryptTo",
            Self::ListAllMyBuckets => "s3:ListAllMyBuckets",
            Self::CreateBucket => "s3:CreateBucket",
            Self::DeleteBucket => "s3:DeleteBucket",
            Self::ListBucket => "s3:ListBucket",
            Self::GetBucketLocation => "s3:GetBucketLocation",
            Self::GetEncryptionConfiguration => "s3:GetEncryptionConfiguration",
            Self::PutEncryptionConfiguration => "s3:PutEncryptionConfiguration",
            Self::ReadAccess => "kms:ReadAccess",
            Self::ManageAccess => "kms:ManageAccess",
            Self::ReadAudit => "kms:ReadAudit",
        }
    }

    /// The action's consequence.
    pub const fn consequence(self) -> Consequence {
        match self {
            Self::DescribeKey
            | Self::ListKeys
            | Self::GenerateRandom
            | Self::ListAliases
            | Self::GetKeyPolicy
            | Self::ListKeyPolicies
            | Self::GetKeyRotationStatus
            | Self::ListKeyRotations
            | Self::ListResourceTags
            | Self::ListAllMyBuckets
            | Self::ListBucket
            | Self::GetBucketLocation
            | Self::GetEncryptionConfiguration
            | Self::ReadAccess
            | Self::ReadAudit => Consequence::Reads,
            Self::GenerateDataKey
            | Self::Encrypt
            | Self::Decrypt
            | Self::Rewrap
            | Self::GenerateMac
            | Self::VerifyMac
            | Self::GenerateDataKeyWithoutPlaintext
            | Self::ReEncryptFrom
            | Self::ReEncryptTo => Consequence::UsesKeys,
            Self::Configure
            | Self::ServiceControl
            | Self::ClearCache
            | Self::CreateKey
            | Self::EnableKey
            | Self::DisableKey
            | Self::RotateKey
            | Self::DeleteKey
            | Self::TagResource
            | Self::UntagResource
            | Self::UpdateKeyDescription
            | Self::ImportKeyMaterial
            | Self::PutKeyPolicy
            | Self::CreateAlias
            | Self::UpdateAlias
            | Self::DeleteAlias
            | Self::ScheduleKeyDeletion
            | Self::CancelKeyDeletion
            | Self::RotateKeyOnDemand
            | Self::EnableKeyRotation
            | Self::DisableKeyRotation
            | Self::CreateBucket
            | Self::DeleteBucket
            | Self::PutEncryptionConfiguration
            | Self::ManageAccess => Consequence::Changes,
        }
    }

    /// Whether the action applies to one key.
    pub(crate) const fn is_about_one_key(self) -> bool {
        matches!(self.resources().as_bytes(), b"arn:aws:kms:::")
            && !matches!(
                self,
                Self::ListKeys
                    | Self::ListAliases
                    | Self::Configure
                    | Self::ServiceControl
                    | Self::ClearCache
                    | Self::GenerateRandom
                    | Self::ReadAccess
                    | Self::ManageAccess
                    | Self::ReadAudit
            )
    }

    /// The permission that covers the action: for most actions the action itself. A policy names either of them. What
    /// names the action decides about it alone; what names the permission decides about all that it covers.
    pub const fn permission(self) -> Self {
        match self {
            // They reveal no more than a description does.
            Self::GetKeyPolicy
            | Self::ListKeyPolicies
            | Self::GetKeyRotationStatus
            | Self::ListKeyRotations
            | Self::ListResourceTags => Self::DescribeKey,
            Self::ScheduleKeyDeletion | Self::CancelKeyDeletion => Self::DeleteKey,
            Self::RotateKeyOnDemand | Self::EnableKeyRotation | Self::DisableKeyRotation => {
                Self::RotateKey
            }
            Self::GenerateDataKeyWithoutPlaintext => Self::GenerateDataKey,
            Self::ReEncryptFrom | Self::ReEncryptTo => Self::Rewrap,
            action => action,
        }
    }

    /// Whether the action applies to an alias, and to the key that it stands for.
    const fn is_about_alias(self) -> bool {
        matches!(
            self,
            Self::CreateAlias | Self::UpdateAlias | Self::DeleteAlias
        )
    }

    /// The action of this name. The case of ASCII letters is ignored.
    pub fn named(name: &str) -> Option<Self> {
        let is_named = |own: &str| own.eq_ignore_ascii_case(name);
        let mut all = Self::ALL.into_iter();
        // A second name may be another action's own.
        all.find(|action| is_named(action.as_str())).or_else(|| {
            Self::ALL
                .into_iter()
                .find(|action| action.names().into_iter().any(is_named))
        })
    }

    /// The action's names in policies. RustFS's guide names bucket encryption after its operations, AWS does not.
    const fn names(self) -> [&'static str; 2] {
        let second = match self {
            Self::GetEncryptionConfiguration => "s3:GetBucketEncryption",
            Self::PutEncryptionConfiguration => "s3:PutBucketEncryption",
            _ => self.permission().as_str(),
        };
        [self.as_str(), second]
    }

    /// The action's names in a `Deny`. RustFS's guide has a separate name for the removal of a bucket's encryption,
    /// which is part of one action here. In a `Deny` that name covers the action; in an `Allow` it does not.
    const fn denied_names(self) -> [&'static str; 3] {
        let [first, second] = self.names();
        let third = match self {
            Self::PutEncryptionConfiguration => "s3:DeleteBucketEncryption",
            _ => second,
        };
        [first, second, third]
    }

    /// The beginning of the resources that the action applies to.
    const fn resources(self) -> &'static str {
        match self {
            Self::ListAllMyBuckets
            | Self::CreateBucket
            | Self::DeleteBucket
            | Self::ListBucket
            | Self::GetBucketLocation
            | Self::GetEncryptionConfiguration
            | Self::PutEncryptionConfiguration => BUCKET_RESOURCE,
            _ => SERVICE_RESOURCE,
        }
    }
}

/// The permission that allows everything, as policies and as RustFS's documents spell it.
const UMBRELLA: [&str; 2] = ["admin:ServerInfo", "admin:ServerInfoAdminAction"];
const SERVICE_RESOURCE: &str = "arn:aws:kms:::";
const KEY_RESOURCE: &str = "arn:aws:kms:::key/";
const ALIAS_RESOURCE: &str = "arn:aws:kms:::alias/";
const BUCKET_RESOURCE: &str = "arn:aws:s3:::";
const MAX_STATEMENTS: usize = 64;
const MAX_ENTRIES: usize = 128;
const MAX_PATTERN_BYTES: usize = 512;
/// The longest policy document, in bytes.
pub const MAX_POLICY_BYTES: usize = 20_480;

/// An IAM-style policy: what no statement allows is denied, and a `Deny` wins over every `Allow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(deserialize_with = "one_or_many")]
    statement: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    effect: Effect,
    #[serde(deserialize_with = "one_or_many")]
    action: Vec<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "some_one_or_many"
    )]
    resource: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

/// The resource in a decision.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Key(&'a str),
    /// The alias of this name, with its prefix.
    Alias(&'a str),
    /// The service itself. Only resources that mean everything cover it.
    Service,
    Bucket(&'a str),
    /// Some key or bucket, not known yet: does the statement cover any (`Allow`) or all (`Deny`) that begin with this?
    Unknown(&'static str),
}

impl Policy {
    /// Parses a policy document of at most [`MAX_POLICY_BYTES`].
    ///
    /// # Errors
    /// [`KmsError::Invalid`] with what is wrong and where: an element that is not known or not implemented, an action
    /// that does not exist, a resource that no key and no bucket can have, or a statement whose actions do not apply to
    /// its resources. The error repeats nothing of the document except the names of known policy elements.
    pub fn parse(document: &str) -> Result<Self, KmsError> {
        let invalid = |reason: String| KmsError::Invalid {
            field: "policy",
            reason,
        };
        if document.len() > MAX_POLICY_BYTES {
            return Err(invalid(format!("is longer than {MAX_POLICY_BYTES} bytes")));
        }
        let policy = document::read(document).map_err(invalid)?;
        if policy.statement.is_empty() || policy.statement.len() > MAX_STATEMENTS {
            return Err(invalid(format!(
                "must have 1 to {MAX_STATEMENTS} statements"
            )));
        }
        for (number, statement) in (1..).zip(&policy.statement) {
            check::statement(statement)
                .map_err(|reason| invalid(format!("statement {number}: {reason}")))?;
        }
        Ok(policy)
    }

    /// What is wrong with a stored policy: a `Deny` that would not deny what it names. An `Allow` that allows nothing
    /// does no harm.
    pub fn fault(&self) -> Option<String> {
        (1..)
            .zip(&self.statement)
            .filter(|(_, statement)| statement.effect == Effect::Deny)
            .find_map(|(number, statement)| {
                let reason = check::statement(statement).err()?;
                Some(format!("statement {number}: {reason}"))
            })
    }

    /// A policy that allows nothing.
    pub(crate) const fn nothing() -> Self {
        Self {
            version: None,
            id: None,
            statement: Vec::new(),
        }
    }

    /// The number of statements.
    pub fn statements(&self) -> usize {
        self.statement.len()
    }

    /// The canned policy of this name: `kms-admin`, `kms-key-administrator`, `kms-key-user` or `kms-auditor`.
    pub fn canned(name: &str) -> Option<Self> {
        let actions: &[&str] = match name {
            "kms-admin" => &["kms:*", "s3:*"],
            "kms-key-administrator" => &[
                "kms:CreateKey",
                "kms:ImportKeyMaterial",
                "kms:DescribeKey",
                "kms:ListKeys",
                "kms:EnableKey",
                "kms:DisableKey",
                "kms:RotateKey",
                "kms:DeleteKey",
                "kms:TagResource",
                "kms:UntagResource",
                "kms:UpdateKeyDescription",
                "kms:PutKeyPolicy",
                "kms:CreateAlias",
                "kms:UpdateAlias",
                "kms:DeleteAlias",
                "kms:ListAliases",
            ],
            "kms-key-user" => &[
                "kms:DescribeKey",
                "kms:GenerateDataKey",
                "kms:Encrypt",
                "kms:Decrypt",
                "kms:Rewrap",
                "kms:GenerateMac",
                "kms:VerifyMac",
                "kms:GenerateRandom",
            ],
            "kms-auditor" => &[
                "kms:DescribeKey",
                "kms:ListKeys",
                "kms:ListAliases",
                "kms:ReadAudit",
                "s3:ListAllMyBuckets",
                "s3:ListBucket",
                "s3:GetBucketLocation",
                "s3:GetEncryptionConfiguration",
            ],
            _ => return None,
        };
        let statement = Statement {
            sid: None,
            effect: Effect::Allow,
            action: actions.iter().map(|&action| action.to_owned()).collect(),
            resource: None,
        };
        Some(Self {
            version: Some("2012-10-17".to_owned()),
            id: None,
            statement: vec![statement],
        })
    }

    /// This policy, limited to these keys: ids, or prefixes that end in `*`. No keys means no limit.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when one is neither, or when the policy names resources: replacing them could widen it.
    pub fn limited_to(mut self, keys: &[String]) -> Result<Self, KmsError> {
        if keys.is_empty() {
            return Ok(self);
        }
        let allows = |statement: &&mut Statement| statement.effect == Effect::Allow;
        if self
            .statement
            .iter_mut()
            .filter(allows)
            .any(|statement| statement.resource.is_some())
        {
            return Err(KmsError::invalid(
                "key",
                "cannot limit a policy that names resources itself",
            ));
        }
        let resource = |key: &String| {
            let prefix = key.strip_suffix('*').unwrap_or(key);
            if !(prefix.is_empty() && key == "*") {
                KeyId::parse("key", prefix)?;
            }
            Ok(format!("{KEY_RESOURCE}{key}"))
        };
        let resources = keys
            .iter()
            .map(resource)
            .collect::<Result<Vec<_>, KmsError>>()?;
        for statement in self.statement.iter_mut().filter(allows) {
            statement.resource = Some(resources.clone());
        }
        Ok(self)
    }

    /// Whether the policy allows the action on the target; without a target, whether it can allow it on any.
    pub(crate) fn allows(&self, action: Action, target: Option<Target<'_>>) -> bool {
        let target = target.unwrap_or_else(|| Target::Unknown(action.resources()));
        let says = |effect: Effect, names: &[&str]| {
            self.statement
                .iter()
                .any(|statement| statement.effect == effect && statement.covers(names, target))
        };
        let granted = says(Effect::Allow, &action.names())
            || (says(Effect::Allow, &UMBRELLA) && !says(Effect::Deny, &UMBRELLA));
        granted && !says(Effect::Deny, &action.denied_names())
    }
}

impl Policy {
    /// The names of the keys or buckets on which the action may be allowed, in order. Some of them may still be denied.
    pub(crate) fn allowed_names(&self, action: Action) -> Vec<NameRange> {
        let start = match action.resources() {
            BUCKET_RESOURCE => BUCKET_RESOURCE,
            _ => KEY_RESOURCE,
        };
        let allowing = self.statement.iter().filter(|statement| {
            statement.effect == Effect::Allow
                && (statement.names(&action.names()) || statement.names(&UMBRELLA))
        });
        let mut ranges = Vec::new();
        for statement in allowing {
            match &statement.resource {
                None => ranges.extend(NameRange::all()),
                Some(resources) => {
                    ranges.extend(
                        resources
                            .iter()
                            .filter_map(|resource| named(&resource::canonical(resource), start)),
                    );
                }
            }
        }
        in_order(ranges)
    }
}

/// The names after `start` that a resource can match.
fn named(resource: &str, start: &str) -> Option<NameRange> {
    let literal = glob::literal_prefix(resource);
    match literal.strip_prefix(start) {
        Some(name) if literal.len() == resource.len() => Some(NameRange::One(name.to_owned())),
        Some(beginning) => Some(NameRange::Beginning(beginning.to_owned())),
        // The first wildcard is before the name.
        None => (literal.len() < resource.len() && start.starts_with(literal))
            .then(|| NameRange::Beginning(String::new())),
    }
}

impl Statement {
    fn names(&self, names: &[&str]) -> bool {
        self.action.iter().any(|pattern| {
            names
                .iter()
                .any(|name| glob::matches_ignoring_case(pattern, name))
        })
    }

    fn covers(&self, names: &[&str], target: Target<'_>) -> bool {
        self.names(names)
            && self.resource.as_ref().is_none_or(|resources| {
                resources
                    .iter()
                    .any(|resource| self.effect.reaches(&resource::canonical(resource), target))
            })
    }
}

impl Effect {
    /// Whether a statement of this effect covers the target by this resource.
    fn reaches(self, resource: &str, target: Target<'_>) -> bool {
        match (target, self) {
            (Target::Key(key), _) => is_named(resource, KEY_RESOURCE, key),
            (Target::Alias(alias), _) => is_named(resource, SERVICE_RESOURCE, alias),
            (Target::Service, _) => matches!(resource, "*" | "arn:aws:kms:::*"),
            (Target::Bucket(bucket), _) => is_named(resource, BUCKET_RESOURCE, bucket),
            // An `Allow` counts if it may cover some key, a `Deny` only if it covers every key.
            (Target::Unknown(start), Self::Allow) => resource == "*" || resource.starts_with(start),
            (Target::Unknown(start), Self::Deny) => {
                let all = resource.strip_prefix(start);
                resource == "*"
                    || all
                        .is_some_and(|all| all == "*" || start != BUCKET_RESOURCE && all == "key/*")
            }
        }
    }
}

fn is_named(resource: &str, start: &str, id: &str) -> bool {
    let mut name = String::with_capacity(start.len() + id.len());
    name.push_str(start);
    name.push_str(id);
    glob::matches(resource, &name)
}
