//! The native protocol: binary, pipelined, replies in any order.
//!
//! [`NativeParser`] cuts [`NativeRequest`]s out of the bytes of one connection; [`reply`] turns
//! outcomes into bytes. Neither does I/O, keeps a clock, or knows what is stored. PROTOCOL.md draws
//! every byte.
//!
//! Invariants:
//! - The parser holds no heap memory and never allocates; requests borrow from the input.
//! - What the parser returns depends on the bytes alone, not on how they were cut into reads.
//! - Every length is checked before it is used.

mod header;
mod hello;
mod item;
mod keys;
mod large;
mod lease;
mod multi;
mod mutate;
mod namespaces;
mod page;
mod parse;
pub mod reply;
mod request;
mod statistics;
mod status;
mod structured;
mod token;

pub use header::{
    HEADER_BYTES, Header, HeaderError, MAGIC_REPLY, MAGIC_REQUEST, Opcode, RequestDurability, Side,
    VERSION,
};
pub use hello::{HELLO_NAME_BYTES_MAX, HelloReply, capability};
pub use item::{
    Condition, DeleteItem, GetItem, IncrementItem, ItemKey, PutItem, PutMode, TouchItem,
};
pub use keys::{ITEM_KEYS_MAX, ItemKeyList, ItemKeys};
pub use large::{LARGE_HEAD_BYTES, LargeHead, LargeItem, LargeWork, StoreWhen};
pub use lease::{BeginLease, LeaseOf, NativeLease};
pub use multi::{
    MULTI_ENTRY_BYTES, MULTI_GET_KEYS_MAX, MultiEntry, MultiGet, not_found, put_found,
};
pub use mutate::{DeleteItems, MUTATE_CHANGES_MAX, MutateRecord};
pub use namespaces::{
    COMPRESS_NEVER, NAMESPACE_NAME_BYTES_MAX, NamespaceCache, NamespaceChange, NamespaceDurability,
    NamespaceSettings, NativeNamespace, SettingsChange, is_namespace_name,
};
pub use page::{
    GetItems, ItemRange, NativePage, NativePageItem, PAGE_TOKEN_BYTES_MAX, PageLimits, ScanItems,
};
pub use parse::{NativeLimits, NativeParsed, NativeParser, NativeStep, Refusal};
pub use request::{
    ClientHello, NativeRequest, RequestHead, RequestOptions, put_request, put_request_as,
};
pub use statistics::StatisticsReply;
pub use status::{Group, NativeStatus};
pub use structured::StructureError;
pub use token::{IdempotencyToken, ReceivedToken, TOKEN_BYTES};

/// The longest record id, in bytes.
pub const RECORD_BYTES_MAX: usize = 1024;

/// The longest item key, in bytes.
pub const ITEM_BYTES_MAX: usize = 1024;

/// What a ping may carry, in bytes.
pub const PING_BYTES_MAX: usize = 64;

/// What a body has at most besides its value, in bytes.
pub const BODY_BESIDES_VALUE_BYTES: usize = 4096;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
