//! What flushes and compactions ask of the shard around the index.

use std::future::Future;
use std::rc::Rc;

use crate::error::EngineError;
use crate::generations::Generations;
use crate::manifest::{Edit, SegmentSeal, State};
use crate::range_tombstones::RangeTombstones;
use crate::space::Purpose;

/// Which keys of tables and memtables are alive, as of some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Living {
    /// The living generation of each namespace.
    pub generations: Generations,
    /// What was deleted besides.
    pub ranges: Rc<RangeTombstones>,
}

impl Living {
    /// What lives according to a manifest.
    pub fn of(manifest: &State) -> Self {
        let generations = Generations::from_manifest(&manifest.namespace_generations);
        Self { generations, ranges: Rc::clone(&manifest.ranges) }
    }

    /// Whether an entry of `key` is no more, in a table or memtable to which deletions of ranges
    /// from this sequence on were not applied.
    pub fn is_deleted(&self, key: &[u8], from: u64) -> bool {
        !self.generations.has_key(key) || self.ranges.newest(key).is_some_and(|at| at >= from)
    }
}

/// The shard around an index, as far as its background work needs it.
pub trait Host {
    /// Space that was set aside; dropping it gives back what was not used.
    type Reservation;

    /// Sets space for `bytes` of output aside, before any of it is written.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`] if there is none.
    fn reserve(&self, bytes: u64, purpose: Purpose) -> Result<Self::Reservation, EngineError>;

    /// Makes every log record that the memtables point at durable.
    fn sync_log(&self) -> impl Future<Output = Result<(), EngineError>>;

    /// The segments that were filled, and became durable, since this was last asked.
    fn take_seals(&self) -> Vec<SegmentSeal>;

    /// Makes an edit of the manifest durable. `make` is called when the edit's turn has come.
    fn commit(&self, make: impl FnOnce() -> Edit) -> impl Future<Output = Result<(), EngineError>>;

    /// What lives according to the manifest: no crash brings anything else back.
    fn durable(&self) -> Living;
}
