//! What a machine is, as a plain value: the first of the three steps.
//!
//! Reading decides nothing. What is not there is left out, and what is there but cannot be read is
//! listed.

mod block;
mod interrupts;
mod network;
mod topology;

use std::collections::BTreeMap;
use std::io::ErrorKind;

pub use block::{BlockDevice, MountPoint, mount_above};
pub use interrupts::InterruptLine;
pub(crate) use interrupts::affinity_path;
pub use network::NetworkCard;
pub use topology::MachineCpu;

use crate::cpu_mask::CpuMask;
use crate::cpu_plan::CPU_PLAN_FILE;
use crate::error::TuneError;
use crate::tree::SystemFiles;

/// A machine, with what its settings say now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The CPUs that are online, by number.
    pub cpus: Vec<MachineCpu>,
    /// The interrupts that drivers have asked for.
    pub interrupts: Vec<InterruptLine>,
    /// Network cards and what is built of them.
    pub cards: Vec<NetworkCard>,
    /// Disks, their partitions, and what is built of them.
    pub devices: Vec<BlockDevice>,
    /// What is mounted where.
    pub mounts: Vec<MountPoint>,
    /// What the settings that a plan may be about say, by path.
    pub contents: BTreeMap<String, String>,
    /// What could not be read, with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// Settings of the whole machine, and files that a plan may be about.
const SINGLE_FILES: [&str; 24] = [
    CLOCK_SOURCE,
    CLOCK_SOURCES,
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/defrag",
    "/proc/sys/vm/swappiness",
    "/proc/sys/fs/aio-max-nr",
    "/proc/sys/fs/nr_open",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/core/netdev_max_backlog",
    "/proc/sys/net/core/rps_sock_flow_entries",
    "/proc/sys/net/ipv4/tcp_max_syn_backlog",
    "/proc/sys/kernel/random/boot_id",
    "/proc/1/comm",
    "/etc/default/irqbalance",
    "/etc/sysconfig/irqbalance",
    "/etc/conf.d/irqbalance",
    "/etc/systemd/system/irqbalance.service",
    "/usr/lib/systemd/system/irqbalance.service",
    "/lib/systemd/system/irqbalance.service",
    "/etc/init.d/irqbalance",
    "/etc/security/limits.conf",
    LIMITS_FILE,
    UNIT_LIMITS_FILE,
    CPU_PLAN_FILE,
];

/// The clock that the kernel reads.
pub(crate) const CLOCK_SOURCE: &str =
    "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// The clocks that it could read.
pub(crate) const CLOCK_SOURCES: &str =
    "/sys/devices/system/clocksource/clocksource0/available_clocksource";
/// Where the limits of sessions are set.
pub(crate) const LIMITS_FILE: &str = "/etc/security/limits.d/90-larder.conf";
/// Where the limits of a unit `larder.service` are set.
pub(crate) const UNIT_LIMITS_FILE: &str = "/etc/systemd/system/larder.service.d/90-larder.conf";

impl Machine {
    /// Looks at a system.
    ///
    /// # Errors
    /// If it has no CPUs that are told of, or its CPUs and NUMA nodes contradict each other.
    pub fn read(files: &dyn SystemFiles) -> Result<Self, TuneError> {
        let mut reader = Reader { files, contents: BTreeMap::new(), unreadable: Vec::new() };
        let cpus = topology::read(&mut reader)?;
        let interrupts = interrupts::read(&mut reader, &cpus);
        let cards = network::read(&mut reader, &interrupts);
        let devices = block::read(&mut reader, &interrupts);
        let mounts = block::read_mounts(&mut reader);
        for path in SINGLE_FILES {
            reader.keep(path);
        }
        for policy in reader.list("/sys/devices/system/cpu/cpufreq") {
            for name in ["scaling_governor", "scaling_available_governors"] {
                reader.keep(&format!("/sys/devices/system/cpu/cpufreq/{policy}/{name}"));
            }
        }
        let Reader { contents, mut unreadable, .. } = reader;
        unreadable.sort();
        unreadable.dedup();
        Ok(Self { cpus, interrupts, cards, devices, mounts, contents, unreadable })
    }

    /// What a setting says; `None` if it is not there or could not be read.
    pub fn content(&self, path: &str) -> Option<&str> {
        self.contents.get(path).map(String::as_str)
    }

    /// All CPUs.
    pub fn all_cpus(&self) -> CpuMask {
        CpuMask::of(self.cpus.iter().map(|cpu| cpu.number))
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        let mut cores: Vec<usize> = self.cpus.iter().map(|cpu| cpu.core).collect();
        cores.sort_unstable();
        cores.dedup();
        cores.len()
    }

    /// The NUMA nodes that have CPUs.
    pub fn nodes(&self) -> Vec<usize> {
        let mut nodes: Vec<usize> = self.cpus.iter().map(|cpu| cpu.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The start of the machine to which settings of its kernel belong.
    pub(crate) fn boot(&self) -> &str {
        self.content("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim()
    }
}

/// What is mounted, without anything else of the machine; nothing where it cannot be read.
pub(crate) fn mounts(files: &dyn SystemFiles) -> Vec<MountPoint> {
    let mut reader = Reader { files, contents: BTreeMap::new(), unreadable: Vec::new() };
    block::read_mounts(&mut reader)
}

/// Reads files, and remembers what could not be read.
pub(crate) struct Reader<'a> {
    files: &'a dyn SystemFiles,
    contents: BTreeMap<String, String>,
    unreadable: Vec<(String, String)>,
}

impl Reader<'_> {
    /// What a file says; `None` if it is not there.
    fn read(&mut self, path: &str) -> Option<String> {
        match self.files.read(path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.note(path, &error);
                None
            }
        }
    }

    /// The same without the white space around.
    fn word(&mut self, path: &str) -> Option<String> {
        self.read(path).map(|text| text.trim().to_owned())
    }

    /// The names in a directory; none if it is not there.
    fn list(&mut self, path: &str) -> Vec<String> {
        match self.files.list(path) {
            Ok(names) => names,
            Err(error) => {
                self.note(path, &error);
                Vec::new()
            }
        }
    }

    fn resolve(&self, path: &str) -> Option<String> {
        self.files.resolve(path).ok()
    }

    /// Reads a setting that a plan may be about.
    fn keep(&mut self, path: &str) {
        if let Some(text) = self.read(path) {
            self.contents.insert(path.to_owned(), text);
        }
    }

    /// Files that are not there say so in several ways: some settings exist, but not for every
    /// device, and cannot be read then.
    fn note(&mut self, path: &str, error: &std::io::Error) {
        use ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, Unsupported};
        let is_absent = matches!(
            error.kind(),
            NotFound | NotADirectory | IsADirectory | InvalidInput | Unsupported
        );
        if !is_absent {
            self.unreadable.push((path.to_owned(), error.to_string()));
        }
    }
}

/// A number in a file's text.
fn parse_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}
