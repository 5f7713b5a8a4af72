//! Applying and undoing, with crashes and refusals at every step.

use super::builder::{Tree, TreeBuilder};
use super::faults::{Fault, FaultyFiles};
use super::machines::{DATA, machine};
use crate::apply::{Applied, Undone, apply, undo};
use crate::error::TuneError;
use crate::machine::Machine;
use crate::options::{TuneMode, TuneOptions};
use crate::plan::{TunePlan, decide};
use crate::state::STATE_FILE;

pub(super) fn options(mode: TuneMode) -> TuneOptions {
    TuneOptions { mode: Some(mode), dir: vec![DATA.to_owned()], ..TuneOptions::default() }
}

pub(super) fn planned(tree: &Tree, mode: TuneMode) -> (Machine, TunePlan) {
    let machine = tree.machine();
    let plan = decide(&machine, &options(mode)).expect("a plan");
    (machine, plan)
}

pub(super) fn applied(tree: &Tree, mode: TuneMode, fault: Fault) -> Result<Applied, TuneError> {
    let (machine, plan) = planned(tree, mode);
    apply(&FaultyFiles::new(tree.files(), fault), &machine, &plan)
}

fn differences(tree: &Tree, mode: TuneMode) -> Vec<String> {
    let (_, plan) = planned(tree, mode);
    plan.differences().map(|setting| setting.path.clone()).collect()
}

/// A machine with all kinds of settings, and few of each.
pub(super) fn small() -> TreeBuilder {
    TreeBuilder::new(1, 2, 2)
        .clock("xen", "xen tsc")
        .governors("powersave")
        .systemd()
        .with("/etc/default/irqbalance", "OPTIONS=\"--debug\"")
        .with("/lib/systemd/system/irqbalance.service", "ExecStart=/usr/sbin/irqbalance $OPTIONS")
        .ena(2)
        .nvme(0, 2)
        .mount("/mnt/data", "259:0", "xfs", "/dev/nvme0n1")
}

#[test]
fn what_is_applied_is_as_planned_and_is_undone_to_the_byte() {
    let tree = small().build();
    let before = tree.snapshot();
    let done = applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    assert!(done.changed.len() > 20 && done.kept.is_empty(), "{done:?}");
    assert_eq!(differences(&tree, TuneMode::Sq), Vec::<String>::new());
    assert_eq!(applied(&tree, TuneMode::Sq, Fault::None).expect("done"), Applied::default());
    assert_ne!(tree.snapshot(), before);
    assert!(tree.text("/etc/default/irqbalance").contains("--debug --banirq=24"));
    assert_eq!(tree.text("/proc/irq/24/smp_affinity_list"), "0\n");
    let undone = undo(&tree.files()).expect("undone");
    assert_eq!(undone.restored.len(), done.changed.len());
    assert_eq!(tree.snapshot(), before);
    assert_eq!(undo(&tree.files()).expect("nothing is left to do"), Undone::default());
}

#[test]
fn a_crash_after_any_step_is_undone() {
    let tree = small().build();
    let before = tree.snapshot();
    let (machine, plan) = planned(&tree, TuneMode::Sq);
    let whole = FaultyFiles::new(tree.files(), Fault::None);
    apply(&whole, &machine, &plan).expect("applied");
    undo(&tree.files()).expect("undone");
    for step in 0..whole.changes() {
        let error = applied(&tree, TuneMode::Sq, Fault::PowerCut(step)).expect_err("cut");
        // Before the old values are durable no setting has changed.
        let has_begun = !matches!(error, TuneError::State { .. });
        assert_eq!(has_begun, step >= 2, "step {step}: {error}");
        undo(&tree.files()).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(tree.snapshot(), before, "step {step}");
    }
}

#[test]
fn an_undo_that_is_cut_is_done_again() {
    let tree = small().build();
    let before = tree.snapshot();
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    let mut step = 0;
    loop {
        let files = FaultyFiles::new(tree.files(), Fault::PowerCut(step));
        if undo(&files).is_ok() {
            break;
        }
        undo(&tree.files()).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(tree.snapshot(), before, "step {step}");
        applied(&tree, TuneMode::Sq, Fault::None).expect("applied again");
        step += 1;
    }
    assert!(step > 20, "{step} steps");
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn a_refusal_in_the_middle_undoes_what_was_done() {
    let tree = small().build();
    let before = tree.snapshot();
    let whole = FaultyFiles::new(tree.files(), Fault::None);
    let (machine, plan) = planned(&tree, TuneMode::Sq);
    apply(&whole, &machine, &plan).expect("applied");
    undo(&tree.files()).expect("undone");
    for step in 2..whole.changes() {
        let error = applied(&tree, TuneMode::Sq, Fault::Refusal(step)).expect_err("refused");
        let text = error.to_string();
        assert!(matches!(error, TuneError::Refused { .. }), "step {step}: {text}");
        assert!(text.contains("as it was again"), "{text}");
        assert_eq!(tree.snapshot(), before, "step {step}: {text}");
    }
}

#[test]
fn a_second_plan_is_undone_to_the_first_values() {
    let tree = small().build();
    let before = tree.snapshot();
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    let between = tree.snapshot();
    let error = applied(&tree, TuneMode::Mq, Fault::Refusal(4)).expect_err("refused");
    assert!(matches!(error, TuneError::Refused { .. }), "{error}");
    assert_eq!(tree.snapshot(), between, "back to the first plan, which can still be undone");
    applied(&tree, TuneMode::Mq, Fault::None).expect("applied");
    assert_eq!(differences(&tree, TuneMode::Mq), Vec::<String>::new());
    undo(&tree.files()).expect("undone");
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn what_cannot_be_written_is_all_named_and_nothing_is_changed() {
    let tree = small().build();
    let before = tree.snapshot();
    let error = applied(&tree, TuneMode::Sq, Fault::ReadOnly).expect_err("read-only");
    let TuneError::NotWritable { failures } = &error else { panic!("{error}") };
    let (_, plan) = planned(&tree, TuneMode::Sq);
    assert_eq!(failures.len(), plan.differences().count() + 1, "and the state file");
    let text = error.to_string();
    for part in ["nothing was changed", "swappiness", "read-only", "root", "container"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn interrupts_that_the_kernel_binds_are_left_to_it() {
    let tree = small().build();
    // As a kernel that does not bind them, so that there is something to change.
    tree.write("/proc/irq/28/smp_affinity_list", "0-3\n");
    let before = tree.snapshot();
    let done = applied(&tree, TuneMode::Sq, Fault::BoundInterrupts).expect("applied");
    assert_eq!(done.kept, ["/proc/irq/28/smp_affinity_list"]);
    let (_, plan) = planned(&tree, TuneMode::Sq);
    assert!(plan.differences().all(|setting| !setting.is_wrong()), "it is not counted");
    undo(&FaultyFiles::new(tree.files(), Fault::BoundInterrupts)).expect("undone");
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn commands_follow_their_files() {
    let tree = small().build();
    let (machine, plan) = planned(&tree, TuneMode::Sq);
    let files = FaultyFiles::new(tree.files(), Fault::None);
    apply(&files, &machine, &plan).expect("applied");
    let commands = [
        "systemctl --no-block try-restart irqbalance.service",
        "systemctl --no-block daemon-reload",
    ];
    assert_eq!(*files.commands.borrow(), commands);
    let files = FaultyFiles::new(tree.files(), Fault::None);
    undo(&files).expect("undone");
    let commands: Vec<&str> = commands.into_iter().rev().collect();
    assert_eq!(*files.commands.borrow(), commands);
}

#[test]
fn who_moves_interrupts_is_started_again_only_where_it_is_known_how() {
    let file = "/etc/default/irqbalance";
    let script = "/etc/init.d/irqbalance";
    let bare = || TreeBuilder::new(1, 2, 1).virtio_card("eth0", 1).with(file, "OPTIONS=");
    let unit = "/usr/lib/systemd/system/irqbalance.service";
    for (tree, command) in [
        (bare().systemd(), None),
        (bare().systemd().with(script, "#!/bin/sh"), None),
        (bare().with("/proc/1/comm", "init"), None),
        (bare().with(script, "#!/bin/sh"), Some("/etc/init.d/irqbalance restart")),
        (
            bare().systemd().with(unit, "[Service]"),
            Some("systemctl --no-block try-restart irqbalance.service"),
        ),
    ] {
        let plan = decide(&tree.build().machine(), &TuneOptions::default()).expect("a plan");
        let setting = plan.settings.iter().find(|setting| setting.path == file).expect("it is set");
        assert_eq!(setting.then.as_deref(), command);
        let is_noted = plan.notes.iter().any(|note| note.contains("irqbalance"));
        assert_eq!(is_noted, command.is_none(), "{:?}", plan.notes);
    }
}

#[test]
fn after_a_restart_only_files_are_undone() {
    let tree = small().build();
    let before = tree.snapshot();
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    // The kernel has forgotten its settings, and gives an interrupt's number to another device.
    let files: Vec<&str> = before
        .keys()
        .map(String::as_str)
        .filter(|path| path.starts_with("sys/") || path.starts_with("proc/"))
        .collect();
    files.iter().for_each(|path| tree.write(path, &before[*path]));
    tree.write("/proc/irq/24/smp_affinity_list", "3\n");
    tree.write("/proc/sys/kernel/random/boot_id", "another\n");
    let undone = undo(&tree.files()).expect("undone");
    assert!(undone.by_restart > 10, "{undone:?}");
    assert_eq!(tree.text("/proc/irq/24/smp_affinity_list"), "3\n");
    assert_eq!(tree.text("/etc/default/irqbalance"), before["etc/default/irqbalance"]);
    assert!(!tree.snapshot().contains_key("etc/larder/cpu-plan.toml"));
}

#[test]
fn a_setting_that_is_gone_is_named() {
    let tree = small().build();
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    let path = "/proc/irq/24/smp_affinity_list";
    std::fs::remove_file(tree.path().join(&path[1..])).expect("removed");
    assert_eq!(undo(&tree.files()).expect("undone").gone, [path]);
}

#[test]
fn old_values_that_make_no_sense_are_refused() {
    let tree = small().build();
    for (text, part) in [
        ("format = 1\nboot = \"\"\n", "format 1"),
        ("format", "does not say"),
        ("format = 2\nboot = \"\"\n[[old]]\npath = \"/etc/../x\"\n", "/etc/../x"),
        ("format = 2\nboot = \"\"\n[[old]]\npath = \"/usr/x\"\n", "/usr/x"),
        ("format = 2\nboot = \"\"\nmore = 1\n", "more"),
    ] {
        tree.write(STATE_FILE, text);
        let before = tree.snapshot();
        for error in [
            undo(&tree.files()).expect_err(text),
            applied(&tree, TuneMode::Sq, Fault::None).expect_err(text),
        ] {
            let error = error.to_string();
            assert!(error.contains(STATE_FILE) && error.contains(part), "{error}");
        }
        assert_eq!(tree.snapshot(), before);
    }
}

#[test]
fn every_known_machine_is_tuned_and_given_back() {
    for name in super::machines::NAMES {
        let tree = machine(name).build();
        let before = tree.snapshot();
        applied(&tree, TuneMode::Auto, Fault::None).expect(name);
        assert_eq!(differences(&tree, TuneMode::Auto), Vec::<String>::new(), "{name}");
        undo(&tree.files()).expect(name);
        assert_eq!(tree.snapshot(), before, "{name}");
    }
}
