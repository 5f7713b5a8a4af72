//! The client against nodes that misbehave.

#![allow(clippy::disallowed_methods, reason = "the node in these tests is a thread")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use larder_protocol::native::reply::{self, NativeItem, ReplyHead};
use larder_protocol::native::{
    NativeLimits, NativePageItem, NativeParsed, NativeParser, NativeStatus, Opcode,
};

use crate::{ClientConnection, ClientError, ItemRange, ItemRef, ItemsOf, Next, Put, Stored};

mod mutate;

const TIMEOUT: Duration = Duration::from_millis(300);

/// A connection to a node that lives in a thread, and answers as `serve` says.
fn against(serve: impl FnOnce(TcpStream) + Send + 'static) -> ClientConnection {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || serve(listener.accept().expect("a client").0));
    ClientConnection::open(&address, TIMEOUT).expect("it accepts")
}

/// The ids of the next `count` requests.
fn ids(stream: &mut TcpStream, count: usize) -> Vec<u64> {
    let (mut input, mut ids) = (Vec::new(), Vec::new());
    let mut parser = NativeParser::default();
    let limits = NativeLimits { value_bytes_max: 1 << 20 };
    while ids.len() < count {
        let step = parser.next(&limits, &input);
        match step.parsed {
            NativeParsed::Request(head, _) => ids.push(head.id),
            NativeParsed::NeedMore { .. } => {
                let mut chunk = [0; 4096];
                let read = stream.read(&mut chunk).expect("requests");
                assert!(read > 0, "the client has gone");
                input.extend_from_slice(&chunk[..read]);
                continue;
            }
            other => panic!("{other:?}"),
        }
        let consumed = step.consumed;
        input.drain(..consumed);
    }
    ids
}

fn head(id: u64) -> ReplyHead {
    ReplyHead { id, opcode: 0x10, has_checksum: id.is_multiple_of(2), hops: 0 }
}

fn item(id: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let value_len = value.len() as u32;
    let item = NativeItem { version: 1, client_flags: 2, expiry: 3, value_len, value };
    reply::put_item(&mut out, head(id), &item);
    out
}

fn key(record: &str) -> ItemRef<'_> {
    ItemRef::of_record(record).expect("a key")
}

#[test]
fn replies_in_any_order_and_any_pieces_find_their_requests() {
    let mut node = against(|mut stream| {
        let ids = ids(&mut stream, 3);
        let replies = [item(ids[2], b"third"), item(ids[0], b"first"), item(ids[1], b"second")];
        for piece in replies.concat().chunks(7) {
            stream.write_all(piece).expect("it reads");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the client closes");
    });
    let tickets = ["a", "b", "c"].map(|record| node.send_get(key(record)).expect("sent"));
    for (ticket, value) in tickets.into_iter().zip(["first", "second", "third"]) {
        let item = node.wait_item(ticket).expect("a reply").expect("an item");
        assert_eq!((item.value, item.client_flags, item.expiry), (value.into(), 2, 3));
    }
}

#[test]
fn a_node_that_hangs_costs_the_timeout_and_the_connection() {
    let mut node = against(|stream| {
        std::thread::sleep(Duration::from_secs(20));
        drop(stream);
    });
    let began = Instant::now();
    let error = node.get(key("k")).expect_err("nothing comes");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(error.may_be_done() && error.next() == Next::RetryElsewhere);
    assert!((TIMEOUT..TIMEOUT * 10).contains(&began.elapsed()), "{:?}", began.elapsed());
    let spent = node.get(key("k")).expect_err("a late reply must not be taken for this one's");
    assert!(matches!(spent, ClientError::Spent) && !spent.may_be_done());
}

/// The error of a read that a node answers with these bytes, made from the request's id.
fn error_of(answer: impl Fn(u64) -> Vec<u8> + Send + 'static) -> ClientError {
    let mut node = against(move |mut stream| {
        let id = ids(&mut stream, 1)[0];
        stream.write_all(&answer(id)).expect("it reads");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let error = node.get(key("k")).expect_err("no item");
    let next = node.ping().expect_err("spent");
    let is_spent = matches!(next, ClientError::Spent);
    assert_eq!(is_spent, !matches!(error, ClientError::Refused { .. }), "{error}: {next}");
    error
}

#[test]
fn what_is_no_answer_is_an_error_that_says_so() {
    let foreign = |error: ClientError| {
        assert!(matches!(error, ClientError::Foreign(_)), "{error}");
        error.to_string()
    };
    foreign(error_of(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()));
    foreign(error_of(|id| item(id + 1, b"of nobody")));
    foreign(error_of(|id| {
        let mut out = Vec::new();
        reply::put(&mut out, ReplyHead { opcode: 0x12, ..head(id) }, NativeStatus::Ok, |_| ());
        out
    }));
    let busy = error_of(|_| {
        let mut out = Vec::new();
        reply::put_error(&mut out, head(0), NativeStatus::Busy, "too many connections");
        out
    });
    assert!(matches!(busy, ClientError::TurnedAway(_)), "{busy}");
    assert!(busy.next() == Next::RetryHere && !busy.may_be_done(), "{busy}");
    foreign(error_of(|id| {
        let mut out = Vec::new();
        reply::put_version(&mut out, head(id), 4);
        out
    }));
    let long = foreign(error_of(|id| {
        let mut long = item(id, b"");
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        long
    }));
    assert!(long.contains("4294967295"), "{long}");
    let flipped = foreign(error_of(|id| {
        let mut out = Vec::new();
        reply::put_item(
            &mut out,
            ReplyHead { has_checksum: true, ..head(id) },
            &NativeItem { version: 1, client_flags: 0, expiry: 0, value_len: 1, value: b"v" },
        );
        let last = out.len() - 1;
        out[last] ^= 1;
        out
    }));
    assert!(flipped.contains("checksum"), "{flipped}");
}

#[test]
fn a_refusal_says_what_to_do_next() {
    for (status, next, may_be_done) in [
        (NativeStatus::Malformed, Next::FixRequest, false),
        (NativeStatus::Full, Next::RetryHere, false),
        (NativeStatus::Stopped, Next::RetryElsewhere, true),
        (NativeStatus::Damaged, Next::Restore, false),
        (NativeStatus::Internal, Next::Report, true),
    ] {
        let mut node = against(move |mut stream| {
            let id = ids(&mut stream, 1)[0];
            let mut out = Vec::new();
            reply::put_error(&mut out, ReplyHead { opcode: 0x11, ..head(id) }, status, "because");
            stream.write_all(&out).expect("it reads");
            let id = ids(&mut stream, 1)[0];
            stream.write_all(&item(id, b"v")).expect("it reads");
        });
        let error = node.put(key("k"), &Put::value(b"v")).expect_err("refused");
        assert_eq!((error.next(), error.may_be_done()), (next, may_be_done), "{error}");
        assert_eq!(error.to_string(), "because");
        assert!(node.get(key("k")).expect("goes on").is_some(), "the connection is good still");
    }
    let unknown = error_of(|id| {
        let mut out = Vec::new();
        reply::put_error(&mut out, head(id), NativeStatus::Full, "");
        out[3] = 0xEE;
        out
    });
    assert_eq!(unknown.next(), Next::Report);
}

#[test]
fn conditions_are_outcomes_and_no_errors() {
    for (status, stored) in [
        (NativeStatus::Exists, Stored::Exists),
        (NativeStatus::Absent, Stored::Absent),
        (NativeStatus::VersionDiffers, Stored::VersionDiffers),
    ] {
        let mut node = against(move |mut stream| {
            let id = ids(&mut stream, 1)[0];
            let mut out = Vec::new();
            reply::put(&mut out, ReplyHead { opcode: 0x11, ..head(id) }, status, |_| ());
            stream.write_all(&out).expect("it reads");
        });
        assert_eq!(node.put(key("k"), &Put::value(b"v")).expect("an outcome"), stored);
    }
}

#[test]
fn keys_are_checked_before_anything_is_sent() {
    let long = [b'k'; 1025];
    for wrong in
        [ItemRef::new(0, b"", b""), ItemRef::of_record(&long), ItemRef::new(0, b"r", &long)]
    {
        let error = wrong.expect_err("a wrong length");
        assert!(error.next() == Next::FixRequest && !error.may_be_done(), "{error}");
    }
    let nobody = ClientConnection::open("127.0.0.1:1", TIMEOUT).expect_err("nobody listens");
    assert!(nobody.to_string().contains("--native-port"), "{nobody}");
}

/// A page of items with these keys and empty values.
fn page(id: u64, keys: &[&'static [u8]], next: Option<&[u8]>) -> Vec<u8> {
    let item = |item: &&'static [u8]| NativePageItem {
        record: None,
        item,
        version: 1,
        client_flags: 2,
        expiry: 3,
        value_len: 0,
        value: Some(b""),
    };
    let mut out = Vec::new();
    let head = ReplyHead { opcode: Opcode::GetItems as u8, ..head(id) };
    reply::put_page(&mut out, head, keys.iter().map(item), 0, (next, false));
    out
}

/// The keys of a page, and the token of the next.
type KeysAndToken = (&'static [&'static [u8]], Option<&'static [u8]>);

/// The keys that a node shows that sends these pages, and its error.
fn shown(pages: &'static [KeysAndToken]) -> (Vec<String>, Option<ClientError>) {
    let mut node = against(move |mut stream| {
        for (keys, next) in pages {
            let id = ids(&mut stream, 1)[0];
            stream.write_all(&page(id, keys, *next)).expect("it reads");
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the client closes");
    });
    let (mut keys, mut failure) = (Vec::new(), None);
    for item in node.items(ItemsOf::record(0, "r").expect("a record")) {
        match item {
            Ok(item) => keys.push(String::from_utf8(item.item).expect("text")),
            Err(error) => assert!(failure.replace(error).is_none(), "one error is the last"),
        }
    }
    (keys, failure)
}

#[test]
fn pages_are_followed_to_the_one_without_a_token() {
    let (keys, failure) = shown(&[
        (&[b"a", b"b"], Some(b"1")),
        (&[], Some(b"2")),
        (&[b"c"], Some(b"2")),
        (&[b"d"], None),
    ]);
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!(keys, ["a", "b", "c", "d"]);
}

#[test]
fn pages_that_lead_nowhere_are_an_error() {
    let (keys, failure) = shown(&[(&[b"a"], Some(b"1")), (&[], Some(b"1"))]);
    assert_eq!(keys, ["a"]);
    assert!(matches!(failure, Some(ClientError::Foreign(_))), "{failure:?}");
    let (keys, failure) = shown(&[(&[b"a"], Some(b"1"))]);
    assert_eq!(keys, ["a"]);
    assert!(matches!(failure, Some(ClientError::Timeout { .. })), "{failure:?}");
}

#[test]
fn what_is_no_page_is_an_error() {
    let mut node = against(|mut stream| {
        let id = ids(&mut stream, 1)[0];
        let head = ReplyHead { opcode: Opcode::GetItems as u8, ..head(id) };
        let mut out = Vec::new();
        reply::put(&mut out, head, NativeStatus::Ok, |out| out.extend_from_slice(b"LRPGLRPG"));
        stream.write_all(&out).expect("it reads");
    });
    let of = ItemsOf::record(0, "r").expect("a record");
    let error = node.items(of).next().expect("an error").expect_err("no page");
    assert!(matches!(error, ClientError::Foreign(_)), "{error:?}");
    assert!(matches!(node.ping(), Err(ClientError::Spent)));
    let long = [0; 1025];
    assert!(matches!(ItemsOf::record(0, &long), Err(ClientError::Usage(_))));
    assert!(matches!(of.range(ItemRange::Prefix(&long)), Err(ClientError::Usage(_))));
}
