//! A proxy or load balancer that terminates the client's TLS and passes the client's certificate in a header.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use keyway_http::Request;
use percent_encoding::percent_decode_str;

use super::{Identity, Network, Unidentified};

/// The header in which a proxy passes a certificate, as percent-encoded PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyCertificateHeader {
    /// nginx, as configured for KES: `$ssl_client_escaped_cert`.
    TlsClientCert,
    /// An AWS load balancer that passes certificates through unverified: the whole chain.
    AmznMtlsClientcert,
    /// An AWS load balancer that verifies certificates: the client's own.
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

/// The peers whose certificate header is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedProxies {
    /// Every peer. Safe only if all requests come through the proxy, as for a function that answers a load balancer's
    /// events.
    Everybody,
    /// Connections from these networks, or with a client certificate of one of these identities.
    These(Vec<Network>, Vec<Identity>),
}

/// A proxy that is trusted about its clients' certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxy {
    /// The header with the certificates.
    pub header: ProxyCertificateHeader,
    /// The proxy's networks or identities.
    pub proxies: TrustedProxies,
}

/// The trusted proxy's configuration is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustedProxyError {
    /// No known proxy passes certificates in this header.
    #[error(
        "`{0}` is not known to carry a certificate; there are X-Tls-Client-Cert, X-Amzn-Mtls-Clientcert and X-Amzn-Mtls-Clientcert-Leaf"
    )]
    Header(String),
    /// An entry of the list is neither an address nor a network nor an identity.
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

    /// Parses comma-separated addresses, networks and identities. [`TrustedProxies::Everybody`] has no text: it follows
    /// from how requests reach the process.
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
    /// The identity of the client that sent the request. A proxy may be configured.
    ///
    /// For a request through the proxy only the header counts. For any other request only the certificate of the connection
    /// or event counts.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub fn identify(proxy: Option<&Self>, request: &Request) -> Result<Identity, Unidentified> {
        match proxy {
            Some(proxy) if proxy.has_sent(request) => proxy.told(request),
            _ => Identity::of_peer(&request.peer),
        }
    }

    /// Whether the request came through the proxy.
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
            // A proxy that appends to the client's headers would leave a certificate of the client's choice first.
            return Err(Unidentified::Several);
        }
        let text = value.to_str().map_err(|_| Unidentified::Malformed)?;
        if text.is_empty() {
            // nginx sends an empty value for a client without a certificate.
            return Err(Unidentified::Missing);
        }
        Identity::of_pem(&decoded(text)?)
    }
}

/// Decodes PEM that a proxy percent-encoded.
///
/// A `+` stays a `+`: base64 contains it, and AWS load balancers leave it as it is. In form encoding it is a space; only
/// form-encoded text begins with `-----BEGIN+CERTIFICATE`.
fn decoded(text: &str) -> Result<String, Unidentified> {
    let text: Cow<'_, str> = if text.starts_with("-----BEGIN+CERTIFICATE") {
        text.replace('+', " ").into()
    } else {
        text.into()
    };
    let decoded = percent_decode_str(&text).decode_utf8();
    Ok(decoded.map_err(|_| Unidentified::Malformed)?.into_owned())
}
