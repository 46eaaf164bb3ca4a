use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::net::{TcpListener, lookup_host};

/// Where to listen: `127.0.0.1:9000`, `[::1]:9000`, a name as in `localhost:9000`, or `:9000` for every address of this
/// machine. Port 0 takes a free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Every,
    Ip(IpAddr),
    Name(String),
}

/// The text is no address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected ADDRESS:PORT, such as 127.0.0.1:9000, [::1]:9000, localhost:9000 or :9000")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError)?;
        let port = port
            .parse()
            .ok()
            .filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()));
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match (bracketed, host) {
            (Some(ip), _) => Host::Ip(IpAddr::V6(ip.parse().map_err(|_| AddressError)?)),
            (None, "") => Host::Every,
            (None, host) => match host.parse::<Ipv4Addr>() {
                Ok(ip) => Host::Ip(IpAddr::V4(ip)),
                Err(_) if is_name(host) => Host::Name(host.to_owned()),
                Err(_) => return Err(AddressError),
            },
        };
        Ok(Self {
            host: match host {
                Host::Ip(ip) => Host::Ip(ip.to_canonical()),
                host => host,
            },
            port: port.ok_or(AddressError)?,
        })
    }
}

/// Whether the text can be a host's name. Digits and dots alone would be a mistyped IPv4 address.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.bytes().all(fits) && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Ip(address.ip().to_canonical()),
            port: address.port(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Every => write!(f, ":{}", self.port),
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// The socket addresses of an [`Address`]. The first one that can be bound is used.
#[derive(Debug, Clone)]
pub struct Resolved(Vec<SocketAddr>);

impl Address {
    /// Resolves the name, if the host is one: to its first IPv4 address, else to its first address. `:PORT` becomes the
    /// unspecified address of IPv6, which serves both families, then that of IPv4 for systems without IPv6.
    ///
    /// # Errors
    /// The resolver's error, or `NotFound` when the name has no address.
    pub async fn resolve(&self) -> io::Result<Resolved> {
        let with_port = |ip| SocketAddr::new(ip, self.port);
        Ok(Resolved(match &self.host {
            Host::Every => [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()]
                .map(with_port)
                .into(),
            Host::Ip(ip) => vec![with_port(*ip)],
            Host::Name(name) => {
                let found: Vec<_> = lookup_host((name.as_str(), self.port)).await?.collect();
                let first = found
                    .iter()
                    .find(|address| address.is_ipv4())
                    .or(found.first());
                let Some(first) = first else {
                    return Err(io::Error::new(
                        io::ErrorKind::NotFound,
                        format!("{name} has no address"),
                    ));
                };
                vec![with_port(first.ip().to_canonical())]
            }
        }))
    }
}

impl Resolved {
    /// Whether all addresses are loopback, so that only this machine can reach them.
    pub fn is_loopback(&self) -> bool {
        self.0.iter().all(|address| address.ip().is_loopback())
    }

    /// Where a client on this machine reaches the listener: loopback in place of the unspecified address.
    pub(crate) fn as_this_machine_reaches_them(&self) -> Vec<SocketAddr> {
        let reached = |address: &SocketAddr| {
            let ip = match address.ip() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            SocketAddr::new(ip, address.port())
        };
        self.0.iter().map(reached).collect()
    }

    pub(crate) async fn bind(&self) -> io::Result<TcpListener> {
        TcpListener::bind(self.0.as_slice()).await
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError};

    #[test]
    fn address_in_each_spelling_reads_back() {
        for (text, read) in [
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("[::1]:0", "[::1]:0"),
            ("[::ffff:127.0.0.1]:9000", "127.0.0.1:9000"),
            ("localhost:9000", "localhost:9000"),
            ("kms-1.example.com:443", "kms-1.example.com:443"),
            (":9000", ":9000"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), read, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_address_is_refused() {
        for text in [
            "",
            ":",
            "9000",
            "localhost",
            "localhost:",
            "::1:9000",
            "[::1]",
            "[localhost]:1",
            "[127.0.0.1]:1",
            "127.0.0.1:65536",
            "127.0.0.1:+1",
            "127.0.0:1",
            "1.2.3.4.5:1",
            "a b:1",
            "a/b:1",
            "http://a:1",
            "[::1:1",
        ] {
            assert_eq!(text.parse::<Address>(), Err(AddressError), "{text}");
        }
    }

    #[tokio::test]
    async fn loopback_is_told_from_what_others_reach() {
        for (text, is_loopback) in [
            ("127.0.0.1:0", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:0", true),
            ("localhost:0", true),
            ("[::ffff:192.0.2.1]:0", false),
            ("0.0.0.0:0", false),
            ("[::]:0", false),
            (":0", false),
        ] {
            let resolved = text.parse::<Address>().unwrap().resolve().await.unwrap();
            assert_eq!(resolved.is_loopback(), is_loopback, "{text}");
        }
    }
}
