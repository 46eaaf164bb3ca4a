//! A proxy or load balancer that ends the client's TLS and tells in a header which certificate it was shown.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use keyway_http::Request;
use percent_encoding::percent_decode_str;

use super::{Identity, Network, Unidentified};

/// The header in which a front hands a certificate over, as percent-encoded PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyCertificateHeader {
    /// nginx, as it is configured for KES: `$ssl_client_escaped_cert`.
    TlsClientCert,
    /// A load balancer of AWS that passes certificates through unverified: the whole chain.
    AmznMtlsClientcert,
    /// A load balancer of AWS that verifies certificates: the client's own.
    AmznMtlsClientcertLeaf,
}

impl ProxyCertificateHeader {
    pub(super) const ALL: [Self; 3] = [
        Self::TlsClientCert,
        Self::AmznMtlsClientcert,
        Self::AmznMtlsClientcertLeaf,
    ];

    /// The header's name, as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsClientCert => "X-Tls-Client-Cert",
            Self::AmznMtlsClientcert => "X-Amzn-Mtls-Clientcert",
            Self::AmznMtlsClientcertLeaf => "X-Amzn-Mtls-Clientcert-Leaf",
        }
    }

    const fn name(self) -> HeaderName {
        match self {
            Self::TlsClientCert => HeaderName::from_static("x-tls-client-cert"),
            Self::AmznMtlsClientcert => HeaderName::from_static("x-amzn-mtls-clientcert"),
            Self::AmznMtlsClientcertLeaf => HeaderName::from_static("x-amzn-mtls-clientcert-leaf"),
        }
    }
}

/// From whom a front's header is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedProxies {
    /// From everybody. Only where nobody reaches this process but through the front, as a function does that answers
    /// a load balancer's events.
    Everybody,
    /// From connections that come from these networks, or that show a certificate of these identities.
    These(Vec<Network>, Vec<Identity>),
}

/// The front that is believed about its clients' certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxy {
    /// The header in which it hands them over.
    pub header: ProxyCertificateHeader,
    /// Who it is.
    pub proxies: TrustedProxies,
}

/// The setting of a front is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustedProxyError {
    /// No front hands certificates over in this header.
    #[error(
        "`{0}` is not known to carry a certificate; there are X-Tls-Client-Cert, X-Amzn-Mtls-Clientcert and X-Amzn-Mtls-Clientcert-Leaf"
    )]
    Header(String),
    /// An entry of the list is neither address nor identity.
    #[error(
        "`{0}` is neither an address, nor a network such as 10.0.0.0/8 with no bits set behind its prefix, nor an identity"
    )]
    Entry(String),
    /// The list is empty.
    #[error("nobody is named whose header is to be believed")]
    Nobody,
}

impl FromStr for ProxyCertificateHeader {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        Self::ALL
            .into_iter()
            .find(|header| header.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| TrustedProxyError::Header(text.to_owned()))
    }
}

impl fmt::Display for ProxyCertificateHeader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for TrustedProxies {
    type Err = TrustedProxyError;

    /// Addresses, networks and identities with commas between them. [`TrustedProxies::Everybody`] has no text: it follows
    /// from how a process is reached.
    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        let (mut networks, mut identities) = (Vec::new(), Vec::new());
        let entries = text.split(',').map(str::trim);
        for entry in entries.filter(|entry| !entry.is_empty()) {
            if let Ok(network) = entry.parse() {
                networks.push(network);
            } else if let Ok(identity) = entry.parse() {
                identities.push(identity);
            } else {
                return Err(TrustedProxyError::Entry(entry.to_owned()));
            }
        }
        if networks.is_empty() && identities.is_empty() {
            return Err(TrustedProxyError::Nobody);
        }
        Ok(Self::These(networks, identities))
    }
}

impl TrustedProxy {
    /// Who has sent the request, where perhaps a front is configured.
    ///
    /// What comes through the front is judged by its header alone, and what does not by the certificate of the
    /// connection or event alone.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub fn identify(proxy: Option<&Self>, request: &Request) -> Result<Identity, Unidentified> {
        match proxy {
            Some(proxy) if proxy.has_sent(request) => proxy.told(request),
            _ => Identity::of_peer(&request.peer),
        }
    }

    /// Whether the request came through the front.
    fn has_sent(&self, request: &Request) -> bool {
        match &self.proxies {
            TrustedProxies::Everybody => true,
            TrustedProxies::These(networks, identities) => {
                let address = request.peer.address;
                networks.iter().any(|network| network.contains(address))
                    || !identities.is_empty()
                        && Identity::of_peer(&request.peer)
                            .is_ok_and(|identity| identities.contains(&identity))
            }
        }
    }

    fn told(&self, request: &Request) -> Result<Identity, Unidentified> {
        let mut values = request.headers.get_all(self.header.name()).iter();
        let value = values.next().ok_or(Unidentified::Missing)?;
        if values.next().is_some() {
            // A front that adds to what a client sent would have one of the client's choice stand first.
            return Err(Unidentified::Several);
        }
        let text = value.to_str().map_err(|_| Unidentified::Malformed)?;
        if text.is_empty() {
            // What nginx sends for a client without a certificate.
            return Err(Unidentified::Missing);
        }
        Identity::of_pem(&decoded(text)?)
    }
}

/// PEM that a front has percent-encoded.
///
/// A `+` is itself, as load balancers of AWS leave it, and base64 is full of it; unless the text begins as only form
/// encoding has it, where a `+` is a space.
fn decoded(text: &str) -> Result<String, Unidentified> {
    let text: Cow<'_, str> = if text.starts_with("-----BEGIN+CERTIFICATE") {
        text.replace('+', " ").into()
    } else {
        text.into()
    };
    let decoded = percent_decode_str(&text).decode_utf8();
    Ok(decoded.map_err(|_| Unidentified::Malformed)?.into_owned())
}
