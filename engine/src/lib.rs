//! One shard's storage: a value log that is also the write-ahead log, a memtable, SSTables, a
//! manifest, and a cache. No sockets, no threads: everything that touches the world comes in
//! through [`larder_runtime::env::Env`].
//!
//! Start at [`shard`]; FORMAT.md draws every byte on disk.
#![forbid(unsafe_code)]

pub mod cache;
mod canary;
pub mod check;
pub mod collector;
pub mod compression;
mod concurrent;
pub mod entry;
pub mod error;
pub mod generations;
pub mod index;
pub mod key;
pub mod keyed;
pub mod large;
pub mod manifest;
pub mod memory;
pub mod operation;
pub mod range_tombstones;
pub mod scan;
pub mod scrub;
pub mod shard;
pub mod signal;
pub mod space;
pub mod superblock;
pub mod value_log;
