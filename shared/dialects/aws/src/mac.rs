//! Message authentication codes: decode, operate, encode.

use keyway_domain::EncryptionContext;
use keyway_domain::KmsError;
use keyway_domain::SecretBytes;
use keyway_domain::datakey::{DataKeyRequest, MacHash};
use keyway_domain::keys::{KeyUsage, NamedKey};
use serde::{Deserialize, Serialize};

use crate::answers::{mac_algorithm, ok, to_base64};
use crate::error_response::{Failure, incompatible, null};
use crate::members::{LONGEST_CIPHERTEXT, blob, decode, grant_tokens, one_of};
use crate::operations::{Asked, Outcome};

/// The longest message, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// In the order of AWS's error texts.
const ALGORITHMS: [&str; 4] = [
    mac_algorithm(MacHash::Sha384),
    mac_algorithm(MacHash::Sha256),
    mac_algorithm(MacHash::Sha224),
    mac_algorithm(MacHash::Sha512),
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MacBody {
    key_id: Option<String>,
    message: Option<String>,
    mac: Option<String>,
    mac_algorithm: Option<String>,
    grant_tokens: Option<Vec<String>>,
    dry_run: Option<bool>,
}

/// The parameters of both operations.
struct Macing {
    key: NamedKey,
    message: SecretBytes,
    hash: MacHash,
    dry_run: bool,
}

impl Macing {
    async fn parse(asked: &Asked<'_>, body: &MacBody) -> Result<Self, Failure> {
        grant_tokens(body.grant_tokens.as_deref())?;
        let message = blob("message", body.message.as_deref(), LONGEST_MESSAGE)?;
        let algorithm = body.mac_algorithm.as_deref();
        let algorithm = algorithm.ok_or_else(|| null("macAlgorithm"))?;
        let hash = match one_of("macAlgorithm", algorithm, &ALGORITHMS)? {
            "HMAC_SHA_224" => MacHash::Sha224,
            "HMAC_SHA_384" => MacHash::Sha384,
            "HMAC_SHA_512" => MacHash::Sha512,
            _ => MacHash::Sha256,
        };
        Ok(Self {
            key: asked.named("keyId", body.key_id.clone()).await?,
            message,
            hash,
            dry_run: body.dry_run.unwrap_or(false),
        })
    }

    /// The failure of the operation. A MAC key of another hash has an error of its own.
    fn failed(&self, error: KmsError) -> Failure {
        match error {
            KmsError::KeySpec { spec, .. } if spec.usage() == KeyUsage::GenerateVerifyMac => {
                incompatible(mac_algorithm(self.hash), spec).into()
            }
            error => error.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MacAnswer {
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    mac_algorithm: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac_valid: Option<bool>,
}

pub(crate) async fn generate(asked: &Asked<'_>) -> Outcome {
    let body: MacBody = decode(asked.body)?;
    let macing = Macing::parse(asked, &body).await?;
    let none = EncryptionContext::none();
    let request = DataKeyRequest::of(macing.key.clone(), &none).dry_run(macing.dry_run);
    let mac = asked
        .served
        .data_keys
        .generate_mac(asked.caller, &request, macing.hash, macing.message.expose())
        .await
        .map_err(|error| macing.failed(error))?;
    Ok(ok(&MacAnswer {
        key_id: asked.names.arn(&macing.key.id),
        mac: Some(to_base64(&mac)),
        mac_algorithm: mac_algorithm(macing.hash),
        mac_valid: None,
    })?)
}

pub(crate) async fn verify(asked: &Asked<'_>) -> Outcome {
    let body: MacBody = decode(asked.body)?;
    let macing = Macing::parse(asked, &body).await?;
    let mac = blob("mac", body.mac.as_deref(), LONGEST_CIPHERTEXT)?;
    let none = EncryptionContext::none();
    let request = DataKeyRequest::of(macing.key.clone(), &none).dry_run(macing.dry_run);
    let message = macing.message.expose();
    asked
        .served
        .data_keys
        .verify_mac(asked.caller, &request, macing.hash, message, mac.expose())
        .await
        .map_err(|error| macing.failed(error))?;
    Ok(ok(&MacAnswer {
        key_id: asked.names.arn(&macing.key.id),
        mac: None,
        mac_algorithm: mac_algorithm(macing.hash),
        mac_valid: Some(true),
    })?)
}
