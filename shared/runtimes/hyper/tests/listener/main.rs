//! Listeners on real sockets, and clients that are real, rude or slow.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test that cannot go on must stop"
)]

mod bounds;
mod certificates;
mod client;
mod handshake;
mod identities;
mod reload;
mod site;
mod tail;
mod timeout;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use keyway_runtime_hyper::{Bounds, Clients, Cores, Tls, listen, listen_tls, serve_all};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use certificates::Authority;

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A listener of each kind, over one site.
struct Server {
    plain: SocketAddr,
    tls: SocketAddr,
    authority: Authority,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(clients: Clients, bounds: Bounds) -> Self {
        let authority = Authority::new("servers");
        let (certificate, key) = authority.server();
        let tls = Tls::from_der(certificate, key, &clients).unwrap();
        Self::with(tls, bounds, authority).await
    }

    async fn with(tls: Tls, bounds: Bounds, authority: Authority) -> Self {
        let site = site::site();
        let plain = listen(ANYWHERE, false).await.unwrap();
        let tls = listen_tls(ANYWHERE, tls).await.unwrap();
        let addresses = (plain.local_addr().unwrap(), tls.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let listeners = vec![(plain, Arc::clone(&site)), (tls, site)];
            let cores = Cores::start().unwrap();
            serve_all(listeners, &bounds, &cores, async { drop(stopped.await) }).await;
        });
        Self {
            plain: addresses.0,
            tls: addresses.1,
            authority,
            stop,
            task,
        }
    }

    async fn asking() -> Self {
        Self::start(Clients::Asked, Bounds::default()).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}
