//! The segments of a log: those that are open, and those that will be when they are first read.
//!
//! A sealed segment is durable as a whole, and nothing is written to it again. So a start need not
//! touch it, however many there are: it is opened, and its length and header are looked at, when
//! somebody reads it first.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::segment::Segment;
use crate::signal::Exclusive;

/// A sealed segment that nobody has read yet.
pub(super) struct Unopened {
    /// The file's length in bytes, as the manifest has it.
    pub(super) bytes: u32,
    /// One reader opens the segment, and the others wait for it.
    pub(super) opening: Exclusive,
}

/// The segments of one shard by number.
pub struct LogSegments<F> {
    open: BTreeMap<u32, Rc<Segment<F>>>,
    unopened: BTreeMap<u32, Rc<Unopened>>,
}

impl<F> Default for LogSegments<F> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), unopened: BTreeMap::new() }
    }
}

impl<F> LogSegments<F> {
    /// Adds an open segment.
    pub fn add(&mut self, segment: Rc<Segment<F>>) {
        self.unopened.remove(&segment.number);
        self.open.insert(segment.number, segment);
    }

    /// Adds a sealed segment whose file has `bytes` bytes.
    pub fn add_unopened(&mut self, number: u32, bytes: u32) {
        let unopened = Unopened { bytes, opening: Exclusive::default() };
        self.unopened.insert(number, Rc::new(unopened));
    }

    /// An open segment.
    pub(super) fn open(&self, number: u32) -> Option<Rc<Segment<F>>> {
        self.open.get(&number).cloned()
    }

    /// A segment that is not open yet.
    pub(super) fn unopened(&self, number: u32) -> Option<Rc<Unopened>> {
        self.unopened.get(&number).cloned()
    }

    /// Forgets a segment.
    pub(super) fn remove(&mut self, number: u32) {
        self.open.remove(&number);
        self.unopened.remove(&number);
    }
}
