//! What the process tells systemd, where a unit of `Type=notify` started it. Elsewhere nothing is sent.

use std::fmt::Display;

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tokio::task::JoinHandle;
use tokio::time::interval;

/// Tells systemd that the process serves, and from then on that its tasks still run, if the unit has `WatchdogSec=`.
///
/// The watchdog says nothing about the table or a backend: a restart would not bring them back.
pub(crate) fn ready(place: impl Display) -> Option<JoinHandle<()>> {
    tell(&[
        NotifyState::Ready,
        NotifyState::Status(&format!("serving on {place}")),
    ]);
    // systemd asks for two messages in each period.
    let half = watchdog_enabled()?.checked_div(2)?;
    if half.is_zero() {
        return None;
    }
    Some(tokio::spawn(async move {
        let mut ticks = interval(half);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    }))
}

/// Tells systemd that the process stops. Requests in flight finish after this.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}
