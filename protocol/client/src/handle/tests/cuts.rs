//! Connections that are cut at any moment, and deadlines that come at any.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_protocol::native::NativeRequest;

use super::fake::{Fake, Store, show};
use super::{builder, key, numbers, seed};
use crate::{Calls, Client, ClientError, Put};

fn cut(client: &Client) {
    client.core.nodes[0].layout().lanes().for_each(|lane| lane.cut());
}

/// What a thread has found out about its records.
#[derive(Default)]
struct Found {
    stored: usize,
    unknown: usize,
    not_done: usize,
}

/// Writes ever new values under one name, and checks that each read shows one that may be there.
fn write_and_read(client: &Client, name: &str, random: &mut impl FnMut(u64) -> u64) -> Found {
    let mut found = Found::default();
    let mut possible = HashSet::from([None]);
    for round in 0..200 {
        let value = format!("{name} {round} {}", "v".repeat(random(3000) as usize)).into_bytes();
        match client.put(key(name), &Put::value(&value)).wait() {
            Ok(_) => {
                found.stored += 1;
                // What was sent over connections that were cut may still come.
                possible.remove(&None);
                possible.insert(Some(value));
            }
            Err(error) if error.may_be_done() => {
                found.unknown += 1;
                possible.insert(Some(value));
            }
            Err(error) => {
                assert!(!matches!(error, ClientError::Usage(_)), "{error}");
                found.not_done += 1;
            }
        }
        if let Ok(item) = client.get(key(name)).wait() {
            let shown = item.map(|item| item.value);
            assert!(possible.contains(&shown), "{name} {round}: what was not done is seen");
        }
    }
    found
}

#[test]
fn what_an_error_says_was_not_done_is_never_seen() {
    let seed = seed();
    let fake = Fake::good();
    let client = builder(&fake.address).tries(2).build().expect("a client");
    let is_over = AtomicBool::new(false);
    let (client, is_over) = (&client, &is_over);
    let found: Vec<Found> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let name = format!("record{thread}");
                let mut random = numbers(seed + thread);
                scope.spawn(move || write_and_read(client, &name, &mut random))
            })
            .collect();
        scope.spawn(move || {
            let mut random = numbers(seed + 99);
            while !is_over.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_micros(random(3000)));
                cut(client);
            }
        });
        let found = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        is_over.store(true, Ordering::SeqCst);
        found
    });
    let sum = |count: fn(&Found) -> usize| found.iter().map(count).sum::<usize>();
    let (stored, unknown) = (sum(|found| found.stored), sum(|found| found.unknown));
    println!("{stored} stored, {unknown} unknown, {} not done", sum(|found| found.not_done));
    assert!(stored > 100, "{stored}");
    cut(client);
    client.put(key("last"), &Put::value(b"v")).wait().ok();
    assert!(client.get(key("last")).wait().is_ok(), "the client outlives it all");
}

#[test]
fn every_call_ends_at_its_deadline_whatever_else_goes_on() {
    let seed = seed();
    // Answers half of what it is asked, and nothing else ever.
    let fake = Fake::start(|mut peer| {
        let mut count = 0;
        peer.each(|head, _, out| {
            count += 1;
            if count % 2 == 0 {
                show(head, b"v", out);
            }
            true
        });
    });
    let silence = Duration::from_millis(20);
    let build = builder(&fake.address).silence(silence).hello_every(Duration::from_millis(2));
    let client = build.hedge_after(Some(Duration::from_millis(1))).connections(2).build();
    let client = client.expect("a client");
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (client, mut random) = (&client, numbers(seed + thread));
            scope.spawn(move || {
                for _ in 0..100 {
                    let short = client.with_timeout(Duration::from_micros(500 + random(4000)));
                    let calls: Calls<_> = (0..random(5)).map(|_| short.get(key("k"))).collect();
                    // That this returns is what is tested.
                    drop(calls.wait());
                }
            });
        }
    });
}

#[test]
fn no_task_waits_for_a_socket_that_takes_nothing() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let fake = Fake::start(move |mut peer| {
        let store = Store::default();
        peer.greet_and(|| wait.lock().expect("whole").recv().expect("the task"));
        peer.each(|head, request: &NativeRequest<'_>, out| store.answer(head, request, out));
    });
    let client = builder(&fake.address).build().expect("a client");
    let value = vec![7; 32 << 20];
    smol::block_on(async {
        let put = client.put(key("large"), &Put::value(&value));
        let first = smol::future::poll_once(put);
        // The peer reads nothing before this has come back.
        let ended = first.await;
        assert!(ended.is_none(), "nobody has read it");
        go.send(()).expect("it waits");
        client.put(key("small"), &Put::value(b"v")).await.expect("behind the large one");
    });
}
