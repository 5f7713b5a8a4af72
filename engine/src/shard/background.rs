//! The tasks that flush memtables and compact tables, and what they need of the shard.

use std::rc::Rc;

use larder_runtime::disk_budget::Promise;
use larder_runtime::env::Env;

use super::{Shard, State};
use crate::error::EngineError;
use crate::index::compaction::picker::{self, Choice, Garbage};
use crate::index::{Host, Living};
use crate::manifest::{self, Edit, SegmentSeal};
use crate::space::Purpose;
use crate::value_log::record::RecordKind;

/// How long a task waits before it tries again what the disk had no room for, or what damage
/// stopped, in nanoseconds.
const RETRY_FULL_NANOSECONDS: u64 = 200_000_000;
const RETRY_DAMAGED_NANOSECONDS: u64 = 60_000_000_000;

/// The pause after a file was given back, or a lease was ended for its files, in nanoseconds.
const GIVEN_BACK_NANOSECONDS: u64 = 10_000_000;

/// How long to wait at most for entries to expire before looking at the clock, which may have been
/// set, in nanoseconds.
const EXPIRY_NANOSECONDS_MAX: u64 = 10_000_000_000;

impl<E: Env> Host for Shard<E> {
    type Reservation = Promise;

    fn reserve(&self, bytes: u64, purpose: Purpose) -> Result<Promise, EngineError> {
        self.promise(bytes, purpose)
    }

    async fn sync_log(&self) -> Result<(), EngineError> {
        self.log.flush().await
    }

    fn take_seals(&self) -> Vec<SegmentSeal> {
        self.log.take_seals()
    }

    async fn commit(&self, make: impl FnOnce() -> Edit) -> Result<(), EngineError> {
        self.commit_edit(|_| Some(make())).await
    }

    fn durable(&self) -> Living {
        Living::of(&self.journal.state())
    }
}

impl<E: Env> Shard<E> {
    /// Makes an edit of the manifest durable. `make` is called when the edit's turn has come.
    ///
    /// Where there is no space for it, it waits: writes are refused meanwhile, reads and what the
    /// log still has room for go on.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`] only if the shard is being closed. All are final.
    pub(super) async fn commit_edit(
        &self,
        make: impl FnOnce(&manifest::State) -> Option<Edit>,
    ) -> Result<(), EngineError> {
        let result = self.journal.commit(make, async || self.wait_for_manifest().await).await;
        self.note_full(|full| full.manifest = false);
        result
    }

    /// Makes room for the manifest or waits for some; false if the shard is being closed.
    async fn wait_for_manifest(&self) -> Result<bool, EngineError> {
        self.note_full(|full| full.manifest = true);
        let is_ending = || self.state.borrow().closing || self.log.stopped().is_some();
        if !is_ending() {
            let is_given = self.give_file_back().await?;
            let pause = if is_given { GIVEN_BACK_NANOSECONDS } else { RETRY_FULL_NANOSECONDS };
            self.env.sleep(pause).await;
        }
        Ok(!is_ending())
    }

    /// Makes the memtable immutable and starts a new one, if the last one has been written out.
    pub(super) fn freeze(&self, state: &mut State) {
        if self.index.has_frozen() || state.closing {
            return;
        }
        let position = self.log.position();
        if let Some(at) = state.namespaces.scheduled_flush() {
            // The schedule lives in the log only, so it has to be in the part that stays.
            if self.try_log_namespace(state, RecordKind::ScheduleFlush, at).is_err() {
                return;
            }
        }
        self.index.freeze(position, state.namespaces.generations().clone());
        state.namespaces.quotas.froze();
        self.frozen_log_bytes.set(self.log.bytes_since_mark());
        self.log.mark(0);
        self.work.notify();
    }

    /// Whether merges have so much to catch up with that no more tables are made meanwhile. Writers
    /// wait then as they do for any flush; where merges cannot go on, nobody waits for them.
    fn is_behind(&self) -> bool {
        self.index.debt() >= picker::DEBT_MAX && !self.state.borrow().full.merges
    }

    pub(super) async fn keep_flushing(self: Rc<Self>) {
        let next = || {
            let closing = self.state.borrow().closing;
            (closing || (self.index.has_frozen() && !self.is_behind())).then_some(!closing)
        };
        while self.work.wait_for(next).await {
            match self.flush_once().await {
                Ok(()) => {
                    self.state.borrow_mut().namespaces.quotas.flushed();
                    self.note_full(|full| full.flushes = false);
                    self.something_changed();
                }
                Err(EngineError::Full) => match self.give_file_back().await {
                    // What a lease kept is removed by another task.
                    Ok(true) => self.env.sleep(GIVEN_BACK_NANOSECONDS).await,
                    Ok(false) => {
                        self.note_full(|full| full.flushes = true);
                        self.env.sleep(RETRY_FULL_NANOSECONDS).await;
                    }
                    Err(error) => return self.log.stop(error.to_string()),
                },
                // The memtable is still there.
                Err(EngineError::Read(reason)) => {
                    tracing::error!("a flush is tried again: {reason}");
                    self.env.sleep(RETRY_FULL_NANOSECONDS).await;
                }
                Err(error) => return self.log.stop(format!("flushing failed: {error}")),
            }
        }
    }

    /// Writes the frozen memtable out, the more urgently the fuller the next one is.
    async fn flush_once(&self) -> Result<(), EngineError> {
        let (flush, urgent) = (self.index.flush(self), self.keep_flush_urgent());
        let result = futures_lite::future::or(flush, urgent).await;
        self.end_flush_urgency();
        result
    }

    pub(super) async fn keep_compacting(self: Rc<Self>) {
        let next = || {
            if self.state.borrow().closing {
                return Some(Choice::Nothing);
            }
            let choice = self.next_compaction();
            (choice != Choice::Nothing).then_some(choice)
        };
        loop {
            let Some(choice) = self.wait_for_compaction(next).await else { continue };
            if choice == Choice::Nothing {
                return;
            }
            self.is_merging.set(true);
            self.update_pace();
            let compacted = self.index.compact(choice, &*self).await;
            self.is_merging.set(false);
            match compacted {
                Ok(()) => {
                    self.note_full(|full| full.merges = false);
                    if self.may_collect() {
                        // What writers have waited for is there, and takes its time as well.
                        self.waiting_since.set(None);
                    }
                    self.something_changed();
                }
                Err(EngineError::Full) => {
                    self.end_lease_for_space();
                    self.put_merges_off(RETRY_FULL_NANOSECONDS).await;
                }
                // Nothing is lost by not merging.
                Err(EngineError::Read(reason)) => {
                    tracing::error!("merging tables failed, and is put off: {reason}");
                    self.put_merges_off(RETRY_DAMAGED_NANOSECONDS).await;
                }
                Err(error) => return self.log.stop(format!("merging tables failed: {error}")),
            }
        }
    }

    /// Nobody waits for merges until they are tried again after so many nanoseconds, or longer if
    /// none succeeds then.
    async fn put_merges_off(&self, nanoseconds: u64) {
        self.note_full(|full| full.merges = true);
        self.work.notify();
        self.env.sleep(nanoseconds).await;
        if self.next_compaction() == Choice::Nothing {
            // None is due any more: the next one that is has not been tried.
            self.note_full(|full| full.merges = false);
        }
    }

    /// The compaction that is due. While space is short and nothing can be collected, garbage that
    /// tables hide is brought to light before there is much of it: else writers would take more
    /// than the cap allows, and wait for long once that garbage is found.
    pub(super) fn next_compaction(&self) -> Choice {
        let living = self.durable();
        let due = self.index.next_compaction(&living, Garbage::Enough);
        if due != Choice::Nothing || !self.wants_garbage(&self.usage(), &self.limits()) {
            return due;
        }
        self.index.next_compaction(&living, Garbage::Wanted)
    }

    /// Waits for something to compact. `None`: the clock may have made something expire, or other
    /// tables will expire first.
    async fn wait_for_compaction(&self, next: impl Fn() -> Option<Choice>) -> Option<Choice> {
        let expiry = self.index.next_expiry();
        let work = self.work.wait_for(|| {
            let choice = next();
            (choice.is_some() || self.index.next_expiry() != expiry).then_some(choice)
        });
        let Some(expiry) = expiry else { return work.await };
        let seconds = u64::from(expiry.saturating_sub(self.unix_now())).max(1);
        let nanoseconds = (seconds * 1_000_000_000).min(EXPIRY_NANOSECONDS_MAX);
        let timer = async {
            self.env.sleep(nanoseconds).await;
            None
        };
        futures_lite::future::or(work, timer).await
    }

    /// Removes the files of tables that are gone, once nobody reads them any more.
    pub(super) async fn keep_removing_files(self: Rc<Self>) {
        let next = || {
            let closing = self.state.borrow().closing;
            (closing || self.index.has_unread_files()).then_some(!closing)
        };
        while self.unread.wait_for(next).await {
            if let Err(error) = self.index.remove_unread_files().await {
                return self.log.stop(error.to_string());
            }
            self.space_changed();
            // The caches may have more room.
            self.work.notify();
        }
    }

    /// Lets everyone who waits for tables, space or memtables look again.
    pub(super) fn something_changed(&self) {
        self.space_changed();
        self.work.notify();
        self.unread.notify();
        self.offer_room();
    }
}
