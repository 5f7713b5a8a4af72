//! A part of the keys in order, as they were at one moment: the newest entry of each.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::Index;
use super::look_up::not_read;
use super::memtable::Memtable;
use super::table::{BlockCache, EntryBuf, Table, TableError, TableWalk};
use super::tables::Tables;
use crate::entry::Entry;
use crate::error::EngineError;
use crate::range_tombstones::RangeTombstones;

/// Entries of memtables that one scan copies at most. A scan that meets the last of them ends
/// there: the memtable may have changed behind it.
const COPIES_MAX: usize = 1024;

/// The keys of a scan, encoded, and its direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// The least key.
    pub start: Vec<u8>,
    /// The key that all are below, if there is one.
    pub end: Option<Vec<u8>>,
    /// Whether the greatest comes first.
    pub is_reverse: bool,
}

impl ScanRange {
    /// Whether `left` comes before `right`.
    fn is_before(&self, left: &[u8], right: &[u8]) -> bool {
        if self.is_reverse { left > right } else { left < right }
    }
}

/// An entry of a memtable, copied.
struct Copied {
    key: Vec<u8>,
    entry: EntryBuf,
    sequence_end: u64,
}

/// What the memtables had of the range: the newest entry of each key, in the scan's order.
struct Copies {
    entries: std::vec::IntoIter<Copied>,
    current: Option<Copied>,
    /// The last key that was copied, if there are more behind it.
    cut_at: Option<Vec<u8>>,
}

/// A sorted run of tables.
struct Run<E: Env> {
    /// Those that were not begun, in the scan's order.
    tables: std::vec::IntoIter<Rc<Table<E>>>,
    walk: Option<TableWalk<E>>,
}

/// What a scan comes to next.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The encoded key.
    pub key: Vec<u8>,
    /// Its newest entry, which may be a tombstone.
    pub entry: EntryBuf,
    /// The log position that covers it; 0 if it is long durable.
    pub sequence_end: u64,
}

/// The entries of a range as they were when the scan began.
///
/// Values in the log are only there for as long as the caller keeps what it pinned before.
pub struct IndexScan<E: Env> {
    range: ScanRange,
    class: IoClass,
    copies: Copies,
    /// From new to old.
    runs: Vec<Run<E>>,
    holes: Vec<Hole<E>>,
    ranges: Rc<RangeTombstones>,
    has_begun: bool,
}

/// Keys that a stub may have lost.
struct Hole<E: Env> {
    first: Vec<u8>,
    last: Vec<u8>,
    stub: Rc<Table<E>>,
}

impl<E: Env> Index<E> {
    /// A scan of the present. Reads are charged to `class`.
    pub fn scan(&self, range: ScanRange, class: IoClass) -> IndexScan<E> {
        let contents = self.contents.borrow();
        let memtables = [Some(&contents.active), contents.frozen.as_ref().map(|f| &f.memtable)];
        let ranges = Rc::clone(&contents.ranges);
        let copies = Copies::new(memtables.into_iter().flatten(), &range, &ranges);
        let runs = contents.tables.runs().map(|run| Run::new(run, &range)).collect();
        let holes = holes(&contents.tables, &range, &ranges);
        IndexScan { range, class, copies, runs, holes, ranges, has_begun: false }
    }

    /// The next entry of `scan`; `None` after the last, or where what was copied of the memtables
    /// ends: [`IndexScan::cut_at`] says so.
    ///
    /// # Errors
    ///
    /// As for [`Index::in_tables`]; the range, and not only a key, has lost something then.
    pub async fn next_scanned(
        &self,
        scan: &mut IndexScan<E>,
    ) -> Result<Option<Scanned>, EngineError> {
        scan.next(&self.blocks).await
    }
}

impl Copies {
    fn new<'a>(
        memtables: impl Iterator<Item = &'a Memtable>,
        range: &ScanRange,
        ranges: &RangeTombstones,
    ) -> Self {
        let (end, is_reverse) = (range.end.as_deref(), range.is_reverse);
        let mut rows: Vec<_> =
            memtables.map(|m| m.range(&range.start, end, is_reverse).peekable()).collect();
        let mut entries: Vec<Copied> = Vec::new();
        loop {
            // Of equal keys the first is the newest.
            let mut first: Option<&[u8]> = None;
            let mut newest = 0;
            for (number, row) in rows.iter_mut().enumerate() {
                let Some((key, _)) = row.peek() else { continue };
                if first.is_none_or(|first| range.is_before(key, first)) {
                    (first, newest) = (Some(*key), number);
                }
            }
            let Some(key) = first else {
                return Self { entries: entries.into_iter(), current: None, cut_at: None };
            };
            if entries.len() == COPIES_MAX {
                let cut_at = entries.last().map(|last| last.key.clone());
                return Self { entries: entries.into_iter(), current: None, cut_at };
            }
            let (_, found) = rows[newest].next().expect("it was seen just now");
            let (entry, sequence_end) = match ranges.newest(key).filter(|at| *at > found.sequence) {
                Some(at) => (EntryBuf::new(&Entry::tombstone(at)), at + 1),
                None => (EntryBuf::new(&found.entry), found.sequence + 1),
            };
            entries.push(Copied { key: key.to_vec(), entry, sequence_end });
            for row in &mut rows {
                row.next_if(|(other, _)| *other == key);
            }
        }
    }
}

impl<E: Env> Run<E> {
    fn new(run: &[Rc<Table<E>>], range: &ScanRange) -> Self {
        let overlaps = |table: &&Rc<Table<E>>| {
            let meta = table.meta();
            meta.largest >= range.start && range.end.as_ref().is_none_or(|end| meta.smallest < *end)
        };
        let mut tables: Vec<_> = run.iter().filter(overlaps).cloned().collect();
        if range.is_reverse {
            tables.reverse();
        }
        Self { tables: tables.into_iter(), walk: None }
    }

    /// Goes to the run's next entry; false after the last.
    async fn advance(
        &mut self,
        range: &ScanRange,
        blocks: &BlockCache,
        class: IoClass,
    ) -> Result<bool, TableError> {
        let (start, end) = (range.start.as_slice(), range.end.as_deref());
        loop {
            if let Some(walk) = &mut self.walk
                && walk.advance(start, end, blocks, class).await?
            {
                return Ok(true);
            }
            let Some(table) = self.tables.next() else {
                self.walk = None;
                return Ok(false);
            };
            self.walk = Some(TableWalk::new(table, start, end, range.is_reverse));
        }
    }
}

/// The keys of the range that stubs may have lost, in the scan's order.
fn holes<E: Env>(tables: &Tables<E>, range: &ScanRange, ranges: &RangeTombstones) -> Vec<Hole<E>> {
    let of_range = |stub: &Rc<Table<E>>| {
        let (first, last) = stub.key_range();
        let is_within =
            last >= range.start.as_slice() && range.end.as_deref().is_none_or(|end| first < end);
        let is_deleted = || ranges.cover(first, last, stub.meta().deleted_until);
        (is_within && !is_deleted()).then(|| Hole {
            first: first.to_vec(),
            last: last.to_vec(),
            stub: Rc::clone(stub),
        })
    };
    let mut holes: Vec<_> = tables.stubs().filter_map(of_range).collect();
    if range.is_reverse {
        holes.sort_by(|left, right| right.last.cmp(&left.last));
    } else {
        holes.sort_by(|left, right| left.first.cmp(&right.first));
    }
    holes
}

impl<E: Env> IndexScan<E> {
    /// Where the scan ends although more may follow: the last key that it could vouch for.
    pub fn cut_at(&self) -> Option<&[u8]> {
        self.copies.cut_at.as_deref()
    }

    async fn next(&mut self, blocks: &BlockCache) -> Result<Option<Scanned>, EngineError> {
        if !self.has_begun {
            self.has_begun = true;
            self.copies.current = self.copies.entries.next();
            for run in &mut self.runs {
                let moved = run.advance(&self.range, blocks, self.class).await;
                moved.map_err(|error| not_read(&self.range.start, &error))?;
            }
        }
        let next = self.first();
        self.check_holes(next.as_deref())?;
        let Some(key) = next else { return Ok(None) };
        if self.is_behind_cut(&key) {
            return Ok(None);
        }
        self.take(key, blocks).await.map(Some)
    }

    /// The key that comes next.
    fn first(&self) -> Option<Vec<u8>> {
        let copied = self.copies.current.as_ref().map(|copied| copied.key.as_slice());
        let walked = self.runs.iter().filter_map(|run| Some(run.walk.as_ref()?.key()));
        let before = |left, right| if self.range.is_before(right, left) { right } else { left };
        copied.into_iter().chain(walked).reduce(before).map(<[u8]>::to_vec)
    }

    fn is_behind_cut(&self, key: &[u8]) -> bool {
        self.cut_at().is_some_and(|cut_at| self.range.is_before(cut_at, key))
    }

    /// Takes the newest entry of `key`, and goes past all of it.
    async fn take(&mut self, key: Vec<u8>, blocks: &BlockCache) -> Result<Scanned, EngineError> {
        let (mut newest, deleted_at) = (None, self.ranges.newest(&key));
        if let Some(copied) = self.copies.current.take_if(|copied| copied.key == key) {
            newest = Some((copied.entry, copied.sequence_end));
            self.copies.current = self.copies.entries.next();
        }
        for run in &mut self.runs {
            let Some(walk) = run.walk.as_ref().filter(|walk| walk.key() == key) else { continue };
            if newest.is_none() {
                let from = walk.table().meta().deleted_until;
                newest = Some(match deleted_at.filter(|at| *at >= from) {
                    Some(at) => (EntryBuf::new(&Entry::tombstone(at)), at + 1),
                    None => (EntryBuf::new(&walk.entry()), 0),
                });
            }
            let moved = run.advance(&self.range, blocks, self.class).await;
            moved.map_err(|error| not_read(&key, &error))?;
        }
        let (entry, sequence_end) = newest.expect("the key came from somewhere");
        Ok(Scanned { key, entry, sequence_end })
    }

    /// Fails if keys up to the next one may be lost.
    fn check_holes(&self, next: Option<&[u8]>) -> Result<(), EngineError> {
        let begins = |hole: &Hole<E>| {
            let edge = if self.range.is_reverse { &hole.last } else { &hole.first };
            next.is_none_or(|next| !self.range.is_before(next, edge))
        };
        match self.holes.first() {
            Some(hole) if begins(hole) => Err(not_read(&hole.first, &hole.stub.lost())),
            _ => Ok(()),
        }
    }
}
