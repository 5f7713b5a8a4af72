//! The index as it was at one moment, for as long as somebody holds it.
//!
//! A snapshot has nothing that still changes: the memtable was frozen when it was taken, and tables
//! never change. When that memtable has become tables the snapshot has those instead, so that it
//! keeps no memory.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use larder_runtime::env::{Env, IoClass};

use super::scan::{IndexScan, ScanRange};
use super::table::Table;
use super::tables::Tables;
use super::{Frozen, Index};
use crate::range_tombstones::RangeTombstones;

/// The index as it was at one moment.
pub struct IndexSnapshot<E: Env> {
    parts: RefCell<Parts<E>>,
    ranges: Rc<RangeTombstones>,
}

struct Parts<E: Env> {
    frozen: Option<Rc<Frozen>>,
    tables: Rc<Tables<E>>,
}

/// The snapshots that somebody holds.
pub(super) struct Snapshots<E: Env> {
    held: RefCell<Vec<Weak<IndexSnapshot<E>>>>,
}

impl<E: Env> Default for Snapshots<E> {
    fn default() -> Self {
        Self { held: RefCell::default() }
    }
}

impl<E: Env> Snapshots<E> {
    fn add(&self, snapshot: &Rc<IndexSnapshot<E>>) {
        let mut held = self.held.borrow_mut();
        held.retain(|snapshot| snapshot.strong_count() > 0);
        held.push(Rc::downgrade(snapshot));
    }

    /// Told that the frozen memtable has become these tables.
    pub(super) fn flushed(&self, tables: &[Rc<Table<E>>]) {
        for snapshot in self.held.borrow().iter().filter_map(Weak::upgrade) {
            let mut parts = snapshot.parts.borrow_mut();
            if parts.frozen.take().is_none() {
                continue;
            }
            let mut with = (*parts.tables).clone();
            for table in tables {
                with.add(0, Rc::clone(table));
            }
            parts.tables = Rc::new(with);
        }
    }
}

impl<E: Env> IndexSnapshot<E> {
    /// Whether it has the table with this id.
    pub fn has(&self, table: u64) -> bool {
        self.parts.borrow().tables.find(table).is_some()
    }
}

impl<E: Env> Index<E> {
    /// The index as it is now; `None` if there are changes in a memtable that may change further.
    pub fn snapshot(&self) -> Option<Rc<IndexSnapshot<E>>> {
        let contents = self.contents.borrow();
        if !contents.active.is_empty() {
            return None;
        }
        let parts = Parts { frozen: contents.frozen.clone(), tables: Rc::clone(&contents.tables) };
        let ranges = Rc::clone(&contents.ranges);
        let snapshot = Rc::new(IndexSnapshot { parts: RefCell::new(parts), ranges });
        self.snapshots.add(&snapshot);
        Some(snapshot)
    }

    /// A scan of the moment of `snapshot`. Reads are charged to `class`.
    pub fn scan_snapshot(
        &self,
        snapshot: &IndexSnapshot<E>,
        range: ScanRange,
        class: IoClass,
    ) -> IndexScan<E> {
        let parts = snapshot.parts.borrow();
        let memtables = parts.frozen.iter().map(|frozen| &frozen.memtable);
        IndexScan::new(memtables, &parts.tables, &snapshot.ranges, range, class)
    }

    /// Bytes of files that the manifest does not name any more and `snapshot` has.
    pub fn bytes_held_by(&self, snapshot: &IndexSnapshot<E>) -> u64 {
        let is_held = |table: &&Rc<Table<E>>| snapshot.has(table.meta().id);
        let retired = self.retired.borrow();
        retired.iter().filter(is_held).map(|table| table.meta().file_bytes).sum()
    }
}
