//! memcached's binary protocol.
//!
//! [`BinaryParser`] turns the bytes of one connection into [`BinaryRequest`]s; [`reply`] turns
//! outcomes into bytes. All numbers are big-endian. PROTOCOL.md draws the header and lists every
//! opcode, reply and limit.
//!
//! Invariants:
//! - Parsing allocates nothing; requests borrow from the input.
//! - What the parser returns depends on the bytes alone, not on how they were cut into reads.
//! - No length is used before it is known that the header's other lengths agree with it.
//! - A body that is not wanted is passed over and not kept.

mod opcode;
mod parse;
pub mod reply;
mod request;

#[cfg(test)]
mod tests;

pub use parse::{BinaryParsed, BinaryParser, BinaryRefusal, BinaryStep};
pub use request::{
    BinaryArithmetic, BinaryDelete, BinaryHead, BinaryRead, BinaryRequest, BinaryStore,
};

/// The first byte of every request. No command of the text protocol begins with it.
pub const BINARY_MAGIC: u8 = 0x80;

/// The first byte of every reply.
pub const BINARY_MAGIC_REPLY: u8 = 0x81;

/// The length of a message's header in bytes.
pub const BINARY_HEADER_BYTES: usize = 24;

/// The expiry of an increment that does not create a missing item.
pub const BINARY_NO_INITIAL: u32 = u32::MAX;

/// What a reply says of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum BinaryStatus {
    /// Done.
    Ok = 0x00,
    /// There is no such item, or no such section of the statistics.
    NotFound = 0x01,
    /// There is an item, or it has another CAS id.
    Exists = 0x02,
    /// The item is over [`Limits::item_bytes_max`](super::Limits::item_bytes_max).
    TooLarge = 0x03,
    /// The lengths are not those of the opcode.
    Invalid = 0x04,
    /// There is no item to append to.
    NotStored = 0x05,
    /// The item's value is not a decimal number.
    NotNumeric = 0x06,
    /// It is not allowed.
    Denied = 0x20,
    /// The opcode is not known, or the header contradicts itself.
    Unknown = 0x81,
    /// No memory or disk for it.
    OutOfMemory = 0x82,
    /// The node could not do it.
    Internal = 0x84,
    /// The node is too busy.
    Busy = 0x85,
}

impl BinaryStatus {
    /// What memcached's replies of this status have as their text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Ok => "",
            Self::NotFound => "Not found",
            Self::Exists => "Data exists for key.",
            Self::TooLarge => "Too large.",
            Self::Invalid => "Invalid arguments",
            Self::NotStored => "Not stored.",
            Self::NotNumeric => "Non-numeric server-side value for incr or decr",
            Self::Denied => "Auth failure.",
            Self::Unknown => "Unknown command",
            Self::OutOfMemory => "Out of memory",
            Self::Internal => "Internal error",
            Self::Busy => "Busy",
        }
    }
}
