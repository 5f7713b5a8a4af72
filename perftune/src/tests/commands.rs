//! `larder tune` as it is called.

use std::path::Path;
use std::process::Command;

use clap::{CommandFactory, Parser};

use super::builder::Tree;
use super::machines::{DATA, machine};
use crate::command::{TuneArgs, run, untuned_in};
use crate::cpu_plan::{CPU_PLAN_FILE, CpuPlan};
use crate::options::TuneOptions;

#[derive(Parser)]
#[command(name = "tune")]
struct Tune {
    #[command(flatten)]
    args: TuneArgs,
}

/// The exit code and the output, or the error.
pub(super) fn tune(tree: &Tree, options: &[&str]) -> Result<(u8, String), String> {
    let root = tree.path().display().to_string();
    let words = ["tune", "--root", &root].into_iter().chain(options.iter().copied());
    let args = Tune::try_parse_from(words).map_err(|error| error.to_string())?.args;
    let mut output = Vec::new();
    let code = run(&args, &mut output).map_err(|error| error.to_string())?;
    Ok((code, String::from_utf8(output).expect("text")))
}

#[test]
fn a_machine_is_checked_tuned_and_given_back() {
    let tree = machine("i4i.4xlarge").build();
    let before = tree.snapshot();
    let (code, table) = tune(&tree, &["--check", "--dir", DATA]).expect("checked");
    assert_eq!(code, 1);
    assert!(table.contains("settings differ from the plan"), "{table}");
    assert!(table.contains("/proc/sys/vm/swappiness"), "{table}");
    assert_eq!(tree.snapshot(), before, "looking changes nothing");
    let (code, said) = tune(&tree, &["--apply", "--dir", DATA]).expect("applied");
    assert!(code == 0 && said.contains("settings changed"), "{said}");
    // Who asks for nothing means the saved plan.
    for options in [&["--check"][..], &["--check", "--dir", DATA]] {
        let (code, table) = tune(&tree, options).expect("checked");
        assert!(code == 0 && table.contains("as the plan has them"), "{table}");
    }
    let plan = CpuPlan::from_toml(&tree.text(CPU_PLAN_FILE)).expect("a plan");
    assert_eq!(
        (plan.cpus.to_string(), plan.interrupts.to_string()),
        ("1-7,9-15".into(), "0,8".into())
    );
    assert_eq!(plan.options.dir, [DATA]);
    let (_, said) = tune(&tree, &["--undo"]).expect("undone");
    assert!(said.contains("old values again"), "{said}");
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn the_script_does_what_applying_does() {
    for name in ["i4i.4xlarge", "laptop", "small-vm"] {
        let (by_script, by_apply) = (machine(name).build(), machine(name).build());
        let (_, script) = tune(&by_script, &["--dry-run", "--dir", DATA]).expect("a script");
        let commented = script.lines().filter(|line| line.starts_with("printf"));
        assert!(commented.count() > 10 && script.contains("\nset -eu\n"), "{script}");
        let status = Command::new("sh").args(["-c", &script]).status().expect("a shell");
        assert!(status.success(), "{name}: {script}");
        tune(&by_apply, &["--apply", "--dir", DATA]).expect("applied");
        let mut applied = by_apply.snapshot();
        applied.remove("var/lib/larder/tune-state.toml").expect("the old values");
        assert_eq!(by_script.snapshot(), applied, "{name}");
        let (code, _) = tune(&by_script, &["--check"]).expect("checked");
        assert_eq!(code, 0, "{name}");
    }
}

#[test]
fn masks_options_and_the_machine_are_printed() {
    let tree = machine("i4i.metal").build();
    let (_, mask) = tune(&tree, &["--get-cpu-mask"]).expect("a mask");
    assert_eq!(mask, "0xfffffffc,0xfffffffc,0xfffffffc,0xfffffffc\n");
    let (_, mask) = tune(&tree, &["--get-cpu-mask", "--cpu-mask", "0xf", "--irq-cpu-mask", "1"])
        .expect("a mask");
    assert_eq!(mask, "0xd\n");
    let (_, shown) = tune(&tree, &["--show", "--dir", DATA]).expect("shown");
    for part in
        ["NUMA node 1", "network eth0", "driver ena", "disk dm-0", "data-striped", "sq_split"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let options = ["--export-options", "--mode", "sq", "--nic", "eth0", "--cpu-mask", "0xff"];
    let (_, text) = tune(&tree, &options).expect("options");
    let file = tree.path().join("options.toml");
    std::fs::write(&file, &text).expect("written");
    let file = file.display().to_string();
    let (_, again) = tune(&tree, &["--export-options", "--options-file", &file]).expect("options");
    assert_eq!(again, text);
    assert_eq!(TuneOptions::from_toml(&text).expect("options").nic, ["eth0"]);
    let (_, mask) = tune(&tree, &["--get-cpu-mask", "--options-file", &file]).expect("a mask");
    assert_eq!(mask, "0xfe\n");
}

#[test]
fn a_wrong_call_is_refused_with_the_option() {
    let tree = machine("small-vm").build();
    let bad = tree.path().join("bad.toml").display().to_string();
    std::fs::write(&bad, "cpu_maks = \"0\"").expect("written");
    for (options, part) in [
        (&[][..], "--check"),
        (&["--check", "--apply"], "cannot be used with"),
        (&["--check", "--mode", "fast"], "sq_split"),
        (&["--check", "--cpu-mask", "0-"], "--cpu-mask"),
        (&["--check", "--cpu-mask", "0-5"], "it has 0-1"),
        (&["--check", "--options-file", "/no/such/file"], "--options-file /no/such/file"),
        (&["--check", "--options-file", &bad], "cpu_maks"),
    ] {
        let error = tune(&tree, options).expect_err(part);
        assert!(error.contains(part), "{options:?}: {error}");
    }
    let args = Tune::try_parse_from(["tune", "--show", "--root", "/no/such/root"]);
    let error = run(&args.expect("words").args, &mut Vec::new()).expect_err("no root");
    assert!(error.to_string().contains("--root /no/such/root"), "{error}");
    tree.write(CPU_PLAN_FILE, "mode = 1\n");
    let error = tune(&tree, &["--check"]).expect_err("a broken plan");
    assert!(error.contains("cpu-plan.toml") && error.contains("mode"), "{error}");
}

#[test]
fn two_do_not_change_a_machine_at_a_time() {
    let tree = machine("small-vm").build();
    let lock = tree.files().lock("/var/lib/larder").expect("free").expect("a directory");
    for action in ["--apply", "--undo"] {
        let error = tune(&tree, &[action]).expect_err("it is locked");
        assert!(error.contains("another `larder tune`"), "{error}");
    }
    tune(&tree, &["--check"]).expect("looking needs no lock");
    drop(lock);
    tune(&tree, &["--apply"]).expect("free again");
    tune(&tree, &["--undo"]).expect("free again");
}

#[test]
fn a_node_is_told_of_a_machine_that_is_not_tuned() {
    let told = |tree: &Tree| untuned_in(&tree.files(), Path::new(DATA));
    let tree = machine("i4i.4xlarge").build();
    let (differing, command) = told(&tree).expect("nothing is set");
    assert!(differing > 10, "{differing}");
    assert_eq!(command, format!("larder tune --check --dir {DATA}"));
    // The plan that was applied counts, whatever it was asked for with.
    for options in [&["--apply"][..], &["--apply", "--mode", "sq", "--dir", DATA]] {
        tune(&tree, options).expect("applied");
        assert_eq!(told(&tree), None);
    }
    tree.write("/proc/sys/vm/swappiness", "60\n");
    let command = format!("larder tune --check --mode sq --dir {DATA}");
    assert_eq!(told(&tree), Some((1, command)));
    std::fs::remove_file(tree.path().join("sys/devices/system/cpu/online")).expect("removed");
    assert_eq!(told(&tree), None, "nothing can be found out");
}

#[test]
fn the_help_is_sound_and_has_examples() {
    Tune::command().debug_assert();
    let help = Tune::command().render_long_help().to_string();
    assert!(help.contains("larder tune --dry-run --dir"), "{help}");
}
