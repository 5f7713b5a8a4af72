//! Bounds of what is under way and of what waits.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use larder_protocol::native::{NativeRequest, RequestDurability, RequestHead};

use super::fake::{Fake, show};
use super::{PATIENCE, builder, client, key};
use crate::{Call, Calls, Client, ClientError, Item, Next};

/// A node that takes four requests at a time, and answers them when it is let.
struct Holding {
    fake: Fake,
    let_go: mpsc::Sender<()>,
    /// How many it has held whenever a read has brought some.
    held: mpsc::Receiver<usize>,
}

fn holding() -> Holding {
    let (let_go, wait) = mpsc::channel();
    let (sender, held) = mpsc::channel();
    let wait = Arc::new(Mutex::new(wait));
    let fake = Fake::start(move |mut peer| {
        peer.hello.requests_max = 4;
        let heads = Arc::new(Mutex::new(Vec::<RequestHead>::new()));
        let mut stream = peer.stream.try_clone().expect("a descriptor");
        let (waiting, wait) = (Arc::clone(&heads), Arc::clone(&wait));
        std::thread::spawn(move || {
            let wait = wait.lock().expect("one connection is let go");
            while wait.recv().is_ok() {
                let mut out = Vec::new();
                let heads = std::mem::take(&mut *waiting.lock().expect("whole"));
                heads.into_iter().for_each(|head| show(head, b"v", &mut out));
                if stream.write_all(&out).is_err() {
                    return;
                }
            }
        });
        peer.each(|head, _: &NativeRequest<'_>, _| {
            let mut heads = heads.lock().expect("whole");
            heads.push(head);
            let _ = sender.send(heads.len());
            true
        });
    });
    Holding { fake, let_go, held }
}

fn gets(client: &Client, count: usize) -> Vec<Call<Option<Item>>> {
    (0..count).map(|_| client.get(key("k"))).collect()
}

#[test]
fn no_more_is_under_way_than_the_node_takes_and_the_others_follow() {
    let Holding { fake, let_go, held } = holding();
    let client = client(&fake.address);
    let calls = gets(&client, 11);
    let waiting = std::thread::spawn(move || calls.into_iter().collect::<Calls<_>>().wait());
    for batch in [4, 4, 3] {
        for expected in 1..=batch {
            assert_eq!(held.recv_timeout(PATIENCE).expect("a request"), expected);
        }
        let_go.send(()).expect("it waits");
    }
    let ended = waiting.join().expect("no panic");
    assert!(ended.len() == 11 && ended.into_iter().all(|item| item.is_ok()));
}

#[test]
fn what_waits_for_room_until_its_deadline_was_not_sent() {
    let Holding { fake, let_go, held } = holding();
    let client = client(&fake.address);
    let first = gets(&client, 4);
    let late = client.with_timeout(Duration::from_millis(100)).get(key("late"));
    let error = late.wait().expect_err("there is no room");
    assert!(matches!(error, ClientError::Unsent { next: Next::RetryHere, .. }), "{error}");
    assert!(error.to_string().contains("4 requests are under way"), "{error}");
    assert!(!error.may_be_done());
    assert_eq!(held.iter().take(4).last(), Some(4));
    let_go.send(()).expect("it waits");
    assert!(first.into_iter().collect::<Calls<_>>().wait().into_iter().all(|item| item.is_ok()));
    assert_eq!(held.try_recv().ok(), None, "what was late was never sent");
}

#[test]
fn more_than_may_wait_is_refused_at_once() {
    let Holding { fake, let_go, held } = holding();
    let client = builder(&fake.address).waiting(3, 1 << 20).build().expect("a client");
    let first = gets(&client, 1);
    let waiting = std::thread::spawn(move || first.into_iter().collect::<Calls<_>>().wait());
    assert_eq!(held.recv_timeout(PATIENCE).expect("there is a connection"), 1);
    let (others, refused) = (gets(&client, 6), gets(&client, 2));
    for error in refused.into_iter().collect::<Calls<_>>().wait() {
        let error = error.expect_err("three fill the connection, and three the line");
        assert!(matches!(error, ClientError::Overloaded { calls: 3, .. }), "{error}");
        assert!(!error.may_be_done() && error.next() == Next::RetryHere);
    }
    // Six are let go after the first ones.
    let is_over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&is_over);
    let let_all = std::thread::spawn(move || {
        while !ended.load(Ordering::SeqCst) {
            let_go.send(()).expect("it waits");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(others.into_iter().collect::<Calls<_>>().wait().into_iter().all(|item| item.is_ok()));
    assert!(waiting.join().expect("no panic").into_iter().all(|item| item.is_ok()));
    is_over.store(true, Ordering::SeqCst);
    let_all.join().expect("no panic");
}

#[test]
fn a_call_that_was_given_up_is_not_sent() {
    let Holding { fake, let_go, held } = holding();
    let client = client(&fake.address);
    let first = gets(&client, 4);
    let given_up = gets(&client, 3);
    let last = client.get(key("last"));
    drop(given_up);
    let waiting = std::thread::spawn(move || {
        let first = first.into_iter().collect::<Calls<_>>().wait();
        (first, last.wait())
    });
    assert_eq!(held.iter().take(4).last(), Some(4));
    let_go.send(()).expect("it waits");
    assert_eq!(held.recv_timeout(PATIENCE).expect("the last one"), 1);
    let_go.send(()).expect("it waits");
    let (first, last) = waiting.join().expect("no panic");
    assert!(first.into_iter().all(|item| item.is_ok()) && last.is_ok());
    assert_eq!(held.try_recv().ok(), None);
}

#[test]
fn what_a_client_cannot_be_told_is_said() {
    let wrong = |build: crate::ClientBuilder, part: &str| {
        let error = build.build().expect_err("it cannot be");
        let is_usage = matches!(error, ClientError::Usage(_));
        assert!(is_usage && error.to_string().contains(part), "{error}");
    };
    let good = || Client::builder().node("127.0.0.1:1");
    wrong(Client::builder(), "`node`");
    wrong(Client::builder().node("localhost"), "HOST:PORT");
    wrong(good().node("127.0.0.1:1"), "twice");
    wrong(good().weighted_node("127.0.0.1:2", 0.0), "weight");
    wrong(good().weighted_node("127.0.0.1:2", f64::NAN), "weight");
    wrong(good().replicas(2), "replicas");
    wrong(good().connections(0), "connections");
    wrong(good().name("n".repeat(65)), "64 bytes");
    wrong(good().tries(0), "tries");
    wrong(good().timeout(Duration::ZERO), "longer than nothing");
    wrong(good().hedge_after(Some(Duration::MAX)), "a day");
    let client = good().build().expect("a client");
    let error = client.with_timeout(Duration::MAX).get(key("k")).wait().expect_err("nobody");
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
}

#[test]
fn calls_are_answered_as_durably_as_is_asked() {
    let (sender, asked) = mpsc::channel();
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, _, out| {
            sender.send(head.durability).expect("the test reads");
            show(head, b"v", out);
            true
        });
    });
    let client = client(&fake.address);
    for durability in [RequestDurability::Sync, RequestDurability::None, RequestDurability::AsNode]
    {
        client.with_durability(durability).get(key("k")).wait().expect("a reply");
        assert_eq!(asked.recv_timeout(PATIENCE), Ok(durability));
    }
    let memcached = Client::builder().node("127.0.0.1:1").memcached().build().expect("a client");
    let durable = memcached.with_durability(RequestDurability::Sync);
    let error = durable.get(key("k")).wait().expect_err("memcached has no such thing");
    assert!(matches!(error, ClientError::Usage(_)), "{error}");
}
