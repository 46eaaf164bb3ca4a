//! The machine that measured.

use serde::{Deserialize, Serialize};

use crate::Fallible;

/// The instructions that the product's cryptography uses, by their names in `/proc/cpuinfo` (x86_64 and arm64).
const FLAGS: [&str; 10] = [
    "aes",
    "vaes",
    "pclmulqdq",
    "vpclmulqdq",
    "pmull",
    "sha_ni",
    "sha1",
    "sha2",
    "avx2",
    "avx512f",
];

/// The machine that measured, and its kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The name of the processor's model.
    pub processor: String,
    /// Those of the processor's instructions that cryptography uses.
    pub flags: Vec<String>,
    /// How many processors the kernel sees.
    pub cores: usize,
    /// In GB of a billion bytes.
    pub memory_gb: f64,
    /// The kernel's release.
    pub kernel: String,
    /// The architecture.
    pub architecture: String,
}

impl Machine {
    /// This machine, as the kernel describes it.
    ///
    /// # Errors
    /// If there is no `/proc`.
    pub fn here() -> Fallible<Self> {
        let processors = std::fs::read_to_string("/proc/cpuinfo")?;
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Self::read(&processors, &memory, &kernel)
    }

    fn read(processors: &str, memory: &str, kernel: &str) -> Fallible<Self> {
        let field = |names: &[&str]| {
            processors.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                names.contains(&name.trim()).then(|| value.trim())
            })
        };
        let all: Vec<&str> = field(&["flags", "Features"])
            .unwrap_or_default()
            .split(' ')
            .collect();
        let kibibytes: f64 = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .ok_or("the size of the memory is not known")?
            .parse()?;
        let cores = processors
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        Ok(Self {
            processor: field(&["model name", "CPU part"])
                .unwrap_or("a processor without a name")
                .to_owned(),
            flags: (FLAGS.iter().filter(|flag| all.contains(*flag)))
                .map(|flag| (*flag).to_owned())
                .collect(),
            cores,
            memory_gb: (kibibytes * 1024.0 / 1e8).round() / 10.0,
            kernel: kernel.trim().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
        })
    }

    /// The machine in one sentence's part.
    pub(crate) fn text(&self) -> String {
        let flags = if self.flags.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.flags.join(", "))
        };
        format!(
            "{} cores of {}{flags}, {} GB, Linux {}, {}",
            self.cores, self.processor, self.memory_gb, self.kernel, self.architecture
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_has_cores_name_and_flags_of_the_first_processor() {
        let processors = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu aes sha_ni\n\n\
                          processor\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: fpu aes sha_ni\n";
        let memory = "MemTotal:       24684000 kB\nMemFree: 1 kB\n";
        let machine = Machine::read(processors, memory, "6.1.0\n").unwrap();
        assert_eq!(
            machine.text(),
            format!(
                "2 cores of AMD EPYC (aes, sha_ni), 25.3 GB, Linux 6.1.0, {}",
                std::env::consts::ARCH
            )
        );
    }
}
