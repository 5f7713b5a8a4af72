//! The namespace `default`: its settings, as clients of both ports meet them.

use std::time::{Duration, Instant};

use larder_client::{
    ClientConnection, ClientError, ItemRef, NamespaceDurability, Put, SettingsChange,
};
use larder_protocol::native::NativeStatus;

use super::admin::{METRICS, ask, value_in};
use super::ask::run;
use super::client::{Client, TestNode, found, noise, set};

fn open(node: &TestNode) -> ClientConnection {
    let address = node.node.addresses().native.to_string();
    ClientConnection::open(&address, Duration::from_secs(20)).expect("the node accepts")
}

/// Seconds that an item has left, by memcached's port.
fn left(client: &mut Client, key: &str) -> i64 {
    client.send(format!("mg {key} t\r\n"));
    let line = client.lines_until("");
    let seconds = line.trim().strip_prefix("HD t").unwrap_or_else(|| panic!("{line:?}"));
    seconds.parse().expect("a number")
}

#[test]
fn memcacheds_clients_obey_the_settings_of_the_default_namespace_over_restarts() {
    let mut node = TestNode::start(2);
    let mut native = open(&node);
    let usual = native.namespace("default").expect("answered").expect("it is always there");
    assert_eq!((usual.number, usual.settings.ttl_default), (0, 0));
    let change = SettingsChange {
        ttl_default: Some(1000),
        ttl_max: Some(2000),
        value_bytes_max: Some(100),
        durability: Some(NamespaceDurability::Sync),
        ..SettingsChange::default()
    };
    let changed = native.set_namespace("default", change).expect("answered").expect("it is there");
    for _ in 0..2 {
        let mut native = open(&node);
        assert_eq!(native.namespace("default").expect("answered").as_ref(), Some(&changed));
        // Both cores' connections meet it, and records of both.
        for number in 0..8 {
            let mut client = node.connect();
            let key = format!("key{number}");
            client.ask(set(&key, b"v"), "STORED\r\n");
            assert!((900..=1000).contains(&left(&mut client, &key)));
            client.ask(format!("touch {key} 5000\r\n"), "TOUCHED\r\n");
            assert!((1900..=2000).contains(&left(&mut client, &key)));
            client.ask(format!("touch {key} 50\r\n"), "TOUCHED\r\n");
            assert!((1..=50).contains(&left(&mut client, &key)));
            client.ask(format!("ma counter{number} N0 J7 v\r\n"), "VA 1\r\n7\r\n");
            assert!((900..=1000).contains(&left(&mut client, &format!("counter{number}"))));
            client.ask(format!("gat -1 {key}\r\n"), found(&key, b"v"));
            client.ask(format!("get {key}\r\n"), "END\r\n");
            client.ask(format!("md counter{number}\r\n"), "HD\r\n");
            // What is too long leaves nothing behind that it was to replace.
            client.ask(set(&key, b"short"), "STORED\r\n");
            let too_large = "SERVER_ERROR object too large for cache\r\n";
            client.ask(set(&key, &[b'x'; 101]), too_large);
            client.ask(format!("get {key}\r\n"), "END\r\n");
            client.ask(set(&key, &[b'x'; 100]), "STORED\r\n");
            client.ask(format!("append {key} 0 0 1\r\ny\r\n"), too_large);
            client.ask(format!("get {key}\r\n"), found(&key, &[b'x'; 100]));
        }
        let key = ItemRef::of_record("native").expect("a key");
        native.put(key, &Put::value(b"v")).expect("stored");
        assert_ne!(native.get(key).expect("readable").expect("there").expiry, 0);
        let directory = node.stop();
        node = TestNode::start_in(directory, 2, |_| {});
    }
    node.stop();
}

#[test]
fn a_quota_of_the_default_namespace_holds_for_memcacheds_clients() {
    let node = TestNode::start(1);
    let mut native = open(&node);
    let change = SettingsChange { bytes_max: Some(1 << 20), ..SettingsChange::default() };
    native.set_namespace("default", change).expect("answered").expect("it is there");
    let mut client = node.connect();
    let value = noise(1, 10_000);
    client.ask(set("kept", b"v"), "STORED\r\n");
    let full = "SERVER_ERROR out of memory storing object\r\n";
    let mut fitting = 0;
    loop {
        client.send(set(&format!("key{fitting}"), &value));
        let told = client.lines_until("");
        if told == full {
            break;
        }
        assert_eq!(told, "STORED\r\n");
        fitting += 1;
        assert!(fitting < 200, "a quota is a quota");
    }
    assert!(fitting > 20, "only {fitting} values of 10,000 bytes fit");
    client.ask("get kept\r\n", found("kept", b"v"));
    client.ask(set("kept", &value), full);
    client.ask("get kept\r\n", "END\r\n");
    // A clear makes room at once.
    client.ask("flush_all\r\n", "OK\r\n");
    client.ask(set("kept", &value), "STORED\r\n");
    node.stop();
}

#[test]
fn the_default_namespace_is_set_by_the_command_line_and_cannot_be_dropped() {
    let node = TestNode::start(1);
    let told = |arguments: &[&str]| {
        let (code, stdout, stderr) = run(&node, arguments, b"");
        (code, String::from_utf8(stdout).expect("text"), stderr)
    };
    let set = told(&["ns", "set", "default", "--ttl", "1h", "--cache", "keys-only"]);
    assert_eq!(set.1, "    0  default  cache=keys-only  ttl=3600\n", "{}", set.2);
    let dropped = told(&["ns", "drop", "default"]);
    assert!(dropped.0 == Some(2) && dropped.2.contains("cannot be dropped"), "{}", dropped.2);
    let mut native = open(&node);
    match native.drop_namespace("default") {
        Err(ClientError::Refused { status, .. }) => {
            assert_eq!(status, Some(NativeStatus::NamespaceExists));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(native.create_namespace("default", SettingsChange::default()).expect("told"), None);
    node.stop();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test's own clock")]
fn cache_memlimit_makes_values_in_memory_fewer_and_more_again() {
    let node = TestNode::start(1);
    let mut client = node.connect();
    let value = noise(2, 1000);
    let fill = |client: &mut Client| {
        for batch in 0..60 {
            let mut lines = Vec::new();
            for number in 0..1000 {
                let line = format!("set key{} 0 0 1000 noreply\r\n", batch * 1000 + number);
                lines.extend_from_slice(line.as_bytes());
                lines.extend_from_slice(&value);
                lines.extend_from_slice(b"\r\n");
            }
            client.ask(lines, "");
        }
    };
    let sample = "larder_memory_bytes{part=\"value_cache\"}";
    let cached = || value_in(&ask(node.node.addresses().admin, METRICS), sample);
    fill(&mut client);
    let full = cached();
    assert!(full > 40_000_000, "{full} bytes are cached");
    client.ask("cache_memlimit 8\r\n", "OK\r\n");
    let begin = Instant::now();
    while cached() > full / 2 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} of {full} bytes", cached());
        std::thread::sleep(Duration::from_millis(50));
    }
    client.ask("get key59999\r\n", found("key59999", &value));
    client.ask("cache_memlimit 1000000 noreply\r\n", "");
    // What is stored goes to the cache's smaller queue at first, so it takes a few rounds.
    for _ in 0..10 {
        fill(&mut client);
        if cached() > full / 4 * 3 {
            break;
        }
    }
    assert!(cached() > full / 4 * 3, "{} of {full} bytes", cached());
    node.stop();
}

/// The deletion that a refused set brings stands directly behind it: a set that the client has sent
/// after it is not deleted.
#[test]
fn a_set_behind_one_that_a_full_record_refuses_stays() {
    let node = TestNode::start(2);
    let mut native = open(&node);
    let change = SettingsChange { record_bytes_max: Some(1000), ..SettingsChange::default() };
    native.set_namespace("default", change).expect("answered").expect("it is there");
    let mut client = node.connect();
    for round in 0..50 {
        let key = format!("key{round}");
        client.ask(set(&key, b"old"), "STORED\r\n");
        let mut both = set(&key, &[b'x'; 2000]);
        both.extend(set(&key, b"small"));
        client.send(both);
        client.expect("SERVER_ERROR out of memory storing object\r\nSTORED\r\n");
        client.ask(format!("get {key}\r\n"), found(&key, b"small"));
        // What it refuses leaves nothing of the old value.
        client.ask(set(&key, &[b'x'; 2000]), "SERVER_ERROR out of memory storing object\r\n");
        client.ask(format!("get {key}\r\n"), "END\r\n");
    }
    node.stop();
}
