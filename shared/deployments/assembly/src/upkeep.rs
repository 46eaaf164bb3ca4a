//! The work of a long-lived process besides serving.

use std::sync::Arc;
use std::time::Duration;

use keyway_domain::janitor::Janitor;
use keyway_metrics::Metrics;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::{Services, Writing};

/// The time between sweeps. It matters little, since deletion and rotation wait for days; a sweep reads every key.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// How long to wait for a sweep at the end: a key that it destroys must also be in the audit log.
const SWEEP_GRACE: Duration = Duration::from_secs(10);
/// The time between two rounds of upkeep, for keys and logins that no request uses.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A task that destroys and rotates the keys that are due, every ten minutes.
pub struct Sweeping {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sweeping {
    /// Starts the task. It reports the number of keys to `metrics`.
    pub fn start(janitor: Janitor, metrics: &Arc<Metrics>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(sweep(janitor, Arc::clone(metrics), stopped));
        Self { stop, task }
    }

    /// Ends the task after the current sweep, for which it waits at most ten seconds.
    pub async fn stop(self) {
        // The task is gone only if a sweep has panicked.
        self.stop.send(()).ok();
        if tokio::time::timeout(SWEEP_GRACE, self.task).await.is_err() {
            tracing::warn!("the janitor was still at work");
        }
    }
}

async fn sweep(janitor: Janitor, metrics: Arc<Metrics>, mut stopped: oneshot::Receiver<()>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = &mut stopped => return,
        }
        match janitor.sweep().await {
            Ok(swept) => {
                metrics.keys(swept.keys);
                swept.log();
            }
            Err(error) => tracing::error!(
                error = error.for_operator(),
                "keys that are due could not be destroyed or rotated; the next sweep tries again"
            ),
        }
    }
}

/// Runs [`Services::upkeep`] periodically until it is dropped. A failure is logged once, until it succeeds again.
pub async fn keep_up(server: Services) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        interval.tick().await;
        let done = server.upkeep().await;
        if let Err(error) = &done
            && !failed
        {
            tracing::warn!(
                error = error.for_operator(),
                "upkeep failed; it is tried again every ten seconds"
            );
        }
        failed = done.is_err();
    }
}

/// Drops what the caches hold of records that other processes change, as the store announces them, until it is aborted.
/// A store that announces nothing leaves that to the state TTL.
pub fn follow_changes(ports: &Writing, server: &Services) -> JoinHandle<()> {
    let (changes, obey) = (ports.changes.clone(), server.obey_changes());
    tokio::spawn(async move {
        if let Some(changes) = changes {
            changes.follow(obey).await;
        }
    })
}
