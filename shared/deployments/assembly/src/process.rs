//! What this process may leave behind when it ends, and how many files it may have open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open besides connections: the database and its journal, Vault, AWS, the collector, logs, certificates.
const RESERVED: u64 = 128;
/// More connections than these are not served at once by one listener.
const MOST_PLACES: usize = 4096;
/// Fewer would be no service.
const FEWEST_PLACES: usize = 16;

/// Has neither a core file nor a process of the same user hold what is in memory: keys are.
///
/// # Errors
/// As the system says; one who has none of this is told.
pub fn conceal_memory() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

/// Raises the limit of open files as far as this process may: how many it may have open then.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Some systems have no limit and still refuse to have it be one.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

/// How many connections each of so many listeners may serve at once, of a process that may have so many files open. What
/// one listener has is no other's.
pub fn places(open_files: u64, listeners: usize) -> usize {
    let free = open_files.saturating_sub(RESERVED.min(open_files / 2));
    let free = usize::try_from(free).unwrap_or(usize::MAX);
    // One more is accepted while it waits for a place.
    let each = (free / listeners.max(1)).saturating_sub(1);
    each.clamp(FEWEST_PLACES, MOST_PLACES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_leave_room_for_other_files_and_other_listeners() {
        for (open_files, listeners, expected) in [
            (1024, 1, 895),
            (1024, 2, 447),
            (256, 2, 63),
            (20, 2, FEWEST_PLACES),
            (1 << 20, 2, MOST_PLACES),
            (u64::MAX, 2, MOST_PLACES),
            (1024, 0, 895),
        ] {
            assert_eq!(places(open_files, listeners), expected, "{open_files}");
        }
    }
}
