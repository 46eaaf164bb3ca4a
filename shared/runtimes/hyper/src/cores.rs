//! Threads that serve connections, one for each core.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A thread for each core, each with a runtime of its own. A connection stays on one thread, so its requests share no
/// queue with others, wake no other thread, and find their memory in the core's cache.
///
/// What requests start in the background runs on these threads too. So keep this until everything that requests use is
/// finished; dropping it ends the threads.
pub struct Cores {
    cores: Vec<Core>,
    /// Serves connections when there are no cores.
    here: Handle,
}

struct Core {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// `None` once it was told to end.
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Cores {
    /// Starts as many threads as this process may use cores.
    ///
    /// # Errors
    /// The system's error when a thread cannot be started.
    pub fn start() -> io::Result<Self> {
        Self::with(thread::available_parallelism().map_or(1, usize::from))
    }

    fn with(count: usize) -> io::Result<Self> {
        let cores = (0..count).map(Core::start).collect::<io::Result<_>>()?;
        Ok(Self {
            cores,
            here: Handle::current(),
        })
    }

    /// No thread of its own: the current runtime serves the connections.
    pub fn here() -> Self {
        Self {
            cores: Vec::new(),
            here: Handle::current(),
        }
    }

    /// A place on the core with the fewest connections.
    pub(crate) fn choose(&self) -> Place {
        let connections = |core: &&Core| core.connections.load(Ordering::Relaxed);
        match self.cores.iter().min_by_key(connections) {
            Some(core) => Place::on(core.runtime.clone(), &core.connections),
            None => Place::on(self.here.clone(), &Arc::default()),
        }
    }
}

impl Core {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = thread::Builder::new()
            .name(format!("core-{number}"))
            .spawn(move || {
                // The sender is dropped at the latest when the process ends.
                runtime.block_on(ended).ok();
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            connections: Arc::default(),
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A connection's place on a core, until this is dropped.
pub(crate) struct Place {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl Place {
    fn on(runtime: Handle, connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self {
            runtime,
            connections: Arc::clone(connections),
        }
    }

    /// Runs the connection here. The place is free again when the connection ends.
    pub(crate) fn spawn(
        self,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            connection.await;
            drop(self);
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(cores: &Cores) -> Vec<usize> {
        let count = |core: &Core| core.connections.load(Ordering::Relaxed);
        cores.cores.iter().map(count).collect()
    }

    #[tokio::test]
    async fn connections_are_spread_over_cores() {
        let cores = Cores::with(3).unwrap();
        let mut places: Vec<_> = (0..7).map(|_| cores.choose()).collect();
        assert_eq!(connections(&cores), [3, 2, 2]);
        // The first, fourth and seventh connection are on the first core.
        drop(places.remove(6));
        drop(places.remove(3));
        assert_eq!(connections(&cores), [1, 2, 2]);
        let _next = cores.choose();
        assert_eq!(connections(&cores), [2, 2, 2]);
    }

    #[tokio::test]
    async fn cores_end_when_they_are_dropped_and_connections_with_them() {
        let cores = Cores::with(1).unwrap();
        let task = cores.choose().spawn(std::future::pending());
        drop(cores);
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn without_cores_the_current_runtime_serves() {
        let (tell, told) = oneshot::channel();
        let place = Cores::here().choose();
        let task = place.spawn(async { tell.send(thread::current().id()).unwrap() });
        assert_eq!(told.await.unwrap(), thread::current().id());
        task.await.unwrap();
    }
}
