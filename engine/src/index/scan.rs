//! A part of the keys in order, as they were at one moment: the newest entry of each.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::Index;
use super::look_up::not_read;
use super::memtable::Memtable;
use super::table::{BlockCache, EntryBuf, Table, TableError, TableWalk};
use super::tables::Tables;
use crate::concurrent::concurrently;
use crate::entry::Entry;
use crate::error::EngineError;
use crate::range_tombstones::RangeTombstones;

/// Entries of memtables that one scan copies at most. A scan that meets the last of them ends
/// there: the memtable may have changed behind it.
const COPIES_MAX: usize = 1024;

/// Blocks of tables that one scan passes over at most because they cannot be read: each costs a
/// request to the device, or several.
const PASSED_MAX: usize = 64;

/// The keys of a scan, encoded, and its direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// The least key.
    pub start: Vec<u8>,
    /// The key that all are below, if there is one.
    pub end: Option<Vec<u8>>,
    /// Whether the greatest comes first.
    pub is_reverse: bool,
    /// Whether keys that may be lost are left out. Otherwise the scan fails where they begin.
    pub passes_lost: bool,
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
    /// A block could not be read, and what is behind it was not looked at.
    is_broken: bool,
}

/// What a scan comes to next.
#[derive(Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The encoded key.
    pub key: Vec<u8>,
    /// Its newest entry, which may be a tombstone; one as well if the key is left out.
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
    /// In no order: there are few.
    holes: Vec<Hole>,
    ranges: Rc<RangeTombstones>,
    has_begun: bool,
    /// Blocks that were passed over.
    passed: usize,
    has_left_out: bool,
}

/// Keys that may be lost, with a stub or in a block that cannot be read.
struct Hole {
    first: Vec<u8>,
    /// The key that all are below.
    end: Vec<u8>,
    error: TableError,
}

impl Hole {
    fn contains(&self, key: &[u8]) -> bool {
        self.first.as_slice() <= key && key < self.end.as_slice()
    }
}

impl<E: Env> Index<E> {
    /// A scan of the present. Reads are charged to `class`.
    pub fn scan(&self, range: ScanRange, class: IoClass) -> IndexScan<E> {
        let contents = self.contents.borrow();
        let memtables = [Some(&contents.active), contents.frozen.as_ref().map(|f| &f.memtable)];
        let memtables = memtables.into_iter().flatten();
        IndexScan::new(memtables, &contents.tables, &contents.ranges, range, class)
    }

    /// The next entry of `scan`; `None` after the last, or where what was copied of the memtables
    /// ends: [`IndexScan::cut_at`] says so.
    ///
    /// # Errors
    ///
    /// As for [`Index::in_tables`]; keys from the last one on may be lost then, and no others are
    /// asked for.
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
        Self { tables: tables.into_iter(), walk: None, is_broken: false }
    }

    /// Goes to the run's next entry, or behind the last one. Says what is lost on the way there;
    /// after `passes_max` such blocks, or the first one where none is passed over, the run ends.
    async fn advance(
        &mut self,
        range: &ScanRange,
        blocks: &BlockCache,
        class: IoClass,
        passes_max: usize,
    ) -> Vec<Hole> {
        let (start, end) = (range.start.as_slice(), range.end.as_deref());
        let mut lost = Vec::new();
        while !self.is_broken {
            if let Some(walk) = &mut self.walk {
                match walk.advance(start, end, blocks, class).await {
                    Ok(true) => return lost,
                    Ok(false) => {}
                    Err(error) => {
                        let (first, end) = walk.block_keys();
                        lost.push(Hole { first, end, error });
                        self.is_broken = !range.passes_lost || lost.len() > passes_max;
                        continue;
                    }
                }
            }
            let Some(table) = self.tables.next() else { break };
            self.walk = Some(TableWalk::new(table, start, end, range.is_reverse));
        }
        self.walk = None;
        lost
    }
}

/// The keys of the range that stubs may have lost.
fn holes<E: Env>(tables: &Tables<E>, range: &ScanRange, ranges: &RangeTombstones) -> Vec<Hole> {
    let of_range = |stub: &Rc<Table<E>>| {
        let (first, last) = stub.key_range();
        let is_within =
            last >= range.start.as_slice() && range.end.as_deref().is_none_or(|end| first < end);
        let is_deleted = || ranges.cover(first, last, stub.meta().deleted_until);
        (is_within && !is_deleted()).then(|| Hole {
            first: first.to_vec(),
            end: [last, &[0]].concat(),
            error: stub.lost(),
        })
    };
    tables.stubs().filter_map(of_range).collect()
}

impl<E: Env> IndexScan<E> {
    /// A scan of memtables, the newest first, and tables.
    pub(super) fn new<'a>(
        memtables: impl Iterator<Item = &'a Memtable>,
        tables: &Tables<E>,
        ranges: &Rc<RangeTombstones>,
        range: ScanRange,
        class: IoClass,
    ) -> Self {
        Self {
            copies: Copies::new(memtables, &range, ranges),
            runs: tables.runs().map(|run| Run::new(run, &range)).collect(),
            holes: holes(tables, &range, ranges),
            ranges: Rc::clone(ranges),
            range,
            class,
            has_begun: false,
            passed: 0,
            has_left_out: false,
        }
    }

    /// Where the scan ends although more may follow: the last key that it could vouch for.
    pub fn cut_at(&self) -> Option<&[u8]> {
        self.copies.cut_at.as_deref()
    }

    /// Whether keys were left out that may be lost.
    pub fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    async fn next(&mut self, blocks: &BlockCache) -> Result<Option<Scanned>, EngineError> {
        if !self.has_begun {
            self.has_begun = true;
            self.begin(blocks).await;
        }
        let next = self.first();
        if self.is_behind_cut(next.as_deref()) {
            return Ok(None);
        }
        let is_left_out = self.meets_hole(next.as_deref())?;
        let Some(key) = next else { return Ok(None) };
        let mut scanned = self.take(key, blocks).await;
        if is_left_out {
            scanned.entry = EntryBuf::new(&Entry::tombstone(0));
        }
        Ok(Some(scanned))
    }

    /// Goes to the first entries of all runs, which are read at the same time.
    async fn begin(&mut self, blocks: &BlockCache) {
        self.copies.current = self.copies.entries.next();
        let (range, class) = (&self.range, self.class);
        let limit = self.runs.len();
        let beginnings =
            self.runs.iter_mut().map(|run| run.advance(range, blocks, class, PASSED_MAX));
        for lost in concurrently(limit, beginnings).await {
            self.passed += lost.len();
            self.holes.extend(lost);
        }
    }

    /// The key that comes next.
    fn first(&self) -> Option<Vec<u8>> {
        let copied = self.copies.current.as_ref().map(|copied| copied.key.as_slice());
        let walked = self.runs.iter().filter_map(|run| Some(run.walk.as_ref()?.key()));
        let before = |left, right| if self.range.is_before(right, left) { right } else { left };
        copied.into_iter().chain(walked).reduce(before).map(<[u8]>::to_vec)
    }

    /// Whether the next key is behind the last one that the scan can vouch for.
    fn is_behind_cut(&self, next: Option<&[u8]>) -> bool {
        let is_behind = |cut_at| next.is_none_or(|next| self.range.is_before(cut_at, next));
        self.cut_at().is_some_and(|cut_at| self.copies.current.is_none() && is_behind(cut_at))
    }

    /// Takes the newest entry of `key`, and goes past all of it.
    async fn take(&mut self, key: Vec<u8>, blocks: &BlockCache) -> Scanned {
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
            let passes_max = PASSED_MAX.saturating_sub(self.passed);
            let lost = run.advance(&self.range, blocks, self.class, passes_max).await;
            self.passed += lost.len();
            self.holes.extend(lost);
        }
        let (entry, sequence_end) = newest.expect("the key came from somewhere");
        Scanned { key, entry, sequence_end }
    }

    /// Whether the next key is to be left out, because it may be lost.
    ///
    /// # Errors
    ///
    /// Keys up to the next one may be lost, and are not to be left out.
    fn meets_hole(&mut self, next: Option<&[u8]>) -> Result<bool, EngineError> {
        if self.holes.is_empty() {
            return Ok(false);
        }
        let is_reverse = self.range.is_reverse;
        let begins = |hole: &&Hole| match next {
            None => true,
            Some(next) if is_reverse => next < hole.end.as_slice(),
            Some(next) => next >= hole.first.as_slice(),
        };
        let Some(hole) = self.holes.iter().find(begins) else { return Ok(false) };
        let goes_on = self.range.passes_lost && !self.runs.iter().any(|run| run.is_broken);
        if !goes_on {
            return Err(not_read(next.unwrap_or(&hole.first), &hole.error));
        }
        self.has_left_out = true;
        Ok(next.is_some_and(|next| self.holes.iter().any(|hole| hole.contains(next))))
    }
}
