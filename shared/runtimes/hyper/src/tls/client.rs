//! Which certificates clients may show, and the proof that they have the key.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    UnixTime, alg_id,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};
use webpki::RawPublicKeyEntity;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::TlsError;
use super::files::{certificates, unusable};

/// The most certificates that a client may show. A client needs its own and those up to an authority's, and each
/// connection keeps them in memory.
const LONGEST_CHAIN: usize = 10;

/// The supported types of clients' keys. RSA keys need 2,048 bits or more; no algorithm verifies shorter ones.
const KEYS: [AlgorithmIdentifier; 4] = [
    alg_id::ED25519,
    alg_id::ECDSA_P256,
    alg_id::ECDSA_P384,
    alg_id::RSA_ENCRYPTION,
];

/// AWS-LC, with only the signature algorithms of [`KEYS`].
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let whole = aws_lc_rs::default_provider();
        Arc::new(CryptoProvider {
            signature_verification_algorithms: of_keys(
                &whole.signature_verification_algorithms,
                &KEYS,
            ),
            ..whole
        })
    });
    Arc::clone(&PROVIDER)
}

/// The algorithms of these keys. Call it once: the lists leak, because rustls wants `'static` references.
fn of_keys(
    whole: &WebPkiSupportedAlgorithms,
    keys: &[AlgorithmIdentifier],
) -> WebPkiSupportedAlgorithms {
    let those = |algorithms: &[&'static dyn SignatureVerificationAlgorithm]| {
        let of_a_key = |&&one: &&&'static dyn SignatureVerificationAlgorithm| {
            keys.contains(&one.public_key_alg_id())
        };
        let those: Vec<_> = algorithms.iter().filter(of_a_key).copied().collect();
        &*those.leak()
    };
    let mapping = whole.mapping.iter();
    let mapping: Vec<_> = mapping
        .map(|&(scheme, algorithms)| (scheme, those(algorithms)))
        .filter(|(_, algorithms)| !algorithms.is_empty())
        .collect();
    WebPkiSupportedAlgorithms {
        all: those(whole.all),
        mapping: mapping.leak(),
    }
}

/// Accepts any certificate, of any issuer and date, from a client that proves that it has the key.
#[derive(Debug)]
pub(super) struct AnyCertificate(WebPkiSupportedAlgorithms);

impl AnyCertificate {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Without names, a client shows what it has.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() >= LONGEST_CHAIN {
            return Err(CertificateError::BadEncoding.into());
        }
        for certificate in std::iter::once(end_entity).chain(intermediates) {
            public_key(certificate)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = public_key(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let algorithms = self.0.mapping.iter();
        let algorithms = algorithms.filter(|(scheme, _)| *scheme == signature.scheme);
        // TLS 1.2's schemes name no curve, so that one scheme has several algorithms.
        for algorithm in algorithms.flat_map(|(_, algorithms)| *algorithms) {
            match key.verify_signature(*algorithm, message, signature.signature()) {
                Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
                Err(webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => return Err(CertificateError::BadSignature.into()),
            }
        }
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = public_key(certificate)?;
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The certificate's key. rustls reads only certificates of version 3, but OpenSSL's `x509 -req` makes version 1.
fn public_key(certificate: &[u8]) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let read = Certificate::from_der(certificate);
    let read = read.and_then(|read| read.tbs_certificate().subject_public_key_info().to_der());
    match read {
        Ok(der) => Ok(der.into()),
        Err(_) => Err(CertificateError::BadEncoding.into()),
    }
}

/// Accepts certificates that an authority in the file has issued for clients, and that are valid now.
pub(super) fn issued_by(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|_| unusable(path, "a certificate in it cannot be used as an authority's"))?;
    }
    WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|_| unusable(path, "its certificates cannot be used as authorities'"))
}
