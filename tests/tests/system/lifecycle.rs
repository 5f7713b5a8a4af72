//! Starting, stopping, and what holds across both.

use larder_tests::node::{Node, NodeOptions};
use larder_tests::process;
use larder_tests::scratch::Scratch;
use std::time::Duration;

#[test]
fn what_was_stored_is_there_after_a_stop() {
    for shards in [1, 2] {
        let scratch = Scratch::new("stop");
        let options = NodeOptions::new(scratch.path().join("data")).shards(shards);
        let node = Node::start(&options);
        let mut client = node.client();
        for number in 0..100 {
            let value = format!("{number:02000}");
            assert_eq!(client.set(&format!("key-{number}"), value.as_bytes()).unwrap(), "STORED");
        }
        assert_eq!(client.ask(b"delete key-7\r\n").unwrap(), "DELETED");
        assert_eq!(client.ask(b"set flags 4294967295 0 1\r\nx\r\n").unwrap(), "STORED");
        node.stop();

        let node = Node::start(&options);
        let mut client = node.client();
        for number in 0..100 {
            let value = client.get(&format!("key-{number}")).unwrap().map(|item| item.value);
            let expected = (number != 7).then(|| format!("{number:02000}").into_bytes());
            assert!(value == expected, "key-{number} of {shards} shards is wrong: {value:?}");
        }
        assert_eq!(client.get("flags").unwrap().expect("an item").flags, u32::MAX);
        node.stop();
    }
}

#[test]
fn what_was_received_is_answered_before_the_end() {
    let scratch = Scratch::new("drain");
    let node = Node::start(&NodeOptions::new(scratch.path()));
    let mut client = node.client();
    // The first answer shows that the server has received the rest of its segment too.
    client.send(b"mn\r\nset a 0 0 1\r\nx\r\nget a\r\n").unwrap();
    assert_eq!(client.line().unwrap(), "MN");
    node.terminate();
    let rest = String::from_utf8(client.rest().unwrap()).expect("text");
    assert_eq!(rest, "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    node.wait_stopped();
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let scratch = Scratch::new("lock");
    let options = NodeOptions::new(scratch.path());
    let node = Node::start(&options);
    let refusal = Node::try_start(&options).expect_err("the directory is taken");
    assert!(refusal.contains("the server ended"), "{refusal}");
    assert!(refusal.contains(&*scratch.path().to_string_lossy()), "no path in: {refusal}");
    assert_eq!(node.client().set("a", b"x").unwrap(), "STORED");
    node.stop();
}

#[test]
fn a_client_stops_the_server_only_where_that_is_allowed() {
    let scratch = Scratch::new("shutdown");
    let node = Node::start(&NodeOptions::new(scratch.path()));
    let refused = node.client().exchange(b"shutdown\r\nflush_all\r\n").unwrap();
    assert_eq!(refused, "SERVER_ERROR: shutdown not enabled\r\nOK\r\n");
    node.stop();

    let options = NodeOptions::new(scratch.path()).with("--enable-shutdown");
    let node = Node::start(&options.with("--disable-flush-all"));
    let mut client = node.client();
    let answers = client.exchange(b"shutdown now\r\nflush_all\r\n").unwrap();
    let refused = "CLIENT_ERROR invalid shutdown mode\r\nCLIENT_ERROR flush_all not allowed\r\n";
    assert_eq!(answers, refused);
    client.send(b"shutdown\r\n").unwrap();
    assert_eq!(client.rest().unwrap(), b"");
    node.wait_stopped();
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let scratch = Scratch::new("limit");
    let options = NodeOptions::new(scratch.path()).with("--max-connections").with("4");
    let node = Node::start(&options);
    let mut clients: Vec<_> = (0..4).map(|_| node.client()).collect();
    for client in &mut clients {
        assert_eq!(client.exchange(b"").unwrap(), "");
    }
    let mut refused = node.client();
    assert_eq!(refused.rest().unwrap(), b"ERROR Too many open connections\r\n");
    drop(clients.pop());
    let is_served = process::wait_until(Duration::from_secs(60), || {
        node.client().ask(b"mn\r\n").is_ok_and(|answer| answer == "MN")
    });
    assert!(is_served, "the place of a connection that has ended stays taken");
    assert_eq!(clients[0].exchange(b"").unwrap(), "");
    node.stop();
}
