//! Keeps this process's memory secret, and sets how many files it may have open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open besides connections: the database and its journal, Vault, AWS, the collector, logs, certificates.
const RESERVED: u64 = 128;
/// The most connections that one listener serves at once.
const MOST_PLACES: usize = 4096;
/// The fewest connections that one listener serves at once, however few files may be open.
const FEWEST_PLACES: usize = 16;

/// Keeps memory, which holds keys, out of core files and from other processes of the same user.
///
/// # Errors
/// When the system refuses.
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

/// Raises the limit of open files as far as this process may, and returns the new limit.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Some systems have no maximum, and still refuse "no maximum" as the limit.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

/// How many connections each listener may serve at once, in a process that may have `open_files` files open. Listeners
/// do not share their places.
pub fn places(open_files: u64, listeners: usize) -> usize {
    let free = open_files.saturating_sub(RESERVED.min(open_files / 2));
    let free = usize::try_from(free).unwrap_or(usize::MAX);
    // A listener accepts one more connection, which waits for a place.
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
