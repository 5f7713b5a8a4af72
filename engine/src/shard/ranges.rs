//! Deleting ranges of keys.
//!
//! A deletion is one log record, whatever it covers. From then on it hides what is older, in
//! memtables, tables and the value cache. Tables that it covers as a whole are taken out unread,
//! and merges drop what it hides. So that deletions do not pile up, what is left of the older ones
//! is carried out in the background: each key that a table still has of the range gets a tombstone
//! of its own, what the cache has goes, and once the tombstones are in tables the manifest forgets
//! the range.

use std::collections::BTreeMap;
use std::rc::Rc;

use larder_runtime::env::Env;

use super::admission::NotApplied;
use super::apply::Change;
use super::batch::{BatchAnswer, FoundOnce};
use super::once::Once;
use super::{Shard, State};
use crate::canary::{self, Defect};
use crate::entry::{Entry, Metadata};
use crate::error::EngineError;
use crate::index::Newer;
use crate::index::table::key_hash;
use crate::manifest::Edit;
use crate::range_tombstones::{RangeTombstone, RangeTombstones};
use crate::scan::Scan;
use crate::value_log::Append;
use crate::value_log::record::RecordKind;

/// How long a deletion waits for earlier ones before it is refused, in nanoseconds.
const WAIT_NANOSECONDS_MAX: u64 = 10_000_000_000;

/// So many deletions are carried out at a time, those apart that have to wait.
const ROUND_RANGES_MAX: usize = 256;

/// How long to wait before a range is tried again of which something cannot be read, in
/// nanoseconds.
const RETRY_DAMAGED_NANOSECONDS: u64 = 60_000_000_000;

/// Buckets of the cache's index that are swept at a time.
const SWEEP_BUCKETS: usize = 256;

/// After so many keys others may have a turn.
const TURN_KEYS: usize = 64;

/// How far a deletion has been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It hides nothing any more.
    Done,
    /// What hides its keys in its stead is in the log alone. Damage to that must not bring back
    /// what another record has deleted.
    Unflushed,
    /// It waits for tables to be taken out, or for a stub.
    Waits,
}

impl<E: Env> Shard<E> {
    /// Deletes the items that `range` would show, whatever its limits are, with one log record.
    ///
    /// Returns the log position that has to be acknowledged before the answer may be sent; 0 if the
    /// range is empty.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`] if there is no space, or earlier deletions wait for some;
    /// [`EngineError::Stopped`].
    pub async fn delete_range(&self, range: &Scan) -> Result<u64, EngineError> {
        self.delete_range_as(range, None).await
    }

    /// The same once, however often it comes with that token: nothing that was stored behind the
    /// first time is deleted.
    ///
    /// Returns [`BatchAnswer::Done`] without answers, or [`BatchAnswer::OtherRequest`], and the log
    /// position as [`Shard::delete_range`].
    ///
    /// # Errors
    ///
    /// As [`Shard::delete_range`], and if it cannot be read whether it was done.
    pub async fn delete_range_once(
        &self,
        range: &Scan,
        once: &Once,
    ) -> Result<(BatchAnswer, u64), EngineError> {
        let keys = [once.key()];
        let turn = self.turns.enter(key_hash(&keys[0]));
        turn.come().await;
        let now = self.unix_now();
        let found = self.find_once((&keys, Some(once)), now).await;
        self.release_files();
        let found = found?.expect("it has a token");
        // The turn on the token's key is held: nothing changes what was found.
        if let Some(told) = self.told_before(&found, 0, now) {
            return Ok(told);
        }
        let needs = self.delete_range_as(range, Some(&found)).await?;
        Ok((BatchAnswer::Done(Vec::new()), needs))
    }

    async fn delete_range_as(
        &self,
        range: &Scan,
        once: Option<&FoundOnce<'_>>,
    ) -> Result<u64, EngineError> {
        let give_up_at = self.env.now() + WAIT_NANOSECONDS_MAX;
        loop {
            self.apply_due_flush().await?;
            match self.try_delete_range(&mut self.state.borrow_mut(), range, once) {
                Ok(needs) => return Ok(needs),
                Err(NotApplied::Failed(error)) => return Err(error),
                Err(NotApplied::Wait | NotApplied::LookAgain | NotApplied::Uncounted(_)) => {}
            }
            let left = give_up_at.saturating_sub(self.env.now());
            if left == 0 {
                return Err(EngineError::Full);
            }
            futures_lite::future::or(self.wait_for_room(0), self.env.sleep(left)).await;
        }
    }

    fn try_delete_range(
        &self,
        state: &mut State,
        range: &Scan,
        once: Option<&FoundOnce<'_>>,
    ) -> Result<u64, NotApplied> {
        self.check_space(state, true)?;
        let (start, end) = range.bounds(state.namespaces.generation(range.namespace()));
        let Some(end) = end.filter(|end| start < *end) else { return Ok(0) };
        if self.index.ranges().bytes() > self.options.ranges.bytes_max {
            self.freeze(state);
            return Err(NotApplied::Wait);
        }
        let key = RangeTombstone::encode_key(&start, &end);
        let (sequence, sequence_end) = match once {
            Some(once) => self.log_range_once(state, &key, once)?,
            None => {
                let sequence = self.log_removal(state, RecordKind::DeleteRange, &key)?;
                (sequence, sequence + 1)
            }
        };
        self.index.delete_range(RangeTombstone { start, end, sequence });
        state.namespaces.records.note_removals();
        if self.is_flush_due() {
            self.freeze(state);
        }
        Ok(sequence_end)
    }

    /// Appends the log record of a deleted range and, in the same frame, what its token was
    /// answered. Returns the sequence of the first, and the log position that covers both.
    fn log_range_once(
        &self,
        state: &mut State,
        range: &[u8],
        found: &FoundOnce<'_>,
    ) -> Result<(u64, u64), NotApplied> {
        let FoundOnce { once, item } = found;
        let version = self.log.sequence_next();
        let deleted = Metadata { version, ..Metadata::default() };
        let known = Metadata { version: version + 1, expiry: once.expiry, ..Metadata::default() };
        let value = once.value(&[]);
        let appends = [
            Append::new((RecordKind::DeleteRange, deleted), range, &[], None),
            Append::new((RecordKind::Put, known), item.addressed.key, &value, None),
        ];
        let appended = self.log.append_all(&appends);
        let appended = appended.map_err(|refused| self.not_applied(state, true, refused))?;
        self.note_written(appended[0].pointer.len);
        let change =
            Change { addressed: item.addressed, located: &item.located, now: self.unix_now() };
        self.make_known(state, &change, (&appends[1].record, &value), (appended[1], true));
        Ok((appended[0].sequence, appended[1].sequence + 1))
    }

    /// Appends a log record that only removes; returns its sequence.
    fn log_removal(&self, state: &State, kind: RecordKind, key: &[u8]) -> Result<u64, NotApplied> {
        let metadata = Metadata { version: self.log.sequence_next(), ..Metadata::default() };
        let appended = self.log.append(&Append::new((kind, metadata), key, &[], None));
        let appended = appended.map_err(|refused| self.not_applied(state, true, refused))?;
        self.note_written(appended.pointer.len);
        Ok(appended.sequence)
    }

    /// Whether deletions have waited long for a flush, before which they are not carried out or
    /// not forgotten.
    pub(super) fn ranges_wait_for_flush(&self) -> bool {
        (self.index.unflushed_range_bytes() > 0 || self.ranges_unflushed.get())
            && self.log.nanoseconds_since_mark() >= self.options.ranges.unflushed_nanoseconds_max
    }

    /// Carries deletions out, so that they need not be remembered.
    pub(super) async fn keep_ranges(self: Rc<Self>) {
        let is_ending = || self.state.borrow().closing || self.log.stopped().is_some();
        let next = || {
            let has_some = || !self.journal.state().ranges.is_empty();
            (is_ending() || has_some()).then(is_ending)
        };
        // What could not be read, by sequence, and when to try it again.
        let mut put_off = BTreeMap::new();
        while !self.work.wait_for(next).await {
            match self.carry_out_ranges(&mut put_off).await {
                Ok(()) => {}
                Err(_) if is_ending() => return,
                Err(error) => return self.log.stop(format!("deleting a range: {error}")),
            }
            self.env.sleep(self.options.ranges.round_nanoseconds).await;
        }
    }

    async fn carry_out_ranges(&self, put_off: &mut BTreeMap<u64, u64>) -> Result<(), EngineError> {
        let mut ranges: Vec<RangeTombstone> = self.journal.state().ranges.iter().collect();
        ranges.sort_unstable_by_key(|range| range.sequence);
        let now = self.env.now();
        put_off.retain(|_, until| *until > now);
        let (mut done, mut is_unflushed) = (Vec::new(), false);
        // Those that have to wait must not keep others back.
        ranges.retain(|range| !put_off.contains_key(&range.sequence));
        for range in ranges {
            match self.carry_out(&range).await {
                Ok(Progress::Done) => done.push(range),
                Ok(Progress::Unflushed) => is_unflushed = true,
                Ok(Progress::Waits) => {}
                // What was done is done. A full disk has room again some time.
                Err(EngineError::Full) => break,
                // It goes on hiding what is in the part that can be read.
                Err(error @ (EngineError::Read(_) | EngineError::Damaged { .. })) => {
                    tracing::error!("a range is not deleted for good: {error}");
                    put_off.insert(range.sequence, now + RETRY_DAMAGED_NANOSECONDS);
                }
                Err(error) => return Err(error),
            }
            if done.len() >= ROUND_RANGES_MAX {
                break;
            }
            self.env.yield_if_needed().await;
        }
        self.ranges_unflushed.set(is_unflushed);
        if is_unflushed && self.index.ranges().bytes() > self.options.ranges.bytes_max / 2 {
            self.freeze(&mut self.state.borrow_mut());
        }
        if done.is_empty() {
            return Ok(());
        }
        if !canary::has(Defect::SkipCacheSweep) {
            self.sweep_cache(&done).await;
        }
        let forgotten = done.clone();
        self.commit_edit(|_| Some(Edit { ranges_forgotten: forgotten, ..Edit::default() })).await?;
        self.index.forget_ranges(&done);
        self.something_changed();
        Ok(())
    }

    /// Has a tombstone written for each key that tables still have of the range.
    async fn carry_out(&self, range: &RangeTombstone) -> Result<Progress, EngineError> {
        if !self.durable_generation_lives(&range.start) {
            return Ok(Progress::Done);
        }
        let Some(mut hidden) = self.index.hidden_by(range) else { return Ok(Progress::Waits) };
        let (mut keys, mut progress) = (0, Progress::Done);
        while let Some(key) = self.index.next_hidden(&mut hidden).await? {
            if self.bury(&key, range.sequence).await? == Newer::Unflushed {
                progress = Progress::Unflushed;
            }
            keys += 1;
            if keys % TURN_KEYS == 0 {
                self.env.yield_if_needed().await;
            }
        }
        if canary::has(Defect::ForgetRangesEarly) {
            return Ok(Progress::Done);
        }
        Ok(progress)
    }

    fn durable_generation_lives(&self, key: &[u8]) -> bool {
        use crate::index::Host;
        self.durable().generations.has_key(key)
    }

    /// Writes a tombstone for `key` unless something newer than the deletion at `sequence` is
    /// known. Returns where that is, or the tombstone.
    async fn bury(&self, key: &[u8], sequence: u64) -> Result<Newer, EngineError> {
        let hash = key_hash(key);
        loop {
            let table_changes = self.index.table_changes();
            if let Some(newer) = self.index.newer_in_memory(key, hash, sequence) {
                return Ok(newer);
            }
            if self.index.is_newer_in_tables(key, hash, sequence).await? {
                return Ok(Newer::Flushed);
            }
            let is_current = self.index.table_changes() == table_changes
                && self.index.newer_in_memory(key, hash, sequence).is_none();
            if !is_current {
                continue;
            }
            match self.try_bury(&mut self.state.borrow_mut(), key, hash) {
                Ok(()) => return Ok(Newer::Unflushed),
                Err(NotApplied::Failed(error)) => return Err(error),
                Err(NotApplied::Wait | NotApplied::LookAgain | NotApplied::Uncounted(_)) => {}
            }
            self.wait_for_room(0).await;
        }
    }

    fn try_bury(&self, state: &mut State, key: &[u8], hash: u64) -> Result<(), NotApplied> {
        self.check_space(state, true)?;
        let at = self.log_removal(state, RecordKind::Delete, key)?;
        self.index.insert(key, hash, &Entry::tombstone(at), at);
        state.items.remove(hash, key);
        if self.is_flush_due() {
            self.freeze(state);
        }
        Ok(())
    }

    /// Takes what these ranges hide out of the value cache.
    async fn sweep_cache(&self, ranges: &[RangeTombstone]) {
        let mut hiding = RangeTombstones::default();
        ranges.iter().for_each(|range| hiding.add(range.clone()));
        let is_gone =
            |key: &[u8], sequence: u64| hiding.newest(key).is_some_and(|at| at > sequence);
        let mut from = 0;
        loop {
            let next = self.state.borrow_mut().items.sweep(from, SWEEP_BUCKETS, is_gone);
            let Some(next) = next else { return };
            from = next;
            self.env.yield_if_needed().await;
        }
    }
}
