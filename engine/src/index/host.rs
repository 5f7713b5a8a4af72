//! What flushes and compactions ask of the shard around the index.

use std::future::Future;

use crate::error::EngineError;
use crate::generations::Generations;
use crate::manifest::{Edit, SegmentSeal};
use crate::space::Purpose;

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

    /// The generations that live according to the manifest: no crash brings others back.
    fn durable_generations(&self) -> Generations;
}
