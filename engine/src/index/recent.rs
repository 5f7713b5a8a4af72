//! What look-ups have just found in the tables, so that they need not search them again.
//!
//! An operation that has to wait for its value looks its key up when it comes, once more to say how
//! much memory it will need, and once more when its turn has come, because everything may have
//! changed meanwhile. Mostly nothing has, and then the second search would cost as much as the
//! first: tables are large, and each step of a search waits for memory.
//!
//! Tables never change: what they have of a key follows from which tables there are and which
//! ranges of keys were deleted. What was found is believed as long as both are the same.

use crate::entry::{Entry, Metadata, Payload, Pointer};

/// How many look-ups are remembered; a power of two. A core begins less than an eighth of it
/// before it goes on with the first.
const SLOTS: usize = 512;

/// Look-ups of longer keys are not remembered, in bytes.
const KEY_BYTES_MAX: usize = 64;

/// What decides, besides the key, what a look-up in the tables finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// How often the tables had changed.
    pub(super) table_changes: u64,
    /// The log sequence of the newest deletion of a range with the key in it.
    pub(super) deleted_at: Option<u64>,
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    moment: Moment,
    key_len: u8,
    key: [u8; KEY_BYTES_MAX],
    metadata: Metadata,
    pointer: Pointer,
    value_len: u32,
}

/// The last look-ups that have found an item whose value is in the log, by the key's hash.
pub(super) struct Recent {
    /// Empty until something is remembered.
    slots: Vec<Option<Slot>>,
}

impl Recent {
    /// The most memory that it takes, in bytes.
    pub(super) const BYTES_MAX: usize = SLOTS * size_of::<Option<Slot>>();

    /// How much memory it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Slot>>()
    }

    /// Nothing.
    pub(super) fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// What a look-up of `key`, whose hash is `hash`, finds at this moment, if that is known.
    #[inline]
    pub(super) fn get(&self, key: &[u8], hash: u64, moment: Moment) -> Option<Entry<'static>> {
        let slot = self.slots.get(slot_of(hash))?.as_ref()?;
        let is_it = slot.hash == hash
            && slot.moment == moment
            && &slot.key[..usize::from(slot.key_len)] == key;
        let payload = Payload::Separate(slot.pointer, slot.value_len);
        is_it.then_some(Entry { metadata: slot.metadata, payload })
    }

    /// Remembers what a look-up of `key` has found at this moment.
    pub(super) fn note(&mut self, key: &[u8], hash: u64, moment: Moment, found: &Entry<'_>) {
        let Payload::Separate(pointer, value_len) = found.payload else { return };
        if key.len() > KEY_BYTES_MAX {
            return;
        }
        let mut copy = [0; KEY_BYTES_MAX];
        copy[..key.len()].copy_from_slice(key);
        if self.slots.is_empty() {
            self.slots.reserve_exact(SLOTS);
            self.slots.resize(SLOTS, None);
        }
        self.slots[slot_of(hash)] = Some(Slot {
            hash,
            moment,
            key_len: key.len() as u8,
            key: copy,
            metadata: found.metadata,
            pointer,
            value_len,
        });
    }
}

fn slot_of(hash: u64) -> usize {
    hash as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { table_changes: 7, deleted_at: None };

    fn entry(offset: u32) -> Entry<'static> {
        let pointer = Pointer { segment: 3, offset, len: 100 };
        Entry { metadata: Metadata::default(), payload: Payload::Separate(pointer, 50) }
    }

    #[test]
    fn a_look_up_is_believed_while_nothing_has_changed() {
        let mut recent = Recent::new();
        assert_eq!(recent.get(b"key", 1, NOW), None);
        recent.note(b"key", 1, NOW, &entry(64));
        assert_eq!(recent.get(b"key", 1, NOW), Some(entry(64)));
        let tables_changed = Moment { table_changes: 8, ..NOW };
        assert_eq!(recent.get(b"key", 1, tables_changed), None);
        let range_deleted = Moment { deleted_at: Some(9), ..NOW };
        assert_eq!(recent.get(b"key", 1, range_deleted), None);
        recent.note(b"key", 1, range_deleted, &entry(128));
        assert_eq!(recent.get(b"key", 1, range_deleted), Some(entry(128)));
        assert_eq!(recent.get(b"key", 1, NOW), None);
    }

    #[test]
    fn keys_with_one_hash_are_not_mixed_up() {
        let mut recent = Recent::new();
        recent.note(b"one", 1, NOW, &entry(64));
        assert_eq!(recent.get(b"two", 1, NOW), None);
        assert_eq!(recent.get(b"on", 1, NOW), None);
        assert_eq!(recent.get(b"one", 1 + SLOTS as u64, NOW), None);
        recent.note(b"two", 1, NOW, &entry(128));
        assert_eq!(recent.get(b"one", 1, NOW), None);
        assert_eq!(recent.get(b"two", 1, NOW), Some(entry(128)));
    }

    #[test]
    fn what_needs_no_second_search_is_not_remembered() {
        let mut recent = Recent::new();
        let inline = Entry { metadata: Metadata::default(), payload: Payload::Inline(b"value") };
        recent.note(b"inline", 1, NOW, &inline);
        recent.note(b"gone", 2, NOW, &Entry::tombstone(5));
        recent.note(&[b'k'; KEY_BYTES_MAX + 1], 3, NOW, &entry(64));
        assert_eq!(recent.memory_bytes(), 0);
        recent.note(&[b'k'; KEY_BYTES_MAX], 3, NOW, &entry(64));
        assert_eq!(recent.get(&[b'k'; KEY_BYTES_MAX], 3, NOW), Some(entry(64)));
        assert_eq!(recent.memory_bytes(), Recent::BYTES_MAX);
    }
}
