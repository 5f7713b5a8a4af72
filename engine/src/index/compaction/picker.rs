//! Chooses the next compaction from what is known of the tables. Pure: no files, no clock.
//!
//! In this order:
//!
//! 1. Tables that nobody needs go at once, unread: those of a dead generation, and those whose
//!    entries have all expired and hide nothing.
//! 2. A table that was found damaged is written again, where it is or, from level 0, into the next
//!    level: what of it can be read stays, and what cannot becomes a stub.
//! 3. Level 0 is relieved when it has too many runs, which look-ups visit one by one, or too many
//!    tables. A table with nothing older in its range moves down as it is; else the oldest table
//!    and what overlaps it, a slice of the level, is merged.
//! 4. Hidden garbage is brought to light. A log record counts as live until a merge meets both its
//!    index entry and the newer one of its key, so what tables may hide is kept below a share of
//!    everything, a small one while garbage is wanted that nobody knows of: what hides most for the
//!    bytes that are rewritten goes down.
//! 5. The fullest level that has reached its target gives the table that rewrites the fewest bytes
//!    of the next level for each byte that it moves; one that overlaps nothing there moves unread.
//! 6. Tables that are mostly tombstones or expired entries go down, or, where nothing lies deeper,
//!    are written again without them.
//!
//! Compaction comes to an end by itself: every choice takes tables away, takes entries down, or
//! writes tables of the deepest level of their range again without what made them a choice.
//!
//! A merge is bounded: it takes one upper table and what that overlaps, or as much of level 0 as
//! stays below [`PickerOptions::merge_bytes_of`], and outputs are cut where they would overlap more
//! than that of the next level ([`output_cuts`]). So a large compaction commits in parts of bounded
//! size, and no table has to be consumed in part.

mod debt;
mod picture;

use super::sorted_runs::KeyRange;
use crate::index::table::Hiding;

pub use debt::{DEBT_MAX, debt};
use picture::Picture;

/// What the picker knows of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The table's id.
    pub id: u64,
    /// The length of its file in bytes.
    pub bytes: u64,
    /// Its first key, encoded.
    pub smallest: &'a [u8],
    /// Its last key, encoded.
    pub largest: &'a [u8],
    /// Its entries, tombstones included.
    pub entries: u64,
    /// Its tombstones.
    pub tombstones: u64,
    /// Bytes of the log records that its entries point to.
    pub separate_bytes: u64,
    /// Bytes of those whose entries have an expiry.
    pub expiring_bytes: u64,
    /// The Unix second from which on no entry is an item; 0 if that never comes.
    pub expiry_max: u32,
    /// The Unix second from which on no entry that has an expiry is an item; 0 if none has one.
    pub expiry_last: u32,
    /// What its entries hide of older ones.
    pub hiding: Hiding,
    /// Whether all its keys are of a generation that is dead for good.
    pub is_dead: bool,
    /// Whether something in its file is not what was written.
    pub is_damaged: bool,
}

impl KeyRange for Candidate<'_> {
    fn smallest(&self) -> &[u8] {
        self.smallest
    }

    fn largest(&self) -> &[u8] {
        self.largest
    }
}

/// The tables of a level.
#[derive(Clone, Debug, Default)]
pub struct Level<'a> {
    /// In level 0 the newest first, in deeper levels in key order without overlap.
    pub tables: Vec<Candidate<'a>>,
    /// Tables that are there only to say which keys are lost, with the range of those keys. They
    /// are older than the level's tables, and go down with those that overlap them.
    pub stubs: Vec<Candidate<'a>>,
}

/// The shape that compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickerOptions {
    /// Sorted runs of level 0 at which it is relieved; at least 1.
    pub level_zero_runs: u64,
    /// Tables of level 0 at which it is relieved, however few runs they make up; at least 1.
    pub level_zero_tables: u64,
    /// The target of level 1 in bytes; at least 1.
    pub level_one_bytes: u64,
    /// How much larger each level's target is than the one's above; at least 2.
    pub level_factor: u64,
    /// How many levels there may be, level 0 included, 2 to 255. The deepest has no target.
    pub levels_max: u8,
    /// Bytes of each of its two levels that a merge takes at most, beyond one upper table and what
    /// that overlaps; at least 1.
    pub merge_bytes: u64,
    /// It takes so many however few there are of tables; at least 1.
    pub merge_bytes_min: u64,
    /// One part in so many of what all tables point at may be hidden; at least 1.
    pub hidden_part: u64,
    /// The same while garbage is [wanted](Garbage::Wanted), if that is a smaller part; at least 1.
    pub hidden_part_wanted: u64,
    /// A table is compacted when one part in so many of it is tombstones or expired; at least 2.
    pub dead_part: u64,
}

impl Default for PickerOptions {
    fn default() -> Self {
        Self {
            level_zero_runs: 4,
            level_zero_tables: 32,
            level_one_bytes: 64 << 20,
            level_factor: 8,
            levels_max: 7,
            merge_bytes: 64 << 20,
            merge_bytes_min: 8 << 20,
            hidden_part: 4,
            hidden_part_wanted: 32,
            dead_part: 4,
        }
    }
}

/// Whether space is short and no segment can be collected: none is known to have enough garbage, or
/// there is no room for the copies. Then what tables hide is all that can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// There is space, or there are segments to collect.
    Enough,
    /// There is not.
    Wanted,
}

/// A merge takes about one part in so many of all tables from each of its levels: what it may take
/// is kept free for it, and is then no large part of a small store.
const MERGE_PART: u64 = 16;

impl PickerOptions {
    /// Bytes of log records that may be hidden where tables point to `total`.
    fn hidden_max(&self, total: u128, garbage: Garbage) -> u128 {
        let part = match garbage {
            Garbage::Enough => self.hidden_part,
            Garbage::Wanted => self.hidden_part.max(self.hidden_part_wanted),
        };
        total / u128::from(part)
    }

    /// Bytes of each of its two levels that a merge takes, beyond one upper table and what that
    /// overlaps, where there are `table_bytes` of tables.
    pub fn merge_bytes_of(&self, table_bytes: u64) -> u64 {
        (table_bytes / MERGE_PART).max(self.merge_bytes_min).min(self.merge_bytes)
    }
}

/// What to do next. Tables are named by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing can be gained.
    Nothing,
    /// Tables that nobody needs are taken out unread.
    Remove {
        /// The tables.
        tables: Vec<u64>,
    },
    /// A table goes one level down as it is.
    Move {
        /// The table.
        table: u64,
        /// Its new level.
        to: u8,
    },
    /// Tables are merged.
    Merge {
        /// The tables, newest first: those of the upper level, the stubs that go down with them,
        /// and those of `to`.
        inputs: Vec<u64>,
        /// The level of the outputs.
        to: u8,
    },
}

/// Chooses the next compaction; `now` is in Unix seconds.
///
/// # Panics
///
/// If tables of a deeper level overlap or are out of order, there are more levels than allowed, or
/// an option is out of its range.
pub fn pick(levels: &[Level<'_>], options: &PickerOptions, garbage: Garbage, now: u32) -> Choice {
    check(levels, options);
    let picture = Picture::new(levels, options, now);
    picture
        .remove_unneeded()
        .or_else(|| picture.set_damage_aside())
        .or_else(|| picture.relieve_level_zero())
        .or_else(|| picture.uncover_garbage(garbage))
        .or_else(|| picture.shrink_fullest())
        .or_else(|| picture.drop_dead_weight())
        .unwrap_or(Choice::Nothing)
}

/// Bytes of log records that tables point to, as far as newer tables do not hide them: an estimate
/// that takes a hidden record to be of mean length.
pub fn visible_bytes(levels: &[Level<'_>], options: &PickerOptions) -> u64 {
    Picture::new(levels, options, 0).visible_bytes()
}

/// How many bytes of log records that no longer matter may still count as live, because tables hide
/// them: an estimate that takes a hidden record to be of mean length, at least as long as the one
/// that hides it.
pub fn hidden_bytes(levels: &[Level<'_>], options: &PickerOptions) -> u64 {
    Picture::new(levels, options, 0).hidden_bytes()
}

/// The mean length of the log records that items in tables point to.
pub fn mean_record_bytes(levels: &[Level<'_>], options: &PickerOptions) -> u64 {
    Picture::new(levels, options, 0).mean_record_bytes()
}

/// The first moment after `now` at which entries of a table will have expired, so that there may be
/// something to choose.
pub fn next_expiry(levels: &[Level<'_>], now: u32) -> Option<u32> {
    let tables = levels.iter().flat_map(|level| &level.tables);
    let moments = tables.flat_map(|table| [table.expiry_max, table.expiry_last]);
    moments.filter(|&moment| moment > now).min()
}

/// Keys at which the outputs of a merge into the level above `below` are cut, in increasing order:
/// no output then overlaps more than about `merge_bytes` of `below`.
pub fn output_cuts(below: &[Candidate<'_>], merge_bytes: u64) -> Vec<Vec<u8>> {
    let mut cuts = Vec::new();
    let mut bytes = 0u64;
    for table in below {
        bytes = bytes.saturating_add(table.bytes);
        if bytes > merge_bytes {
            cuts.push(table.smallest.to_vec());
            bytes = table.bytes;
        }
    }
    cuts
}

fn check(levels: &[Level<'_>], options: &PickerOptions) {
    assert!(options.level_zero_runs >= 1 && options.level_zero_tables >= 1, "{options:?}");
    assert!(options.level_one_bytes >= 1 && options.merge_bytes >= 1, "{options:?}");
    assert!(options.merge_bytes_min >= 1, "{options:?}");
    assert!(options.level_factor >= 2 && options.levels_max >= 2, "{options:?}");
    assert!(options.hidden_part >= 1 && options.hidden_part_wanted >= 1, "{options:?}");
    assert!(options.dead_part >= 2, "{options:?}");
    assert!(levels.len() <= usize::from(options.levels_max), "{} levels", levels.len());
    for level in levels.iter().skip(1) {
        let is_run = level.tables.windows(2).all(|pair| pair[0].largest < pair[1].smallest);
        assert!(is_run, "a level below level 0 is not one sorted run");
    }
}

#[cfg(test)]
mod tests;
