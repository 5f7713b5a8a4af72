//! One change of a shard's files, as the manifest records it.

use crate::index::table::TableMeta;
use crate::range_tombstones::RangeTombstone;

/// A place in the value log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the start of the segment's file. Replay starts with the first frame at or after
    /// this offset.
    pub offset: u32,
    /// The first log sequence number that no table covers.
    pub sequence: u64,
}

/// A segment was filled and takes no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSeal {
    /// The segment's number.
    pub segment: u32,
    /// How many bytes from the start of the file hold frames.
    pub end: u32,
    /// The last log sequence number in the segment.
    pub sequence_last: u64,
}

/// What entries have in common that came to point into a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPointers {
    /// The segment's number.
    pub segment: u32,
    /// Until when the last of them lives: a Unix second, or [`NEVER_EXPIRES`].
    pub expiry: u32,
    /// Where the last of the log records ends that they point to, in bytes from the start of the
    /// segment's file; 0 if nobody knows, because an older version has written the edit.
    pub end: u32,
}

/// A segment was freed that had held items which had expired, and tables still point into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentExpiry {
    /// The segment's number, which is not used again.
    pub segment: u32,
    /// The latest clock, in Unix seconds, that had shown an item of the segment to be expired. One
    /// that expires later was moved before the segment was freed.
    pub until: u32,
    /// The bytes of records that tables refer to, as of a segment that is there.
    pub live_bytes: u64,
}

/// The expiry of what does not expire, where the latest of several is kept.
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// A namespace was emptied by giving it a new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceGeneration {
    /// The namespace's number.
    pub namespace: u32,
    /// The generation that is alive: the number in the encoded keys of the namespace's items.
    pub generation: u64,
}

/// One atomic change: after a crash all of it has happened or none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// New tables. Those of level 0 are newer than the ones already there, later ones in this list
    /// newer than earlier ones.
    pub tables_added: Vec<TableMeta>,
    /// The ids of tables that are gone.
    pub tables_removed: Vec<u64>,
    /// Tables that change their level without being rewritten: (id, new level, 1 or more).
    pub tables_moved: Vec<(u64, u8)>,
    /// New segments: (id, bytes of the file). Ids ascend and are never used again.
    pub segments_opened: Vec<(u32, u32)>,
    /// Of the new segments those that hold collected records: (id, generation, 1 or more). They are
    /// no part of the log that is replayed.
    pub segments_collected: Vec<(u32, u8)>,
    /// Segments that take no more frames.
    pub segments_sealed: Vec<SegmentSeal>,
    /// Segments whose file may be reused under another number.
    pub segments_freed: Vec<u32>,
    /// Changes of the bytes that live records take in a segment: (segment, difference). Those of a
    /// segment that was freed count only while it is known for what had expired in it: an outdated
    /// entry may outlive its target.
    pub live_bytes: Vec<(u32, i64)>,
    /// What is known of the entries that came to point into segments.
    pub segment_pointers: Vec<SegmentPointers>,
    /// Segments that are gone and in which entries of tables may still name expired items.
    pub segments_expired: Vec<SegmentExpiry>,
    /// Where replay starts from now on. Its sequence never goes back.
    pub replay_from: Option<LogPosition>,
    /// Versions below this may have been given out. It never goes back.
    pub version_ceiling: Option<u64>,
    /// The lowest table id that was never used. It never goes back.
    pub table_id_next: Option<u64>,
    /// The lowest segment id that was never used. It never goes back, and opening a segment raises
    /// it; a snapshot carries it for the sake of segments that are gone.
    pub segment_id_next: Option<u32>,
    /// Namespaces that were emptied.
    pub namespace_generations: Vec<NamespaceGeneration>,
    /// Ranges that were deleted, newer than those before that they overlap.
    pub ranges_deleted: Vec<RangeTombstone>,
    /// Deletions that hide nothing any more: what is at most as new in these ranges.
    pub ranges_forgotten: Vec<RangeTombstone>,
}

/// Why an edit cannot follow on a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The edit removes or moves a table that is not there (any more).
    #[error("table {id} is not there")]
    UnknownTable {
        /// The table's number.
        id: u64,
    },
    /// The edit adds a table under a number that is in use.
    #[error("table number {id} is in use")]
    TableIdReused {
        /// The table's number.
        id: u64,
    },
    /// There is no such level, or tables cannot be moved to it.
    #[error("table {id} cannot go to level {level}")]
    LevelOutOfRange {
        /// The table's number.
        id: u64,
        /// The level asked for.
        level: u8,
    },
    /// The table's first key is after its last.
    #[error("table {id} ends before it starts")]
    KeysReversed {
        /// The table's number.
        id: u64,
    },
    /// A deleted range ends before it starts.
    #[error("a deleted range ends before it starts")]
    RangeReversed,
    /// Two tables of a level other than 0 would hold the same keys.
    #[error("tables {left} and {right} of level {level} overlap")]
    Overlap {
        /// The level.
        level: u8,
        /// The table that starts first.
        left: u64,
        /// The table that starts before the other one's end.
        right: u64,
    },
    /// The edit speaks of a segment that is not there (any more).
    #[error("segment {segment} is not there")]
    UnknownSegment {
        /// The segment's number.
        segment: u32,
    },
    /// The edit opens a segment under a number that was used before.
    #[error("segment number {segment} was used before")]
    SegmentIdReused {
        /// The segment's number.
        segment: u32,
    },
    /// The segment was sealed before.
    #[error("segment {segment} is sealed already")]
    SealedTwice {
        /// The segment's number.
        segment: u32,
    },
    /// The seal claims more bytes than the segment's file has.
    #[error("segment {segment} of {file_bytes} bytes cannot end at byte {end}")]
    SealBeyondFile {
        /// The segment's number.
        segment: u32,
        /// Where the frames are said to end.
        end: u32,
        /// The file's length in bytes.
        file_bytes: u32,
    },
    /// The live bytes of a segment would be negative, or more than 64 bits hold.
    #[error("segment {segment} of {file_bytes} bytes cannot have {live_bytes} live ones")]
    LiveBytesOutOfRange {
        /// The segment's number.
        segment: u32,
        /// What the edit's differences come to.
        live_bytes: i128,
        /// The file's length in bytes.
        file_bytes: u32,
    },
    /// A number that only grows would shrink.
    #[error("{what} cannot go back from {from} to {to}")]
    MovedBack {
        /// The number's name.
        what: &'static str,
        /// Its value.
        from: u64,
        /// Its value according to the edit.
        to: u64,
    },
    /// The last possible number was used up.
    #[error("there are no {what} numbers left")]
    NumbersExhausted {
        /// What is numbered.
        what: &'static str,
    },
    /// The encoded edit or snapshot is longer than a record may be.
    #[error("an edit of {bytes} bytes is longer than the {max} that the manifest takes")]
    TooLarge {
        /// The encoded length in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
}
