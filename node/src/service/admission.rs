//! Whether a core takes a request now: the limits of its tasks, logs, lines and memory.

use larder_runtime::core_env::CoreEnv;

use super::core_state::CoreState;
use super::log_need::LogNeed;
use super::refused::Want;
use super::shares::Part;
use crate::connection::{Handled, Load};
use crate::limits::{FORWARDED_MAX, FORWARDED_SHARE_SCARCE, GATHERS_MAX, TASK_BYTES};
use crate::request::{ItemRequest, ShardRequest};

impl<C: CoreEnv> CoreState<C> {
    /// What tasks on this core need and what waits here for a client that reads.
    pub(super) fn under_way(&self) -> Load {
        let bytes = self.load.bytes + self.lanes.load().bytes;
        Load { bytes, ..self.tasks }
    }

    /// What a task for `request` is expected to need if it may start now, where requests of its own
    /// connection hold `own`.
    pub(super) fn admit(
        &mut self,
        shard: u16,
        request: &ItemRequest<'_>,
        own: Load,
    ) -> Result<usize, usize> {
        let unknown = self.unknown_value_bytes;
        let bytes = self.shards.expected_bytes(shard, request, self.now, unknown);
        let is_admitted = self.room.admits(self.under_way(), own, bytes);
        if is_admitted { Ok(bytes) } else { Err(bytes) }
    }

    /// As [`CoreState::admit`], for a request that is not about one item: its answer is there twice
    /// while it is encoded.
    pub(super) fn admit_shard(
        &mut self,
        request: &ShardRequest,
        own: Load,
    ) -> Result<usize, usize> {
        let bytes = TASK_BYTES + 2 * request.reply_bytes(self.unknown_value_bytes);
        let is_admitted = self.room.admits(self.under_way(), own, bytes);
        if is_admitted { Ok(bytes) } else { Err(bytes) }
    }

    /// Whether nobody waits any more for the answer to a request with this deadline; then it is not
    /// begun.
    #[inline]
    pub(super) fn is_too_late(&mut self, deadline: Option<u64>) -> bool {
        let is_late = deadline.is_some_and(|deadline| self.env.now() > deadline);
        self.counters.too_late += u64::from(is_late);
        is_late
    }

    /// Whether a connection with this part of the logs may append `need` to them now.
    pub(super) fn may_append(&self, part: Part, need: LogNeed) -> bool {
        let before_it = if need.adds > 0 { self.adding } else { 0 };
        self.shares.allows(part, self.shards.backlog().waiting + before_it, need.bytes)
    }

    /// How long the reply to `request` of this core's shard would be, if it is so long that it may
    /// not be made now. Without pressure any may, and nothing is looked up.
    #[inline]
    pub(super) fn reply_to_refuse(&self, shard: u16, request: &ItemRequest<'_>) -> Option<usize> {
        if !self.ledger.is_pressed() {
            return None;
        }
        let bytes = self.shards.reply_bytes_known(shard, request, self.now)?;
        (!self.ledger.allows_reply(bytes)).then_some(bytes)
    }

    /// Whether a connection with nothing under way may have what it was refused.
    pub(super) fn can_give(&self, want: Want) -> bool {
        match want {
            Want::Task(bytes) => self.room.admits(self.under_way(), Load::default(), bytes),
            Want::Line(core) => self.mesh.has_room(core),
            Want::Log(part, need) => self.may_append(part, need),
            Want::Reply(bytes) => self.ledger.allows_reply(bytes),
            Want::Gather => self.may_gather(),
        }
    }

    /// Whether a connection may ask all cores.
    pub(super) fn may_gather(&self) -> bool {
        self.gathers.len() < GATHERS_MAX
    }

    /// Refuses a request of a connection whose others hold `own`, for want of `want`.
    pub(super) fn refuse(&mut self, own: Load, want: Want) -> Handled {
        self.counters.refused += 1;
        self.refused_want = (own == Load::default()).then_some(want);
        Handled::Refused
    }

    /// Whether a request with a value of so many bytes may be sent to another core.
    pub(super) fn may_forward(&self, own: Load, bytes: usize) -> bool {
        if own == Load::default() {
            return true;
        }
        let is_scarce = self.load.waiting > FORWARDED_MAX / 2;
        let share = if is_scarce { FORWARDED_SHARE_SCARCE } else { FORWARDED_MAX };
        let fits = self.ledger.total() + bytes <= self.ledger.bound() / 2;
        self.load.waiting < FORWARDED_MAX && own.waiting < share && fits
    }
}
