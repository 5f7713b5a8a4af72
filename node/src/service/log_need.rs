//! What requests may append to their shard's log: pure.

use crate::limits::LOG_RECORD_BYTES;
use crate::request::{ItemRequest, ShardRequest, ShardWork};

/// What a request may append to its shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogNeed {
    /// How much, in bytes, roughly.
    pub bytes: usize,
    /// How much of it adds to what the shard holds. What adds nothing, or makes room, does not wait
    /// for what does.
    pub adds: usize,
}

/// What `request` may append to the log; `None` if it only reads.
#[inline]
pub(super) fn log_need(request: &ItemRequest<'_>) -> Option<LogNeed> {
    let operation = &request.operation;
    let bytes = LOG_RECORD_BYTES + operation.value_len();
    let adds = if operation.adds() { bytes } else { 0 };
    operation.may_write().then_some(LogNeed { bytes, adds })
}

/// The same for a request that is not about one item.
pub(super) fn shard_log_need(request: &ShardRequest) -> Option<LogNeed> {
    let bytes = request.log_bytes()?;
    let adds = match &request.work {
        ShardWork::Batch(batch) if batch.adds() => bytes,
        ShardWork::Large(step) if step.adds() => bytes,
        ShardWork::Batch(_)
        | ShardWork::Large(_)
        | ShardWork::DeleteRange(..)
        | ShardWork::BeginLease(_)
        | ShardWork::EndLease(_)
        | ShardWork::Page(_)
        | ShardWork::Keyed(_) => 0,
    };
    Some(LogNeed { bytes, adds })
}
