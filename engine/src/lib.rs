//! One shard's storage.
#![forbid(unsafe_code)]

pub mod cache;
pub mod compaction;
pub mod entry;
pub mod key;
pub mod manifest;
pub mod table;
