//! Which freed files may still be read.
//!
//! An operation that goes to the device may hold a pointer that the index no longer has. It pins
//! the moment at which it began; a segment freed at a later moment is not used again until every
//! operation that began before that has ended.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::canary::{self, Defect};
use crate::space::Readers;

#[derive(Default)]
struct Moments {
    now: u64,
    /// Each moment that is pinned.
    pinned: BTreeMap<u64, Pinned>,
}

struct Pinned {
    /// In nanoseconds.
    since: u64,
    /// Segments with numbers from this on are not held: a lease knows none of them.
    below: Option<u32>,
}

impl Pinned {
    fn holds(&self, segment: u32) -> bool {
        self.below.is_none_or(|below| segment < below)
    }
}

/// The moments at which operations began that have not ended.
#[derive(Clone, Default)]
pub(super) struct Pins {
    moments: Rc<RefCell<Moments>>,
}

/// Holds a moment until it is dropped.
pub(super) struct Pin {
    pins: Pins,
    moment: u64,
}

impl Pins {
    /// Pins the present; `now` is the time in nanoseconds.
    pub(super) fn enter(&self, now: u64) -> Pin {
        self.pin(now, None)
    }

    /// The same for a lease, which reads no segments but those with numbers below `below`.
    pub(super) fn enter_below(&self, now: u64, below: u32) -> Pin {
        self.pin(now, Some(below))
    }

    fn pin(&self, since: u64, below: Option<u32>) -> Pin {
        let moment = self.present();
        self.moments.borrow_mut().pinned.insert(moment, Pinned { since, below });
        Pin { pins: self.clone(), moment }
    }

    /// The present moment; each is later than the one before.
    pub(super) fn present(&self) -> u64 {
        let mut moments = self.moments.borrow_mut();
        moments.now += 1;
        moments.now
    }

    /// Who may still read `segment`, which was freed at `moment`.
    pub(super) fn readers(&self, moment: u64, segment: u32) -> Readers {
        if canary::has(Defect::ReleasePinsEarly) {
            return Readers::Nobody;
        }
        let mut readers = Readers::Nobody;
        for pinned in self.moments.borrow().pinned.range(..=moment).map(|(_, pinned)| pinned) {
            match pinned.below {
                None => return Readers::Operations,
                Some(_) if pinned.holds(segment) => readers = Readers::Leases,
                Some(_) => {}
            }
        }
        readers
    }

    /// How many moments operations have pinned, and when the first of them was, in nanoseconds.
    pub(super) fn held(&self) -> (u64, Option<u64>) {
        let moments = self.moments.borrow();
        let mut operations = moments.pinned.values().filter(|pinned| pinned.below.is_none());
        let oldest = operations.next().map(|pinned| pinned.since);
        (operations.count() as u64 + u64::from(oldest.is_some()), oldest)
    }
}

impl Pin {
    /// Whether this keeps `segment`, which was freed at `moment`.
    pub(super) fn holds(&self, moment: u64, segment: u32) -> bool {
        let moments = self.pins.moments.borrow();
        self.moment <= moment && moments.pinned[&self.moment].holds(segment)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.moments.borrow_mut().pinned.remove(&self.moment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_passes_when_all_who_began_before_have_left() {
        let pins = Pins::default();
        let (first, second) = (pins.enter(7), pins.enter(8));
        let freed = pins.present();
        let third = pins.enter(9);
        assert_eq!(pins.held(), (3, Some(7)));
        drop(first);
        assert_eq!(pins.held(), (2, Some(8)));
        assert_eq!(pins.readers(freed, 1), Readers::Operations);
        drop(second);
        assert_eq!(pins.readers(freed, 1), Readers::Nobody);
        drop(third);
    }

    #[test]
    fn a_lease_holds_the_segments_that_there_were_and_no_others() {
        let pins = Pins::default();
        let before = pins.present();
        let lease = pins.enter_below(7, 5);
        let after = pins.present();
        let readers = |moment, segment| pins.readers(moment, segment);
        assert_eq!((pins.held(), readers(before, 4)), ((0, None), Readers::Nobody));
        assert_eq!((readers(after, 4), readers(after, 5)), (Readers::Leases, Readers::Nobody));
        assert!(lease.holds(after, 4) && !lease.holds(after, 5) && !lease.holds(before, 4));
        let operation = pins.enter(9);
        let later = pins.present();
        assert_eq!(
            (readers(later, 4), readers(later, 5)),
            (Readers::Operations, Readers::Operations)
        );
        assert_eq!(pins.held(), (1, Some(9)));
        drop(operation);
        drop(lease);
        assert_eq!(readers(later, 4), Readers::Nobody);
    }
}
