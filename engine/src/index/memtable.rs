//! The memtable: the newest entry of every key that was changed since the last flush, sorted.

use std::collections::{BTreeMap, BTreeSet};

use crate::canary::{self, Defect};
use crate::entry::{Entry, Metadata, Payload, Pointer};

/// What an entry takes of the tree's nodes, which are two thirds full after inserts in any order.
const NODE_BYTES: usize = size_of::<(Box<[u8]>, Slot)>() * 3 / 2;

/// What the allocator takes for a key or value of `len` bytes: a word besides, in units of two, and
/// at least two of these.
const fn allocated(len: usize) -> usize {
    const WORD: usize = size_of::<usize>();
    let bytes = (len + WORD).next_multiple_of(2 * WORD);
    if bytes < 4 * WORD { 4 * WORD } else { bytes }
}

/// How many entries are freed at a time.
const DROP_STEP: usize = 256;

/// Where a memtable entry's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Tombstone,
    Inline(Box<[u8]>),
    Separate(Pointer, u32),
}

/// What the memtable holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    metadata: Metadata,
    sequence: u64,
    value: Value,
}

/// An entry found in the memtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The entry.
    pub entry: Entry<'a>,
    /// The log sequence of the change: it is durable when the log is durable past it.
    pub sequence: u64,
}

/// A sorted map from encoded key to newest entry.
#[derive(Debug, Default)]
pub struct Memtable {
    slots: BTreeMap<Box<[u8]>, Slot>,
    bytes: usize,
    segments: BTreeSet<u32>,
    separate_bytes: u64,
    tombstones: u64,
}

impl Slot {
    fn as_found(&self) -> Found<'_> {
        let payload = match &self.value {
            Value::Tombstone => Payload::Tombstone,
            Value::Inline(value) => Payload::Inline(value),
            Value::Separate(pointer, len) => Payload::Separate(*pointer, *len),
        };
        Found { entry: Entry { metadata: self.metadata, payload }, sequence: self.sequence }
    }

    fn pointer(&self) -> Option<Pointer> {
        match self.value {
            Value::Separate(pointer, _) => Some(pointer),
            Value::Tombstone | Value::Inline(_) => None,
        }
    }
}

impl Memtable {
    /// The entry of `key`, if it was changed since the last flush.
    ///
    /// `hash` is the key's, here and elsewhere: see [`key_hash`](super::table::key_hash).
    pub fn get(&self, key: &[u8], _hash: u64) -> Option<Found<'_>> {
        self.slots.get(key).map(Slot::as_found)
    }

    /// Makes `entry` the newest of `key`, and returns where the value was of the entry that it
    /// replaces here, if that was in the log.
    ///
    /// Sequences only grow: an entry that is older than what is there is a programmer's error.
    pub fn insert(
        &mut self,
        key: &[u8],
        _hash: u64,
        entry: &Entry<'_>,
        sequence: u64,
    ) -> Option<Pointer> {
        let value = match entry.payload {
            Payload::Tombstone => Value::Tombstone,
            Payload::Inline(value) => Value::Inline(value.into()),
            Payload::Separate(pointer, len) => Value::Separate(pointer, len),
        };
        let slot = Slot { metadata: entry.metadata, sequence, value };
        self.bytes += inline_bytes(&slot);
        self.separate_bytes += separate_len(&slot);
        self.tombstones += u64::from(slot.value == Value::Tombstone);
        if let Some(pointer) = entry.pointer() {
            self.segments.insert(pointer.segment);
        }
        if let Some(old) = self.slots.get_mut(key) {
            assert!(old.sequence < sequence, "the log's order is the order of the changes");
            self.bytes -= inline_bytes(old);
            self.separate_bytes -= separate_len(old);
            self.tombstones -= u64::from(old.value == Value::Tombstone);
            std::mem::replace(old, slot).pointer()
        } else {
            self.bytes += NODE_BYTES + allocated(key.len());
            self.slots.insert(key.into(), slot);
            None
        }
    }

    /// How much memory the entries take, estimated, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the log records that the entries point to.
    pub fn separate_bytes(&self) -> u64 {
        self.separate_bytes
    }

    /// How many of the keys are deleted.
    pub fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// Whether an entry has pointed into this segment: it must not be freed before the entries are
    /// in a table, which counts them.
    pub fn points_into(&self, segment: u32) -> bool {
        self.segments.contains(&segment) && !canary::has(Defect::ForgetPointers)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Frees the memory of some entries; false once there is none left. To drop a large memtable at
    /// once takes milliseconds.
    pub fn drop_some(&mut self) -> bool {
        for _ in 0..DROP_STEP {
            if self.slots.pop_first().is_none() {
                return false;
            }
        }
        true
    }

    /// All entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Found<'_>)> {
        self.slots.iter().map(|(key, slot)| (&**key, slot.as_found()))
    }
}

fn separate_len(slot: &Slot) -> u64 {
    match &slot.value {
        Value::Separate(pointer, _) => u64::from(pointer.len),
        Value::Tombstone | Value::Inline(_) => 0,
    }
}

fn inline_bytes(slot: &Slot) -> usize {
    match &slot.value {
        Value::Inline(value) => allocated(value.len()),
        Value::Tombstone | Value::Separate(..) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::table::key_hash;

    fn insert(table: &mut Memtable, key: &[u8], entry: &Entry<'_>, sequence: u64) {
        table.insert(key, key_hash(key), entry, sequence);
    }

    fn inline(version: u64, value: &[u8]) -> Entry<'_> {
        let metadata = Metadata { version, ..Metadata::default() };
        Entry { metadata, payload: Payload::Inline(value) }
    }

    #[test]
    fn the_newest_entry_wins_and_the_size_follows() {
        let mut table = Memtable::default();
        insert(&mut table, b"b", &inline(1, b"one"), 1);
        let once = table.bytes();
        insert(&mut table, b"b", &inline(2, b"three"), 2);
        assert_eq!(table.bytes(), once, "the allocator gives either value the same");
        insert(&mut table, b"b", &inline(3, &[b'v'; 100]), 3);
        assert_eq!(table.bytes(), once + 112 - 32);
        insert(&mut table, b"b", &inline(4, b"three"), 4);
        insert(&mut table, b"a", &inline(5, b""), 5);
        let found = table.get(b"b", key_hash(b"b")).expect("there");
        assert_eq!((found.entry, found.sequence), (inline(4, b"three"), 4));
        let keys: Vec<&[u8]> = table.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [b"a", b"b"]);
        let tombstone = Entry { payload: Payload::Tombstone, ..inline(6, b"") };
        insert(&mut table, b"b", &tombstone, 6);
        assert!(table.get(b"b", key_hash(b"b")).expect("there").entry.is_tombstone());
        assert_eq!((table.len(), table.is_empty(), table.tombstones()), (2, false, 1));
        insert(&mut table, b"b", &inline(7, b"again"), 7);
        assert_eq!(table.tombstones(), 0);
    }

    #[test]
    fn a_replaced_value_is_told() {
        let pointer = |offset| Pointer { segment: 7, offset, len: 200 };
        let entry = |version, payload| Entry { payload, ..inline(version, b"") };
        let mut table = Memtable::default();
        let mut replaced = |sequence, payload| {
            table.insert(b"k", key_hash(b"k"), &entry(sequence, payload), sequence)
        };
        assert_eq!(replaced(1, Payload::Separate(pointer(64), 100)), None);
        assert_eq!(replaced(2, Payload::Separate(pointer(512), 100)), Some(pointer(64)));
        assert_eq!(replaced(3, Payload::Tombstone), Some(pointer(512)));
        assert_eq!(replaced(4, Payload::Inline(b"short")), None);
        assert_eq!(replaced(5, Payload::Separate(pointer(1024), 100)), None);
    }

    #[test]
    fn a_memtable_is_dropped_in_steps() {
        let mut table = Memtable::default();
        for number in 0..1000u64 {
            insert(&mut table, &number.to_be_bytes(), &inline(number, b"value"), number);
        }
        let mut left = vec![table.len()];
        while table.drop_some() {
            left.push(table.len());
        }
        assert_eq!((left, table.len()), (vec![1000, 744, 488, 232], 0));
    }

    #[test]
    #[should_panic(expected = "the log's order")]
    fn an_older_change_is_refused() {
        let mut table = Memtable::default();
        insert(&mut table, b"b", &inline(2, b"two"), 2);
        insert(&mut table, b"b", &inline(1, b"one"), 1);
    }
}
