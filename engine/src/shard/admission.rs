//! Whether a change may be made now, has to wait, or fails.

use larder_runtime::env::Env;

use super::record_limit::ToCount;
use super::space::Ingest;
use super::{Shard, State};
use crate::error::EngineError;
use crate::generations::generation_of;
use crate::operation::Operation;
use crate::value_log::commit::{PlaceInLine, Refused, RoomGate};
use crate::value_log::record;

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
                // Those who wait for room would find the same, unless they are refused.
                if !full.manifest && !full.removals {
                    self.log.room().set_gate(RoomGate::Closed);
                }
                return Err(NotApplied::Wait);
            }
            if !removes {
                return Err(NotApplied::Failed(EngineError::Full));
            }
        }
        // What is left when there is no space is for deletes and for what frees space.
        let is_low = || full.reserve_in_use || self.is_low_for_removals();
        if removes || full.ingest == Ingest::Open || !is_low() {
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
                if removes {
                    // Nobody waits for it any more; who still does, says so again.
                    self.removal_waits.set(false);
                }
                NotApplied::Failed(EngineError::Full)
            }
            // They are reserved in the manifest.
            Refused::NoSequence if state.full.manifest => NotApplied::Failed(EngineError::Full),
            Refused::NoSpace => NotApplied::Failed(EngineError::Full),
            Refused::NoSegment if removes => {
                self.removal_waits.set(true);
                NotApplied::Wait
            }
            Refused::NoSegment | Refused::Queued | Refused::NoSequence => NotApplied::Wait,
        }
    }

    /// Whether a change for which the log has no segment fails. A delete waits as long as flushes
    /// go on, which let the log go, or anything else frees space.
    pub(super) fn refuses(&self, state: &State, removes: bool) -> bool {
        let full = state.full;
        let is_stuck = if removes { full.flushes } else { true };
        full.manifest || (full.ingest == Ingest::Refused && is_stuck) || (removes && full.removals)
    }

    /// Lets those look again who wait for what the log is, and as many of those who wait for room
    /// as there is some for. Who waits for a flush does not wait for room.
    pub(super) fn offer_room(&self) {
        self.log.room().set_gate(self.gate());
        self.log.changed_for_all();
    }

    fn gate(&self) -> RoomGate {
        let state = self.state.borrow();
        let full = state.full;
        let has_ended = state.closing || self.log.stopped().is_some();
        if has_ended || full.flushes || full.manifest || full.removals {
            return RoomGate::Open;
        }
        if self.index.has_frozen() && self.is_flush_due() {
            return RoomGate::Closed;
        }
        match full.ingest {
            Ingest::Open => RoomGate::Room { kept: 0 },
            Ingest::Waiting if full.reserve_in_use => RoomGate::Room { kept: u64::MAX },
            Ingest::Waiting => RoomGate::Room { kept: self.options.delete_reserve_bytes() },
            Ingest::Refused => RoomGate::Refusing,
        }
    }

    /// Whether `operation` adds to the log and others wait for room: it must not overtake them.
    /// Deletes do, because they make room, and so does what reads.
    pub(super) fn queues(&self, operation: &Operation<'_>) -> bool {
        operation.adds() && self.log.room().has_line()
    }

    /// A place in the line for `operation` on a key of so many bytes.
    pub(super) fn place_for(&self, key_bytes: usize, operation: &Operation<'_>) -> PlaceInLine<'_> {
        let (room, bytes) =
            (self.log.room(), record::encoded_len(key_bytes, operation.value_len()));
        if operation.adds() { room.place(bytes as u64) } else { room.urgent_place(bytes as u64) }
    }

    /// Gives up a place in the line for room in the log. Who had it may have needed less room than
    /// it was given, or none.
    pub(super) fn leave_place(&self, place: Option<PlaceInLine<'_>>) {
        if let Some(place) = place {
            place.leave();
            self.log.offer_room();
        }
    }

    /// Completes when a change of about `bytes` that is not a client's, or a client's that makes
    /// room, and that had to wait may be tried again.
    pub(super) async fn wait_for_room(&self, bytes: usize) {
        let mut place = self.log.room().urgent_place(bytes as u64);
        place.wait().await;
        place.leave();
    }
}
