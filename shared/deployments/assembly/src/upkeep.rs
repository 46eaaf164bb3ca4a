//! The work of a long-lived process besides serving.

use std::sync::Arc;
use std::time::Duration;

use keyway_domain::KmsError;
use keyway_domain::access::UseRecorder;
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
/// How long to wait at the end for the last uses of access keys. They are worth no more.
const LAST_USES: Duration = Duration::from_secs(2);

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

/// A task that runs [`Services::upkeep`] and records the uses of access keys, every ten seconds.
pub struct Upkeep {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Upkeep {
    /// Starts the task.
    pub fn start(server: Services, uses: Option<UseRecorder>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep_up(server, uses, stopped));
        Self { stop, task }
    }

    /// Ends the task. It records the last uses before, for which this waits at most two seconds.
    pub async fn stop(self) {
        // The task is gone only if it has panicked.
        self.stop.send(()).ok();
        let mut task = self.task;
        if tokio::time::timeout(LAST_USES, &mut task).await.is_err() {
            task.abort();
        }
    }
}

async fn keep_up(server: Services, uses: Option<UseRecorder>, mut stopped: oneshot::Receiver<()>) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut upkeep = Failing::new("upkeep failed; it is tried again every ten seconds");
    let mut recording = Failing::new(
        "uses of access keys could not be recorded; it is tried again every ten seconds",
    );
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = &mut stopped => break,
        }
        let round = async {
            upkeep.tell(&server.upkeep().await);
            recording.tell(&record(uses.as_ref()).await);
        };
        tokio::select! {
            () = round => {}
            _ = &mut stopped => break,
        }
    }
    recording.tell(&record(uses.as_ref()).await);
}

async fn record(uses: Option<&UseRecorder>) -> Result<(), KmsError> {
    match uses {
        Some(uses) => uses.record().await,
        None => Ok(()),
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

/// Logs the failure of a repeated work once, until it succeeds again.
struct Failing {
    text: &'static str,
    is_told: bool,
}

impl Failing {
    const fn new(text: &'static str) -> Self {
        Self {
            text,
            is_told: false,
        }
    }

    fn tell(&mut self, done: &Result<(), KmsError>) {
        if let Err(error) = done
            && !self.is_told
        {
            tracing::warn!(error = error.for_operator(), "{}", self.text);
        }
        self.is_told = done.is_err();
    }
}
