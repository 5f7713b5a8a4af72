//! Outcomes to bytes. Every function appends to `out` and allocates only by growing it.

use super::{BINARY_HEADER_BYTES, BINARY_MAGIC_REPLY, BinaryHead, BinaryStatus};
use crate::sink::ReplySink;

/// What a reply has besides its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BinaryBody<'a> {
    /// The fixed part.
    pub extras: &'a [u8],
    /// The key.
    pub key: &'a [u8],
    /// The value, or a text.
    pub value: &'a [u8],
}

/// A reply.
///
/// # Panics
/// If a part is longer than its field in the header can say: extras of 255 bytes, keys of 65,535,
/// and all together 4 GiB.
#[inline]
pub fn put<S: ReplySink>(
    out: &mut S,
    head: BinaryHead,
    status: BinaryStatus,
    cas: u64,
    body: &BinaryBody<'_>,
) {
    let BinaryBody { extras, key, value } = *body;
    let extras_bytes = u8::try_from(extras.len()).expect("extras are short");
    let key_bytes = u16::try_from(key.len()).expect("a key is short");
    let body_bytes = u32::try_from(extras.len() + key.len() + value.len());
    let body_bytes = body_bytes.expect("an item is below 4 GiB");
    let mut header = [0; BINARY_HEADER_BYTES];
    header[0] = BINARY_MAGIC_REPLY;
    header[1] = head.opcode;
    header[2..4].copy_from_slice(&key_bytes.to_be_bytes());
    header[4] = extras_bytes;
    header[6..8].copy_from_slice(&(status as u16).to_be_bytes());
    header[8..12].copy_from_slice(&body_bytes.to_be_bytes());
    header[12..16].copy_from_slice(&head.opaque);
    header[16..24].copy_from_slice(&cas.to_be_bytes());
    out.make_room(BINARY_HEADER_BYTES + extras.len() + key.len(), value.len());
    for part in [&header, extras, key] {
        out.bytes().extend_from_slice(part);
    }
    out.put_value(value);
}

/// A reply that says no more than that it is done, if one is wanted.
pub fn put_done(out: &mut Vec<u8>, head: BinaryHead, cas: u64) {
    if !head.is_quiet {
        put(out, head, BinaryStatus::Ok, cas, &BinaryBody::default());
    }
}

/// A failure, with a text for people.
pub fn put_error(out: &mut Vec<u8>, head: BinaryHead, status: BinaryStatus, text: &str) {
    put(out, head, status, 0, &BinaryBody { value: text.as_bytes(), ..BinaryBody::default() });
}

/// The head of the request that `reply` answers.
///
/// # Panics
/// If `reply` does not begin with a whole header.
pub fn head_of(reply: &[u8]) -> BinaryHead {
    let header = reply.first_chunk::<BINARY_HEADER_BYTES>().expect("a reply has a header");
    let opaque = [header[12], header[13], header[14], header[15]];
    BinaryHead { opcode: header[1], opaque, is_quiet: false }
}
