//! Merges sorted runs into one sequence in which every key appears once, with its newest entry.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::sorted_runs::sorted_runs;
use crate::entry::Entry;
use crate::index::table::{READ_AHEAD_BYTES, Table, TableError, TableIterator};

/// What becomes of a key's newest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It comes out of the merge.
    Keep,
    /// It is dropped, like the older entries of its key in the inputs. An older entry outside the
    /// inputs, in a deeper level or in a log that may be replayed, would come to light again: the
    /// filter drops only what hides none.
    Drop,
}

/// The entries of several tables in key order, the newest of each key.
///
/// `filter` is asked about each key's newest entry; `on_dropped` is told of each entry that does
/// not come out: older entries of a key, and newest ones that the filter drops.
///
/// The device is read in pieces of [`READ_AHEAD_BYTES`], past the block cache, and memory is held
/// for one such piece per run. After an error the iterator must not be used further.
pub struct MergeIterator<E: Env, F, D> {
    runs: Vec<Run<E>>,
    /// Numbers of the runs that have a current entry: a binary heap, least key first and, of equal
    /// keys, newest first.
    heap: Vec<usize>,
    filter: F,
    on_dropped: D,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// No run has been read yet.
    BeforeFirst,
    /// The first of the heap is the current entry.
    OnEntry,
    AfterLast,
}

impl<E, F, D> MergeIterator<E, F, D>
where
    E: Env,
    F: FnMut(&[u8], &Entry<'_>) -> Verdict,
    D: FnMut(&Entry<'_>),
{
    /// A merge of `tables`, newest first, from the first key that is at least `start`. The order
    /// of tables that do not overlap is of no importance. Reads are charged to `class`.
    pub fn new(
        tables: impl IntoIterator<Item = Rc<Table<E>>>,
        start: &[u8],
        class: IoClass,
        filter: F,
        on_dropped: D,
    ) -> Self {
        let in_range = tables.into_iter().filter(|table| table.meta().largest.as_slice() >= start);
        let runs = sorted_runs(in_range).into_iter().map(|run| Run::new(run, start, class));
        Self {
            runs: runs.collect(),
            heap: Vec::new(),
            filter,
            on_dropped,
            place: Place::BeforeFirst,
        }
    }

    /// Goes to the next entry that the filter keeps and returns it; `None` after the last.
    ///
    /// # Errors
    ///
    /// Those of [`TableIterator::next`].
    pub async fn next(&mut self) -> Result<Option<(&[u8], Entry<'_>)>, TableError> {
        loop {
            match self.place {
                Place::BeforeFirst => self.fill_heap().await?,
                Place::OnEntry => self.advance_run(0).await?,
                Place::AfterLast => return Ok(None),
            }
            if self.heap.is_empty() {
                self.place = Place::AfterLast;
                return Ok(None);
            }
            self.place = Place::OnEntry;
            self.drop_older().await?;
            let (key, entry) = self.runs[self.heap[0]].current();
            if (self.filter)(key, &entry) == Verdict::Keep {
                break;
            }
            (self.on_dropped)(&entry);
        }
        Ok(Some(self.runs[self.heap[0]].current()))
    }

    async fn fill_heap(&mut self) -> Result<(), TableError> {
        for number in 0..self.runs.len() {
            if self.runs[number].advance().await? {
                self.heap.push(number);
            }
        }
        for place in (0..self.heap.len() / 2).rev() {
            self.sift_down(place);
        }
        Ok(())
    }

    /// Passes over the entries that the first of the heap hides.
    async fn drop_older(&mut self) -> Result<(), TableError> {
        while let Some(second) = self.second() {
            let older = &self.runs[self.heap[second]];
            if self.runs[self.heap[0]].key() != older.key() {
                break;
            }
            (self.on_dropped)(&older.current().1);
            self.advance_run(second).await?;
        }
        Ok(())
    }

    /// The place in the heap of what comes after its first.
    fn second(&self) -> Option<usize> {
        match self.heap.len() {
            0 | 1 => None,
            2 => Some(1),
            _ => Some(if self.is_before(2, 1) { 2 } else { 1 }),
        }
    }

    /// Moves the run at `place` of the heap to its next entry and restores the heap's order.
    async fn advance_run(&mut self, place: usize) -> Result<(), TableError> {
        if !self.runs[self.heap[place]].advance().await? {
            self.heap.swap_remove(place);
        }
        self.sift_down(place);
        Ok(())
    }

    /// Sinks the run at `place` to where it belongs. One that took the place of an ended run came
    /// from below the first, so it never has to rise above `place`'s parent: that is the first.
    fn sift_down(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let has_right = right < self.heap.len();
            let child = if has_right && self.is_before(right, left) { right } else { left };
            if !self.is_before(child, place) {
                return;
            }
            self.heap.swap(child, place);
            place = child;
        }
    }

    fn is_before(&self, left: usize, right: usize) -> bool {
        let (left, right) = (self.heap[left], self.heap[right]);
        let order = self.runs[left].key().cmp(self.runs[right].key());
        order.then(left.cmp(&right)) == Ordering::Less
    }
}

/// A sorted run: tables read one after the other.
struct Run<E: Env> {
    later: VecDeque<Rc<Table<E>>>,
    current: Option<TableIterator<E>>,
    start: Vec<u8>,
    class: IoClass,
}

impl<E: Env> Run<E> {
    fn new(tables: Vec<Rc<Table<E>>>, start: &[u8], class: IoClass) -> Self {
        Self { later: tables.into(), current: None, start: start.to_vec(), class }
    }

    async fn advance(&mut self) -> Result<bool, TableError> {
        loop {
            if let Some(iterator) = &mut self.current
                && iterator.advance().await?
            {
                return Ok(true);
            }
            let Some(table) = self.later.pop_front() else { return Ok(false) };
            self.current =
                Some(TableIterator::new(table, &self.start, self.class, READ_AHEAD_BYTES));
        }
    }

    /// The key at hand; asked only of runs in the heap.
    fn key(&self) -> &[u8] {
        self.current.as_ref().expect("a run in the heap is on an entry").key()
    }

    /// The key and entry at hand; asked only of runs in the heap.
    fn current(&self) -> (&[u8], Entry<'_>) {
        let current = self.current.as_ref().and_then(TableIterator::current);
        current.expect("a run in the heap is on an entry")
    }
}
