use std::time::{Duration, Instant};

use super::client::{Client, TestNode, found, noise, set};

fn resident_bytes() -> u64 {
    larder::process::usage().resident_bytes
}

#[test]
fn a_client_that_does_not_read_takes_bounded_memory_and_holds_nobody_up() {
    let node = TestNode::start(2);
    let mut slow = node.connect();
    let value = noise(1, 100_000);
    slow.ask(set("large", &value), "STORED\r\n");
    slow.ask("get large\r\n", found("large", &value));
    let before = resident_bytes();
    let rounds = 2000;
    slow.send("get large\r\n".repeat(rounds));
    let mut other = node.connect();
    for key in 0..100 {
        other.ask(set(&format!("key{key}"), b"v"), "STORED\r\n");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for a client that does not read");
    let answer = found("large", &value);
    for _ in 0..rounds {
        slow.expect(&answer);
    }
    node.stop();
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
fn thousands_of_idle_connections_are_cheap() {
    let node = TestNode::start(2);
    let before = resident_bytes();
    let mut idle: Vec<Client> = (0..400).map(|_| node.connect()).collect();
    for client in &mut idle {
        client.ask("mn\r\n", "MN\r\n");
    }
    // The other ends are in this process too.
    let each = resident_bytes().saturating_sub(before) / idle.len() as u64;
    assert!(each < 16 << 10, "{each} bytes for an idle connection");
    node.stop();
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
