use std::fmt::Write;

use larder::config::DurabilityMode;
use larder::launch::Launcher;

use super::client::{Client, TestNode, config, found, noise, set};

#[test]
fn data_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path(), 2);
    let value = |key: u64| noise(key, 10 + 7 * key as usize);
    for round in 0..3 {
        let node = Launcher::default().start(&config).expect("the node starts");
        let mut client = Client::connect(node.addresses().memcached.expect("a port"));
        for key in 0..200 {
            let name = format!("key{key}");
            if round > 0 {
                client.ask(format!("get {name}\r\n"), found(&name, &value(key + round - 1)));
            }
            client.ask(set(&name, &value(key + round)), "STORED\r\n");
        }
        node.stop();
        node.join().expect("a good end");
    }
}

#[test]
fn every_durability_mode_keeps_data_over_a_good_end() {
    for durability in [DurabilityMode::Interval(5), DurabilityMode::None] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut config = config(directory.path(), 1);
        config.durability = durability;
        let node = Launcher::default().start(&config).expect("the node starts");
        Client::connect(node.addresses().memcached.expect("a port"))
            .ask(set("k", b"v"), "STORED\r\n");
        node.stop();
        node.join().expect("a good end");
        let node = Launcher::default().start(&config).expect("the node starts");
        Client::connect(node.addresses().memcached.expect("a port"))
            .ask("get k\r\n", found("k", b"v"));
    }
}

#[test]
fn what_was_received_is_answered_before_the_end() {
    let node = TestNode::start(2);
    let mut client = node.connect();
    let (mut requests, mut answers) = (String::new(), String::new());
    for key in 0..500 {
        write!(requests, "set key{key} 0 0 1\r\nv\r\n").expect("a string");
        answers.push_str("STORED\r\n");
    }
    client.send(format!("{requests}mn\r\n"));
    client.expect(format!("{answers}MN\r\n"));
    client.send(&requests);
    client.expect("STORED\r\n");
    node.stop();
    let rest = client.rest();
    assert!(rest.len().is_multiple_of("STORED\r\n".len()) && answers.as_bytes().starts_with(&rest));
}

#[test]
fn a_second_node_on_the_directory_is_refused() {
    let node = TestNode::start(1);
    let started = Launcher::default().start(&config(node.directory.path(), 1));
    let error = started.expect_err("it is in use");
    assert!(error.to_string().contains("another larder"), "{error}");
    node.stop();
}

#[test]
fn another_number_of_shards_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = config(directory.path(), 1);
    config.shards = Some(2);
    drop(Launcher::default().start(&config).expect("the node starts"));
    config.shards = Some(3);
    let error = Launcher::default().start(&config).expect_err("it has two").to_string();
    assert!(error.contains("has 2 shards"), "{error}");
    config.shards = None;
    assert_eq!(Launcher::default().start(&config).expect("as it is").addresses().shards, 2);
}

#[test]
fn a_client_may_stop_the_node_if_that_is_enabled() {
    let node = TestNode::start_with(2, |config| config.enable_shutdown = true);
    let mut client = node.connect();
    client.ask(set("k", b"v"), "STORED\r\n");
    client.ask("shutdown now\r\n", "CLIENT_ERROR invalid shutdown mode\r\n");
    client.send("shutdown\r\n");
    node.node.join().expect("a good end");
    assert_eq!(client.rest(), b"");
}

#[test]
fn each_core_has_a_port_of_its_own_if_asked_for() {
    // Ports below those that the kernel gives out by itself.
    let base = (20_000..30_000).step_by(37).find(|&base| {
        [base, base + 1]
            .iter()
            .all(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
    });
    let base: u16 = base.expect("two free ports");
    let node = TestNode::start_with(2, |config| config.core_ports = Some(base));
    for core in 0..2 {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], base + core));
        let mut client = Client::connect(address);
        client.ask(set("k", b"v"), "STORED\r\n");
        client.send("stats conns\r\n");
        let text = client.lines_until("END");
        let own = text.lines().find(|line| line.ends_with(":state conn_parse_cmd"));
        let number = own.and_then(|line| line.strip_prefix("STAT ")?.split(':').next());
        let number: u16 = number.and_then(|digits| digits.parse().ok()).expect("its number");
        assert_eq!(number % 2, core, "the core that serves it: {text}");
        client.send("quit\r\n");
        client.rest();
    }
    node.stop();
}
