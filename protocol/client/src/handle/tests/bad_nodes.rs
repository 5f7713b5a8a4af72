//! Nodes that misbehave cost a clear error, in time.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use larder_protocol::native::reply::{self, NativeItem};
use larder_protocol::native::{NativeStatus, RequestHead};

use super::fake::{Fake, Peer, Store, reply_head, say, show};
use super::{PATIENCE, builder, client, key};
use crate::{ClientError, Next, Put};

const SHORT: Duration = Duration::from_millis(200);

/// Reads what comes and says nothing.
fn swallow(peer: &mut Peer) {
    let mut rest = Vec::new();
    let _ = peer.stream.read_to_end(&mut rest);
}

#[test]
fn a_node_that_hangs_costs_the_deadline_and_then_its_connection() {
    let store = Store::default();
    let fake = Fake::start(move |mut peer| {
        if peer.number == 0 {
            peer.greet();
            return swallow(&mut peer);
        }
        peer.each(|head, request, out| store.answer(head, request, out));
    });
    let client = builder(&fake.address).timeout(SHORT).silence(SHORT).build().expect("a client");
    let began = Instant::now();
    let error = client.put(key("k"), &Put::value(b"v")).wait().expect_err("nothing comes");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(error.may_be_done() && error.next() == Next::RetryElsewhere);
    assert!((SHORT..PATIENCE).contains(&began.elapsed()), "{:?}", began.elapsed());
    // A ping goes unanswered too, and the connection is given up for another.
    while fake.accepted.load(Ordering::SeqCst) < 2 {
        assert!(began.elapsed() < PATIENCE, "the connection is kept");
        let _ = client.get(key("k")).wait();
    }
    let patient = client.with_timeout(PATIENCE);
    patient.put(key("k"), &Put::value(b"v")).wait().expect("the other connection is good");
}

#[test]
fn a_node_that_does_not_greet_is_no_node() {
    let fake = Fake::start(|mut peer| swallow(&mut peer));
    let client = builder(&fake.address).connect_timeout(SHORT).build().expect("a client");
    let error = client.get(key("k")).wait().expect_err("nobody is there");
    assert!(!error.may_be_done() && matches!(error, ClientError::Unsent { .. }), "{error}");
}

#[test]
fn nobody_who_listens_is_said_with_what_to_look_at() {
    let client = client("127.0.0.1:1");
    let began = Instant::now();
    let error = client.put(key("k"), &Put::value(b"v")).wait().expect_err("nobody listens");
    assert!(matches!(error, ClientError::Connect { .. }) && !error.may_be_done(), "{error}");
    assert!(error.to_string().contains("--native-port"), "{error}");
    assert!(began.elapsed() < PATIENCE, "nobody waits for the deadline");
    let unknown = super::client("no.such.host.invalid:9411");
    let error = unknown.get(key("k")).wait().expect_err("no such host");
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
}

/// How a node answers a hello that speaks no version of the client's.
fn newer(id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let head = reply::ReplyHead { id, opcode: 2, has_checksum: false, hops: 0 };
    reply::put_error(&mut out, head, NativeStatus::UnsupportedVersion, "speak version 2");
    out
}

#[test]
fn a_node_of_a_newer_version_is_told_apart() {
    let other_header = |id| {
        let mut bytes = newer(id);
        bytes[1] = 2;
        bytes
    };
    let answers: [fn(u64) -> Vec<u8>; 2] = [newer, other_header];
    for answer in answers {
        let fake = Fake::start(move |mut peer| {
            let mut header = [0; 24];
            peer.stream.read_exact(&mut header).expect("a hello");
            let id = u64::from_le_bytes(header[8..16].try_into().expect("8 bytes"));
            peer.stream.write_all(&answer(id)).expect("it reads");
            swallow(&mut peer);
        });
        let error = client(&fake.address).get(key("k")).wait().expect_err("no common version");
        assert!(error.to_string().contains("version"), "{error}");
        assert!(error.next() == Next::FixRequest && !error.may_be_done(), "{error}");
    }
}

/// The error of a write that is answered so, and whether the next call succeeds.
fn error_of(answer: fn(RequestHead, &mut Vec<u8>)) -> ClientError {
    let store = Store::default();
    let fake = Fake::start(move |mut peer| {
        let is_bad = peer.number == 0;
        peer.each(|head, request, out| {
            if is_bad {
                answer(head, out);
                return true;
            }
            store.answer(head, request, out)
        });
    });
    let client = client(&fake.address);
    let error = client.put(key("k"), &Put::value(b"v")).wait().expect_err("no answer");
    let next = client.put(key("k"), &Put::value(b"w")).wait();
    assert!(next.is_ok() || fake.accepted.load(Ordering::SeqCst) == 1, "{next:?} after {error}");
    error
}

#[test]
fn what_is_no_answer_is_an_error_that_says_so() {
    let unasked = |head: RequestHead, out: &mut Vec<u8>| {
        show(RequestHead { id: head.id + 1, ..head }, b"of nobody", out);
    };
    let slot = |head: RequestHead, out: &mut Vec<u8>| {
        show(RequestHead { id: head.id ^ 1 << 20, ..head }, b"of before", out);
    };
    let other = |head: RequestHead, out: &mut Vec<u8>| {
        reply::put(
            out,
            reply::ReplyHead { opcode: 0x12, ..reply_head(head) },
            NativeStatus::Ok,
            |_| (),
        );
    };
    let text = |_: RequestHead, out: &mut Vec<u8>| {
        out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    };
    let long = |head: RequestHead, out: &mut Vec<u8>| {
        say(head, NativeStatus::Ok, out);
        out[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    };
    let flipped = |head: RequestHead, out: &mut Vec<u8>| {
        let item = NativeItem { version: 1, client_flags: 0, expiry: 0, value_len: 1, value: b"v" };
        reply::put_item(out, reply::ReplyHead { has_checksum: true, ..reply_head(head) }, &item);
        let last = out.len() - 1;
        out[last] ^= 1;
    };
    let body = |head: RequestHead, out: &mut Vec<u8>| {
        reply::put(out, reply_head(head), NativeStatus::Ok, |out| out.push(1));
    };
    let answers: [fn(RequestHead, &mut Vec<u8>); 7] =
        [unasked, slot, other, text, long, flipped, body];
    for (number, answer) in answers.into_iter().enumerate() {
        let error = error_of(answer);
        assert!(matches!(error, ClientError::Foreign(_)), "{number}: {error}");
        assert!(error.may_be_done(), "{number}: it may have been done all the same");
    }
}

/// The error of a write to a memcached that answers each command so.
fn meta_error_of(answer: &'static str) -> ClientError {
    let fake = Fake::start(move |mut peer| {
        let mut chunk = [0; 4096];
        let mut is_greeted = false;
        while peer.stream.read(&mut chunk).is_ok_and(|read| read > 0) {
            let answer = if is_greeted { answer } else { "EN\r\n" };
            is_greeted = true;
            if peer.stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let client = builder(&fake.address).memcached().timeout(SHORT).build().expect("a client");
    client.put(key("k"), &Put::value(b"v")).wait().expect_err("no answer")
}

#[test]
fn a_memcached_that_answers_something_else_is_told_apart() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "HD c1 O999999\r\n",
        "VA 99999999999\r\n",
        "HD cx\r\n",
        "MN\r\n",
        "EN\r\n",
    ] {
        let error = meta_error_of(answer);
        let is_told = matches!(error, ClientError::Foreign(_));
        assert!(is_told && error.may_be_done(), "{answer:?}: {error}");
    }
    let error = meta_error_of("HD c1");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    let error = meta_error_of("SERVER_ERROR out of memory storing object\r\n");
    assert!(error.to_string().contains("memcached says: SERVER_ERROR out of memory"), "{error}");
    assert!(!error.may_be_done() && error.next() == Next::RetryHere, "{error}");
}

#[test]
fn a_node_that_answers_twice_loses_its_connection_and_nobody_gets_the_second_answer() {
    let store = Store::default();
    let fake = Fake::start(move |mut peer| {
        let is_bad = peer.number == 0;
        peer.each(|head, request, out| {
            store.answer(head, request, out);
            if is_bad {
                store.answer(head, request, out);
            }
            true
        });
    });
    let client = client(&fake.address);
    for number in 0..50 {
        let (name, value) = (format!("record{number}"), format!("value{number}"));
        // A write may be on the connection when it is closed.
        while client.put(key(&name), &Put::value(value.as_bytes())).wait().is_err() {}
        let item = client.get(key(&name)).wait().expect("reads are repeated").expect("stored");
        assert_eq!(item.value, value.as_bytes());
    }
    assert_eq!(fake.accepted.load(Ordering::SeqCst), 2);
}

#[test]
fn a_node_that_turns_connections_away_is_asked_again() {
    let store = Store::default();
    let fake = Fake::start(move |mut peer| {
        if peer.number < 2 {
            let mut out = Vec::new();
            let head = reply::ReplyHead { id: 0, opcode: 0, has_checksum: false, hops: 0 };
            reply::put_error(&mut out, head, NativeStatus::Busy, "too many connections");
            let _ = peer.stream.write_all(&out);
            return;
        }
        peer.each(|head, request, out| store.answer(head, request, out));
    });
    let patient = builder(&fake.address).tries(8).build().expect("a client");
    patient.put(key("k"), &Put::value(b"v")).wait().expect("the third connection is good");
}

#[test]
fn a_reply_that_never_comes_whole_costs_the_deadline() {
    let fake = Fake::start(|mut peer| {
        peer.each(|head, _, out| {
            say(head, NativeStatus::Ok, out);
            out[4..8].copy_from_slice(&(100u32 << 20).to_le_bytes());
            true
        });
    });
    let client = builder(&fake.address).timeout(SHORT).build().expect("a client");
    for _ in 0..3 {
        let error = client.get(key("k")).wait().expect_err("it never comes whole");
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    }
}
