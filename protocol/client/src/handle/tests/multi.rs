//! Reads of several items at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_protocol::native::{NativeRequest, NativeStatus, not_found, put_found, reply};

use super::fake::{Fake, Store, item, reply_head};
use super::many_nodes::{counts, is_up, nodes, over, two_cores, until};
use super::{builder, client, key};
use crate::{CallKind, ClientError, ItemRef, Memcache, Put};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("record{number}")).collect()
}

fn keys(names: &[String]) -> Vec<ItemRef<'_>> {
    names.iter().map(|name| key(name)).collect()
}

#[test]
fn each_core_is_asked_once_and_answers_come_in_the_order_of_the_keys() {
    let node = two_cores();
    let client = builder(&node.door.address).build().expect("a client");
    until("both cores are connected", || is_up(&client, 3));
    let names = names(100);
    for name in &names[..60] {
        client.put(key(name), &Put::value(name.as_bytes())).wait().expect("stored");
    }
    counts(&node.seen);
    let reads = client.multi_get(&keys(&names)).wait();
    assert_eq!(counts(&node.seen), [1, 1, 0]);
    assert_eq!(reads.len(), 100);
    for (at, (name, read)) in names.iter().zip(reads).enumerate() {
        let value = read.expect("a reply").map(|item| item.value);
        assert_eq!(value, (at < 60).then(|| name.clone().into_bytes()), "{name}");
    }
    let read = smol::block_on(client.multi_get(&keys(&names[..2])));
    assert!(read.into_iter().all(|read| matches!(read, Ok(Some(_)))));
    assert_eq!(client.metrics().of(CallKind::MultiGet).errors, 0);
    assert!(client.multi_get(&[]).wait().is_empty(), "of nothing there is nothing");
}

#[test]
fn many_keys_are_several_requests() {
    let seen = Arc::new(AtomicUsize::new(0));
    let (counted, store) = (Arc::clone(&seen), Store::default());
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, request, out| {
            counted.fetch_add(1, Ordering::SeqCst);
            store.answer(head, request, out)
        });
    });
    let client = client(&fake.address);
    client.ping().wait().expect("a reply");
    let names = names(2100);
    let reads = client.multi_get(&keys(&names)).wait();
    assert!(reads.len() == 2100 && reads.into_iter().all(|read| matches!(read, Ok(None))));
    assert_eq!(seen.swap(0, Ordering::SeqCst), 4, "a ping, and 1,024 keys at a time");
    let long: Vec<String> = (0..100).map(|number| format!("{number:01000}")).collect();
    let reads = client.multi_get(&keys(&long)).wait();
    assert!(reads.len() == 100 && reads.into_iter().all(|read| matches!(read, Ok(None))));
    assert_eq!(seen.load(Ordering::SeqCst), 2, "64 KiB of keys at a time");
}

#[test]
fn several_keys_of_memcached_are_one_request_and_a_bad_one_is_none_of_it() {
    let seen = Arc::new(AtomicUsize::new(0));
    let (counted, store) = (Arc::clone(&seen), Store::default());
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, request, out| {
            counted.fetch_add(1, Ordering::SeqCst);
            store.answer(head, request, out)
        });
    });
    let client = client(&fake.address);
    client.put(key("a"), &Put::value(b"1")).wait().expect("stored");
    seen.store(0, Ordering::SeqCst);
    let cache = Memcache::over(client);
    let long = "k".repeat(2000);
    let asked = ["none", "a", "", "a", &long];
    for reads in [cache.get_multi(asked).wait(), smol::block_on(cache.get_multi(asked))] {
        let [none, first, empty, second, long] = reads.try_into().expect("as many as keys");
        assert_eq!(none.expect("a reply"), None);
        for read in [first, second] {
            assert_eq!(read.expect("a reply").expect("a value").value, b"1");
        }
        for refused in [empty, long] {
            assert!(matches!(refused, Err(ClientError::Usage(_))), "{refused:?}");
        }
    }
    assert_eq!(seen.load(Ordering::SeqCst), 2, "one for each of both");
}

/// A node that has room for so many items of a reply, and how often it was asked.
fn narrow(room: usize) -> (Fake, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, request, out| {
            let NativeRequest::MultiGet(multi) = request else { panic!("{request:?}") };
            counted.fetch_add(1, Ordering::SeqCst);
            reply::put(out, reply_head(head), NativeStatus::Ok, |out| {
                for (at, get) in multi.gets().enumerate() {
                    if at < room {
                        put_found(out, &item(get.key.record));
                    } else {
                        out.extend_from_slice(&not_found(NativeStatus::Busy));
                    }
                }
            });
            true
        });
    });
    (fake, seen)
}

#[test]
fn what_had_no_room_is_asked_for_again() {
    let (fake, seen) = narrow(3);
    let names = names(10);
    let reads = client(&fake.address).multi_get(&keys(&names)).wait();
    for (name, read) in names.iter().zip(reads) {
        assert_eq!(read.expect("a reply").expect("an item").value, name.as_bytes());
    }
    assert_eq!(seen.load(Ordering::SeqCst), 4);
    let (fake, seen) = narrow(0);
    for read in client(&fake.address).multi_get(&keys(&names)).wait() {
        let error = read.expect_err("there is room for nothing");
        let ClientError::Refused { status, .. } = error else { panic!("{error}") };
        assert_eq!(status, Some(NativeStatus::Busy));
    }
    assert_eq!(seen.load(Ordering::SeqCst), 1, "who has room for nothing is asked no more");
}

#[test]
fn a_node_that_is_away_costs_its_own_items() {
    let mut nodes = nodes(3);
    let client = over(&nodes, 1);
    let names = names(90);
    for name in &names {
        client.put(key(name), &Put::value(b"v")).wait().expect("stored");
    }
    let held = nodes.stores[0].values.lock().expect("whole").clone();
    drop(nodes.fakes.remove(0));
    for (name, read) in names.iter().zip(client.multi_get(&keys(&names)).wait()) {
        let was_there = held.contains_key(name.as_bytes());
        assert_eq!(read.is_err(), was_there, "{name}: {read:?}");
    }
    assert!(!held.is_empty());
}

#[test]
fn a_node_that_answers_another_number_of_items_is_no_node() {
    let fake = Fake::start(|mut peer| {
        peer.each(|head, _, out| {
            reply::put(out, reply_head(head), NativeStatus::Ok, |out| {
                out.extend_from_slice(&not_found(NativeStatus::Absent));
            });
            true
        });
    });
    let names = names(3);
    for read in client(&fake.address).multi_get(&keys(&names)).wait() {
        let error = read.expect_err("one answer to three questions");
        assert!(matches!(error, ClientError::Foreign(_)), "{error}");
    }
}
