//! Machines by name.
//!
//! None of them is a recording. They are put together from what is documented: the CPUs, disks and
//! network cards of AWS's instance types, the names that the drivers of Linux give to interrupts
//! (`ena_netdev.c`, `nvme/host/pci.c`, `virtio_net.c`, `ixgbevf_main.c`), and the layout of sysfs.

use super::builder::{Chip, TreeBuilder};

/// Where the data is on all of them.
pub(super) const DATA: &str = "/mnt/data/larder";

pub(super) const NAMES: [&str; 7] =
    ["i3.large", "i3.metal", "i4i.4xlarge", "i4i.metal", "im4gn.4xlarge", "laptop", "small-vm"];

pub(super) fn machine(name: &str) -> TreeBuilder {
    match name {
        "i3.large" => i3_large(),
        "i3.metal" => i3_metal(),
        "i4i.4xlarge" => i4i_4xlarge(),
        "i4i.metal" => i4i_metal(),
        "im4gn.4xlarge" => im4gn_4xlarge(),
        "laptop" => laptop(),
        "small-vm" => small_vm(),
        other => panic!("no machine is called {other}"),
    }
}

/// One core with two threads on Xen, whose clock is slow; one NVMe disk.
fn i3_large() -> TreeBuilder {
    TreeBuilder::new(1, 1, 2)
        .chip(Chip::Xen)
        .clock("xen", "xen tsc hpet acpi_pm")
        .systemd()
        .ena(2)
        .nvme(0, 2)
        .mount("/mnt/data", "259:0", "xfs", "/dev/nvme0n1")
}

/// Two nodes of 18 cores, and eight NVMe disks in an array.
fn i3_metal() -> TreeBuilder {
    let disks: Vec<String> = (0..8).map(|number| format!("nvme{number}n1")).collect();
    let disks: Vec<&str> = disks.iter().map(String::as_str).collect();
    let machine = TreeBuilder::new(2, 18, 2)
        .clock("tsc", "tsc hpet acpi_pm")
        .governors("powersave")
        .systemd()
        .with(
            "/etc/sysconfig/irqbalance",
            "# IRQBALANCE_ARGS=\nIRQBALANCE_ARGS=\"--hintpolicy=exact\"",
        )
        .with(
            "/usr/lib/systemd/system/irqbalance.service",
            "[Service]\nEnvironmentFile=/etc/sysconfig/irqbalance\n\
             ExecStart=/usr/sbin/irqbalance --foreground $IRQBALANCE_ARGS",
        )
        .ena(32);
    let machine = (0..8).fold(machine, |machine, number| machine.nvme(number, 31));
    machine.volume("md0", None, "9:0", &disks).mount("/mnt/data", "9:0", "xfs", "/dev/md0")
}

/// Eight cores with two threads on Nitro.
fn i4i_4xlarge() -> TreeBuilder {
    TreeBuilder::new(1, 8, 2)
        .clock("kvm-clock", "kvm-clock tsc acpi_pm")
        .systemd()
        .with("/etc/default/irqbalance", "#OPTIONS=")
        .with(
            "/usr/lib/systemd/system/irqbalance.service",
            "[Service]\nEnvironmentFile=-/etc/default/irqbalance\n\
             ExecStart=/usr/sbin/irqbalance $IRQBALANCE_ARGS",
        )
        .ena(8)
        .nvme(0, 16)
        .nvme(1, 16)
        .mount("/mnt/data", "259:1", "xfs", "/dev/nvme1n1")
}

/// Two nodes of 32 cores, and eight NVMe disks in a striped volume.
fn i4i_metal() -> TreeBuilder {
    let disks: Vec<String> = (0..8).map(|number| format!("nvme{number}n1")).collect();
    let disks: Vec<&str> = disks.iter().map(String::as_str).collect();
    let machine = TreeBuilder::new(2, 32, 2)
        .clock("tsc", "tsc hpet acpi_pm")
        .governors("powersave")
        .systemd()
        .ena(32);
    let machine = (0..8).fold(machine, |machine, number| machine.nvme(number, 32));
    machine.volume("dm-0", Some("data-striped"), "253:0", &disks).mount(
        "/mnt/data",
        "253:0",
        "xfs",
        "/dev/mapper/data-striped",
    )
}

/// Sixteen ARM cores without threads.
fn im4gn_4xlarge() -> TreeBuilder {
    TreeBuilder::new(1, 16, 1)
        .chip(Chip::Arm)
        .clock("arch_sys_counter", "arch_sys_counter")
        .systemd()
        .ena(8)
        .nvme(0, 16)
        .mount("/mnt/data", "259:0", "ext4", "/dev/nvme0n1")
}

/// Four cores with two threads, a wireless card, and an encrypted disk with volumes.
fn laptop() -> TreeBuilder {
    let wireless: Vec<String> = ["default_queue", "queue_1", "queue_2", "exception"]
        .iter()
        .map(|queue| format!("iwlwifi:{queue}"))
        .collect();
    let wired = "/sys/devices/pci0000:00/0000:00:01.0/net/enp0s1/operstate";
    TreeBuilder::new(1, 4, 2)
        .clock("tsc", "tsc hpet acpi_pm")
        .governors("powersave")
        .systemd()
        .with("/etc/default/irqbalance", "OPTIONS=\"--powerthresh=2\"")
        .with("/lib/systemd/system/irqbalance.service", "ExecStart=/usr/sbin/irqbalance $OPTIONS")
        .card("enp0s1", "e1000e", 1, &["enp0s1".to_owned()])
        .with(wired, "down")
        .card("wlp2s0", "iwlwifi", 1, &wireless)
        .nvme(0, 8)
        .partition("nvme0n1", "nvme0n1p3", "259:3")
        .volume("dm-0", Some("luks"), "253:0", &["nvme0n1p3"])
        .volume("dm-1", Some("vg-data"), "253:1", &["dm-0"])
        .mount("/mnt/data", "0:47", "btrfs", "/dev/mapper/vg-data")
}

/// Two CPUs, a virtio card with one queue, and a partition of a virtio disk.
fn small_vm() -> TreeBuilder {
    TreeBuilder::new(1, 2, 1)
        .clock("kvm-clock", "kvm-clock tsc hpet")
        .with("/proc/1/comm", "init")
        .virtio_card("eth0", 1)
        .virtio_disk("vda", "none [mq-deadline] kyber bfq")
        .partition("vda", "vda1", "254:1")
        .mount("/mnt/data", "254:1", "ext4", "/dev/vda1")
}
