use super::*;
use crate::memcached::error::{
    ARITHMETIC_FLAGS, BAD_ARITHMETIC_MODE, BAD_BASE64_KEY, BAD_FORMAT, BAD_META_DELTA,
    BAD_META_INITIAL, BAD_SET_MODE, BAD_TOKEN, DUPLICATE_FLAG, ERROR, INVALID_FLAG,
    OPAQUE_TOO_LONG, TOO_MANY_FLAGS,
};
use crate::memcached::request::{
    Direction, KeyScratch, MetaArithmetic, MetaDebug, MetaDelete, MetaFlags, MetaGet, StoreVerb,
    letter_bit,
};

fn flags<'a>(raw: &'a [u8], letters: &[u8]) -> MetaFlags<'a> {
    let letters = letters.iter().fold(0, |bits, &letter| bits | letter_bit(letter));
    MetaFlags { raw, letters, ..MetaFlags::default() }
}

fn key(wire: &[u8]) -> WireKey<'_> {
    WireKey::plain(wire)
}

fn meta_get<'a>(key: WireKey<'a>, flags: MetaFlags<'a>) -> Parsed<'a> {
    request(Request::MetaGet(MetaGet { key, flags }))
}

fn meta_delete<'a>(key: WireKey<'a>, flags: MetaFlags<'a>) -> Parsed<'a> {
    request(Request::MetaDelete(MetaDelete { key, flags }))
}

fn meta_set<'a>(flags: MetaFlags<'a>, verb: StoreVerb) -> Parsed<'a> {
    request(Request::MetaSet(MetaSet { key: key(b"k"), flags, verb, value: b"\r\n" }))
}

fn meta_arithmetic<'a>(flags: MetaFlags<'a>, direction: Direction) -> Parsed<'a> {
    let (delta, initial) = (flags.delta.unwrap_or(1), flags.initial.unwrap_or(0));
    request(Request::MetaArithmetic(MetaArithmetic {
        key: key(b"k"),
        flags,
        direction,
        delta,
        initial,
    }))
}

#[test]
fn meta_get_reads_every_flag() {
    check(&[
        (b"mg k\r\n", &[meta_get(key(b"k"), flags(b"", b""))]),
        (b"mg k v\n", &[meta_get(key(b"k"), flags(b"v", b"v"))]),
        (b"mg  k  v  f \r\n", &[meta_get(key(b"k"), flags(b"v  f ", b"vf"))]),
        (
            b"mg k s v q O123 t c f h l k u P1 Lx\r\n",
            &[meta_get(
                key(b"k"),
                MetaFlags {
                    opaque: Some(b"O123"),
                    ..flags(b"s v q O123 t c f h l k u P1 Lx", b"svqOtcfhlkuPL")
                },
            )],
        ),
        (
            b"mg k E5 C6 N30 R-1 T0\r\n",
            &[meta_get(
                key(b"k"),
                MetaFlags {
                    explicit_cas: Some(5),
                    compare_cas: Some(6),
                    vivify_ttl: Some(30),
                    recache_ttl: Some(-1),
                    ttl: Some(0),
                    ..flags(b"E5 C6 N30 R-1 T0", b"ECNRT")
                },
            )],
        ),
        (
            b"mg Zm9v b k\r\n",
            &[meta_get(WireKey { wire: b"Zm9v", is_base64: true }, flags(b"b k", b"bk"))],
        ),
    ]);
}

#[test]
fn flags_answer_questions() {
    let parsed = parse(b"mg k v q u C7\r\n");
    let [Parsed::Request(Request::MetaGet(MetaGet { flags, .. }))] = parsed[..] else {
        panic!("{parsed:?}")
    };
    assert!(flags.is_quiet() && flags.is_no_bump() && flags.asks_value());
    assert!(flags.returns_value_of(6) && !flags.returns_value_of(7));
    assert!(!flags.is_invalidate() && !flags.is_remove_value() && !flags.has(b'!'));
    let parsed = parse(b"md k I x\r\n");
    let [Parsed::Request(Request::MetaDelete(MetaDelete { flags, .. }))] = parsed[..] else {
        panic!("{parsed:?}")
    };
    assert!(flags.is_invalidate() && flags.is_remove_value() && !flags.is_quiet());
}

#[test]
fn meta_set_reads_mode_and_flags() {
    let mode = |raw, mode| MetaFlags { mode: Some(mode), ..flags(raw, b"M") };
    check(&[
        (b"ms k 2\r\n\r\n\r\n", &[meta_set(flags(b"", b""), StoreVerb::Set)]),
        (b"ms  k  2  \n\r\n\r\n", &[meta_set(flags(b"", b""), StoreVerb::Set)]),
        (b"ms k 2 MS\r\n\r\n\r\n", &[meta_set(mode(b"MS", b'S'), StoreVerb::Set)]),
        (b"ms k 2 ME\r\n\r\n\r\n", &[meta_set(mode(b"ME", b'E'), StoreVerb::Add)]),
        (b"ms k 2 MA\r\n\r\n\r\n", &[meta_set(mode(b"MA", b'A'), StoreVerb::Append)]),
        (b"ms k 2 MP\r\n\r\n\r\n", &[meta_set(mode(b"MP", b'P'), StoreVerb::Prepend)]),
        (b"ms k 2 MR\r\n\r\n\r\n", &[meta_set(mode(b"MR", b'R'), StoreVerb::Replace)]),
        (
            b"ms k 2 T60 F4294967295 C1 E2 I c k s N9 q O\r\n\r\n\r\n",
            &[meta_set(
                MetaFlags {
                    ttl: Some(60),
                    client_flags: Some(u32::MAX),
                    compare_cas: Some(1),
                    explicit_cas: Some(2),
                    vivify_ttl: Some(9),
                    opaque: Some(b"O"),
                    ..flags(b"T60 F4294967295 C1 E2 I c k s N9 q O", b"TFCEIcksNqO")
                },
                StoreVerb::Set,
            )],
        ),
    ]);
}

#[test]
fn meta_delete_arithmetic_noop_and_debug() {
    let binary = WireKey { wire: b"Zm9v", is_base64: true };
    let debug = |key| request(Request::MetaDebug(MetaDebug { key }));
    let mode = |raw, mode| MetaFlags { mode: Some(mode), ..flags(raw, b"M") };
    let numbers = MetaFlags {
        delta: Some(u64::MAX),
        initial: Some(10),
        vivify_ttl: Some(0),
        ..flags(b"N0 J10 D18446744073709551615 v t c", b"NJDvtc")
    };
    check(&[
        (b"md k\r\n", &[meta_delete(key(b"k"), flags(b"", b""))]),
        (b"md Zm9v b x I q\r\n", &[meta_delete(binary, flags(b"b x I q", b"bxIq"))]),
        (b"ma k\r\n", &[meta_arithmetic(flags(b"", b""), Direction::Increment)]),
        (b"ma k MI\r\n", &[meta_arithmetic(mode(b"MI", b'I'), Direction::Increment)]),
        (b"ma k M+\r\n", &[meta_arithmetic(mode(b"M+", b'+'), Direction::Increment)]),
        (b"ma k MD\r\n", &[meta_arithmetic(mode(b"MD", b'D'), Direction::Decrement)]),
        (b"ma k M-\r\n", &[meta_arithmetic(mode(b"M-", b'-'), Direction::Decrement)]),
        (
            b"ma k N0 J10 D18446744073709551615 v t c\r\n",
            &[meta_arithmetic(numbers, Direction::Increment)],
        ),
        (b"mn\r\n", &[request(Request::MetaNoop)]),
        (b"mn  k\n", &[request(Request::MetaNoop)]),
        (b"me k\r\n", &[debug(key(b"k"))]),
        (b"me k v\r\n", &[debug(key(b"k"))]),
        (b"me Zm9v b\r\n", &[debug(binary)]),
        (b"me Zm9 b\r\n", &[error(BAD_FORMAT)]),
        (b"me\r\n", &[error(BAD_FORMAT)]),
        (b"mx k\r\n", &[error(ERROR)]),
    ]);
}

#[test]
fn refused_flags_of_meta_get_and_delete() {
    for (tail, reply) in [
        ("", BAD_FORMAT),
        ("k v v", DUPLICATE_FLAG),
        ("k T0 T1", DUPLICATE_FLAG),
        ("k !", INVALID_FLAG),
        ("k S", INVALID_FLAG),
        ("k 1", INVALID_FLAG),
        ("k Tx", BAD_TOKEN),
        ("k T", BAD_TOKEN),
        ("k T2147483648", BAD_TOKEN),
        ("k N", BAD_TOKEN),
        ("k Rx", BAD_TOKEN),
        ("k C", BAD_TOKEN),
        ("k E-1", BAD_TOKEN),
        ("k D", BAD_META_DELTA),
        ("k Jx", BAD_META_INITIAL),
        ("k F-1", BAD_FORMAT),
        ("k Tx !", INVALID_FLAG),
        ("k Tx D", BAD_META_DELTA),
        ("k b", BAD_BASE64_KEY),
        ("Z==g b", BAD_BASE64_KEY),
        ("k O11111111111111111111111111111111", OPAQUE_TOO_LONG),
        ("k a b c d e f g h i j k l m n o p q r s", TOO_MANY_FLAGS),
    ] {
        for command in ["mg", "md"] {
            let line = format!("{command} {tail}\r\n");
            check(&[(line.as_bytes(), &[error(reply)])]);
        }
    }
    check(&[(b"mg k \xFF\r\n", &[error(DUPLICATE_FLAG)])]);
    let longest = b"O1111111111111111111111111111111";
    assert_eq!(longest.len(), 32);
    let line = [b"mg k ", &longest[..], b"\r\n"].concat();
    let expected = MetaFlags { opaque: Some(longest), ..flags(longest, b"O") };
    check(&[(&line, &[meta_get(key(b"k"), expected)])]);
    // Twenty tokens are allowed, and this many flags exist.
    let line = b"mg k b c f h k l q s t u v I L P x O T0 N0\r\n";
    check(&[(line, &[error(BAD_BASE64_KEY)])]);
    let line = b"mg k b c f h k l q s t u v I L P x O T0 N0 R0\r\n";
    check(&[(line, &[error(TOO_MANY_FLAGS)])]);
}

#[test]
fn refused_meta_sets_skip_the_block() {
    for (tail, reply) in [
        ("k 5 q q", DUPLICATE_FLAG),
        ("k 5 !", INVALID_FLAG),
        ("k 5 S5", INVALID_FLAG),
        ("k 5 Tx q", BAD_TOKEN),
        ("k 5 Fx", BAD_FORMAT),
        ("k 5 F4294967296", BAD_FORMAT),
        ("k 5 M", BAD_SET_MODE),
        ("k 5 MX", BAD_SET_MODE),
        ("k 5 b", BAD_BASE64_KEY),
        ("k 5 O11111111111111111111111111111111", OPAQUE_TOO_LONG),
        ("k 5 a b c d e f g h i j k l m n o p q r", TOO_MANY_FLAGS),
    ] {
        let line = format!("ms {tail}\r\nquit\n\r\n");
        check(&[(line.as_bytes(), &[error(reply)])]);
    }
}

#[test]
fn meta_arithmetic_has_one_error_for_the_shape_of_its_flags() {
    for (tail, reply) in [
        ("k q q", ARITHMETIC_FLAGS),
        ("k !", ARITHMETIC_FLAGS),
        ("k a b c d e f g h i j k l m n o p q r s", ARITHMETIC_FLAGS),
        ("k D", BAD_META_DELTA),
        ("k D-1", BAD_META_DELTA),
        ("k Jx", BAD_META_INITIAL),
        ("k N", BAD_TOKEN),
        ("k M", BAD_ARITHMETIC_MODE),
        ("k MX", BAD_ARITHMETIC_MODE),
        ("k b", BAD_BASE64_KEY),
        ("k O11111111111111111111111111111111", OPAQUE_TOO_LONG),
        ("", BAD_FORMAT),
    ] {
        let line = format!("ma {tail}\r\n");
        check(&[(line.as_bytes(), &[error(reply)])]);
    }
}

#[test]
fn of_a_base64_key_the_decoded_bytes_count() {
    let longest = base64::encode(&[0; 250]);
    let over = base64::encode(&[0; 251]);
    let line = [b"mg ", &longest[..], b" k b\r\n"].concat();
    let wire = WireKey { wire: &longest, is_base64: true };
    check(&[(&line, &[meta_get(wire, flags(b"k b", b"kb"))])]);
    assert_eq!(wire.bytes(&mut KeyScratch::default()), [0; 250]);
    let plain = long_key(251);
    for key in [&over, &base64::encode(&[0; 300]), &long_key(400), &plain] {
        for (command, tail) in [("mg", "b"), ("md", "q b"), ("ma", "b v"), ("me", "b")] {
            if key == &plain {
                continue;
            }
            let line = [command.as_bytes(), b" ", key, b" ", tail.as_bytes(), b"\r\n"].concat();
            check(&[(&line, &[error(BAD_FORMAT)])]);
        }
        let line = [b"ms ", &key[..], b" 5\r\nquit\n\r\n"].concat();
        check(&[(&line, &[error(BAD_FORMAT)])]);
        let line = [b"mg ", &key[..], b" !\r\n"].concat();
        check(&[(&line, &[error(BAD_FORMAT)])]);
    }
}
