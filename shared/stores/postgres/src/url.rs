//! The URL of a database, as PostgreSQL's own tools take it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use zeroize::Zeroizing;

/// The name of a connection in the server's list of activity.
const APPLICATION: &str = "keyway";

/// A database: hosts, name, user, password, and how TLS is verified.
pub struct ServerUrl {
    /// One configuration for each host, without the password.
    pub(crate) hosts: Vec<Config>,
    pub(crate) password: Option<Zeroizing<Vec<u8>>>,
    pub(crate) tls: Tls,
    name: String,
}

/// How connections are protected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Not at all: all hosts are sockets or loopback addresses of this machine.
    Off,
    /// By TLS, with a certificate for the host's name of one of the authorities in this file, or of the system's.
    VerifyFull {
        authorities: Option<PathBuf>,
        client: Option<ClientFiles>,
    },
}

/// The files of the certificate by which a server knows Keyway, and of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What is wrong with a URL. No text repeats the URL, which may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not begin with `postgres://`.
    #[error("the URL must begin with postgres:// or postgresql://")]
    Scheme,
    /// The driver does not understand it. Texts name a part of the URL and never its value.
    #[error("the URL cannot be read: {0}")]
    Unreadable(String),
    /// It names no host.
    #[error("the URL names no host")]
    NoHost,
    /// A TLS mode that does not verify the server.
    #[error(
        "sslmode={0} does not verify the server's certificate and name; use sslmode=verify-full, or sslmode=disable for a \
         server on this machine"
    )]
    WeakTls(String),
    /// No TLS over the network.
    #[error(
        "sslmode=disable sends records over the network in the clear, to {0}; use sslmode=verify-full"
    )]
    PlainNetwork(String),
    /// A socket has no TLS.
    #[error(
        "{0} is a socket, over which PostgreSQL speaks no TLS; leave sslmode out, or set it to disable"
    )]
    TlsOverSocket(String),
    /// An authority for a connection without TLS.
    #[error("sslrootcert belongs to sslmode=verify-full")]
    UnusedAuthority,
    /// A client's certificate for a connection without TLS.
    #[error("sslcert and sslkey belong to sslmode=verify-full")]
    UnusedClient,
    /// A client's certificate without its key, or a key without a certificate.
    #[error("sslcert and sslkey must be given together")]
    HalfClient,
    /// A password where tools and logs do not expect one.
    #[error(
        "the password stands before the @ of the URL, or in a file, and not among the parameters"
    )]
    PasswordParameter,
    /// A kind of server that accepts no writes.
    #[error("target_session_attrs must be read-write, or left out")]
    Target,
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(UrlError::Scheme);
        }
        let (url, own) = Own::split(url)?;
        let parsed = Config::from_str(&url).map_err(|error| UrlError::Unreadable(told(&error)))?;
        if parsed.get_hosts().is_empty() {
            return Err(UrlError::NoHost);
        }
        if own.names_target && parsed.get_target_session_attrs() != TargetSessionAttrs::ReadWrite {
            return Err(UrlError::Target);
        }
        let tls = own.tls(parsed.get_hosts())?;
        let ports = parsed.get_ports();
        let port = |index: usize| {
            let port = ports.get(index).or_else(|| ports.first());
            port.copied().unwrap_or(5432)
        };
        let hosts = parsed.get_hosts().iter().enumerate();
        let names: Vec<String> = hosts
            .clone()
            .map(|(index, host)| named(host, port(index)))
            .collect();
        let hosts = hosts
            .map(|(index, host)| of_host(&parsed, host, index, port(index), &tls))
            .collect();
        Ok(Self {
            hosts,
            password: parsed
                .get_password()
                .map(|password| Zeroizing::new(password.to_vec())),
            tls,
            name: names.join(","),
        })
    }
}

impl ServerUrl {
    /// The hosts and ports, for people to read.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Uses this password instead of the URL's.
    #[must_use]
    pub fn with_password(mut self, password: Zeroizing<Vec<u8>>) -> Self {
        self.password = Some(password);
        self
    }

    /// Whether the URL has a password.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerUrl")
            .field("hosts", &self.name)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// The parameters that the driver does not know, or judges more mildly.
#[derive(Default)]
struct Own {
    mode: Option<String>,
    authorities: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    names_target: bool,
}

impl Own {
    /// Takes these parameters out of the URL.
    fn split(url: &str) -> Result<(Zeroizing<String>, Self), UrlError> {
        let mut own = Self::default();
        let Some((base, query)) = url.split_once('?') else {
            return Ok((Zeroizing::new(url.to_owned()), own));
        };
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = || {
                let value = percent_decode_str(value).decode_utf8();
                value
                    .map(|value| value.into_owned())
                    .map_err(|_| UrlError::Unreadable(format!("{name} is not UTF-8")))
            };
            match name {
                "sslmode" => own.mode = Some(decoded()?),
                "sslrootcert" => own.authorities = Some(decoded()?),
                "sslcert" => own.certificate = Some(decoded()?),
                "sslkey" => own.key = Some(decoded()?),
                "password" => return Err(UrlError::PasswordParameter),
                "target_session_attrs" => {
                    own.names_target = true;
                    rest.push(pair);
                }
                _ => rest.push(pair),
            }
        }
        Ok((Zeroizing::new(format!("{base}?{}", rest.join("&"))), own))
    }

    fn tls(&self, hosts: &[Host]) -> Result<Tls, UrlError> {
        let distant = hosts.iter().find(|host| !is_of_this_machine(host));
        let socket = hosts.iter().find(|host| matches!(host, Host::Unix(_)));
        let verifies = match self.mode.as_deref() {
            None => distant.is_some(),
            Some("verify-full") => true,
            Some("disable") => false,
            Some(weak) => return Err(UrlError::WeakTls(weak.to_owned())),
        };
        match (verifies, distant, socket) {
            (false, Some(host), _) => Err(UrlError::PlainNetwork(text(host))),
            (true, _, Some(socket)) => Err(UrlError::TlsOverSocket(text(socket))),
            (false, ..) if self.authorities.is_some() => Err(UrlError::UnusedAuthority),
            (false, ..) if self.client()?.is_some() => Err(UrlError::UnusedClient),
            (false, ..) => Ok(Tls::Off),
            (true, ..) => Ok(Tls::VerifyFull {
                authorities: self
                    .authorities
                    .as_deref()
                    .filter(|file| *file != "system")
                    .map(PathBuf::from),
                client: self.client()?,
            }),
        }
    }

    fn client(&self) -> Result<Option<ClientFiles>, UrlError> {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(ClientFiles {
                certificate: certificate.into(),
                key: key.into(),
            })),
            _ => Err(UrlError::HalfClient),
        }
    }
}

/// Whether a connection to the host stays on this machine.
fn is_of_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
    }
}

fn of_host(parsed: &Config, host: &Host, index: usize, port: u16, tls: &Tls) -> Config {
    let mut config = Config::new();
    if let Some(user) = parsed.get_user() {
        config.user(user);
    }
    if let Some(name) = parsed.get_dbname() {
        config.dbname(name);
    }
    if let Some(options) = parsed.get_options() {
        config.options(options);
    }
    match host {
        Host::Tcp(name) => config.host(name),
        Host::Unix(folder) => config.host_path(folder),
    };
    if let Some(address) = parsed.get_hostaddrs().get(index) {
        config.hostaddr(*address);
    }
    config
        .port(port)
        .application_name(parsed.get_application_name().unwrap_or(APPLICATION))
        .channel_binding(parsed.get_channel_binding())
        .ssl_negotiation(parsed.get_ssl_negotiation())
        .ssl_mode(match tls {
            Tls::Off => SslMode::Disable,
            Tls::VerifyFull { .. } => SslMode::Require,
        });
    config
}

fn named(host: &Host, port: u16) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
        Host::Tcp(name) => format!("{name}:{port}"),
        Host::Unix(folder) => format!("{}/.s.PGSQL.{port}", folder.display()),
    }
}

fn text(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(folder) => folder.display().to_string(),
    }
}

/// The driver's text, which names a parameter and not its value.
fn told(error: &tokio_postgres::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> UrlError {
        url.parse::<ServerUrl>().unwrap_err()
    }

    fn verified(authorities: Option<PathBuf>, client: Option<ClientFiles>) -> Tls {
        Tls::VerifyFull {
            authorities,
            client,
        }
    }

    #[test]
    fn network_is_verified_unless_the_url_says_otherwise() {
        for url in [
            "postgres://kms:pw@db1.example.com:5432,db2.example.com:5433/keyway",
            "postgresql://kms@db1.example.com,db2.example.com:5433/keyway?target_session_attrs=read-write",
            "postgres://kms@db1.example.com,db2.example.com:5433/keyway?sslmode=verify-full&sslrootcert=system",
        ] {
            let server: ServerUrl = url.parse().unwrap();
            assert_eq!(server.tls, verified(None, None), "{url}");
            assert_eq!(server.name(), "db1.example.com:5432,db2.example.com:5433");
            assert_eq!(server.hosts.len(), 2);
            for config in &server.hosts {
                assert_eq!(config.get_ssl_mode(), SslMode::Require);
                assert_eq!(config.get_password(), None, "only a connection gets it");
                assert_eq!(config.get_dbname(), Some("keyway"));
                assert_eq!(config.get_application_name(), Some("keyway"));
            }
        }
        let url = "postgres://kms@db/keyway?sslrootcert=/etc/ssl/my%20ca.pem";
        let server: ServerUrl = url.parse().unwrap();
        let file = PathBuf::from("/etc/ssl/my ca.pem");
        assert_eq!(server.tls, verified(Some(file), None));
        let url = "postgres://kms@db/keyway?sslcert=/etc/kms.crt&sslkey=/etc/kms.key";
        let server: ServerUrl = url.parse().unwrap();
        let client = ClientFiles {
            certificate: "/etc/kms.crt".into(),
            key: "/etc/kms.key".into(),
        };
        assert_eq!(server.tls, verified(None, Some(client)));
    }

    #[test]
    fn server_on_this_machine_needs_no_tls() {
        for url in [
            "postgres://kms@127.0.0.1/keyway",
            "postgres://kms@localhost:5433/keyway",
            "postgres://kms@[::1]/keyway",
            "postgres://kms@%2Frun%2Fpostgresql/keyway",
            "postgres:///keyway?host=/run/postgresql&user=kms",
            "postgres://kms@127.0.0.1/keyway?sslmode=disable",
        ] {
            let server: ServerUrl = url.parse().unwrap();
            assert_eq!(server.tls, Tls::Off, "{url}");
        }
        let server: ServerUrl = "postgres://kms@127.0.0.1/keyway?sslmode=verify-full"
            .parse()
            .unwrap();
        assert_eq!(server.tls, verified(None, None));
    }

    #[test]
    fn weak_or_contradictory_url_is_refused() {
        for weak in ["allow", "prefer", "require", "verify-ca", ""] {
            let url = format!("postgres://kms@db/keyway?sslmode={weak}");
            assert_eq!(refused(&url), UrlError::WeakTls(weak.to_owned()));
        }
        assert_eq!(
            refused("postgres://kms@127.0.0.1,db2/keyway?sslmode=disable"),
            UrlError::PlainNetwork("db2".to_owned())
        );
        assert_eq!(
            refused("postgres://kms@%2Frun%2Fpostgresql/keyway?sslmode=verify-full"),
            UrlError::TlsOverSocket("/run/postgresql".to_owned())
        );
        assert_eq!(
            refused("postgres://kms@localhost/keyway?sslrootcert=ca.pem"),
            UrlError::UnusedAuthority
        );
        assert_eq!(
            refused("postgres://kms@localhost/keyway?sslcert=c&sslkey=k"),
            UrlError::UnusedClient
        );
        for half in ["sslcert=c", "sslkey=k"] {
            let url = format!("postgres://kms@db/keyway?{half}");
            assert_eq!(refused(&url), UrlError::HalfClient);
        }
        for target in ["any", "read-only"] {
            let url = format!("postgres://kms@db/keyway?target_session_attrs={target}");
            assert_eq!(refused(&url), UrlError::Target);
        }
        assert_eq!(
            refused("postgres://kms@db/keyway?password=Secret-9"),
            UrlError::PasswordParameter
        );
        assert_eq!(refused("mysql://kms@db/keyway"), UrlError::Scheme);
        assert_eq!(refused("host=db user=kms"), UrlError::Scheme);
        assert_eq!(refused("postgres:///keyway"), UrlError::NoHost);
    }

    #[test]
    fn error_and_debug_text_never_hold_the_password() {
        for url in [
            "postgres://kms:Secret-9@db:port/keyway",
            "postgres://kms:Secret-9@db/keyway?unknown=1",
            "postgres://kms:Secret-9@db/keyway?connect_timeout=x",
            "mysql://kms:Secret-9@db/keyway",
            "postgres://kms:Secret-9",
        ] {
            match url.parse::<ServerUrl>() {
                Err(error) => assert!(!format!("{error} {error:?}").contains("Secret-9"), "{url}"),
                Ok(server) => panic!("{server:?}"),
            }
        }
        let server: ServerUrl = "postgres://kms:Secret-9@db/keyway".parse().unwrap();
        assert!(server.has_password());
        assert!(!format!("{server:?}").contains("Secret-9"));
    }
}
