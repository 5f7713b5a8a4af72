//! Deliberate defects. Test builds can switch one on, to see that the simulation notices it; in
//! every other build none exists.

/// A defect of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Changes are acknowledged before they are durable.
    AcknowledgeEarly,
    /// A value's checksum is not looked at.
    IgnorePayloadChecksum,
    /// Values are compressed to something else.
    SpoilCompressed,
    /// Neither checksum of a compressed value is looked at.
    IgnoreCompressedChecksums,
    /// A record head's checksum is not looked at.
    IgnoreHeadChecksum,
    /// Merges drop tombstones although an older entry lies below.
    DropTombstoneEarly,
    /// Segments are freed although tables point into them.
    FreeSegmentEarly,
    /// After a start the oldest table of level 0 counts as the newest.
    ReverseLevelZero,
    /// A failed flush of the log is tried again and then believed.
    RetryFlush,
    /// The collector moves a record although its key points elsewhere by now.
    MoveUnconditionally,
    /// A record counts as dead when its item's metadata have changed.
    MarkTheLiving,
    /// Some records are missing from their segment's list.
    ListSomeRecords,
    /// A segment that a crash left open is sealed before the first thing in it that is no frame.
    SealUnproven,
    /// The collector moves a record as it was looked up, whatever has become of its key meanwhile.
    MoveAsLookedUp,
    /// The collector believes the value cache where a key's value is.
    BelieveTheCache,
    /// Copies of collected records are not synced before their keys point to them.
    SkipCopySync,
    /// A collected segment may go before the records of its moves are durable.
    FreeVictimEarly,
    /// A memtable does not remember which segments its entries point into.
    ForgetPointers,
    /// Whether an older version may lie below a merge is not asked of the level right below it.
    BottomSkipsALevel,
    /// The directory is not synced when a table has been made.
    SkipTableDirectorySync,
    /// The directory is not synced when a segment has been made.
    SkipSegmentDirectorySync,
    /// The directory is not synced when a manifest has been made.
    SkipManifestDirectorySync,
    /// Freed files are used again although somebody may still read them.
    ReleasePinsEarly,
    /// Replay begins where the log stood when a flush ended, not where its memtable was frozen.
    ReplayFromLater,
    /// Recovery drops what follows damage.
    DropAfterDamage,
    /// A deleted range is forgotten before the tombstones of its keys are durable.
    ForgetRangesEarly,
    /// A deleted range is forgotten although the value cache has items of it.
    SkipCacheSweep,
    /// Merges drop what a range hides that no manifest names.
    MergeUnflushedRanges,
    /// The records of a batch go into frames of their own.
    SplitBatches,
    /// A range that was deleted while an item was looked up does not concern the item.
    MissRangesMeanwhile,
    /// The chunks of a large value are collected without a look at its item.
    CollectLivingChunks,
}

/// Whether the engine has this defect.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn has(_defect: Defect) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switched::{has, with};

#[cfg(test)]
mod switched {
    use std::cell::Cell;

    use super::Defect;

    thread_local! {
        static DEFECT: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    /// Whether this thread's engine has this defect.
    pub(crate) fn has(defect: Defect) -> bool {
        DEFECT.get() == Some(defect)
    }

    /// Gives this thread's engine a defect until the result is dropped.
    pub(crate) fn with(defect: Defect) -> Switched {
        DEFECT.set(Some(defect));
        Switched
    }

    /// Takes the defect back when dropped.
    pub(crate) struct Switched;

    impl Drop for Switched {
        fn drop(&mut self) {
            DEFECT.set(None);
        }
    }
}
