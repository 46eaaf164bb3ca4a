//! Makes self-signed certificates for clients of KES's API and for a listener on loopback.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use zeroize::Zeroizing;

/// The type of a client's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKey {
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA of 2,048 bits.
    Rsa2048,
    /// RSA of 3,072 bits.
    Rsa3072,
    /// RSA of 4,096 bits.
    Rsa4096,
}

/// The key or its certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the {0} could not be made")]
pub struct NotMade(&'static str, #[source] rcgen::Error);

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.display())]
pub struct NotWritten(PathBuf, #[source] io::Error);

/// A certificate and its key.
pub struct CertifiedKey {
    certificate: Certificate,
    key: KeyPair,
}

impl CertifiedKey {
    /// A client's certificate, which cannot sign others. It is valid for as long as possible: the identity is the hash of
    /// its key, and the operator revokes permissions by identity.
    ///
    /// # Errors
    /// [`NotMade`] when the system gives no random bytes.
    pub fn of_client(kind: ClientKey) -> Result<Self, NotMade> {
        let key = match kind {
            ClientKey::Ecdsa => KeyPair::generate(),
            ClientKey::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            ClientKey::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
            ClientKey::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        };
        let params = params("keyway client", ExtendedKeyUsagePurpose::ClientAuth);
        Self::signed(&params, key)
    }

    /// A client's certificate of this private key in PKCS #8, for a client that has a key and no certificate.
    ///
    /// # Errors
    /// [`NotMade`] when it is no private key.
    pub fn of_client_key(pkcs8: &[u8]) -> Result<Self, NotMade> {
        let params = params("keyway client", ExtendedKeyUsagePurpose::ClientAuth);
        Self::signed(&params, KeyPair::try_from(pkcs8))
    }

    /// The certificate of a listener that clients reach as `localhost`, 127.0.0.1 or `::1`.
    ///
    /// # Errors
    /// [`NotMade`] when the system gives no random bytes.
    pub fn for_loopback() -> Result<Self, NotMade> {
        let mut params = params("keyway", ExtendedKeyUsagePurpose::ServerAuth);
        let name = "localhost".try_into();
        params.subject_alt_names = vec![
            SanType::DnsName(name.map_err(|error| NotMade("certificate", error))?),
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
            SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
        ];
        Self::signed(&params, KeyPair::generate())
    }

    fn signed(
        params: &CertificateParams,
        key: Result<KeyPair, rcgen::Error>,
    ) -> Result<Self, NotMade> {
        let key = key.map_err(|error| NotMade("key", error))?;
        let certificate = params.self_signed(&key);
        let certificate = certificate.map_err(|error| NotMade("certificate", error))?;
        Ok(Self { certificate, key })
    }

    /// The certificate in DER.
    pub fn certificate_der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// The key in DER.
    pub fn key_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.key.serialize_der())
    }

    /// Writes both in PEM, and never over an existing file, because that may be the only copy of a key. The key's file has
    /// mode 0600 and is written first, so that it exists whenever the certificate's does.
    ///
    /// # Errors
    /// [`NotWritten`] with the file's path. Then neither file is left.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), NotWritten> {
        let secret = Zeroizing::new(self.key.serialize_pem());
        write_new(key, 0o600, secret.as_bytes())?;
        let public = self.certificate.pem();
        write_new(certificate, 0o644, public.as_bytes()).inspect_err(|_| {
            // A key without its certificate would make the next try fail.
            drop(std::fs::remove_file(key));
        })
    }
}

fn params(name: &str, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.is_ca = IsCa::ExplicitNoCa;
    params
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), NotWritten> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|error| NotWritten(path.to_owned(), error))?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // An incomplete file would make the next try fail.
        drop(std::fs::remove_file(path));
        NotWritten(path.to_owned(), error)
    })
}
