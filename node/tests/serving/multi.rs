//! Reads of several items with one request.

#![allow(clippy::disallowed_methods, reason = "the clients' threads are not the node's")]

use std::io::Write;
use std::time::{Duration, Instant};

use larder_client::{ClientConnection, ItemRef, Put};
use larder_protocol::native::reply::{NativeReply, ReplyHead};
use larder_protocol::native::{
    GetItem, ItemKey, MultiGet, NativeRequest, NativeStatus, put_request,
};

use super::client::{TestNode, noise};
use super::native::{Answered, NativeClient, SET, put};
use super::process::NodeProcess;
use super::records::connect;

fn record(number: usize) -> String {
    format!("record{number}")
}

/// The values of those that are there: in the index, in the log, and some of no bytes.
fn value(number: usize) -> Option<Vec<u8>> {
    let len = [0, 7, 128, 129, 4000, 20_000][number % 6];
    (!number.is_multiple_of(5)).then(|| noise(number as u64, len))
}

fn fill(client: &mut ClientConnection, count: usize) {
    for number in 0..count {
        if let Some(value) = value(number) {
            let name = record(number);
            let key = ItemRef::of_record(&name).expect("a key");
            client.put(key, &Put::value(&value)).expect("stored");
        }
    }
}

/// The body of a read of these records.
fn body(records: &[String]) -> Vec<u8> {
    let keys: Vec<ItemKey<'_>> = records.iter().map(|record| key_of(record)).collect();
    MultiGet::body(&keys, false, false)
}

fn key_of(record: &str) -> ItemKey<'_> {
    ItemKey { namespace: 0, record: record.as_bytes(), item: b"" }
}

fn request(body: &[u8]) -> NativeRequest<'_> {
    NativeRequest::MultiGet(MultiGet::read(body).expect("a good body"))
}

/// What each entry of a reply shows: a value or a status.
fn entries(answered: &Answered, count: usize) -> Vec<Result<Vec<u8>, NativeStatus>> {
    assert_eq!(answered.status, NativeStatus::Ok, "{answered:?}");
    let head = ReplyHead { id: 0, opcode: 0x16, has_checksum: false, hops: 0 };
    let reply = NativeReply { head, status: Some(answered.status), body: &answered.body };
    let entries = reply.multi(count).expect("an entry for each key");
    let shown = entries.iter().map(|entry| match entry {
        Ok(item) => Ok(item.value.to_vec()),
        Err(status) => Err(status.expect("a known status")),
    });
    shown.collect()
}

#[test]
fn items_of_all_shards_and_cores_are_read_in_the_order_of_their_keys() {
    const COUNT: usize = 700;
    let mut node = TestNode::start_with(2, |config| config.shards = Some(5));
    fill(&mut connect(&node), COUNT);
    for _ in 0..2 {
        let mut client = connect(&node);
        let mut native = NativeClient::connect(node.node.addresses().native);
        let names: Vec<String> = (0..COUNT).rev().chain([3, 3, 4]).map(record).collect();
        let expected: Vec<_> = (0..COUNT).rev().chain([3, 3, 4]).map(value).collect();
        let refs: Vec<ItemRef<'_>> =
            names.iter().map(|name| ItemRef::of_record(name).expect("a key")).collect();
        let read = client.multi_get(&refs).expect("a reply");
        for ((name, read), expected) in names.iter().zip(read).zip(&expected) {
            let found = read.expect("it can be read").map(|item| item.value);
            assert!(found == *expected, "{name}");
        }
        // Some at a time fit, and are all there.
        let mut hops = [false; 2];
        for (names, expected) in names.chunks(20).zip(expected.chunks(20)) {
            let answered = native.ask(&request(&body(names)));
            hops[usize::from(answered.hops)] = true;
            for (entry, expected) in entries(&answered, names.len()).iter().zip(expected) {
                assert!(entry.clone().ok() == *expected);
                assert!(entry.is_ok() || *entry == Err(NativeStatus::Absent));
            }
        }
        assert!(hops[1], "some are on the other core");
        let first = native.ask(&request(&body(&names[..1])));
        assert!(entries(&first, 1)[0].clone().ok() == expected[0]);
        // And once more when nothing is in memory.
        let directory = node.stop();
        node = TestNode::start_in(directory, 2, |config| config.shards = Some(5));
    }
    node.stop();
}

#[test]
fn what_has_no_room_is_asked_for_again_and_all_of_it_comes() {
    let node = TestNode::start(2);
    let mut client = connect(&node);
    let long = noise(1, 300_000);
    let names: Vec<String> = (0..20).map(record).collect();
    let refs: Vec<ItemRef<'_>> =
        names.iter().map(|name| ItemRef::of_record(name).expect("a key")).collect();
    for key in &refs {
        client.put(*key, &Put::value(&long)).expect("stored");
    }
    let mut native = NativeClient::connect(node.node.addresses().native);
    let answered = native.ask(&request(&body(&names)));
    let found = entries(&answered, 20);
    let there = found.iter().filter(|entry| entry.is_ok()).count();
    assert_eq!(there, 3, "no more than 1 MiB");
    assert!(found.iter().all(|entry| matches!(entry, Ok(_) | Err(NativeStatus::Busy))));
    let all = client.multi_get(&refs).expect("replies");
    for read in all {
        let item = read.expect("it can be read").expect("it is there");
        assert!(item.value == long);
    }
    node.stop();
}

#[test]
fn many_requests_of_many_keys_are_all_answered_once() {
    const COUNT: usize = 300;
    let node = TestNode::start_with(2, |config| config.shards = Some(4));
    fill(&mut connect(&node), COUNT);
    let names: Vec<String> = (0..COUNT).map(record).collect();
    let body = body(&names);
    let mut client = NativeClient::connect(node.node.addresses().native);
    // A thread reads; else both sides would wait for the other to read.
    let ids: Vec<u64> = std::thread::scope(|scope| {
        let mut sender = client.share();
        let sent =
            scope.spawn(move || (0..60).map(|_| sender.send(&request(&body))).collect::<Vec<_>>());
        for _ in 0..60 {
            client.receive_one();
        }
        sent.join().expect("sent")
    });
    for id in ids {
        for (number, entry) in entries(&client.wait(id), COUNT).iter().enumerate() {
            let is_busy = *entry == Err(NativeStatus::Busy);
            assert!(is_busy || entry.clone().ok() == value(number), "{number}: {entry:?}");
        }
    }
    node.stop();
}

#[test]
fn what_is_not_durable_yet_is_shown_when_it_is() {
    let node = TestNode::start_with(2, |config| config.shards = Some(3));
    let mut client = NativeClient::connect(node.node.addresses().native);
    let names: Vec<String> = (0..30).map(record).collect();
    let body = body(&names);
    for round in 0..30_u32 {
        let value = round.to_le_bytes();
        let puts: Vec<u64> =
            names.iter().map(|name| client.send(&put(key_of(name), SET, &value))).collect();
        let read = client.send(&request(&body));
        let shown = entries(&client.wait(read), names.len());
        for id in puts {
            assert_eq!(client.wait(id).status, NativeStatus::Ok);
        }
        for entry in shown {
            let is_older = round > 0 && entry == Ok((round - 1).to_le_bytes().to_vec());
            let is_absent = round == 0 && entry == Err(NativeStatus::Absent);
            assert!(is_older || is_absent || entry == Ok(value.to_vec()), "{entry:?}");
        }
        let now = entries(&client.ask(&request(&body)), names.len());
        assert!(now.iter().all(|entry| *entry == Ok(value.to_vec())));
    }
    node.stop();
}

#[test]
fn readers_of_many_large_values_that_do_not_read_harm_nobody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(directory.path(), 2);
    let address = node.field("native").parse().expect("an address");
    let mut client = NativeClient::connect(address);
    let names: Vec<String> = (0..64).map(record).collect();
    for (number, name) in names.iter().enumerate() {
        let value = noise(number as u64, 500_000);
        assert_eq!(client.status(&put(key_of(name), SET, &value)), NativeStatus::Ok);
    }
    let body = body(&names);
    let ask = request(&body);
    // Each of them asks for 32 MB 200 times and takes nothing of it: what it sends is not taken
    // either, at some time.
    let mut attackers: Vec<NativeClient> =
        (0..32).map(|_| NativeClient::connect(address)).collect();
    for attacker in &mut attackers {
        let mut frames = Vec::new();
        for id in 0..200 {
            put_request(&mut frames, id, 0, false, &ask);
        }
        attacker.stream.set_nonblocking(true).expect("an option");
        let _part = attacker.stream.write(&frames);
    }
    let begin = Instant::now();
    let (mut slowest, mut asked) = (Duration::ZERO, 0);
    while begin.elapsed() < Duration::from_secs(3) {
        let name = format!("other{}", asked % 50);
        let before = Instant::now();
        let stored = client.status(&put(key_of(&name), SET, b"v"));
        assert_eq!(stored, NativeStatus::Ok, "request {asked}");
        let get = GetItem { key: key_of(&name), metadata_only: false, is_quiet: false };
        assert_eq!(client.status(&NativeRequest::Get(get)), NativeStatus::Ok);
        slowest = slowest.max(before.elapsed());
        asked += 1;
    }
    assert!(asked > 50 && slowest < Duration::from_secs(2), "{asked} requests, {slowest:?}");
    let peak = node.peak_resident_bytes();
    assert!(peak < 192 << 20, "{} MiB of the 192 that the node was given", peak >> 20);
    // Who reads gets all, a part at a time, while they are still there.
    let mut missing: Vec<String> = names;
    for _ in 0..1000 {
        let answered = client.ask(&request(&self::body(&missing)));
        let found = entries(&answered, missing.len());
        let mut found = found.into_iter();
        missing.retain(|name| match found.next().expect("an entry for each") {
            Ok(value) => {
                let number: u64 = name.trim_start_matches("record").parse().expect("a number");
                assert_eq!(value, noise(number, 500_000), "{name}");
                false
            }
            Err(status) => {
                assert_eq!(status, NativeStatus::Busy, "{name}");
                true
            }
        });
        if missing.is_empty() {
            break;
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    drop(attackers);
    node.stop("-TERM");
}
