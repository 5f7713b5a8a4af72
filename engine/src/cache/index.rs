//! From a hash to the places of entries: hash tables whose memory is fixed.
//!
//! A table holds 32 bits for an entry and reads keys and hashes in the arena. Removals leave
//! tombstones behind, and under a cache's constant churn these use a table up about once in the
//! time in which all of its entries are replaced. Then it is rebuilt in its own memory, which reads
//! the hash of each of its entries. So that this stalls no request, the index is divided by hash
//! into many small tables. None of them ever grows: growing would take three times its memory for
//! a moment, and the total would be bound to powers of two.

use super::arena::Location;
use hashbrown::HashTable;

/// Buckets of a table, unless one smaller table is enough: a rebuild takes about 0.1 ms.
const TABLE_BUCKETS: usize = 2048;

/// The fewest buckets of a table.
const TABLE_BUCKETS_MIN: usize = 16;

/// Bytes of a table besides its locations and control bytes: its own fields, the control bytes'
/// tail and alignment, and the allocator's.
const TABLE_OVERHEAD: usize = size_of::<HashTable<Location>>() + 64;

/// How many tables of which size an index has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    tables: usize,
    buckets: usize,
}

impl Shape {
    /// The shape that holds at least `entries` entries.
    fn for_entries(entries: usize) -> Self {
        let per_table = entries_mean(TABLE_BUCKETS);
        if entries == 0 {
            return Self { tables: 0, buckets: 0 };
        }
        if entries > per_table {
            return Self { tables: entries.div_ceil(per_table), buckets: TABLE_BUCKETS };
        }
        let mut buckets = TABLE_BUCKETS_MIN;
        while entries_mean(buckets) < entries {
            buckets *= 2;
        }
        Self { tables: 1, buckets }
    }

    fn entries_max(self) -> usize {
        self.tables * entries_mean(self.buckets)
    }

    fn bytes(self) -> usize {
        let table = self.buckets * (size_of::<Location>() + 1) + TABLE_OVERHEAD;
        let rebuilt = entries_limit(self.buckets) * size_of::<Location>();
        self.tables * table + rebuilt
    }
}

/// Entries of a table when the index is full, on average: so few below [`entries_limit`] that no
/// table reaches that before the index is full if the hashes are any good.
const fn entries_mean(buckets: usize) -> usize {
    buckets / 16 * 11
}

/// The most entries that hashbrown puts into this many buckets.
const fn entries_limit(buckets: usize) -> usize {
    buckets / 8 * 7
}

pub(super) struct Index {
    tables: Vec<HashTable<Location>>,
    shape: Shape,
    len: usize,
    /// The locations of a table while it is rebuilt.
    rebuilt: Vec<Location>,
}

impl Index {
    /// An index for at least `entries` entries.
    pub(super) fn new(entries: usize) -> Self {
        let shape = Shape::for_entries(entries);
        let limit = entries_limit(shape.buckets);
        let tables: Vec<_> = (0..shape.tables).map(|_| HashTable::with_capacity(limit)).collect();
        let as_planned = tables.iter().all(|table| table.capacity() == limit);
        assert!(as_planned, "a hash table has chosen another size");
        Self { tables, shape, len: 0, rebuilt: Vec::with_capacity(limit) }
    }

    /// An upper bound of what an index for `entries` entries allocates.
    pub(super) fn bytes_for(entries: usize) -> usize {
        Shape::for_entries(entries).bytes()
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.shape.bytes()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn entries_max(&self) -> usize {
        self.shape.entries_max()
    }

    /// Whether an entry must go before another can come.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.entries_max()
    }

    /// Whether the table for `hash` has room. With good hashes it has while the index is not full.
    pub(super) fn has_room_for(&self, hash: u64) -> bool {
        let table = self.tables.get(self.table_of(hash));
        table.is_some_and(|table| table.len() < entries_limit(self.shape.buckets))
    }

    pub(super) fn clear(&mut self) {
        for table in &mut self.tables {
            table.clear();
        }
        self.len = 0;
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(Location) -> bool) -> Option<Location> {
        let table = self.tables.get(self.table_of(hash))?;
        table.find(hash, |&location| is(location)).copied()
    }

    /// Adds an entry that the index does not hold. Its table must have room; `hash_of` returns the
    /// hash that any entry was added with.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        location: Location,
        hash_of: impl Fn(Location) -> u64,
    ) {
        assert!(self.has_room_for(hash), "the index must not grow");
        let table = self.table_of(hash);
        if self.tables[table].len() == self.tables[table].capacity() {
            self.rebuild(table, &hash_of);
        }
        self.tables[table].insert_unique(hash, location, |&location| hash_of(location));
        self.len += 1;
    }

    /// Notes that an entry has moved.
    pub(super) fn relocate(&mut self, hash: u64, from: Location, to: Location) {
        let table = self.table_of(hash);
        let held = self.tables[table].find_mut(hash, |&location| location == from);
        *held.expect("a live entry is in the index") = to;
    }

    pub(super) fn remove(&mut self, hash: u64, entry: Location) {
        let table = self.table_of(hash);
        let held = self.tables[table].find_entry(hash, |&location| location == entry);
        held.unwrap_or_else(|_| panic!("a live entry is in the index")).remove();
        self.len -= 1;
    }

    /// Frees the tombstones of a table.
    fn rebuild(&mut self, table: usize, hash_of: &impl Fn(Location) -> u64) {
        let table = &mut self.tables[table];
        self.rebuilt.clear();
        self.rebuilt.extend(table.iter());
        table.clear();
        for &location in &self.rebuilt {
            table.insert_unique(hash_of(location), location, |&location| hash_of(location));
        }
    }

    /// The table for `hash`, going by bits that the tables do not use themselves: the lowest choose
    /// a bucket there, the highest tell its entries apart.
    #[inline]
    fn table_of(&self, hash: u64) -> usize {
        let chosen_by = u64::from((hash >> 24) as u32);
        ((chosen_by * self.tables.len() as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn hash_of(location: Location) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&location.offset().to_le_bytes())
    }

    fn allocated(index: &Index) -> usize {
        let tables: usize = index.tables.iter().map(HashTable::allocation_size).sum();
        tables
            + index.tables.capacity() * size_of::<HashTable<Location>>()
            + index.rebuilt.capacity() * size_of::<Location>()
    }

    #[test]
    fn an_index_allocates_no_more_than_was_foretold() {
        for entries in (0..5000).chain([1 << 18]) {
            let index = Index::new(entries);
            assert!(index.entries_max() >= entries, "{entries} entries");
            assert!(allocated(&index) <= Index::bytes_for(entries), "{entries} entries");
            assert_eq!(index.allocated_bytes(), Index::bytes_for(entries));
        }
        assert_eq!(Index::bytes_for(0), 0);
        assert!(Index::bytes_for(1 << 20) < (1 << 20) * 8);
    }

    #[test]
    fn churn_at_the_limit_never_makes_a_table_grow() {
        for entries in [1, 11, 500, 10_000] {
            let mut index = Index::new(entries);
            let before = allocated(&index);
            let mut held = VecDeque::new();
            for number in 0..200_000 {
                let location = Location::at(number * 8);
                if index.is_full() {
                    let oldest = held.pop_front().expect("a full index holds entries");
                    index.remove(hash_of(oldest), oldest);
                }
                index.insert(hash_of(location), location, hash_of);
                held.push_back(location);
            }
            assert_eq!((index.len(), held.len()), (index.entries_max(), index.entries_max()));
            assert_eq!(allocated(&index), before);
            for &location in &held {
                let found = index.find(hash_of(location), |other| other == location);
                assert_eq!(found, Some(location));
            }
        }
    }

    #[test]
    fn equal_hashes_fill_one_table_and_no_more() {
        let mut index = Index::new(10_000);
        let mut entries = 0;
        while index.has_room_for(7) {
            index.insert(7, Location::at(entries * 8), |_| 7);
            entries += 1;
        }
        assert_eq!(entries, entries_limit(TABLE_BUCKETS));
        assert!(index.has_room_for(u64::MAX));
        for entry in 0..entries {
            index.relocate(7, Location::at(entry * 8), Location::at((entry + entries) * 8));
        }
        for entry in entries..2 * entries {
            index.remove(7, Location::at(entry * 8));
        }
        assert_eq!(index.len(), 0);
        assert!(index.has_room_for(7));
        index.insert(7, Location::at(0), |_| 7);
        assert_eq!(index.find(7, |_| true), Some(Location::at(0)));
    }
}
