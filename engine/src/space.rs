//! The disk space of one shard: what it may take, what of it is dead, and what to do about it.
//!
//! Everything here decides and does nothing: [`SpaceUsage`] says how full the shard is and what
//! follows
//! from that, [`victims`] which segment is worth collecting, [`Pace`] when writers have to wait for
//! the collector, [`Purpose`] who may use the last of the space, [`SpaceReport`] what every byte is
//! for, [`DeadRecords`] which records are dead for sure, [`ListedRecords`] which there are,
//! [`Lifetimes`] what of them will have expired when, [`LogRate`] how soon space is needed.
//! [`FreeSegments`] holds the files of freed segments. The shard's tasks carry it out.

mod dead_records;
mod free_segments;
mod lifetimes;
mod listed_records;
mod log_rate;
mod pace;
mod purpose;
mod report;
mod steady;
mod usage;
pub mod victims;

pub use dead_records::DeadRecords;
pub use free_segments::{FreeSegments, Readers};
pub use lifetimes::Lifetimes;
pub use listed_records::{ListedPart, ListedRecord, ListedRecords};
pub use log_rate::LogRate;
pub use pace::{Collecting, Gain, Pace, Runway};
pub use purpose::Purpose;
pub use report::{
    CompressedSpace, LeaseSpace, PinnedFiles, SegmentEnds, SegmentSpace, SpacePart, SpaceReport,
};
pub use steady::SteadyLive;
pub use usage::{SpaceLimits, SpaceUsage};
