//! Chooses the next compaction from the tables' sizes and key ranges. Pure: no files, no clock.
//!
//! A level's score is how full it is: of level 0 its sorted runs, of each deeper level its bytes,
//! over the target. The fullest level that has reached its target is worked on, the shallower of
//! equals. Level 0 is merged whole, because its runs overlap. Of a deeper level goes the table
//! that rewrites the fewest bytes of the next level for each byte it moves; one that overlaps
//! nothing there moves without being read.

use super::sorted_runs::{KeyRange, sorted_runs};
use crate::canary::{self, Defect};

/// What the picker knows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The table's id.
    pub id: u64,
    /// The length of its file in bytes.
    pub bytes: u64,
    /// Its first key, encoded.
    pub smallest: Vec<u8>,
    /// Its last key, encoded.
    pub largest: Vec<u8>,
}

impl KeyRange for Candidate {
    fn smallest(&self) -> &[u8] {
        &self.smallest
    }

    fn largest(&self) -> &[u8] {
        &self.largest
    }
}

/// The shape that compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickerOptions {
    /// Sorted runs of level 0 at which they are merged into level 1; at least 1.
    pub level_zero_runs: u64,
    /// The target of level 1 in bytes; at least 1.
    pub level_one_bytes: u64,
    /// How much larger each level's target is than the one's above; at least 2.
    pub level_factor: u64,
    /// How many levels there may be, level 0 included, 2 to 255. The deepest has no target.
    pub levels_max: u8,
}

impl Default for PickerOptions {
    fn default() -> Self {
        Self { level_zero_runs: 4, level_one_bytes: 64 << 20, level_factor: 8, levels_max: 7 }
    }
}

/// What to do next. Tables are named by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Every level is below its target.
    Nothing,
    /// A table goes one level down as it is.
    Move {
        /// The table.
        table: u64,
        /// Its new level.
        to: u8,
    },
    /// Tables of two neighbouring levels are merged into the deeper one.
    Merge {
        /// The tables, newest first: those of `from_level`, then those of `to_level` in key order.
        inputs: Vec<u64>,
        /// The upper level.
        from_level: u8,
        /// The level of the outputs.
        to_level: u8,
        /// Whether no deeper level has a table in the key range of the inputs, so that a
        /// tombstone hides nothing there.
        is_bottom: bool,
    },
}

/// Chooses the next compaction.
///
/// `levels[0]` is sorted newest first; deeper levels are sorted by key.
///
/// # Panics
///
/// If tables of a deeper level overlap or are out of order, there are more levels than allowed, or
/// an option is out of its range.
pub fn pick(levels: &[Vec<Candidate>], options: &PickerOptions) -> Choice {
    check(levels, options);
    match fullest_level(levels, options) {
        None => Choice::Nothing,
        Some(0) => pick_from_level_zero(levels),
        Some(level) => pick_from_deeper_level(levels, level),
    }
}

fn check(levels: &[Vec<Candidate>], options: &PickerOptions) {
    assert!(options.level_zero_runs >= 1 && options.level_one_bytes >= 1, "{options:?}");
    assert!(options.level_factor >= 2 && options.levels_max >= 2, "{options:?}");
    assert!(levels.len() <= usize::from(options.levels_max), "{} levels", levels.len());
    for level in levels.iter().skip(1) {
        let is_run = level.windows(2).all(|pair| pair[0].largest < pair[1].smallest);
        assert!(is_run, "a level below level 0 is not one sorted run");
    }
}

/// The level that is fullest for its target, if any has reached it.
fn fullest_level(levels: &[Vec<Candidate>], options: &PickerOptions) -> Option<usize> {
    let last = usize::from(options.levels_max) - 1;
    let mut target = options.level_one_bytes;
    let mut fullest = None;
    for (number, level) in levels.iter().take(last).enumerate() {
        let score = if number == 0 {
            Score { have: sorted_runs(level).len() as u64, target: options.level_zero_runs }
        } else {
            let have = level.iter().map(|table| table.bytes).sum();
            let score = Score { have, target };
            target = target.saturating_mul(options.level_factor);
            score
        };
        let is_fuller = fullest.is_none_or(|(_, best)| score.is_above(&best));
        if score.is_reached() && is_fuller {
            fullest = Some((number, score));
        }
    }
    fullest.map(|(number, _)| number)
}

#[derive(Clone, Copy)]
struct Score {
    have: u64,
    target: u64,
}

impl Score {
    fn is_reached(&self) -> bool {
        self.have >= self.target
    }

    fn is_above(&self, other: &Self) -> bool {
        let [left, right] = [(self.have, other.target), (other.have, self.target)]
            .map(|(have, target)| u128::from(have) * u128::from(target));
        left > right
    }
}

fn pick_from_level_zero(levels: &[Vec<Candidate>]) -> Choice {
    let newest_first = &levels[0];
    let below = level_at(levels, 1);
    let stands_alone = |table: &&Candidate| {
        let is_other = |other: &&Candidate| other.id != table.id;
        let overlaps_level_zero =
            newest_first.iter().filter(is_other).any(|other| other.overlaps(*table));
        !overlaps_level_zero && overlapping(below, *table).is_empty()
    };
    if let Some(table) = newest_first.iter().rev().find(stands_alone) {
        return Choice::Move { table: table.id, to: 1 };
    }
    merge(levels, 0, newest_first)
}

fn pick_from_deeper_level(levels: &[Vec<Candidate>], level: usize) -> Choice {
    let below = level_at(levels, level + 1);
    let rewritten = |table: &Candidate| -> u128 {
        let bytes: u64 = overlapping(below, table).iter().map(|other| other.bytes).sum();
        u128::from(bytes) * 1024 / u128::from(table.bytes.max(1))
    };
    let cheapest = levels[level].iter().min_by_key(|table| rewritten(table));
    let table = cheapest.expect("a level that reached its target has tables");
    if overlapping(below, table).is_empty() {
        return Choice::Move { table: table.id, to: level_number(level + 1) };
    }
    merge(levels, level, std::slice::from_ref(table))
}

/// The merge of `upper`, tables of `level`, with all that they overlap in the next.
///
/// Outputs may span the gaps between the inputs, so everything within the hull of `upper` counts.
fn merge(levels: &[Vec<Candidate>], level: usize, upper: &[Candidate]) -> Choice {
    let upper_hull = Hull::of(upper);
    let lower = overlapping(level_at(levels, level + 1), &upper_hull);
    let hull = Hull::of(upper.iter().chain(lower));
    let skipped = usize::from(canary::has(Defect::BottomSkipsALevel));
    let deeper = levels.iter().skip(level + 2 + skipped);
    Choice::Merge {
        inputs: upper.iter().chain(lower).map(|table| table.id).collect(),
        from_level: level_number(level),
        to_level: level_number(level + 1),
        is_bottom: deeper.into_iter().all(|tables| overlapping(tables, &hull).is_empty()),
    }
}

fn level_at(levels: &[Vec<Candidate>], level: usize) -> &[Candidate] {
    levels.get(level).map_or(&[], Vec::as_slice)
}

fn level_number(level: usize) -> u8 {
    u8::try_from(level).expect("there are at most 255 levels")
}

/// The tables of a sorted run that overlap `range`.
fn overlapping<'a>(run: &'a [Candidate], range: &impl KeyRange) -> &'a [Candidate] {
    let start = run.partition_point(|table| table.largest() < range.smallest());
    let end = run.partition_point(|table| table.smallest() <= range.largest());
    &run[start..end.max(start)]
}

/// The smallest range that includes others.
struct Hull<'a> {
    smallest: &'a [u8],
    largest: &'a [u8],
}

impl<'a> Hull<'a> {
    fn of(tables: impl IntoIterator<Item = &'a Candidate, IntoIter: Clone>) -> Self {
        let tables = tables.into_iter();
        let smallest = tables.clone().map(KeyRange::smallest).min();
        let largest = tables.map(KeyRange::largest).max();
        Self {
            smallest: smallest.expect("a merge has inputs"),
            largest: largest.expect("a merge has inputs"),
        }
    }
}

impl KeyRange for Hull<'_> {
    fn smallest(&self) -> &[u8] {
        self.smallest
    }

    fn largest(&self) -> &[u8] {
        self.largest
    }
}

#[cfg(test)]
mod tests;
