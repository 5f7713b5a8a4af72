//! Virtual time: the hour, the wall clock, and what happens when.

use std::collections::BTreeMap;
use std::task::Waker;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// What happens at a moment of virtual time.
pub(super) enum Event {
    /// The disk operation in this slot is done.
    Complete(usize),
    /// A sleeper's time is up.
    Wake(Waker),
}

/// The moment of an event, made unique by its number.
pub(super) type EventId = (u64, u64);

/// Time moves only when a task runs (a little) or when nothing can run (to the next event).
pub(super) struct Clock {
    now: u64,
    /// Wall-clock seconds when `now` is 0, modulo 2^64, so that the clock can be set to any time.
    unix_origin: u64,
    events: BTreeMap<EventId, Event>,
    scheduled: u64,
}

impl Clock {
    pub(super) fn new(unix_seconds: u64) -> Self {
        Self { now: 0, unix_origin: unix_seconds, events: BTreeMap::new(), scheduled: 0 }
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn pass(&mut self, nanoseconds: u64) {
        self.now = self.now.saturating_add(nanoseconds);
    }

    pub(super) fn unix_seconds(&self) -> u64 {
        self.unix_origin.wrapping_add(self.now / NANOSECONDS_PER_SECOND)
    }

    pub(super) fn set_unix_seconds(&mut self, seconds: u64) {
        self.unix_origin = seconds.wrapping_sub(self.now / NANOSECONDS_PER_SECOND);
    }

    pub(super) fn schedule(&mut self, at: u64, event: Event) -> EventId {
        let id = (at, self.scheduled);
        self.scheduled += 1;
        self.events.insert(id, event);
        id
    }

    /// Takes an event back. The caller drops it where nothing is borrowed: a waker's drop may run
    /// other code.
    pub(super) fn cancel(&mut self, id: EventId) -> Option<Event> {
        self.events.remove(&id)
    }

    /// The next event whose time has come.
    pub(super) fn pop_due(&mut self) -> Option<Event> {
        let entry = self.events.first_entry()?;
        if entry.key().0 > self.now {
            return None;
        }
        Some(entry.remove())
    }

    /// Moves time to the next event; false if there is none.
    pub(super) fn jump(&mut self) -> bool {
        let Some(&(at, _)) = self.events.keys().next() else { return false };
        self.now = self.now.max(at);
        true
    }

    pub(super) fn take_events(&mut self) -> BTreeMap<EventId, Event> {
        std::mem::take(&mut self.events)
    }
}
