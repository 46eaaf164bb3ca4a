use std::time::Duration;

use keyway_domain::machine::{Machine, MachineFacts};

/// A machine that is always the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct FixedMachine;

impl Machine for FixedMachine {
    fn facts(&self) -> MachineFacts {
        MachineFacts {
            os: "linux",
            architecture: "amd64",
            up: Duration::from_secs(61),
            cpus: Some(4),
            usable_cpus: Some(2),
            heap_bytes: Some(3 << 20),
            stack_bytes: Some(132 << 10),
            heap_areas: Some(4_321),
            threads: Some(3),
        }
    }

    fn commit(&self) -> &'static str {
        "0123abc"
    }
}
