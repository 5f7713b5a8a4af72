//! Outcomes to bytes. Every function appends to `out` and allocates only by growing it.

mod dump;
mod log;
mod meta;
mod number;

#[cfg(test)]
mod tests;

pub use dump::{DumpedItem, KEYS_END, cache_dumped, dumped_item, dumped_key};
pub use log::{
    LogStamp, LoggedItem, log_skipped, logged_connection, logged_delete, logged_get, logged_store,
};
pub use meta::{
    ArithmeticReply, DebugView, DeleteReply, ItemView, RecacheMarks, meta_arithmetic, meta_debug,
    meta_delete, meta_hit, meta_miss, meta_set,
};
pub use number::put_decimal;

use super::request::GetRequest;
use crate::sink::ReplySink;

/// The end of the answer to `get`, and of `stats`.
pub const END: &[u8] = b"END\r\n";
/// The value was stored.
pub const STORED: &[u8] = b"STORED\r\n";
/// The same without its line end.
pub const STORED_LINE: &str = "STORED";
/// The verb's condition did not hold.
pub const NOT_STORED: &[u8] = b"NOT_STORED\r\n";
/// The item has another CAS id.
pub const EXISTS: &[u8] = b"EXISTS\r\n";
/// There is no such item.
pub const NOT_FOUND: &[u8] = b"NOT_FOUND\r\n";
/// The item was deleted.
pub const DELETED: &[u8] = b"DELETED\r\n";
/// The item has its new expiry.
pub const TOUCHED: &[u8] = b"TOUCHED\r\n";
/// Done.
pub const OK: &[u8] = b"OK\r\n";
/// `stats reset` is done.
pub const RESET: &[u8] = b"RESET\r\n";
/// The answer to `mn`.
pub const META_NOOP: &[u8] = b"MN\r\n";

const LINE_END: &[u8] = b"\r\n";

/// How a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreReply {
    /// The value was stored.
    Stored,
    /// The verb's condition did not hold.
    NotStored,
    /// The item has another CAS id than the one given.
    Exists,
    /// There is no item to compare with.
    NotFound,
}

impl StoreReply {
    fn classic(self) -> &'static [u8] {
        match self {
            Self::Stored => STORED,
            Self::NotStored => NOT_STORED,
            Self::Exists => EXISTS,
            Self::NotFound => NOT_FOUND,
        }
    }

    fn meta(self) -> &'static [u8] {
        match self {
            Self::Stored => b"HD",
            Self::NotStored => b"NS",
            Self::Exists => b"EX",
            Self::NotFound => b"NF",
        }
    }
}

/// A line of text, such as one of [`error`](super::error), and its end.
pub fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(LINE_END);
}

/// The answer to a classic store, if one is wanted.
pub fn stored(out: &mut Vec<u8>, reply: StoreReply, noreply: bool) {
    if !noreply {
        out.extend_from_slice(reply.classic());
    }
}

/// One value of the answer to a `get`. A key without an item is answered by nothing.
pub fn value<S: ReplySink>(
    sink: &mut S,
    request: &GetRequest<'_>,
    client_flags: u32,
    version: u64,
    value: &[u8],
) {
    const FIXED_BYTES_MAX: usize = "VALUE ".len() + 3 + 10 + 20 + 20 + 2 * LINE_END.len();
    sink.make_room(FIXED_BYTES_MAX + request.key.len(), value.len());
    let out = sink.bytes();
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(request.key);
    out.push(b' ');
    put_decimal(out, u64::from(client_flags));
    out.push(b' ');
    put_decimal(out, value.len() as u64);
    if request.with_cas {
        out.push(b' ');
        put_decimal(out, version);
    }
    out.extend_from_slice(LINE_END);
    sink.put_value(value);
    sink.bytes().extend_from_slice(LINE_END);
}

/// The answer to `incr` and `decr`: the new number.
pub fn number(out: &mut Vec<u8>, number: u64) {
    put_decimal(out, number);
    out.extend_from_slice(LINE_END);
}

/// The answer to `version`.
pub fn version(out: &mut Vec<u8>, version: &str) {
    out.extend_from_slice(b"VERSION ");
    line(out, version);
}

/// One line of the answer to `stats`, which [`END`] ends. Neither text holds a line end.
pub fn stat(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b"STAT ");
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    line(out, value);
}
