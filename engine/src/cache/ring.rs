//! The positions of one FIFO queue in the arena: arithmetic only, no bytes.
//!
//! ```text
//! not wrapped:  base        tail ######## head          end
//! wrapped:      base ##### head     tail ####### limit  end
//! ```
//!
//! Entries lie at `#`. An entry that does not fit between the head and the end goes to the base,
//! and the bytes from `limit` on lie idle until the tail has come around.
//!
//! A queue may be made shorter than what it spans: then entries overhang its end until the tail has
//! come by. New ones go to the base meanwhile, and what it holds never exceeds its length.

use std::ops::Range;

/// A queue's positions, in bytes from the start of the arena.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Ring {
    base: usize,
    end: usize,
    head: usize,
    tail: usize,
    /// Where the older entries end while the head is before the tail.
    limit: usize,
    wrapped: bool,
    ever_wrapped: bool,
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
            live_entries: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.base, self.len());
    }

    /// Claims `bytes` contiguous bytes at the head; `None` until enough was popped at the tail.
    pub(super) fn reserve(&mut self, bytes: usize) -> Option<usize> {
        assert!(bytes > 0 && bytes <= self.len(), "{bytes} bytes never fit");
        if !self.wrapped && self.head + bytes > self.end {
            self.limit = self.head;
            self.head = self.base;
            self.wrapped = true;
            self.ever_wrapped = true;
        }
        let room = if self.wrapped {
            // The second is the smaller one only while entries overhang the end.
            (self.tail - self.head).min(self.len() - self.occupied())
        } else {
            self.end - self.head
        };
        if room < bytes {
            return None;
        }
        let offset = self.head;
        self.head += bytes;
        Some(offset)
    }

    /// Makes the queue `len` bytes long, which must be enough for what it holds.
    pub(super) fn set_len(&mut self, len: usize) {
        assert!(self.occupied() <= len, "what the queue holds exceeds its length");
        self.end = self.base + len;
    }

    /// How many bytes the entries take.
    pub(super) fn occupied(&self) -> usize {
        if self.wrapped {
            (self.limit - self.tail) + (self.head - self.base)
        } else {
            self.head - self.tail
        }
    }

    /// Whether entries lie beyond the queue's end.
    pub(super) fn is_overhanging(&self) -> bool {
        self.top() > self.end
    }

    /// Where the free bytes between the newest entry and the oldest are.
    pub(super) fn gap(&self) -> Range<usize> {
        if self.wrapped { self.head..self.tail } else { self.base..self.tail }
    }

    /// From here on there is neither an entry nor room for one.
    pub(super) fn unused_from(&self) -> usize {
        self.top().max(self.end)
    }

    /// Where the last entry ends, going by where they lie.
    pub(super) fn top(&self) -> usize {
        if self.wrapped { self.limit } else { self.head }
    }

    /// How many bytes the queue has.
    pub(super) fn len(&self) -> usize {
        self.end - self.base
    }

    /// Whether `bytes` bytes are free that were never used since the queue was cleared.
    pub(super) fn has_unused(&self, bytes: usize) -> bool {
        !self.ever_wrapped && self.head + bytes <= self.end
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
        fn a_queue_of_changing_length_holds_no_more_than_that_and_keeps_order(
            steps in proptest::collection::vec(
                (prop_oneof![3 => 1usize..=LEN / 8, 1 => LEN / 8..=LEN], any::<bool>()),
                0..300,
            ),
        ) {
            let mut ring = Ring::new(BASE, LEN);
            let mut model = VecDeque::new();
            for (bytes, is_resize) in steps {
                if is_resize && bytes >= LEN / 8 {
                    while ring.occupied() > bytes {
                        ring.pop(model.pop_front().map_or(0, |(_, oldest)| oldest));
                    }
                    ring.set_len(bytes);
                } else if bytes <= LEN / 8 {
                    let offset = loop {
                        if let Some(offset) = ring.reserve(bytes) {
                            break offset;
                        }
                        let (_, oldest) = model.pop_front().expect("an empty ring has room");
                        ring.pop(oldest);
                        prop_assert!(ring.clone().reserve(oldest).is_some(), "it may be kept");
                    };
                    prop_assert!(offset >= BASE && offset + bytes <= BASE + ring.len());
                    model.push_back((offset, bytes));
                }
                let held: usize = model.iter().map(|entry| entry.1).sum();
                prop_assert_eq!(ring.occupied(), held);
                prop_assert!(held <= ring.len());
                let offsets: Vec<usize> = model.iter().map(|entry| entry.0).collect();
                prop_assert_eq!(entries(&ring, &model), offsets);
                let mut regions: Vec<_> = model.iter().copied().collect();
                regions.sort_unstable();
                let apart = regions.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
                prop_assert!(apart, "{:?}", regions);
                let top = regions.last().map_or(BASE, |entry| entry.0 + entry.1);
                prop_assert!(top <= ring.unused_from());
                prop_assert_eq!(ring.is_overhanging(), top > BASE + ring.len());
                let gap = ring.gap();
                prop_assert!(
                    regions.iter().all(|entry| entry.0 + entry.1 <= gap.start || entry.0 >= gap.end)
                );
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
