//! How full a shard is, and what follows from that. Pure.
//!
//! What lives is not known to the byte: an overwritten record counts as live until the merge that
//! drops the entry which points to it. It is known from both sides: at most what entries point to;
//! at least that less what newer entries may hide. The cap goes by the lower bound.

/// A shard's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Files may take this many hundredths of what lives, and [`FLOOR_SEGMENTS`] segments besides.
    pub amplification_percent: u32,
    /// The standard length of a segment in bytes.
    pub segment_bytes: u32,
}

/// Segments that a shard may take whatever lives: the current one, the spare, those of the log that
/// wait for a flush, and those that collected records are moved to.
pub(super) const FLOOR_SEGMENTS: u64 = 6;

/// Segments of headroom below which garbage is collected.
const COLLECT_BELOW: u64 = 4;

/// Segments of headroom below which writers wait for the collector.
const PACE_BELOW: u64 = 3;

/// Segments of headroom that the log leaves to the collector and to merges.
const EXTEND_ABOVE: u64 = 2;

/// What a shard takes and holds, in bytes unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Of all its files.
    pub allocated: u64,
    /// What the node has left for this shard, by its limit and by the file system.
    pub left: u64,
    /// Log records that entries of tables point to.
    pub referenced: u64,
    /// Of these, at most so many are hidden by newer entries of tables.
    pub hidden_max: u64,
    /// Entries of tables: how many.
    pub table_entries: u64,
    /// Files of tables.
    pub table_bytes: u64,
    /// Entries of memtables: how many.
    pub memtable_entries: u64,
    /// Log records that entries of memtables point to.
    pub memtable_referenced: u64,
}

/// About what a table takes for an entry besides an inline value: a short key and a pointer.
const TABLE_ENTRY_BYTES: u64 = 48;

impl SpaceUsage {
    /// What lives, estimated from below: keys and values.
    pub fn live(&self) -> u64 {
        let mean = self.mean_record_bytes();
        let inline = self.table_bytes.saturating_sub(self.table_entries * TABLE_ENTRY_BYTES);
        let in_tables = self.referenced - self.superseded_max();
        let records = in_tables + self.memtable_referenced;
        // Of a record some part is no data of the user's.
        let heads = crate::value_log::record::HEAD_BYTES as u64 * (records / mean.max(1));
        records.saturating_sub(if mean == 0 { 0 } else { heads }) + inline
    }

    /// Of the log records that entries of tables point to, at most so many are hidden by newer
    /// entries of tables or memtables.
    pub fn superseded_max(&self) -> u64 {
        let in_tables = self.referenced.saturating_sub(self.hidden_max);
        // An entry of a memtable hides at most one of a table, and about the mean one.
        let hidden = self.memtable_entries.saturating_mul(self.mean_record_bytes());
        self.referenced - (in_tables - hidden.min(in_tables))
    }

    /// How long the log records are that entries of tables point to, on average over all entries.
    pub fn mean_record_bytes(&self) -> u64 {
        self.referenced / self.table_entries.max(1)
    }

    /// What the files may take.
    pub fn cap(&self, limits: &SpaceLimits) -> u64 {
        let amplified = u128::from(self.live()) * u128::from(limits.amplification_percent) / 100;
        let floor = FLOOR_SEGMENTS * u64::from(limits.segment_bytes);
        u64::try_from(amplified).unwrap_or(u64::MAX).saturating_add(floor)
    }

    /// What the files may still grow by.
    pub fn headroom(&self, limits: &SpaceLimits) -> u64 {
        self.cap(limits).saturating_sub(self.allocated).min(self.left)
    }

    /// Whether garbage should be collected, if there is some.
    pub fn wants_collection(&self, limits: &SpaceLimits) -> bool {
        self.headroom(limits) < COLLECT_BELOW * u64::from(limits.segment_bytes)
    }

    /// Whether writers have to go at the collector's pace, if there is garbage.
    pub fn wants_pace(&self, limits: &SpaceLimits) -> bool {
        self.headroom(limits) < PACE_BELOW * u64::from(limits.segment_bytes)
    }

    /// Whether the log may have another segment of `bytes`, as far as the cap goes. The limits of
    /// node and file system are for the budget to keep.
    pub fn may_extend(&self, limits: &SpaceLimits, bytes: u32) -> bool {
        let reserve = EXTEND_ABOVE * u64::from(limits.segment_bytes);
        // A long segment must not be refused for ever where little lives.
        let wanted = u64::from(bytes.min(limits.segment_bytes)) + reserve;
        self.cap(limits).saturating_sub(self.allocated) >= wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SpaceLimits = SpaceLimits { amplification_percent: 150, segment_bytes: 1000 };

    fn usage() -> SpaceUsage {
        SpaceUsage {
            allocated: 100_000,
            left: u64::MAX,
            referenced: 113_600,
            hidden_max: 13_600,
            table_entries: 100,
            table_bytes: 4800,
            memtable_entries: 0,
            memtable_referenced: 0,
        }
    }

    #[test]
    fn what_lives_is_estimated_from_below() {
        // 88 records of 1,136 bytes, of each of which 36 are its head.
        assert_eq!(usage().live(), 100_000 - 36 * 88);
        let fresh = SpaceUsage { memtable_entries: 10, memtable_referenced: 11_360, ..usage() };
        assert_eq!(fresh.live(), usage().live(), "as many may be overwritten as are new");
        let empty =
            SpaceUsage { memtable_referenced: 5000, memtable_entries: 5, ..SpaceUsage::default() };
        assert_eq!(empty.live(), 5000);
    }

    #[test]
    fn values_in_tables_count() {
        let inline =
            SpaceUsage { table_entries: 100, table_bytes: 10_000, ..SpaceUsage::default() };
        assert_eq!(inline.live(), 10_000 - 4800);
    }

    #[test]
    fn the_less_is_left_the_more_happens() {
        let cap = usage().cap(&LIMITS);
        assert_eq!(cap, usage().live() * 3 / 2 + 6000);
        let at = |headroom: u64| SpaceUsage { allocated: cap - headroom, ..usage() };
        assert!(!at(4000).wants_collection(&LIMITS) && at(3999).wants_collection(&LIMITS));
        assert!(!at(3000).wants_pace(&LIMITS) && at(2999).wants_pace(&LIMITS));
        assert!(at(3000).may_extend(&LIMITS, 1000) && !at(2999).may_extend(&LIMITS, 1000));
        assert!(at(3000).may_extend(&LIMITS, 1 << 30), "a long segment counts as a standard one");
    }

    #[test]
    fn the_limit_of_the_node_counts_as_well() {
        let tight = SpaceUsage { left: 3000, ..usage() };
        assert_eq!(tight.headroom(&LIMITS), 3000);
        assert!(tight.wants_collection(&LIMITS) && !tight.wants_pace(&LIMITS));
    }
}
