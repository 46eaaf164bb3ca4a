//! HashiCorp Vault or OpenBao over HTTP: the transit engine wraps master keys, and the KV v2 engine keeps sealed copies
//! of their records. `docs/vault.md` says what Keyway needs of it.
//!
//! **Transit:** one derived key, with the binding as its context, so that a wrapped key unwraps only under its own id,
//! version and origin. Wrapping never makes a transit key: Vault would make a missing one, so the request names a type
//! that cannot encrypt, which Vault refuses to make.
//!
//! **Secrets:** the KV v2 engine can also hold a few secrets, such as the root keyring of a deployment whose table is a
//! database ([`VaultSecrets`]).
//!
//! **Invariant:** no error and no log line repeats anything from Vault.

mod auth;
mod check;
mod client;
mod connection;
mod context;
mod failure;
mod http;
mod kv;
mod resolver;
mod secrets;
mod token_file;
mod transit;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use keyway_crypto::SecretBytes;
use keyway_domain::Fault;
use keyway_domain::ports::Clock;
use keyway_domain::vault::{
    Vault, VaultAddress, VaultAuth, VaultPath, VaultRetryPolicy, VaultSettings, Vaults,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::client::Client;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::http::Http;

pub use crate::secrets::{SecretsPlace, VaultSecrets};
pub use crate::token_file::TokenFolders;
pub use crate::transit::TRANSIT_KEY;

/// Opens clients of Vaults over HTTP.
pub struct VaultsOverHttp {
    authorities: Vec<CertificateDer<'static>>,
    longest: Duration,
    clock: Arc<dyn Clock>,
    token_folders: Arc<TokenFolders>,
    // Built when first needed: reading the system's root certificates is slow, and loopback does not need them.
    tls: OnceLock<ClientConfig>,
}

impl VaultsOverHttp {
    /// Trusts the system's root certificates and those in `authorities`, which is PEM. No operation takes longer than
    /// `longest`, even if the settings allow more.
    ///
    /// # Errors
    /// When `authorities` is not PEM, or holds no certificate.
    pub fn new(
        authorities: Option<&[u8]>,
        longest: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Fault> {
        let authorities = match authorities {
            None => Vec::new(),
            Some(pem) => CertificateDer::pem_slice_iter(pem)
                .collect::<Result<Vec<_>, _>>()
                .ok()
                .filter(|found| !found.is_empty())
                .ok_or_else(|| {
                    Fault::plain(
                        "the certificate authorities for Vault are not certificates in PEM",
                    )
                })?,
        };
        Ok(Self {
            authorities,
            longest,
            clock,
            token_folders: Arc::default(),
            tls: OnceLock::new(),
        })
    }

    /// Allows token files below these folders. Without this, no token file is read.
    #[must_use]
    pub fn reading_tokens(mut self, folders: TokenFolders) -> Self {
        self.token_folders = Arc::new(folders);
        self
    }

    /// The store of secrets at this place. Sends nothing yet. `credential` is the token or secret id that `place.auth`
    /// needs, and `None` for a token file.
    ///
    /// # Errors
    /// When no client can be made from the place.
    pub fn secrets(
        &self,
        place: SecretsPlace,
        credential: Option<&SecretBytes>,
        retry_policy: VaultRetryPolicy,
    ) -> Result<VaultSecrets, Fault> {
        let (address, namespace) = (&place.address, place.namespace.as_ref());
        let connection =
            self.connection(address, namespace, &place.auth, credential, retry_policy)?;
        Ok(VaultSecrets { connection, place })
    }

    fn connection(
        &self,
        address: &VaultAddress,
        namespace: Option<&VaultPath>,
        auth: &VaultAuth,
        credential: Option<&SecretBytes>,
        retry_policy: VaultRetryPolicy,
    ) -> Result<Connection, Fault> {
        let failed = |error| Fault::new("a client for Vault", error);
        let address = address.as_str();
        let tls = match address.starts_with("https://") {
            true => Some(self.tls()?),
            false => None,
        };
        let http = Http::new(address, namespace.map(VaultPath::as_str), tls).map_err(failed)?;
        let retry_policy = VaultRetryPolicy {
            timeout: retry_policy.timeout.min(self.longest),
            ..retry_policy
        };
        let (clock, folders) = (Arc::clone(&self.clock), Arc::clone(&self.token_folders));
        Connection::new(http, auth, credential, retry_policy, clock, folders).map_err(failed)
    }

    fn tls(&self) -> Result<ClientConfig, Fault> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let mut roots = RootCertStore::empty();
        // Skip those that cannot be read: the authority that is needed may be among the others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(|_| {
                Fault::plain("a certificate authority for Vault is no X.509 certificate")
            })?;
        }
        if roots.is_empty() {
            return Err(Fault::plain(
                "no certificate authority is known: the system has none, and none was given for Vault",
            ));
        }
        let tls = tls(roots).map_err(|error| Fault::new("TLS to Vault", error))?;
        Ok(self.tls.get_or_init(|| tls).clone())
    }
}

/// TLS on AWS-LC that trusts these authorities.
fn tls(roots: RootCertStore) -> Result<ClientConfig, Failure> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| Failure::Input("TLS has no version that can be spoken"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

#[async_trait]
impl Vaults for VaultsOverHttp {
    async fn token_file(&self, path: &str) -> Result<(), String> {
        let read = auth::read_token(&self.token_folders, path).await;
        read.map(drop)
            .map_err(|why| format!("cannot be used: {why}"))
    }

    fn open(
        &self,
        settings: &VaultSettings,
        credential: Option<&SecretBytes>,
        retry_policy: VaultRetryPolicy,
    ) -> Result<Arc<dyn Vault>, Fault> {
        let (address, namespace) = (&settings.address, settings.namespace.as_ref());
        let connection =
            self.connection(address, namespace, &settings.auth, credential, retry_policy)?;
        Ok(Arc::new(Client::new(connection, settings)))
    }
}
