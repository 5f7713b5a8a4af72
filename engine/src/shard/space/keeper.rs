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
        let mut found = None;
        loop {
            let task = match found.take() {
                Some(task) => task,
                None => self.log.needs().wait_for(|| self.next_task()).await,
            };
            let asked = if let Task::Prepare(bytes) = task { Some(bytes) } else { None };
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
                Err(EngineError::Full) => found = self.wait_for_space(asked).await,
                Err(error) => return self.log.stop(error.to_string()),
            }
        }
    }

    /// Waits until something was freed, or for a moment: space may come from outside. Until then
    /// nobody who asks for a segment of so many bytes makes the keeper ask in vain once more. Where
    /// there is something else to do it does not wait, and returns that; nor do deletes that have
    /// used up what the log had wait for what was refused to others before.
    async fn wait_for_space(&self, asked: Option<u32>) -> Option<Task> {
        let was_needed = self.removals_need_segment();
        let other = || match self.next_task()? {
            Task::LookAgain => None,
            Task::Prepare(bytes) if Some(bytes) == asked => None,
            task => Some(Some(task)),
        };
        let needed = || (!was_needed && self.removals_need_segment()).then_some(None);
        let change = self.log.needs().wait_for(|| needed().or_else(other));
        let pause = async {
            futures_lite::future::or(
                self.space_freed.notified(),
                self.env.sleep(RETRY_NANOSECONDS),
            )
            .await;
            None
        };
        futures_lite::future::or(pause, change).await
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
        // What a merge has replaced is gone in a moment: no file is given back in its place, to be
        // made anew then.
        let is_settled = || self.others_are_short() || !self.tables_are_going();
        if (ready > 0 && !self.keeps_file(ready - 1) && is_settled()) || is_leased() {
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
