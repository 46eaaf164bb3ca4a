//! Who a client is by its certificate: the hash of its public key, whoever issued the certificate and until when.
//!
//! A certificate is taken from whoever has verified that the client has its key: the TLS connection itself, a gateway's
//! event, or a header of the one [`TrustedProxy`] that was configured. A header from anybody else is not looked at.

mod api_key;
mod network;
mod proxy;
mod public_key;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use keyway_http::{ClientCertificate, Peer};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

pub use api_key::{ApiKey, NotAnApiKey};
pub use network::Network;
pub use proxy::{ProxyCertificateHeader, TrustedProxies, TrustedProxy, TrustedProxyError};

/// Who a client is: the SHA-256 of its public key (the DER of SubjectPublicKeyInfo), written in lowercase hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 32]);

/// A text is no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an identity has 64 digits of lowercase hexadecimal")]
pub struct NotAnIdentity;

/// Why a client has no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// It has shown no certificate, or none but authorities'.
    #[error("there is no client's certificate, or it is an authority's (CA:TRUE)")]
    Missing,
    /// It has shown several that are no authorities', of which one alone can be its own.
    #[error("there is more than one certificate that is no authority's")]
    Several,
    /// What it has shown is no certificate.
    #[error("this is no X.509 certificate")]
    Malformed,
    /// The certificate's key is none of Ed25519, ECDSA on P-256 or P-384, or RSA of 2,048 bits or more.
    #[error(
        "the certificate's key is none of Ed25519, ECDSA on P-256 or P-384, or RSA of 2,048 bits or more"
    )]
    Key,
}

impl Identity {
    /// The identity of a public key, given as the DER of its SubjectPublicKeyInfo.
    fn of_public_key(info: &[u8]) -> Self {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(digest(&SHA256, info).as_ref()) {
            *to = *from;
        }
        Self(hash)
    }

    fn of_info(info: &SubjectPublicKeyInfoOwned) -> Result<Self, Unidentified> {
        if !public_key::is_accepted(info) {
            return Err(Unidentified::Key);
        }
        // Certificates are read strictly, so that this is what stood there. The handshake verifies with the same
        // bytes, had in the same way: nobody proves one key and is taken for another.
        let der = info.to_der().map_err(|_| Unidentified::Malformed)?;
        Ok(Self::of_public_key(&der))
    }

    /// Whom the peer's own certificates prove, however it is that they came.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub fn of_peer(peer: &Peer) -> Result<Self, Unidentified> {
        match &peer.client_certificate {
            None => Err(Unidentified::Missing),
            Some(ClientCertificate::Der(chain)) => Self::of_chain(chain.iter().map(AsRef::as_ref)),
            Some(ClientCertificate::Pem(text)) => Self::of_pem(text),
        }
    }

    /// Whom the certificates of a PEM text prove, the first of which is the client's own.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub fn of_pem(text: &str) -> Result<Self, Unidentified> {
        let chain = CertificateDer::pem_slice_iter(text.as_bytes())
            .take(LONGEST_CHAIN + 1)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Unidentified::Malformed)?;
        Self::of_chain(chain.iter().map(AsRef::as_ref))
    }

    /// Whom a chain of certificates in DER proves, the first of which is the client's own.
    ///
    /// Authorities' certificates have no identity and are passed over. But only the key of the first was proven: when
    /// that is an authority's, another one behind it says nothing about who sent it.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub fn of_chain<'c>(chain: impl IntoIterator<Item = &'c [u8]>) -> Result<Self, Unidentified> {
        let mut chain = chain.into_iter();
        let own = chain.next().ok_or(Unidentified::Missing)?;
        let parsed = parse(own)?;
        let mut others = 0;
        for (number, other) in chain.enumerate() {
            if number + 1 >= LONGEST_CHAIN {
                return Err(Unidentified::Malformed);
            }
            others += usize::from(!is_authority(&parse(other)?)?);
        }
        match (is_authority(&parsed)?, others) {
            (true, _) => Err(Unidentified::Missing),
            (false, 1..) => Err(Unidentified::Several),
            (false, 0) => Self::of_info(parsed.tbs_certificate().subject_public_key_info()),
        }
    }
}

/// Longer chains are nobody's.
const LONGEST_CHAIN: usize = 10;

fn parse(der: &[u8]) -> Result<Certificate, Unidentified> {
    Certificate::from_der(der).map_err(|_| Unidentified::Malformed)
}

/// Whether the certificate's basic constraints say that it is an authority's.
fn is_authority(certificate: &Certificate) -> Result<bool, Unidentified> {
    let found = certificate
        .tbs_certificate()
        .get_extension::<BasicConstraints>();
    match found {
        Ok(found) => Ok(found.is_some_and(|(_, constraints)| constraints.ca)),
        Err(_) => Err(Unidentified::Malformed),
    }
}

/// The SHA-256 of a certificate in DER, as tools print it: pairs of uppercase hexadecimal digits with colons.
pub fn fingerprint(certificate: &[u8]) -> String {
    let hash = digest(&SHA256, certificate);
    let pairs: Vec<String> = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    pairs.join(":")
}

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(NotAnIdentity);
        }
        let mut hash = [0; 32];
        for (byte, &[high, low]) in hash.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (nibble(high), nibble(low)) else {
                return Err(NotAnIdentity);
            };
            *byte = high << 4 | low;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({self})")
    }
}
