//! `larder tune`, and a node on the CPUs that a plan gives it.

#![allow(clippy::disallowed_methods, reason = "the test brings a plan, and looks at /proc")]

use std::path::Path;

use super::client::set;
use super::process::{NodeProcess, StartingProcess, larder, serve};

fn allowed_cpus(status: &str) -> Option<&str> {
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(str::trim)
}

/// The CPUs of the process's threads whose names start so.
fn cpus_of_threads(pid: u32, name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let statuses =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    let name = format!("Name:\t{name}");
    let named = statuses.filter(|status| status.starts_with(&name));
    named.filter_map(|status| allowed_cpus(&status).map(str::to_owned)).collect()
}

fn plan(folder: &Path, cpus: &str) -> String {
    let path = folder.join("cpu-plan.toml");
    let text = format!("mode = \"sq\"\ncpus = \"{cpus}\"\ninterrupts = \"\"\n");
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

/// The last CPU that this process may use.
fn last_cpu() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let list = allowed_cpus(&status).expect("a list");
    list.rsplit([',', '-']).next().expect("one at least").to_owned()
}

#[test]
fn a_node_and_its_workers_keep_to_the_cpus_of_the_plan() {
    let folder = tempfile::tempdir().expect("a directory");
    let cpu = last_cpu();
    let plan = plan(folder.path(), &cpu);
    let mut command = serve(&folder.path().join("data"), 1);
    let node = NodeProcess::start_as(command.args(["--cpu-plan", &plan]));
    // A durable write is flushed by a worker of the ring.
    node.connect().ask(set("k", b"value"), "STORED\r\n");
    let pid = node.pid();
    assert_eq!(cpus_of_threads(pid, "larder-core-0"), [cpu.as_str()]);
    let workers = cpus_of_threads(pid, "iou-wrk-");
    assert!(!workers.is_empty() && workers.iter().all(|cpus| *cpus == cpu), "{workers:?}");
    node.stop("-TERM");
}

#[test]
fn a_plan_that_does_not_fit_keeps_a_node_from_starting() {
    let folder = tempfile::tempdir().expect("a directory");
    let plan = plan(folder.path(), "1023");
    let mut command = serve(&folder.path().join("data"), 1);
    let node = StartingProcess::start(command.args(["--cpu-plan", &plan]));
    let (is_good, stdout, log) = node.end();
    assert!(!is_good && stdout.is_empty(), "{stdout}");
    assert!(log.contains("--cpu-plan") && log.contains("larder tune --apply"), "{log}");
}

#[test]
fn a_node_says_in_one_line_that_its_machine_is_not_tuned() {
    let folder = tempfile::tempdir().expect("a directory");
    let data = folder.path().join("data").display().to_string();
    let checked = larder(&["tune", "--check", "--dir", &data]).output().expect("it runs");
    let differs = checked.status.code() == Some(1);
    assert!(differs || checked.status.success(), "{checked:?}");
    let mut node = StartingProcess::start(&mut serve(Path::new(&data), 1));
    node.wait_for_ready();
    node.terminate();
    let (is_good, _, log) = node.end();
    assert!(is_good, "{log}");
    assert_eq!(log.matches("larder tune --check").count(), usize::from(differs), "{log}");
}

#[test]
fn tune_looks_at_this_machine_and_says_what_it_cannot_do() {
    let shown = larder(&["tune", "--show"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success() && text.contains("requests"), "{text}");
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path().display().to_string();
    let nothing = larder(&["tune", "--check", "--root", &root]).output().expect("it runs");
    let error = String::from_utf8_lossy(&nothing.stderr);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(error.contains("cpu/online") && error.contains("--root"), "{error}");
}
