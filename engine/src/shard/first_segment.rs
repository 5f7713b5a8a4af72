//! The segment that the log of a new life begins with.
//!
//! A node that has data starts although others have taken all the space but for a little: a shorter
//! segment takes the first deletes, and writes wait until there is room for one of the standard
//! length.

use std::path::Path;

use larder_runtime::disk_budget::{DiskBudget, Promise};
use larder_runtime::env::{DISK_ALIGNMENT, Env};

use super::ShardOptions;
use crate::error::EngineError;
use crate::space::FreeSegments;
use crate::value_log::segment::Origin;

/// The shortest segment: its header, and some frames of a block each.
pub const FIRST_SEGMENT_BYTES_MIN: u32 = 16 << 10;

/// Where the file of a first segment comes from, and its space.
pub(super) struct FirstSegment {
    pub(super) origin: Origin,
    pub(super) bytes: u32,
    /// Kept until the file is accounted for.
    pub(super) promise: Promise,
}

/// The longest first segment that there is space for, of the standard length at most. It may use
/// the last there is, but for what the other shards need to begin with.
///
/// # Errors
///
/// [`EngineError::Full`] if there is no space for the shortest, and those of asking for it.
pub(super) fn choose<E: Env>(
    env: &E,
    directory: &Path,
    options: &ShardOptions,
    free: &mut FreeSegments,
) -> Result<FirstSegment, EngineError> {
    let promise = |bytes: u32, left: u64| {
        let promise = DiskBudget::promise(&options.budget, u64::from(bytes), left, || {
            env.free_space(directory)
        });
        promise.map_err(|source| EngineError::io(directory, "asking for the free space of", &source))
    };
    let standard = options.segment_bytes;
    if let Some(number) = free.take() {
        let promise = promise(0, 0)?.ok_or(EngineError::Full)?;
        return Ok(FirstSegment { origin: Origin::Recycled(number), bytes: standard, promise });
    }
    let others = u64::from(options.shards.saturating_sub(1)) * u64::from(FIRST_SEGMENT_BYTES_MIN);
    let mut bytes = standard;
    loop {
        let left = if bytes == standard { 0 } else { others };
        if let Some(promise) = promise(bytes, left)? {
            return Ok(FirstSegment { origin: Origin::New, bytes, promise });
        }
        if bytes <= FIRST_SEGMENT_BYTES_MIN {
            return Err(EngineError::Full);
        }
        let half = (bytes / 2).next_multiple_of(DISK_ALIGNMENT as u32);
        bytes = half.max(FIRST_SEGMENT_BYTES_MIN);
    }
}
