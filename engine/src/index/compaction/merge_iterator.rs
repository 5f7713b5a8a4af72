//! Merges sorted runs into one sequence in which every key appears once, with its newest entry.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::holes::Holes;
use super::sorted_runs::{KeyRange, sorted_runs};
use crate::entry::Entry;
use crate::index::table::{Patience, READ_AHEAD_BYTES, Table, TableError, TableIterator};

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

/// Where a key's newest entry is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whether an older entry of the key may be lost in a block that cannot be read.
    pub hides_lost: bool,
    /// As far as deletions of ranges have been applied to the entry's table.
    pub deleted_until: u64,
}

/// The entries of several tables in key order, the newest of each key.
///
/// `filter` is asked about each key's newest entry, and told where that is from; `on_dropped` is
/// told of each entry that does not come out: older entries of a key, newest ones that the filter
/// drops, and entries of which a newer one may be lost.
///
/// The device is read in pieces of [`READ_AHEAD_BYTES`], past the block cache, and memory is held
/// for one such piece per run. After an error the iterator must not be used further.
pub struct MergeIterator<E: Env, F, D> {
    runs: Vec<Run<E>>,
    /// Numbers of the runs that have a current entry: a binary heap, least key first and, of equal
    /// keys, newest first.
    heap: Vec<usize>,
    holes: Holes<E>,
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
    F: FnMut(&[u8], &Entry<'_>, Source) -> Verdict,
    D: FnMut(&Entry<'_>),
{
    /// A merge of `tables`, newest first. The order of tables that do not overlap is of no
    /// importance. Of stubs only what they have lost counts. Reads are charged to `class`.
    pub fn new(
        tables: impl IntoIterator<Item = Rc<Table<E>>>,
        class: IoClass,
        filter: F,
        on_dropped: D,
    ) -> Self {
        let (mut inputs, mut holes) = (Vec::new(), Holes::default());
        for (age, table) in tables.into_iter().enumerate() {
            if table.meta().is_stub() {
                holes.add(age, &table, &table.meta().bad_blocks);
            } else {
                inputs.push(Input { age, table });
            }
        }
        let patience = Patience::default();
        let runs = sorted_runs(inputs).into_iter();
        let runs = runs.map(|run| Run::new(run, class, &patience)).collect();
        Self { runs, heap: Vec::new(), holes, filter, on_dropped, place: Place::BeforeFirst }
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
            let run = &self.runs[self.heap[0]];
            let (key, entry) = run.current();
            let holes = self.holes.around(key, run.age());
            let source = Source { hides_lost: holes.older, deleted_until: run.deleted_until() };
            if !holes.newer && (self.filter)(key, &entry, source) == Verdict::Keep {
                break;
            }
            (self.on_dropped)(&entry);
        }
        Ok(Some(self.runs[self.heap[0]].current()))
    }

    /// The inputs in which blocks were found that cannot be read, with these blocks. Complete once
    /// [`Self::next`] has returned `None`.
    pub fn damaged(&self) -> Vec<(Rc<Table<E>>, Vec<u32>)> {
        self.holes.found()
    }

    async fn fill_heap(&mut self) -> Result<(), TableError> {
        for number in 0..self.runs.len() {
            if self.step(number).await? {
                self.heap.push(number);
            }
        }
        for place in (0..self.heap.len() / 2).rev() {
            self.sift_down(place);
        }
        Ok(())
    }

    /// Moves a run to its next entry. What it passes over becomes a hole before any key of the
    /// hole's range comes out.
    async fn step(&mut self, number: usize) -> Result<bool, TableError> {
        let run = &mut self.runs[number];
        let moved = run.advance().await;
        for (age, table, block) in run.passed_over.drain(..) {
            self.holes.add(age, &table, &[block]);
        }
        moved
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
        if !self.step(self.heap[place]).await? {
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

/// An input, and how many inputs are newer.
struct Input<E: Env> {
    age: usize,
    table: Rc<Table<E>>,
}

impl<E: Env> KeyRange for Input<E> {
    fn smallest(&self) -> &[u8] {
        self.table.smallest()
    }

    fn largest(&self) -> &[u8] {
        self.table.largest()
    }
}

/// A sorted run: tables read one after the other.
struct Run<E: Env> {
    later: VecDeque<Input<E>>,
    current: Option<(usize, TableIterator<E>)>,
    class: IoClass,
    patience: Patience,
    /// Blocks that were passed over and are not taken note of: age, table, number.
    passed_over: Vec<(usize, Rc<Table<E>>, u32)>,
}

impl<E: Env> Run<E> {
    fn new(tables: Vec<Input<E>>, class: IoClass, patience: &Patience) -> Self {
        let (later, patience) = (tables.into(), patience.clone());
        Self { later, current: None, class, patience, passed_over: Vec::new() }
    }

    async fn advance(&mut self) -> Result<bool, TableError> {
        loop {
            if let Some((age, iterator)) = &mut self.current {
                let known = iterator.bad_blocks().len();
                let has_entry = iterator.advance().await?;
                let table = iterator.table();
                let blocks = iterator.bad_blocks()[known..].iter();
                self.passed_over.extend(blocks.map(|&block| (*age, Rc::clone(table), block)));
                if has_entry {
                    return Ok(true);
                }
            }
            let Some(Input { age, table }) = self.later.pop_front() else { return Ok(false) };
            let iterator = TableIterator::new(table, &[], self.class, READ_AHEAD_BYTES);
            let iterator = iterator.with_patience(&self.patience);
            self.current = Some((age, iterator));
        }
    }

    /// How many inputs are newer than the one at hand; asked only of runs in the heap.
    fn age(&self) -> usize {
        self.current.as_ref().expect("a run in the heap is on an entry").0
    }

    /// As far as deletions of ranges have been applied to the table at hand; asked only of runs in
    /// the heap.
    fn deleted_until(&self) -> u64 {
        let (_, iterator) = self.current.as_ref().expect("a run in the heap is on an entry");
        iterator.table().meta().deleted_until
    }

    /// The key at hand; asked only of runs in the heap.
    fn key(&self) -> &[u8] {
        self.current.as_ref().expect("a run in the heap is on an entry").1.key()
    }

    /// The key and entry at hand; asked only of runs in the heap.
    fn current(&self) -> (&[u8], Entry<'_>) {
        let current = self.current.as_ref().and_then(|(_, iterator)| iterator.current());
        current.expect("a run in the heap is on an entry")
    }
}
