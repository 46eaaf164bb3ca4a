//! The operator's settings of KES's server API.

use std::str::FromStr;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use keyway_auth::certificate::{ProxyCertificateHeader, TrustedProxies, TrustedProxy};
use keyway_domain::datakey::CiphertextFormat;
use keyway_domain::identity::Identity;
use keyway_domain::keys::{Deletion, DeletionWindow};

/// The newest release of KES.
const LATEST: &str = "latest";

/// How KES's server API is served.
#[derive(Debug, Clone, Default, Args)]
pub struct KesSettings {
    /// The identity that may do everything in KES's API: a public key's SHA-256, as `keyway identity of` prints it
    #[arg(id = "kes_admin", long = "kes-admin-identity", env = "KEYWAY_KES_ADMIN", value_name = "HEX",
          default_value = "", hide_default_value = true, value_parser = admin)]
    pub admin: Named<Identity>,

    /// Paths of KES's API that need no certificate, with commas between them, of /v1/ready, /v1/status, /v1/metrics and /v1/api
    #[arg(
        id = "kes_open",
        long = "kes-open",
        env = "KEYWAY_KES_OPEN",
        value_name = "PATHS",
        default_value = "",
        hide_default_value = true
    )]
    pub open: String,

    /// What becomes of a key that KES's API deletes
    #[arg(id = "kes_delete", long = "kes-delete", env = "KEYWAY_KES_DELETE", value_enum, default_value_t = OnDelete::Destroy)]
    pub delete: OnDelete,

    /// What ciphertexts of KES's API look like
    #[arg(id = "kes_ciphertext", long = "kes-ciphertext", env = "KEYWAY_KES_CIPHERTEXT", value_enum, default_value_t = Ciphertext::Keyway)]
    pub ciphertext: Ciphertext,

    /// The release of KES whose shapes and texts KES's API answers with: latest, 0.22 (for clients of v0.18 to 2023-10-03),
    /// 0.17 (v0.15 to v0.17), 0.13 (v0.13, v0.14) or 0.7 (v0.5 to v0.12)
    #[arg(
        id = "kes_generation",
        long = "kes-generation",
        env = "KEYWAY_KES_GENERATION",
        value_name = "RELEASE",
        default_value = LATEST,
        value_parser = PossibleValuesParser::new([LATEST, "0.22", "0.17", "0.13", "0.7"])
    )]
    pub generation: String,

    /// The header in which a proxy passes on its clients' certificates: X-Tls-Client-Cert, X-Amzn-Mtls-Clientcert or
    /// X-Amzn-Mtls-Clientcert-Leaf
    #[arg(id = "kes_front_header", long = "kes-proxy-header", env = "KEYWAY_KES_PROXY_HEADER", value_name = "NAME",
          default_value = "", hide_default_value = true, value_parser = or_none::<ProxyCertificateHeader>)]
    pub proxy_header: Named<ProxyCertificateHeader>,

    /// With --kes-proxy-header: the proxies that are believed, as addresses, networks or identities with commas between them
    #[arg(id = "kes_fronts", long = "kes-proxies", env = "KEYWAY_KES_PROXIES", value_name = "LIST",
          default_value = "", hide_default_value = true, value_parser = or_none::<TrustedProxies>)]
    pub proxies: Named<TrustedProxies>,
}

/// An optional setting. A template passes an empty text for one that is not given.
pub(crate) type Named<T> = Option<T>;

fn or_none<T: FromStr>(text: &str) -> Result<Named<T>, T::Err> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some)
}

fn admin(text: &str) -> Result<Named<Identity>, String> {
    let proven = or_none::<keyway_auth::certificate::Identity>(text);
    let proven = proven.map_err(|error| error.to_string())?;
    proven
        .map(|identity| Identity::parse(&identity.to_string()))
        .transpose()
        .map_err(|_| "is no identity".to_owned())
}

/// What becomes of a key that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OnDelete {
    /// It is destroyed at once, as KES promises
    #[default]
    Destroy,
    /// It can no longer be used, and is destroyed a week later unless that is cancelled
    Schedule,
}

/// What ciphertexts look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Ciphertext {
    /// Keyway's own format
    #[default]
    Keyway,
    /// KES's format, which KES can open again, for keys that were imported from KES and never rotated since
    Kes,
}

impl KesSettings {
    /// The first option that is not at its default.
    pub fn changed(&self) -> Option<&'static str> {
        let options = [
            ("--kes-admin-identity", self.admin.is_some()),
            ("--kes-open", !self.open.is_empty()),
            ("--kes-delete", self.delete != OnDelete::default()),
            ("--kes-ciphertext", self.ciphertext != Ciphertext::default()),
            ("--kes-generation", self.generation != LATEST),
            ("--kes-proxy-header", self.proxy_header.is_some()),
            ("--kes-proxies", self.proxies.is_some()),
        ];
        let changed = options.into_iter().find(|(_, is_changed)| *is_changed);
        changed.map(|(option, _)| option)
    }

    /// What becomes of a key that is deleted.
    pub fn deletion(&self) -> Deletion {
        match self.delete {
            OnDelete::Destroy => Deletion::Immediate,
            OnDelete::Schedule => Deletion::Scheduled(DeletionWindow::DEFAULT),
        }
    }

    /// What ciphertexts look like.
    pub fn sealing(&self) -> CiphertextFormat {
        match self.ciphertext {
            Ciphertext::Keyway => CiphertextFormat::Keyway,
            Ciphertext::Kes => CiphertextFormat::Kes,
        }
    }

    /// The proxies whose header about a client's certificate is believed: those of the settings, else `otherwise`.
    pub fn trusted_proxy(&self, otherwise: Option<TrustedProxies>) -> Option<TrustedProxy> {
        Some(TrustedProxy {
            header: self.proxy_header?,
            proxies: self.proxies.clone().or(otherwise)?,
        })
    }
}
