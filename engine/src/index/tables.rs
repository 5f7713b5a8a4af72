//! The tables of an index at one moment.

use std::rc::Rc;

use larder_runtime::env::Env;

use super::Living;
use super::compaction::picker::{Candidate, Level as LevelView};
use super::compaction::sorted_runs;
use super::table::{Table, TableMeta};
use crate::generations::generation_of;

/// A level's tables and stubs.
struct Level<E: Env> {
    /// In level 0 the newest first, below in key order without overlap.
    tables: Vec<Rc<Table<E>>>,
    /// What says which keys are lost; older than the level's tables.
    stubs: Vec<Rc<Table<E>>>,
}

/// The tables by level.
///
/// A snapshot is shared by the look-ups that began with it; changes make a new one.
pub(super) struct Tables<E: Env> {
    levels: Vec<Level<E>>,
    /// The tables of level 0 as sorted runs, the newest first, so that a look-up visits at most
    /// one table of each.
    level_zero_runs: Vec<Vec<Rc<Table<E>>>>,
}

/// A table that a look-up visits.
pub(super) enum Visit<'a, E: Env> {
    /// It may have an entry of the key.
    Table(&'a Rc<Table<E>>),
    /// It may have had one that is lost.
    Stub(&'a Rc<Table<E>>),
}

/// What all tables come to.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) tables: u64,
    pub(super) stubs: u64,
    pub(super) entries: u64,
    /// Bytes of their files.
    pub(super) file_bytes: u64,
}

impl<E: Env> Clone for Level<E> {
    fn clone(&self) -> Self {
        Self { tables: self.tables.clone(), stubs: self.stubs.clone() }
    }
}

impl<E: Env> Clone for Tables<E> {
    fn clone(&self) -> Self {
        Self { levels: self.levels.clone(), level_zero_runs: self.level_zero_runs.clone() }
    }
}

impl<E: Env> Default for Tables<E> {
    fn default() -> Self {
        Self { levels: Vec::new(), level_zero_runs: Vec::new() }
    }
}

impl<E: Env> Tables<E> {
    /// Puts `table` into `level`, as its newest.
    pub(super) fn add(&mut self, level: u8, table: Rc<Table<E>>) {
        let level = usize::from(level);
        while self.levels.len() <= level {
            self.levels.push(Level { tables: Vec::new(), stubs: Vec::new() });
        }
        let Level { tables, stubs } = &mut self.levels[level];
        if table.meta().is_stub() {
            stubs.push(table);
        } else if level == 0 {
            tables.insert(0, table);
            self.level_zero_runs = sorted_runs(self.levels[0].tables.iter().cloned());
        } else {
            let at = tables.partition_point(|other| other.meta().smallest < table.meta().smallest);
            tables.insert(at, table);
        }
    }

    /// All tables.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Rc<Table<E>>> {
        self.levels.iter().flat_map(|level| &level.tables)
    }

    /// The tables in whose range `key` is, in the order of [`Self::visits`].
    pub(super) fn holding<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Rc<Table<E>>> {
        self.visits(key).filter_map(|visit| match visit {
            Visit::Table(table) => Some(table),
            Visit::Stub(_) => None,
        })
    }

    /// Those of them in levels below `level`.
    pub(super) fn holding_below<'a>(
        &'a self,
        level: u8,
        key: &'a [u8],
    ) -> impl Iterator<Item = &'a Rc<Table<E>>> {
        let below = self.levels.iter().skip(usize::from(level) + 1);
        below.filter_map(move |level| holding(&level.tables, key))
    }

    /// Takes the table or stub with this id out.
    pub(super) fn remove(&mut self, id: u64) -> Option<Rc<Table<E>>> {
        for (number, level) in self.levels.iter_mut().enumerate() {
            let position = |tables: &[Rc<Table<E>>]| tables.iter().position(|t| t.meta().id == id);
            if let Some(at) = position(&level.stubs) {
                return Some(level.stubs.remove(at));
            }
            if let Some(at) = position(&level.tables) {
                let table = level.tables.remove(at);
                if number == 0 {
                    self.level_zero_runs = sorted_runs(level.tables.iter().cloned());
                }
                return Some(table);
            }
        }
        None
    }

    /// The table or stub with this id.
    pub(super) fn find(&self, id: u64) -> Option<&Rc<Table<E>>> {
        self.all().find(|table| table.meta().id == id)
    }

    /// All tables and stubs.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Table<E>>> {
        self.levels.iter().flat_map(|level| level.tables.iter().chain(&level.stubs))
    }

    /// What a look-up of `key` visits, newest first.
    pub(super) fn visits<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = Visit<'a, E>> {
        let newest = self.level_zero_runs.iter().filter_map(|run| holding(run, key));
        let stubs = |level: &'a Level<E>| level.stubs.iter().map(Visit::Stub);
        let level_zero_stubs = self.levels.first().into_iter().flat_map(stubs);
        let deeper = self.levels.iter().skip(1).flat_map(move |level| {
            holding(&level.tables, key).map(Visit::Table).into_iter().chain(stubs(level))
        });
        newest.map(Visit::Table).chain(level_zero_stubs).chain(deeper)
    }

    /// The tables as sorted runs, from new to old.
    pub(super) fn runs(&self) -> impl Iterator<Item = &[Rc<Table<E>>]> {
        let deeper = self.levels.iter().skip(1).map(|level| level.tables.as_slice());
        self.level_zero_runs.iter().map(Vec::as_slice).chain(deeper)
    }

    /// What says which keys are lost, each with how many of [`Self::runs`] are newer.
    pub(super) fn stubs(&self) -> impl Iterator<Item = (usize, &Rc<Table<E>>)> {
        let newest = self.level_zero_runs.len();
        let levels = self.levels.iter().enumerate();
        levels.flat_map(move |(number, level)| {
            level.stubs.iter().map(move |stub| (newest + number, stub))
        })
    }

    /// The tables of `level`, in key order if it is not level 0.
    pub(super) fn level(&self, level: usize) -> &[Rc<Table<E>>] {
        self.levels.get(level).map_or(&[], |level| &level.tables)
    }

    /// What a merge of `inputs` into `to` leaves behind that is older than its outputs: the tables
    /// of deeper levels, and the stubs of `to` and of deeper levels.
    pub(super) fn older_than_merge(&self, to: u8, inputs: &[u64]) -> Vec<Rc<Table<E>>> {
        let to = usize::from(to);
        let tables = self.levels.iter().skip(to + 1).flat_map(|level| &level.tables);
        let stubs = self.levels.iter().skip(to).flat_map(|level| &level.stubs);
        let is_input = |table: &&Rc<Table<E>>| inputs.contains(&table.meta().id);
        tables.chain(stubs).filter(|table| !is_input(table)).cloned().collect()
    }

    /// The lowest id above `id` of a table that is no stub, of any if there is no id.
    pub(super) fn after(&self, id: Option<u64>) -> Option<u64> {
        let tables = self.levels.iter().flat_map(|level| &level.tables);
        let ids = tables.map(|table| table.meta().id);
        ids.filter(|found| id.is_none_or(|id| *found > id)).min()
    }

    /// What is known of every table.
    pub(super) fn metas(&self) -> impl Iterator<Item = &TableMeta> {
        self.all().map(|table| table.meta())
    }

    /// What the compaction picker looks at.
    pub(super) fn view(&self, living: &Living) -> Vec<LevelView<'_>> {
        let levels = self.levels.iter().map(|level| LevelView {
            tables: level.tables.iter().map(|table| candidate(table, living)).collect(),
            stubs: level.stubs.iter().map(|stub| candidate(stub, living)).collect(),
        });
        levels.collect()
    }

    /// Bytes of memory that the tables take.
    pub(super) fn memory_bytes(&self) -> usize {
        self.all().map(|table| table.memory_bytes()).sum()
    }

    /// What the tables come to.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for table in self.all() {
            let TableMeta { entries, file_bytes, .. } = table.meta();
            totals.tables += u64::from(!table.meta().is_stub());
            totals.stubs += u64::from(table.meta().is_stub());
            totals.entries += if table.meta().is_stub() { 0 } else { *entries };
            totals.file_bytes += file_bytes;
        }
        totals
    }
}

/// The only table of a sorted run that may hold `key`.
fn holding<'a, E: Env>(run: &'a [Rc<Table<E>>], key: &[u8]) -> Option<&'a Rc<Table<E>>> {
    let at = run.partition_point(|table| table.meta().largest.as_slice() < key);
    run.get(at).filter(|table| table.meta().smallest.as_slice() <= key)
}

fn candidate<'a, E: Env>(table: &'a Table<E>, living: &Living) -> Candidate<'a> {
    let meta = table.meta();
    let (smallest, largest) = table.key_range();
    let first = generation_of(&meta.smallest);
    let is_one_generation = first == generation_of(&meta.largest);
    Candidate {
        id: meta.id,
        bytes: meta.file_bytes,
        smallest,
        largest,
        entries: meta.entries,
        tombstones: meta.tombstones,
        separate_bytes: meta.separate_bytes,
        expiring_bytes: meta.expiring_bytes,
        expiry_max: meta.expiry_max,
        expiry_last: meta.expiry_last,
        hiding: table.hiding(),
        is_dead: (is_one_generation && !living.generations.is_alive(first))
            || living.ranges.cover(smallest, largest, meta.deleted_until),
        is_damaged: table.is_damaged(),
    }
}
