//! One shard: the engine's front.
//!
//! A shard belongs to one thread. Point operations go through [`Shard::try_execute`], which answers
//! at once when memory has everything, or else [`Shard::execute`]. Behind them four tasks run: the
//! log's writer, the flusher, the compactor and the space keeper.
//!
//! What may depend on what: a pointer is durable only after its target (log, then table, then
//! manifest); a file is freed only after the manifest no longer names it and nobody reads it.

mod background;
pub mod execute;
mod journal;
mod locate;
pub(crate) mod namespaces;
mod open;
pub mod options;
mod pins;
#[cfg(test)]
mod simulation;
mod space;
pub mod statistics;
mod tables;
mod turns;
mod warm;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use larder_runtime::env::Env;

use crate::cache::ItemCache;
use crate::error::EngineError;
use crate::key::Key;
use crate::manifest::{Edit, LogPosition, SegmentSeal};
use crate::memtable::Memtable;
use crate::signal::Signal;
use crate::table::BlockCache;
use crate::value_log::ValueLog;
use crate::value_log::segment::StoreIdentity;

pub use execute::{Answer, Attempt, OperationBuf};
pub use open::OpenReport;
pub use options::ShardOptions;
pub use statistics::Statistics;
pub use warm::Announced;

use journal::Journal;
use namespaces::Namespaces;
use pins::Pins;
use space::{FreeSegments, Fullness};
use statistics::OperationCounters;
use tables::Tables;
use turns::Turns;

/// A memtable that takes no more entries and is being written out.
struct Frozen {
    memtable: Memtable,
    /// Replay from here finds everything that is not in this memtable or in tables.
    position: LogPosition,
    namespaces: Namespaces,
}

struct State<E: Env> {
    active: Memtable,
    frozen: Option<Rc<Frozen>>,
    tables: Rc<Tables<E>>,
    items: ItemCache,
    namespaces: Namespaces,
    key_scratch: Vec<u8>,
    full: Fullness,
    closing: bool,
    operations: OperationCounters,
}

/// One shard's storage.
pub struct Shard<E: Env> {
    env: E,
    directory: PathBuf,
    identity: StoreIdentity,
    options: ShardOptions,
    log: ValueLog<E>,
    journal: Journal<E>,
    blocks: BlockCache,
    free: RefCell<FreeSegments>,
    next_table: Cell<u64>,
    pins: Pins,
    turns: Turns,
    /// Something for the flusher, the compactor or the space keeper to look at.
    work: Signal,
    state: RefCell<State<E>>,
}

impl<E: Env> State<E> {
    /// The key as the tables have it: that of the namespace's living generation.
    fn encode_key(&self, key: &Key<'_>, out: &mut Vec<u8>) {
        out.clear();
        key.encode_into(out);
        self.set_generation(key.namespace, out);
    }

    /// Makes an encoded key, or one of the same record and item, belong to the living generation of
    /// `namespace`.
    fn set_generation(&self, namespace: u32, encoded: &mut [u8]) {
        encoded[..4].copy_from_slice(&self.namespaces.generation(namespace).to_be_bytes());
    }

    fn flush_is_due(&self, now: u32) -> bool {
        self.namespaces.flush_is_due(now)
    }
}

impl<E: Env> Shard<E> {
    /// The log position up to which answers may be sent.
    pub fn acknowledged_end(&self) -> u64 {
        self.log.acknowledged_end()
    }

    /// Why the shard takes no more writes, if so.
    pub fn stopped(&self) -> Option<String> {
        self.log.stopped()
    }

    /// The shard's settings.
    pub fn options(&self) -> &ShardOptions {
        &self.options
    }

    fn unix_now(&self) -> u32 {
        u32::try_from(self.env.unix_seconds()).unwrap_or(u32::MAX)
    }

    /// Makes everything that was acknowledged durable and ends the background tasks. The shard
    /// takes no more changes; operations that wait to make one fail.
    ///
    /// The manifest then knows where the log ends, so that the next start can tell damage at its
    /// very end from a write that a crash has cut short.
    pub async fn close(&self) -> Result<(), EngineError> {
        if std::mem::replace(&mut self.state.borrow_mut().closing, true) {
            return Ok(());
        }
        self.something_changed();
        self.log.flush().await?;
        let segments_sealed = self.log.close();
        self.something_changed();
        self.journal
            .commit(|state| {
                let segments_sealed = segments_sealed
                    .into_iter()
                    .map(|seal| Self::seal_for_good(state, seal, self.log.position().segment));
                Some(Edit { segments_sealed: segments_sealed.collect(), ..Edit::default() })
            })
            .await
    }

    /// The next start goes on above every sequence that was reserved: the last segment's seal says
    /// so to later replays.
    fn seal_for_good(
        state: &crate::manifest::State,
        seal: SegmentSeal,
        current: u32,
    ) -> SegmentSeal {
        if seal.segment == current {
            return SegmentSeal { sequence_last: state.version_ceiling - 1, ..seal };
        }
        seal
    }

    /// Makes everything that was acknowledged durable, in any durability mode.
    pub async fn sync(&self) -> Result<(), EngineError> {
        self.log.flush().await
    }
}
