//! Which freed files may still be read.
//!
//! An operation that goes to the device may hold a pointer that the index no longer has. It pins
//! the moment at which it began; a segment freed at a later moment is not used again until every
//! operation that began before that has ended.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::canary::{self, Defect};

#[derive(Default)]
struct Moments {
    now: u64,
    /// Each moment that is pinned, with the time in nanoseconds.
    pinned: BTreeMap<u64, u64>,
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
        let moment = self.present();
        self.moments.borrow_mut().pinned.insert(moment, now);
        Pin { pins: self.clone(), moment }
    }

    /// The present moment; each is later than the one before.
    pub(super) fn present(&self) -> u64 {
        let mut moments = self.moments.borrow_mut();
        moments.now += 1;
        moments.now
    }

    /// Whether every operation that began before `moment` has ended.
    pub(super) fn has_passed(&self, moment: u64) -> bool {
        canary::has(Defect::ReleasePinsEarly)
            || self.moments.borrow().pinned.keys().next().is_none_or(|oldest| *oldest > moment)
    }

    /// How many moments are pinned, and when the first of them was, in nanoseconds.
    pub(super) fn held(&self) -> (u64, Option<u64>) {
        let moments = self.moments.borrow();
        (moments.pinned.len() as u64, moments.pinned.values().next().copied())
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
        assert!(!pins.has_passed(freed));
        drop(second);
        assert!(pins.has_passed(freed));
        drop(third);
    }
}
