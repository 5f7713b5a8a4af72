//! A bounded in-memory cache with S3-FIFO eviction, used by one thread.
//!
//! One arena holds every entry's bytes, divided into two FIFO queues: `small` (a tenth), where new
//! entries start, and `main`, where those live that were used again. What leaves `small` unused is
//! dropped and only its hash remembered in the ghost; an entry whose hash is found there goes
//! straight to `main`. One pass over cold keys therefore flows through `small` and leaves the hot
//! set alone, and a hit costs no list manipulation: it adds one to a two-bit count.
//!
//! Memory: arena, index, ghost and margin are allocated once, at construction, within the capacity.
//! The arena is zeroed lazily by the operating system, so what was never used is not resident. No
//! operation allocates. The queues can be made shorter and longer again ([`Cache::resize`]): what
//! they no longer use goes back to the operating system.
//!
//! Invariants:
//! - the index names exactly the live entries of the two queues;
//! - the arena holds at most one live entry of a key, the one inserted last;
//! - an entry is contiguous: it never wraps around the end of its queue.

mod arena;
mod eviction;
mod ghost;
mod index;
mod items;
mod layout;
mod margin;
mod pages;
mod resize;
mod ring;
mod touched;
mod usual_len;

#[cfg(test)]
mod tests;

pub use items::{CachedItem, ItemCache, ItemHit};

use arena::{Arena, Descriptor, Location};
use eviction::{Effort, Queue};
use ghost::Ghost;
use index::Index;
use layout::Layout;
use margin::{MARGIN_PARTS, Margin};
use ring::Ring;
use usual_len::UsualLen;

/// A cache of byte strings under byte-string keys, each with `HEADER` bytes that the caller may
/// change in place.
///
/// The caller passes a 64-bit hash with every key; the same key must always come with the same
/// hash. Some of its bits may be the same for all keys, such as those that chose the shard.
pub struct Cache<const HEADER: usize> {
    arena: Arena<HEADER>,
    small: Ring,
    main: Ring,
    index: Index,
    ghost: Ghost,
    margin: Margin,
    layout: Layout,
    capacity_max: usize,
    counters: CacheCounters,
    usual_len: UsualLen,
}

/// An entry that was found.
#[derive(Debug)]
pub struct Hit<'a, const HEADER: usize> {
    /// The caller's own bytes; changes stay in the cache.
    pub header: &'a mut [u8; HEADER],
    /// The value.
    pub value: &'a [u8],
}

/// What a cache holds and what it has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounters {
    /// Entries held now.
    pub entries: usize,
    /// Bytes of the arena that these entries take: descriptors, headers, keys, values and padding.
    pub bytes_used: usize,
    /// Calls of `get` that found the key.
    pub hits: u64,
    /// Calls of `get` that did not.
    pub misses: u64,
    /// Entries admitted, replacements included.
    pub inserts: u64,
    /// Entries dropped to make room.
    pub evictions: u64,
    /// Inserted keys that had been evicted not long before.
    pub ghost_hits: u64,
    /// Entries that were read from the device to be admitted, as [`Cache::note_read`] was told.
    pub reads: u64,
    /// Of these, how many a little more memory would have saved: see [`Cache::set_margin`].
    pub near_misses: u64,
    /// Bytes of the cache that are in memory, its index included: what was written to and not given
    /// back.
    pub resident_bytes: usize,
    /// The capacity in bytes that the cache has now.
    pub capacity: usize,
}

/// The mean length of an entry, in bytes, that [`Cache::new`] sizes the index for.
const ENTRY_BYTES_MEAN: usize = 128;

impl<const HEADER: usize> Cache<HEADER> {
    /// A cache that allocates at most `capacity_bytes`, its index included, for entries of at
    /// least 128 bytes on average. When the capacity is too small for any entry, nothing is
    /// allocated and nothing ever admitted. More than 32 GiB of entries are never held.
    pub fn new(capacity_bytes: usize) -> Self {
        Self::with_entry_bytes(capacity_bytes, ENTRY_BYTES_MEAN)
    }

    /// A cache as [`Self::new`] makes it, with an index for entries of `entry_bytes_mean` bytes
    /// (descriptor, header, key and value). With smaller entries the index may fill up before the
    /// arena does; with larger ones a part of the index lies idle.
    pub fn with_entry_bytes(capacity_bytes: usize, entry_bytes_mean: usize) -> Self {
        let layout = Layout::plan(capacity_bytes, entry_bytes_mean, Arena::<HEADER>::ENTRY_MIN);
        let cache = Self {
            arena: Arena::new(layout.small_bytes + layout.main_bytes),
            small: Ring::new(0, layout.small_bytes),
            main: Ring::new(layout.small_bytes, layout.main_bytes),
            index: Index::new(layout.index_entries),
            ghost: Ghost::new(layout.ghost_buckets),
            margin: Margin::new(layout.margin_buckets, capacity_bytes / MARGIN_PARTS),
            layout,
            capacity_max: capacity_bytes,
            counters: CacheCounters::default(),
            usual_len: UsualLen::default(),
        };
        assert!(cache.reserved_bytes() <= capacity_bytes, "the cache is larger than its capacity");
        cache
    }

    /// Addresses that the cache has reserved, in bytes: fixed, and at most the capacity that it was
    /// made with.
    pub fn reserved_bytes(&self) -> usize {
        let remembered = self.ghost.allocated_bytes() + self.margin.allocated_bytes();
        self.arena.len() + self.index.allocated_bytes() + remembered
    }

    /// Looks `key` up and counts a use of it.
    #[inline]
    pub fn get(&mut self, hash: u64, key: &[u8]) -> Option<Hit<'_, HEADER>> {
        let Some(location) = self.find(mix(hash), key) else {
            self.counters.misses += 1;
            return None;
        };
        self.counters.hits += 1;
        self.arena.count_use(location);
        let (header, value) = self.arena.contents_mut(location);
        Some(Hit { header, value })
    }

    /// Looks `key` up without counting a use, a hit or a miss.
    #[inline]
    pub fn peek(&self, hash: u64, key: &[u8]) -> Option<(&[u8; HEADER], &[u8])> {
        let location = self.find(mix(hash), key)?;
        Some(self.arena.contents(location))
    }

    /// Key, header and value of the entry with this hash whose header `is` accepts, without
    /// counting a use, a hit or a miss.
    pub fn peek_by_hash(
        &self,
        hash: u64,
        is: impl Fn(&[u8; HEADER]) -> bool,
    ) -> Option<(&[u8], &[u8])> {
        let hash = mix(hash);
        let fits = |location| {
            self.arena.descriptor(location).hash == hash && is(self.arena.contents(location).0)
        };
        let location = self.index.find(hash, fits)?;
        Some((self.arena.key(location), self.arena.contents(location).1))
    }

    /// The header of `key`, to be changed in place, without counting a use, a hit or a miss.
    #[inline]
    pub fn header_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut [u8; HEADER]> {
        let location = self.find(mix(hash), key)?;
        Some(self.arena.contents_mut(location).0)
    }

    /// Makes `value` the value of `key`, and says whether the cache holds it now. It does not when
    /// the entry is longer than an eighth of the main queue or the key longer than 65,535 bytes;
    /// an older entry of the key is removed then, so that no stale value stays behind. It may
    /// also not when far more keys have similar hashes than chance brings about.
    ///
    /// A replaced entry hands its queue and its count of uses on to its successor.
    pub fn insert(&mut self, hash: u64, key: &[u8], header: &[u8; HEADER], value: &[u8]) -> bool {
        let hash = mix(hash);
        let admitted = self.admitted_bytes(key, value);
        let old = self.find(hash, key).map(|location| (location, self.arena.descriptor(location)));
        if let Some((location, descriptor)) = old {
            if admitted == Some(descriptor.entry_bytes::<HEADER>()) {
                self.arena.write(location, descriptor.with_value(value), header, key, value);
                self.counters.inserts += 1;
                return true;
            }
            self.unlink(location, descriptor);
        }
        let Some(entry_bytes) = admitted.filter(|_| self.index.has_room_for(hash)) else {
            return false;
        };
        let (queue, uses) = match old {
            Some((location, descriptor)) => (self.queue_of(location), descriptor.uses),
            None => (self.queue_for_new(hash), 0),
        };
        let fits_small = entry_bytes <= Layout::small_entry_bytes_max(self.small.len());
        let queue = if fits_small { queue } else { Queue::Main };
        let location = self.claim(queue, entry_bytes);
        let descriptor = Descriptor::new(hash, key, value, uses);
        self.arena.write(location, descriptor, header, key, value);
        self.link(queue, location, descriptor);
        true
    }

    /// Makes `value` the value of a key that is not here, if it takes nobody's place: if main
    /// can hold all that lives, and this. Says whether the cache holds it now.
    pub fn insert_spare(
        &mut self,
        hash: u64,
        key: &[u8],
        header: &[u8; HEADER],
        value: &[u8],
    ) -> bool {
        let hash = mix(hash);
        let Some(entry_bytes) = self.admitted_bytes(key, value) else { return false };
        // All that lives in the small queue may yet be moved to main.
        let is_spare = entry_bytes <= self.spare_bytes() && !self.index.is_full();
        if !is_spare || !self.index.has_room_for(hash) || self.find(hash, key).is_some() {
            return false;
        }
        let location = self.claim(Queue::Main, entry_bytes);
        let descriptor = Descriptor::new(hash, key, value, 0);
        self.arena.write(location, descriptor, header, key, value);
        self.link(Queue::Main, location, descriptor);
        true
    }

    /// Notes that what is going to be inserted with this hash was read from the device, and says
    /// whether a little more memory would have saved that: [`Self::set_margin`] says how much.
    pub fn note_read(&mut self, hash: u64) -> bool {
        let is_near = self.margin.take(mix(hash));
        self.counters.reads += 1;
        self.counters.near_misses += u64::from(is_near);
        is_near
    }

    /// How much more memory it is of which [`Self::note_read`] says what it would have saved, in
    /// bytes. Of more than a 32nd of what the cache was made with it knows less than all.
    pub fn set_margin(&mut self, bytes: usize) {
        self.margin.set_bytes(bytes);
    }

    /// Starts bringing near the part of the index that a look-up of `hash` reads.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(mix(hash));
    }

    /// Starts bringing near the entry that a look-up of `hash` would find, if the index has one.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        if let Some(location) = self.index.guess(mix(hash)) {
            self.arena.prefetch(location, self.usual_len.lines());
        }
    }

    /// Starts bringing near the header of the entry that a look-up of `hash` would find, if there
    /// is one.
    #[inline]
    pub fn prefetch_header(&self, hash: u64) {
        if let Some(location) = self.index.guess(mix(hash)) {
            self.arena.prefetch(location, 1);
        }
    }

    /// Removes `key`; says whether it was there.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        let Some(location) = self.find(mix(hash), key) else { return false };
        self.unlink(location, self.arena.descriptor(location));
        true
    }

    /// Removes the entries that `is_gone` knows by key and header among those in so many buckets
    /// of the index from `from` on. Returns where to go on; `None` after the last.
    ///
    /// An entry stays in its bucket for as long as it is not replaced, so going through all buckets
    /// meets every entry that was there at the beginning.
    pub fn sweep(
        &mut self,
        from: usize,
        buckets: usize,
        is_gone: impl Fn(&[u8], &[u8; HEADER]) -> bool,
    ) -> Option<usize> {
        let to = self.index.buckets().min(from + buckets);
        for bucket in from..to {
            for location in self.index.in_bucket(bucket) {
                if is_gone(self.arena.key(location), self.arena.contents(location).0) {
                    self.unlink(location, self.arena.descriptor(location));
                }
            }
        }
        (to < self.index.buckets()).then_some(to)
    }

    /// Removes everything and forgets what was evicted. The memory stays allocated, and the
    /// counts of events go on.
    pub fn clear(&mut self) {
        self.small.clear();
        self.main.clear();
        self.index.clear();
        self.ghost.clear();
        self.margin.forget();
        self.counters.bytes_used = 0;
        self.release_unused(usize::MAX);
    }

    /// What the cache holds and has done.
    pub fn counters(&self) -> CacheCounters {
        let remembered = self.ghost.resident_bytes() + self.margin.resident_bytes();
        let tables = self.index.resident_bytes() + remembered;
        CacheCounters {
            entries: self.index.len(),
            resident_bytes: self.arena.resident_bytes() + tables,
            capacity: self.capacity(),
            ..self.counters
        }
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<Location> {
        self.index.find(hash, |location| self.arena.has_key(location, key))
    }

    /// The bytes an entry takes in the arena; `None` if it is not admitted.
    fn admitted_bytes(&self, key: &[u8], value: &[u8]) -> Option<usize> {
        let bytes_max = Layout::entry_bytes_max(self.main.len());
        if key.len() > usize::from(u16::MAX) || value.len() > bytes_max {
            return None;
        }
        let bytes = arena::entry_bytes::<HEADER>(key.len(), value.len());
        (bytes <= bytes_max).then_some(bytes)
    }

    /// Room for a new entry at the head of `queue`, and for its location in the index.
    fn claim(&mut self, queue: Queue, entry_bytes: usize) -> Location {
        let mut effort = Effort::for_entry(entry_bytes);
        while self.index.is_full() {
            self.evict_for_index(&mut effort);
        }
        self.make_room(queue, entry_bytes, &mut effort)
    }

    fn link(&mut self, queue: Queue, location: Location, descriptor: Descriptor) {
        self.index.insert(descriptor.hash, location);
        self.ring_mut(queue).live_entries += 1;
        self.usual_len.note(descriptor.entry_bytes::<HEADER>());
        self.counters.bytes_used += descriptor.entry_bytes::<HEADER>();
        self.counters.inserts += 1;
    }

    /// Takes a live entry out of the index; its bytes are reclaimed when the tail reaches them.
    fn unlink(&mut self, location: Location, descriptor: Descriptor) {
        self.index.remove(descriptor.hash, location);
        self.arena.mark_dead(location);
        self.ring_mut(self.queue_of(location)).live_entries -= 1;
        self.counters.bytes_used -= descriptor.entry_bytes::<HEADER>();
    }
}

/// Spreads the caller's hash over all 64 bits, so that bits that are the same for every key of the
/// shard empty no part of the index or the ghost.
#[inline]
fn mix(hash: u64) -> u64 {
    const ODD: u128 = 0x9E37_79B9_7F4A_7C15;
    let product = u128::from(hash) * ODD;
    (product as u64) ^ ((product >> 64) as u64)
}
