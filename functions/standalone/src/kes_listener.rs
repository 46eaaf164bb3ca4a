//! The listener of KES's server API: TLS, with clients known by their certificates.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{ArgGroup, Args};
use keyway_auth::certificate::fingerprint;
use keyway_certificates::CertifiedKey;
use keyway_deployment_assembly::KesSettings;
use keyway_deployment_embedded::loopback_certificate;
use keyway_runtime_hyper::{Address, Clients, Listener, Tls, listen_tls};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::listener_files::KesFiles;

/// Where KES's server API is served.
#[derive(Args)]
#[command(group = ArgGroup::new("kes_files").multiple(true).args(["kes_cert", "kes_key", "kes_client_ca"]).requires("kes_listen"))]
pub(crate) struct KesListener {
    /// Serve KES's API with TLS on this address, 127.0.0.1:7373 when none is given; port 0 takes a free one
    #[arg(
        long,
        env = "KEYWAY_KES_LISTEN",
        value_name = "ADDRESS:PORT",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:7373"
    )]
    kes_listen: Option<Address>,

    #[command(flatten)]
    files: KesFiles,
}

/// A certificate that Keyway made, for the log.
pub(crate) struct Made {
    /// Its file; none if it lasts only as long as the process.
    pub(crate) path: Option<PathBuf>,
    /// The fingerprint by which clients can recognize it.
    pub(crate) sha256: String,
}

impl KesListener {
    /// Whether the settings ask for this listener.
    pub(crate) const fn is_asked_for(&self) -> bool {
        self.kes_listen.is_some()
    }

    /// Opens the listener, if the settings ask for it. A certificate that Keyway makes is kept in `folder`; without one
    /// it lasts as long as the process.
    pub(crate) async fn open(
        &self,
        folder: Option<&Path>,
    ) -> anyhow::Result<Option<(Listener, Option<Made>)>> {
        let Some(address) = &self.kes_listen else {
            return Ok(None);
        };
        let clients = match &self.files.kes_client_ca {
            None => Clients::Asked,
            Some(authorities) => Clients::IssuedBy(authorities.clone()),
        };
        let (tls, made) = match (&self.files.kes_cert, &self.files.kes_key) {
            (Some(certificate), Some(key)) => {
                let tls = Tls::from_files(certificate, key, clients)
                    .context("--kes-cert, --kes-key and --kes-client-ca")?;
                (tls, None)
            }
            _ if !address.resolve().await?.is_loopback() => bail!(
                "--kes-listen {address} is not loopback: pass the certificate that its clients know, with --kes-cert and --kes-key"
            ),
            _ => {
                let (tls, made) = self_signed(folder, clients)?;
                (tls, Some(made))
            }
        };
        let listener = listen_tls(address.clone(), tls).await;
        let listener = listener.with_context(|| format!("--kes-listen {address}"))?;
        Ok(Some((listener, made)))
    }
}

/// TLS with the certificate that an earlier start made, or a new one.
fn self_signed(folder: Option<&Path>, clients: Clients) -> anyhow::Result<(Tls, Made)> {
    let Some(folder) = folder else {
        let made = CertifiedKey::for_loopback()?;
        let certificate = made.certificate_der();
        let tls = Tls::from_der(certificate.to_vec(), made.key_der().to_vec(), &clients)?;
        let sha256 = fingerprint(certificate);
        return Ok((tls, Made { path: None, sha256 }));
    };
    let (certificate, key) = loopback_certificate(folder)?;
    let der = CertificateDer::from_pem_file(&certificate)
        .map_err(|_| anyhow!("{}: is no certificate in PEM", certificate.display()))?;
    let tls = Tls::from_files(&certificate, &key, clients)?;
    let made = Made {
        path: Some(certificate),
        sha256: fingerprint(&der),
    };
    Ok((tls, made))
}

/// Checks that the settings of KES's API go together.
pub(crate) fn check(settings: &KesSettings) -> anyhow::Result<()> {
    if settings.proxy_header.is_some() != settings.proxies.is_some() {
        bail!("--kes-proxy-header and --kes-proxies belong together");
    }
    if settings.admin.is_none() {
        tracing::warn!(
            "KES's API has no admin: only identities that have a policy can use it; set --kes-admin-identity"
        );
    }
    Ok(())
}
