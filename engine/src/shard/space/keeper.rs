//! The task that keeps the log supplied: with segments, sequence numbers, and files to use again.

use std::rc::Rc;

use larder_runtime::env::Env;

use super::Ingest;
use crate::error::EngineError;
use crate::manifest::Edit;
use crate::shard::Shard;

/// How long to wait before looking again for space, in nanoseconds.
const RETRY_NANOSECONDS: u64 = 50_000_000;

/// What the keeper found to do.
enum Task {
    Stop,
    ReserveSequences,
    Free(Vec<u32>),
    Prepare(u32),
    Release(u32, u32),
    /// Files are kept that had better be given back.
    GiveBack,
    /// The log's growth was refused: look whether that still holds.
    LookAgain,
}

impl<E: Env> Shard<E> {
    pub(in crate::shard) async fn keep_space(self: Rc<Self>) {
        loop {
            let task = self.log.needs().wait_for(|| self.next_task()).await;
            let result = match task {
                Task::Stop => return,
                Task::ReserveSequences => self.reserve_sequences().await,
                Task::Free(numbers) => self.free_segments(numbers).await,
                Task::Prepare(bytes) => self.prepare_segment(bytes).await,
                Task::Release(number, bytes) => self.release_file(number, bytes).await,
                Task::GiveBack => self.give_file_back().await.map(|_| ()),
                Task::LookAgain => self.look_again(),
            };
            match result {
                Ok(()) => {}
                Err(EngineError::Full) => self.wait_for_space().await,
                Err(error) => return self.log.stop(error.to_string()),
            }
        }
    }

    /// Waits until something was freed, or for a moment: space may come from outside. Deletes that
    /// have used up what the log had do not wait for what was refused to others before.
    async fn wait_for_space(&self) {
        let mut first = true;
        let freed = self.space_freed.wait_for(|| (!std::mem::take(&mut first)).then_some(()));
        let was_low = self.is_low_for_removals();
        let is_low = || (!was_low && self.is_low_for_removals()).then_some(());
        let change = futures_lite::future::or(freed, self.log.needs().wait_for(is_low));
        futures_lite::future::or(change, self.env.sleep(RETRY_NANOSECONDS)).await;
    }

    fn next_task(&self) -> Option<Task> {
        if self.state.borrow().closing || self.log.stopped().is_some() {
            return Some(Task::Stop);
        }
        if self.log.needs_sequences() {
            return Some(Task::ReserveSequences);
        }
        let dead = self.dead_segments();
        if !dead.is_empty() {
            return Some(Task::Free(dead));
        }
        let readers = |moment, number| self.pins.readers(moment, number);
        let unread = self.free.borrow_mut().take_unread(readers);
        if let Some((number, bytes)) = unread {
            return Some(Task::Release(number, bytes));
        }
        let ready = self.free.borrow().ready() as u64;
        let is_leased = || self.others_are_short() && self.leases_hold() > 0;
        if (ready > 0 && !self.keeps_file(ready - 1)) || is_leased() {
            return Some(Task::GiveBack);
        }
        if let Some(bytes) = self.log.wants_segment(self.options.segment_bytes) {
            return Some(Task::Prepare(bytes));
        }
        let full = self.state.borrow().full;
        (full.ingest != Ingest::Open).then_some(Task::LookAgain)
    }

    async fn reserve_sequences(&self) -> Result<(), EngineError> {
        let limit = self.log.sequence_limit() + self.options.version_step;
        let edit = Edit { version_ceiling: Some(limit), ..Edit::default() };
        self.commit_edit(|_| Some(edit)).await?;
        self.log.extend_sequences(limit);
        Ok(())
    }
}
