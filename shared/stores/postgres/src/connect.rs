//! Connections to the server that accepts writes.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use crate::failure;
use crate::session::Session;
use crate::url::{ClientFiles, ServerUrl, Tls};

/// How long a connection to one host may take, with TLS and login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The oldest release of PostgreSQL that is used, in its own notation.
const OLDEST: u32 = 130_000;

/// Settings of each session, and what the server says of itself. The server's own timeouts end a statement before
/// [`crate::ATTEMPT_TIMEOUT`]. Only stronger settings of `synchronous_commit` are left as they are.
const SET_UP: &str = "SELECT
    current_setting('transaction_read_only') AS read_only,
    current_setting('server_version_num') AS version,
    current_setting('fsync') AS fsync,
    current_setting('synchronous_standby_names') AS standbys,
    current_setting('synchronous_commit') AS commit,
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('statement_timeout', '4000', false),
    set_config('lock_timeout', '3000', false),
    set_config('idle_in_transaction_session_timeout', '60000', false)";

/// Receives the payload of each announcement.
pub(crate) type Announced = Box<dyn FnMut(&str) + Send>;

/// A database server, or several of which one is the primary.
pub struct Server {
    hosts: Vec<Config>,
    name: String,
    password: Password,
    tls: MakeRustlsConnect,
    /// The host that accepted the last connection.
    preferred: AtomicUsize,
}

enum Password {
    None,
    Given(Zeroizing<Vec<u8>>),
    /// Its first line, read for each connection: it may change.
    InFile(PathBuf),
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No host accepted a connection. The text says why for each.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// Every host that answers is a standby.
    #[error("no server accepts writes: {0}")]
    ReadOnly(String),
    /// The server refuses the user, the password or the database.
    #[error("the login fails: {0}")]
    Login(String),
    /// The server does not flush to its disk.
    #[error("the server has fsync = off and would lose acknowledged writes; turn it on")]
    NotDurable,
    /// The server is too old.
    #[error("the server is PostgreSQL {0}, and Keyway needs 13 or newer")]
    TooOld(String),
    /// The certificates of the authorities cannot be used.
    #[error("sslrootcert {}: {why}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The client's certificate or key cannot be used.
    #[error("sslcert and sslkey: {}: {why}", path.display())]
    Client {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The system has no certificates of authorities.
    #[error("the system has no certificates of authorities; name a file with sslrootcert")]
    NoAuthorities,
    /// The password's file cannot be used.
    #[error("the password file {}: {why}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl ConnectError {
    /// Whether another attempt soon fails in the same way.
    pub(crate) const fn is_final(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::ReadOnly(_))
    }
}

/// What a server said of itself.
pub(crate) struct Facts {
    version: String,
    commit: String,
    standbys: String,
}

impl Facts {
    /// Says what an acknowledged write is worth on this server.
    pub(crate) fn log(&self, server: &str) {
        let raised = !["on", "remote_apply"].contains(&self.commit.as_str());
        if raised {
            tracing::warn!(
                configured = self.commit,
                "the server's synchronous_commit would lose acknowledged writes; Keyway's sessions use `on`"
            );
        }
        let durable = if self.standbys.is_empty() {
            "an acknowledged write is on the primary's disk; the server has no synchronous standby, so a failover may lose \
             the last ones"
        } else {
            "an acknowledged write is on the disks of the primary and of its synchronous standbys"
        };
        tracing::info!(server, version = self.version, "{durable}");
    }
}

impl Server {
    /// The server of this URL. Reads the certificates of its authorities, and the client's certificate and key.
    ///
    /// # Errors
    /// When those cannot be used.
    pub fn new(url: ServerUrl) -> Result<Self, ConnectError> {
        let name = url.name().to_owned();
        let tls = MakeRustlsConnect::new(tls(&url.tls)?);
        Ok(Self {
            hosts: url.hosts,
            name,
            password: url.password.map_or(Password::None, Password::Given),
            tls,
            preferred: AtomicUsize::new(0),
        })
    }

    /// Takes the password from the first line of this file.
    #[must_use]
    pub fn with_password_file(mut self, file: PathBuf) -> Self {
        self.password = Password::InFile(file);
        self
    }

    /// The hosts and ports, for people to read.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection to the host that accepts writes; tries the last such host first.
    pub(crate) async fn connect(
        &self,
        announced: Option<&(dyn Fn() -> Announced + Send + Sync)>,
    ) -> Result<(Session, Facts), ConnectError> {
        let password = self.password()?;
        let first = self.preferred.load(Ordering::Relaxed);
        let (mut unreachable, mut read_only) = (Vec::new(), Vec::new());
        for offset in 0..self.hosts.len() {
            let index = first.wrapping_add(offset) % self.hosts.len();
            let Some(host) = self.hosts.get(index) else {
                continue;
            };
            let mut config = host.clone();
            if let Some(password) = &password {
                config.password(password.as_slice());
            }
            let announced = announced.map(|announced| announced());
            match timeout(CONNECT_TIMEOUT, self.connect_to(&config, announced)).await {
                Ok(Ok(made)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(made);
                }
                Ok(Err(ConnectError::ReadOnly(_))) => {
                    read_only.push("it is a standby, or read-only".to_owned())
                }
                Ok(Err(ConnectError::Unreachable(why))) => unreachable.push(why),
                Ok(Err(error)) if self.hosts.len() == 1 => return Err(error),
                Ok(Err(error)) => unreachable.push(error.to_string()),
                Err(_) => unreachable.push("it does not answer".to_owned()),
            }
        }
        if unreachable.is_empty() {
            Err(ConnectError::ReadOnly(read_only.join("; ")))
        } else {
            unreachable.extend(read_only);
            Err(ConnectError::Unreachable(unreachable.join("; ")))
        }
    }

    async fn connect_to(
        &self,
        config: &Config,
        announced: Option<Announced>,
    ) -> Result<(Session, Facts), ConnectError> {
        let (client, mut connection) = config
            .connect(self.tls.clone())
            .await
            .map_err(|error| refused(&error))?;
        let mut announced = announced;
        let driver = tokio::spawn(async move {
            // The client's calls report what ends the connection.
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let (AsyncMessage::Notification(told), Some(announced)) =
                    (message, announced.as_mut())
                {
                    announced(told.payload());
                }
            }
        });
        let session = Session::new(client, driver);
        let facts = set_up(session.client()).await?;
        Ok((session, facts))
    }

    fn password(&self) -> Result<Option<Zeroizing<Vec<u8>>>, ConnectError> {
        match &self.password {
            Password::None => Ok(None),
            Password::Given(password) => Ok(Some(password.clone())),
            Password::InFile(path) => first_line(path).map(Some),
        }
    }
}

fn first_line(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConnectError> {
    let refused = |why: String| ConnectError::PasswordFile {
        path: path.to_owned(),
        why,
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let text = Zeroizing::new(text);
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.as_bytes().to_vec())),
        _ => Err(refused("its first line is empty".to_owned())),
    }
}

/// Sets the session up and checks the server.
async fn set_up(client: &Client) -> Result<Facts, ConnectError> {
    let messages = client
        .simple_query(SET_UP)
        .await
        .map_err(|error| refused(&error))?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let told = |column: &str| {
        let value = row.and_then(|row| row.try_get(column).ok().flatten());
        value.unwrap_or_default().to_owned()
    };
    let version = told("version");
    if version.parse().is_ok_and(|version: u32| version < OLDEST) {
        return Err(ConnectError::TooOld(version));
    }
    if told("fsync") == "off" {
        return Err(ConnectError::NotDurable);
    }
    if told("read_only") != "off" {
        return Err(ConnectError::ReadOnly(String::new()));
    }
    Ok(Facts {
        version,
        commit: told("commit"),
        standbys: told("standbys"),
    })
}

/// Why a server refused the connection. A server that starts or has too many connections may accept it later.
fn refused(error: &tokio_postgres::Error) -> ConnectError {
    let told = failure::told(error);
    match error.code() {
        Some(code)
            if ["28", "3D"]
                .iter()
                .any(|class| code.code().starts_with(class))
                || *code == SqlState::INSUFFICIENT_PRIVILEGE =>
        {
            ConnectError::Login(told)
        }
        _ => ConnectError::Unreachable(told),
    }
}

fn tls(tls: &Tls) -> Result<ClientConfig, ConnectError> {
    let roots = match tls {
        Tls::Off => RootCertStore::empty(),
        Tls::VerifyFull {
            authorities: None, ..
        } => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(ConnectError::NoAuthorities);
            }
            roots
        }
        Tls::VerifyFull {
            authorities: Some(path),
            ..
        } => authorities(path)?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Unreachable(error.to_string()))?
        .with_root_certificates(roots);
    match tls {
        Tls::VerifyFull {
            client: Some(files),
            ..
        } => with_client(config, files),
        _ => Ok(config.with_no_client_auth()),
    }
}

/// TLS with the certificate and key of these files, which are read now.
fn with_client(
    config: ConfigBuilder<ClientConfig, WantsClientCert>,
    files: &ClientFiles,
) -> Result<ClientConfig, ConnectError> {
    let refused = |path: &Path, why: String| ConnectError::Client {
        path: path.to_owned(),
        why,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| refused(&files.certificate, error.to_string()));
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| refused(&files.key, error.to_string()))?;
    config
        .with_client_auth_cert(chain?, key)
        .map_err(|error| refused(&files.certificate, error.to_string()))
}

fn authorities(path: &Path) -> Result<RootCertStore, ConnectError> {
    let refused = |why: String| ConnectError::Authorities {
        path: path.to_owned(),
        why,
    };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| refused(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refused("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// Makes the connections of a pool.
pub(crate) struct Sessions(pub(crate) Server);

impl Manager for Sessions {
    type Type = Session;
    type Error = ConnectError;

    async fn create(&self) -> Result<Session, ConnectError> {
        Ok(self.0.connect(None).await?.0)
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<ConnectError> {
        if session.client().is_closed() {
            return Err(RecycleError::message("the connection has ended"));
        }
        Ok(())
    }
}
