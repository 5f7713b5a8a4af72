//! How full a shard is, and what follows from that. Pure.
//!
//! What lives is not known to the byte: an overwritten record counts as live until the merge that
//! drops the entry which points to it. It is known from both sides: at most what entries point to;
//! at least that less what newer entries may hide. The cap goes by the lower bound.

use super::pace::{Collecting, Runway};

/// A shard's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Files may take this many hundredths of what lives, and [`FLOOR_SEGMENTS`] segments besides.
    pub amplification_percent: u32,
    /// The standard length of a segment in bytes.
    pub segment_bytes: u32,
}

impl SpaceLimits {
    fn segments(&self, count: u64) -> u64 {
        count * u64::from(self.segment_bytes)
    }
}

/// Segments that a shard may take whatever lives: the current one, the spare, those of the log that
/// wait for a flush, and those that collected records are moved to.
pub(super) const FLOOR_SEGMENTS: u64 = 6;

/// Segments that the node must have left for files to be kept that nobody needs at the moment.
const KEEP_ABOVE: u64 = 4;

/// What a shard takes and holds, in bytes unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Of all its files but those that leases alone keep.
    pub allocated: u64,
    /// Of files that leases alone keep.
    pub leased: u64,
    /// Of these, files that are used again before new ones are made.
    pub recyclable: u64,
    /// What a merge may take until the tables that it replaces are gone.
    pub merging: u64,
    /// What the node has left for this shard's writes, by its limit and by the file system, without
    /// what is recyclable. Negative where it lacks of what writes have to leave to others.
    pub left: i64,
    /// Log records that entries of tables point to, and that no newer table hides: an estimate.
    pub in_tables: u64,
    /// Their mean length.
    pub mean_record: u64,
    /// Entries of tables: how many.
    pub table_entries: u64,
    /// Files of tables.
    pub table_bytes: u64,
    /// Log records that entries of tables point to and entries of memtables hide: an estimate.
    pub memtable_hidden: u64,
    /// Log records that entries of memtables point to.
    pub memtable_referenced: u64,
    /// What was taken for living lately; see [`super::SteadyLive`].
    pub lived: u64,
    /// What the collector can copy before it needs another segment.
    pub collector_room: u64,
}

/// What a record has besides key and value: its head, and what encodes the key's parts.
const RECORD_OVERHEAD_BYTES: u64 = crate::value_log::record::HEAD_BYTES as u64 + 7;

/// About what a table takes for an entry besides an inline value: a short key and a pointer.
const TABLE_ENTRY_BYTES: u64 = 48;

impl SpaceUsage {
    /// What lives, estimated: keys and values.
    pub fn live(&self) -> u64 {
        let mean = self.mean_record;
        let inline = self.table_bytes.saturating_sub(self.table_entries * TABLE_ENTRY_BYTES);
        let records = self.records_in_tables() + self.memtable_referenced;
        // Of a record some part is no data of the user's.
        let heads = RECORD_OVERHEAD_BYTES * (records / mean.max(1));
        records.saturating_sub(if mean == 0 { 0 } else { heads }) + inline
    }

    /// Of `referenced` bytes of log records that entries of tables point to, so many are hidden by
    /// newer entries of tables or memtables: an estimate.
    pub fn superseded(&self, referenced: u64) -> u64 {
        referenced.saturating_sub(self.records_in_tables())
    }

    /// Bytes of log records that live, as far as only tables point to them.
    fn records_in_tables(&self) -> u64 {
        self.in_tables.saturating_sub(self.memtable_hidden)
    }

    /// What the files may take.
    pub fn cap(&self, limits: &SpaceLimits) -> u64 {
        let live = self.live().max(self.lived);
        let amplified = u128::from(live) * u128::from(limits.amplification_percent) / 100;
        let floor = limits.segments(FLOOR_SEGMENTS);
        u64::try_from(amplified).unwrap_or(u64::MAX).saturating_add(floor)
    }

    /// Whether at least two thirds of what the files may take need not live. Then there is a
    /// segment of which a third lives at most whenever garbage is collected.
    fn is_roomy(&self, limits: &SpaceLimits) -> bool {
        self.cap(limits) / 3 >= self.live()
    }

    /// Headroom that the log leaves to the collector: a segment to move records to, unless it has
    /// one open in which what lives of the next victim finds room. What it moves them from is free
    /// before it takes another. For the records of the moves, and for deletes, the log has room.
    fn extend_above(&self, limits: &SpaceLimits) -> u64 {
        // A third of a victim lives at most, and the last frame is not full.
        let has_room = self.is_roomy(limits) && self.collector_room >= limits.segments(1) / 2;
        if has_room { 0 } else { limits.segments(1) }
    }

    /// What writers may still fill below which they go at the collector's pace. Where little lives,
    /// a segment is much of what there is: the later garbage is collected the more of it is dead.
    fn pace_below(&self, limits: &SpaceLimits) -> u64 {
        limits.segments(if self.is_roomy(limits) { 1 } else { 2 })
    }

    /// Headroom below which garbage is collected.
    fn collect_below(&self, limits: &SpaceLimits) -> u64 {
        self.extend_above(limits) + self.pace_below(limits)
    }

    /// What may still be filled: by what the files may grow, and files that are used again.
    pub fn headroom(&self, limits: &SpaceLimits) -> u64 {
        self.headroom_of_cap(limits).min(self.headroom_of_node())
    }

    /// Files that are used again stand for what others are short of, too: they would be given back.
    fn headroom_of_node(&self) -> u64 {
        self.recyclable.saturating_add_signed(self.left)
    }

    fn headroom_of_cap(&self, limits: &SpaceLimits) -> u64 {
        let taken = self.allocated.saturating_add(self.merging);
        self.cap(limits).saturating_add(self.recyclable).saturating_sub(taken)
    }

    /// What has to be freed until there is so much headroom.
    fn missing(&self, limits: &SpaceLimits, headroom: u64) -> u64 {
        let taken = self.allocated.saturating_add(self.merging);
        let below_cap = self.cap(limits).saturating_add(self.recyclable);
        let of_cap = taken.saturating_add(headroom).saturating_sub(below_cap);
        let of_node = i128::from(headroom) - i128::from(self.recyclable) - i128::from(self.left);
        of_cap.max(u64::try_from(of_node.max(0)).unwrap_or(u64::MAX))
    }

    /// Whether the file of a freed segment is kept to be used again, if `ready` are kept already;
    /// at most `most` are. Close to the cap, or where the node has little left, only those are that
    /// are needed next, which garbage is collected for: with fewer, files would be given back
    /// whenever the collector is ahead of the log, and made anew when the log has caught up, and a
    /// new file costs as many writes as it takes data. None is kept in place of what a merge may
    /// take, or above the cap.
    pub fn keeps_file(&self, limits: &SpaceLimits, ready: u64, most: u64) -> bool {
        let (cap, taken) = (self.cap(limits), self.allocated.saturating_add(self.merging));
        if taken > cap {
            return false;
        }
        let next = limits.segments(1) + self.pace_below(limits);
        let is_close = taken.saturating_add(next) > cap;
        let is_scarce = i128::from(self.left) < i128::from(limits.segments(KEEP_ABOVE));
        let needed = next / limits.segments(1).max(1);
        ready < if is_close || is_scarce { most.min(needed) } else { most }
    }

    /// Whether garbage should be collected, if there is some.
    pub fn wants_collection(&self, limits: &SpaceLimits) -> bool {
        self.headroom(limits) < self.collect_below(limits)
    }

    /// How scarce space is: how much is gone of what writers may append when collection has just
    /// begun, and how much that is. `log` as for [`Self::slack`].
    ///
    /// To the byte, so that nothing changes by leaps: when the log takes a segment it has as much
    /// more as the headroom has less. By the headroom alone collection was in a great hurry after
    /// each segment, at the cost of reads, with time enough until the next.
    pub fn scarcity(&self, limits: &SpaceLimits, log: u64) -> (u64, u64) {
        let beyond = self.headroom(limits).saturating_sub(self.extend_above(limits));
        // The log has a segment that it fills, and a spare one.
        let whole = self.pace_below(limits) + limits.segments(2);
        (whole.saturating_sub(log.saturating_add(beyond)), whole)
    }

    /// Segments that the log may take now.
    fn segments_for_log(&self, limits: &SpaceLimits) -> u64 {
        let headroom = self.headroom(limits).saturating_sub(self.extend_above(limits));
        headroom / limits.segments(1).max(1)
    }

    /// Bytes that writers may still append before they have to wait; `log` are those for which the
    /// log has its segments. It gets whole ones only.
    pub fn slack(&self, limits: &SpaceLimits, log: u64) -> u64 {
        log.saturating_add(limits.segments(self.segments_for_log(limits)))
    }

    /// Bytes by which the log may grow before space is needed of which much will have expired by
    /// itself; 0 if it is needed now. The collector needs some time: that is for half of what
    /// writers may append. `log` as for [`Self::slack`].
    pub fn patience(&self, limits: &SpaceLimits, log: u64) -> u64 {
        let is_short = self.headroom(limits) < self.extend_above(limits);
        if is_short { 0 } else { self.slack(limits, log) / 2 }
    }

    /// How far writers and the collector have to go until the log may take one segment more than
    /// it may now. `log` as for [`Self::slack`].
    pub fn runway(&self, limits: &SpaceLimits, log: u64, collecting: Collecting) -> Runway {
        let wanted = limits.segments(self.segments_for_log(limits) + 1) + self.extend_above(limits);
        let missing = self.missing(limits, wanted);
        let work = collecting.work_for(missing, limits.segments(1));
        Runway { slack: self.slack(limits, log), work }
    }

    /// Whether writers with so much slack have to go at the collector's pace, if there is garbage.
    pub fn wants_pace(&self, slack: u64, limits: &SpaceLimits) -> bool {
        slack < self.pace_below(limits)
    }

    /// Whether the log may grow by `bytes`, as far as the cap goes; by 0 if it has got a segment
    /// from the reserve already. The limits of node and file system are for the budget to keep.
    pub fn may_extend(&self, limits: &SpaceLimits, bytes: u32) -> bool {
        // A long segment must not be refused for ever where little lives.
        let wanted = match u64::from(bytes.min(limits.segment_bytes)) {
            0 => limits.segments(1),
            bytes => bytes + self.extend_above(limits),
        };
        self.headroom_of_cap(limits) >= wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SpaceLimits = SpaceLimits { amplification_percent: 150, segment_bytes: 1000 };

    fn usage() -> SpaceUsage {
        SpaceUsage {
            allocated: 100_000,
            left: i64::MAX,
            in_tables: 100_000,
            mean_record: 1136,
            table_entries: 100,
            table_bytes: 4800,
            ..SpaceUsage::default()
        }
    }

    #[test]
    fn what_lives_is_what_nothing_hides() {
        // 88 records of 1,136 bytes, of each of which 43 are not the user's.
        assert_eq!(usage().live(), 100_000 - 43 * 88);
        let fresh = SpaceUsage { memtable_referenced: 11_360, ..usage() };
        assert_eq!(fresh.live(), 111_360 - 43 * 98);
        let overwrites = SpaceUsage { memtable_hidden: 11_360, ..fresh };
        assert_eq!(overwrites.live(), usage().live(), "as many are overwritten as are new");
        let deletes = SpaceUsage { memtable_hidden: 1_136_000, ..usage() };
        assert_eq!(deletes.live(), 0);
        let empty = SpaceUsage { memtable_referenced: 5000, ..SpaceUsage::default() };
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
        assert!(!at(3000).wants_collection(&LIMITS) && at(2999).wants_collection(&LIMITS));
        assert_eq!((at(2000).slack(&LIMITS, 700), at(500).slack(&LIMITS, 700)), (1700, 700));
        assert!(at(1000).may_extend(&LIMITS, 0) && !at(999).may_extend(&LIMITS, 0));
        let merging = SpaceUsage { merging: 500, ..at(3000) };
        assert_eq!(merging.headroom(&LIMITS), 2500, "what a merge takes is not for others");
        let scarcity = |headroom, log| at(headroom).scarcity(&LIMITS, log);
        assert_eq!((scarcity(3000, 2000), scarcity(3000, 900)), ((0, 4000), (1100, 4000)));
        assert_eq!(scarcity(2500, 1000), scarcity(1500, 2000), "the log has taken a segment");
        assert_eq!((scarcity(500, 700), scarcity(0, 0)), ((3300, 4000), (4000, 4000)));
        let wants_pace = |slack| usage().wants_pace(slack, &LIMITS);
        assert!(!wants_pace(2000) && wants_pace(1999));
        assert!(at(2000).may_extend(&LIMITS, 1000) && !at(1999).may_extend(&LIMITS, 1000));
        assert!(at(2000).may_extend(&LIMITS, 1 << 30), "a long segment counts as a standard one");
    }

    #[test]
    fn an_open_segment_of_the_collector_is_what_the_log_leaves_to_it() {
        let small = SpaceUsage { in_tables: 4000, table_entries: 4, table_bytes: 192, ..usage() };
        let cap = small.cap(&LIMITS);
        let at = |headroom, collector_room| SpaceUsage {
            allocated: cap - headroom,
            collector_room,
            ..small
        };
        // A third of a victim lives at most: half a segment is enough to copy it.
        for (room, least) in [(0, 1000), (499, 1000), (500, 0), (1000, 0)] {
            let usage = at(least + 1000, room);
            assert!(usage.may_extend(&LIMITS, 1000) && !usage.wants_collection(&LIMITS), "{room}");
            assert_eq!(usage.slack(&LIMITS, 700), 1700);
            let usage = at(least + 999, room);
            assert!(!usage.may_extend(&LIMITS, 1000) && usage.wants_collection(&LIMITS), "{room}");
            assert_eq!(usage.slack(&LIMITS, 700), 700);
        }
        let large = SpaceUsage { collector_room: 1000, ..usage() };
        let large = SpaceUsage { allocated: large.cap(&LIMITS) - 2999, ..large };
        assert!(large.wants_collection(&LIMITS), "most of a victim may live");
    }

    #[test]
    fn there_is_time_to_wait_as_long_as_the_log_may_grow() {
        let cap = usage().cap(&LIMITS);
        let at = |headroom: u64| SpaceUsage { allocated: cap - headroom, ..usage() };
        let patience = |headroom| at(headroom).patience(&LIMITS, 700);
        assert_eq!([0, 999, 1000, 2000, 2999].map(patience), [0, 0, 350, 850, 850]);
        let above = SpaceUsage { allocated: cap + 500, ..usage() };
        assert_eq!(above.patience(&LIMITS, 700), 0, "however much the log has got");
    }

    #[test]
    fn the_runway_ends_where_the_log_may_grow_again() {
        let cap = usage().cap(&LIMITS);
        let at = |headroom: u64| SpaceUsage { allocated: cap - headroom, ..usage() };
        let collecting = Collecting { left: 300, ..Collecting::default() };
        let runway = |headroom| at(headroom).runway(&LIMITS, 700, collecting);
        assert_eq!(runway(3999), Runway { slack: 2700, work: 300 });
        assert_eq!(runway(1999), Runway { slack: 700, work: 300 }, "a part is no segment");
        assert_eq!(runway(1000), Runway { slack: 700, work: 300 });
        assert_eq!(runway(999), Runway { slack: 700, work: 1300 });
        assert_eq!(runway(0), Runway { slack: 700, work: 1300 });
        let above = SpaceUsage { allocated: cap + 500, ..usage() };
        assert_eq!(above.runway(&LIMITS, 700, collecting).work, 2300, "over the cap");
    }

    #[test]
    fn files_are_kept_to_be_used_again_as_long_as_nobody_else_needs_the_space() {
        let cap = usage().cap(&LIMITS);
        let full = SpaceUsage { allocated: cap, recyclable: 3000, ..usage() };
        assert!(full.may_extend(&LIMITS, 1000), "they are no further growth");
        assert_eq!((full.headroom(&LIMITS), full.slack(&LIMITS, 0)), (3000, 2000));
        let far = SpaceUsage { allocated: cap - 3000, ..full };
        assert!(far.keeps_file(&LIMITS, 7, 8) && !far.keeps_file(&LIMITS, 8, 8));
        let close = SpaceUsage { allocated: cap - 2999, ..full };
        assert!(close.keeps_file(&LIMITS, 2, 8) && !close.keeps_file(&LIMITS, 3, 8));
        let scarce = SpaceUsage { left: 3999, ..far };
        assert!(scarce.keeps_file(&LIMITS, 2, 8) && !scarce.keeps_file(&LIMITS, 3, 8));
        assert!(!scarce.keeps_file(&LIMITS, 0, 0));
        // Little lives: collection frees two segments, and no third one is kept.
        let roomy = SpaceUsage { in_tables: 4000, table_entries: 4, table_bytes: 192, ..full };
        let roomy = SpaceUsage { allocated: roomy.cap(&LIMITS), ..roomy };
        assert!(roomy.keeps_file(&LIMITS, 1, 8) && !roomy.keeps_file(&LIMITS, 2, 8));
        assert!(!SpaceUsage { allocated: cap + 1, ..usage() }.keeps_file(&LIMITS, 0, 8));
        let merging = SpaceUsage { allocated: cap - 499, merging: 500, ..usage() };
        assert!(!merging.keeps_file(&LIMITS, 0, 8), "a merge would go beyond the cap");
        assert!(SpaceUsage { merging: 499, ..merging }.keeps_file(&LIMITS, 0, 8));
    }

    #[test]
    fn where_little_lives_garbage_is_collected_late() {
        let roomy = SpaceUsage { in_tables: 4000, table_entries: 4, table_bytes: 192, ..usage() };
        let cap = roomy.cap(&LIMITS);
        for (usage, collects) in [(roomy, 2000), (usage(), 3000)] {
            let cap = usage.cap(&LIMITS);
            let at = |headroom: u64| SpaceUsage { allocated: cap - headroom, ..usage };
            assert_eq!(at(2000).slack(&LIMITS, 0), 1000);
            assert_eq!(at(1999).slack(&LIMITS, 0), 0, "the log takes whole segments");
            assert!(at(collects - 1).wants_collection(&LIMITS));
            assert!(!at(collects).wants_collection(&LIMITS));
            // Nobody waits for a collector that has nothing to do.
            assert!(!usage.wants_pace(at(collects).slack(&LIMITS, 0), &LIMITS));
        }
        let half = SpaceUsage { in_tables: cap / 2, table_entries: 4, table_bytes: 192, ..usage() };
        assert!(roomy.is_roomy(&LIMITS) && !half.is_roomy(&LIMITS));
    }

    #[test]
    fn the_limit_of_the_node_counts_as_well() {
        let tight = SpaceUsage { left: 2900, ..usage() };
        assert_eq!(tight.headroom(&LIMITS), 2900);
        assert!(tight.wants_collection(&LIMITS));
        assert_eq!(tight.slack(&LIMITS, 10), 1010);
    }

    #[test]
    fn files_to_be_used_again_stand_for_what_the_node_lacks() {
        // Writes are refused space here, so garbage has to be collected: nobody else frees any.
        let small = SpaceUsage { allocated: 3000, in_tables: 0, ..usage() };
        let lacking = SpaceUsage { recyclable: 2000, left: -1500, ..small };
        assert_eq!(lacking.headroom(&LIMITS), 500);
        assert!(lacking.wants_collection(&LIMITS));
        assert!(!lacking.keeps_file(&LIMITS, 2, 8));
        let far = SpaceUsage { left: -9000, ..lacking };
        assert_eq!(far.headroom(&LIMITS), 0);
        let work = |usage: SpaceUsage| usage.runway(&LIMITS, 0, Collecting::default()).work;
        assert_eq!(work(far) - work(lacking), 7000, "what lacks has to be freed as well");
    }
}
