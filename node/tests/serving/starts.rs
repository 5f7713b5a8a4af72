//! Starts in a hurry, and starts that are not to go on.

use std::net::TcpListener;
use std::process::Command;

use super::client::{Client, found, set};
use super::process::{NodeProcess, StartingProcess, larder, serve};

const IN_USE: &str = "is in use";

fn on_port(directory: &std::path::Path, port: u16) -> Command {
    let port = port.to_string();
    let mut command = larder(&["serve", "--memcached-port", &port, "--native-port", "0"]);
    command.args(["--admin-port", "0"]);
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

/// Overwrites of a few keys: many records for a start to replay, and no memtable that is flushed.
const RECORDS: usize = 300_000;
const ATTEMPTS: usize = 10;

#[test]
fn a_signal_ends_a_recovery() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = serve(directory.path(), 1);
    let node = NodeProcess::start_as(command.args(["--durability", "none"]));
    let mut client = node.connect();
    for batch in 0..RECORDS / 1000 {
        let set = format!("set k{batch} 0 0 100 noreply\r\n{}\r\n", "x".repeat(100));
        client.ask(set.repeat(1000), "");
    }
    node.kill();
    // The recovery may be over before the signal comes; then the node is told to stop once more.
    let has_ended_it = (0..ATTEMPTS).any(|_| {
        let mut node = StartingProcess::start(&mut serve(directory.path(), 1));
        node.wait_for("opening shard");
        node.terminate();
        let (is_good, stdout, log) = node.end();
        assert!(is_good, "{log}");
        let is_stopped = log.contains("stopped before it was ready: a signal");
        assert!(is_stopped || stdout.starts_with("larder ready"), "{stdout} {log}");
        is_stopped && !log.contains("shard open ")
    });
    assert!(has_ended_it, "every recovery went on to its end");
    let node = NodeProcess::start(directory.path(), 1);
    node.connect().ask("get k7\r\n", found("k7", "x".repeat(100).as_bytes()));
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
