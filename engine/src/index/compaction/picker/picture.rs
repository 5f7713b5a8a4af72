//! The tables as the picker sees them, and each of its reasons to compact.

use std::cmp::Reverse;

use super::super::sorted_runs::{KeyRange, sorted_runs};
use super::{Candidate, Choice, Garbage, Level, PickerOptions};

/// How many tables one edit takes out.
const REMOVED_MAX: usize = 32;

/// By one part in so many of it, what is hidden may be more than samples say.
const UNCERTAIN_PART: u64 = 32;

pub(super) struct Picture<'a> {
    levels: &'a [Level<'a>],
    options: &'a PickerOptions,
    /// See [`PickerOptions::merge_bytes_of`].
    merge_bytes: u64,
    now: u32,
}

impl<'a> Picture<'a> {
    pub(super) fn new(levels: &'a [Level<'a>], options: &'a PickerOptions, now: u32) -> Self {
        let tables = levels.iter().flat_map(|level| &level.tables);
        let table_bytes = tables.fold(0u64, |sum, table| sum.saturating_add(table.bytes));
        Self { levels, options, merge_bytes: options.merge_bytes_of(table_bytes), now }
    }

    /// Tables that are dead as a whole, and those that have expired as a whole and hide nothing.
    pub(super) fn remove_unneeded(&self) -> Option<Choice> {
        let dead = self.levels.iter().flat_map(|level| level.tables.iter().chain(&level.stubs));
        let dead = dead.filter(|table| table.is_dead).map(|table| table.id);
        let expired = self.positions().filter(|&(level, at)| {
            let table = &self.levels[level].tables[at];
            !table.is_dead && self.has_expired(table) && self.hides_nothing(level, at)
        });
        let expired = expired.map(|(level, at)| self.levels[level].tables[at].id);
        let tables: Vec<u64> = dead.chain(expired).take(REMOVED_MAX).collect();
        (!tables.is_empty()).then_some(Choice::Remove { tables })
    }

    /// Writes a damaged table again. It must not move unread: the damage would go with it.
    pub(super) fn set_damage_aside(&self) -> Option<Choice> {
        let is_damaged = |&(level, at): &(usize, usize)| self.levels[level].tables[at].is_damaged;
        let (level, at) = self.positions().find(is_damaged)?;
        if level == 0 {
            return Some(self.merge(0, &self.with_older(0, at)));
        }
        let inputs = vec![self.levels[level].tables[at].id];
        Some(Choice::Merge { inputs, to: level_number(level) })
    }

    pub(super) fn relieve_level_zero(&self) -> Option<Choice> {
        let tables = &self.levels.first()?.tables;
        let runs = sorted_runs(tables).len() as u64;
        let is_due = runs >= self.options.level_zero_runs
            || tables.len() as u64 >= self.options.level_zero_tables;
        if !is_due {
            return None;
        }
        let oldest_first = (0..tables.len()).rev();
        let mut movable = oldest_first.filter(|&at| self.can_move(0, at));
        match movable.next() {
            Some(at) => Some(Choice::Move { table: tables[at].id, to: 1 }),
            None => Some(self.merge(0, &self.slice_of_level_zero())),
        }
    }

    /// The oldest table of level 0 and those that overlap it, as long as the merge stays small.
    ///
    /// A newer table may come along only if nothing older in its range stays behind: that would be
    /// taken for newer then.
    fn slice_of_level_zero(&self) -> Vec<usize> {
        let tables = &self.levels[0].tables;
        let oldest = tables.len() - 1;
        let mut slice = vec![oldest];
        let mut upper_bytes = tables[oldest].bytes;
        for at in (0..oldest).rev() {
            let table = &tables[at];
            let range = hull(slice.iter().map(|&other| &tables[other]));
            let stays_above =
                |older: usize| !slice.contains(&older) && tables[older].overlaps(table);
            if !table.overlaps(&range) || (at + 1..tables.len()).any(stays_above) {
                continue;
            }
            let wider = hull([&range, table]);
            let lower_bytes = total_bytes(overlapping(self.tables(1), &wider));
            let bytes = upper_bytes.saturating_add(table.bytes);
            // What is rewritten anyway is rewritten for as many tables as possible.
            let rewritten = total_bytes(overlapping(self.tables(1), &range));
            let lower_bytes_max = rewritten.max(self.merge_bytes);
            if bytes <= self.merge_bytes && lower_bytes <= lower_bytes_max {
                upper_bytes = bytes;
                slice.push(at);
            }
        }
        slice.sort_unstable();
        slice
    }

    /// Takes the tables down that hide most for what is rewritten, if all together may hide too
    /// much.
    pub(super) fn uncover_garbage(&self, garbage: Garbage) -> Option<Choice> {
        let total = self.all_tables().map(|table| u128::from(table.separate_bytes)).sum::<u128>();
        if u128::from(self.hidden_bytes()) <= self.options.hidden_max(total, garbage) {
            return None;
        }
        let mean = self.mean_record_bytes();
        let hides = |level: usize, at: usize| {
            if self.covers(level, at) { self.may_hide(level, at, mean) } else { 0 }
        };
        // The more go down together, the less is rewritten for each.
        let worth = |level: usize, at: usize| {
            let tables = self.tables(level);
            let group = self.with_older(level, at);
            let range = hull(group.iter().map(|&at| &tables[at]));
            let upper = group.iter().map(|&at| tables[at].bytes).fold(0, u64::saturating_add);
            let lower = total_bytes(overlapping(self.tables(level + 1), &range));
            let gain: u128 = group.iter().map(|&at| u128::from(hides(level, at))).sum();
            let is_bounded = group.len() == 1 || upper <= self.merge_bytes;
            is_bounded.then(|| gain * 1024 / u128::from(lower.saturating_add(upper).max(1)))
        };
        let hiding = || self.positions().filter(|&(level, at)| hides(level, at) > 0);
        let best = hiding()
            .filter_map(|(level, at)| Some((worth(level, at)?, Reverse((level, at)))))
            .max();
        // The oldest of level 0 that hides something brings along no other that does.
        let oldest = || hiding().take_while(|(level, _)| *level == 0).last();
        best.map(|(_, Reverse(place))| place)
            .or_else(oldest)
            .map(|(level, at)| self.lower(level, at))
    }

    /// A table and, in level 0, those that have to go down with it: what is older and overlaps.
    fn with_older(&self, level: usize, at: usize) -> Vec<usize> {
        let mut group = vec![at];
        if level == 0 {
            let tables = &self.levels[0].tables;
            for older in at + 1..tables.len() {
                if group.iter().any(|&newer| tables[newer].overlaps(&tables[older])) {
                    group.push(older);
                }
            }
        }
        group
    }

    /// How many bytes of log records the entries of a table may hide. Where nothing that they hide
    /// was seen, those may be of `mean` bytes, or as long as their own.
    fn may_hide(&self, level: usize, at: usize, mean: u64) -> u64 {
        let Candidate { separate_bytes, entries, hiding, .. } = self.levels[level].tables[at];
        hiding.bytes(entries, separate_bytes.max(entries.saturating_mul(mean)))
    }

    /// What tables over older ones may hide, in bytes of log records.
    pub(super) fn hidden_bytes(&self) -> u64 {
        let mean = self.mean_record_bytes();
        let hidden = self.positions().filter(|&(level, at)| self.covers(level, at));
        let bytes = hidden.map(|(level, at)| self.may_hide(level, at, mean));
        bytes.fold(0, u64::saturating_add)
    }

    /// What newer tables do not hide, in bytes of log records.
    pub(super) fn visible_bytes(&self) -> u64 {
        let mean = self.mean_record_bytes();
        let hidden = self.positions().filter(|&(level, at)| self.covers(level, at));
        let hidden = hidden.map(|(level, at)| {
            let Candidate { entries, tombstones, separate_bytes, hiding, .. } =
                self.levels[level].tables[at];
            // Most items are written again with the length that they had.
            let unseen = separate_bytes.saturating_add(tombstones.saturating_mul(mean));
            hiding.bytes(entries, unseen)
        });
        let hidden = hidden.fold(0, u64::saturating_add);
        // Of samples the shares are; rather too little is taken to live than too much.
        let hidden = hidden.saturating_add(hidden / UNCERTAIN_PART);
        let all = self.all_tables().map(|table| table.separate_bytes);
        all.fold(0, u64::saturating_add).saturating_sub(hidden)
    }

    pub(super) fn mean_record_bytes(&self) -> u64 {
        let sum = |of: fn(&Candidate<'_>) -> u64| self.all_tables().map(of).map(u128::from).sum();
        let bytes: u128 = sum(|table| table.separate_bytes);
        let items: u128 = sum(|table| table.entries.saturating_sub(table.tombstones));
        u64::try_from(bytes.div_ceil(items.max(1))).unwrap_or(u64::MAX)
    }

    /// Takes a table down of the deeper level that is fullest for its target, if any reached it.
    pub(super) fn shrink_fullest(&self) -> Option<Choice> {
        let last = usize::from(self.options.levels_max) - 1;
        let mut target = self.options.level_one_bytes;
        let mut fullest: Option<(usize, u64, u64)> = None;
        for level in 1..self.levels.len().min(last) {
            let have = total_bytes(self.tables(level));
            let is_fuller = fullest.is_none_or(|(_, best, of)| {
                u128::from(have) * u128::from(of) > u128::from(best) * u128::from(target)
            });
            if have >= target && is_fuller {
                fullest = Some((level, have, target));
            }
            target = target.saturating_mul(self.options.level_factor);
        }
        let (level, ..) = fullest?;
        let below = self.tables(level + 1);
        let rewritten = |at: &usize| {
            let table = &self.tables(level)[*at];
            let bytes = total_bytes(overlapping(below, table));
            u128::from(bytes) * 1024 / u128::from(table.bytes.max(1))
        };
        let cheapest = (0..self.tables(level).len()).min_by_key(rewritten);
        Some(self.lower(level, cheapest.expect("a level that reached its target has tables")))
    }

    /// Compacts a table that is mostly tombstones or expired entries.
    pub(super) fn drop_dead_weight(&self) -> Option<Choice> {
        self.positions().find_map(|(level, at)| {
            if !self.is_dead_weight(&self.levels[level].tables[at]) {
                None
            } else if self.covers(level, at) || level == 0 {
                Some(self.lower(level, at))
            } else if self.is_over_stub(level, at) {
                // What says that a key is gone stays over a stub.
                None
            } else {
                let inputs = vec![self.levels[level].tables[at].id];
                Some(Choice::Merge { inputs, to: level_number(level) })
            }
        })
    }

    fn is_dead_weight(&self, table: &Candidate<'_>) -> bool {
        let is_part = |part: u64, whole: u64| {
            part > 0 && u128::from(part) * u128::from(self.options.dead_part) > u128::from(whole)
        };
        let have_expired = table.expiry_last != 0 && table.expiry_last <= self.now;
        self.has_expired(table)
            || is_part(table.tombstones, table.entries)
            || (have_expired && is_part(table.expiring_bytes, table.separate_bytes))
    }

    fn has_expired(&self, table: &Candidate<'_>) -> bool {
        table.expiry_max != 0 && table.expiry_max <= self.now
    }

    /// Takes a table one level down: unread if it overlaps nothing, else merged.
    fn lower(&self, level: usize, at: usize) -> Choice {
        if self.can_move(level, at) {
            let table = self.levels[level].tables[at].id;
            return Choice::Move { table, to: level_number(level + 1) };
        }
        self.merge(level, &self.with_older(level, at))
    }

    /// Whether a table can go down unread: nothing older is in its range there or in its own level,
    /// and it would not overlap too much of what lies deeper.
    fn can_move(&self, level: usize, at: usize) -> bool {
        let table = &self.levels[level].tables[at];
        let stays_above =
            level == 0 && self.tables(0)[at + 1..].iter().any(|older| older.overlaps(table));
        let stubs = &self.levels[level].stubs;
        !stays_above
            && !stubs.iter().any(|stub| stub.overlaps(table))
            && overlapping(self.tables(level + 1), table).is_empty()
            && total_bytes(overlapping(self.tables(level + 2), table)) <= self.merge_bytes
    }

    /// The merge of tables of `level`, and of the stubs of the level that they overlap, with all
    /// that these overlap in the next.
    ///
    /// Outputs may span the gaps between the inputs, so everything within their hull counts.
    fn merge(&self, level: usize, upper: &[usize]) -> Choice {
        let upper = || upper.iter().map(|&at| &self.levels[level].tables[at]);
        let range = hull(upper());
        let stubs = || self.levels[level].stubs.iter().filter(|stub| stub.overlaps(&range));
        let lower = overlapping(self.tables(level + 1), &hull(upper().chain(stubs())));
        Choice::Merge {
            inputs: upper().chain(stubs()).chain(lower).map(|table| table.id).collect(),
            to: level_number(level + 1),
        }
    }

    /// Whether something older lies in the table's range.
    fn covers(&self, level: usize, at: usize) -> bool {
        let table = &self.levels[level].tables[at];
        let deeper = self.levels[level + 1..].iter();
        (level == 0 && self.tables(0)[at + 1..].iter().any(|older| older.overlaps(table)))
            || deeper.into_iter().any(|deeper| !overlapping(&deeper.tables, table).is_empty())
    }

    /// Whether keys of the table's range are lost in tables that are older.
    fn is_over_stub(&self, level: usize, at: usize) -> bool {
        let table = &self.levels[level].tables[at];
        self.levels[level..].iter().flat_map(|level| &level.stubs).any(|stub| stub.overlaps(table))
    }

    fn hides_nothing(&self, level: usize, at: usize) -> bool {
        !self.covers(level, at) && !self.is_over_stub(level, at)
    }

    fn tables(&self, level: usize) -> &'a [Candidate<'a>] {
        self.levels.get(level).map_or(&[], |level| &level.tables)
    }

    fn all_tables(&self) -> impl Iterator<Item = &'a Candidate<'a>> {
        self.levels.iter().flat_map(|level| &level.tables)
    }

    /// Where the tables are: (level, place in the level).
    fn positions(&self) -> impl Iterator<Item = (usize, usize)> {
        let levels = self.levels.iter().enumerate();
        levels.flat_map(|(level, of)| (0..of.tables.len()).map(move |at| (level, at)))
    }
}

fn total_bytes(tables: &[Candidate<'_>]) -> u64 {
    tables.iter().fold(0, |sum, table| sum.saturating_add(table.bytes))
}

fn level_number(level: usize) -> u8 {
    u8::try_from(level).expect("there are at most 255 levels")
}

/// The tables of a sorted run that overlap `range`.
fn overlapping<'a, 'k>(run: &'a [Candidate<'k>], range: &impl KeyRange) -> &'a [Candidate<'k>] {
    let start = run.partition_point(|table| table.largest() < range.smallest());
    let end = run.partition_point(|table| table.smallest() <= range.largest());
    &run[start..end.max(start)]
}

/// The smallest range that includes others.
fn hull<'a, 'k: 'a>(tables: impl IntoIterator<Item = &'a Candidate<'k>>) -> Candidate<'k> {
    let mut tables = tables.into_iter();
    let first = tables.next().expect("a merge has inputs");
    tables.fold(*first, |range, table| Candidate {
        smallest: range.smallest.min(table.smallest),
        largest: range.largest.max(table.largest),
        ..range
    })
}
