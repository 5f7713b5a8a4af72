//! Who may use the last of the space.
//!
//! When the disk fills up, what frees space must go on longest. Each purpose leaves to the more
//! needed ones what they take at a time, in this order: a flush, which lets the log go; a merge,
//! which finds what is dead; the log of deletes and of a collection's moves; a collection, which
//! frees segments; and at last the log of everything else.

/// What space is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// What a start cannot do without.
    Start,
    /// Writing a memtable out.
    Flush,
    /// Merging tables.
    Merge,
    /// A segment of the log for deletes and for the records of moves.
    Removal,
    /// A segment that collected records are moved to.
    Collection,
    /// A segment of the log for anything.
    Ingest,
}

impl Purpose {
    /// How many bytes have to be left when space is given for this purpose; `reserve` is what
    /// flush, merge and manifest of one shard may need at a time.
    pub fn left(self, reserve: u64, segment_bytes: u32, shards: u16) -> u64 {
        let segment = u64::from(segment_bytes);
        let of_shard = match self {
            Self::Start => 0,
            Self::Flush => reserve / 8,
            Self::Merge => reserve / 4,
            Self::Removal => reserve / 2,
            Self::Collection => reserve / 2 + segment,
            Self::Ingest => reserve + 3 * segment,
        };
        of_shard.saturating_mul(u64::from(shards.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_leaves_room_for_those_that_are_needed_more() {
        let order = [
            Purpose::Start,
            Purpose::Flush,
            Purpose::Merge,
            Purpose::Removal,
            Purpose::Collection,
            Purpose::Ingest,
        ];
        assert!(order.is_sorted());
        let left = order.map(|purpose| purpose.left(1000, 64, 2));
        assert!(left.is_sorted_by(|less, more| less < more), "{left:?}");
        assert_eq!(Purpose::Ingest.left(1000, 64, 2), 2 * (1000 + 192));
    }
}
