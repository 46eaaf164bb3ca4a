//! Certificates of servers and clients.

use keyway_auth::certificate::{ApiKey, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What a client shows and proves with.
pub(crate) struct Credential {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Credential {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Credential {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    /// Self-signed, and no authority's.
    pub(crate) fn of(key: &KeyPair) -> Self {
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        Self::new(&params.self_signed(key).unwrap(), key)
    }

    /// Self-signed and an authority's, as the classic mistake has it.
    pub(crate) fn authority() -> Self {
        let key = KeyPair::generate().unwrap();
        Self::new(&authority(&key), &key)
    }

    /// As KES's clients make one of an API key.
    pub(crate) fn of_api_key(text: &str) -> Self {
        let key = ApiKey::parse(text).unwrap().expose_pkcs8();
        Self::of(&KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.as_slice())).unwrap())
    }

    /// With these certificates behind its own.
    pub(crate) fn followed_by(mut self, others: &Self) -> Self {
        self.chain.extend(others.chain.iter().cloned());
        self
    }

    /// These certificates, with the key of another.
    pub(crate) fn with_the_key_of(&self, other: &Self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: other.key.clone_key(),
        }
    }

    pub(crate) fn identity(&self) -> String {
        Identity::of_chain([self.chain[0].as_ref()])
            .unwrap()
            .to_string()
    }
}

/// One of each kind of key that may be somebody's.
pub(crate) fn credentials() -> Vec<(&'static str, Credential)> {
    let of = |algorithm: &'static SignatureAlgorithm| {
        Credential::of(&KeyPair::generate_for(algorithm).unwrap())
    };
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048);
    vec![
        ("Ed25519", of(&PKCS_ED25519)),
        ("P-256", of(&PKCS_ECDSA_P256_SHA256)),
        ("P-384", of(&PKCS_ECDSA_P384_SHA384)),
        ("RSA", Credential::of(&rsa.unwrap())),
    ]
}

fn authority(key: &KeyPair) -> rcgen::Certificate {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(key).unwrap()
}

/// Issues certificates.
pub(crate) struct Authority {
    pub(crate) certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A server's certificate and key in DER.
    pub(crate) fn server(&self) -> (Vec<u8>, Vec<u8>) {
        let (certificate, key) = self.issue("localhost");
        (certificate.der().to_vec(), key.serialize_der())
    }

    /// A server's certificate and key in PEM.
    pub(crate) fn server_pem(&self) -> (String, String) {
        let (certificate, key) = self.issue("localhost");
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn client(&self) -> Credential {
        let (certificate, key) = self.issue("client");
        Credential::new(&certificate, &key)
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}
