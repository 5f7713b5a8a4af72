//! A part of the keys in order, as they were at one moment: the newest entry of each.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::Index;
use super::look_up::not_read;
use super::memtable::Memtable;
use super::table::{BlockCache, EntryBuf, READ_AHEAD_BYTES, Table, TableError, TableWalk};
use super::tables::Tables;
use crate::concurrent::concurrently;
use crate::entry::Entry;
use crate::error::EngineError;
use crate::range_tombstones::RangeTombstones;

/// Entries of memtables that one scan copies at most. A scan that meets the last of them ends
/// there: the memtable may have changed behind it.
const COPIES_MAX: usize = 1024;

/// Blocks of tables that one scan passes over at most because they cannot be read: each costs a
/// request to the device, or several. A scan that meets more ends there.
const PASSED_MAX: usize = 64;

/// About what an entry takes in a table, in bytes.
const ENTRY_BYTES: usize = 32;

/// What the first read of a run may bring, in bytes, however many entries are expected: it takes
/// a device little longer than one block.
const FIRST_READ_BYTES_MAX: usize = READ_AHEAD_BYTES / 4;

/// The keys of a scan, encoded, and its direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// The least key.
    pub start: Vec<u8>,
    /// The key that all are below, if there is one.
    pub end: Option<Vec<u8>>,
    /// Whether the greatest comes first.
    pub is_reverse: bool,
    /// Whether keys that may be lost are left out, but for those of which there is something newer.
    /// Otherwise the scan fails where they begin.
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
    /// How many other sources of entries are newer.
    newer: usize,
    /// Those that were not begun, in the scan's order.
    tables: std::vec::IntoIter<Rc<Table<E>>>,
    walk: Option<TableWalk<E>>,
    /// What the first read of a table may bring, in bytes.
    first_read: usize,
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
/// Values in the log are only there for as long as nobody frees their segments: the caller
/// pins each as it comes to it.
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
    /// What is not before this was not looked at, because too many blocks were passed over.
    broken_at: Option<Vec<u8>>,
    has_left_out: bool,
}

/// Keys that may be lost, with a stub or in a block that cannot be read.
struct Hole {
    first: Vec<u8>,
    /// The key that all are below.
    end: Vec<u8>,
    /// How many sources of entries are newer than what is lost, and so are right all the same.
    newer: usize,
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
    fn new(newer: usize, run: &[Rc<Table<E>>], range: &ScanRange) -> Self {
        let overlaps = |table: &&Rc<Table<E>>| {
            let meta = table.meta();
            meta.largest >= range.start && range.end.as_ref().is_none_or(|end| meta.smallest < *end)
        };
        let mut tables: Vec<_> = run.iter().filter(overlaps).cloned().collect();
        if range.is_reverse {
            tables.reverse();
        }
        Self { newer, tables: tables.into_iter(), walk: None, first_read: 0, is_broken: false }
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
                        lost.push(Hole { first, end, newer: self.newer, error });
                        self.is_broken = !range.passes_lost || lost.len() > passes_max;
                        continue;
                    }
                }
            }
            let Some(table) = self.tables.next() else { break };
            let walk = TableWalk::new(table, start, end, range.is_reverse);
            self.walk = Some(walk.reading(self.first_read));
        }
        self.walk = None;
        lost
    }
}

/// The keys of the range that stubs may have lost.
fn holes<E: Env>(tables: &Tables<E>, range: &ScanRange, ranges: &RangeTombstones) -> Vec<Hole> {
    let is_within = |(first, end): &(Vec<u8>, Vec<u8>)| {
        *end > range.start && range.end.as_ref().is_none_or(|end| first < end)
    };
    let mut holes = Vec::new();
    for (newer_runs, stub) in tables.stubs() {
        for (first, end) in stub.lost_keys().into_iter().filter(is_within) {
            if !ranges.cover(&first, &end, stub.meta().deleted_until) {
                // Memtables are newer than any run.
                let (newer, error) = (newer_runs + 1, stub.lost());
                holes.push(Hole { first, end, newer, error });
            }
        }
    }
    holes
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
            // Memtables, which were copied, are the first source.
            runs: (1..)
                .zip(tables.runs())
                .map(|(newer, run)| Run::new(newer, run, &range))
                .collect(),
            holes: holes(tables, &range, ranges),
            ranges: Rc::clone(ranges),
            range,
            class,
            has_begun: false,
            passed: 0,
            broken_at: None,
            has_left_out: false,
        }
    }

    /// The same scan for somebody who expects to see so many entries: then runs need not find out
    /// by and by that more than a block of each is wanted.
    pub fn expecting(mut self, entries: usize) -> Self {
        let bytes = entries.saturating_mul(ENTRY_BYTES).min(FIRST_READ_BYTES_MAX);
        self.runs.iter_mut().for_each(|run| run.first_read = bytes);
        self
    }

    /// Where the scan ends although more may follow: the last key that it could vouch for, or a
    /// bound of what it has passed over.
    pub fn cut_at(&self) -> Option<&[u8]> {
        let cuts = [self.copies.cut_at.as_deref(), self.broken_at.as_deref()];
        let before = |left, right| if self.range.is_before(right, left) { right } else { left };
        cuts.into_iter().flatten().reduce(before)
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
        self.meet_holes(next.as_deref())?;
        let Some(key) = next else { return Ok(None) };
        let (mut scanned, source) = self.take(key, blocks).await;
        if self.is_lost(&scanned.key, source) {
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
        for (number, lost) in concurrently(limit, beginnings).await.into_iter().enumerate() {
            self.note_lost(number, lost);
        }
    }

    /// Notes what was lost on the way of a run. Where that ends there the scan does as well.
    fn note_lost(&mut self, run: usize, lost: Vec<Hole>) {
        if self.range.passes_lost
            && self.runs[run].is_broken
            && let Some(last) = lost.last()
        {
            // Seen forwards, the block is met again: nobody knows the last key before the next one.
            let at = last.first.as_slice().max(&self.range.start);
            let is_first = |other: &Vec<u8>| self.range.is_before(at, other);
            // Nothing is left where it reaches to an end of the range.
            let is_end = match self.range.is_reverse {
                true => *at == self.range.start,
                false => self.range.end.as_deref().is_some_and(|end| at >= end),
            };
            if !is_end && self.broken_at.as_ref().is_none_or(is_first) {
                self.broken_at = Some(at.to_vec());
            }
            self.has_left_out = true;
        }
        self.passed += lost.len();
        self.holes.extend(lost);
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
        let is_behind = |cut_at: &[u8]| next.is_none_or(|next| self.range.is_before(cut_at, next));
        let copied = self.copies.cut_at.as_deref().filter(|_| self.copies.current.is_none());
        copied.is_some_and(is_behind) || self.broken_at.as_deref().is_some_and(is_behind)
    }

    /// Takes the newest entry of `key`, and goes past all of it. Says how many sources of entries
    /// are newer than the one that had it.
    async fn take(&mut self, key: Vec<u8>, blocks: &BlockCache) -> (Scanned, usize) {
        let (mut newest, deleted_at) = (None, self.ranges.newest(&key));
        if let Some(copied) = self.copies.current.take_if(|copied| copied.key == key) {
            newest = Some((copied.entry, copied.sequence_end, 0));
            self.copies.current = self.copies.entries.next();
        }
        for number in 0..self.runs.len() {
            let run = &mut self.runs[number];
            let Some(walk) = run.walk.as_ref().filter(|walk| walk.key() == key) else { continue };
            if newest.is_none() {
                let from = walk.table().meta().deleted_until;
                newest = Some(match deleted_at.filter(|at| *at >= from) {
                    Some(at) => (EntryBuf::new(&Entry::tombstone(at)), at + 1, run.newer),
                    None => (EntryBuf::new(&walk.entry()), 0, run.newer),
                });
            }
            let passes_max = PASSED_MAX.saturating_sub(self.passed);
            let lost = run.advance(&self.range, blocks, self.class, passes_max).await;
            self.note_lost(number, lost);
        }
        let (entry, sequence_end, newer) = newest.expect("the key came from somewhere");
        (Scanned { key, entry, sequence_end }, newer)
    }

    /// Looks at the holes that begin up to the next key, or to the end.
    ///
    /// # Errors
    ///
    /// Keys up to there may be lost, and are not to be left out.
    fn meet_holes(&mut self, next: Option<&[u8]>) -> Result<(), EngineError> {
        if self.holes.is_empty() {
            return Ok(());
        }
        let is_reverse = self.range.is_reverse;
        let begins = |hole: &&Hole| match next {
            None => true,
            Some(next) if is_reverse => next < hole.end.as_slice(),
            Some(next) => next >= hole.first.as_slice(),
        };
        let Some(hole) = self.holes.iter().find(begins) else { return Ok(()) };
        if !self.range.passes_lost {
            return Err(not_read(next.unwrap_or(&hole.first), &hole.error));
        }
        self.has_left_out = true;
        if let Some(next) = next {
            // What has ended before the next key concerns no other.
            let concerns = |hole: &Hole| match is_reverse {
                true => hole.first.as_slice() <= next,
                false => next < hole.end.as_slice(),
            };
            self.holes.retain(concerns);
        }
        Ok(())
    }

    /// Whether the entry of a key may be older than one that is lost, where so many sources of
    /// entries are newer.
    fn is_lost(&self, key: &[u8], newer: usize) -> bool {
        self.holes.iter().any(|hole| hole.contains(key) && hole.newer <= newer)
    }
}
