//! Data blocks that were read before. A block that was read is verified before it
//! is put in, one that is written needs no check; none is verified again.

use std::cell::RefCell;
use std::rc::Rc;

use crate::cache::{Cache, CacheCounters};

/// The blocks of one shard's tables, by table id and block number. Clones share the blocks.
///
/// What is written is kept at once where that takes nobody's place: blocks that a merge has moved
/// need not be read again, and where all blocks fit none ever is.
#[derive(Clone)]
pub struct BlockCache {
    cache: Rc<RefCell<Cache<0>>>,
    /// Whether blocks that are read are put in.
    keeps: bool,
}

type BlockKey = [u8; 12];

/// About what a block takes in the cache: it is closed before it is longer than 4 KiB.
const ENTRY_BYTES_MEAN: usize = 4000;

impl BlockCache {
    /// A cache that takes at most `capacity_bytes` of memory.
    pub fn new(capacity_bytes: usize) -> Self {
        let cache = Cache::with_entry_bytes(capacity_bytes, ENTRY_BYTES_MEAN);
        Self { cache: Rc::new(RefCell::new(cache)), keeps: true }
    }

    /// The same blocks, without keeping those that are read by way of it.
    pub fn without_keeping(&self) -> Self {
        Self { keeps: false, ..self.clone() }
    }

    /// What the cache holds and has done.
    pub fn counters(&self) -> CacheCounters {
        self.cache.borrow().counters()
    }

    /// Goes a step towards another capacity, and says whether it is reached; see
    /// [`Cache::resize`].
    pub fn resize(&self, capacity_bytes: usize) -> bool {
        self.cache.borrow_mut().resize(capacity_bytes)
    }

    /// The least capacity that [`Self::resize`] reaches.
    pub fn capacity_min(&self) -> usize {
        self.cache.borrow().capacity_min()
    }

    /// How much more memory it is of which the counters say what it would have saved, in bytes; see
    /// [`Cache::set_margin`].
    pub fn set_margin(&self, bytes: usize) {
        self.cache.borrow_mut().set_margin(bytes);
    }

    /// Calls `look` with the bytes of a block, if it is here. `look` must not use the cache.
    pub(super) fn with_block<R>(
        &self,
        table: u64,
        block: usize,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let key = block_key(table, block);
        let mut cache = self.cache.borrow_mut();
        cache.get(xxhash_rust::xxh3::xxh3_64(&key), &key).map(|hit| look(hit.value))
    }

    /// Keeps a verified block that was read from the device, if the cache wants it.
    pub(super) fn insert(&self, table: u64, block: usize, bytes: &[u8]) {
        if !self.keeps {
            return;
        }
        let key = block_key(table, block);
        let hash = xxhash_rust::xxh3::xxh3_64(&key);
        let mut cache = self.cache.borrow_mut();
        cache.note_read(hash);
        cache.insert(hash, &key, &[], bytes);
    }

    /// Keeps a block that is being written, if there is room to spare.
    pub(super) fn keep_written(&self, table: u64, block: u32, bytes: &[u8]) {
        let key = block_key(table, block as usize);
        let hash = xxhash_rust::xxh3::xxh3_64(&key);
        self.cache.borrow_mut().insert_spare(hash, &key, &[], bytes);
    }

    /// Drops a block of a table that is gone.
    pub(super) fn forget(&self, table: u64, block: usize) {
        let key = block_key(table, block);
        self.cache.borrow_mut().remove(xxhash_rust::xxh3::xxh3_64(&key), &key);
    }
}

fn block_key(table: u64, block: usize) -> BlockKey {
    let block = u32::try_from(block).expect("an index counts its blocks with 32 bits");
    let mut key = [0; 12];
    key[..8].copy_from_slice(&table.to_le_bytes());
    key[8..].copy_from_slice(&block.to_le_bytes());
    key
}
