use larder_engine::entry::Metadata;
use larder_engine::operation::{Arithmetic, Delete, EXPIRED, Lease, Store, StoreMode};
use larder_protocol::memcached::binary::BINARY_MAGIC;

use super::*;

const NOW: u32 = 1_800_000_000;

fn codec() -> MemcachedBinary {
    MemcachedBinary::new(&Arc::new(Facts::example()), &NamespaceView::default())
}

/// A message with the opaque `opaq`.
fn message(opcode: u8, cas: u64, extras: &[u8], value: &[u8]) -> Vec<u8> {
    let key = if matches!(opcode, 0x07..=0x08 | 0x0A..=0x0B | 0x17 | 0x18) { "" } else { "key" };
    let lengths = (extras.len() + key.len() + value.len()) as u32;
    let mut bytes = vec![BINARY_MAGIC, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
    bytes.extend(lengths.to_be_bytes());
    bytes.extend(*b"opaq");
    bytes.extend(cas.to_be_bytes());
    [&bytes, extras, key.as_bytes(), value].concat()
}

fn store(opcode: u8, cas: u64, exptime: u32) -> Vec<u8> {
    let extras = [[0, 0, 0, 9], exptime.to_be_bytes()].concat();
    message(opcode, cas, &extras, b"value")
}

fn arithmetic(opcode: u8, cas: u64, exptime: u32) -> Vec<u8> {
    let extras = [&7u64.to_be_bytes()[..], &5u64.to_be_bytes(), &exptime.to_be_bytes()].concat();
    message(opcode, cas, &extras, b"")
}

/// What the message asks of the engine.
fn asked(bytes: &[u8], check: impl FnOnce(Meaning<'_>)) {
    let mut codec = codec();
    let step = codec.cut(bytes);
    let at = (0, Moment { second: NOW, nanoseconds: 0 });
    check(codec.meaning(&step, &mut (), at));
}

fn operation_of(bytes: &[u8], expected: Operation<'_>, kind: Kind, replaces: bool) {
    asked(bytes, |meaning| {
        let Meaning::Keyed(request) = meaning else { panic!("{meaning:?}") };
        assert_eq!(request.key, Key::memcached(b"key"));
        assert_eq!((request.operation, request.kind), (expected, kind), "{bytes:?}");
        assert_eq!(request.replaces, replaces);
    });
}

#[test]
fn reads() {
    let value = Read { value: true, ..Read::default() };
    let get = Kind::Get { touches: false };
    for opcode in [0x00, 0x09, 0x0C, 0x0D] {
        operation_of(&message(opcode, 0, b"", b""), Operation::Read(value), get, false);
    }
    let touching = Kind::Get { touches: true };
    for opcode in [0x1D, 0x1E, 0x23, 0x24] {
        let read = Operation::Read(Read { expiry: Some(NOW + 60), ..value });
        operation_of(&message(opcode, 0, &60u32.to_be_bytes(), b""), read, touching, false);
    }
    // There are no negative times here: what would be one is far away.
    for (exptime, expiry) in [(0, 0), (60, NOW + 60), (3_000_000, EXPIRED), (u32::MAX, u32::MAX)] {
        let read = Operation::Read(Read { expiry: Some(expiry), ..Read::default() });
        operation_of(&message(0x1C, 0, &exptime.to_be_bytes(), b""), read, Kind::Touch, false);
    }
}

#[test]
fn stores() {
    let expected = |mode, compare| Store {
        mode,
        value: b"value",
        client_flags: 9,
        expiry: NOW + 60,
        compare,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    };
    for (opcode, mode) in
        [(1, StoreMode::Set), (0x11, StoreMode::Set), (2, StoreMode::Add), (3, StoreMode::Replace)]
    {
        let is_set = mode == StoreMode::Set;
        let plain = Operation::Store(expected(mode, None));
        operation_of(&store(opcode, 0, 60), plain, Kind::Store, is_set);
        // With a CAS id all of them only compare.
        let compared = Operation::Store(expected(StoreMode::Set, Some(77)));
        operation_of(&store(opcode, 77, 60), compared, Kind::CompareAndStore, is_set);
    }
    for (opcode, mode) in [(0x0E, StoreMode::Append), (0x1A, StoreMode::Prepend)] {
        let plain = Store { client_flags: 0, expiry: 0, ..expected(mode, None) };
        let request = message(opcode, 0, b"", b"value");
        operation_of(&request, Operation::Store(plain), Kind::Store, false);
        let compared = Operation::Store(Store { compare: Some(5), ..plain });
        let request = message(opcode, 5, b"", b"value");
        operation_of(&request, compared, Kind::CompareAndStore, false);
    }
}

#[test]
fn deletes_and_numbers() {
    for (cas, compare) in [(0, None), (3, Some(3))] {
        let delete = Operation::Delete(Delete { compare, ..Delete::default() });
        operation_of(&message(0x04, cas, b"", b""), delete, Kind::Delete, false);
    }
    for (exptime, vivify) in [(60, Some((5, NOW + 60))), (0, Some((5, 0))), (u32::MAX, None)] {
        for (opcode, decrement) in [(5, false), (0x15, false), (6, true), (0x16, true)] {
            let (expiry, version) = (None, None);
            let compare = Some(2);
            let expected = Arithmetic { delta: 7, decrement, compare, vivify, expiry, version };
            let kind = if decrement { Kind::Decrement } else { Kind::Increment };
            let request = arithmetic(opcode, 2, exptime);
            operation_of(&request, Operation::Arithmetic(expected), kind, false);
        }
    }
    let mut too_large = store(0x01, 0, 0);
    too_large[8..12].copy_from_slice(&(1u32 << 20).to_be_bytes());
    let delete = Operation::Delete(Delete::default());
    operation_of(&too_large, delete, Kind::TooLarge, false);
}

#[test]
fn what_is_for_no_shard() {
    let is_constant = |meaning: Meaning<'_>| assert!(matches!(meaning, Meaning::Constant));
    asked(&message(0x0A, 0, b"", b""), is_constant);
    asked(&message(0x0B, 0, b"", b""), is_constant);
    asked(&message(0x21, 0, b"", b"\0user\0password"), is_constant);
    let closes = |meaning: Meaning<'_>| assert!(matches!(meaning, Meaning::Close));
    asked(&message(0x07, 0, b"", b""), closes);
    asked(&message(0x17, 0, b"", b""), closes);
    asked(&message(0x00, 0, b"extr", b""), closes);
    for (delay, at) in [(0u32, None), (60, Some(NOW + 59)), (1_000_000_000, None)] {
        asked(&message(0x08, 0, &delay.to_be_bytes(), b""), |meaning| {
            assert!(
                matches!(meaning, Meaning::Node(NodeRequest::Clear(found)) if found == at),
                "{meaning:?}"
            );
        });
    }
    let facts = Facts { flush_enabled: false, ..Facts::example() };
    let mut codec = MemcachedBinary::new(&Arc::new(facts), &NamespaceView::default());
    let bytes = message(0x18, 0, b"", b"");
    let step = codec.cut(&bytes);
    let at = (0, Moment { second: NOW, nanoseconds: 0 });
    assert!(matches!(codec.meaning(&step, &mut (), at), Meaning::Constant));
    let mut out = Vec::new();
    codec.put_constant(&step, &mut out);
    assert_eq!(summary(&out), (0x20, 0, "Auth failure.".into()));
}

/// Status, CAS id, and the body as text.
fn summary(reply: &[u8]) -> (u16, u64, String) {
    assert_eq!((reply[0], &reply[12..16]), (0x81, &b"opaq"[..]));
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let body = reply[24..].escape_ascii().to_string();
    assert_eq!(number(&reply[8..12]), reply.len() as u64 - 24);
    (number(&reply[6..8]) as u16, number(&reply[16..24]), body)
}

fn found(outcome: Outcome) -> Answer<'static> {
    Answer {
        outcome,
        metadata: Metadata { version: 77, client_flags: 5, expiry: NOW + 100, state: 0 },
        value: b"value",
        value_len: 5,
        lease: Lease::default(),
        last_access: NOW - 9,
        fetched: true,
    }
}

/// The answer, which must be the same at once and after waiting.
fn answered(bytes: &[u8], answer: Result<&Answer<'_>, NoAnswer>) -> Vec<u8> {
    let mut codec = codec();
    let step = codec.cut(bytes);
    let (mut at_once, mut later) = (b"before".to_vec(), b"before".to_vec());
    codec.put(&step, answer, NOW, &mut at_once);
    let token = codec.token(&step);
    assert!(MemcachedBinary::token_bytes(&token) <= 3);
    codec.put_waited(&token, answer, (NOW, 1), &mut later);
    assert_eq!(at_once, later);
    at_once.split_off(6)
}

#[test]
fn every_outcome_has_its_answer() {
    use Outcome::*;
    let quiet_none = None;
    let not_found = Some((1, 0, "Not found"));
    let exists = Some((2, 0, "Data exists for key."));
    let not_stored = Some((5, 0, "Not stored."));
    let done = |version| Some((0, version, ""));
    let time = 60u32.to_be_bytes();
    for (bytes, outcome, expected) in [
        (message(0x00, 0, b"", b""), Hit, Some((0, 77, "\\x00\\x00\\x00\\x05value"))),
        (message(0x0D, 0, b"", b""), Hit, Some((0, 77, "\\x00\\x00\\x00\\x05keyvalue"))),
        (message(0x1C, 0, &time, b""), Hit, Some((0, 77, "\\x00\\x00\\x00\\x05"))),
        (message(0x1E, 0, &time, b""), Hit, Some((0, 77, "\\x00\\x00\\x00\\x05value"))),
        (message(0x23, 0, &time, b""), Hit, Some((0, 77, "\\x00\\x00\\x00\\x05keyvalue"))),
        (message(0x00, 0, b"", b""), Miss, not_found),
        (message(0x09, 0, b"", b""), Miss, quiet_none),
        (message(0x0C, 0, b"", b""), Miss, Some((1, 0, "key"))),
        (message(0x0D, 0, b"", b""), Miss, quiet_none),
        (message(0x1C, 0, &time, b""), Miss, not_found),
        (message(0x1E, 0, &time, b""), Miss, quiet_none),
        (message(0x23, 0, &time, b""), Miss, Some((1, 0, "key"))),
        (message(0x24, 0, &time, b""), Miss, quiet_none),
        (store(0x01, 0, 0), Stored, done(77)),
        (store(0x11, 0, 0), Stored, quiet_none),
        (store(0x01, 5, 0), Exists, exists),
        (store(0x11, 5, 0), Exists, exists),
        (store(0x01, 5, 0), NotFound, not_found),
        (store(0x02, 0, 0), NotStored, exists),
        (store(0x12, 0, 0), NotStored, exists),
        (store(0x03, 0, 0), NotStored, not_found),
        (message(0x0E, 0, b"", b"v"), NotStored, not_stored),
        (message(0x19, 0, b"", b"v"), TooLarge, not_stored),
        (message(0x0F, 0, b"", b"v"), Stored, done(77)),
        (message(0x1A, 0, b"", b"v"), Stored, quiet_none),
        (message(0x04, 0, b"", b""), Deleted, done(0)),
        (message(0x14, 0, b"", b""), Deleted, quiet_none),
        (message(0x14, 0, b"", b""), NotFound, not_found),
        (message(0x04, 9, b"", b""), Exists, exists),
        (arithmetic(0x05, 0, 0), Number(65), Some((0, 77, "\\x00\\x00\\x00\\x00\\x00\\x00\\x00A"))),
        (arithmetic(0x15, 0, 0), Number(65), quiet_none),
        (arithmetic(0x06, 0, 0), NotFound, not_found),
        (arithmetic(0x16, 3, 0), Exists, exists),
        (
            arithmetic(0x15, 0, 0),
            NotNumeric,
            Some((6, 0, "Non-numeric server-side value for incr or decr")),
        ),
    ] {
        let reply = answered(&bytes, Ok(&found(outcome)));
        let summary = (!reply.is_empty()).then(|| summary(&reply));
        let expected = expected.map(|(status, cas, body)| (status, cas, body.to_owned()));
        assert_eq!(summary, expected, "opcode {:#x} {outcome:?}", bytes[1]);
        assert!(reply.is_empty() || reply[1] == bytes[1]);
    }
}

#[test]
fn failures_are_told_however_quiet_the_request() {
    for (failure, status, text) in [
        (NoAnswer::Damaged, 0x84, "stored data of this key is damaged"),
        (NoAnswer::Full, 0x82, "Out of memory allocating item"),
        (NoAnswer::Stopped, 0x84, "the shard has stopped taking writes"),
        (NoAnswer::ReadFailed, 0x84, "reading from the disk failed"),
    ] {
        for bytes in [message(0x09, 0, b"", b""), store(0x11, 0, 0)] {
            let reply = answered(&bytes, Err(failure));
            assert_eq!(summary(&reply), (status, 0, text.to_owned()));
        }
        let mut too_large = store(0x11, 0, 0);
        too_large[8..12].copy_from_slice(&(1u32 << 20).to_be_bytes());
        let refused = (3, 0, "Too large.".to_owned());
        assert_eq!(summary(&answered(&too_large, Err(failure))), refused);
        assert_eq!(summary(&answered(&too_large, Ok(&found(Outcome::NotFound)))), refused);
    }
}

#[test]
fn the_whole_node_answers() {
    let ask = |bytes: &[u8], answer: &NodeAnswer| {
        let mut codec = codec();
        let step = codec.cut(bytes);
        let (token, mut out) = (codec.token(&step), Vec::new());
        codec.put_node(&token, answer, &mut out);
        out
    };
    let flushed = ask(&message(0x08, 0, b"", b""), &NodeAnswer::Cleared);
    assert_eq!(summary(&flushed), (0, 0, String::new()));
    assert!(ask(&message(0x18, 0, b"", b""), &NodeAnswer::Cleared).is_empty());
    let mut settings = message(0x10, 0, b"", b"");
    settings[3] = 8;
    settings[11] = 8;
    settings.truncate(24);
    settings.extend(*b"settings");
    let told = ask(&settings, &NodeAnswer::Reports(Vec::new(), NOW));
    let text = told.escape_ascii().to_string();
    assert!(text.contains("item_size_max1048576"), "{text}");
    assert_eq!(summary(&told[told.len() - 24..]), (0, 0, String::new()), "the end is marked");
    let unknown = ask(&message(0x10, 0, b"", b""), &NodeAnswer::Reports(Vec::new(), NOW));
    assert_eq!(summary(&unknown), (1, 0, "Not found".to_owned()));
}

#[test]
fn what_ends_a_connection_is_said_in_its_protocol() {
    let mut out = Vec::new();
    codec().put_turned_away(&mut out);
    assert_eq!((out[7], &out[24..]), (0x85, &b"Too many open connections"[..]));
    out.clear();
    codec().put_shed(&mut out);
    assert_eq!((out[7], &out[24..]), (0x82, &b"out of memory reading request"[..]));
    let reply = answered(&store(0x01, 0, 0), Ok(&found(Outcome::Stored)));
    out.clear();
    codec().put_stopped(&reply, &mut out);
    assert_eq!(out[1], 0x01);
    assert_eq!(summary(&out), (0x84, 0, "the shard has stopped taking writes".to_owned()));
}
