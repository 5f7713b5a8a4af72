//! Files that people change between an apply and its undo.

use super::applying::{applied, options, small};
use super::builder::Tree;
use super::commands::tune;
use super::faults::{Fault, FaultyFiles};
use crate::apply::{apply, undo};
use crate::options::TuneMode;
use crate::plan::decide;
use crate::state::STATE_FILE;

const BALANCER: &str = "/etc/default/irqbalance";

/// Appends to a file.
fn edit(tree: &Tree, path: &str) -> String {
    let text = tree.text(path) + "# by hand\n";
    tree.write(path, &text);
    text
}

#[test]
fn a_file_that_was_changed_since_is_left_and_named() {
    let tree = small().build();
    let before = tree.snapshot();
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    let applied_text = tree.text(BALANCER);
    let edited = edit(&tree, BALANCER);
    for _ in 0..2 {
        let (code, said) = tune(&tree, &["--undo"]).expect("undone");
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(BALANCER) && said.contains("left as it is"), "{said}");
        assert_eq!(tree.text(BALANCER), edited);
    }
    // Everything else is as it was, and what the file was is kept.
    let mut now = tree.snapshot();
    let state = now.remove(&STATE_FILE[1..]).expect("it is kept");
    assert!(state.contains("--debug") && !state.contains("swappiness"), "{state}");
    now.insert(BALANCER[1..].to_owned(), before[&BALANCER[1..]].clone());
    assert_eq!(now, before);
    // Who takes the change back gets the rest as well.
    tree.write(BALANCER, &applied_text);
    let (code, said) = tune(&tree, &["--undo"]).expect("undone");
    assert_eq!((code, tree.snapshot()), (0, before), "{said}");
}

#[test]
fn a_file_that_is_gone_stays_gone() {
    let tree = small().build();
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    std::fs::remove_file(tree.path().join(&BALANCER[1..])).expect("removed");
    let undone = undo(&tree.files()).expect("undone");
    assert_eq!((undone.gone, undone.edited), (vec![BALANCER.to_owned()], vec![]));
    assert!(!tree.path().join(&BALANCER[1..]).exists());
}

#[test]
fn what_was_changed_between_two_plans_is_what_an_undo_gives_back() {
    let tree = small().build();
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    let edited = edit(&tree, BALANCER);
    // Other interrupts are to be banned.
    let interrupts = tree.text("/proc/interrupts").replace("  25:", "  99:");
    tree.write("/proc/interrupts", &interrupts);
    tree.write("/proc/irq/99/smp_affinity_list", "0-3\n");
    let device = "/sys/devices/pci0000:00/0000:00:01.0/msi_irqs";
    tree.write(&format!("{device}/99"), "msix\n");
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    assert_ne!(tree.text(BALANCER), edited, "there was something to change");
    assert_eq!(undo(&tree.files()).expect("undone").edited, Vec::<String>::new());
    assert_eq!(tree.text(BALANCER), edited);
}

#[test]
fn a_second_plan_that_is_cut_anywhere_is_undone_to_the_first_values() {
    let tree = small().build();
    let before = tree.snapshot();
    let machine = |tree: &Tree, mode| {
        let machine = tree.machine();
        let plan = decide(&machine, &options(mode)).expect("a plan");
        (machine, plan)
    };
    let mut step = 0;
    loop {
        applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
        let (machine, plan) = machine(&tree, TuneMode::Mq);
        let cut = FaultyFiles::new(tree.files(), Fault::PowerCut(step));
        let is_done = apply(&cut, &machine, &plan).is_ok();
        let undone = undo(&tree.files()).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(undone.edited, Vec::<String>::new(), "step {step}");
        assert_eq!(tree.snapshot(), before, "step {step}");
        if is_done {
            break;
        }
        step += 1;
    }
    assert!(step > 5, "{step} steps");
}
