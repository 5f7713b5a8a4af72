//! Changes with an idempotency token, through a running node.

use std::time::Duration;

use larder::launch::Launcher;
use larder_client::{
    ChangeName, Changes, ClientConnection, ClientError, ItemRef, Mutated, Put, Stored, When,
};
use larder_protocol::native::{ItemRange, NativeStatus};

use super::client::{TestNode, config};

fn open(node: &TestNode) -> ClientConnection {
    let address = node.node.addresses().native.to_string();
    ClientConnection::open(&address, Duration::from_secs(20)).expect("the node accepts")
}

fn key(record: &str) -> ItemRef<'_> {
    ItemRef::of_record(record).expect("a key")
}

#[test]
fn a_change_under_one_name_is_made_once_over_connections_and_restarts() {
    let node = TestNode::start(2);
    let (mut one, mut other) = (open(&node), open(&node));
    let records: Vec<String> = (0..20).map(|number| format!("record-{number}")).collect();
    let names: Vec<ChangeName> = records.iter().map(|_| ChangeName::new()).collect();
    let increment = |client: &mut ClientConnection, at: usize| {
        let told = client.once(names[at]).increment(key(&records[at]), 5, Some(100));
        told.expect("it is a number")
    };
    let first: Vec<_> = (0..20).map(|at| increment(&mut one, at)).collect();
    assert!(first.iter().all(|number| *number == Some(100)));
    one.increment(key("record-3"), 1, None).expect("counted");
    for (at, first) in first.iter().enumerate() {
        assert_eq!(increment(&mut other, at), *first, "record {at}");
    }
    assert_eq!(other.get(key("record-3")).expect("readable").expect("there").value, b"101");
    let (put, gone, list) = (ChangeName::new(), ChangeName::new(), ChangeName::new());
    let absent = Put { when: When::Absent, ..Put::value(b"v") };
    let stored = one.once(put).put(key("k"), &absent).expect("stored");
    assert!(matches!(stored, Stored::Yes(_)));
    assert!(one.once(gone).delete(key("k")).expect("deleted"));
    let mut changes = Changes::of_record(0, "list").expect("a record");
    changes.increment("n", 1, Some(7)).expect("a change").delete("x").expect("a change");
    let made = one.once(list).mutate(&changes).expect("made");
    assert!(matches!(&made, Mutated::Yes(changed) if changed[0].number == 7), "{made:?}");
    let (touched, cleared) = (ChangeName::new(), ChangeName::new());
    one.put(key("t"), &Put::value(b"v")).expect("stored");
    assert!(one.once(touched).touch(key("t"), 1000).expect("touched"));
    one.touch(key("t"), 0).expect("touched");
    for item in [&b"a"[..], b"b"] {
        let key = ItemRef::new(0, b"range", item).expect("a key");
        one.put(key, &Put::value(b"v")).expect("stored");
        one.once(cleared).delete_items(0, "range", ItemRange::Prefix(b"")).expect("deleted");
        let is_there = one.get(key).expect("readable").is_some();
        assert_eq!(is_there, item == b"b", "the second is stored behind the deletion");
    }
    let directory = node.stop();
    let config = config(directory.path(), 2);
    let node = Launcher::default().start(&config).expect("the node starts");
    let node = TestNode { node, directory };
    let mut client = open(&node);
    for (at, first) in first.iter().enumerate() {
        assert_eq!(increment(&mut client, at), *first, "record {at}");
    }
    assert_eq!(client.once(put).put(key("k"), &absent).expect("told"), stored);
    assert!(client.once(gone).delete(key("k")).expect("told"), "as the first time");
    assert_eq!(client.get(key("k")).expect("readable"), None, "nothing was stored again");
    assert_eq!(client.once(list).mutate(&changes).expect("told"), made);
    assert!(client.once(touched).touch(key("t"), 1000).expect("told"));
    let kept = client.get(key("t")).expect("readable").expect("there");
    assert_eq!(kept.expiry, 0, "the later touch stands");
    client.once(cleared).delete_items(0, "range", ItemRange::Prefix(b"")).expect("told");
    let behind = ItemRef::new(0, b"range", b"b").expect("a key");
    assert!(client.get(behind).expect("readable").is_some());
    let other = client.once(cleared).delete_items(0, "range", ItemRange::Prefix(b"b"));
    let is_refused = |error: &ClientError| {
        matches!(error, ClientError::Refused { status: Some(NativeStatus::TokenRefused), .. })
    };
    assert!(other.as_ref().is_err_and(is_refused), "{other:?}");
    let other = client.once(touched).touch(key("t"), 2000);
    assert!(other.as_ref().is_err_and(is_refused), "{other:?}");
    node.stop();
}

#[test]
fn a_name_is_good_for_one_change_and_what_was_refused_is_decided_anew() {
    let node = TestNode::start(1);
    let mut client = open(&node);
    let name = ChangeName::new();
    let stored = client.once(name).put(key("k"), &Put::value(b"1")).expect("stored");
    assert!(matches!(stored, Stored::Yes(_)));
    let refused = |result: Result<Stored, ClientError>| match result {
        Err(ClientError::Refused { status, .. }) => status,
        other => panic!("{other:?}"),
    };
    let other = client.once(name).put(key("k"), &Put::value(b"2"));
    assert_eq!(refused(other), Some(NativeStatus::TokenRefused));
    assert_eq!(client.get(key("k")).expect("readable").expect("there").value, b"1");
    let elsewhere = client.once(name).put(key("k2"), &Put::value(b"1"));
    assert!(matches!(elsewhere, Ok(Stored::Yes(_))), "on another record it is another change");
    let (name, present) = (ChangeName::new(), Put { when: When::Present, ..Put::value(b"3") });
    assert_eq!(client.once(name).put(key("none"), &present).expect("told"), Stored::Absent);
    client.put(key("none"), &Put::value(b"0")).expect("stored");
    let now = client.once(name).put(key("none"), &present).expect("told");
    assert!(matches!(now, Stored::Yes(_)), "{now:?}");
    assert!(!client.once(ChangeName::new()).delete(key("nothing")).expect("told"));
    assert_eq!(client.get(key("none")).expect("readable").expect("there").value, b"3");
    node.stop();
}
