//! The domain's port for the machine, which reads what the kernel reports.

use std::time::Instant;

use keyway_domain::machine::{Machine, MachineFacts};

/// The machine that this process runs on.
pub struct SystemMachine {
    started: Instant,
    commit: Option<&'static str>,
}

impl SystemMachine {
    /// The process's uptime counts from this call. A program's last crate passes `option_env!("KEYWAY_COMMIT")`, so that a
    /// new commit compiles no other crate again.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the Machine port's implementation"
    )]
    pub fn start(commit: Option<&'static str>) -> Self {
        Self {
            started: Instant::now(),
            commit,
        }
    }
}

impl Machine for SystemMachine {
    fn facts(&self) -> MachineFacts {
        let processors = read("/proc/cpuinfo");
        let process = read("/proc/self/status");
        let bytes = |name| kilobytes(process.as_deref()?, name)?.checked_mul(1024);
        let usable = std::thread::available_parallelism().ok();
        MachineFacts {
            os: match std::env::consts::OS {
                "macos" => "darwin",
                other => other,
            },
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            up: self.started.elapsed(),
            cpus: processors.as_deref().and_then(count),
            usable_cpus: usable.and_then(|count| u64::try_from(count.get()).ok()),
            heap_bytes: bytes("RssAnon"),
            stack_bytes: bytes("VmStk"),
            heap_areas: read("/proc/self/maps").as_deref().and_then(own_areas),
            threads: process.as_deref().and_then(threads),
        }
    }

    fn commit(&self) -> &'static str {
        self.commit.unwrap_or_default()
    }
}

/// A text file of Linux's `/proc`; none on other systems.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// How many writable areas `/proc/self/maps` lists that belong to no file.
fn own_areas(maps: &str) -> Option<u64> {
    let own = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_heap = fields.get(5).is_none_or(|name| *name == "[heap]");
        is_heap && fields.get(1).is_some_and(|mode| mode.starts_with("rw"))
    };
    u64::try_from(maps.lines().filter(own).count()).ok()
}

/// How many threads `/proc/self/status` reports.
fn threads(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    line?.trim().parse().ok()
}

/// How many processors `/proc/cpuinfo` lists.
fn count(processors: &str) -> Option<u64> {
    let lines = processors.lines();
    let count = lines.filter(|line| line.starts_with("processor")).count();
    u64::try_from(count).ok().filter(|count| *count > 0)
}

/// A figure of `/proc/self/status`, as in `VmStk: 132 kB`.
fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let mut words = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?
        .split_whitespace();
    let figure = words.next()?.parse().ok()?;
    (words.next() == Some("kB")).then_some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_the_kernel_are_read() {
        let status = "Name:\tkeyway\nVmStk:\t     132 kB\nRssAnon:\t    2048 kB\nThreads:\t3\n";
        assert_eq!(kilobytes(status, "VmStk"), Some(132));
        assert_eq!(kilobytes(status, "RssAnon"), Some(2048));
        assert_eq!(kilobytes(status, "Rss"), None);
        assert_eq!(kilobytes(status, "Threads"), None);
        assert_eq!(threads(status), Some(3));
        let maps = "1-2 rw-p 0 00:00 0\n2-3 r-xp 0 00:00 0\n3-4 rw-p 0 08:01 7 /lib/x\n4-5 rw-p 0 00:00 0 [heap]\n5-6 rw-p 0 00:00 0 [stack]\n";
        assert_eq!(own_areas(maps), Some(2));
        let processors = "processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n";
        assert_eq!(count(processors), Some(2));
        assert_eq!(count("Processor\t: ARM\n"), None);
    }

    #[test]
    fn facts_are_those_of_this_process() {
        assert_eq!(SystemMachine::start(None).commit(), "");
        let machine = SystemMachine::start(Some("abc"));
        assert_eq!(machine.commit(), "abc");
        let facts = machine.facts();
        if cfg!(target_os = "linux") {
            assert_eq!(facts.os, "linux");
            assert!(facts.cpus >= Some(1) && facts.usable_cpus <= facts.cpus);
            assert!(facts.stack_bytes < facts.heap_bytes.map(|heap| heap * 1024));
        }
    }
}
