//! A network link before a server, which tests cut, freeze and mend.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// What happens to the bytes of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// They pass.
    Up,
    /// Connections are closed, and new ones too.
    Cut,
    /// Connections stay open and nothing passes.
    Frozen,
    /// Requests pass; the next answer of each connection is lost, and closes it.
    LosesAnswers,
}

/// A link from a port of loopback to a server's socket.
pub struct Link {
    /// The port of loopback.
    pub port: u16,
    state: watch::Sender<LinkState>,
    target: watch::Sender<PathBuf>,
    requests: Arc<AtomicU64>,
}

impl Link {
    /// A link to the server at this socket.
    pub async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (state, _) = watch::channel(LinkState::Up);
        let (target, _) = watch::channel(socket);
        let requests = Arc::new(AtomicU64::new(0));
        let link = Self {
            port,
            state,
            target,
            requests,
        };
        let (states, targets) = (link.state.clone(), link.target.subscribe());
        let requests = Arc::clone(&link.requests);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (state, socket) = (states.subscribe(), targets.borrow().clone());
                tokio::spawn(carry(client, socket, state, Arc::clone(&requests)));
            }
        });
        link
    }

    /// Changes what happens to the bytes.
    pub fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, socket: PathBuf) {
        self.target.send_replace(socket);
    }

    /// How many times bytes have come from clients: about one for each request.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn carry(
    client: TcpStream,
    socket: PathBuf,
    mut state: watch::Receiver<LinkState>,
    requests: Arc<AtomicU64>,
) {
    if *state.borrow() == LinkState::Cut {
        return;
    }
    client.set_nodelay(true).ok();
    // A server that is down refuses the connection: the client's is closed.
    let Ok(server) = UnixStream::connect(socket).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let count = move || {
        requests.fetch_add(1, Ordering::SeqCst);
    };
    let sent = copy(from_client, to_server, state.clone(), false, count);
    let answered = copy(from_server, to_client, state.clone(), true, || {});
    tokio::select! {
        () = sent => {}
        () = answered => {}
        _ = state.wait_for(|state| *state == LinkState::Cut) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<LinkState>,
    is_answer: bool,
    passed: impl Fn(),
) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        if state
            .wait_for(|state| *state != LinkState::Frozen)
            .await
            .is_err()
        {
            return;
        }
        if is_answer && *state.borrow() == LinkState::LosesAnswers {
            return;
        }
        passed();
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
    // The other direction may still have bytes for a moment.
    tokio::time::sleep(Duration::from_millis(20)).await;
}
