//! Commands that make a file's change effective, where a crash comes before them.

use super::applying::{applied, options, planned, small};
use super::builder::Tree;
use super::faults::{Fault, FaultyFiles};
use crate::apply::{Applied, Undone, apply, undo};
use crate::error::TuneError;
use crate::options::TuneMode;
use crate::plan::decide;

/// The files that have a command, with it.
const COMMANDS: [(&str, &str); 2] = [
    ("/etc/default/irqbalance", "systemctl --no-block try-restart irqbalance.service"),
    ("/etc/systemd/system/larder.service.d/90-larder.conf", "systemctl --no-block daemon-reload"),
];

fn text(tree: &Tree, path: &str) -> Option<String> {
    std::fs::read_to_string(tree.path().join(&path[1..])).ok()
}

/// Whether the command was run, if the file has changed.
fn assert_effective(tree: &Tree, before: &[Option<String>], runs: &[&FaultyFiles], what: &str) {
    for ((path, command), before) in COMMANDS.iter().zip(before) {
        let was_run =
            runs.iter().any(|files| files.commands.borrow().iter().any(|it| it == command));
        assert!(was_run || text(tree, path) == *before, "{what}: {command}");
    }
}

fn texts(tree: &Tree) -> Vec<Option<String>> {
    COMMANDS.iter().map(|(path, _)| text(tree, path)).collect()
}

#[test]
fn a_command_that_an_apply_did_not_come_to_is_run_by_the_next_one() {
    let tree = small().build();
    let before = texts(&tree);
    let mut step = 0;
    loop {
        let (machine, plan) = planned(&tree, TuneMode::Sq);
        let cut = FaultyFiles::new(tree.files(), Fault::PowerCut(step));
        let is_done = apply(&cut, &machine, &plan).is_ok();
        let (machine, plan) = planned(&tree, TuneMode::Sq);
        let again = FaultyFiles::new(tree.files(), Fault::None);
        apply(&again, &machine, &plan).expect("applied");
        assert_effective(&tree, &before, &[&cut, &again], &format!("step {step}"));
        let last = applied(&tree, TuneMode::Sq, Fault::None).expect("nothing is left to do");
        assert_eq!(last, Applied::default(), "step {step}");
        undo(&tree.files()).expect("undone");
        if is_done {
            break;
        }
        step += 1;
    }
    assert!(step > 20, "{step} steps");
}

#[test]
fn a_command_that_an_undo_did_not_come_to_is_run_by_the_next_one() {
    let tree = small().build();
    let mut step = 0;
    loop {
        applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
        let before = texts(&tree);
        let cut = FaultyFiles::new(tree.files(), Fault::PowerCut(step));
        let is_done = undo(&cut).is_ok();
        let again = FaultyFiles::new(tree.files(), Fault::None);
        undo(&again).unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_effective(&tree, &before, &[&cut, &again], &format!("step {step}"));
        assert_eq!(undo(&tree.files()).expect("nothing is left to do"), Undone::default());
        if is_done {
            break;
        }
        step += 1;
    }
    assert!(step > 20, "{step} steps");
}

#[test]
fn a_crash_in_an_apply_leaves_its_commands_to_an_undo() {
    let tree = small().build();
    let (machine, plan) = planned(&tree, TuneMode::Sq);
    let whole = FaultyFiles::new(tree.files(), Fault::None);
    apply(&whole, &machine, &plan).expect("applied");
    undo(&tree.files()).expect("undone");
    for step in 0..whole.changes() {
        let before = texts(&tree);
        let cut = FaultyFiles::new(tree.files(), Fault::PowerCut(step));
        apply(&cut, &machine, &plan).expect_err("cut");
        let has_changed = texts(&tree) != before;
        let files = FaultyFiles::new(tree.files(), Fault::None);
        undo(&files).unwrap_or_else(|error| panic!("step {step}: {error}"));
        // What was started between must be started again with the old file.
        assert!(!has_changed || !files.commands.borrow().is_empty(), "step {step}");
        assert_eq!(texts(&tree), before, "step {step}");
    }
}

#[test]
fn a_command_that_fails_again_is_named_and_kept() {
    let tree = small().build();
    let (machine, plan) = planned(&tree, TuneMode::Sq);
    let whole = FaultyFiles::new(tree.files(), Fault::None);
    apply(&whole, &machine, &plan).expect("applied");
    undo(&tree.files()).expect("undone");
    // The first change of all is that of irqbalance's file: old values, its two steps, the command.
    applied(&tree, TuneMode::Sq, Fault::PowerCut(4)).expect_err("cut");
    let machine = tree.machine();
    let plan = decide(&machine, &options(TuneMode::Sq)).expect("a plan");
    let error = apply(&FaultyFiles::new(tree.files(), Fault::Refusal(0)), &machine, &plan)
        .expect_err("the command fails");
    assert!(matches!(error, TuneError::NotRun { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("try-restart") && text.contains("nothing else was changed"), "{text}");
    let done = applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    let commands = COMMANDS.map(|(_, command)| command);
    assert_eq!(done.caught_up, commands);
}

#[test]
fn a_command_that_fails_while_undoing_is_no_file_that_is_gone() {
    let tree = small().build();
    applied(&tree, TuneMode::Sq, Fault::None).expect("applied");
    let error = undo(&FaultyFiles::new(tree.files(), Fault::NoPrograms)).expect_err("no programs");
    let TuneError::NotUndone { failures } = error else { panic!("{error}") };
    assert_eq!(failures.len(), COMMANDS.len(), "{failures:?}");
    let files = FaultyFiles::new(tree.files(), Fault::None);
    assert_eq!(undo(&files).expect("undone").restored, Vec::<String>::new());
    assert_eq!(files.commands.borrow().len(), COMMANDS.len(), "they are run when they can be");
}
