//! Durability that single requests of the native port ask for.

use std::net::SocketAddr;
use std::time::Duration;

use larder_client::{
    Changes, ClientConnection, ItemRange, ItemRef, ItemsOf, Mutated, Put, RequestDurability, Stored,
};

use super::process::{NodeProcess, serve};

const PATIENCE: Duration = Duration::from_secs(20);

fn connect(node: &NodeProcess) -> ClientConnection {
    let address: SocketAddr = node.field("native").parse().expect("an address");
    ClientConnection::open(&address.to_string(), PATIENCE).expect("the node accepts")
}

fn record(number: usize) -> String {
    format!("record{number}")
}

fn put(client: &mut ClientConnection, record: &str, value: &[u8]) {
    let key = ItemRef::of_record(record).expect("a key");
    assert!(matches!(client.put(key, &Put::value(value)), Ok(Stored::Yes(_))));
}

fn value(client: &mut ClientConnection, record: &str) -> Option<Vec<u8>> {
    let key = ItemRef::of_record(record).expect("a key");
    client.get(key).expect("a reply").map(|item| item.value)
}

#[test]
fn what_was_asked_to_be_on_the_device_is_there_after_a_kill() {
    for mode in ["none", "interval:3600000"] {
        let directory = tempfile::tempdir().expect("a directory");
        let start = || {
            let mut command = serve(directory.path(), 2);
            NodeProcess::start_as(command.args(["--shards", "3", "--durability", mode]))
        };
        let node = start();
        let mut client = connect(&node);
        put(&mut client, "deleted", b"");
        client.put_items(0, "range", &[(b"a", b"1"), (b"b", b"2")]).expect("stored");
        client.set_durability(RequestDurability::Sync);
        for number in 0..20 {
            put(&mut client, &record(number), b"at once");
        }
        let mut changes = Changes::of_record(0, "together").expect("a record");
        changes
            .put("a", &Put::value(b"1"))
            .expect("good")
            .put("b", &Put::value(b"2"))
            .expect("good");
        assert!(matches!(client.mutate(&changes), Ok(Mutated::Yes(_))));
        assert!(client.delete(ItemRef::of_record("deleted").expect("a key")).expect("a reply"));
        client.delete_items(0, "range", ItemRange::Prefix(b"a")).expect("a reply");
        // A read asks for it too.
        client.set_durability(RequestDurability::None);
        put(&mut client, "read", b"before");
        client.set_durability(RequestDurability::Sync);
        assert_eq!(value(&mut client, "read").as_deref(), Some(&b"before"[..]));
        node.kill();

        let node = start();
        let mut client = connect(&node);
        for number in 0..20 {
            assert_eq!(value(&mut client, &record(number)).as_deref(), Some(&b"at once"[..]));
        }
        assert_eq!(value(&mut client, "deleted"), None);
        assert_eq!(value(&mut client, "read").as_deref(), Some(&b"before"[..]));
        for (record, expected) in [("together", &["a", "b"][..]), ("range", &["b"])] {
            let items = client.items(ItemsOf::record(0, record).expect("a record"));
            let names: Vec<String> = items
                .map(|item| String::from_utf8(item.expect("a page").item).expect("text"))
                .collect();
            assert_eq!(names, expected, "{record}");
        }
        node.kill();
    }
}

#[test]
fn every_request_works_with_every_durability_of_node_and_request() {
    for mode in ["sync", "none", "interval:20"] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = serve(directory.path(), 2);
        let node = NodeProcess::start_as(command.args(["--shards", "3", "--durability", mode]));
        let mut client = connect(&node);
        for (round, durability) in
            [RequestDurability::AsNode, RequestDurability::Sync, RequestDurability::None]
                .into_iter()
                .cycle()
                .take(30)
                .enumerate()
        {
            client.set_durability(durability);
            let name = record(round % 5);
            let key = ItemRef::of_record(&name).expect("a key");
            put(&mut client, &name, b"7");
            assert_eq!(client.increment(key, 3, None).expect("a number"), Some(10));
            assert!(client.touch(key, 0).expect("a reply"));
            assert_eq!(value(&mut client, &name).as_deref(), Some(&b"10"[..]));
            client.put_items(0, &name, &[(b"a", b"1"), (b"b", b"2")]).expect("stored");
            assert_eq!(client.items(ItemsOf::record(0, &name).expect("a record")).count(), 3);
            client.delete_items(0, &name, ItemRange::Prefix(b"a")).expect("a reply");
            let both = [key, ItemRef::new(0, name.as_bytes(), b"a").expect("a key")];
            let read = client.multi_get(&both).expect("a reply");
            assert!(matches!(read[..], [Ok(Some(_)), Ok(None)]), "{read:?}");
            assert!(client.delete(key).expect("a reply"));
        }
        node.kill();
    }
}
