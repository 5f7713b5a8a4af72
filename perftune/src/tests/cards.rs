//! Network cards and disks of all kinds: what belongs to them is found.

use super::builder::{Chip, Tree, TreeBuilder};
use super::machines::DATA;
use crate::cpu_mask::CpuMask;
use crate::machine::{InterruptLine, Machine};
use crate::options::{TuneMode, TuneOptions};
use crate::plan::{TunePlan, decide};

fn plan(machine: &Machine, options: &TuneOptions) -> TunePlan {
    decide(machine, options).expect("a plan")
}

fn value<'a>(plan: &'a TunePlan, path: &str) -> Option<&'a str> {
    plan.settings.iter().find(|setting| setting.path == path).map(|it| it.value.as_str())
}

fn names(lines: &[InterruptLine]) -> Vec<&str> {
    lines.iter().map(|line| line.name.as_str()).collect()
}

#[test]
fn interrupts_of_every_driver_are_found() {
    let intel = ["eth1-TxRx-0", "eth1-TxRx-1", "eth1"].map(str::to_owned);
    let tree = TreeBuilder::new(1, 4, 1)
        .chip(Chip::Xen)
        .ena(2)
        .card("eth1", "ixgbevf", 2, &intel)
        .virtio_card("eth2", 2)
        .build();
    let machine = tree.machine();
    let [ena, ixgbevf, virtio] = &machine.cards[..] else { panic!("{:?}", machine.cards) };
    let pci = "ena-mgmnt@pci:0000:00:05.0";
    assert_eq!(names(&ena.interrupts), [pci, "eth0-Tx-Rx-0", "eth0-Tx-Rx-1"]);
    assert_eq!(ena.queue_interrupts().len(), 2);
    assert_eq!((ena.driver.as_deref(), ena.receive_queues), (Some("ena"), 2));
    assert_eq!(names(&ixgbevf.interrupts), intel);
    assert_eq!(ixgbevf.queue_interrupts().len(), 2);
    assert_eq!(virtio.interrupts.len(), 5);
    assert_eq!(virtio.queue_interrupts().len(), 4, "all but its configuration");
    assert_eq!(virtio.driver.as_deref(), Some("virtio_net"));
}

#[test]
fn a_card_without_a_list_of_interrupts_is_known_by_name() {
    let tree = TreeBuilder::new(1, 2, 1).card("eth0", "old", 1, &["eth0".to_owned()]).build();
    std::fs::remove_dir_all(tree.path().join("sys/devices/pci0000:00/0000:00:01.0/msi_irqs"))
        .expect("removed");
    assert_eq!(names(&tree.machine().cards[0].interrupts), ["eth0"]);
}

#[test]
fn a_bond_is_tuned_by_its_cards() {
    let tree = TreeBuilder::new(1, 2, 1)
        .virtio_card("eth0", 1)
        .virtio_card("eth1", 1)
        .virtio_card("eth2", 1)
        .bond("bond0", &["eth0", "eth1"])
        .bond("bond0.5", &["bond0"])
        .build();
    let machine = tree.machine();
    let nic = vec!["bond0.5".to_owned()];
    let plan = plan(&machine, &TuneOptions { nic, ..TuneOptions::default() });
    let steers = |card: &str| value(&plan, &format!("/sys/class/net/{card}/queues/rx-0/rps_cpus"));
    assert_eq!((steers("eth0"), steers("eth1"), steers("eth2")), (Some("3"), Some("3"), None));
}

#[test]
fn queues_are_spread_over_nodes_and_cores() {
    let tree = TreeBuilder::new(2, 2, 2).ena(4).build();
    let mode = Some(TuneMode::Mq);
    let plan = plan(&tree.machine(), &TuneOptions { mode, ..TuneOptions::default() });
    let taken: Vec<&str> = (25..29)
        .filter_map(|number| value(&plan, &format!("/proc/irq/{number}/smp_affinity_list")))
        .collect();
    // Of eight CPUs 0, 1, 4, 5 are in node 0, where 0 and 4 are threads of one core.
    assert_eq!(taken.len(), 4);
    let taken = CpuMask::of(taken.iter().map(|cpu| cpu.parse::<usize>().expect("one CPU")));
    assert_eq!(taken.count(), 4, "no CPU has two: {taken}");
    let sends: Vec<CpuMask> = (0..4)
        .filter_map(|queue| {
            value(&plan, &format!("/sys/class/net/eth0/queues/tx-{queue}/xps_cpus"))
        })
        .map(|mask| CpuMask::from_hexadecimal(mask).expect("a mask"))
        .collect();
    assert_eq!(sends.iter().map(CpuMask::count).collect::<Vec<_>>(), [2; 4]);
    assert_eq!(sends[0], CpuMask::of([0, 4]), "threads of a core share a queue");
    let all = sends.iter().fold(CpuMask::default(), |all, some| all.or(some));
    assert_eq!(all, CpuMask::of(0..8));
}

fn disks(tree: &Tree, directory: &str) -> (Vec<String>, Vec<String>) {
    let dir = vec![directory.to_owned()];
    let plan = plan(&tree.machine(), &TuneOptions { dir, ..TuneOptions::default() });
    let scheduled = plan.settings.iter().filter(|it| it.path.ends_with("/scheduler"));
    (scheduled.map(|it| it.path.clone()).collect(), plan.notes)
}

#[test]
fn disks_are_found_below_volumes_arrays_and_partitions() {
    let tree = TreeBuilder::new(1, 2, 1)
        .nvme(0, 1)
        .nvme(1, 1)
        .nvme(2, 1)
        .partition("nvme0n1", "nvme0n1p1", "259:10")
        .volume("md0", None, "9:0", &["nvme0n1p1", "nvme1n1"])
        .volume("dm-0", Some("vg-data"), "253:0", &["md0"])
        .mount("/mnt/data", "253:0", "xfs", "/dev/mapper/vg-data")
        .mount("/mnt/data/deeper", "0:50", "btrfs", "/dev/nvme2n1")
        .mount("/mnt/my data", "259:10", "xfs", "/dev/nvme0n1p1")
        .mount("/mnt/ram", "0:60", "tmpfs", "tmpfs")
        .build();
    let scheduler = |disk: &str| format!("/sys/block/{disk}/queue/scheduler");
    let both = vec![scheduler("nvme0n1"), scheduler("nvme1n1")];
    assert_eq!(disks(&tree, DATA).0, both);
    assert_eq!(disks(&tree, "/mnt/data").0, both);
    assert_eq!(disks(&tree, "/mnt/data/deeper/x").0, [scheduler("nvme2n1")]);
    assert_eq!(disks(&tree, "/mnt/my data/x").0, [scheduler("nvme0n1")]);
    let (none, notes) = disks(&tree, "/mnt/ram/x");
    assert!(none.is_empty() && notes.iter().any(|note| note.contains("tmpfs")), "{notes:?}");
    let (none, notes) = disks(&tree, "/mnt/database");
    assert!(none.is_empty() && notes.iter().any(|note| note.contains("overlay")), "{notes:?}");
}

#[test]
fn an_old_kernel_has_another_name_for_no_scheduler() {
    let tree = TreeBuilder::new(1, 2, 1)
        .virtio_disk("vda", "noop deadline [cfq]")
        .mount("/mnt/data", "254:0", "xfs", "/dev/vda")
        .build();
    let dir = vec![DATA.to_owned()];
    let options = TuneOptions { dir, ..TuneOptions::default() };
    let found = plan(&tree.machine(), &options);
    assert_eq!(value(&found, "/sys/block/vda/queue/scheduler"), Some("noop"));
    tree.write("/sys/block/vda/queue/scheduler", "deadline [cfq]\n");
    let found = plan(&tree.machine(), &options);
    assert_eq!(value(&found, "/sys/block/vda/queue/scheduler"), None);
    assert!(found.notes.iter().any(|note| note.contains("cfq stays")), "{:?}", found.notes);
}
