//! The machine's clock and generator, behind the domain's ports.

use std::time::{Duration, Instant};

use aws_lc_rs::rand::SecureRandom;
use jiff::Timestamp;
use keyway_domain::ports::{Clock, Random, RandomError};

/// The machine's clock.
pub struct SystemClock(Instant);

impl SystemClock {
    /// Its monotonic time counts from this call.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the Clock port's implementation"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the Clock port's implementation"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// AWS-LC's generator, seeded by the kernel.
#[derive(Default)]
#[expect(
    clippy::disallowed_types,
    reason = "this is the Random port's implementation"
)]
pub struct SystemRandom(aws_lc_rs::rand::SystemRandom);

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        self.0.fill(buffer).map_err(|_| RandomError)
    }
}
