use super::*;
use crate::memcached::request::{
    MetaArithmetic, MetaDebug, MetaDelete, MetaGet, MetaSet, Request, WireKey,
};
use crate::memcached::{Limits, Parsed, Parser, error};
use proptest::prelude::*;

const ITEM: ItemView<'_> = ItemView {
    value: b"hello",
    value_bytes: 5,
    client_flags: 42,
    version: 1234,
    ttl_seconds: 59,
    last_access_seconds: 7,
    is_fetched: true,
};

fn request(line: &str) -> Request<'_> {
    match Parser::new().next(&Limits::default(), line.as_bytes()).parsed {
        Parsed::Request(request) => request,
        other => panic!("{line:?} is {other:?}"),
    }
}

fn meta_get(line: &str) -> MetaGet<'_> {
    let Request::MetaGet(get) = request(line) else { panic!("{line:?} is no mg") };
    get
}

fn meta_set_request(line: &str) -> MetaSet<'_> {
    let Request::MetaSet(set) = request(line) else { panic!("{line:?} is no ms") };
    set
}

fn meta_delete_request(line: &str) -> MetaDelete<'_> {
    let Request::MetaDelete(delete) = request(line) else { panic!("{line:?} is no md") };
    delete
}

fn meta_arithmetic_request(line: &str) -> MetaArithmetic<'_> {
    let Request::MetaArithmetic(arithmetic) = request(line) else { panic!("{line:?} is no ma") };
    arithmetic
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before|".to_vec();
    write(&mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("before|").expect("what was there stays").to_owned()
}

#[test]
fn classic_answers() {
    let get = |with_cas| GetRequest { key: b"key", with_cas, new_exptime: None };
    assert_eq!(written(|out| value(out, &get(false), 0, 9, b"ab")), "VALUE key 0 2\r\nab\r\n");
    assert_eq!(
        written(|out| value(out, &get(true), u32::MAX, u64::MAX, b"")),
        "VALUE key 4294967295 0 18446744073709551615\r\n\r\n"
    );
    assert_eq!(written(|out| number(out, 0)), "0\r\n");
    assert_eq!(written(|out| version(out, "1.6.45")), "VERSION 1.6.45\r\n");
    assert_eq!(written(|out| stat(out, "pid", "1")), "STAT pid 1\r\n");
    assert_eq!(
        written(|out| line(out, error::SHUTDOWN_NOT_ENABLED)),
        "SERVER_ERROR: shutdown not enabled\r\n"
    );
    for (reply, text) in [
        (StoreReply::Stored, "STORED\r\n"),
        (StoreReply::NotStored, "NOT_STORED\r\n"),
        (StoreReply::Exists, "EXISTS\r\n"),
        (StoreReply::NotFound, "NOT_FOUND\r\n"),
    ] {
        assert_eq!(written(|out| stored(out, reply, false)), text);
        assert_eq!(written(|out| stored(out, reply, true)), "");
    }
}

#[test]
fn a_meta_hit_returns_what_was_asked_for_in_that_order() {
    for (line, answer) in [
        ("mg key\r\n", "HD\r\n"),
        ("mg key v\r\n", "VA 5\r\nhello\r\n"),
        ("mg key q u P1 L2 T0 N0 R0\r\n", "HD\r\n"),
        ("mg key v f\r\n", "VA 5 f42\r\nhello\r\n"),
        ("mg key  k  s t   c f l h O12 \r\n", "HD kkey s5 t59 c1234 f42 l7 h1 O12\r\n"),
        ("mg key O h l f c t s k v q\r\n", "VA 5 O h1 l7 f42 c1234 t59 s5 kkey\r\nhello\r\n"),
        ("mg key Oksv k\r\n", "HD Oksv kkey\r\n"),
        ("mg Zm9v b k v\r\n", "VA 5 kZm9v b\r\nhello\r\n"),
        ("mg Zm9v b\r\n", "HD\r\n"),
        ("mg key v C1234 c\r\n", "HD c1234\r\n"),
        ("mg key v C1233\r\n", "VA 5\r\nhello\r\n"),
    ] {
        let marks = RecacheMarks::default();
        let answered = written(|out| meta_hit(out, &meta_get(line), &ITEM, marks));
        assert_eq!(answered, answer, "{line:?}");
    }
    let fresh = ItemView { ttl_seconds: -1, is_fetched: false, value: b"", ..ITEM };
    let request = meta_get("mg key v t h\r\n");
    let answer = |marks| written(|out| meta_hit(out, &request, &fresh, marks));
    let marks = RecacheMarks { is_won: true, ..RecacheMarks::default() };
    assert_eq!(answer(marks), "VA 0 t-1 h0 W\r\n\r\n");
    let marks = RecacheMarks { is_won: true, is_stale: true, is_already_won: false };
    assert_eq!(answer(marks), "VA 0 t-1 h0 X W\r\n\r\n");
    let marks = RecacheMarks { is_won: false, is_stale: true, is_already_won: true };
    assert_eq!(answer(marks), "VA 0 t-1 h0 Z X\r\n\r\n");
}

#[test]
fn a_meta_miss_echoes_key_and_opaque_unless_quiet() {
    for (line, answer) in [
        ("mg key v\r\n", "EN\r\n"),
        ("mg key s O1 t k\r\n", "EN O1 kkey\r\n"),
        ("mg Zm9v k b\r\n", "EN kZm9v b\r\n"),
        ("mg key q k\r\n", ""),
    ] {
        assert_eq!(written(|out| meta_miss(out, &meta_get(line))), answer, "{line:?}");
    }
}

#[test]
fn meta_set_answers() {
    use StoreReply::{Exists, NotFound, NotStored, Stored};
    for (line, reply, answer) in [
        ("ms key 1\r\nx\r\n", Stored, "HD\r\n"),
        ("ms key 1 s c O1 k F1 T0\r\nx\r\n", Stored, "HD s1 c99 O1 kkey\r\n"),
        ("ms Zm9v 1 b k c\r\nx\r\n", Stored, "HD kZm9v b c99\r\n"),
        ("ms key 1 q k\r\nx\r\n", Stored, ""),
        ("ms key 1 q\r\nx\r\n", NotStored, "NS\r\n"),
        ("ms key 1 q O2\r\nx\r\n", Exists, "EX O2\r\n"),
        ("ms key 1 q k\r\nx\r\n", NotFound, "NF kkey\r\n"),
    ] {
        let request = meta_set_request(line);
        let answered = written(|out| meta_set(out, &request, reply, 99, 1));
        assert_eq!(answered, answer, "{line:?}");
    }
}

#[test]
fn meta_delete_answers() {
    use DeleteReply::{Deleted, Exists, NotFound};
    for (line, reply, answer) in [
        ("md key\r\n", Deleted, "HD\r\n"),
        ("md key O1 k I T0\r\n", Deleted, "HD O1 kkey\r\n"),
        ("md key q O1\r\n", Deleted, ""),
        ("md key q O1\r\n", NotFound, "NF O1\r\n"),
        ("md Zm9v q b k\r\n", Exists, "EX kZm9v b\r\n"),
    ] {
        let request = meta_delete_request(line);
        assert_eq!(written(|out| meta_delete(out, &request, reply)), answer, "{line:?}");
    }
}

#[test]
fn meta_arithmetic_answers() {
    use ArithmeticReply::{Exists, NotFound, NotStored, Number};
    let hit = Number { number: 120, version: 8, ttl_seconds: 30 };
    for (line, reply, answer) in [
        ("ma key\r\n", hit, "HD\r\n"),
        ("ma key t c O1 k N0\r\n", hit, "HD t30 c8 O1 kkey\r\n"),
        ("ma key v c\r\n", hit, "VA 3 c8\r\n120\r\n"),
        ("ma key t v\r\n", Number { number: 0, version: 1, ttl_seconds: -1 }, "VA 1 t-1\r\n0\r\n"),
        ("ma key q O1\r\n", hit, ""),
        ("ma key q v\r\n", hit, ""),
        ("ma key q O1 t\r\n", NotFound, "NF O1\r\n"),
        ("ma key q\r\n", NotStored, "NS\r\n"),
        ("ma key q k c\r\n", Exists, "EX kkey\r\n"),
    ] {
        let request = meta_arithmetic_request(line);
        assert_eq!(written(|out| meta_arithmetic(out, &request, reply)), answer, "{line:?}");
    }
}

#[test]
fn meta_debug_and_noop_answers() {
    let view = DebugView {
        ttl_seconds: -1,
        last_access_seconds: 3,
        version: 11,
        is_fetched: false,
        class: 1,
        item_bytes: 63,
    };
    let request = MetaDebug { key: WireKey::plain(b"key") };
    assert_eq!(
        written(|out| meta_debug(out, &request, Some(&view))),
        "ME key exp=-1 la=3 cas=11 fetch=no cls=1 size=63\r\n"
    );
    let expiring = DebugView { ttl_seconds: 5, is_fetched: true, ..view };
    assert_eq!(
        written(|out| meta_debug(out, &request, Some(&expiring))),
        "ME key exp=5 la=3 cas=11 fetch=yes cls=1 size=63\r\n"
    );
    assert_eq!(written(|out| meta_debug(out, &request, None)), "EN\r\n");
    assert_eq!(META_NOOP, b"MN\r\n");
}

/// Splits an answer's first line into status and tokens, and returns what follows the line.
fn split_answer(answer: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let end = answer.windows(2).position(|pair| pair == b"\r\n").unwrap();
    (answer[..end].split(|&byte| byte == b' ').collect(), &answer[end + 2..])
}

proptest! {
    #[test]
    fn meta_hits_read_back(
        value in proptest::collection::vec(any::<u8>(), 0..300),
        version: u64, client_flags: u32, ttl_seconds in -1i64..100_000, is_fetched: bool,
        last_access_seconds: u64,
    ) {
        let item = ItemView {
            value: &value,
            value_bytes: value.len(),
            client_flags,
            version,
            ttl_seconds,
            last_access_seconds,
            is_fetched,
        };
        let mut out = Vec::new();
        let request = meta_get("mg key v c f t h l s\r\n");
        meta_hit(&mut out, &request, &item, RecacheMarks::default());
        let (tokens, body) = split_answer(&out);
        let expected = format!(
            "VA {} c{version} f{client_flags} t{ttl_seconds} h{} l{last_access_seconds} s{}",
            value.len(), u8::from(is_fetched), value.len(),
        );
        prop_assert_eq!(tokens.join(&b' '), expected.as_bytes());
        prop_assert_eq!(body, [&value[..], b"\r\n"].concat());
    }

    #[test]
    fn classic_values_read_back(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        version: u64, client_flags: u32,
    ) {
        let mut out = Vec::new();
        let request = GetRequest { key: b"some-key", with_cas: true, new_exptime: None };
        value(&mut out, &request, client_flags, version, &bytes);
        let (tokens, body) = split_answer(&out);
        let expected = format!("VALUE some-key {client_flags} {} {version}", bytes.len());
        prop_assert_eq!(tokens.join(&b' '), expected.as_bytes());
        prop_assert_eq!(body, [&bytes[..], b"\r\n"].concat());
    }
}
