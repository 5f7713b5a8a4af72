//! Answers to meta commands.
//!
//! A status, then the flags that return something in the order of the request, then the recache
//! marks `Z`, `X`, `W`. Quiet commands (`q`) leave out the nominal answer only: the miss of `mg`,
//! the success of `ms`, `md` and `ma`.

use super::number::decimal_digits;
use super::{LINE_END, StoreReply, put_decimal};
use crate::memcached::request::{
    MetaArithmetic, MetaDebug, MetaDelete, MetaFlags, MetaGet, MetaSet, WireKey, letter_bit,
};
use crate::sink::ReplySink;

/// An item as the answer to `mg` shows it.
#[derive(Clone, Copy, Debug)]
pub struct ItemView<'a> {
    /// The value. Not looked at unless
    /// [`MetaFlags::returns_value_of`](crate::memcached::MetaFlags::returns_value_of) the version.
    pub value: &'a [u8],
    /// The value's length in bytes.
    pub value_bytes: usize,
    /// The client's own bits.
    pub client_flags: u32,
    /// The CAS id.
    pub version: u64,
    /// Seconds until the item is gone; -1 if never.
    pub ttl_seconds: i64,
    /// Seconds since the item was last read or written, before this command.
    pub last_access_seconds: u64,
    /// Whether the item had been read before this command.
    pub is_fetched: bool,
}

/// What `mg` tells a client about refreshing an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecacheMarks {
    /// `W`: this client is the one to recache.
    pub is_won: bool,
    /// `X`: the item is stale.
    pub is_stale: bool,
    /// `Z`: another client was told to recache before.
    pub is_already_won: bool,
}

/// How a meta delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteReply {
    /// Deleted, emptied or invalidated.
    Deleted,
    /// The item has another CAS id.
    Exists,
    /// There is no such item.
    NotFound,
}

/// How a meta arithmetic command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithmeticReply {
    /// The item holds a new number, or was created with its first one.
    Number {
        /// The number.
        number: u64,
        /// The item's CAS id.
        version: u64,
        /// Seconds until the item is gone; -1 if never.
        ttl_seconds: i64,
    },
    /// The item could not be created.
    NotStored,
    /// The item has another CAS id.
    Exists,
    /// There is no such item.
    NotFound,
}

/// An item as the answer to `me` shows it.
#[derive(Clone, Copy, Debug)]
pub struct DebugView {
    /// Seconds until the item is gone; -1 if never.
    pub ttl_seconds: i64,
    /// Seconds since the item was last read or written.
    pub last_access_seconds: u64,
    /// The CAS id.
    pub version: u64,
    /// Whether the item has been read.
    pub is_fetched: bool,
    /// The size class.
    pub class: u32,
    /// The item's whole size in bytes.
    pub item_bytes: u64,
}

/// Flags that any answer returns.
const ECHOED_FLAGS: u64 = letter_bit(b'O') | letter_bit(b'k');
const HIT_FLAGS: u64 = ECHOED_FLAGS
    | letter_bit(b's')
    | letter_bit(b't')
    | letter_bit(b'c')
    | letter_bit(b'f')
    | letter_bit(b'l')
    | letter_bit(b'h');
const SET_FLAGS: u64 = ECHOED_FLAGS | letter_bit(b'c') | letter_bit(b's');
const ARITHMETIC_FLAGS: u64 = ECHOED_FLAGS | letter_bit(b't') | letter_bit(b'c');

/// The answer to an `mg` that found or created an item. `q` does not hide it.
pub fn meta_hit<S: ReplySink>(
    sink: &mut S,
    request: &MetaGet<'_>,
    item: &ItemView<'_>,
    marks: RecacheMarks,
) {
    let flags = &request.flags;
    let with_value = flags.returns_value_of(item.version);
    if with_value {
        sink.make_room(flags.raw.len() + 32, item.value.len());
    }
    let out = sink.bytes();
    if with_value {
        out.extend_from_slice(b"VA ");
        put_decimal(out, item.value.len() as u64);
    } else {
        out.extend_from_slice(b"HD");
    }
    put_flags(out, &request.key, flags, HIT_FLAGS, |out, letter| match letter {
        b's' => put_decimal(out, item.value_bytes as u64),
        b't' => put_ttl(out, item.ttl_seconds),
        b'c' => put_decimal(out, item.version),
        b'f' => put_decimal(out, u64::from(item.client_flags)),
        b'l' => put_decimal(out, item.last_access_seconds),
        _ => out.push(if item.is_fetched { b'1' } else { b'0' }),
    });
    if marks.is_already_won {
        out.extend_from_slice(b" Z");
    }
    if marks.is_stale {
        out.extend_from_slice(b" X");
    }
    if marks.is_won {
        out.extend_from_slice(b" W");
    }
    out.extend_from_slice(LINE_END);
    if with_value {
        sink.put_value(item.value);
        sink.bytes().extend_from_slice(LINE_END);
    }
}

/// The answer to an `mg` that found nothing, unless it is quiet.
pub fn meta_miss(out: &mut Vec<u8>, request: &MetaGet<'_>) {
    if !request.flags.is_quiet() {
        put_status(out, b"EN", &request.key, &request.flags);
    }
}

/// The answer to an `ms`. `version` is the CAS id of the item that is now stored (0 if none), and
/// `value_bytes` the length of its whole value.
pub fn meta_set(
    out: &mut Vec<u8>,
    request: &MetaSet<'_>,
    reply: StoreReply,
    version: u64,
    value_bytes: usize,
) {
    if reply == StoreReply::Stored && request.flags.is_quiet() {
        return;
    }
    out.extend_from_slice(reply.meta());
    put_flags(out, &request.key, &request.flags, SET_FLAGS, |out, letter| match letter {
        b'c' => put_decimal(out, version),
        _ => put_decimal(out, value_bytes as u64),
    });
    out.extend_from_slice(LINE_END);
}

/// The answer to an `md`.
pub fn meta_delete(out: &mut Vec<u8>, request: &MetaDelete<'_>, reply: DeleteReply) {
    let status = match reply {
        DeleteReply::Deleted if request.flags.is_quiet() => return,
        DeleteReply::Deleted => b"HD",
        DeleteReply::Exists => b"EX",
        DeleteReply::NotFound => b"NF",
    };
    put_status(out, status, &request.key, &request.flags);
}

/// The answer to an `ma`.
pub fn meta_arithmetic(out: &mut Vec<u8>, request: &MetaArithmetic<'_>, reply: ArithmeticReply) {
    let flags = &request.flags;
    let (number, version, ttl_seconds) = match reply {
        ArithmeticReply::Number { number, version, ttl_seconds } => (number, version, ttl_seconds),
        ArithmeticReply::NotStored => return put_status(out, b"NS", &request.key, flags),
        ArithmeticReply::Exists => return put_status(out, b"EX", &request.key, flags),
        ArithmeticReply::NotFound => return put_status(out, b"NF", &request.key, flags),
    };
    if flags.is_quiet() {
        return;
    }
    if flags.asks_value() {
        out.extend_from_slice(b"VA ");
        put_decimal(out, decimal_digits(number) as u64);
    } else {
        out.extend_from_slice(b"HD");
    }
    put_flags(out, &request.key, flags, ARITHMETIC_FLAGS, |out, letter| match letter {
        b't' => put_ttl(out, ttl_seconds),
        _ => put_decimal(out, version),
    });
    out.extend_from_slice(LINE_END);
    if flags.asks_value() {
        super::number(out, number);
    }
}

/// The answer to an `me`: the item, or `EN` if there is none.
pub fn meta_debug(out: &mut Vec<u8>, request: &MetaDebug<'_>, item: Option<&DebugView>) {
    let Some(item) = item else { return out.extend_from_slice(b"EN\r\n") };
    out.extend_from_slice(b"ME ");
    out.extend_from_slice(request.key.wire());
    out.extend_from_slice(b" exp=");
    put_ttl(out, item.ttl_seconds);
    out.extend_from_slice(b" la=");
    put_decimal(out, item.last_access_seconds);
    out.extend_from_slice(b" cas=");
    put_decimal(out, item.version);
    out.extend_from_slice(if item.is_fetched { b" fetch=yes" } else { b" fetch=no" });
    out.extend_from_slice(b" cls=");
    put_decimal(out, u64::from(item.class));
    out.extend_from_slice(b" size=");
    put_decimal(out, item.item_bytes);
    out.extend_from_slice(LINE_END);
}

/// A status that shows nothing of an item.
fn put_status(out: &mut Vec<u8>, status: &[u8], key: &WireKey<'_>, flags: &MetaFlags<'_>) {
    out.extend_from_slice(status);
    put_flags(out, key, flags, ECHOED_FLAGS, |_out, _letter| {});
    out.extend_from_slice(LINE_END);
}

fn put_ttl(out: &mut Vec<u8>, ttl_seconds: i64) {
    match u64::try_from(ttl_seconds) {
        Ok(seconds) => put_decimal(out, seconds),
        Err(_negative) => out.extend_from_slice(b"-1"),
    }
}

/// Appends those of the request's flags that are in `returned`, in the request's order. The opaque
/// token and the key are echoed; what follows another letter is `put_item_flag`'s to write.
#[inline]
fn put_flags(
    out: &mut Vec<u8>,
    key: &WireKey<'_>,
    flags: &MetaFlags<'_>,
    returned: u64,
    mut put_item_flag: impl FnMut(&mut Vec<u8>, u8),
) {
    if flags.letters & returned == 0 {
        return;
    }
    let mut previous = b' ';
    for &byte in flags.raw {
        let starts_token = previous == b' ' && byte != b' ';
        previous = byte;
        if !starts_token || returned & letter_bit(byte) == 0 {
            continue;
        }
        out.push(b' ');
        match byte {
            b'O' => out.extend_from_slice(flags.opaque.expect("an O flag has its token")),
            b'k' => {
                out.push(b'k');
                out.extend_from_slice(key.wire());
                if key.is_base64() {
                    out.extend_from_slice(b" b");
                }
            }
            letter => {
                out.push(letter);
                put_item_flag(out, letter);
            }
        }
    }
}
