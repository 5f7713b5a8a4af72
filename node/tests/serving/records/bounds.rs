//! What lists of changes may take.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};

use larder_client::{Changes, ClientConnection, ItemRange, ItemRef, Put, When};
use larder_protocol::native::{
    DeleteItems, MutateRecord, NativeRequest, NativeStatus, put_request,
};

use super::super::client::{TestNode, noise};
use super::super::native::{NativeClient, SET, key, put};
use super::super::pages::{of_record, page};
use super::super::process::NodeProcess;
use super::{PATIENCE, added, count, item_key, mutate, names_of, parsed, when};

#[test]
fn a_few_bytes_do_not_have_many_large_values_rewritten_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 1);
    let mut client =
        ClientConnection::open(node.field("native"), PATIENCE).expect("the node accepts");
    let names: Vec<String> = (0..300).map(|number| format!("{number:03}")).collect();
    let large = noise(1, 1_000_000);
    for name in &names {
        let key = ItemRef::new(0, b"r", name.as_bytes()).expect("a key");
        client.put(key, &Put::value(&large)).expect("stored");
    }
    let before = node.resident_bytes();
    for is_number in [false, true] {
        let mut changes = Changes::of_record(0, "r").expect("a record");
        for name in &names {
            match is_number {
                false => added(changes.put(name, &when(When::Append, b"!"))),
                true => added(changes.increment(name, 1, None)),
            }
        }
        let error = client.mutate(&changes).expect_err("300 MB in one piece");
        assert!(error.to_string().contains("change 1, counted from 0"), "{error}");
    }
    let grown = node.peak_resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for two small requests");
    node.stop("-TERM");
}

#[test]
fn changes_whose_deadline_is_past_are_not_begun() {
    let node = TestNode::start(1);
    let mut client = NativeClient::connect(node.node.addresses().native);
    let records: Vec<String> = (0..64).map(|number| format!("record{number}")).collect();
    for record in &records {
        assert_eq!(client.status(&put(key(record), SET, b"v")), NativeStatus::Ok);
    }
    // Each takes its time; those behind wait in the input for longer than they may.
    let large = noise(1, 900_000);
    let body =
        MutateRecord::body(0, b"counters", &[count("counters", "a"), count("counters", "b")]);
    let mut bytes = Vec::new();
    for (id, record) in (0..).zip(&records) {
        put_request(&mut bytes, id, 0, false, &put(key("large"), SET, &large));
        put_request(&mut bytes, 1000 + id, 1, false, &mutate(&body));
        let (namespace, record, range) = (0, record.as_bytes(), ItemRange::Prefix(b""));
        let delete = NativeRequest::DeleteItems(DeleteItems { namespace, record, range });
        put_request(&mut bytes, 2000 + id, 1, false, &delete);
    }
    let mut writer = client.stream.try_clone().expect("a descriptor");
    let sender = std::thread::spawn(move || writer.write_all(&bytes).expect("the node reads"));
    let (mut counted, mut deleted) = (0, Vec::new());
    for id in 0..64 {
        assert_eq!(client.wait(id).status, NativeStatus::Ok);
        match client.wait(1000 + id).status {
            NativeStatus::Ok => counted += 1,
            status => assert_eq!(status, NativeStatus::DeadlinePassed),
        }
        deleted.push(client.wait(2000 + id).status);
    }
    sender.join().expect("it sends");
    assert!(deleted.contains(&NativeStatus::DeadlinePassed), "none was late");
    for (record, status) in records.iter().zip(deleted) {
        let shown = page(&client.ask(&NativeRequest::GetItems(of_record(record)))).0;
        let expected =
            if shown.is_empty() { NativeStatus::Ok } else { NativeStatus::DeadlinePassed };
        assert_eq!(status, expected, "{record}");
    }
    let shown = page(&client.ask(&NativeRequest::GetItems(of_record("counters")))).0;
    let numbers: Vec<u64> =
        shown.iter().map(|(.., value)| parsed(value.as_ref().expect("a value"))).collect();
    assert!(numbers.iter().all(|number| *number == counted), "{numbers:?} of {counted}");
    node.stop();
}

#[test]
fn clients_that_send_large_lists_and_do_not_read_are_held_to_their_share() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 2);
    let address: SocketAddr = node.field("native").parse().expect("an address");
    let names: Vec<String> = (0..1024).map(|number| format!("{number:04}")).collect();
    let values = noise(1, 1000);
    let lists = |record: &str| {
        let puts: Vec<_> =
            names.iter().map(|name| put(item_key(record, name), SET, &values)).collect();
        let counts: Vec<_> = names.iter().map(|name| count("counted", name)).collect();
        let large = MutateRecord::body(0, record.as_bytes(), &puts);
        [large, MutateRecord::body(0, b"counted", &counts)]
    };
    let before = node.resident_bytes();
    let greedy: Vec<NativeClient> = (0..8).map(|_| NativeClient::connect(address)).collect();
    std::thread::scope(|scope| {
        for (number, client) in greedy.iter().enumerate() {
            let mut stream = client.stream.try_clone().expect("a descriptor");
            let lists = lists(&format!("record{}", number % 4));
            scope.spawn(move || {
                // Until the node reads no more, and the test shuts the connection down.
                for id in 0..200 {
                    let mut bytes = Vec::new();
                    let list = &lists[usize::from(id % 4 > 0)];
                    put_request(&mut bytes, id, 0, false, &mutate(list));
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
            });
        }
        let mut polite = ClientConnection::open(&address.to_string(), PATIENCE).expect("accepted");
        for number in 0..100 {
            let record = format!("polite{number}");
            let both: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"b", b"2")];
            polite.put_items(0, &record, &both).expect("stored");
            polite.delete_items(0, &record, ItemRange::Prefix(b"a")).expect("deleted");
            assert_eq!(names_of(&mut polite, &record), ["b"]);
        }
        for client in &greedy {
            client.stream.shutdown(Shutdown::Both).expect("open");
        }
    });
    let grown = node.peak_resident_bytes().saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes for clients that do not read");
    node.stop("-TERM");
}
