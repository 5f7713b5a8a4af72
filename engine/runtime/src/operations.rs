//! Tokens, the slots they name, and the count of operations in flight.
//!
//! Invariant: a slot is freed only after the last completion of every operation that names it, so
//! what it owns (buffer, path, descriptor) outlives the kernel's use of it.

use crate::network::ConnectionId;
use crate::ring::{Completion, Operation, Ring};

const INDEX_BITS: u32 = 32;
const GENERATION_BITS: u32 = 28;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const KIND_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;

/// What an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A disk request.
    Disk = 0,
    /// The watch on the core's eventfd.
    Wake = 1,
    /// A cancellation that nothing waits for.
    Cancel = 2,
    /// A listener's accept.
    Accept = 3,
    /// A connection's receive.
    Receive = 4,
    /// A connection's send.
    Send = 5,
    /// A closing connection's cancellation of its other operations.
    CancelConnection = 6,
}

/// The name of a slot: no later occupant of the same place has the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl From<Key> for ConnectionId {
    fn from(key: Key) -> Self {
        Self { index: key.index, generation: key.generation }
    }
}

impl From<ConnectionId> for Key {
    fn from(id: ConnectionId) -> Self {
        Self { index: id.index, generation: id.generation }
    }
}

/// What an operation's token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
}

impl Token {
    pub(crate) fn new(kind: Kind, key: Key) -> Self {
        Self { kind, key }
    }

    /// The token of an operation that has no slot.
    pub(crate) fn without_slot(kind: Kind) -> Self {
        Self { kind, key: Key { index: 0, generation: 0 } }
    }

    pub(crate) fn encode(self) -> u64 {
        assert!(self.key.generation <= GENERATION_MASK, "generations wrap below the mask");
        (u64::from(self.kind as u8) << KIND_SHIFT)
            | (u64::from(self.key.generation) << INDEX_BITS)
            | u64::from(self.key.index)
    }

    pub(crate) fn decode(token: u64) -> Self {
        let kind = match token >> KIND_SHIFT {
            0 => Kind::Disk,
            1 => Kind::Wake,
            2 => Kind::Cancel,
            3 => Kind::Accept,
            4 => Kind::Receive,
            5 => Kind::Send,
            6 => Kind::CancelConnection,
            other => panic!("the ring returned a token of kind {other} that nobody gave it"),
        };
        let generation = (token >> INDEX_BITS) as u32 & GENERATION_MASK;
        Self { kind, key: Key { index: token as u32, generation } }
    }
}

/// A slab whose keys carry a generation.
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.value = Some(value);
            return Key { index, generation: entry.generation };
        }
        let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 slots");
        self.entries.push(Entry { generation: 0, value: Some(value) });
        Key { index, generation: 0 }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(value)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The keys of the occupied slots.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let occupied = self.entries.iter().enumerate().filter(|(_, entry)| entry.value.is_some());
        let key = |(index, entry): (usize, &Entry<T>)| Key {
            index: index as u32,
            generation: entry.generation,
        };
        occupied.map(key).collect()
    }
}

/// The ring with the number of operations whose last completion has not been popped.
pub(crate) struct Port<R> {
    pub(crate) ring: R,
    in_flight: usize,
}

impl<R: Ring> Port<R> {
    pub(crate) fn new(ring: R) -> Self {
        Self { ring, in_flight: 0 }
    }

    /// Operations that will still complete.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues an operation.
    ///
    /// # Safety
    ///
    /// As for [`Ring::push`].
    #[inline]
    pub(crate) unsafe fn push(&mut self, token: Token, operation: Operation) {
        self.in_flight += 1;
        // SAFETY: the caller promises what `push` asks for.
        unsafe { self.ring.push(token.encode(), operation) };
    }

    /// Queues an operation that points to no memory.
    pub(crate) fn push_plain(&mut self, token: Token, operation: Operation) {
        let plain = matches!(
            operation,
            Operation::Accept { .. }
                | Operation::Receive { .. }
                | Operation::Watch { .. }
                | Operation::Cancel { .. }
                | Operation::CancelFile { .. }
                | Operation::CancelAll
        );
        assert!(plain, "{operation:?} points to memory");
        // SAFETY: the operation has no pointers.
        unsafe { self.push(token, operation) };
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Completion> {
        let completion = self.ring.pop()?;
        if !completion.more {
            self.in_flight -= 1;
        }
        Some(completion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for kind in [Kind::Disk, Kind::Wake, Kind::Accept, Kind::Send, Kind::CancelConnection] {
            for key in [
                Key { index: 0, generation: 0 },
                Key { index: u32::MAX, generation: GENERATION_MASK },
                Key { index: 7, generation: 12345 },
            ] {
                let token = Token::new(kind, key);
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
    }

    #[test]
    fn a_key_does_not_find_a_later_occupant() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
        assert_eq!((slots.len(), slots.keys()), (1, vec![second]));
    }
}
