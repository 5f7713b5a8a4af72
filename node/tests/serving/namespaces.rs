//! Namespaces of a running node, through its native port and its command line.

use std::time::Duration;

use larder::launch::Launcher;
use larder_client::{ClientConnection, ClientError, ItemRef, Put, SettingsChange, Stored};
use larder_protocol::native::NativeStatus;
use serde_json::Value;

use super::ask::run;
use super::client::{TestNode, config, noise};

fn open(node: &TestNode) -> ClientConnection {
    let address = node.node.addresses().native.to_string();
    ClientConnection::open(&address, Duration::from_secs(20)).expect("the node accepts")
}

fn key(namespace: u32, record: &str) -> ItemRef<'_> {
    ItemRef::new(namespace, record.as_bytes(), b"").expect("a key")
}

fn status<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Option<NativeStatus> {
    match result {
        Err(ClientError::Refused { status, .. }) => status,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[test]
fn namespaces_have_items_of_their_own_until_they_are_dropped() {
    let node = TestNode::start(2);
    let (mut one, mut other) = (open(&node), open(&node));
    let usual = SettingsChange::default();
    let users = one.create_namespace("users", usual).expect("answered").expect("it is new");
    let photos = other.create_namespace("photos", usual).expect("answered").expect("it is new");
    assert_ne!(users.number, photos.number);
    assert_eq!(one.create_namespace("users", usual).expect("answered"), None);
    // Records go to both cores, whoever is asked.
    for number in 0..200 {
        let record = format!("record-{number}");
        for (namespace, value) in [(0, "default"), (users.number, "user"), (photos.number, "photo")]
        {
            let client = if number % 2 == 0 { &mut one } else { &mut other };
            let put = Put::value(value.as_bytes());
            let stored = client.put(key(namespace, &record), &put).expect("it is there");
            assert!(matches!(stored, Stored::Yes(_)));
        }
    }
    let names = |client: &mut ClientConnection| {
        let all = client.namespaces().expect("answered");
        all.into_iter().map(|namespace| namespace.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut other), ["default", "users", "photos"]);
    assert!(one.drop_namespace("users").expect("answered"));
    assert!(!other.drop_namespace("users").expect("answered"), "it is gone for all");
    assert_eq!(names(&mut other), ["default", "photos"]);
    for client in [&mut one, &mut other] {
        for number in 0..200 {
            let record = format!("record-{number}");
            let unknown = Some(NativeStatus::UnknownNamespace);
            assert_eq!(status(client.get(key(users.number, &record))), unknown);
            assert_eq!(status(client.put(key(users.number, &record), &Put::value(b"v"))), unknown);
            let found = client.get(key(photos.number, &record)).expect("readable").expect("there");
            assert_eq!(found.value, b"photo");
        }
    }
    let again = one.create_namespace("users", usual).expect("answered").expect("it is new");
    assert!(again.number > photos.number, "no number is used again");
    assert_eq!(one.get(key(again.number, "record-1")).expect("readable"), None);
    assert_eq!(one.scan(again.number, Default::default()).count(), 0);
    node.stop();
}

#[test]
fn namespaces_and_their_settings_outlast_the_node() {
    let node = TestNode::start(2);
    let mut client = open(&node);
    let settings = SettingsChange { ttl_max: Some(1000), ..SettingsChange::default() };
    let users = client.create_namespace("users", settings).expect("answered").expect("new");
    client.create_namespace("gone", settings).expect("answered").expect("new");
    client.put(key(users.number, "r"), &Put::value(b"v")).expect("stored");
    let more = SettingsChange { value_bytes_max: Some(10), ..SettingsChange::default() };
    let changed = client.set_namespace("users", more).expect("answered").expect("it is there");
    assert_eq!((changed.settings.ttl_max, changed.settings.value_bytes_max), (1000, 10));
    assert!(client.drop_namespace("gone").expect("answered"));
    let directory = node.stop();
    let config = config(directory.path(), 2);
    let node = Launcher::default().start(&config).expect("the node starts");
    let node = TestNode { node, directory };
    let mut client = open(&node);
    let found = client.namespace("users").expect("answered");
    assert_eq!(found, Some(changed));
    assert_eq!(client.namespace("gone").expect("answered"), None);
    let item = client.get(key(users.number, "r")).expect("readable").expect("it is there");
    assert_eq!(item.value, b"v");
    let next = client.create_namespace("next", settings).expect("answered").expect("new");
    assert_eq!(next.number, users.number + 2, "the number of what is gone is not used again");
    node.stop();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test's own clock")]
fn items_live_and_are_as_long_as_their_namespace_allows() {
    let node = TestNode::start(1);
    let mut client = open(&node);
    let settings = SettingsChange {
        ttl_default: Some(100),
        ttl_max: Some(1000),
        value_bytes_max: Some(10),
        ..SettingsChange::default()
    };
    let short = client.create_namespace("short", settings).expect("answered").expect("new").number;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("a clock").as_secs();
    let mut lives = |ttl: u32| {
        client.put(key(short, "r"), &Put { ttl, ..Put::value(b"v") }).expect("stored");
        let item = client.get(key(short, "r")).expect("readable").expect("it is there");
        u64::from(item.expiry) - now
    };
    for (ttl, expected) in [(0, 100), (50, 50), (5000, 1000)] {
        let found = lives(ttl);
        assert!((expected..expected + 30).contains(&found), "{ttl}: {found}");
    }
    let long = client.put(key(short, "r"), &Put::value(b"12345678901"));
    assert_eq!(status(long), Some(NativeStatus::TooLarge));
    assert_eq!(client.get(key(short, "r")).expect("readable").expect("there").value, b"v");
    client.put(key(0, "r"), &Put::value(b"12345678901")).expect("another namespace");
    node.stop();
}

#[test]
fn a_quota_refuses_what_is_more() {
    let node = TestNode::start(2);
    let mut client = open(&node);
    let settings = SettingsChange { bytes_max: Some(1 << 20), ..SettingsChange::default() };
    let small = client.create_namespace("small", settings).expect("answered").expect("new").number;
    let value = noise(1, 10_000);
    let refused = (0..1000).find_map(|number| {
        let record = format!("record-{number}");
        let stored = client.put(key(small, &record), &Put::value(&value));
        stored.is_err().then(|| (number, status(stored)))
    });
    let (number, status) = refused.expect("a quota is a quota");
    assert_eq!(status, Some(NativeStatus::OverQuota));
    assert!((20..110).contains(&number), "{number} values of 10,000 bytes");
    assert!(client.get(key(small, "record-1")).expect("readable").is_some());
    client.put(key(0, "r"), &Put::value(&value)).expect("the default namespace has none");
    node.stop();
}

#[test]
fn a_record_has_no_more_than_its_namespace_allows() {
    let node = TestNode::start(2);
    let mut client = open(&node);
    let settings = SettingsChange { record_bytes_max: Some(1000), ..SettingsChange::default() };
    let made = client.create_namespace("slim", settings).expect("answered").expect("new");
    assert_eq!(made.settings.record_bytes_max, 1000);
    let item =
        |number: &'static str| ItemRef::new(made.number, b"r", number.as_bytes()).expect("a key");
    for number in ["1", "2", "3"] {
        client.put(item(number), &Put::value(&[1; 300])).expect("there is room");
    }
    let refused = client.put(item("4"), &Put::value(&[1; 300]));
    assert_eq!(status(refused), Some(NativeStatus::RecordFull));
    client.put(item("3"), &Put::value(&[2; 300])).expect("it replaces one as long");
    client.put(key(made.number, "another"), &Put::value(&[1; 900])).expect("another record");
    assert!(client.delete(item("1")).expect("answered"));
    client.put(item("4"), &Put::value(&[1; 300])).expect("there is room again");
    client.put(key(0, "r"), &Put::value(&[1; 9000])).expect("the default namespace has no limit");
    node.stop();
}

#[test]
fn the_command_line_makes_changes_lists_and_drops_them() {
    let node = TestNode::start(1);
    let told = |arguments: &[&str]| {
        let (code, stdout, stderr) = run(&node, arguments, b"");
        (code, String::from_utf8(stdout).expect("text"), stderr)
    };
    let code = |arguments: &[&str]| told(arguments).0;
    assert_eq!(told(&["ns", "create", "users", "--ttl", "1h"]).1, "1\n");
    let (exit, _, stderr) = told(&["ns", "create", "users"]);
    assert!(exit == Some(1) && stderr.contains("there already"), "{stderr}");
    assert_eq!(code(&["set", "r", "--value", "v", "--namespace", "users"]), Some(0));
    assert_eq!(told(&["get", "r", "--namespace", "1"]).1, "v");
    assert_eq!(code(&["get", "r"]), Some(1), "that is another namespace");
    assert_eq!(told(&["scan", "--namespace", "users"]).1, "r\t\tv\n");
    assert_eq!(told(&["items", "r", "--namespace", "users"]).1, "\tv\n");
    let (exit, _, stderr) = told(&["get", "r", "--namespace", "nobody"]);
    assert!(exit == Some(2) && stderr.contains("larder ns list"), "{stderr}");
    assert_eq!(
        told(&["ns", "set", "users", "--quota", "1G"]).1,
        "    1  users  quota=1073741824  ttl=3600\n"
    );
    assert_eq!(code(&["ns", "set", "nobody", "--quota", "1G"]), Some(1));
    assert_eq!(told(&["ns", "list"]).1.lines().count(), 2);
    let (_, text, _) = told(&["ns", "list", "--json"]);
    let users: Value = serde_json::from_str(text.lines().nth(1).expect("two")).expect("JSON");
    assert_eq!((&users["name"], &users["settings"]["ttl"]), (&"users".into(), &3600.into()));
    for wrong in [&["ns", "create", "a b"][..], &["ns", "drop", "default"], &["ns", "create", "7"]]
    {
        assert_eq!(code(wrong), Some(2), "{wrong:?}");
    }
    assert_eq!(code(&["ns", "drop", "users"]), Some(0));
    assert_eq!(code(&["ns", "drop", "users"]), Some(1));
    assert_eq!(code(&["get", "r", "--namespace", "1"]), Some(2));
    node.stop();
}
