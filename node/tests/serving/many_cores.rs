use std::fmt::Write;

use super::client::{TestNode, found, noise, set};

#[test]
fn keys_of_all_shards_are_reached_from_every_core() {
    let node = TestNode::start(2);
    assert_eq!(node.node.addresses().shards, 2);
    let mut clients: Vec<_> = (0..8).map(|_| node.connect()).collect();
    for key in 0..200 {
        let name = format!("key{key}");
        let value = noise(key, 50 + 40 * key as usize);
        clients[key as usize % 8].ask(set(&name, &value), "STORED\r\n");
        clients[(key as usize + 3) % 8].ask(format!("get {name}\r\n"), found(&name, &value));
    }
    node.stop();
}

#[test]
fn a_pipeline_over_both_cores_is_answered_in_order() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    let (mut requests, mut answers) = (String::new(), String::new());
    for round in 0..5000 {
        let key = format!("key{}", round % 97);
        write!(requests, "set {key} 0 0 6\r\n{round:06}\r\nget {key}\r\nincr {key} 1\r\n")
            .expect("a string");
        write!(answers, "STORED\r\nVALUE {key} 0 6\r\n{round:06}\r\nEND\r\n{}\r\n", round + 1)
            .expect("a string");
    }
    client.send(&requests);
    client.expect(&answers);
    node.stop();
}

#[test]
fn one_line_with_2000_keys() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    let (mut sets, mut line, mut answer) = (String::new(), "get".to_owned(), String::new());
    for key in 0..2000 {
        write!(sets, "set key{key} 0 0 4 noreply\r\n{key:04}\r\n").expect("a string");
        write!(line, " key{key} none{key}").expect("a string");
        write!(answer, "VALUE key{key} 0 4\r\n{key:04}\r\n").expect("a string");
    }
    client.ask(sets, "");
    client.ask(format!("{line}\r\n"), format!("{answer}END\r\n"));
    node.stop();
}

#[test]
fn flush_all_reaches_every_shard_and_keeps_its_place() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    for key in 0..20 {
        client.ask(set(&format!("key{key}"), b"v"), "STORED\r\n");
    }
    client.ask(
        "set key0 0 0 1\r\nw\r\nflush_all\r\nget key0\r\nset key1 0 0 1\r\nx\r\nget key1\r\n",
        "STORED\r\nOK\r\nEND\r\nSTORED\r\nVALUE key1 0 1\r\nx\r\nEND\r\n",
    );
    for key in 2..20 {
        client.ask(format!("get key{key}\r\n"), "END\r\n");
    }
    client.ask("flush_all 1000\r\n", "OK\r\n");
    client.ask("get key1\r\n", found("key1", b"x"));
    client.ask("flush_all noreply\r\n", "");
    client.ask("get key1\r\n", "END\r\n");
    let directory = node.stop();
    drop(directory);
    let node = TestNode::start_with(1, |config| config.disable_flush_all = true);
    node.connect().ask("flush_all\r\n", "CLIENT_ERROR flush_all not allowed\r\n");
}

#[test]
fn values_of_all_sizes_travel_between_cores() {
    let node = TestNode::start_with(2, |config| {
        config.max_item_size = larder::config::Size(8 << 20);
        config.memory = larder::config::Size(256 << 20);
    });
    let mut client = node.connect();
    for (seed, len) in [0, 1, 4095, 4096, 4097, 70_000, 900 << 10, 6 << 20].into_iter().enumerate()
    {
        for half in 0..3 {
            let key = format!("key{seed}-{half}");
            let value = noise(seed as u64 + 10 * half, len);
            client.ask(set(&key, &value), "STORED\r\n");
            client.ask(format!("get {key}\r\n"), found(&key, &value));
        }
    }
    let too_large = set("key1-0", &noise(1, 8 << 20));
    client.ask(too_large, "SERVER_ERROR object too large for cache\r\n");
    client.ask("get key1-0\r\n", "END\r\n");
    node.stop();
}

#[test]
fn more_shards_than_cores() {
    let node = TestNode::start_with(2, |config| config.shards = Some(5));
    assert_eq!(node.node.addresses().shards, 5);
    let mut client = node.connect();
    for key in 0..100 {
        client.ask(set(&format!("key{key}"), b"v"), "STORED\r\n");
    }
    for key in 0..100 {
        let name = format!("key{key}");
        client.ask(format!("delete {name}\r\nget {name}\r\n"), "DELETED\r\nEND\r\n");
    }
    node.stop();
}
