//! SSTables: immutable files of encoded keys and entries in key order.
//!
//! A lookup costs at most one read of the device: index and filter stay in memory, and a data block
//! starts at a multiple of 4 KiB and is read whole. FORMAT.md draws the bytes.
//!
//! Invariants:
//! - a file is written once and never changed; its id is never used again in the same store;
//! - every checksum covers the store, the table and the offset besides the bytes, so that stale,
//!   recycled and misdirected bytes are told from the right ones;
//! - a checksum stands in its block and in the block's parent: data blocks in the index, index,
//!   filter and segment list in the footer, the footer in the manifest
//!   ([`TableMeta::footer_checksum`]).

mod block;
mod block_cache;
mod block_index;
mod builder;
pub(crate) mod decoders;
mod entry_buffer;
mod error;
mod filter;
mod footer;
mod format;
mod hiding;
mod iterator;
mod meta;
mod pointed;
mod reader;
mod sample;
mod scan;
mod sequence;
mod walk;
mod writer;

#[cfg(test)]
pub(crate) mod test_disk;
#[cfg(test)]
mod tests;

pub use block_cache::BlockCache;
pub use builder::TableBuilder;
pub use entry_buffer::EntryBuf;
pub use error::TableError;
pub use format::TableIdentity;
pub use hiding::{ALL, Hiding};
pub use iterator::{Patience, READ_AHEAD_BYTES, TableIterator};
pub use meta::TableMeta;
pub use pointed::Pointed;
pub use reader::{Resident, Table};
pub use scan::{BlockPlace, visit_block};
pub use sequence::{SequenceOptions, TableSequence};
pub use walk::TableWalk;

/// How tables are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Bytes at which a data block is closed, at least 64. A block is longer only when its one
    /// entry is. On the disk each block is padded to a multiple of 4 KiB.
    pub block_bytes: usize,
    /// Bytes at which whoever writes a sequence of tables begins the next one.
    pub table_bytes: u64,
    /// Bits of the Bloom filter for each key, 1 to 64.
    pub bloom_bits_per_key: u32,
    /// Every so many entries of a block one holds its whole key, for binary search; at least 1.
    pub restart_interval: u32,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_bytes: 4096,
            table_bytes: 8 << 20,
            bloom_bits_per_key: 12,
            restart_interval: 16,
        }
    }
}

/// The longest encoded entry that a table takes, in bytes.
pub const ENTRY_BYTES_MAX: usize = 256 << 10;

/// The hash under which filters know an encoded key: XXH3-64, fixed by the disk format.
#[inline]
pub fn key_hash(encoded_key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(encoded_key)
}

const NAME_PREFIX: &str = "table-";
const NAME_SUFFIX: &str = ".sst";

/// The name of the file that holds table `id`.
pub fn file_name(id: u64) -> String {
    format!("{NAME_PREFIX}{id:016x}{NAME_SUFFIX}")
}

/// The id of the table that a file of this name holds; `None` if it is no table's name.
pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (file_name(id) == name).then_some(id)
}
