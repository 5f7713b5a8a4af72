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

/// What the manifest may grow by when the segment is made known in it, of each shard.
const MANIFEST_STEP_BYTES: u64 = 256 << 10;

/// The longest first segment that there is space for, of the standard length at most. It leaves
/// what it takes to begin with it; the shortest may use the last there is, because the manifest
/// has room mostly.
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
        promise
            .map_err(|source| EngineError::io(directory, "asking for the free space of", &source))
    };
    let standard = options.segment_bytes;
    if let Some(number) = free.take() {
        let promise = promise(0, 0)?.ok_or(EngineError::Full)?;
        return Ok(FirstSegment { origin: Origin::Recycled(number), bytes: standard, promise });
    }
    let shortest = FIRST_SEGMENT_BYTES_MIN.min(standard);
    let others = u64::from(options.shards.saturating_sub(1)) * u64::from(shortest);
    let left = others + u64::from(options.shards) * MANIFEST_STEP_BYTES;
    let mut bytes = standard;
    while bytes > shortest {
        if let Some(promise) = promise(bytes, left)? {
            return Ok(FirstSegment { origin: Origin::Zeroed, bytes, promise });
        }
        bytes = (bytes / 2).next_multiple_of(DISK_ALIGNMENT as u32).max(shortest);
    }
    let promise = promise(shortest, 0)?.ok_or(EngineError::Full)?;
    Ok(FirstSegment { origin: Origin::Zeroed, bytes: shortest, promise })
}
