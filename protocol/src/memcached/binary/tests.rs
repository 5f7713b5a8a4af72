use super::reply::{BinaryBody, head_of, put, put_done, put_error};
use super::*;
use crate::memcached::{Direction, Limits, StoreVerb};

const LIMITS: Limits = Limits { key_bytes_max: 250, item_bytes_max: 1 << 10, line_bytes_max: 0 };

/// A message whose lengths are true.
fn message(opcode: u8, cas: u64, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![BINARY_MAGIC, opcode];
    bytes.extend((key.len() as u16).to_be_bytes());
    bytes.extend([extras.len() as u8, 0, 0, 0]);
    bytes.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    bytes.extend(*b"opaq");
    bytes.extend(cas.to_be_bytes());
    [&bytes, extras, key, value].concat()
}

fn head(opcode: u8, is_quiet: bool) -> BinaryHead {
    BinaryHead { opcode, opaque: *b"opaq", is_quiet }
}

fn one(bytes: &[u8]) -> (usize, BinaryParsed<'_>) {
    let step = BinaryParser::default().next(&LIMITS, bytes);
    (step.consumed, step.parsed)
}

/// Everything that `bytes` hold, when they arrive in pieces that end at `cuts`; and whether what is
/// left is waited for.
fn all_of(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, bool) {
    let (mut parser, mut at, mut found) = (BinaryParser::default(), 0, Vec::new());
    for &end in cuts.iter().chain([&bytes.len()]) {
        while at < end {
            let step = parser.next(&LIMITS, &bytes[at..end]);
            at += step.consumed;
            match step.parsed {
                BinaryParsed::NeedMore { bytes: needed } => {
                    assert!(needed > end - at, "it asks for what is there");
                    break;
                }
                BinaryParsed::Close => {
                    found.push("close".to_owned());
                    return (found, false);
                }
                parsed => found.push(format!("{parsed:?}")),
            }
        }
    }
    (found, true)
}

fn read(with_key: bool, with_value: bool, new_exptime: Option<u32>) -> BinaryRequest<'static> {
    BinaryRequest::Read(BinaryRead { key: b"key", with_key, with_value, new_exptime })
}

fn store(verb: StoreVerb, client_flags: u32, exptime: u32) -> BinaryRequest<'static> {
    let (key, value, cas) = (b"key", b"value", None);
    BinaryRequest::Store(BinaryStore { verb, key, client_flags, exptime, value, cas })
}

fn arithmetic(direction: Direction, initial: Option<(u64, u32)>) -> BinaryRequest<'static> {
    let (key, delta, cas) = (b"key", 7, None);
    BinaryRequest::Arithmetic(BinaryArithmetic { key, direction, delta, initial, cas })
}

/// Every opcode, with whether it is quiet, what it carries, and what it means.
fn every_request() -> Vec<(u8, bool, Vec<u8>, BinaryRequest<'static>)> {
    let simple =
        |opcode, is_quiet, request| (opcode, is_quiet, message(opcode, 0, b"", b"", b""), request);
    let keyed = |opcode, is_quiet, extras: &[u8], request| {
        (opcode, is_quiet, message(opcode, 0, extras, b"key", b""), request)
    };
    let valued = |opcode, is_quiet, extras: &[u8], request| {
        (opcode, is_quiet, message(opcode, 0, extras, b"key", b"value"), request)
    };
    let delete = BinaryRequest::Delete(BinaryDelete { key: b"key", cas: None });
    let (flags_and_time, time) = (&[0, 0, 1, 2, 0, 0, 0, 60][..], &[0, 0, 0, 60][..]);
    let number = [7u64.to_be_bytes(), 5u64.to_be_bytes()].concat();
    let number: &[u8] = &[&number[..], time].concat();
    let (up, down) = (Direction::Increment, Direction::Decrement);
    let touched = Some(60);
    vec![
        keyed(0x00, false, b"", read(false, true, None)),
        keyed(0x09, true, b"", read(false, true, None)),
        keyed(0x0C, false, b"", read(true, true, None)),
        keyed(0x0D, true, b"", read(true, true, None)),
        keyed(0x1C, false, time, read(false, false, touched)),
        keyed(0x1D, false, time, read(false, true, touched)),
        keyed(0x1E, true, time, read(false, true, touched)),
        keyed(0x23, false, time, read(true, true, touched)),
        keyed(0x24, true, time, read(true, true, touched)),
        valued(0x01, false, flags_and_time, store(StoreVerb::Set, 258, 60)),
        valued(0x11, true, flags_and_time, store(StoreVerb::Set, 258, 60)),
        valued(0x02, false, flags_and_time, store(StoreVerb::Add, 258, 60)),
        valued(0x12, true, flags_and_time, store(StoreVerb::Add, 258, 60)),
        valued(0x03, false, flags_and_time, store(StoreVerb::Replace, 258, 60)),
        valued(0x13, true, flags_and_time, store(StoreVerb::Replace, 258, 60)),
        valued(0x0E, false, b"", store(StoreVerb::Append, 0, 0)),
        valued(0x19, true, b"", store(StoreVerb::Append, 0, 0)),
        valued(0x0F, false, b"", store(StoreVerb::Prepend, 0, 0)),
        valued(0x1A, true, b"", store(StoreVerb::Prepend, 0, 0)),
        keyed(0x04, false, b"", delete),
        keyed(0x14, true, b"", delete),
        keyed(0x05, false, number, arithmetic(up, Some((5, 60)))),
        keyed(0x15, true, number, arithmetic(up, Some((5, 60)))),
        keyed(0x06, false, number, arithmetic(down, Some((5, 60)))),
        keyed(0x16, true, number, arithmetic(down, Some((5, 60)))),
        simple(0x07, false, BinaryRequest::Quit),
        simple(0x17, true, BinaryRequest::Quit),
        simple(0x08, false, BinaryRequest::Flush { delay: 0 }),
        simple(0x18, true, BinaryRequest::Flush { delay: 0 }),
        simple(0x0A, false, BinaryRequest::Noop),
        simple(0x0B, false, BinaryRequest::Version),
        simple(0x10, false, BinaryRequest::Statistics { section: b"" }),
        keyed(0x10, false, b"", BinaryRequest::Statistics { section: b"key" }),
        (
            0x1B,
            false,
            message(0x1B, 0, &[0, 0, 0, 1], b"", b""),
            BinaryRequest::Verbosity { level: 1 },
        ),
        (0x08, false, message(0x08, 0, time, b"", b""), BinaryRequest::Flush { delay: 60 }),
    ]
}

#[test]
fn every_opcode_is_read() {
    let every = every_request();
    for (opcode, is_quiet, bytes, request) in &every {
        let expected = BinaryParsed::Request(head(*opcode, *is_quiet), *request);
        assert_eq!(one(bytes), (bytes.len(), expected), "opcode {opcode:#x}");
    }
    let known: Vec<u8> =
        (0..=255).filter(|&code| opcode::Verb::from_opcode(code).is_some()).collect();
    assert!(known.iter().all(|known| every.iter().any(|(opcode, ..)| opcode == known)));
}

#[test]
fn cas_ids_and_increments_that_create_nothing() {
    let bytes = message(0x04, u64::MAX, b"", b"key", b"");
    let delete = BinaryRequest::Delete(BinaryDelete { key: b"key", cas: Some(u64::MAX) });
    assert_eq!(one(&bytes).1, BinaryParsed::Request(head(4, false), delete));
    let extras = [&7u64.to_be_bytes()[..], &[0; 8], &[0xFF; 4]].concat();
    let bytes = message(0x05, 0, &extras, b"key", b"");
    let request = arithmetic(Direction::Increment, None);
    assert_eq!(one(&bytes).1, BinaryParsed::Request(head(5, false), request));
}

#[test]
fn the_result_is_the_same_however_the_input_is_cut() {
    let mut bytes: Vec<u8> =
        every_request().into_iter().flat_map(|(_, _, bytes, _)| bytes).collect();
    bytes.extend(message(0x20, 0, b"", b"mech", b"what is passed over"));
    bytes.extend(message(0x01, 0, &[0; 8], b"key", &[7; 2000]));
    bytes.extend(message(0x0A, 0, b"", b"", b""));
    bytes.extend(message(0x0A, 0, b"", b"a noop has no key", b""));
    bytes.extend(message(0x0A, 0, b"", b"", b""));
    let whole = all_of(&bytes, &[]);
    assert_eq!((whole.0.len(), whole.1), (every_request().len() + 5, false));
    for cut in 1..bytes.len() {
        assert_eq!(all_of(&bytes, &[cut]), whole, "cut at {cut}");
    }
    let each: Vec<usize> = (1..bytes.len()).collect();
    assert_eq!(all_of(&bytes, &each), whole);
}

fn refused(status: BinaryStatus, is_last: bool) -> impl Fn(&BinaryParsed<'_>) -> bool {
    move |parsed| match parsed {
        BinaryParsed::Refused(refusal) => {
            (refusal.status, refusal.is_last) == (status, is_last)
                && refusal.head.opaque == *b"opaq"
        }
        _ => false,
    }
}

#[test]
fn lengths_that_do_not_belong_to_the_opcode_end_the_connection() {
    let long_key = vec![b'k'; 251];
    for (opcode, extras, key, value) in [
        (0x00, &b""[..], &b""[..], &b""[..]),
        (0x00, b"extr", b"key", b""),
        (0x00, b"", b"key", b"value"),
        (0x00, b"", &long_key, b""),
        (0x01, b"", b"key", b"value"),
        (0x01, &[0; 8], b"", b"value"),
        (0x04, b"", b"", b""),
        (0x05, &[0; 19], b"key", b""),
        (0x05, &[0; 20], b"key", b"v"),
        (0x07, b"", b"key", b""),
        (0x08, &[0; 3], b"", b""),
        (0x0A, b"", b"", b"v"),
        (0x0B, b"", b"key", b""),
        (0x0E, &[0; 8], b"key", b"value"),
        (0x10, &[0; 4], b"", b""),
        (0x1B, b"", b"", b""),
        (0x1C, b"", b"key", b""),
        (0x1D, &[0; 4], b"", b""),
        (0x24, &[0; 8], b"key", b""),
    ] {
        let bytes = message(opcode, 0, extras, key, value);
        let (consumed, parsed) = one(&bytes);
        assert_eq!(consumed, BINARY_HEADER_BYTES);
        assert!(refused(BinaryStatus::Invalid, true)(&parsed), "{opcode:#x}: {parsed:?}");
        let mut parser = BinaryParser::default();
        parser.next(&LIMITS, &bytes);
        assert_eq!(parser.next(&LIMITS, &bytes).parsed, BinaryParsed::Close);
    }
}

#[test]
fn a_body_that_is_shorter_than_its_parts_ends_the_connection() {
    for body_bytes in [0u32, 2, 10] {
        let mut bytes = message(0x01, 0, &[0; 8], b"key", b"");
        bytes[8..12].copy_from_slice(&body_bytes.to_be_bytes());
        let parsed = one(&bytes).1;
        assert!(refused(BinaryStatus::Unknown, true)(&parsed), "{body_bytes}: {parsed:?}");
    }
}

#[test]
fn unknown_opcodes_are_passed_over_with_their_bodies() {
    for opcode in [0x1F, 0x20, 0x21, 0x22, 0x25, 0x30, 0xFF] {
        let mut bytes = message(opcode, 0, b"ex", b"PLAIN", b"\0user\0password");
        bytes.extend(message(0x0A, 0, b"", b"", b""));
        let mut parser = BinaryParser::default();
        let step = parser.next(&LIMITS, &bytes);
        assert!(refused(BinaryStatus::Unknown, false)(&step.parsed), "{:?}", step.parsed);
        let step = parser.next(&LIMITS, &bytes[step.consumed..]);
        assert_eq!(step.parsed, BinaryParsed::Request(head(0x0A, false), BinaryRequest::Noop));
    }
}

#[test]
fn what_is_too_large_is_passed_over_and_a_set_drops_the_old_item() {
    // The header says 4 GiB; nothing of that is waited for.
    for (opcode, drops) in [(0x01, true), (0x11, true), (0x02, false), (0x03, false)] {
        let mut bytes = message(opcode, 0, &[0; 8], b"key", b"");
        bytes[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        let BinaryParsed::Refused(refusal) = one(&bytes).1 else { panic!("it is too large") };
        assert_eq!(refusal.status, BinaryStatus::TooLarge);
        assert_eq!((refusal.drop_key, refusal.is_last), (drops.then_some(&b"key"[..]), false));
    }
    // The largest item, and one byte more.
    let most = 1024 - 3 - crate::memcached::ITEM_OVERHEAD_BYTES;
    let bytes = message(0x0E, 0, b"", b"key", &vec![0; most]);
    assert!(matches!(one(&bytes).1, BinaryParsed::Request(..)));
    let bytes = message(0x0E, 0, b"", b"key", &vec![0; most + 1]);
    assert!(refused(BinaryStatus::TooLarge, false)(&one(&bytes).1));
}

#[test]
fn what_is_no_request_is_not_waited_for() {
    for first in [0x81, b'g', 0] {
        assert_eq!(one(&[first]), (0, BinaryParsed::Close));
    }
    assert_eq!(one(&[BINARY_MAGIC]), (0, BinaryParsed::NeedMore { bytes: 24 }));
}

#[test]
fn replies() {
    let mut out = Vec::new();
    let body = BinaryBody { extras: &[0, 0, 0, 5], key: b"key", value: b"value" };
    put(&mut out, head(0x0D, true), BinaryStatus::Ok, 0x0102, &body);
    let expected = b"\x81\x0D\0\x03\x04\0\0\0\0\0\0\x0Copaq\0\0\0\0\0\0\x01\x02\0\0\0\x05keyvalue";
    assert_eq!(out, expected);
    assert_eq!(head_of(&out), head(0x0D, false));

    out.clear();
    put_done(&mut out, head(0x11, true), 9);
    assert!(out.is_empty(), "quiet");
    put_done(&mut out, head(0x01, false), 9);
    assert_eq!(out, b"\x81\x01\0\0\0\0\0\0\0\0\0\0opaq\0\0\0\0\0\0\0\x09");

    for (status, code, text) in [
        (BinaryStatus::NotFound, 0x01, "Not found"),
        (BinaryStatus::Exists, 0x02, "Data exists for key."),
        (BinaryStatus::TooLarge, 0x03, "Too large."),
        (BinaryStatus::Invalid, 0x04, "Invalid arguments"),
        (BinaryStatus::NotStored, 0x05, "Not stored."),
        (BinaryStatus::NotNumeric, 0x06, "Non-numeric server-side value for incr or decr"),
        (BinaryStatus::Denied, 0x20, "Auth failure."),
        (BinaryStatus::Unknown, 0x81, "Unknown command"),
        (BinaryStatus::OutOfMemory, 0x82, "Out of memory"),
        (BinaryStatus::Internal, 0x84, "Internal error"),
        (BinaryStatus::Busy, 0x85, "Busy"),
    ] {
        out.clear();
        put_error(&mut out, head(0x01, true), status, status.text());
        assert_eq!((&out[6..8], &out[24..]), (&[0, code][..], text.as_bytes()));
        assert_eq!(usize::from(out[11]), text.len());
    }
}
