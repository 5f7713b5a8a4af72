use std::sync::Arc;

use larder_protocol::memcached::error;

use super::super::*;
use super::Fake;
use crate::facts::Facts;
use crate::limits::OUTPUT_HIGH_WATER;
use crate::memcached::Memcached;
use crate::memcached::binary::MemcachedBinary;
use crate::namespaces::NamespaceView;

const NOOP: &[u8] = b"\x80\x0a\0\0\0\0\0\0\0\0\0\0opaq\0\0\0\0\0\0\0\0";
const DONE: &[u8] = b"\x81\x0a\0\0\0\0\0\0\0\0\0\0opaq\0\0\0\0\0\0\0\0";

fn connection() -> ByFirstByte<Memcached, MemcachedBinary> {
    let facts = Arc::new(Facts::example());
    let view = NamespaceView::default();
    ByFirstByte::new(Memcached::new(&facts, &view), (0x80, MemcachedBinary::new(&facts, &view)))
}

/// What is sent for `pieces`, and why no more was taken at last. Every second one is only stored
/// before it is looked at.
fn sent(pieces: &[&[u8]]) -> (Vec<u8>, Stop) {
    let (mut connection, mut fake, mut out) = (connection(), Fake::new(), OutputQueue::default());
    let (mut spares, mut stop) = (SpareInputs::default(), Stop::Input);
    for (number, piece) in pieces.iter().enumerate() {
        let pending = out.len();
        let mut output = Output::new(&mut out, pending, Some(OUTPUT_HIGH_WATER));
        stop = if number % 2 == 0 {
            connection.receive(piece, &mut output, &mut fake, &mut spares)
        } else {
            connection.store(piece, 0, &mut spares);
            connection.resume(&mut output, &mut fake, &mut spares)
        };
    }
    (std::mem::take(out.bytes()), stop)
}

#[test]
fn the_first_byte_decides_which_protocol_is_spoken() {
    assert_eq!(sent(&[b"mn\r\nmn\r\n"]).0, b"MN\r\nMN\r\n");
    assert_eq!(sent(&[NOOP, NOOP]).0, [DONE, DONE].concat());
    assert_eq!(sent(&[b"", b"", NOOP]).0, DONE, "nothing decides nothing");
    for cut in 1..NOOP.len() {
        assert_eq!(sent(&[&NOOP[..cut], &NOOP[cut..], NOOP]).0, [DONE, DONE].concat());
        assert_eq!(sent(&[b"", &NOOP[..cut], &NOOP[cut..]]).0, DONE, "stored first");
    }
}

#[test]
fn no_later_byte_does() {
    let (out, stop) = sent(&[NOOP, b"mn\r\n"]);
    assert_eq!((&out[..], stop), (DONE, Stop::Closing));
    // The opcode is a line's end.
    let refused = [&b"MN\r\n"[..], error::BAD_FORMAT.as_bytes(), b"\r\n"].concat();
    assert_eq!(sent(&[b"mn\r\n", NOOP]), (refused, Stop::Input));
}
