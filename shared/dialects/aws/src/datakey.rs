//! Data keys: decode, operate, encode.

use std::borrow::Cow;

use keyway_domain::access::Envelope;
use keyway_domain::datakey::{DataKeyLength, DataKeyRequest, DataKeySpec, Sealed};
use keyway_domain::keys::NamedKey;
use keyway_domain::{EncryptionContext, SecretBytes};
use keyway_http::Pairs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::answers::{material_id, ok, secret_base64, to_base64};
use crate::constraints::{Faults, Input};
use crate::envelope;
use crate::error_response::{Failure, validation};
use crate::members::{
    ALGORITHM, ALGORITHMS, Blob, LONGEST_CIPHERTEXT, absent, algorithm, context, decode, given,
};
use crate::operations::{Asked, Outcome};

/// The longest plaintext, in bytes.
const LONGEST_PLAINTEXT: usize = 4096;
/// The longest data key, and the most random bytes.
const LONGEST_DATA_KEY: i64 = 1024;

const AES_128: &str = "AES_128";
const AES_256: &str = "AES_256";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateBody {
    key_id: Option<String>,
    encryption_context: Option<Pairs>,
    number_of_bytes: Option<i64>,
    key_spec: Option<String>,
    grant_tokens: Option<Vec<String>>,
    recipient: Option<Value>,
    dry_run: Option<bool>,
}

impl Input for GenerateBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        check_number_of_bytes(faults, self.number_of_bytes);
        faults.word("keySpec", self.key_spec.as_deref(), &[AES_256, AES_128]);
        faults.grant_tokens(self.grant_tokens.as_deref());
    }
}

fn check_number_of_bytes(faults: &mut Faults, number: Option<i64>) {
    faults.number("numberOfBytes", number, 1..=LONGEST_DATA_KEY);
}

/// The domain's parameters of a request for a data key.
struct Generation {
    key: NamedKey,
    context: EncryptionContext,
    spec: DataKeySpec,
    dry_run: bool,
}

impl Generation {
    async fn parse(asked: &Asked<'_>) -> Result<Self, Failure> {
        let body: GenerateBody = decode(asked.body)?;
        absent("Recipient", body.recipient.as_ref())?;
        let spec = match (body.key_spec.as_deref(), body.number_of_bytes) {
            (Some(AES_128), None) => DataKeySpec::Aes128,
            (Some(_), None) => DataKeySpec::Aes256,
            (None, Some(bytes)) => DataKeySpec::Bytes(data_key_length(bytes)?),
            (Some(_), Some(_)) | (None, None) => {
                return Err(
                    validation("Please specify either number of bytes or key spec.").into(),
                );
            }
        };
        Ok(Self {
            key: asked.named("keyId", body.key_id).await?,
            context: context("encryptionContext", body.encryption_context)?,
            spec,
            dry_run: body.dry_run.unwrap_or(false),
        })
    }

    /// The envelope of the access key, otherwise of the setting, otherwise as the request suggests.
    fn envelope(&self, asked: &Asked<'_>) -> Envelope {
        let chosen = asked.caller.envelope().or(asked.served.envelope);
        chosen.unwrap_or_else(|| envelope::by_request(asked.headers, &self.context))
    }

    fn request(&self) -> DataKeyRequest<'_> {
        DataKeyRequest::of(self.key.clone(), &self.context).dry_run(self.dry_run)
    }
}

fn data_key_length(bytes: i64) -> Result<DataKeyLength, Failure> {
    // A negative number, which is refused before, would be refused as zero here.
    let bytes = usize::try_from(bytes).unwrap_or(0);
    Ok(DataKeyLength::parse("numberOfBytes", bytes)?)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Generated {
    ciphertext_blob: String,
    key_id: String,
    key_material_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<Zeroizing<String>>,
}

impl Generated {
    fn of(
        generation: &Generation,
        sealed: &Sealed,
        plaintext: Option<&SecretBytes>,
        asked: &Asked<'_>,
    ) -> Self {
        let ciphertext_blob = match generation.envelope(asked) {
            Envelope::Plain => to_base64(&sealed.blob),
            Envelope::RustFs => {
                let now = asked.served.clock.now();
                to_base64(&envelope::wrapped(sealed, generation.spec, now))
            }
        };
        Self {
            ciphertext_blob,
            key_id: asked.names.arn(&sealed.key_id),
            key_material_id: material_id(&sealed.key_id, sealed.key_version),
            plaintext: plaintext.map(secret_base64),
        }
    }
}

pub(crate) async fn generate(asked: &Asked<'_>) -> Outcome {
    let generation = Generation::parse(asked).await?;
    let (plaintext, sealed) = asked
        .served
        .data_keys
        .generate(asked.caller, &generation.request(), generation.spec)
        .await?;
    Ok(ok(&Generated::of(
        &generation,
        &sealed,
        Some(&plaintext),
        asked,
    ))?)
}

pub(crate) async fn generate_without_plaintext(asked: &Asked<'_>) -> Outcome {
    let generation = Generation::parse(asked).await?;
    let sealed = asked
        .served
        .data_keys
        .generate_without_plaintext(asked.caller, &generation.request(), generation.spec)
        .await?;
    Ok(ok(&Generated::of(&generation, &sealed, None, asked))?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptBody {
    key_id: Option<String>,
    plaintext: Option<Blob>,
    encryption_context: Option<Pairs>,
    grant_tokens: Option<Vec<String>>,
    encryption_algorithm: Option<String>,
    dry_run: Option<bool>,
}

impl Input for EncryptBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        faults.required_secret("plaintext", self.plaintext.as_ref());
        faults.blob("plaintext", self.plaintext.as_ref(), LONGEST_PLAINTEXT);
        faults.grant_tokens(self.grant_tokens.as_deref());
        let algorithm = self.encryption_algorithm.as_deref();
        faults.word("encryptionAlgorithm", algorithm, &ALGORITHMS);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
    encryption_algorithm: &'static str,
    key_id: String,
}

pub(crate) async fn encrypt(asked: &Asked<'_>) -> Outcome {
    let body: EncryptBody = decode(asked.body)?;
    let plaintext = SecretBytes::from(given(body.plaintext)?);
    let context = context("encryptionContext", body.encryption_context)?;
    algorithm(body.encryption_algorithm.as_deref())?;
    let key = asked.named("keyId", body.key_id).await?;
    let request = DataKeyRequest::of(key, &context).dry_run(body.dry_run.unwrap_or(false));
    let sealed = asked
        .served
        .data_keys
        .encrypt(asked.caller, &request, &plaintext, LONGEST_PLAINTEXT)
        .await?;
    Ok(ok(&Encrypted {
        ciphertext_blob: to_base64(&sealed.blob),
        encryption_algorithm: ALGORITHM,
        key_id: asked.names.arn(&sealed.key_id),
    })?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptBody {
    ciphertext_blob: Option<Blob>,
    encryption_context: Option<Pairs>,
    grant_tokens: Option<Vec<String>>,
    key_id: Option<String>,
    encryption_algorithm: Option<String>,
    recipient: Option<Value>,
    dry_run: Option<bool>,
}

impl Input for DecryptBody {
    fn check(&self, faults: &mut Faults) {
        check_ciphertext(faults, self.ciphertext_blob.as_ref());
        faults.grant_tokens(self.grant_tokens.as_deref());
        faults.key_id("keyId", self.key_id.as_deref());
        let algorithm = self.encryption_algorithm.as_deref();
        faults.word("encryptionAlgorithm", algorithm, &ALGORITHMS);
    }
}

fn check_ciphertext(faults: &mut Faults, blob: Option<&Blob>) {
    faults.required("ciphertextBlob", blob);
    faults.blob("ciphertextBlob", blob, LONGEST_CIPHERTEXT);
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    encryption_algorithm: &'static str,
    key_id: String,
    key_material_id: String,
    plaintext: Zeroizing<String>,
}

pub(crate) async fn decrypt(asked: &Asked<'_>) -> Outcome {
    let body: DecryptBody = decode(asked.body)?;
    absent("Recipient", body.recipient.as_ref())?;
    let ciphertext = given(body.ciphertext_blob)?;
    let context = context("encryptionContext", body.encryption_context)?;
    algorithm(body.encryption_algorithm.as_deref())?;
    let ciphertext = envelope::unwrapped(ciphertext.expose());
    let expected = asked.expected("keyId", body.key_id, &ciphertext);
    let expected = expected.await?;
    let request =
        DataKeyRequest::of_ciphertext_as(expected, &context).dry_run(body.dry_run.unwrap_or(false));
    let data_keys = &asked.served.data_keys;
    let opened = data_keys
        .decrypt(asked.caller, &request, &ciphertext)
        .await?;
    Ok(ok(&Decrypted {
        encryption_algorithm: ALGORITHM,
        key_id: asked.names.arn(&opened.key_id),
        key_material_id: material_id(&opened.key_id, opened.key_version),
        plaintext: secret_base64(&opened.plaintext),
    })?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReEncryptBody {
    ciphertext_blob: Option<Blob>,
    source_encryption_context: Option<Pairs>,
    source_key_id: Option<String>,
    destination_key_id: Option<String>,
    destination_encryption_context: Option<Pairs>,
    source_encryption_algorithm: Option<String>,
    destination_encryption_algorithm: Option<String>,
    grant_tokens: Option<Vec<String>>,
    dry_run: Option<bool>,
}

impl Input for ReEncryptBody {
    fn check(&self, faults: &mut Faults) {
        check_ciphertext(faults, self.ciphertext_blob.as_ref());
        faults.key_id("sourceKeyId", self.source_key_id.as_deref());
        faults.required_key_id("destinationKeyId", self.destination_key_id.as_ref());
        let algorithm = self.source_encryption_algorithm.as_deref();
        faults.word("sourceEncryptionAlgorithm", algorithm, &ALGORITHMS);
        let algorithm = self.destination_encryption_algorithm.as_deref();
        faults.word("destinationEncryptionAlgorithm", algorithm, &ALGORITHMS);
        faults.grant_tokens(self.grant_tokens.as_deref());
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReEncrypted {
    ciphertext_blob: String,
    destination_encryption_algorithm: &'static str,
    destination_key_material_id: String,
    key_id: String,
    source_encryption_algorithm: &'static str,
    source_key_id: String,
    source_key_material_id: String,
}

pub(crate) async fn reencrypt(asked: &Asked<'_>) -> Outcome {
    let body: ReEncryptBody = decode(asked.body)?;
    let ciphertext = given(body.ciphertext_blob)?;
    let source_context = context("sourceEncryptionContext", body.source_encryption_context)?;
    let destination_context = context(
        "destinationEncryptionContext",
        body.destination_encryption_context,
    )?;
    algorithm(body.source_encryption_algorithm.as_deref())?;
    algorithm(body.destination_encryption_algorithm.as_deref())?;
    let ciphertext = envelope::unwrapped(ciphertext.expose());
    let source_key = asked.expected("sourceKeyId", body.source_key_id, &ciphertext);
    let source_key = source_key.await?;
    let destination_key = body.destination_key_id;
    let destination_key = asked.named("destinationKeyId", destination_key).await?;
    let source = DataKeyRequest::of_ciphertext_as(source_key, &source_context)
        .dry_run(body.dry_run.unwrap_or(false));
    let destination = DataKeyRequest::of(destination_key, &destination_context);
    let data_keys = &asked.served.data_keys;
    let moved = data_keys
        .reencrypt(asked.caller, &source, &ciphertext, &destination)
        .await?;
    let (key_id, sealed) = (&moved.source_key_id, &moved.sealed);
    let ciphertext_blob = match &ciphertext {
        Cow::Borrowed(_) => to_base64(&sealed.blob),
        Cow::Owned(_) => {
            let now = asked.served.clock.now();
            to_base64(&envelope::wrapped(sealed, DataKeySpec::Aes256, now))
        }
    };
    Ok(ok(&ReEncrypted {
        ciphertext_blob,
        destination_encryption_algorithm: ALGORITHM,
        destination_key_material_id: material_id(&sealed.key_id, sealed.key_version),
        key_id: asked.names.arn(&sealed.key_id),
        source_encryption_algorithm: ALGORITHM,
        source_key_id: asked.names.arn(key_id),
        source_key_material_id: material_id(key_id, moved.source_key_version),
    })?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RandomBody {
    number_of_bytes: Option<i64>,
    custom_key_store_id: Option<String>,
    recipient: Option<Value>,
}

impl Input for RandomBody {
    fn check(&self, faults: &mut Faults) {
        check_number_of_bytes(faults, self.number_of_bytes);
        let store = self.custom_key_store_id.as_deref();
        faults.text("customKeyStoreId", store, 1..=64);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RandomAnswer {
    plaintext: Zeroizing<String>,
}

pub(crate) async fn random(asked: &Asked<'_>) -> Outcome {
    let body: RandomBody = decode(asked.body)?;
    absent("Recipient", body.recipient.as_ref())?;
    absent("CustomKeyStoreId", body.custom_key_store_id.as_ref())?;
    let bytes = body.number_of_bytes;
    let bytes = bytes.ok_or_else(|| validation("NumberOfBytes is required."))?;
    let length = data_key_length(bytes)?;
    let drawn = asked.served.data_keys.random(asked.caller, length).await?;
    Ok(ok(&RandomAnswer {
        plaintext: secret_base64(&drawn),
    })?)
}
