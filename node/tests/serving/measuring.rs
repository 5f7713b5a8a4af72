//! `larder iotune` as a program.

#![allow(clippy::disallowed_methods, reason = "the test looks at what is left in directories")]

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::process::larder;

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("a list").next().is_none()
}

/// A directory on a disk: where the tests were built, because /tmp may be memory.
fn on_disk() -> tempfile::TempDir {
    let here = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(here).expect("a directory")
}

fn iotune(directory: &Path, out: &Path) -> Command {
    let mut command = larder(&["iotune"]);
    command.arg("--dir").arg(directory).arg("--out").arg(out);
    command
}

/// Whether a process has a file open that has no name any more.
fn has_nameless_file(pid: u32) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.any(|target| {
        let target = target.to_string_lossy();
        target.contains("larder-iotune-") && target.ends_with("(deleted)")
    })
}

fn wait_for_file(child: &Child) {
    let start = Instant::now();
    while !has_nameless_file(child.id()) {
        assert!(start.elapsed() < Duration::from_secs(30), "it makes its file");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_measurement_that_is_killed_leaves_nothing() {
    // Not INT: who was started in the background of a shell ignores it.
    for signal in ["-TERM", "-KILL"] {
        let (directory, results) = (on_disk(), tempfile::tempdir().expect("a directory"));
        let mut command = iotune(directory.path(), &results.path().join("io.toml"));
        command.args(["--size", "16", "--seconds", "60"]);
        let mut child = command.spawn().expect("it starts");
        wait_for_file(&child);
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
        assert!(!child.wait().expect("it ends").success());
        assert!(is_empty(directory.path()) && is_empty(results.path()), "{signal}");
    }
}

#[test]
fn a_refusal_names_the_option_and_has_its_exit_code() {
    let results = tempfile::tempdir().expect("a directory");
    let missing = results.path().join("missing");
    let output = iotune(&missing, &results.path().join("io.toml")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("larder: --dir ") && said.contains("missing"), "{said}");
    assert!(is_empty(results.path()));
    let help = larder(&["iotune", "--help"]).output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("--plot") && help.contains("--io-properties"), "{help}");
}
