#![allow(clippy::disallowed_methods, reason = "tests have deadlines")]

use std::time::{Duration, Instant};

use super::client::{Client, TestNode, found, noise, set};
use super::process::NodeProcess;

#[test]
fn a_client_that_does_not_read_takes_bounded_memory_and_holds_nobody_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 2);
    let mut slow = node.connect();
    let value = noise(1, 100_000);
    slow.ask(set("large", &value), "STORED\r\n");
    slow.ask("get large\r\n", found("large", &value));
    let before = node.resident_bytes();
    let rounds = 2000;
    slow.send("get large\r\n".repeat(rounds));
    let mut other = node.connect();
    for key in 0..100 {
        other.ask(set(&format!("key{key}"), b"v"), "STORED\r\n");
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for a client that does not read");
    let answer = found("large", &value);
    for _ in 0..rounds {
        slow.expect(&answer);
    }
    node.stop("-TERM");
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let node = TestNode::start_with(1, |config| config.max_connections = 2);
    let mut first = node.connect();
    let mut second = node.connect();
    first.ask("mn\r\n", "MN\r\n");
    second.ask("mn\r\n", "MN\r\n");
    let mut third = node.connect();
    assert_eq!(third.rest(), b"ERROR Too many open connections\r\n");
    drop(second);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut again = node.connect();
        again.send("mn\r\nquit\r\n");
        if again.rest() == b"MN\r\n" {
            break;
        }
        assert!(Instant::now() < deadline, "the place of a closed connection is not given away");
    }
    node.stop();
}

#[test]
fn silent_connections_are_closed_when_asked_for() {
    let node = TestNode::start_with(1, |config| config.idle_timeout = 1);
    let mut client = node.connect();
    client.ask("mn\r\n", "MN\r\n");
    assert_eq!(client.rest(), b"");
    node.stop();
}

#[test]
fn a_client_that_ends_its_side_gets_all_answers() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    let (mut requests, mut answers) = (Vec::new(), Vec::new());
    for key in 0..300 {
        requests.extend(set(&format!("key{key}"), b"v"));
        requests.extend(format!("get key{key}\r\n").bytes());
        answers.extend(b"STORED\r\n");
        answers.extend(found(&format!("key{key}"), b"v"));
    }
    requests.extend(b"get incomplete");
    client.send(&requests);
    client.end();
    assert!(client.rest() == answers);
    node.stop();
}

#[test]
fn idle_connections_are_cheap() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 2);
    node.connect().ask(set("k", b"v"), "STORED\r\n");
    let connect = || -> Vec<Client> {
        let mut clients: Vec<Client> = (0..400).map(|_| node.connect()).collect();
        clients.iter_mut().for_each(|client| client.send("get k\r\n"));
        clients.iter_mut().for_each(|client| client.expect(found("k", b"v")));
        clients
    };
    // The first ones bring buffers into memory that all connections share.
    let busy = connect();
    let before = node.resident_bytes();
    let idle = connect();
    let each = node.resident_bytes().saturating_sub(before) / idle.len() as u64;
    drop(busy);
    assert!(each < 2048, "{each} bytes for an idle connection");
    node.stop("-TERM");
}

#[test]
fn a_pipeline_without_end_takes_bounded_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 2);
    let mut client = node.connect();
    let before = node.resident_bytes();
    let (count, chunk) = (300, 1000);
    let requests = "set k 0 0 1\r\nv\r\nset l 0 0 1\r\nw\r\n".repeat(chunk / 2);
    let answers = "STORED\r\n".repeat(chunk);
    std::thread::scope(|scope| {
        let mut writer = client.share();
        scope.spawn(move || (0..count).for_each(|_| writer.send(&requests)));
        (0..count).for_each(|_| client.expect(&answers));
    });
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    node.stop("-TERM");
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let node = TestNode::start(1);
    let mut client = node.connect();
    for byte in b"set key 0 0 5\r\nvalue\r\nget key nothing\r\n" {
        client.send([*byte]);
    }
    client.expect("STORED\r\n");
    client.expect(found("key", b"value"));
    node.stop();
}
