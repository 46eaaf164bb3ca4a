//! The operations by name, with the permission that each needs and its name in the audit log.

use http::HeaderMap;
use keyway_domain::policy::{Action, Consequence};
use keyway_http::{Class, Operation};

use crate::TARGET;

/// The prefix of an operation's name in `X-Amz-Target`.
const SERVICE: &str = "TrentService.";

/// A supported operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    CancelKeyDeletion,
    CreateAlias,
    CreateKey,
    Decrypt,
    DeleteAlias,
    DescribeKey,
    DisableKey,
    DisableKeyRotation,
    EnableKey,
    EnableKeyRotation,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyWithoutPlaintext,
    GenerateMac,
    GenerateRandom,
    GetKeyPolicy,
    GetKeyRotationStatus,
    ListAliases,
    ListKeyPolicies,
    ListKeyRotations,
    ListKeys,
    ListResourceTags,
    PutKeyPolicy,
    ReEncrypt,
    RotateKeyOnDemand,
    ScheduleKeyDeletion,
    TagResource,
    UntagResource,
    UpdateAlias,
    UpdateKeyDescription,
    VerifyMac,
}

/// The operation that `X-Amz-Target` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Served(Target),
    /// An operation of AWS KMS that is not supported.
    Unsupported,
    /// Not an operation of AWS KMS.
    Unknown,
}

/// Every other operation of AWS KMS.
const UNSUPPORTED: [&str; 25] = [
    "ConnectCustomKeyStore",
    "CreateCustomKeyStore",
    "CreateGrant",
    "Decapsulate",
    "DeleteCustomKeyStore",
    "DeleteImportedKeyMaterial",
    "DeriveSharedSecret",
    "DescribeCustomKeyStores",
    "DisconnectCustomKeyStore",
    "Encapsulate",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GetKeyLastUsage",
    "GetParametersForImport",
    "GetPublicKey",
    "ImportKeyMaterial",
    "ListGrants",
    "ListRetirableGrants",
    "ReplicateKey",
    "RetireGrant",
    "RevokeGrant",
    "Sign",
    "UpdateCustomKeyStore",
    "UpdatePrimaryRegion",
    "Verify",
];

impl Target {
    const ALL: [Self; 31] = [
        Self::CancelKeyDeletion,
        Self::CreateAlias,
        Self::CreateKey,
        Self::Decrypt,
        Self::DeleteAlias,
        Self::DescribeKey,
        Self::DisableKey,
        Self::DisableKeyRotation,
        Self::EnableKey,
        Self::EnableKeyRotation,
        Self::Encrypt,
        Self::GenerateDataKey,
        Self::GenerateDataKeyWithoutPlaintext,
        Self::GenerateMac,
        Self::GenerateRandom,
        Self::GetKeyPolicy,
        Self::GetKeyRotationStatus,
        Self::ListAliases,
        Self::ListKeyPolicies,
        Self::ListKeyRotations,
        Self::ListKeys,
        Self::ListResourceTags,
        Self::PutKeyPolicy,
        Self::ReEncrypt,
        Self::RotateKeyOnDemand,
        Self::ScheduleKeyDeletion,
        Self::TagResource,
        Self::UntagResource,
        Self::UpdateAlias,
        Self::UpdateKeyDescription,
        Self::VerifyMac,
    ];

    /// The operation's name in the audit log and in AWS's policies.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ReEncrypt => "kms:ReEncrypt",
            _ => self.action().as_str(),
        }
    }

    /// The action that it needs permission for, the first of [`Target::actions`].
    pub(crate) const fn action(self) -> Action {
        match self {
            Self::CancelKeyDeletion => Action::CancelKeyDeletion,
            Self::CreateAlias => Action::CreateAlias,
            Self::CreateKey => Action::CreateKey,
            Self::Decrypt => Action::Decrypt,
            Self::DeleteAlias => Action::DeleteAlias,
            Self::DescribeKey => Action::DescribeKey,
            Self::DisableKey => Action::DisableKey,
            Self::DisableKeyRotation => Action::DisableKeyRotation,
            Self::EnableKey => Action::EnableKey,
            Self::EnableKeyRotation => Action::EnableKeyRotation,
            Self::Encrypt => Action::Encrypt,
            Self::GenerateDataKey => Action::GenerateDataKey,
            Self::GenerateDataKeyWithoutPlaintext => Action::GenerateDataKeyWithoutPlaintext,
            Self::GenerateMac => Action::GenerateMac,
            Self::GenerateRandom => Action::GenerateRandom,
            Self::GetKeyPolicy => Action::GetKeyPolicy,
            Self::GetKeyRotationStatus => Action::GetKeyRotationStatus,
            Self::ListAliases => Action::ListAliases,
            Self::ListKeyPolicies => Action::ListKeyPolicies,
            Self::ListKeys => Action::ListKeys,
            Self::ListKeyRotations => Action::ListKeyRotations,
            Self::ListResourceTags => Action::ListResourceTags,
            Self::PutKeyPolicy => Action::PutKeyPolicy,
            Self::ReEncrypt => Action::ReEncryptFrom,
            Self::RotateKeyOnDemand => Action::RotateKeyOnDemand,
            Self::ScheduleKeyDeletion => Action::ScheduleKeyDeletion,
            Self::TagResource => Action::TagResource,
            Self::UntagResource => Action::UntagResource,
            Self::UpdateAlias => Action::UpdateAlias,
            Self::UpdateKeyDescription => Action::UpdateKeyDescription,
            Self::VerifyMac => Action::VerifyMac,
        }
    }

    /// The actions that it needs permission for.
    pub(crate) fn actions(self) -> Vec<Action> {
        match self {
            Self::ReEncrypt => vec![Action::ReEncryptFrom, Action::ReEncryptTo],
            _ => vec![self.action()],
        }
    }

    /// Whether it is about the rotation of a key.
    pub(crate) const fn is_of_rotation(self) -> bool {
        matches!(
            self,
            Self::DisableKeyRotation
                | Self::EnableKeyRotation
                | Self::GetKeyRotationStatus
                | Self::ListKeyRotations
                | Self::RotateKeyOnDemand
        )
    }

    const fn audited(self) -> Operation {
        Operation {
            name: self.name(),
            class: match self.action().consequence() {
                Consequence::Reads => Class::Read,
                Consequence::UsesKeys => Class::DataKey,
                Consequence::Changes => Class::Mutation,
            },
        }
    }
}

/// The operation that this value of `X-Amz-Target` names.
pub(crate) fn named(text: &[u8]) -> Named {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let Some(name) = text.strip_prefix(SERVICE) else {
        return Named::Unknown;
    };
    let is_named = |target: &Target| target.name().strip_prefix("kms:") == Some(name);
    match Target::ALL.into_iter().find(is_named) {
        Some(target) => Named::Served(target),
        None if UNSUPPORTED.contains(&name) => Named::Unsupported,
        None => Named::Unknown,
    }
}

/// The operation that these headers name; [`Named::Unknown`] if they name several.
pub(crate) fn of_headers(headers: &HeaderMap) -> Named {
    let mut values = headers.get_all(TARGET).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => named(value.as_bytes()),
        _ => Named::Unknown,
    }
}

/// The operation of a request with these headers, for the audit log.
pub(crate) fn audited(headers: &HeaderMap) -> Operation {
    match of_headers(headers) {
        Named::Served(target) => target.audited(),
        Named::Unsupported | Named::Unknown => Operation {
            name: "aws",
            class: Class::Read,
        },
    }
}
