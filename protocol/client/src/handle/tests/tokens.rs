//! Changes that have a name, and so are made once however often they are sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use larder_protocol::native::{
    ItemRange, NativeRequest, NativeStatus, RequestHead, capability, reply,
};

use super::fake::{Fake, GoesOn, Peer, reply_head, say};
use super::{PATIENCE, builder, key, numbers, seed};
use crate::{Call, ChangeName, Client, ClientBuilder, ClientError, Next, Put};

/// A node that counts, and knows again what has a name.
#[derive(Clone, Default)]
struct Counter {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    number: u64,
    /// What was answered, by nonce.
    known: HashMap<[u8; 16], u64>,
    /// Requests that have come.
    seen: usize,
}

impl Counter {
    /// Counts, unless it has before.
    fn count(&self, head: RequestHead, request: &NativeRequest<'_>) -> u64 {
        let NativeRequest::Increment(increment) = request else { panic!("{request:?}") };
        let kept = &mut *self.kept.lock().expect("whole");
        kept.seen += 1;
        let number = &mut kept.number;
        let mut add = || {
            *number += increment.delta;
            *number
        };
        match head.token {
            Some(received) => *kept.known.entry(received.token.nonce).or_insert_with(add),
            None => add(),
        }
    }

    fn answer(&self, head: RequestHead, request: &NativeRequest<'_>, out: &mut Vec<u8>) -> GoesOn {
        let number = self.count(head, request);
        reply::put_number(out, reply_head(head), number, 1);
        true
    }

    fn number(&self) -> u64 {
        self.kept.lock().expect("whole").number
    }

    fn seen(&self) -> usize {
        self.kept.lock().expect("whole").seen
    }
}

/// A node that knows tokens.
fn knowing(serve: impl Fn(&mut Peer) + Send + Sync + 'static) -> Fake {
    knowing_at("127.0.0.1:0", serve)
}

fn knowing_at(address: &str, serve: impl Fn(&mut Peer) + Send + Sync + 'static) -> Fake {
    Fake::start_at(address, move |mut peer| {
        peer.hello.capabilities = capability::ALL;
        serve(&mut peer);
    })
}

fn named(address: &str) -> ClientBuilder {
    builder(address).tokens(true).tries(10)
}

fn increment(client: &Client) -> Call<Option<u64>> {
    client.increment(key("n"), 1, Some(1))
}

#[test]
fn what_connections_lose_is_counted_once() {
    let (counter, dice) = (Counter::default(), Mutex::new(numbers(seed())));
    let node = counter.clone();
    let fake = knowing(move |peer| {
        peer.each(|head, request, out| match dice.lock().expect("whole")(12) {
            // It is done, and nobody is told.
            0 => {
                node.count(head, request);
                false
            }
            // It is not even done.
            1 => false,
            _ => node.answer(head, request, out),
        });
    });
    let client = named(&fake.address).build().expect("a client");
    for expected in 1..=150 {
        let number = increment(&client).wait();
        // A connection's end costs what it has under way a token of the budget, and no more.
        assert_eq!(number.expect("it is repeated"), Some(expected));
    }
    assert_eq!(counter.number(), 150);
    assert!(counter.seen() > 150, "some were sent again");
}

#[test]
fn without_names_nothing_is_counted_twice_either_and_the_error_says_so() {
    let counter = Counter::default();
    let node = counter.clone();
    let fake = knowing(move |peer| {
        let closes = peer.number == 0;
        peer.each(|head, request, out| {
            node.answer(head, request, out);
            out.clear();
            !closes && node.answer(head, request, out)
        });
    });
    let client = builder(&fake.address).build().expect("a client");
    let error = increment(&client).wait().expect_err("its fate is unknown");
    assert!(error.may_be_done(), "{error}");
    assert_eq!(counter.seen(), 1);
}

#[test]
fn a_change_outlasts_a_restart_of_its_node() {
    let counter = Counter::default();
    let (sender, is_counted) = mpsc::channel();
    let node = counter.clone();
    let first = knowing(move |peer| {
        peer.each(|head, request, _| {
            node.count(head, request);
            sender.send(()).expect("the test waits");
            // It is never answered.
            true
        });
    });
    let address = first.address.clone();
    // Three tries alone would be over long before the node is back.
    let client = named(&address).tries(3).build().expect("a client");
    let call = increment(&client);
    let waiting = std::thread::spawn(move || call.wait());
    is_counted.recv_timeout(PATIENCE).expect("it is sent");
    drop(first);
    std::thread::sleep(Duration::from_millis(400));
    let node = counter.clone();
    let _second = knowing_at(&address, move |peer| {
        peer.each(|head, request, out| node.answer(head, request, out));
    });
    let number = waiting.join().expect("no panic");
    assert_eq!(number.expect("it is answered after the start"), Some(1));
    assert_eq!((counter.number(), counter.seen()), (1, 2));
}

#[test]
fn a_change_whose_node_stays_away_ends_in_doubt_at_its_deadline() {
    let (sender, is_sent) = mpsc::channel();
    let fake = knowing(move |peer| {
        peer.each(|_, _, _| {
            sender.send(()).expect("the test waits");
            true
        });
    });
    let client = named(&fake.address).timeout(Duration::from_millis(400)).build();
    let call = increment(&client.expect("a client"));
    let waiting = std::thread::spawn(move || call.wait());
    is_sent.recv_timeout(PATIENCE).expect("it is sent");
    drop(fake);
    let error = waiting.join().expect("no panic").expect_err("nobody answers");
    assert!(matches!(error, ClientError::InDoubt(_)), "{error}");
    assert!(error.may_be_done(), "{error}");
}

#[test]
fn a_refusal_behind_a_lost_try_leaves_the_change_in_doubt() {
    let fake = knowing(|peer| {
        let closes = peer.number == 0;
        peer.each(|head, _, out| {
            say(head, NativeStatus::Full, out);
            if closes {
                out.clear();
            }
            !closes
        });
    });
    let client = named(&fake.address).build().expect("a client");
    let put = || client.put(key("k"), &Put::value(b"v")).wait().expect_err("it is full");
    let error = put();
    assert!(matches!(error, ClientError::InDoubt(_)), "{error}");
    assert!(error.may_be_done() && error.next() == Next::RetryHere, "{error}");
    let error = put();
    assert!(matches!(error, ClientError::Refused { .. }) && !error.may_be_done(), "{error}");
}

#[test]
fn a_clock_that_goes_wrong_is_a_clear_error() {
    let fake = knowing(|peer| {
        peer.each(|head, _, out| {
            let (status, text) = (NativeStatus::TokenRefused, "compare the clocks");
            reply::put_error(out, reply_head(head), status, text);
            true
        });
    });
    let client = named(&fake.address).build().expect("a client");
    let error = increment(&client).wait().expect_err("it is refused");
    assert_eq!(error.to_string(), "compare the clocks");
    // Under this name it may have been done before.
    assert_eq!((error.next(), error.may_be_done()), (Next::FixRequest, true));
    assert_eq!(client.metrics().retries, 0);
}

#[test]
fn a_node_that_knows_no_names_is_not_told_any() {
    let fake = Fake::start(|mut peer| peer.each(|_, request, _| panic!("{request:?}")));
    let client = named(&fake.address).tries(1).build().expect("a client");
    let error = increment(&client).wait().expect_err("it cannot be done once");
    assert!(error.to_string().contains("without `tokens`"), "{error}");
    assert!(!error.may_be_done());
    let memcached = Client::builder().node("127.0.0.1:1").memcached();
    let error = memcached.clone().tokens(true).build().expect_err("memcached has none");
    assert!(error.to_string().contains("`tokens`"), "{error}");
    let client = memcached.build().expect("a client");
    let error = client.once(ChangeName::new()).delete(key("k")).wait().expect_err("the same");
    assert!(matches!(error, ClientError::Usage(_)), "{error}");
}

#[test]
fn a_change_is_not_repeated_when_its_name_is_forgotten() {
    let counter = Counter::default();
    let node = counter.clone();
    let fake = knowing(move |peer| {
        peer.hello.token_window_seconds = 1;
        peer.each(|head, request, _| {
            node.count(head, request);
            std::thread::sleep(Duration::from_millis(1100));
            false
        });
    });
    let client = named(&fake.address).build().expect("a client");
    let error = increment(&client).wait().expect_err("its fate is unknown");
    assert!(error.may_be_done(), "{error}");
    assert_eq!(counter.seen(), 1);
}

#[test]
fn names_are_of_changes_alone_and_those_of_a_program_are_kept() {
    let (sender, seen) = mpsc::channel();
    let counter = Counter::default();
    let node = counter.clone();
    let fake = knowing(move |peer| {
        peer.each(|head, request, out| {
            let token = head.token.map(|received| received.token);
            sender.send(token).expect("the test reads");
            match request {
                NativeRequest::Increment(_) => node.answer(head, request, out),
                NativeRequest::DeleteItems(_) => {
                    say(head, NativeStatus::Ok, out);
                    true
                }
                _ => {
                    say(head, NativeStatus::Absent, out);
                    true
                }
            }
        });
    });
    let client = named(&fake.address).build().expect("a client");
    let next = || seen.recv_timeout(PATIENCE).expect("a request");
    client.get(key("k")).wait().expect("a reply");
    assert_eq!(next(), None);
    client.touch(key("k"), 5).wait().expect("a reply");
    client.get_and_touch(key("k"), 5).wait().expect("a reply");
    client.delete_items(0, "r", ItemRange::Prefix(b"")).wait().expect("a reply");
    for _ in 0..3 {
        next().expect("a name");
    }
    client.delete(key("k")).wait().expect("a reply");
    client.delete(key("k")).wait().expect("a reply");
    let (first, second) = (next().expect("a name"), next().expect("a name"));
    assert_ne!(first.nonce, second.nonce);
    let name = ChangeName::new();
    for _ in 0..3 {
        let number = client.once(name).increment(key("n"), 5, None).wait();
        assert_eq!(number.expect("a reply"), Some(5));
        assert_eq!(next(), Some(name.token()));
    }
    assert_eq!(counter.number(), 5);
}

#[test]
fn a_node_that_does_not_know_names_of_all_changes_is_not_told_any() {
    let fake = Fake::start(|mut peer| {
        peer.hello.capabilities = capability::TOKENS;
        peer.each(|_, request, _| panic!("{request:?}"));
    });
    let client = named(&fake.address).tries(1).build().expect("a client");
    let error = client.touch(key("k"), 5).wait().expect_err("it cannot be done once");
    assert!(error.to_string().contains("a newer node"), "{error}");
}
