//! What is tried again, and what is not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use larder_protocol::native::{NativeRequest, NativeStatus};

use super::fake::{Fake, Store, say, show};
use super::{PATIENCE, builder, client, key};
use crate::{CallKind, Calls, ClientError, Next, Put};

/// A node that closes its first connections when it gets a request of this kind.
fn closing(connections: usize, seen: &Arc<AtomicUsize>) -> Fake {
    let (store, seen) = (Store::default(), Arc::clone(seen));
    Fake::start(move |mut peer| {
        let closes = peer.number < connections;
        peer.each(|head, request, out| {
            seen.fetch_add(1, Ordering::SeqCst);
            !closes && store.answer(head, request, out)
        });
    })
}

#[test]
fn a_read_is_sent_again_and_a_write_is_not() {
    let seen = Arc::new(AtomicUsize::new(0));
    let fake = closing(1, &seen);
    let read = client(&fake.address);
    assert_eq!(read.get(key("k")).wait().expect("the second try"), None);
    assert_eq!((seen.load(Ordering::SeqCst), read.metrics().retries), (2, 1));
    let seen = Arc::new(AtomicUsize::new(0));
    let fake = closing(1, &seen);
    let write = client(&fake.address);
    let error = write.put(key("k"), &Put::value(b"v")).wait().expect_err("its fate is unknown");
    assert!(error.may_be_done() && error.next() == Next::RetryElsewhere, "{error}");
    assert!(error.to_string().contains("may have been done or not"), "{error}");
    assert_eq!((seen.load(Ordering::SeqCst), write.metrics().retries), (1, 0));
    write.put(key("k"), &Put::value(b"v")).wait().expect("the client goes on");
}

#[test]
fn tries_end() {
    let seen = Arc::new(AtomicUsize::new(0));
    let fake = closing(usize::MAX, &seen);
    let client = builder(&fake.address).tries(4).build().expect("a client");
    let error = client.get(key("k")).wait().expect_err("no try succeeds");
    assert!(matches!(error, ClientError::Closed | ClientError::Broken(_)), "{error}");
    assert_eq!(seen.load(Ordering::SeqCst), 4);
    let get = client.metrics().of(CallKind::Get).clone();
    assert_eq!((get.calls, get.errors), (1, 1));
}

#[test]
fn a_write_that_was_not_begun_is_sent_again() {
    let (store, busy) = (Store::default(), AtomicUsize::new(0));
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, request, out| {
            if busy.fetch_add(1, Ordering::SeqCst) < 2 {
                say(head, NativeStatus::Busy, out);
                return true;
            }
            store.answer(head, request, out)
        });
    });
    let client = client(&fake.address);
    client.put(key("k"), &Put::value(b"v")).wait().expect("the third try");
    assert_eq!(client.metrics().retries, 2);
}

#[test]
fn an_outage_costs_a_budget_and_no_storm() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let fake = Fake::start(move |mut peer| {
        peer.each(|head, _, out| {
            counted.fetch_add(1, Ordering::SeqCst);
            say(head, NativeStatus::Busy, out);
            true
        });
    });
    let client = client(&fake.address);
    let calls: Calls<_> = (0..400).map(|_| client.get(key("k"))).collect();
    for ended in calls.wait() {
        let error = ended.expect_err("always busy");
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");
        assert_eq!((error.next(), error.may_be_done()), (Next::RetryHere, false));
    }
    assert_eq!(seen.load(Ordering::SeqCst), 500, "a hundred tries more than calls");
}

#[test]
fn a_read_that_waits_for_a_connection_is_sent_to_another_replica() {
    let store = Store::default();
    let kept = store.clone();
    let good = Fake::start(move |mut peer| {
        peer.each(|head, request, out| store.answer(head, request, out));
    });
    // Accepts, and says nothing.
    let silent = Fake::start(|mut peer| {
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut peer.stream, &mut rest);
    });
    let delay = Duration::from_millis(5);
    let build = builder(&silent.address).node(&good.address).replicas(2).connect_timeout(PATIENCE);
    let client = build.hedge_after(Some(delay)).build().expect("a client");
    for number in 0..20 {
        let name = format!("record{number}");
        kept.values.lock().expect("whole").insert(name.clone().into_bytes(), b"v".to_vec());
        let item = client.get(key(&name)).wait().expect("the other answers").expect("stored");
        assert_eq!(item.value, b"v");
    }
    assert!((1..=20).contains(&client.metrics().hedges));
}

#[test]
fn a_slow_read_is_sent_again_over_another_connection() {
    let (sender, slow) = mpsc::channel();
    let fake = Fake::start(move |mut peer| {
        let number = peer.number;
        let mut heads = Vec::new();
        peer.each(|head, request, out| {
            if matches!(request, NativeRequest::Ping(_)) {
                say(head, NativeStatus::Ok, out);
            } else if number == 0 {
                heads.push(head);
                sender.send(()).expect("the test waits");
            } else {
                show(head, b"from the other", out);
            }
            true
        });
    });
    let delay = Duration::from_millis(5);
    let build = builder(&fake.address).connections(2).hedge_after(Some(delay));
    let client = build.build().expect("a client");
    while !client.core.nodes[0].layout().lanes().all(|lane| lane.is_up()) {
        client.ping().wait().expect("a reply");
    }
    let names: Vec<String> = (0..20).map(|number| format!("record{number}")).collect();
    let calls: Calls<_> = names.iter().map(|name| client.get(key(name))).collect();
    for item in calls.wait() {
        assert_eq!(item.expect("one of both answers").expect("an item").value, b"from the other");
    }
    let hedges = client.metrics().hedges;
    assert!((1..=20).contains(&hedges), "{hedges}");
    assert_eq!(slow.try_iter().count() as u64, hedges, "one for each that is slow");
}
