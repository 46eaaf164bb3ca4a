//! Settings of a connection: options win over variables, and those over the profile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyway_auth::certificate::ApiKey;
use keyway_certificates::CertifiedKey;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::Error;
use crate::files::{self, Opened};
use crate::profile::{self, Profile};

/// The API that the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// RustFS's KMS admin API, with an access key.
    #[default]
    RustFs,
    /// KES's API, with a certificate or an API key.
    Kes,
}

/// An access key.
pub struct AccessKey {
    /// Its id, which is not secret.
    pub id: String,
    /// Its secret.
    pub secret: Zeroizing<String>,
    /// The token of a temporary access key.
    pub session_token: Option<Zeroizing<String>>,
}

/// The settings that options and variables give. The profile has the others.
#[derive(Default)]
pub struct Settings {
    /// The profile's name.
    pub profile: Option<String>,
    /// The file with the profiles.
    pub profiles_file: Option<PathBuf>,
    /// The server's URL.
    pub endpoint: Option<String>,
    /// The server's API.
    pub api: Option<Api>,
    /// The access key.
    pub access_key: Option<AccessKey>,
    /// The region of the signature.
    pub region: Option<String>,
    /// A file of the certificate authorities to trust instead of the system's, in PEM.
    pub ca: Option<PathBuf>,
    /// A file of the client's certificate, in PEM.
    pub certificate: Option<PathBuf>,
    /// A file of that certificate's key, in PEM.
    pub certificate_key: Option<PathBuf>,
    /// A KES API key.
    pub api_key: Option<Zeroizing<String>>,
    /// How long a call may take, with its retries.
    pub timeout: Option<Duration>,
}

const TIMEOUT: Duration = Duration::from_secs(30);
/// RustFS accepts no other service in a signature; Keyway accepts this one too.
const SERVICE: &str = "s3";
const REGION: &str = "us-east-1";

/// How to reach a server, and as whom.
pub struct Connection {
    pub(crate) endpoint: Endpoint,
    pub(crate) proof: ClientProof,
    pub(crate) authorities: Option<Vec<CertificateDer<'static>>>,
    pub(crate) timeout: Duration,
}

/// What proves to the server who calls.
pub(crate) enum ClientProof {
    AccessKey {
        key: AccessKey,
        region: String,
        service: String,
    },
    Certificate {
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    },
}

/// A server's address: a scheme, a host, perhaps a port and a path.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) scheme: &'static str,
    pub(crate) authority: String,
    /// Without a slash at its end.
    pub(crate) path: String,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, Error> {
        let unfit = |why: &str| {
            Error::Settings(format!(
                "the endpoint {why}; one is https://HOST or https://HOST:PORT"
            ))
        };
        let url = Url::parse(text).map_err(|_| unfit("is not a URL"))?;
        let scheme = match url.scheme() {
            "https" => "https",
            "http" => "http",
            _ => return Err(unfit("must begin with https:// or http://")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unfit("must not have credentials"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(unfit("must not have a query or a fragment"));
        }
        let host = url.host().ok_or_else(|| unfit("has no host"))?;
        if scheme == "http" && !is_loopback(&host) {
            return Err(unfit(
                "is plain HTTP to another machine, where others could read data keys",
            ));
        }
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        Ok(Self {
            scheme,
            authority,
            path: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

impl Settings {
    /// The connection that these settings and the profile describe.
    ///
    /// # Errors
    /// [`Error::Settings`] when one is missing or wrong.
    pub fn connection(self) -> Result<Connection, Error> {
        let mut profile = profile::read(self.profiles_file.as_deref(), self.profile.as_deref())?;
        let api = self.api.or(profile.api).unwrap_or_default();
        let endpoint = self.endpoint.as_deref().or(profile.endpoint.as_deref());
        let endpoint = Endpoint::parse(endpoint.unwrap_or(match api {
            Api::RustFs => "http://127.0.0.1:9000",
            Api::Kes => "https://127.0.0.1:7373",
        }))?;
        if api == Api::Kes && endpoint.scheme == "http" {
            return Err(Error::settings(
                "the endpoint of KES's API must begin with https://: a certificate proves who calls",
            ));
        }
        let ca = self.ca.as_deref().or(profile.ca.as_deref());
        let authorities = ca.map(certificates).transpose()?;
        let profile_timeout = profile.timeout_seconds.map(Duration::from_secs);
        let timeout = self.timeout.or(profile_timeout).unwrap_or(TIMEOUT);
        if timeout.is_zero() {
            return Err(Error::settings("the timeout must be a second or more"));
        }
        let proof = match api {
            Api::RustFs => ClientProof::AccessKey {
                region: (self.region.or(profile.region.take()))
                    .unwrap_or_else(|| REGION.to_owned()),
                service: (profile.service.take()).unwrap_or_else(|| SERVICE.to_owned()),
                key: match self.access_key {
                    Some(key) => key,
                    None => access_key(&mut profile)?,
                },
            },
            Api::Kes => {
                let pair = (self.certificate, self.certificate_key);
                let mut own = (pair, self.api_key);
                if own.0.0.is_none() && own.0.1.is_none() && own.1.is_none() {
                    own = of_profile(&mut profile)?;
                }
                certificate(own.0, own.1)?
            }
        };
        Ok(Connection {
            endpoint,
            proof,
            authorities,
            timeout,
        })
    }
}

fn access_key(profile: &mut Profile) -> Result<AccessKey, Error> {
    let Some(id) = profile.access_key.take() else {
        return Err(Error::settings(
            "no access key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key and secret_key_file in a profile",
        ));
    };
    let secret = match (profile.secret_key.take(), &profile.secret_key_file) {
        (Some(secret), None) => secret,
        (None, Some(path)) => files::secret(path)?,
        (None, None) => {
            return Err(Error::settings(
                "the profile has an access_key, but neither secret_key_file nor secret_key",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Error::settings(
                "the profile has both secret_key and secret_key_file: remove one",
            ));
        }
    };
    Ok(AccessKey {
        id,
        secret,
        session_token: profile.session_token.take(),
    })
}

type Pair = (Option<PathBuf>, Option<PathBuf>);

fn of_profile(profile: &mut Profile) -> Result<(Pair, Option<Zeroizing<String>>), Error> {
    let api_key = match (profile.api_key.take(), &profile.api_key_file) {
        (Some(_), Some(_)) => {
            return Err(Error::settings(
                "the profile has both api_key and api_key_file: remove one",
            ));
        }
        (Some(key), None) => Some(key),
        (None, Some(path)) => Some(files::secret(path)?),
        (None, None) => None,
    };
    let pair = (profile.certificate.take(), profile.certificate_key.take());
    Ok((pair, api_key))
}

/// The certificate and its key, read from files or made from an API key.
fn certificate(pair: Pair, api_key: Option<Zeroizing<String>>) -> Result<ClientProof, Error> {
    match (pair, api_key) {
        ((Some(certificate), Some(key)), None) => Ok(ClientProof::Certificate {
            chain: certificates(&certificate)?,
            key: private_key(&key)?,
        }),
        ((None, None), Some(text)) => {
            let key = ApiKey::parse(text.trim())
                .map_err(|error| Error::Settings(format!("the API key: {error}")))?;
            let made = CertifiedKey::of_client_key(&key.expose_pkcs8())
                .map_err(|error| Error::Settings(error.to_string()))?;
            Ok(ClientProof::Certificate {
                chain: vec![CertificateDer::from(made.certificate_der().to_vec())],
                key: PrivateKeyDer::Pkcs8(made.key_der().to_vec().into()),
            })
        }
        ((None, None), None) => Err(Error::settings(
            "nothing proves who calls: set KEYWAY_API_KEY, pass --certificate and --certificate-key, or have them in a profile",
        )),
        ((Some(_), Some(_)), Some(_)) => Err(Error::settings(
            "there are a certificate and an API key: only one of them can prove who calls",
        )),
        (_, _) => Err(Error::settings(
            "a certificate and its key belong together: give both",
        )),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = Opened::open(path)?.text()?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::Settings(format!(
            "{}: there is no certificate in PEM in it",
            path.display()
        ))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let mut file = Opened::open(path)?;
    file.must_be_private()?;
    let text = file.text()?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        Error::Settings(format!(
            "{}: there is no private key in PEM in it that is readable without a passphrase",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_https_or_loopback() {
        for (text, shown) in [
            ("https://kms.example.com", "https://kms.example.com"),
            ("https://kms.example.com:443/", "https://kms.example.com"),
            ("https://h:8443/stage/", "https://h:8443/stage"),
            ("http://localhost:9000", "http://localhost:9000"),
            ("http://127.1.2.3:9000/", "http://127.1.2.3:9000"),
            ("http://[::1]:9000", "http://[::1]:9000"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "kms.example.com",
            "ftp://h",
            "http://kms.example.com",
            "http://localhost.example.com",
            "http://10.0.0.1:9000",
            "https://user@h",
            "https://:secret@h",
            "https://h?q",
            "https://h#f",
            "https://",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
