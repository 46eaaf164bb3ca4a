//! The table from errors to AWS KMS's codes and texts. Every client error is a 400: clients distinguish errors by their
//! codes.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode};
use keyway_auth::sigv4::SignatureError;
use keyway_auth::{Coded, ErrorTable, SignedErrors};
use keyway_domain::access::Caller;
use keyway_domain::audit_context::Denied;
use keyway_domain::keys::{KeyId, KeySpec, KeyState, Reference};
use keyway_domain::{Fault, KmsError};
use keyway_http::{Rejection, RequestLine};
use serde::Serialize;

use crate::Api;
use crate::answers::{json, to_json};
use crate::names::Names;
use crate::target::Target;

/// An error response of AWS KMS.
pub type ErrorResponse = keyway_auth::ErrorResponse<Api>;

const INTERNAL: &str = "the request could not be served";
const LATER: &str = "try again later";
const THROTTLED: &str = "reduce the rate of requests";

pub(crate) fn internal(fault: Fault) -> ErrorResponse {
    ErrorResponse::internal("KMSInternalException", INTERNAL).caused_by(fault)
}

fn refused(code: &'static str, message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::bad_request(code, message)
}

pub(crate) fn validation(message: impl Into<String>) -> ErrorResponse {
    refused("ValidationException", message)
}

pub(crate) fn serialization(message: &str) -> ErrorResponse {
    refused("SerializationException", message)
}

pub(crate) fn not_found(message: impl Into<String>) -> ErrorResponse {
    refused("NotFoundException", message).with_class("key_not_found")
}

pub(crate) fn invalid_marker() -> ErrorResponse {
    refused(
        "InvalidMarkerException",
        "Marker is not one that this service gave out",
    )
}

pub(crate) fn invalid_arn(text: &str) -> ErrorResponse {
    refused("InvalidArnException", format!("Invalid arn {text}"))
}

pub(crate) fn unsupported(message: impl Into<String>) -> ErrorResponse {
    refused("UnsupportedOperationException", message)
}

/// The error for an alias of AWS's own.
pub(crate) fn not_authorized() -> ErrorResponse {
    refused("NotAuthorizedException", "")
}

pub(crate) fn unknown_operation() -> ErrorResponse {
    refused("UnknownOperationException", "")
}

/// The error for an algorithm of AWS's that is for other kinds of keys.
pub(crate) fn incompatible(algorithm: &str, spec: KeySpec) -> ErrorResponse {
    let spec = spec.as_str();
    let text = format!("Algorithm {algorithm} is incompatible with key spec {spec}.");
    refused("InvalidKeyUsageException", text)
}

/// The error for an operation that the key is not made for. AWS's error for the rotation of such a key has no text.
fn wrong_usage(target: Target, arn: &str, spec: KeySpec) -> ErrorResponse {
    if target.is_of_rotation() {
        return unsupported("");
    }
    let (usage, operation) = (spec.usage().as_str(), target.name());
    let operation = operation.strip_prefix("kms:").unwrap_or(operation);
    let text = format!("{arn} key usage is {usage} which is not valid for {operation}.");
    refused("InvalidKeyUsageException", text)
}

pub(crate) fn limit_exceeded(message: &str) -> ErrorResponse {
    refused("LimitExceededException", message)
}

pub(crate) fn malformed_policy(message: &str) -> ErrorResponse {
    refused("MalformedPolicyDocumentException", message)
}

pub(crate) fn tag(message: &str) -> ErrorResponse {
    refused("TagException", message)
}

const UNAUTHENTICATED: &str = "unauthenticated";

pub(crate) fn incomplete(message: &str) -> ErrorResponse {
    refused("IncompleteSignature", message).with_class(UNAUTHENTICATED)
}

pub(crate) fn wrong_service(expected: &str) -> ErrorResponse {
    let text = format!("Credential should be scoped to correct service: '{expected}'.");
    refused("InvalidSignatureException", text).with_class(UNAUTHENTICATED)
}

pub(crate) fn data_only(target: Target) -> ErrorResponse {
    let text = format!("{} is not served below this path", target.name());
    refused("AccessDeniedException", text).with_class("forbidden")
}

/// Why an operation failed: the domain's error, which still lacks the request's names, or a complete response.
pub(crate) enum Failure {
    Kms(KmsError),
    Response(ErrorResponse),
}

impl From<KmsError> for Failure {
    fn from(error: KmsError) -> Self {
        Self::Kms(error)
    }
}

impl From<ErrorResponse> for Failure {
    fn from(response: ErrorResponse) -> Self {
        Self::Response(response)
    }
}

impl Failure {
    /// The error response to the caller of this operation.
    pub(crate) fn response(
        self,
        target: Target,
        caller: &Caller,
        names: &Names<'_>,
    ) -> ErrorResponse {
        match self {
            Self::Response(response) => response,
            Self::Kms(KmsError::NotPermitted) => {
                let class = KmsError::NotPermitted.class();
                not_permitted(target, caller, names).with_class(class)
            }
            // Not whether the alias is missing or its key.
            Self::Kms(KmsError::KeyNotFound(id)) if names.alias_of(&id).is_some() => {
                let alias = names.alias_of(&id);
                names.no_alias(alias.as_ref().map_or("", |alias| alias.as_str()))
            }
            Self::Kms(KmsError::KeySpec { key_id, spec }) => {
                wrong_usage(target, &names.arn(&key_id), spec)
            }
            Self::Kms(error) => {
                let class = error.class();
                of(error, &|resource| names.arn_of(resource)).with_class(class)
            }
        }
    }
}

/// Names what the caller named: the alias, if it named a key by one. Of a ciphertext, the caller knows the key.
fn not_permitted(target: Target, caller: &Caller, names: &Names<'_>) -> ErrorResponse {
    let user = names.user(caller);
    // The id of a key that is being made is random.
    let denied = caller.denied().filter(|_| target != Target::CreateKey);
    let (action, on) = match denied {
        None => (target.name(), None),
        Some(Denied::Alias(action, alias)) => (action, Some(alias.to_string())),
        Some(Denied::Key(action, id)) => {
            let alias = names
                .alias_of(&id)
                .filter(|_| action != "kms:ReEncryptFrom");
            let key = || format!("key/{id}");
            (
                action,
                Some(alias.map_or_else(key, |alias| alias.to_string())),
            )
        }
    };
    let mut text = format!("User: {user} is not authorized to perform: {action}");
    if let Some(resource) = on {
        text.push_str(" on resource: ");
        text.push_str(&names.arn_of(&resource));
    }
    refused("AccessDeniedException", text)
}

/// The table. `named` returns the name of a resource such as `key/ID`.
fn of(error: KmsError, named: &dyn Fn(&str) -> String) -> ErrorResponse {
    let arn = |id: &KeyId| named(&format!("key/{id}"));
    match error {
        KmsError::Invalid {
            field: "marker",
            reason,
        } => refused("InvalidMarkerException", format!("Marker {reason}")),
        KmsError::Invalid {
            field: field @ ("tags" | "tag_keys"),
            reason,
        } => tag(&format!("{field}: {reason}")),
        KmsError::TooManyTags { .. } => tag("Too many tags"),
        KmsError::Invalid { field, reason } => validation(format!("{field}: {reason}")),
        KmsError::NotPermitted => refused("AccessDeniedException", "Access Denied"),
        KmsError::Forbidden(why) => refused("AccessDeniedException", why),
        KmsError::KeyNotFound(id) => not_found(format!("Key '{}' does not exist", arn(&id))),
        error @ (KmsError::AliasNotFound(_)
        | KmsError::AliasExists(_)
        | KmsError::TooManyAliases(_)) => of_alias(error, named),
        KmsError::KeyExists(id) => refused(
            "AlreadyExistsException",
            format!("{} already exists", arn(&id)),
        ),
        KmsError::KeyState { key_id, state } => of_state(&arn(&key_id), state),
        KmsError::KeySpec { key_id, spec } => {
            let usage = spec.usage().as_str();
            let text = format!("{} key usage is {usage}.", arn(&key_id));
            refused("InvalidKeyUsageException", text)
        }
        KmsError::InvalidMac => refused("KMSInvalidMacException", ""),
        KmsError::NoHmacKey(id) => {
            let text = format!("{} cannot make MACs.", arn(&id));
            refused("InvalidKeyUsageException", text)
        }
        KmsError::TooManyVersions(id) => {
            let text = format!(
                "The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be \
                 performed for this key: {}",
                arn(&id)
            );
            refused("LimitExceededException", text)
        }
        KmsError::StillReferenced(id, references) => {
            let names: Vec<String> = references.iter().map(Reference::to_string).collect();
            let text = format!("{} is used by {}", arn(&id), names.join(", "));
            refused("KMSInvalidStateException", text)
        }
        KmsError::DecryptionFailed => refused("InvalidCiphertextException", ""),
        KmsError::IncorrectKey => refused(
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        ),
        KmsError::DryRun => refused(
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.",
        ),
        KmsError::Contended(id) => {
            let text = format!("{} is being changed; {LATER}", arn(&id));
            ErrorResponse::unavailable("DependencyTimeoutException", text).retry_later()
        }
        KmsError::Conflict(why) => refused("ConflictException", why),
        error @ (KmsError::NotConfigured
        | KmsError::NotRunning
        | KmsError::Throttled
        | KmsError::Unavailable(_)
        | KmsError::Backend(_)
        | KmsError::AccessKeyNotFound(_)
        | KmsError::PolicyNotFound(_)
        | KmsError::IdentityNotFound(_)
        | KmsError::IdentityIsAdmin
        | KmsError::IdentityIsCaller
        | KmsError::BucketNotFound(_)
        | KmsError::BucketExists(_)
        | KmsError::BucketNotEmpty(_)
        | KmsError::NoBucketEncryption(_)) => of_service(error),
    }
}

/// Errors of aliases.
fn of_alias(error: KmsError, named: &dyn Fn(&str) -> String) -> ErrorResponse {
    match error {
        KmsError::AliasNotFound(alias) => {
            not_found(format!("Alias {} is not found.", named(alias.as_str())))
        }
        KmsError::AliasExists(alias) => refused(
            "AlreadyExistsException",
            format!(
                "An alias with the name {} already exists",
                named(alias.as_str())
            ),
        ),
        KmsError::TooManyAliases(id) => {
            let arn = named(&format!("key/{id}"));
            let text = format!("{arn} has as many aliases as a key can have");
            refused("LimitExceededException", text)
        }
        other => of_service(other),
    }
}

/// Errors of the service itself.
fn of_service(error: KmsError) -> ErrorResponse {
    match error {
        KmsError::NotConfigured => ErrorResponse::unavailable(
            "DependencyTimeoutException",
            "the service is not configured",
        ),
        KmsError::NotRunning => {
            ErrorResponse::unavailable("DependencyTimeoutException", "the service is stopped")
        }
        KmsError::Throttled => refused("ThrottlingException", THROTTLED).retry_later(),
        KmsError::Unavailable(fault) => {
            ErrorResponse::unavailable("DependencyTimeoutException", LATER)
                .retry_later()
                .caused_by(fault)
        }
        KmsError::Backend(fault) => internal(fault),
        // No operation of AWS KMS returns these.
        other => internal(Fault::new("an operation of AWS KMS", other.class())),
    }
}

fn of_state(arn: &str, state: KeyState) -> ErrorResponse {
    match state {
        KeyState::Disabled => refused("DisabledException", format!("{arn} is disabled.")),
        KeyState::PendingDeletion { .. } => refused(
            "KMSInvalidStateException",
            format!("{arn} is pending deletion."),
        ),
        KeyState::Enabled => {
            let text = format!("{arn} is not pending deletion.");
            refused("KMSInvalidStateException", text)
        }
    }
}

impl ErrorTable for Api {
    type Content = Coded;

    fn of_kms(error: KmsError) -> ErrorResponse {
        of(error, &|resource| {
            resource.strip_prefix("key/").unwrap_or(resource).to_owned()
        })
    }
}

impl SignedErrors for Api {
    const REQUEST_ID: Option<HeaderName> = Some(HeaderName::from_static("x-amzn-requestid"));

    fn of_signature(error: &SignatureError) -> ErrorResponse {
        let text = error.to_string();
        match error {
            SignatureError::UnknownAccessKey | SignatureError::SessionTokenNotNeeded => refused(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            ),
            SignatureError::ExpiredCredentials => refused(
                "ExpiredTokenException",
                "The security token included in the request is expired",
            ),
            SignatureError::SignatureMismatch => refused(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided. \
                 Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
            ),
            SignatureError::Skewed => refused(
                "InvalidSignatureException",
                format!("Signature expired: {text}"),
            ),
            SignatureError::NotYetValid
            | SignatureError::Expired
            | SignatureError::PayloadMismatch
            | SignatureError::Service { .. }
            | SignatureError::Region { .. }
            | SignatureError::ScopeDate => refused("InvalidSignatureException", text),
            SignatureError::Missing | SignatureError::NoVerifiedCaller => {
                refused("MissingAuthenticationTokenException", text)
            }
            _ => refused("IncompleteSignature", text),
        }
    }

    fn of_pipeline(rejection: &Rejection<Infallible>, _: &RequestLine<'_>) -> ErrorResponse {
        let (code, message) = match rejection {
            Rejection::NoRoute => ("UnknownOperationException", Some("no such path")),
            Rejection::OtherMethods(_) => (
                "UnknownOperationException",
                Some("operations are asked for by POST and the header X-Amz-Target"),
            ),
            Rejection::BodyTooLarge { .. } => ("RequestEntityTooLargeException", None),
            Rejection::BodyBroken
            | Rejection::BodyEncoded
            | Rejection::Unreadable(_)
            | Rejection::Malformed { .. } => ("SerializationException", None),
            Rejection::Overloaded => ("ThrottlingException", Some(THROTTLED)),
            Rejection::Unrecorded => (
                "DependencyTimeoutException",
                Some("the audit log is not available"),
            ),
            Rejection::Panicked => ("KMSInternalException", Some(INTERNAL)),
            Rejection::By(never) => match *never {},
        };
        let mut response = ErrorResponse::of_pipeline(rejection, code, message);
        if response.status.is_client_error() {
            response.status = StatusCode::BAD_REQUEST;
        }
        response
    }

    fn write(response: &ErrorResponse, _: &RequestLine<'_>) -> Response<Bytes> {
        #[derive(Serialize)]
        struct Refusal<'a> {
            #[serde(rename = "__type")]
            code: &'static str,
            #[serde(skip_serializing_if = "str::is_empty")]
            message: &'a str,
        }
        // Two strings always serialize.
        let body = to_json(&Refusal {
            code: response.content.code,
            message: &response.content.message,
        });
        json(body.unwrap_or_default())
    }
}
