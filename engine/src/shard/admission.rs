//! Whether a change may be made now, has to wait, or fails.

use larder_runtime::env::Env;

use super::record_limit::ToCount;
use super::space::Ingest;
use super::{Shard, State};
use crate::error::EngineError;
use crate::generations::generation_of;
use crate::operation::Operation;
use crate::value_log::commit::{PlaceInLine, Refused};

/// Why a change was not made now.
pub(super) enum NotApplied {
    /// Try again when something has changed.
    Wait,
    /// What was located is gone: look again.
    LookAgain,
    /// How much a record has, or items of it, must be found out first.
    Uncounted(ToCount),
    Failed(EngineError),
}

impl<E: Env> Shard<E> {
    /// Whether the shard takes changes at all.
    pub(super) fn check_running(&self, state: &State) -> Result<(), EngineError> {
        if let Some(reason) = self.log.stopped() {
            return Err(EngineError::Stopped(reason));
        }
        if state.closing {
            return Err(EngineError::Stopped("the shard is being closed".to_owned()));
        }
        Ok(())
    }

    /// Whether changes of the item with this encoded key are taken.
    pub(super) fn check_namespace(&self, state: &State, key: &[u8]) -> Result<(), NotApplied> {
        let namespace = generation_of(key);
        if state.namespaces.takes(namespace) {
            return Ok(());
        }
        Err(NotApplied::Failed(EngineError::NoNamespace(namespace)))
    }

    pub(super) fn check_space(&self, state: &State, removes: bool) -> Result<(), NotApplied> {
        self.check_running(state).map_err(NotApplied::Failed)?;
        let full = state.full;
        if full.manifest && !removes {
            return Err(NotApplied::Failed(EngineError::Full));
        }
        if self.index.has_frozen() && self.is_flush_due() {
            if !full.flushes {
                return Err(NotApplied::Wait);
            }
            if !removes {
                return Err(NotApplied::Failed(EngineError::Full));
            }
        }
        // What is left when there is no space is for deletes and for what frees space.
        let room_is_low = || self.log.space_left().0 < self.options.delete_reserve_bytes();
        if removes || full.ingest == Ingest::Open || !(full.reserve_in_use || room_is_low()) {
            return Ok(());
        }
        Err(match full.ingest {
            Ingest::Refused => NotApplied::Failed(EngineError::Full),
            Ingest::Waiting | Ingest::Open => NotApplied::Wait,
        })
    }

    pub(super) fn not_applied(&self, state: &State, removes: bool, refused: Refused) -> NotApplied {
        match refused {
            Refused::Stopped => {
                let reason = self.log.stopped().unwrap_or_default();
                NotApplied::Failed(EngineError::Stopped(reason))
            }
            Refused::NoSegment if self.refuses(state, removes) => {
                NotApplied::Failed(EngineError::Full)
            }
            // They are reserved in the manifest.
            Refused::NoSequence if state.full.manifest => NotApplied::Failed(EngineError::Full),
            Refused::NoSpace => NotApplied::Failed(EngineError::Full),
            Refused::NoSegment | Refused::Queued | Refused::NoSequence => NotApplied::Wait,
        }
    }

    /// Whether a change for which the log has no segment fails. A delete waits as long as flushes
    /// go on: they let the log go.
    pub(super) fn refuses(&self, state: &State, removes: bool) -> bool {
        let full = state.full;
        full.manifest || (full.ingest == Ingest::Refused && (!removes || full.flushes))
    }

    /// Whether `operation` adds to the log and others wait for room: it must not overtake them.
    /// Deletes do, because they make room, and so does what reads.
    pub(super) fn queues(&self, operation: &Operation<'_>) -> bool {
        operation.adds() && !self.log.room().is_empty()
    }

    /// A place in the line for `operation`.
    pub(super) fn place_for(&self, operation: &Operation<'_>) -> PlaceInLine<'_> {
        let (room, bytes) = (self.log.room(), operation.value_len() as u64);
        if operation.adds() { room.place(bytes) } else { room.urgent_place(bytes) }
    }

    /// Completes when a change of about `bytes` that is not a client's, or a client's that makes
    /// room, and that had to wait may be tried again.
    pub(super) async fn wait_for_room(&self, bytes: usize) {
        let mut place = self.log.room().urgent_place(bytes as u64);
        place.wait().await;
        place.leave();
    }
}
