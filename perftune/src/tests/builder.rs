//! Trees of `/sys`, `/proc` and `/etc` that stand for machines.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::cpu_mask::CpuMask;
use crate::machine::Machine;
use crate::tree::SystemTree;

/// Which chip brings interrupts, as the kernel describes it in `/proc/interrupts`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chip {
    Pc,
    Xen,
    Arm,
}

/// A machine that is being described.
#[derive(Clone, Debug)]
pub(super) struct TreeBuilder {
    files: BTreeMap<String, String>,
    links: BTreeMap<String, String>,
    interrupts: Vec<(u32, String)>,
    mounts: Vec<String>,
    cpus: usize,
    chip: Chip,
    devices: usize,
}

impl TreeBuilder {
    /// A machine of so many equal nodes; threads of a core are numbered as far apart as can be.
    pub(super) fn new(nodes: usize, cores_per_node: usize, threads: usize) -> Self {
        let cores = nodes * cores_per_node;
        let cpus = cores * threads;
        let mut builder = Self {
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            interrupts: Vec::new(),
            mounts: Vec::new(),
            cpus,
            chip: Chip::Pc,
            devices: 0,
        };
        let folder = "/sys/devices/system";
        builder.file(&format!("{folder}/cpu/online"), &CpuMask::of(0..cpus).to_string());
        for cpu in 0..cpus {
            let siblings = CpuMask::of((0..threads).map(|thread| cpu % cores + thread * cores));
            let path = format!("{folder}/cpu/cpu{cpu}/topology/thread_siblings_list");
            builder.file(&path, &siblings.to_string());
        }
        for node in 0..nodes {
            let of_node = (0..cpus).filter(|cpu| cpu % cores / cores_per_node == node);
            let path = format!("{folder}/node/node{node}/cpulist");
            builder.file(&path, &CpuMask::of(of_node).to_string());
        }
        for (path, value) in [
            ("/proc/sys/vm/swappiness", "60"),
            ("/proc/sys/fs/aio-max-nr", "65536"),
            ("/proc/sys/fs/nr_open", "1048576"),
            ("/proc/sys/net/core/somaxconn", "4096"),
            ("/proc/sys/net/core/netdev_max_backlog", "1000"),
            ("/proc/sys/net/core/rps_sock_flow_entries", "0"),
            ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "1024"),
            ("/proc/sys/kernel/random/boot_id", "9a3e2f5c-0000-4000-8000-000000000001"),
            ("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
            (
                "/sys/kernel/mm/transparent_hugepage/defrag",
                "always defer defer+madvise [madvise] never",
            ),
        ] {
            builder.file(path, value);
        }
        builder.mount("/", "0:22", "overlay", "overlay")
    }

    /// Gives a file a line.
    pub(super) fn file(&mut self, path: &str, line: &str) {
        self.files.insert(path.to_owned(), format!("{line}\n"));
    }

    /// The same, for a description in one go.
    pub(super) fn with(mut self, path: &str, line: &str) -> Self {
        self.file(path, line);
        self
    }

    pub(super) fn chip(mut self, chip: Chip) -> Self {
        self.chip = chip;
        self
    }

    pub(super) fn clock(self, current: &str, available: &str) -> Self {
        let folder = "/sys/devices/system/clocksource/clocksource0";
        self.with(&format!("{folder}/current_clocksource"), current)
            .with(&format!("{folder}/available_clocksource"), available)
    }

    pub(super) fn governors(mut self, current: &str) -> Self {
        for cpu in 0..self.cpus {
            let folder = format!("/sys/devices/system/cpu/cpufreq/policy{cpu}");
            self.file(&format!("{folder}/scaling_governor"), current);
            let path = format!("{folder}/scaling_available_governors");
            self.file(&path, "performance powersave");
        }
        self
    }

    pub(super) fn systemd(self) -> Self {
        self.with("/proc/1/comm", "systemd").with("/etc/security/limits.conf", "# End of file")
    }

    /// A network card on PCI, with the names of its interrupts.
    pub(super) fn card(
        mut self,
        name: &str,
        driver: &str,
        queues: usize,
        interrupts: &[String],
    ) -> Self {
        let device = self.pci_device();
        self.msi(&device, interrupts);
        self.interface(name, &device, driver, queues);
        self
    }

    /// An ENA card of a Nitro machine.
    pub(super) fn ena(self, queues: usize) -> Self {
        let mut names = vec!["ena-mgmnt@pci:0000:00:05.0".to_owned()];
        names.extend((0..queues).map(|queue| format!("eth0-Tx-Rx-{queue}")));
        self.card("eth0", "ena", queues, &names)
    }

    /// A virtio card; its interrupts belong to the PCI device below it.
    pub(super) fn virtio_card(mut self, name: &str, queues: usize) -> Self {
        let device = self.pci_device();
        let virtio = format!("virtio{}", self.devices);
        let mut names = vec![format!("{virtio}-config")];
        for queue in 0..queues {
            names.push(format!("{virtio}-input.{queue}"));
            names.push(format!("{virtio}-output.{queue}"));
        }
        self.msi(&device, &names);
        self.interface(name, &format!("{device}/{virtio}"), "virtio_net", queues);
        self
    }

    /// An interface without a device, built of others.
    pub(super) fn bond(mut self, name: &str, lower: &[&str]) -> Self {
        let folder = format!("/sys/devices/virtual/net/{name}");
        self.file(&format!("{folder}/operstate"), "up");
        for lower in lower {
            self.link(&format!("{folder}/lower_{lower}"), &format!("/sys/class/net/{lower}"));
        }
        self.link(&format!("/sys/class/net/{name}"), &folder);
        self
    }

    /// An NVMe disk whose queues divide the CPUs, as the kernel does.
    pub(super) fn nvme(mut self, number: usize, queues: usize) -> Self {
        let device = self.pci_device();
        let names: Vec<String> =
            (0..=queues).map(|queue| format!("nvme{number}q{queue}")).collect();
        let first = self.msi(&device, &names);
        let name = format!("nvme{number}n1");
        let folder = format!("{device}/nvme/nvme{number}/{name}");
        for queue in 0..queues {
            let cpus = CpuMask::of((0..self.cpus).filter(|cpu| cpu * queues / self.cpus == queue));
            self.file(&format!("{folder}/mq/{queue}/cpu_list"), &spaced(&cpus));
            // These interrupts are bound by the kernel.
            let number = first + 1 + u32::try_from(queue).expect("few");
            self.file(&format!("/proc/irq/{number}/smp_affinity_list"), &cpus.to_string());
        }
        self.disk(&name, &folder, &format!("259:{number}"), "[none] mq-deadline kyber");
        self
    }

    /// A virtio disk.
    pub(super) fn virtio_disk(mut self, name: &str, scheduler: &str) -> Self {
        let device = self.pci_device();
        let virtio = format!("virtio{}", self.devices);
        let first = self.msi(&device, &[format!("{virtio}-config"), format!("{virtio}-req.0")]);
        let folder = format!("{device}/{virtio}/block/{name}");
        let all = CpuMask::of(0..self.cpus);
        self.file(&format!("/proc/irq/{}/smp_affinity_list", first + 1), &all.to_string());
        self.file(&format!("{folder}/mq/0/cpu_list"), &spaced(&all));
        self.disk(name, &folder, "254:0", scheduler);
        self
    }

    pub(super) fn partition(mut self, disk: &str, name: &str, number: &str) -> Self {
        let folder = self.links[&format!("/sys/class/block/{disk}")].clone();
        let folder = format!("{folder}/{name}");
        self.file(&format!("{folder}/partition"), "1");
        self.file(&format!("{folder}/dev"), number);
        self.link(&format!("/sys/class/block/{name}"), &folder);
        self
    }

    /// A volume of the device mapper, or an array, with its devices.
    pub(super) fn volume(
        mut self,
        name: &str,
        mapped: Option<&str>,
        number: &str,
        of: &[&str],
    ) -> Self {
        let folder = format!("/sys/devices/virtual/block/{name}");
        self.file(&format!("{folder}/dev"), number);
        if let Some(mapped) = mapped {
            self.file(&format!("{folder}/dm/name"), mapped);
        }
        for lower in of {
            let target = self.links[&format!("/sys/class/block/{lower}")].clone();
            self.link(&format!("{folder}/slaves/{lower}"), &target);
        }
        self.link(&format!("/sys/class/block/{name}"), &folder);
        self
    }

    pub(super) fn mount(mut self, path: &str, number: &str, kind: &str, source: &str) -> Self {
        let path = path.replace(' ', r"\040");
        self.mounts.push(format!("30 1 {number} / {path} rw,relatime - {kind} {source} rw"));
        self
    }

    fn pci_device(&mut self) -> String {
        self.devices += 1;
        format!("/sys/devices/pci0000:00/0000:00:{:02x}.0", self.devices)
    }

    /// Gives a device interrupts; returns the number of the first.
    fn msi(&mut self, device: &str, names: &[String]) -> u32 {
        let first = 24 + u32::try_from(self.interrupts.len()).expect("few");
        for (number, name) in (first..).zip(names) {
            self.file(&format!("{device}/msi_irqs/{number}"), "msix");
            self.interrupts.push((number, name.clone()));
            let all = CpuMask::of(0..self.cpus).to_string();
            self.file(&format!("/proc/irq/{number}/smp_affinity_list"), &all);
        }
        first
    }

    fn interface(&mut self, name: &str, device: &str, driver: &str, queues: usize) {
        let folder = format!("{device}/net/{name}");
        let none = CpuMask::default().hexadecimal(self.cpus.div_ceil(4));
        for queue in 0..queues {
            self.file(&format!("{folder}/queues/rx-{queue}/rps_cpus"), &none);
            self.file(&format!("{folder}/queues/rx-{queue}/rps_flow_cnt"), "0");
            // A card with one queue has the file, and an error for who reads it.
            if queues > 1 {
                self.file(&format!("{folder}/queues/tx-{queue}/xps_cpus"), &none);
            }
            self.file(&format!("{folder}/queues/tx-{queue}/tx_timeout"), "0");
        }
        self.file(&format!("{folder}/operstate"), "up");
        self.file(&format!("{device}/numa_node"), "-1");
        self.file(&format!("/sys/bus/pci/drivers/{driver}/module"), driver);
        self.link(&format!("{device}/driver"), &format!("/sys/bus/pci/drivers/{driver}"));
        self.link(&format!("{folder}/device"), device);
        self.link(&format!("/sys/class/net/{name}"), &folder);
    }

    fn disk(&mut self, name: &str, folder: &str, number: &str, scheduler: &str) {
        self.file(&format!("{folder}/dev"), number);
        self.file(&format!("{folder}/queue/scheduler"), scheduler);
        self.file(&format!("{folder}/queue/nomerges"), "0");
        self.link(&format!("/sys/class/block/{name}"), folder);
        self.link(&format!("/sys/block/{name}"), folder);
    }

    fn link(&mut self, path: &str, target: &str) {
        self.links.insert(path.to_owned(), target.to_owned());
    }

    fn interrupt_lines(&self) -> String {
        let mut text = " ".repeat(5);
        (0..self.cpus).for_each(|cpu| text.push_str(&format!("{:>11}", format!("CPU{cpu}"))));
        text.push('\n');
        for (number, name) in &self.interrupts {
            let described = match self.chip {
                Chip::Pc => format!("PCI-MSI {}-edge", 524_288 + number),
                Chip::Xen => "xen-pirq    -msi-x".to_owned(),
                Chip::Arm => format!("ITS-MSI {} Edge", 524_288 + number),
            };
            let counts = "          0".repeat(self.cpus);
            text.push_str(&format!("{number:>4}:{counts}   {described}      {name}\n"));
        }
        text.push_str(" NMI:          0   Non-maskable interrupts\n");
        text
    }

    /// Writes the tree.
    pub(super) fn build(mut self) -> Tree {
        let lines = self.interrupt_lines();
        self.files.insert("/proc/interrupts".to_owned(), lines);
        let mounts = self.mounts.join("\n") + "\n";
        self.files.insert("/proc/self/mountinfo".to_owned(), mounts);
        let folder = tempfile::tempdir().expect("a folder");
        let place = |path: &str| folder.path().join(path.trim_start_matches('/'));
        for (path, text) in &self.files {
            let path = place(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            fs::write(path, text).expect("written");
        }
        for (path, target) in &self.links {
            let up = "../".repeat(path.matches('/').count() - 1);
            let path = place(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            symlink(format!("{up}{}", target.trim_start_matches('/')), path).expect("linked");
        }
        Tree { folder }
    }
}

/// CPUs as block devices list them.
fn spaced(cpus: &CpuMask) -> String {
    cpus.iter().map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(", ")
}

/// The files of a machine.
pub(super) struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn files(&self) -> SystemTree {
        SystemTree::new(self.path()).expect("a directory")
    }

    pub(super) fn machine(&self) -> Machine {
        Machine::read(&self.files()).expect("a machine")
    }

    pub(super) fn text(&self, path: &str) -> String {
        let path = self.path().join(path.trim_start_matches('/'));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text).expect("written");
    }

    /// Every file with its content, whatever is linked.
    pub(super) fn snapshot(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.path().to_path_buf()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("an entry").path();
                let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
                if kind.is_dir() {
                    open.push(path);
                } else if kind.is_file() {
                    let name = path.strip_prefix(self.path()).expect("below").display().to_string();
                    files.insert(name, fs::read_to_string(&path).expect("text"));
                }
            }
        }
        files
    }
}
