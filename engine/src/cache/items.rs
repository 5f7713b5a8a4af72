//! The cache of item values: a [`Cache`] whose header is an item's state.

use super::{Cache, CacheCounters};
use crate::entry::{Metadata, Pointer};

/// The header, all numbers little endian; each offset follows from the one before.
mod at {
    pub(super) const VERSION: usize = 0;
    pub(super) const SEQUENCE: usize = VERSION + 8;
    pub(super) const CLIENT_FLAGS: usize = SEQUENCE + 8;
    pub(super) const EXPIRY: usize = CLIENT_FLAGS + 4;
    pub(super) const LAST_ACCESS: usize = EXPIRY + 4;
    pub(super) const STATE: usize = LAST_ACCESS + 4;
    pub(super) const FETCHED: usize = STATE + 1;
    pub(super) const SEGMENT: usize = FETCHED + 1;
    pub(super) const OFFSET: usize = SEGMENT + 4;
    /// 0: the value is in the index, not in the log.
    pub(super) const RECORD_LEN: usize = OFFSET + 4;
    pub(super) const END: usize = RECORD_LEN + 4;
}

type Header = [u8; at::END];

/// Item values by encoded key, with what readers need to know of an item.
pub struct ItemCache {
    cache: Cache<{ at::END }>,
}

/// What the cache knows of an item besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedItem {
    /// The item's metadata. The cache does not look at the expiry: expired items are found too.
    pub metadata: Metadata,
    /// The log sequence of the write; a reply must wait until that is durable.
    pub sequence: u64,
    /// Unix second of the last look-up, or of the insert if there was none.
    pub last_access: u32,
    /// Whether the item was looked up since it was inserted.
    pub fetched: bool,
    /// Where the value lies in the log, if it does.
    pub pointer: Option<Pointer>,
}

/// An item as it was before the look-up that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemHit<'a> {
    /// What is known of it.
    pub item: CachedItem,
    /// The value.
    pub value: &'a [u8],
}

impl ItemCache {
    /// A cache that allocates at most `capacity_bytes`; see [`Cache::new`].
    pub fn new(capacity_bytes: usize) -> Self {
        Self { cache: Cache::new(capacity_bytes) }
    }

    /// Starts bringing near the part of the index that a look-up of `hash` reads.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        self.cache.prefetch_index(hash);
    }

    /// Starts bringing near the item that a look-up of `hash` would find.
    #[inline]
    pub fn prefetch_item(&self, hash: u64) {
        self.cache.prefetch_entry(hash);
    }

    /// Starts bringing near what is known of the item that a look-up of `hash` would find, without
    /// its value.
    #[inline]
    pub fn prefetch_header(&self, hash: u64) {
        self.cache.prefetch_header(hash);
    }

    /// Looks `key` up. If `mark`, counts a use and notes that the item was fetched at `now` (Unix
    /// seconds); otherwise leaves no trace.
    #[inline]
    pub fn access(&mut self, hash: u64, key: &[u8], now: u32, mark: bool) -> Option<ItemHit<'_>> {
        if !mark {
            let (header, value) = self.cache.peek(hash, key)?;
            return Some(ItemHit { item: decode(header), value });
        }
        let hit = self.cache.get(hash, key)?;
        let item = decode(hit.header);
        put(hit.header, at::LAST_ACCESS, now.to_le_bytes());
        put(hit.header, at::FETCHED, [1]);
        Some(ItemHit { item, value: hit.value })
    }

    /// Notes that an item that is going to be inserted was read from the device, and says whether a
    /// little more memory would have saved that; see [`Cache::note_read`].
    pub fn note_read(&mut self, hash: u64) -> bool {
        self.cache.note_read(hash)
    }

    /// How much memory that is, in bytes; see [`Cache::set_margin`].
    pub fn set_margin(&mut self, bytes: usize) {
        self.cache.set_margin(bytes);
    }

    /// Where the value of the cached item of `key` is in the log, if it is: or where it was when it
    /// was read.
    pub fn place_of(&self, hash: u64, key: &[u8]) -> Option<Pointer> {
        decode(self.cache.peek(hash, key)?.0).pointer
    }

    /// Key and value of the cached item whose record is the one at `pointer` in the log, if there
    /// is one. Only the index knows whether the key still points there.
    pub fn value_at(&self, hash: u64, pointer: Pointer) -> Option<(&[u8], &[u8])> {
        self.cache.peek_by_hash(hash, |header| decode(header).pointer == Some(pointer))
    }

    /// Makes this the item of `key`. Says whether the cache holds it now; if not, it holds no older
    /// item of the key either. See [`Cache::insert`].
    pub fn insert(&mut self, hash: u64, key: &[u8], item: &CachedItem, value: &[u8]) -> bool {
        let mut header = [0; at::END];
        encode_metadata(&mut header, item.metadata, item.sequence);
        put(&mut header, at::LAST_ACCESS, item.last_access.to_le_bytes());
        put(&mut header, at::FETCHED, [u8::from(item.fetched)]);
        if let Some(pointer) = item.pointer {
            put(&mut header, at::SEGMENT, pointer.segment.to_le_bytes());
            put(&mut header, at::OFFSET, pointer.offset.to_le_bytes());
            put(&mut header, at::RECORD_LEN, pointer.len.to_le_bytes());
        }
        self.cache.insert(hash, key, &header, value)
    }

    /// Replaces the metadata and the log sequence of `key` in place; the value, the last access and
    /// the fetched mark stay. Says whether the key was there.
    pub fn update_metadata(
        &mut self,
        hash: u64,
        key: &[u8],
        metadata: Metadata,
        sequence: u64,
    ) -> bool {
        let Some(header) = self.cache.header_mut(hash, key) else { return false };
        encode_metadata(header, metadata, sequence);
        true
    }

    /// Notes that the record of `key` has moved, if the cached item's is the one at `from`.
    pub fn move_value(&mut self, hash: u64, key: &[u8], from: Pointer, to: Pointer) {
        let Some(header) = self.cache.header_mut(hash, key) else { return };
        if decode(header).pointer == Some(from) {
            put(header, at::SEGMENT, to.segment.to_le_bytes());
            put(header, at::OFFSET, to.offset.to_le_bytes());
            put(header, at::RECORD_LEN, to.len.to_le_bytes());
        }
    }

    /// Removes the items that `is_gone` knows by key and log sequence, a part of the cache at a
    /// time; see [`Cache::sweep`].
    pub fn sweep(
        &mut self,
        from: usize,
        buckets: usize,
        is_gone: impl Fn(&[u8], u64) -> bool,
    ) -> Option<usize> {
        let sequence = |header: &Header| u64::from_le_bytes(take(header, at::SEQUENCE));
        self.cache.sweep(from, buckets, |key, header| is_gone(key, sequence(header)))
    }

    /// Removes `key`; says whether it was there.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        self.cache.remove(hash, key)
    }

    /// Removes everything; see [`Cache::clear`].
    pub fn clear(&mut self) {
        self.cache.clear();
    }

    /// What the cache holds and has done.
    pub fn counters(&self) -> CacheCounters {
        self.cache.counters()
    }

    /// Addresses that the cache has reserved; see [`Cache::reserved_bytes`].
    pub fn reserved_bytes(&self) -> usize {
        self.cache.reserved_bytes()
    }

    /// Goes a step towards another capacity, and says whether it is reached; see
    /// [`Cache::resize`].
    pub fn resize(&mut self, capacity_bytes: usize) -> bool {
        self.cache.resize(capacity_bytes)
    }

    /// The least capacity that [`Self::resize`] reaches.
    pub fn capacity_min(&self) -> usize {
        self.cache.capacity_min()
    }
}

fn encode_metadata(header: &mut Header, metadata: Metadata, sequence: u64) {
    put(header, at::VERSION, metadata.version.to_le_bytes());
    put(header, at::SEQUENCE, sequence.to_le_bytes());
    put(header, at::CLIENT_FLAGS, metadata.client_flags.to_le_bytes());
    put(header, at::EXPIRY, metadata.expiry.to_le_bytes());
    put(header, at::STATE, [metadata.state]);
}

#[inline]
fn decode(header: &Header) -> CachedItem {
    let pointer = Pointer {
        segment: u32::from_le_bytes(take(header, at::SEGMENT)),
        offset: u32::from_le_bytes(take(header, at::OFFSET)),
        len: u32::from_le_bytes(take(header, at::RECORD_LEN)),
    };
    CachedItem {
        metadata: Metadata {
            version: u64::from_le_bytes(take(header, at::VERSION)),
            client_flags: u32::from_le_bytes(take(header, at::CLIENT_FLAGS)),
            expiry: u32::from_le_bytes(take(header, at::EXPIRY)),
            state: header[at::STATE],
        },
        sequence: u64::from_le_bytes(take(header, at::SEQUENCE)),
        last_access: u32::from_le_bytes(take(header, at::LAST_ACCESS)),
        fetched: header[at::FETCHED] != 0,
        pointer: (pointer.len != 0).then_some(pointer),
    }
}

#[inline]
fn put<const N: usize>(header: &mut Header, offset: usize, bytes: [u8; N]) {
    header[offset..offset + N].copy_from_slice(&bytes);
}

#[inline]
fn take<const N: usize>(header: &Header, offset: usize) -> [u8; N] {
    *header[offset..].first_chunk().expect("the field lies inside the header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::state;
    use proptest::prelude::*;

    const KEY: &[u8] = b"key";

    fn item(version: u64) -> CachedItem {
        let metadata = Metadata { version, client_flags: 7, expiry: 99, state: state::STALE };
        let pointer = Some(Pointer { segment: 3, offset: 4096, len: 77 });
        CachedItem { metadata, sequence: 11, last_access: 1000, fetched: false, pointer }
    }

    #[test]
    fn an_access_returns_the_item_as_it_was_and_marks_it() {
        let mut cache = ItemCache::new(1 << 16);
        let inserted = item(5);
        assert!(cache.insert(1, KEY, &inserted, b"value"));
        let hit = ItemHit { item: inserted, value: b"value" };
        assert_eq!(cache.access(1, KEY, 1005, false), Some(hit));
        assert_eq!(cache.access(1, KEY, 1010, true), Some(hit), "a quiet look leaves no mark");
        let fetched = CachedItem { last_access: 1010, fetched: true, ..inserted };
        assert_eq!(cache.access(1, KEY, 1020, true).map(|hit| hit.item), Some(fetched));
        assert_eq!(cache.access(1, b"other", 1030, true), None);
        let counters = cache.counters();
        assert_eq!((counters.hits, counters.misses, counters.inserts), (2, 1, 1));
    }

    #[test]
    fn metadata_is_replaced_in_place() {
        let mut cache = ItemCache::new(1 << 16);
        let touched = Metadata { version: 6, client_flags: 8, expiry: 0, state: state::WIN_SENT };
        assert!(!cache.update_metadata(1, KEY, touched, 12));
        assert!(cache.insert(1, KEY, &item(5), b"value"));
        assert!(cache.update_metadata(1, KEY, touched, 12));
        let expected = CachedItem { metadata: touched, sequence: 12, ..item(5) };
        assert_eq!(cache.access(1, KEY, 1010, false).map(|hit| hit.item), Some(expected));
    }

    #[test]
    fn an_item_is_found_by_the_place_of_its_record() {
        let mut cache = ItemCache::new(1 << 16);
        let place = item(5).pointer.expect("it has one");
        assert_eq!(cache.value_at(1, place), None);
        // Two keys with the same hash.
        let other = Pointer { offset: 8192, ..place };
        assert!(cache.insert(1, KEY, &item(5), b"value"));
        let at_other = CachedItem { pointer: Some(other), ..item(6) };
        assert!(cache.insert(1, b"other", &at_other, b"another"));
        assert_eq!(cache.value_at(1, place), Some((KEY, b"value".as_slice())));
        assert_eq!(cache.value_at(1, other), Some((b"other".as_slice(), b"another".as_slice())));
        assert_eq!(cache.value_at(2, place), None);
        cache.move_value(1, KEY, place, Pointer { segment: 9, ..place });
        assert_eq!(cache.value_at(1, place), None);
    }

    #[test]
    fn a_removed_item_is_gone() {
        let mut cache = ItemCache::new(1 << 16);
        assert!(cache.insert(1, KEY, &item(5), b"value"));
        assert!(cache.remove(1, KEY) && !cache.remove(1, KEY));
        assert_eq!(cache.access(1, KEY, 1030, true), None);
        assert!(cache.insert(1, KEY, &item(7), b""));
        cache.clear();
        assert_eq!(cache.access(1, KEY, 1030, true), None);
        assert!(cache.reserved_bytes() <= 1 << 16);
    }

    proptest! {
        #[test]
        fn headers_round_trip(
            version: u64, client_flags: u32, expiry: u32, state: u8, sequence: u64, now: u32,
            fetched: bool, pointer: Option<(u32, u32, u32)>,
        ) {
            let metadata = Metadata { version, client_flags, expiry, state };
            let pointer = pointer
                .map(|(segment, offset, len)| Pointer { segment, offset, len: len.max(1) });
            let item = CachedItem { metadata, sequence, last_access: now, fetched, pointer };
            let mut cache = ItemCache::new(1 << 14);
            prop_assert!(cache.insert(3, KEY, &item, b"value"));
            prop_assert_eq!(cache.access(3, KEY, 0, false).map(|hit| hit.item), Some(item));
        }
    }
}
