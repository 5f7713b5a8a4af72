//! The SSTables of a shard at one moment.

use std::rc::Rc;

use larder_runtime::env::Env;

use super::compaction::picker::Candidate;
use super::table::{Table, TableMeta};

/// The tables by level: in level 0 the newest first, below in key order without overlap.
///
/// A snapshot is shared by the operations that began with it; changes make a new one.
pub(super) struct Tables<E: Env> {
    levels: Vec<Vec<Rc<Table<E>>>>,
}

/// What all tables come to.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) tables: u64,
    pub(super) entries: u64,
    /// Bytes of their files.
    pub(super) file_bytes: u64,
    /// Bytes that their indexes and filters keep in memory.
    pub(super) memory_bytes: u64,
}

impl<E: Env> Clone for Tables<E> {
    fn clone(&self) -> Self {
        Self { levels: self.levels.clone() }
    }
}

impl<E: Env> Default for Tables<E> {
    fn default() -> Self {
        Self { levels: Vec::new() }
    }
}

impl<E: Env> Tables<E> {
    /// These tables and `table` in `level`, as its newest.
    pub(super) fn add(&mut self, level: u8, table: Rc<Table<E>>) {
        let level = usize::from(level);
        while self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        let tables = &mut self.levels[level];
        if level == 0 {
            tables.insert(0, table);
        } else {
            let at = tables.partition_point(|other| other.meta().smallest < table.meta().smallest);
            tables.insert(at, table);
        }
    }

    /// Takes the table with this id out.
    pub(super) fn remove(&mut self, id: u64) -> Option<Rc<Table<E>>> {
        for level in &mut self.levels {
            if let Some(at) = level.iter().position(|table| table.meta().id == id) {
                return Some(level.remove(at));
            }
        }
        None
    }

    /// The table with this id.
    pub(super) fn find(&self, id: u64) -> Option<&Rc<Table<E>>> {
        self.levels.iter().flatten().find(|table| table.meta().id == id)
    }

    /// The tables that may hold `key`, newest first.
    pub(super) fn holding<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Rc<Table<E>>> {
        let (newest, below) = match self.levels.split_first() {
            Some((newest, below)) => (newest.as_slice(), below),
            None => (&[][..], &[][..]),
        };
        let in_range = move |table: &&Rc<Table<E>>| {
            table.meta().smallest.as_slice() <= key && key <= table.meta().largest.as_slice()
        };
        let sorted = below.iter().filter_map(move |level| {
            let at = level.partition_point(|table| table.meta().largest.as_slice() < key);
            level.get(at).filter(in_range)
        });
        newest.iter().filter(in_range).chain(sorted)
    }

    /// What is known of every table.
    pub(super) fn metas(&self) -> impl Iterator<Item = &TableMeta> {
        self.levels.iter().flatten().map(|table| table.meta())
    }

    /// What the compaction picker looks at.
    pub(super) fn candidates(&self) -> Vec<Vec<Candidate>> {
        let candidate = |table: &Rc<Table<E>>| {
            let meta = table.meta();
            Candidate {
                id: meta.id,
                bytes: meta.file_bytes,
                smallest: meta.smallest.clone(),
                largest: meta.largest.clone(),
            }
        };
        self.levels.iter().map(|level| level.iter().map(candidate).collect()).collect()
    }

    /// What the tables come to.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for table in self.levels.iter().flatten() {
            totals.tables += 1;
            totals.entries += table.meta().entries;
            totals.file_bytes += table.meta().file_bytes;
            totals.memory_bytes += table.memory_bytes() as u64;
        }
        totals
    }
}
