//! The positions of one FIFO queue in the arena: arithmetic only, no bytes.
//!
//! ```text
//! not wrapped:  base        tail ######## head          end
//! wrapped:      base ##### head     tail ####### limit  end
//! ```
//!
//! Entries lie at `#`. An entry that does not fit between the head and the end goes to the base,
//! and the bytes from `limit` on lie idle until the tail has come around.

/// A queue's positions, in bytes from the start of the arena.
pub(super) struct Ring {
    base: usize,
    end: usize,
    head: usize,
    tail: usize,
    /// Where the older entries end while the head is before the tail.
    limit: usize,
    wrapped: bool,
    ever_wrapped: bool,
    /// No byte from here on was ever used.
    highest: usize,
    /// Entries in the queue that are not dead; kept by the cache.
    pub(super) live_entries: usize,
}

impl Ring {
    /// An empty queue over `len` bytes from `base` on.
    pub(super) fn new(base: usize, len: usize) -> Self {
        Self {
            base,
            end: base + len,
            head: base,
            tail: base,
            limit: base + len,
            wrapped: false,
            ever_wrapped: false,
            highest: base,
            live_entries: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self { highest: self.highest, ..Self::new(self.base, self.end - self.base) };
    }

    /// Claims `bytes` contiguous bytes at the head; `None` until enough was popped at the tail.
    pub(super) fn reserve(&mut self, bytes: usize) -> Option<usize> {
        assert!(bytes > 0 && bytes <= self.end - self.base, "{bytes} bytes never fit");
        if !self.wrapped && self.end - self.head < bytes {
            self.limit = self.head;
            self.head = self.base;
            self.wrapped = true;
            self.ever_wrapped = true;
        }
        let room = if self.wrapped { self.tail - self.head } else { self.end - self.head };
        if room < bytes {
            return None;
        }
        let offset = self.head;
        self.head += bytes;
        self.highest = self.highest.max(self.head);
        Some(offset)
    }

    /// How many bytes the queue has.
    pub(super) fn len(&self) -> usize {
        self.end - self.base
    }

    /// How many bytes were ever used; clearing the queue does not change it.
    pub(super) fn used_bytes_max(&self) -> usize {
        self.highest - self.base
    }

    /// Whether `bytes` bytes are free that were never used since the queue was cleared.
    pub(super) fn has_unused(&self, bytes: usize) -> bool {
        !self.ever_wrapped && self.end - self.head >= bytes
    }

    /// Where the oldest entry is; `None` if the queue is empty.
    pub(super) fn tail(&self) -> Option<usize> {
        (self.wrapped || self.head != self.tail).then_some(self.tail)
    }

    /// Gives up the oldest entry, which is `bytes` long.
    pub(super) fn pop(&mut self, bytes: usize) {
        let region_end = if self.wrapped { self.limit } else { self.head };
        assert!(bytes > 0 && bytes <= region_end - self.tail, "no such entry at the tail");
        self.tail += bytes;
        if self.wrapped && self.tail == self.limit {
            self.tail = self.base;
            self.wrapped = false;
        }
        if !self.wrapped && self.tail == self.head {
            self.tail = self.base;
            self.head = self.base;
        }
    }

    /// The entry after the one at `offset`, which is `bytes` long; `None` after the newest.
    #[cfg(test)]
    pub(super) fn next(&self, offset: usize, bytes: usize) -> Option<usize> {
        let next = offset + bytes;
        let next = if self.wrapped && next == self.limit { self.base } else { next };
        (next != self.head).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const BASE: usize = 40;
    const LEN: usize = 160;

    fn entries(ring: &Ring, model: &VecDeque<(usize, usize)>) -> Vec<usize> {
        let mut offsets = Vec::new();
        let mut next = ring.tail();
        while let Some(offset) = next {
            let bytes = model[offsets.len()].1;
            offsets.push(offset);
            next = ring.next(offset, bytes);
        }
        offsets
    }

    proptest! {
        #[test]
        fn entries_stay_in_order_inside_and_apart(
            steps in proptest::collection::vec(
                proptest::option::weighted(0.7, 1usize..=LEN),
                0..200,
            ),
        ) {
            let mut ring = Ring::new(BASE, LEN);
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Some(bytes) => loop {
                        if let Some(offset) = ring.reserve(bytes) {
                            model.push_back((offset, bytes));
                            break;
                        }
                        let (_, oldest) = model.pop_front().expect("an empty ring has room");
                        ring.pop(oldest);
                    },
                    None => if let Some((_, oldest)) = model.pop_front() {
                        ring.pop(oldest);
                    },
                }
                let offsets: Vec<usize> = model.iter().map(|entry| entry.0).collect();
                prop_assert_eq!(entries(&ring, &model), offsets);
                let mut regions: Vec<_> = model.iter().copied().collect();
                regions.sort_unstable();
                let mut free_from = BASE;
                for (offset, bytes) in regions {
                    prop_assert!(offset >= free_from);
                    free_from = offset + bytes;
                }
                prop_assert!(free_from <= BASE + LEN);
            }
        }

        #[test]
        fn what_was_popped_always_fits_at_the_head(
            lengths in proptest::collection::vec(1usize..=LEN / 4, 1..300),
        ) {
            let mut ring = Ring::new(BASE, LEN);
            let mut model = VecDeque::new();
            for bytes in lengths {
                while ring.reserve(bytes).is_none() {
                    let oldest = model.pop_front().expect("an empty ring has room");
                    ring.pop(oldest);
                    if model.len() % 2 == 0 {
                        prop_assert!(ring.reserve(oldest).is_some());
                        model.push_back(oldest);
                        let next = model.pop_front().expect("just pushed");
                        ring.pop(next);
                    }
                }
                model.push_back(bytes);
            }
        }
    }
}
