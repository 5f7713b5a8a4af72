//! A node that may not have many descriptors, or none for a while.

#![allow(clippy::disallowed_methods, reason = "tests look at /proc, and wait")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};

use super::admin::{METRICS, ask, value_in};
use super::client::{found, noise};
use super::process::{NodeProcess, StartingProcess, larder};

/// `command` under a hard limit of descriptors.
fn limited(command: &Command, descriptors: u64) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    shell
}

fn small(directory: &Path) -> Command {
    let mut command = larder(&["serve", "--memcached-port", "0", "--native-port", "0"]);
    command.args(["--admin-port", "0"]);
    command.args(["--cores", "1", "--memory", "32M", "--durability", "none", "--data-dir"]);
    command.arg(directory);
    command
}

const KEYS: u64 = 400_000;
const KEYS_PER_BATCH: u64 = 1000;

/// A value that lives in the index, so that there are many tables.
fn value(key: u64) -> Vec<u8> {
    noise(key, 40).iter().map(|byte| byte % 26 + b'a').collect::<Vec<u8>>().repeat(3)
}

#[test]
fn more_files_than_descriptors() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start_as(&mut limited(&small(directory.path()), 64));
    let mut client = node.connect();
    for batch in 0..KEYS / KEYS_PER_BATCH {
        let mut requests = String::new();
        for key in batch * KEYS_PER_BATCH..(batch + 1) * KEYS_PER_BATCH {
            let value = String::from_utf8(value(key)).expect("letters");
            write!(requests, "set key{key} 0 0 120 noreply\r\n{value}\r\n").expect("a string");
        }
        client.ask(requests, "");
    }
    let admin: SocketAddr = node.field("admin").parse().expect("an address");
    let figure =
        |name: &str| value_in(&ask(admin, METRICS), &format!("larder_files_{name}{{core=\"0\"}} "));
    let (handles, limit) = (figure("handles"), figure("open_limit"));
    assert!(handles > limit, "{handles} files, {limit} of them open: the test needs more");
    let evictions = figure("evictions_total");
    for key in (0..KEYS).step_by(997) {
        let name = format!("key{key}");
        client.ask(format!("get {name}\r\n"), found(&name, &value(key)));
    }
    assert!(figure("open") <= limit && figure("evictions_total") > evictions, "none was closed");
    node.stop("-TERM");
    // And a start has to open them all.
    let node = NodeProcess::start_as(&mut limited(&small(directory.path()), 64));
    node.connect().ask("get key7\r\n", found("key7", &value(7)));
    node.stop("-TERM");
}

#[test]
fn connections_are_as_many_as_there_are_descriptors_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = StartingProcess::start(&mut limited(&small(directory.path()), 256));
    node.wait_for("the limit of open files is 256");
    node.wait_for_ready();
    node.terminate();
    let (is_good, _, log) = node.end();
    let warning = log.lines().find(|line| line.contains("open files is 256")).expect("a line");
    for part in ["--max-connections 10000", "`ulimit -n ", "connections are served at a time"] {
        assert!(is_good && warning.contains(part), "{part} in {log}");
    }
    let refused = StartingProcess::start(&mut limited(&small(directory.path()), 40));
    let (is_good, stdout, log) = refused.end();
    assert!(!is_good && stdout.is_empty(), "{log}");
    let error = log.lines().last().expect("an error");
    assert!(error.starts_with("larder: the limit of open files is 40"), "{log}");
    assert!(error.contains("--max-connections 10000") && error.contains("`ulimit -n "), "{log}");
}

fn open_descriptors(node: &NodeProcess) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("it runs");
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().to_string_lossy().parse().expect("a number")
    };
    entries.map(number).collect()
}

fn set_limit(node: &NodeProcess, descriptors: u64) -> Rlimit {
    let pid = Pid::from_raw(node.pid().cast_signed());
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(descriptors), maximum };
    rustix::process::prlimit(pid, Resource::Nofile, limit).expect("the process is ours")
}

#[test]
fn the_admin_port_waits_for_descriptors_without_spinning() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 1);
    let admin: SocketAddr = node.field("admin").parse().expect("an address");
    let mut open = open_descriptors(&node);
    // What the start has left to do comes to an end.
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let before = std::mem::replace(&mut open, open_descriptors(&node));
        if open == before {
            break;
        }
    }
    let free = (0..).find(|number| !open.contains(number)).expect("a number");
    let before = set_limit(&node, free);
    let began = Instant::now();
    // The port waits for this client with a descriptor in hand; from then on it has none.
    drop(TcpStream::connect(admin).expect("the kernel accepts"));
    std::thread::sleep(Duration::from_millis(500));
    set_limit(&node, before.current.expect("a number"));
    let metrics = ask(admin, METRICS);
    let attempts_max = began.elapsed().as_millis() as u64 / 50 + 1;
    let errors = value_in(&metrics, "larder_admin_errors_total{step=\"accept\"} ");
    assert!((1..=attempts_max).contains(&errors), "{errors} errors, not {attempts_max}");
    node.stop("-TERM");
}
