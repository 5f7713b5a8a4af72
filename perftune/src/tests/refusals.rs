//! Options and machines of which no plan is made: each error names the option and what to do.

use super::builder::TreeBuilder;
use super::commands::tune;
use crate::cpu_mask::CpuMask;
use crate::machine::Machine;
use crate::options::{TuneMode, TuneOptions};
use crate::plan::decide;

fn mask(text: &str) -> Option<CpuMask> {
    Some(text.parse().expect("a mask"))
}

#[test]
fn contradictory_options_are_refused() {
    let tree = TreeBuilder::new(1, 4, 2).virtio_card("eth0", 1).build();
    let machine = tree.machine();
    let none = TuneOptions::default;
    for (options, parts) in [
        (TuneOptions { cpu_mask: mask("6-9"), ..none() }, &["--cpu-mask", "8-9", "0-7"][..]),
        (TuneOptions { irq_cpu_mask: mask("8"), ..none() }, &["--irq-cpu-mask", "8", "0-7"]),
        (TuneOptions { cpu_mask: mask("0x0"), ..none() }, &["--cpu-mask", "no CPU", "0-7"]),
        (TuneOptions { irq_cpu_mask: mask("0x0"), ..none() }, &["--irq-cpu-mask", "no CPU"]),
        (
            TuneOptions { cpu_mask: mask("0-3"), irq_cpu_mask: mask("3-4"), ..none() },
            &["--irq-cpu-mask", "(4)", "--cpu-mask 0-3"],
        ),
        (
            TuneOptions { mode: Some(TuneMode::Sq), irq_cpu_mask: mask("0"), ..none() },
            &["--mode sq", "--irq-cpu-mask 0", "one of them"],
        ),
        (
            TuneOptions { mode: Some(TuneMode::Sq), cpu_mask: mask("5"), ..none() },
            &["--mode sq", "CPUs 5", "--cpu-mask"],
        ),
        (
            TuneOptions { mode: Some(TuneMode::SqSplit), cpu_mask: mask("1,5"), ..none() },
            &["--mode sq_split", "1,5", "--mode mq"],
        ),
        (
            TuneOptions { nic: vec!["eth7".to_owned()], ..none() },
            &["--nic eth7", "there are: eth0"],
        ),
        (
            TuneOptions { dir: vec!["relative".to_owned()], ..none() },
            &["--dir relative", "mounted"],
        ),
    ] {
        let error = decide(&machine, &options).expect_err("no plan").to_string();
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    let shared = TuneOptions { irq_cpu_mask: mask("0-7"), ..none() };
    let plan = decide(&machine, &shared).expect("all CPUs do both");
    assert_eq!((plan.mode, plan.compute), (TuneMode::Mq, CpuMask::of(0..8)));
    let auto = TuneOptions { mode: Some(TuneMode::Auto), irq_cpu_mask: mask("7"), ..none() };
    let plan = decide(&machine, &auto).expect("a plan");
    assert_eq!((plan.interrupts, plan.compute), (CpuMask::of([7]), CpuMask::of(0..7)));
}

#[test]
fn nodes_of_different_sizes_are_not_divided_by_guessing() {
    let tree = TreeBuilder::new(2, 12, 1).build();
    let options = TuneOptions { cpu_mask: mask("0-19"), ..TuneOptions::default() };
    let error = decide(&tree.machine(), &options).expect_err("uneven").to_string();
    for part in ["12, 8", "--irq-cpu-mask", "--mode"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_topology_that_makes_no_sense_is_refused_with_the_file() {
    let cpu = "/sys/devices/system/cpu";
    let node = "/sys/devices/system/node";
    for (path, text, part) in [
        (format!("{cpu}/online"), "", "no CPU is online"),
        (format!("{cpu}/online"), "0-x", "list of CPUs"),
        (format!("{cpu}/online"), "0-99999", "beyond"),
        (format!("{cpu}/cpu1/topology/thread_siblings_list"), "0", "CPU 1 is not among"),
        (format!("{cpu}/cpu1/topology/thread_siblings_list"), "?", "list of CPUs"),
        (format!("{node}/node1/cpulist"), "0-3", "in node 0 as well"),
        (format!("{node}/node1/cpulist"), "3", "CPU 2 is in no node"),
    ] {
        let tree = TreeBuilder::new(2, 2, 1).with(&path, text).build();
        let error = Machine::read(&tree.files()).expect_err(part).to_string();
        let folder = path.rsplit_once("/node1").map_or(path.as_str(), |(folder, _)| folder);
        assert!(error.contains(folder) && error.contains(part), "{error}");
    }
    let empty = tempfile::tempdir().expect("a folder");
    let files = crate::tree::SystemTree::new(empty.path()).expect("a folder");
    let error = Machine::read(&files).expect_err("nothing is there").to_string();
    assert!(error.contains("cpu/online") && error.contains("--root"), "{error}");
}

#[test]
fn threads_and_nodes_that_are_not_told_of_are_done_without() {
    let tree = TreeBuilder::new(1, 3, 2).build();
    for folder in ["sys/devices/system/node", "sys/devices/system/cpu/cpu0/topology"] {
        std::fs::remove_dir_all(tree.path().join(folder)).expect("removed");
    }
    let machine = tree.machine();
    assert_eq!((machine.cpus.len(), machine.nodes()), (6, vec![0]));
    assert!(machine.unreadable.is_empty(), "{:?}", machine.unreadable);
}

#[test]
fn what_cannot_be_read_is_said() {
    let tree = TreeBuilder::new(1, 2, 1).build();
    std::fs::write(tree.path().join("proc/sys/vm/swappiness"), [0xff, 0xfe]).expect("written");
    let machine = tree.machine();
    let [(path, reason)] = &machine.unreadable[..] else { panic!("{:?}", machine.unreadable) };
    assert_eq!(path, "/proc/sys/vm/swappiness");
    assert!(reason.contains("UTF-8"), "{reason}");
    let plan = decide(&machine, &TuneOptions::default()).expect("a plan of the rest");
    assert!(plan.settings.iter().all(|setting| setting.path != *path));
}

#[test]
fn a_file_that_cannot_be_read_is_not_written_over() {
    let path = "/etc/security/limits.d/90-larder.conf";
    let tree = TreeBuilder::new(1, 2, 1).systemd().with(path, "").build();
    let file = tree.path().join(&path[1..]);
    std::fs::write(&file, [0xff, 0xfe]).expect("written");
    for option in ["--dry-run", "--check"] {
        let (_, said) = tune(&tree, &[option]).expect("it is only looked at");
        assert!(!said.contains("limits.d/90-larder.conf.larder-new"), "{said}");
    }
    let error = tune(&tree, &["--apply"]).expect_err("refused");
    for part in [path, "cannot be read", "UTF-8", "nothing was changed"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(std::fs::read(&file).expect("it is there"), [0xff, 0xfe]);
    assert_eq!(tree.text("/proc/sys/vm/swappiness"), "60\n");
    std::fs::remove_file(&file).expect("removed");
    tune(&tree, &["--apply"]).expect("nothing is in the way");
}
