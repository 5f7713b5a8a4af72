//! Bringing near what a look-up will touch.
//!
//! A value in RAM costs two cache misses, one for the cache's index and one for the item. They
//! depend on each other, but not on those of the next request: whoever has several requests at hand
//! announces all of them first and pays for about one miss instead of two for each.

use larder_runtime::env::Env;

use super::Shard;
use crate::index::table::key_hash;
use crate::key::Key;

/// An announced key, for [`Shard::bring_item`] and [`Shard::try_execute`].
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    hash: u64,
    /// The generation of the key's namespace that the hash is of.
    generation: [u8; 4],
}

impl Announced {
    /// The hash of an encoded key, which need not be computed again if it was announced.
    #[inline]
    pub(super) fn hash_of(announced: Option<Self>, encoded: &[u8]) -> u64 {
        match announced {
            Some(announced) if encoded[..4] == announced.generation => announced.hash,
            _ => key_hash(encoded),
        }
    }
}

impl<E: Env> Shard<E> {
    /// First step: starts bringing the index's line for `key`.
    #[inline]
    pub fn announce(&self, key: &Key<'_>) -> Announced {
        let mut state = self.state.borrow_mut();
        let mut encoded = std::mem::take(&mut state.key_scratch);
        state.encode_key(key, &mut encoded);
        let hash = key_hash(&encoded);
        let generation = [encoded[0], encoded[1], encoded[2], encoded[3]];
        state.key_scratch = encoded;
        state.items.prefetch_index(hash);
        Announced { hash, generation }
    }

    /// Second step, some requests later: starts bringing the item itself.
    #[inline]
    pub fn bring_item(&self, announced: Announced) {
        self.state.borrow().items.prefetch_item(announced.hash);
    }
}
