//! Starts in a hurry, and starts that are not to go on.

#![allow(clippy::disallowed_methods, reason = "tests prepare a directory")]

use std::net::TcpListener;
use std::process::Command;

use super::client::{Client, found, set};
use super::process::{NodeProcess, StartingProcess, larder, serve};

const IN_USE: &str = "is in use";

fn on_port(directory: &std::path::Path, port: u16) -> Command {
    let port = port.to_string();
    let mut command = larder(&["serve", "--memcached-port", &port, "--admin-port", "0"]);
    command.args(["--cores", "2", "--memory", "192M", "--data-dir"]).arg(directory);
    command
}

#[test]
fn an_address_in_use_is_waited_for_and_that_is_said_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = held.local_addr().expect("bound").port();
    let mut node = StartingProcess::start(&mut on_port(directory.path(), port));
    node.wait_for(IN_USE);
    drop(held);
    node.wait_for_ready();
    node.terminate();
    let (is_good, _, log) = node.end();
    assert!(is_good && log.matches(IN_USE).count() == 1, "{log}");
}

#[test]
fn an_address_that_stays_in_use_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = held.local_addr().expect("bound").port();
    let node = StartingProcess::start(&mut on_port(directory.path(), port));
    let (is_good, stdout, log) = node.end();
    assert!(!is_good && stdout.is_empty(), "{stdout}");
    let error = log.lines().last().expect("an error");
    assert!(error.starts_with("larder: the address 127.0.0.1:"), "{log}");
    assert!(error.contains(IN_USE) && error.contains("--memcached-port"), "{log}");
}

#[test]
fn a_signal_ends_the_wait_for_an_address() {
    let directory = tempfile::tempdir().expect("a directory");
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = held.local_addr().expect("bound").port();
    let mut node = StartingProcess::start(&mut on_port(directory.path(), port));
    node.wait_for(IN_USE);
    node.terminate();
    let (is_good, stdout, log) = node.end();
    assert!(is_good && stdout.is_empty(), "{stdout} {log}");
    assert!(log.contains("stopped before it was ready: a signal"), "{log}");
}

/// The name after the highest of the manifests in a shard's directory.
fn next_manifest(shard: &std::path::Path) -> String {
    let names = std::fs::read_dir(shard).expect("a directory").map(|entry| {
        entry.expect("an entry").file_name().into_string().expect("our names are UTF-8")
    });
    let manifests = names.filter(|name| name.to_lowercase().starts_with("manifest"));
    let last = manifests.max().expect("a manifest");
    let (prefix, number) = last.split_at(last.find(|c: char| c.is_ascii_digit()).expect("digits"));
    let digits = number.len();
    let number = number.parse::<u64>().expect("a number") + 1;
    format!("{prefix}{number:0digits$}")
}

#[test]
fn a_signal_ends_a_recovery() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 1);
    node.connect().ask(set("k", b"v"), "STORED\r\n");
    node.stop("-TERM");
    // Opening a pipe waits until somebody else opens it: a recovery that never ends.
    let shard = directory.path().join("shard-000");
    let pipe = shard.join(next_manifest(&shard));
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("it runs").success());
    let mut node = StartingProcess::start(&mut serve(directory.path(), 1));
    node.wait_for("opening shard");
    node.terminate();
    let (is_good, stdout, log) = node.end();
    assert!(is_good && stdout.is_empty(), "{stdout} {log}");
    assert!(log.contains("stopped before it was ready: a signal"), "{log}");
    std::fs::remove_file(pipe).expect("it is there");
    let node = NodeProcess::start(directory.path(), 1);
    node.connect().ask("get k\r\n", found("k", b"v"));
    node.stop("-TERM");
}

#[test]
fn a_node_is_started_at_once_after_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let mut stored: Vec<String> = Vec::new();
    for round in 0..5 {
        let mut node = StartingProcess::start(&mut on_port(directory.path(), address.port()));
        node.wait_for_ready();
        let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(address)).collect();
        for key in &stored {
            clients[0].ask(format!("get {key}\r\n"), found(key, b"v"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let key = format!("key-{round}-{number}");
            client.ask(set(&key, b"v"), "STORED\r\n");
            stored.push(key);
        }
        // Requests in the rings, and none of them answered.
        clients.iter_mut().for_each(|client| client.send(set("late", &[b'x'; 100_000])));
        node.kill();
    }
}
