//! The value log, which is also the write-ahead log.
//!
//! A shard appends every change once, as a record, to 64 MiB segments. Records that arrive while
//! the device is busy share a frame, which is written and flushed as one group commit and never
//! rewritten. The index points at the records, so a value is written once.
//!
//! Invariants:
//! - Records get consecutive sequences in log order; frames are acknowledged in that order.
//! - A block that may hold acknowledged data is never overwritten: frames are padded to 4 KiB and
//!   the next frame starts on the next block.
//! - A segment is in the manifest before a frame is written to it, and out of it before the file
//!   is used again under another number.
//! - The first failed write or flush is final: the log takes nothing more.

pub mod commit;
pub mod frame;
mod log_segments;
pub mod moves;
pub mod record;
pub mod recovery;
pub mod segment;
#[cfg(test)]
pub(crate) mod test_log;
pub(crate) mod window;

pub use commit::{Append, Appended, Durability, LogEnds, LogOptions, ValueLog, WantedValue};
pub use log_segments::LogSegments;
