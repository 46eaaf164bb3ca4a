//! A client's identity by its certificate: the hash of its public key. Issuer and expiry do not matter.
//!
//! A certificate counts only if its source has verified that the client has its key: the TLS connection itself, a
//! gateway's event, or a header of the configured [`TrustedProxy`]. Headers of any other peer are ignored.

mod api_key;
mod network;
mod proxy;
mod public_key;
#[cfg(test)]
mod tests;
mod validity;

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
pub use validity::{NoValidity, Validity};

/// A client's identity: the SHA-256 of its public key (the DER of SubjectPublicKeyInfo), in lowercase hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 32]);

/// The text is not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an identity has 64 digits of lowercase hexadecimal")]
pub struct NotAnIdentity;

/// Why a client has no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// It sent no certificate, or only certificates of authorities.
    #[error("there is no client's certificate, or it is an authority's (CA:TRUE)")]
    Missing,
    /// It sent several certificates that are not authorities'. Only one can be its own.
    #[error("there is more than one certificate that is no authority's")]
    Several,
    /// What it sent is not a certificate.
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
        // Certificates are parsed strictly, so the DER is that of the certificate. The handshake verifies with the same
        // bytes, obtained in the same way, so a client cannot prove one key and get the identity of another.
        let der = info.to_der().map_err(|_| Unidentified::Malformed)?;
        Ok(Self::of_public_key(&der))
    }

    /// The identity that the peer's own certificates prove, in either encoding.
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

    /// The identity that the certificates of a PEM text prove. The first is the client's own.
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

    /// The identity that a chain of certificates in DER proves. The first is the client's own.
    ///
    /// Certificates of authorities have no identity and are skipped. But only possession of the first key was verified: if
    /// the first is an authority's, the certificates after it do not prove who sent the request.
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

/// Longer chains are refused.
const LONGEST_CHAIN: usize = 10;

fn parse(der: &[u8]) -> Result<Certificate, Unidentified> {
    Certificate::from_der(der).map_err(|_| Unidentified::Malformed)
}

/// Whether the certificate's basic constraints mark it as an authority's.
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
