//! Sleeping tasks, by the time at which they wake.
//!
//! There is no timer in the ring: the loop sleeps no longer than until [`Timers::next`].

use std::collections::BTreeMap;
use std::task::Waker;

/// A timer's name: its deadline in nanoseconds, and a number that tells equal deadlines apart.
pub(crate) type TimerKey = (u64, u64);

#[derive(Default)]
pub(crate) struct Timers {
    sleeping: BTreeMap<TimerKey, Waker>,
    started: u64,
}

impl Timers {
    pub(crate) fn start(&mut self, deadline: u64, waker: Waker) -> TimerKey {
        self.started += 1;
        let key = (deadline, self.started);
        self.sleeping.insert(key, waker);
        key
    }

    /// Replaces the waker of a timer that has not fired.
    pub(crate) fn rearm(&mut self, key: TimerKey, waker: &Waker) {
        if let Some(sleeping) = self.sleeping.get_mut(&key) {
            sleeping.clone_from(waker);
        }
    }

    pub(crate) fn stop(&mut self, key: TimerKey) -> Option<Waker> {
        self.sleeping.remove(&key)
    }

    /// When the next timer is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.sleeping.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes one timer that is due, the earliest first.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<Waker> {
        let first = self.sleeping.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sleeping.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_not_early() {
        let mut timers = Timers::default();
        let waker = Waker::noop();
        timers.start(30, waker.clone());
        let stopped = timers.start(10, waker.clone());
        timers.start(20, waker.clone());
        timers.start(20, waker.clone());
        assert_eq!(timers.next(), Some(10));
        assert!(timers.stop(stopped).is_some() && timers.stop(stopped).is_none());
        assert_eq!(timers.next(), Some(20));
        assert!(timers.take_due(19).is_none());
        assert!(timers.take_due(25).is_some() && timers.take_due(25).is_some());
        assert!(timers.take_due(25).is_none());
        assert_eq!((timers.next(), timers.len()), (Some(30), 1));
    }
}
