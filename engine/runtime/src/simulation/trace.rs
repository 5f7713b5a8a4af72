//! A record of what a run did, for comparing runs and for reading a failed one.

use super::faults::OperationKind;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// When, in virtual nanoseconds.
    pub nanoseconds: u64,
    /// What.
    pub event: TraceEvent,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceEvent {
    /// A task ran; `usize::MAX` is the future given to `block_on`.
    Turn {
        /// The task's number; numbers are used again when a task has ended.
        task: usize,
    },
    /// A disk operation was submitted.
    Submitted {
        /// The operation's number, from 0.
        operation: u64,
        /// Its kind.
        kind: OperationKind,
        /// The file's number on the disk; 0 for operations on names.
        file: u64,
        /// The offset in bytes, if the kind has one.
        offset: u64,
        /// The length in bytes, if the kind has one.
        len: u64,
    },
    /// A disk operation was done.
    Done {
        /// The operation's number.
        operation: u64,
        /// Whether it succeeded.
        is_ok: bool,
    },
}
