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
    CreateKey,
    Decrypt,
    DescribeKey,
    DisableKey,
    EnableKey,
    Encrypt,
    GenerateDataKey,
    GenerateDataKeyWithoutPlaintext,
    GenerateRandom,
    GetKeyPolicy,
    GetKeyRotationStatus,
    ListKeyPolicies,
    ListKeys,
    ListResourceTags,
    ReEncrypt,
    RotateKeyOnDemand,
    ScheduleKeyDeletion,
    TagResource,
    UntagResource,
    UpdateKeyDescription,
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
const UNSUPPORTED: [&str; 35] = [
    "ConnectCustomKeyStore",
    "CreateAlias",
    "CreateCustomKeyStore",
    "CreateGrant",
    "Decapsulate",
    "DeleteAlias",
    "DeleteCustomKeyStore",
    "DeleteImportedKeyMaterial",
    "DeriveSharedSecret",
    "DescribeCustomKeyStores",
    "DisableKeyRotation",
    "DisconnectCustomKeyStore",
    "EnableKeyRotation",
    "Encapsulate",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "GetKeyLastUsage",
    "GetParametersForImport",
    "GetPublicKey",
    "ImportKeyMaterial",
    "ListAliases",
    "ListGrants",
    "ListKeyRotations",
    "ListRetirableGrants",
    "PutKeyPolicy",
    "ReplicateKey",
    "RetireGrant",
    "RevokeGrant",
    "Sign",
    "UpdateAlias",
    "UpdateCustomKeyStore",
    "UpdatePrimaryRegion",
    "Verify",
    "VerifyMac",
];

impl Target {
    const ALL: [Self; 21] = [
        Self::CancelKeyDeletion,
        Self::CreateKey,
        Self::Decrypt,
        Self::DescribeKey,
        Self::DisableKey,
        Self::EnableKey,
        Self::Encrypt,
        Self::GenerateDataKey,
        Self::GenerateDataKeyWithoutPlaintext,
        Self::GenerateRandom,
        Self::GetKeyPolicy,
        Self::GetKeyRotationStatus,
        Self::ListKeyPolicies,
        Self::ListKeys,
        Self::ListResourceTags,
        Self::ReEncrypt,
        Self::RotateKeyOnDemand,
        Self::ScheduleKeyDeletion,
        Self::TagResource,
        Self::UntagResource,
        Self::UpdateKeyDescription,
    ];

    /// The operation's name in the audit log and in AWS's policies.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CancelKeyDeletion => "kms:CancelKeyDeletion",
            Self::CreateKey => "kms:CreateKey",
            Self::Decrypt => "kms:Decrypt",
            Self::DescribeKey => "kms:DescribeKey",
            Self::DisableKey => "kms:DisableKey",
            Self::EnableKey => "kms:EnableKey",
            Self::Encrypt => "kms:Encrypt",
            Self::GenerateDataKey => "kms:GenerateDataKey",
            Self::GenerateDataKeyWithoutPlaintext => "kms:GenerateDataKeyWithoutPlaintext",
            Self::GenerateRandom => "kms:GenerateRandom",
            Self::GetKeyPolicy => "kms:GetKeyPolicy",
            Self::GetKeyRotationStatus => "kms:GetKeyRotationStatus",
            Self::ListKeyPolicies => "kms:ListKeyPolicies",
            Self::ListKeys => "kms:ListKeys",
            Self::ListResourceTags => "kms:ListResourceTags",
            Self::ReEncrypt => "kms:ReEncrypt",
            Self::RotateKeyOnDemand => "kms:RotateKeyOnDemand",
            Self::ScheduleKeyDeletion => "kms:ScheduleKeyDeletion",
            Self::TagResource => "kms:TagResource",
            Self::UntagResource => "kms:UntagResource",
            Self::UpdateKeyDescription => "kms:UpdateKeyDescription",
        }
    }

    /// The action that it needs permission for.
    pub(crate) const fn action(self) -> Action {
        match self {
            Self::CancelKeyDeletion | Self::ScheduleKeyDeletion => Action::DeleteKey,
            Self::CreateKey => Action::CreateKey,
            Self::Decrypt => Action::Decrypt,
            // They reveal no more than a description does.
            Self::DescribeKey
            | Self::GetKeyPolicy
            | Self::GetKeyRotationStatus
            | Self::ListKeyPolicies
            | Self::ListResourceTags => Action::DescribeKey,
            Self::DisableKey => Action::DisableKey,
            Self::EnableKey => Action::EnableKey,
            Self::Encrypt => Action::Encrypt,
            Self::GenerateDataKey | Self::GenerateDataKeyWithoutPlaintext => {
                Action::GenerateDataKey
            }
            Self::GenerateRandom => Action::GenerateRandom,
            Self::ListKeys => Action::ListKeys,
            Self::ReEncrypt => Action::Rewrap,
            Self::RotateKeyOnDemand => Action::RotateKey,
            Self::TagResource => Action::TagResource,
            Self::UntagResource => Action::UntagResource,
            Self::UpdateKeyDescription => Action::UpdateKeyDescription,
        }
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
