//! Which freed files may still be read.
//!
//! Who reads a value from the device pins its segment, from the moment at which the index has told
//! where the value is until its bytes are there. So a segment that is freed meanwhile is not used
//! again before that, and no other waits for this reader. What is in memory needs no pin.
//!
//! A snapshot pins every segment that there was when it began: whoever holds it will read values of
//! that moment, and does not know yet which.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::canary::{self, Defect};
use crate::space::Readers;

#[derive(Default)]
struct Held {
    /// The last number that a moment or a pin was given.
    last: u64,
    /// By segment and number of the pin, since when it is held, in nanoseconds.
    segments: BTreeMap<(u32, u64), u64>,
    /// By the moments at which they began.
    snapshots: BTreeMap<u64, Snapshot>,
}

struct Snapshot {
    /// In nanoseconds.
    since: u64,
    /// It has segments with numbers below this.
    below: u32,
    /// Who reads it.
    readers: Readers,
}

impl Held {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The pins on one segment: their numbers, and since when they are held.
    fn on_segment(&self, segment: u32) -> impl Iterator<Item = (u64, u64)> {
        let pins = self.segments.range((segment, 0)..=(segment, u64::MAX));
        pins.map(|(&(_, number), &since)| (number, since))
    }

    /// The snapshots that have `segment`, which was freed at `moment`.
    fn snapshots_of(&self, moment: u64, segment: u32) -> impl Iterator<Item = (u64, &Snapshot)> {
        let snapshots = self.snapshots.range(..=moment);
        let have_it = snapshots.filter(move |(_, snapshot)| segment < snapshot.below);
        have_it.map(|(&number, snapshot)| (number, snapshot))
    }
}

/// The pins of one shard.
#[derive(Clone, Default)]
pub(super) struct Pins {
    held: Rc<RefCell<Held>>,
}

/// Holds a segment until it is dropped.
pub(super) struct SegmentPin {
    pins: Pins,
    segment: u32,
    number: u64,
}

/// Holds the segments that there were at one moment until it is dropped.
pub(super) struct SnapshotPin {
    pins: Pins,
    moment: u64,
}

impl Pins {
    /// Pins a segment that the manifest names; `now` is the time in nanoseconds.
    pub(super) fn segment(&self, segment: u32, now: u64) -> SegmentPin {
        let mut held = self.held.borrow_mut();
        let number = held.next();
        held.segments.insert((segment, number), now);
        SegmentPin { pins: self.clone(), segment, number }
    }

    /// Pins all segments that the manifest names, whose numbers are below `below`, for `readers`.
    pub(super) fn snapshot(&self, below: u32, readers: Readers, now: u64) -> SnapshotPin {
        let mut held = self.held.borrow_mut();
        let moment = held.next();
        held.snapshots.insert(moment, Snapshot { since: now, below, readers });
        SnapshotPin { pins: self.clone(), moment }
    }

    /// The present moment; each is later than the one before.
    pub(super) fn present(&self) -> u64 {
        self.held.borrow_mut().next()
    }

    /// Who may still read `segment`, which was freed at `moment`.
    pub(super) fn readers(&self, moment: u64, segment: u32) -> Readers {
        let held = self.held.borrow();
        if canary::has(Defect::ReleasePinsEarly) {
            return Readers::Nobody;
        }
        if held.on_segment(segment).next().is_some() {
            return Readers::Operations;
        }
        let mut readers = Readers::Nobody;
        for (_, snapshot) in held.snapshots_of(moment, segment) {
            match snapshot.readers {
                Readers::Operations => return Readers::Operations,
                other => readers = other,
            }
        }
        readers
    }

    /// How many pins operations hold on any of `freed`, which are moments of freeing and segments,
    /// and since when the oldest of them is held, in nanoseconds.
    pub(super) fn of_operations(
        &self,
        freed: impl Iterator<Item = (u64, u32)>,
    ) -> (u64, Option<u64>) {
        let held = self.held.borrow();
        let mut found = BTreeSet::new();
        for (moment, segment) in freed {
            found.extend(held.on_segment(segment));
            let snapshots = held.snapshots_of(moment, segment);
            let of_operations = snapshots.filter(|(_, it)| it.readers == Readers::Operations);
            found.extend(of_operations.map(|(number, snapshot)| (number, snapshot.since)));
        }
        (found.len() as u64, found.iter().map(|(_, since)| *since).min())
    }
}

impl SnapshotPin {
    /// Whether this keeps `segment`, which was freed at `moment`.
    pub(super) fn holds(&self, moment: u64, segment: u32) -> bool {
        let held = self.pins.held.borrow();
        self.moment <= moment && segment < held.snapshots[&self.moment].below
    }
}

impl Drop for SegmentPin {
    fn drop(&mut self) {
        self.pins.held.borrow_mut().segments.remove(&(self.segment, self.number));
    }
}

impl Drop for SnapshotPin {
    fn drop(&mut self) {
        self.pins.held.borrow_mut().snapshots.remove(&self.moment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_held_until_all_who_read_it_have_left_and_no_other_is() {
        let pins = Pins::default();
        let (first, second) = (pins.segment(4, 7), pins.segment(4, 8));
        let freed = pins.present();
        let other = pins.segment(5, 9);
        let readers = |segment| pins.readers(freed, segment);
        assert_eq!([3, 4, 6].map(readers), [Readers::Nobody, Readers::Operations, Readers::Nobody]);
        let operations =
            |segments: &[u32]| pins.of_operations(segments.iter().map(|segment| (freed, *segment)));
        assert_eq!(operations(&[]), (0, None));
        assert_eq!((operations(&[3, 4]), operations(&[5, 4])), ((2, Some(7)), (3, Some(7))));
        drop(first);
        assert_eq!((readers(4), operations(&[4])), (Readers::Operations, (1, Some(8))));
        drop(second);
        assert_eq!((readers(4), operations(&[3, 4])), (Readers::Nobody, (0, None)));
        drop(other);
        assert_eq!(readers(5), Readers::Nobody);
    }

    #[test]
    fn a_snapshot_holds_the_segments_that_there_were_and_no_others() {
        let pins = Pins::default();
        let before = pins.present();
        let lease = pins.snapshot(5, Readers::Leases, 7);
        let after = pins.present();
        let readers = |moment, segment| pins.readers(moment, segment);
        assert_eq!(readers(before, 4), Readers::Nobody);
        assert_eq!((readers(after, 4), readers(after, 5)), (Readers::Leases, Readers::Nobody));
        assert!(lease.holds(after, 4) && !lease.holds(after, 5) && !lease.holds(before, 4));
        let operation = pins.snapshot(6, Readers::Operations, 9);
        let later = pins.present();
        let found = [3, 5, 6].map(|segment| readers(later, segment));
        assert_eq!(found, [Readers::Operations, Readers::Operations, Readers::Nobody]);
        assert_eq!(readers(after, 4), Readers::Leases, "the operation began later");
        let freed = [(after, 4), (later, 4), (later, 5)];
        assert_eq!(pins.of_operations(freed.into_iter()), (1, Some(9)));
        drop(operation);
        assert_eq!((readers(later, 4), readers(later, 5)), (Readers::Leases, Readers::Nobody));
        drop(lease);
        assert_eq!(readers(later, 4), Readers::Nobody);
    }
}
