//! What every byte of a shard's files is for. Pure: one set of words for a shard that runs and for
//! a directory that no node runs on, so that both can be compared.

use super::victims::VictimCandidate;
use crate::manifest::SegmentState;
use crate::value_log::segment;

/// What the bytes of one segment's file are for. The parts after `file_bytes` add up to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentSpace {
    /// The segment's number.
    pub number: u32,
    /// Whether it holds records that were collected from other segments, and is no part of the log.
    pub is_collected: bool,
    /// Whether it takes no more frames.
    pub is_sealed: bool,
    /// Whether collecting it would bring more than it costs: its dead bytes then are not for long.
    pub is_worth_collecting: bool,
    /// The file's length.
    pub file_bytes: u64,
    /// The segment's header.
    pub header: u64,
    /// Records that reading a key may lead to.
    pub live: u64,
    /// Records that only entries of tables refer to which compaction drops: overwritten, deleted,
    /// expired, or of a namespace that was emptied.
    pub superseded: u64,
    /// Records that nothing refers to, and the headers and padding of frames.
    pub dead: u64,
    /// What was written since the last flush: a start replays it, or what it replays points here.
    pub unflushed: u64,
    /// Frames that are on their way to the device.
    pub undurable: u64,
    /// What can still be written to the open segment, or is lost behind a sealed one's end.
    pub unwritten: u64,
}

/// Where the parts of a segment end. None is before the one above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentEnds {
    /// What tables tell all of.
    pub flushed: u64,
    /// What is durable.
    pub durable: u64,
    /// What was written, or is on its way.
    pub appended: u64,
}

impl SegmentSpace {
    /// The parts that follow from where they end. All that is flushed is `dead` at first.
    ///
    /// Of its records `marked` bytes are known to be dead; `mean_record` is the mean length of the
    /// log's records. Both in bytes.
    pub fn new(
        number: u32,
        file_bytes: u64,
        known: &SegmentState,
        ends: SegmentEnds,
        (marked, mean_record): (u64, u64),
    ) -> Self {
        let header = u64::from(segment::HEADER_BYTES).min(file_bytes);
        let flushed = ends.flushed.clamp(header, file_bytes);
        let durable = ends.durable.clamp(flushed, file_bytes);
        let appended = ends.appended.clamp(durable, file_bytes);
        let candidate = VictimCandidate::of(number, known, marked, mean_record);
        let is_flushed = flushed == appended;
        Self {
            number,
            is_collected: !known.is_log(),
            is_sealed: known.sealed.is_some(),
            is_worth_collecting: is_flushed && candidate.is_some_and(|it| it.is_worth_it()),
            file_bytes,
            header,
            live: 0,
            superseded: 0,
            dead: flushed - header,
            unflushed: durable - flushed,
            undurable: appended - durable,
            unwritten: file_bytes - appended,
        }
    }

    /// Says how many of the flushed bytes entries refer to.
    pub fn count(&mut self, live: u64, superseded: u64) {
        self.live = live.min(self.dead);
        self.dead -= self.live;
        self.superseded = superseded.min(self.dead);
        self.dead -= self.superseded;
    }

    /// Whether nothing was written to it yet.
    fn is_empty(&self) -> bool {
        !self.is_sealed && self.unwritten == self.file_bytes - self.header
    }
}

/// Why files that nothing refers to any more are still there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PinnedFiles {
    /// Bytes of these files.
    pub bytes: u64,
    /// Reads under way that keep segments among them, as a number.
    pub operations: u64,
    /// For how long the oldest of them has been under way, in nanoseconds.
    pub oldest_nanoseconds: u64,
    /// The leases that keep files, or would.
    pub leases: Vec<LeaseSpace>,
}

/// A lease, and what it keeps from being freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseSpace {
    /// Leases are counted since the start.
    pub number: u64,
    /// Bytes of files that would be gone but for it, and perhaps others.
    pub bytes: u64,
    /// How long it has been held, in nanoseconds.
    pub nanoseconds: u64,
    /// How long it will be held at most, in nanoseconds.
    pub nanoseconds_left: u64,
}

/// What the bytes of a shard's files are for, in bytes unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceReport {
    /// Whether the shard runs. What compaction would drop is estimated then, not counted, and files
    /// count from when they are part of the shard until they are given back.
    pub is_running: bool,
    /// The superblock.
    pub superblock: u64,
    /// The manifest file in force.
    pub manifest: u64,
    /// The segments that the manifest names.
    pub segments: Vec<SegmentSpace>,
    /// Files of freed segments that are kept for use under another number.
    pub free: u64,
    /// Files that nothing refers to, and somebody may still read.
    pub pinned: PinnedFiles,
    /// Tables that the manifest names.
    pub tables: u64,
    /// Files that an interrupted change has left, which the next start removes.
    pub orphans: u64,
    /// Files that are not a shard's.
    pub foreign: u64,
    /// Tables, as a number.
    pub table_count: u64,
    /// Entries of the tables, as a number.
    pub entries: u64,
    /// Those that are tombstones.
    pub tombstones: u64,
    /// Entries that a newer one of their key hides: compaction drops them.
    pub duplicates: u64,
    /// Newest entries whose time is up: compaction drops them.
    pub expired: u64,
    /// Newest entries of a namespace's generation that is gone: compaction drops them.
    pub emptied: u64,
    /// Changes that no table has, as a number of keys: a start replays them.
    pub unflushed_keys: u64,
    /// Values that are compressed, of those that reading a key leads to. A shard that runs does not
    /// count them.
    pub compressed: Option<CompressedSpace>,
}

/// What compressed values take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressedSpace {
    /// How many there are.
    pub values: u64,
    /// Bytes of the values as clients sent them.
    pub value_bytes: u64,
    /// Bytes of their records, keys included.
    pub record_bytes: u64,
}

/// One of the things that bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpacePart {
    /// Its name for programs.
    pub name: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// Bytes.
    pub bytes: u64,
}

impl SpaceReport {
    /// One part of all segments together.
    pub fn sum(&self, part: impl Fn(&SegmentSpace) -> u64) -> u64 {
        self.segments.iter().map(part).sum()
    }

    /// About how many bytes of the tables compaction would give back.
    pub fn debt(&self) -> u64 {
        let dropped = u128::from(self.duplicates + self.expired + self.emptied);
        let share = dropped * u128::from(self.tables) / u128::from(self.entries.max(1));
        u64::try_from(share).unwrap_or(self.tables).min(self.tables)
    }

    /// Lengths of all files: the sum of all parts.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|part| part.bytes).sum()
    }

    /// All that bytes are for. Every byte is in one part.
    pub fn parts(&self) -> [SpacePart; 18] {
        let part = |name, what, bytes| SpacePart { name, what, bytes };
        let when = |holds: bool, bytes: u64| if holds { bytes } else { 0 };
        let dead = |worth: bool| self.sum(|it| when(it.is_worth_collecting == worth, it.dead));
        let open = self.sum(|it| when(!it.is_sealed && !it.is_empty(), it.unwritten));
        let spare = self.sum(|it| when(it.is_empty(), it.unwritten));
        let behind_end = self.sum(|it| when(it.is_sealed, it.unwritten));
        [
            part("live", "log: live values", self.sum(|it| it.live)),
            part("superseded", "log: dead, freed by compaction", self.sum(|it| it.superseded)),
            part("collectable", "log: dead, in segments worth collecting", dead(true)),
            part("dead", "log: dead below the threshold, frame padding", dead(false)),
            part("unflushed", "log: awaiting a flush", self.sum(|it| it.unflushed)),
            part("undurable", "log: awaiting durability", self.sum(|it| it.undurable)),
            part("open", "log: room in open segments", open),
            part("spare", "log: spare segments, nothing written yet", spare),
            part("behind_end", "log: unused behind the ends of full segments", behind_end),
            part("segment_headers", "log: segment headers", self.sum(|it| it.header)),
            part("free", "log: files of freed segments, to use again", self.free),
            part("pinned", "freed, and perhaps still read", self.pinned.bytes),
            part("tables", "tables", self.tables - self.debt()),
            part("debt", "tables: what compaction would drop, about", self.debt()),
            part("manifest", "manifest", self.manifest),
            part("superblock", "superblock", self.superblock),
            part("orphans", "left behind, removed at the next start", self.orphans),
            part("foreign", "not larder's", self.foreign),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::SegmentSeal;

    fn known(end: Option<u32>, live_bytes: u64) -> SegmentState {
        let sealed = end.map(|end| SegmentSeal { segment: 1, end, sequence_last: 9 });
        SegmentState {
            file_bytes: 100_000,
            sealed,
            live_bytes,
            generation: 0,
            expiry_max: 0,
            pointers_end_max: 0,
        }
    }

    fn part(report: &SpaceReport, name: &str) -> u64 {
        let parts = report.parts();
        parts.iter().find(|part| part.name == name).expect(name).bytes
    }

    #[test]
    fn every_byte_of_a_segment_is_in_one_part() {
        let ends = |flushed, durable, appended| SegmentEnds { flushed, durable, appended };
        let mut open =
            SegmentSpace::new(1, 100_000, &known(None, 0), ends(8192, 20_480, 24_576), (0, 1000));
        open.count(1000, 500);
        let mut sealed = SegmentSpace::new(
            2,
            100_000,
            &known(Some(90_112), 82_000),
            ends(90_112, 0, 0),
            (0, 1000),
        );
        sealed.count(70_000, 12_000);
        let mut poor = SegmentSpace::new(
            3,
            100_000,
            &known(Some(90_112), 1000),
            ends(90_112, 0, 0),
            (0, 1000),
        );
        poor.count(1000, u64::MAX);
        let mut dead =
            SegmentSpace::new(4, 100_000, &known(Some(90_112), 0), ends(90_112, 0, 0), (0, 1000));
        dead.count(0, 0);
        let spare =
            SegmentSpace::new(5, 100_000, &known(None, 0), SegmentEnds::default(), (0, 1000));
        let report = SpaceReport {
            segments: vec![open, sealed, poor, dead, spare],
            tables: 1000,
            entries: 10,
            duplicates: 3,
            free: 7,
            ..SpaceReport::default()
        };
        for segment in &report.segments {
            let SegmentSpace { header, live, superseded, dead, .. } = segment;
            let SegmentSpace { unflushed, undurable, unwritten, .. } = segment;
            let sum = header + live + superseded + dead + unflushed + undurable + unwritten;
            assert_eq!(sum, segment.file_bytes, "{segment:?}");
        }
        assert_eq!(report.total(), 5 * 100_000 + 1000 + 7);
        for (name, bytes) in [
            ("live", 1000 + 70_000 + 1000),
            ("superseded", 500 + 12_000 + 85_016),
            ("collectable", 86_016),
            ("dead", 2596 + 4016),
            ("unflushed", 12_288),
            ("undurable", 4096),
            ("open", 100_000 - 24_576),
            ("spare", 100_000 - 4096),
            ("behind_end", 3 * 9888),
            ("tables", 700),
            ("debt", 300),
        ] {
            assert_eq!(part(&report, name), bytes, "{name}");
        }
    }

    #[test]
    fn ends_out_of_range_or_order_do_not_wrap() {
        for (flushed, durable, appended) in
            [(u64::MAX, 0, 0), (0, u64::MAX, 0), (0, 0, u64::MAX), (50, 40, 30)]
        {
            let ends = SegmentEnds { flushed, durable, appended };
            let segment = SegmentSpace::new(1, 5000, &known(Some(0), u64::MAX), ends, (0, 1000));
            let report = SpaceReport { segments: vec![segment], ..SpaceReport::default() };
            assert_eq!(report.total(), 5000, "{ends:?}");
        }
    }
}
