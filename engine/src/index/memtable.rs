//! The memtable: the newest entry of every key that was changed since the last flush, sorted.
//!
//! Most changes and look-ups are of keys that are there: they find their slot by the key's hash.
//! The order is touched by new keys only.

mod chunks;
mod hash_index;
mod order;
mod slot_key;

use std::collections::BTreeSet;

use chunks::Chunks;
use hash_index::HashIndex;
use order::Order;
use slot_key::SlotKey;

use crate::canary::{self, Defect};
use crate::entry::{Entry, Metadata, Payload, Pointer};

/// What an entry takes besides its key and an inline value. Memory that was allocated in advance,
/// of which there is a bounded amount, is not counted.
const SLOT_BYTES: usize = size_of::<Slot>() + hash_index::BYTES + order::BYTES;

/// What the allocator takes for a key or value of `len` bytes: a word besides, in units of two, and
/// at least two of these.
const fn allocated(len: usize) -> usize {
    const WORD: usize = size_of::<usize>();
    let bytes = (len + WORD).next_multiple_of(2 * WORD);
    if bytes < 4 * WORD { 4 * WORD } else { bytes }
}

/// Where a memtable entry's value is.
#[derive(Debug)]
enum Value {
    Tombstone,
    Inline(Box<[u8]>),
    Separate(Pointer, u32),
}

/// The newest change of a key.
#[derive(Debug)]
struct Change {
    metadata: Metadata,
    sequence: u64,
    value: Value,
}

/// What the memtable holds for a key.
#[derive(Debug)]
struct Slot {
    key: SlotKey,
    change: Change,
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
    slots: Chunks<Slot>,
    hashes: HashIndex,
    order: Order,
    bytes: usize,
    segments: BTreeSet<u32>,
    /// The last of `segments` that was added: nearly all entries point into the one before's.
    segment_last: Option<u32>,
    separate_bytes: u64,
    tombstones: u64,
}

impl Change {
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

    fn is_tombstone(&self) -> bool {
        matches!(self.value, Value::Tombstone)
    }

    fn separate_bytes(&self) -> u64 {
        self.pointer().map_or(0, |pointer| u64::from(pointer.len))
    }

    fn inline_bytes(&self) -> usize {
        match &self.value {
            Value::Inline(value) => allocated(value.len()),
            Value::Tombstone | Value::Separate(..) => 0,
        }
    }
}

impl Memtable {
    /// The entry of `key`, if it was changed since the last flush.
    ///
    /// `hash` is the key's, here and elsewhere: see [`key_hash`](super::table::key_hash).
    pub fn get(&self, key: &[u8], hash: u64) -> Option<Found<'_>> {
        self.slot_of(key, hash).map(|slot| self.slots[slot].change.as_found())
    }

    fn slot_of(&self, key: &[u8], hash: u64) -> Option<u32> {
        let key_of = |slot| &*self.slots[slot].key;
        self.hashes.find(hash, |slot| key_of(slot) == key, || self.order.find(key, key_of))
    }

    /// Makes `entry` the newest of `key`, and returns where the value was of the entry that it
    /// replaces here, if that was in the log.
    ///
    /// Sequences only grow: an entry that is older than what is there is a programmer's error.
    pub fn insert(
        &mut self,
        key: &[u8],
        hash: u64,
        entry: &Entry<'_>,
        sequence: u64,
    ) -> Option<Pointer> {
        let value = match entry.payload {
            Payload::Tombstone => Value::Tombstone,
            Payload::Inline(value) => Value::Inline(value.into()),
            Payload::Separate(pointer, len) => Value::Separate(pointer, len),
        };
        let change = Change { metadata: entry.metadata, sequence, value };
        self.bytes += change.inline_bytes();
        self.separate_bytes += change.separate_bytes();
        self.tombstones += u64::from(change.is_tombstone());
        if let Some(pointer) = entry.pointer()
            && self.segment_last != Some(pointer.segment)
        {
            self.segments.insert(pointer.segment);
            self.segment_last = Some(pointer.segment);
        }
        let Some(slot) = self.slot_of(key, hash) else {
            self.insert_new(key, hash, change);
            return None;
        };
        let old = std::mem::replace(&mut self.slots[slot].change, change);
        assert!(old.sequence < sequence, "the log's order is the order of the changes");
        self.bytes -= old.inline_bytes();
        self.separate_bytes -= old.separate_bytes();
        self.tombstones -= u64::from(old.is_tombstone());
        old.pointer()
    }

    fn insert_new(&mut self, key: &[u8], hash: u64, change: Change) {
        let slot_key = SlotKey::from(key);
        self.bytes += SLOT_BYTES + slot_key.allocated_len().map_or(0, allocated);
        let slot = self.slots.push(Slot { key: slot_key, change });
        self.hashes.insert(hash, slot);
        self.order.insert(key, slot, |slot| &self.slots[slot].key);
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
        self.len() == 0
    }

    /// Frees the memory of some entries; false once there is none left. To drop a large memtable at
    /// once takes milliseconds. Nothing else may be asked of it after the first time.
    pub fn drop_some(&mut self) -> bool {
        self.slots.drop_some() | self.order.drop_some() | self.hashes.drop_some()
    }

    /// The entries of keys from `start` on and below `end`, if there is one, in ascending order, or
    /// in descending order if `is_reverse`.
    pub fn range<'a>(
        &'a self,
        start: &'a [u8],
        end: Option<&'a [u8]>,
        is_reverse: bool,
    ) -> impl Iterator<Item = (&'a [u8], Found<'a>)> {
        let key_of = |slot| &*self.slots[slot].key;
        let slots: Box<dyn Iterator<Item = u32> + 'a> = if is_reverse {
            Box::new(self.order.below(end, key_of))
        } else {
            Box::new(self.order.from(start, key_of))
        };
        let entries = slots.map(|slot| &self.slots[slot]);
        let entries = entries.map(|slot| (&*slot.key, slot.change.as_found()));
        let is_within = move |key: &[u8]| {
            if is_reverse { key >= start } else { end.is_none_or(|end| key < end) }
        };
        entries.take_while(move |(key, _)| is_within(key))
    }

    /// All entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Found<'_>)> {
        let slots = self.order.iter().map(|slot| &self.slots[slot]);
        slots.map(|slot| (&*slot.key, slot.change.as_found()))
    }
}

#[cfg(test)]
mod tests;
