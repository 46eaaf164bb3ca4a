//! Message authentication codes: decode, operate, encode.

use keyway_domain::EncryptionContext;
use keyway_domain::KmsError;
use keyway_domain::SecretBytes;
use keyway_domain::datakey::{DataKeyRequest, MacHash};
use keyway_domain::keys::{KeyUsage, NamedKey};
use serde::{Deserialize, Serialize};

use crate::answers::{mac_algorithm, ok, to_base64};
use crate::constraints::{Faults, Input};
use crate::error_response::{Failure, incompatible};
use crate::members::{Blob, LONGEST_CIPHERTEXT, decode, given};
use crate::operations::{Asked, Outcome};

/// The longest message, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// In the order of AWS's error texts.
const HASHES: [MacHash; 4] = [
    MacHash::Sha384,
    MacHash::Sha256,
    MacHash::Sha224,
    MacHash::Sha512,
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateBody {
    message: Option<Blob>,
    key_id: Option<String>,
    mac_algorithm: Option<String>,
    grant_tokens: Option<Vec<String>>,
    dry_run: Option<bool>,
}

impl Input for GenerateBody {
    fn check(&self, faults: &mut Faults) {
        check_message(faults, self.message.as_ref());
        faults.required_key_id("keyId", self.key_id.as_ref());
        check_algorithm(faults, self.mac_algorithm.as_ref());
        faults.grant_tokens(self.grant_tokens.as_deref());
    }
}

fn check_message(faults: &mut Faults, message: Option<&Blob>) {
    faults.required_secret("message", message);
    faults.blob("message", message, LONGEST_MESSAGE);
}

fn check_algorithm(faults: &mut Faults, name: Option<&String>) {
    let member = "macAlgorithm";
    faults.required(member, name);
    let name = name.map(String::as_str);
    faults.word(member, name, &HASHES.map(mac_algorithm));
}

/// The parameters of both operations.
struct Macing {
    key: NamedKey,
    message: SecretBytes,
    hash: MacHash,
    dry_run: bool,
}

impl Macing {
    async fn parse(
        asked: &Asked<'_>,
        key_id: Option<String>,
        message: Option<Blob>,
        algorithm: Option<String>,
        dry_run: Option<bool>,
    ) -> Result<Self, Failure> {
        let algorithm = given(algorithm)?;
        let hash = HASHES
            .into_iter()
            .find(|hash| mac_algorithm(*hash) == algorithm);
        Ok(Self {
            key: asked.named("keyId", key_id).await?,
            message: given(message)?.into(),
            hash: given(hash)?,
            dry_run: dry_run.unwrap_or(false),
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
    let body: GenerateBody = decode(asked.body)?;
    let (message, algorithm) = (body.message, body.mac_algorithm);
    let macing = Macing::parse(asked, body.key_id, message, algorithm, body.dry_run).await?;
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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VerifyBody {
    message: Option<Blob>,
    key_id: Option<String>,
    mac_algorithm: Option<String>,
    mac: Option<Blob>,
    grant_tokens: Option<Vec<String>>,
    dry_run: Option<bool>,
}

impl Input for VerifyBody {
    fn check(&self, faults: &mut Faults) {
        check_message(faults, self.message.as_ref());
        faults.required_key_id("keyId", self.key_id.as_ref());
        check_algorithm(faults, self.mac_algorithm.as_ref());
        faults.required("mac", self.mac.as_ref());
        faults.blob("mac", self.mac.as_ref(), LONGEST_CIPHERTEXT);
        faults.grant_tokens(self.grant_tokens.as_deref());
    }
}

pub(crate) async fn verify(asked: &Asked<'_>) -> Outcome {
    let body: VerifyBody = decode(asked.body)?;
    let (message, algorithm) = (body.message, body.mac_algorithm);
    let macing = Macing::parse(asked, body.key_id, message, algorithm, body.dry_run).await?;
    let mac = given(body.mac)?;
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
