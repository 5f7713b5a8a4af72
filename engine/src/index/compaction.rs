//! Compaction: keeps few tables in the way of a lookup.
//!
//! [`picker`] decides from plain metadata; [`run_merge`] does what it decided. Level 0 holds
//! flushed memtables, newest first, which may overlap; every deeper level is one sorted run.

mod holes;
mod merge_iterator;
pub mod picker;
mod run;
mod sorted_runs;

pub use merge_iterator::{MergeIterator, Source, Verdict};
pub use run::{Merged, run_merge};
pub use sorted_runs::{KeyRange, sorted_runs};
