//! The memcached text and meta protocols, and in [`binary`] the binary one.
//!
//! [`Parser`] turns the bytes of one connection into [`Request`]s; [`reply`] turns outcomes into
//! bytes. Neither does I/O, keeps a clock, or knows what is stored. PROTOCOL.md lists every
//! command, flag, reply and limit.
//!
//! Invariants:
//! - The parser holds no heap memory and never allocates; requests borrow from the input.
//! - What the parser returns depends on the bytes alone, not on how they were cut into reads.
//! - Every length is checked against [`Limits`] before it is added to anything.

pub mod binary;
pub mod error;
mod expiry;
mod parse;
pub mod reply;
mod request;

pub use expiry::{Expiry, RELATIVE_SECONDS_MAX, expiry_from_exptime};
pub use parse::{CloseReason, Malformed, Parsed, Parser, Step};
pub use request::{
    Arithmetic, Delete, DetailMode, Direction, Dump, DumpForm, GetRequest, KeyScratch, LogStreams,
    MetaArithmetic, MetaDebug, MetaDelete, MetaFlags, MetaGet, MetaSet, Request, ShutdownMode,
    Store, StoreVerb, Touch, WireKey,
};

/// The longest key in bytes; of a base64 key, the decoded bytes count.
pub const KEY_BYTES_MAX: usize = 250;

/// What memcached adds to key and value when it holds an item's size against its limit, in bytes.
pub const ITEM_OVERHEAD_BYTES: usize = 71;

/// The longest opaque token in bytes, with its `O`.
pub const OPAQUE_BYTES_MAX: usize = 32;

/// The most tokens of a meta command, with the command's name and the key.
pub const META_TOKENS_MAX: usize = 20;

/// The longest value that a storage line may announce, in bytes; a longer one is a malformed line.
pub const VALUE_BYTES_MAX: usize = i32::MAX as usize - 2;

/// The limits that a server sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key in bytes, at most [`KEY_BYTES_MAX`].
    pub key_bytes_max: usize,
    /// The largest item in bytes: value, key and [`ITEM_OVERHEAD_BYTES`] together.
    pub item_bytes_max: usize,
    /// How many bytes may arrive without a newline. Only a `get` or `gets` line may be longer.
    pub line_bytes_max: usize,
}

impl Default for Limits {
    /// memcached's defaults: 250-byte keys, items of 1 MiB, lines of 2 KiB.
    fn default() -> Self {
        Self { key_bytes_max: KEY_BYTES_MAX, item_bytes_max: 1 << 20, line_bytes_max: 2048 }
    }
}

impl Limits {
    pub(crate) fn key_bytes(&self) -> usize {
        self.key_bytes_max.min(KEY_BYTES_MAX)
    }

    pub(crate) fn item_fits(&self, key_bytes: usize, value_bytes: usize) -> bool {
        assert!(key_bytes <= KEY_BYTES_MAX, "the key's length is checked before the item's");
        assert!(value_bytes <= VALUE_BYTES_MAX, "the value's length is checked before the item's");
        key_bytes + value_bytes + ITEM_OVERHEAD_BYTES <= self.item_bytes_max
    }
}
