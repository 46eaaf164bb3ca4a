//! Resolves names, and checks the addresses each time before anything is sent to them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use keyway_domain::vault::{is_forbidden, is_loopback};
use tower_service::Service;

/// A resolver that drops addresses where no Vault can be.
#[derive(Clone)]
pub(crate) struct Guarded<R> {
    resolver: R,
    loopback_only: bool,
}

impl<R> Guarded<R> {
    /// Wraps `resolver`. With `loopback_only`, for connections without TLS, it returns only loopback addresses.
    pub(crate) fn new(resolver: R, loopback_only: bool) -> Self {
        Self {
            resolver,
            loopback_only,
        }
    }
}

impl<R> Service<Name> for Guarded<R>
where
    R: Service<Name>,
    R::Response: Iterator<Item = SocketAddr>,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R::Future: Send + 'static,
{
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.resolver.poll_ready(context).map_err(io::Error::other)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolving = self.resolver.call(name);
        let loopback_only = self.loopback_only;
        Box::pin(async move {
            let found = resolving.await.map_err(io::Error::other)?;
            let allowed: Vec<_> = found
                .filter(|address| {
                    !is_forbidden(address.ip()) && (!loopback_only || is_loopback(address.ip()))
                })
                .collect();
            if allowed.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the name resolves to no address that may be asked",
                ));
            }
            Ok(allowed.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::net::IpAddr;

    use hyper_util::client::legacy::connect::HttpConnector;

    use super::*;

    #[derive(Clone)]
    struct Fixed(Vec<SocketAddr>);

    impl Service<Name> for Fixed {
        type Response = vec::IntoIter<SocketAddr>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Name) -> Self::Future {
            ready(Ok(self.0.clone().into_iter()))
        }
    }

    fn fixed(addresses: &[&str]) -> Fixed {
        let address = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
        Fixed(addresses.iter().map(address).collect())
    }

    async fn resolved(addresses: &[&str], loopback_only: bool) -> Vec<String> {
        let name = "vault.example.com".parse().unwrap();
        let allowed = Guarded::new(fixed(addresses), loopback_only)
            .call(name)
            .await;
        let ips = allowed.map(|allowed| allowed.map(|address| address.ip()));
        ips.map(|ips| ips.map(|ip: IpAddr| ip.to_string()).collect())
            .unwrap_or_default()
    }

    #[tokio::test]
    async fn address_where_no_vault_can_be_is_refused() {
        for forbidden in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(
                resolved(&[forbidden], false).await.is_empty(),
                "{forbidden}"
            );
            assert_eq!(
                resolved(&[forbidden, "10.0.0.1"], false).await,
                ["10.0.0.1"]
            );
        }
        let usual = ["10.0.0.1", "192.0.2.1", "127.0.0.1", "::1", "2001:db8::1"];
        assert_eq!(resolved(&usual, false).await, usual);
    }

    #[tokio::test]
    async fn address_without_tls_must_be_loopback() {
        let all = ["10.0.0.1", "127.0.0.1", "2001:db8::1", "::1"];
        assert_eq!(resolved(&all, true).await, ["127.0.0.1", "::1"]);
        let mapped = ["::ffff:127.0.0.1", "::ffff:10.0.0.1"];
        assert_eq!(resolved(&mapped, true).await, ["::ffff:127.0.0.1"]);
        assert!(resolved(&["10.0.0.1"], true).await.is_empty());
    }

    #[tokio::test]
    async fn connector_sends_nothing_to_a_refused_address() {
        let guarded = Guarded::new(fixed(&["169.254.169.254"]), false);
        let mut connector = HttpConnector::new_with_resolver(guarded);
        let uri = "http://vault.example.com:8200/".parse().unwrap();
        let refused = connector.call(uri).await.unwrap_err();
        let text = format!("{refused:?}");
        assert!(text.contains("may be asked"), "{text}");
    }
}
