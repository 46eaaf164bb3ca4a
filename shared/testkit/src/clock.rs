use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keyway_domain::ports::Clock;

/// A clock that only moves when a test moves it.
#[derive(Debug)]
pub struct FixedClock {
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    wall: Timestamp,
    monotonic: Duration,
}

impl FixedClock {
    /// A clock with this wall-clock time, and monotonic time zero.
    pub fn new(wall: Timestamp) -> Self {
        Self {
            state: Mutex::new(State {
                wall,
                monotonic: Duration::ZERO,
            }),
        }
    }

    /// Sets the wall-clock time, backwards too, as an operator might. Does not change the monotonic time.
    pub fn set(&self, wall: Timestamp) {
        self.state().wall = wall;
    }

    /// Advances both times. Wall-clock time stops at the end of the calendar.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        let signed = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        state.wall = state.wall.checked_add(signed).unwrap_or(Timestamp::MAX);
        state.monotonic = state.monotonic.saturating_add(by);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Ignore poisoning: a test that panicked while it held the clock has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.state().wall
    }

    fn monotonic(&self) -> Duration {
        self.state().monotonic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_stands_still_until_set_or_advanced() {
        let start = Timestamp::from_second(1_000).unwrap();
        let clock = FixedClock::new(start);
        assert_eq!((clock.now(), clock.monotonic()), (start, Duration::ZERO));

        clock.advance(Duration::from_millis(1_500));
        assert_eq!(clock.now(), Timestamp::from_millisecond(1_001_500).unwrap());
        assert_eq!(clock.monotonic(), Duration::from_millis(1_500));

        clock.set(Timestamp::from_second(5).unwrap());
        assert_eq!(clock.now(), Timestamp::from_second(5).unwrap());
        assert_eq!(
            clock.monotonic(),
            Duration::from_millis(1_500),
            "monotonic time never runs backwards"
        );
    }
}
