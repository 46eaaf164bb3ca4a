//! The files of the listeners' certificates, as options of the commands that read them.

use std::path::PathBuf;

use clap::Args;

/// The certificate of the listener of RustFS's API.
#[derive(Args)]
pub(crate) struct TlsFiles {
    /// The certificate for TLS, and its chain after it, in PEM; a server reads it again when it changes
    #[arg(
        long,
        env = "KEYWAY_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The key of --tls-cert in PEM
    #[arg(
        long,
        env = "KEYWAY_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
}

/// The certificate of KES's listener, and the authorities of its clients.
#[derive(Args)]
pub(crate) struct KesFiles {
    /// The certificate of KES's listener, and its chain after it, in PEM; a server reads it again when it changes. Without it,
    /// one is made for loopback
    #[arg(
        long,
        env = "KEYWAY_KES_CERT",
        value_name = "FILE",
        requires = "kes_key"
    )]
    pub(crate) kes_cert: Option<PathBuf>,

    /// The key of --kes-cert in PEM
    #[arg(
        long,
        env = "KEYWAY_KES_KEY",
        value_name = "FILE",
        requires = "kes_cert"
    )]
    pub(crate) kes_key: Option<PathBuf>,

    /// The authorities in PEM that must have issued the certificates of KES's clients. Without it any certificate is taken,
    /// because the hash of its key says who a client is
    #[arg(long, env = "KEYWAY_KES_CLIENT_CA", value_name = "FILE")]
    pub(crate) kes_client_ca: Option<PathBuf>,
}
