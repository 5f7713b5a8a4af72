//! The task that scrubs, and what it needs of the shard.

use std::ops::Bound;
use std::rc::Rc;

use larder_runtime::env::Env;

use super::Shard;
use crate::error::EngineError;
use crate::index::table::Table;
use crate::scrub::{ScrubFile, ScrubHost};
use crate::value_log::segment::Segment;

impl<E: Env> Shard<E> {
    pub(super) async fn keep_scrubbing(self: Rc<Self>) {
        self.scrubber.run(&*self).await;
    }
}

impl<E: Env> ScrubHost<E> for Shard<E> {
    fn next_file(&self, after: Option<ScrubFile>) -> Option<ScrubFile> {
        let number = match after {
            None => Bound::Unbounded,
            Some(ScrubFile::Table(id)) => match self.index.table_after(Some(id)) {
                Some(id) => return Some(ScrubFile::Table(id)),
                None => Bound::Unbounded,
            },
            Some(ScrubFile::Segment(number)) => Bound::Excluded(number),
        };
        if after.is_none()
            && let Some(id) = self.index.table_after(None)
        {
            return Some(ScrubFile::Table(id));
        }
        let journal = self.journal.state();
        let mut behind = journal.segments.range((number, Bound::Unbounded));
        let full = behind.find(|(_, segment)| segment.sealed.is_some());
        full.map(|(number, _)| ScrubFile::Segment(*number))
    }

    fn table(&self, id: u64) -> Option<Rc<Table<E>>> {
        self.index.table(id)
    }

    fn segment_end(&self, number: u32) -> Option<u32> {
        Some(self.journal.state().segments.get(&number)?.sealed?.end)
    }

    async fn segment(&self, number: u32) -> Result<Option<Rc<Segment<E::File>>>, EngineError> {
        self.log.segment(number).await
    }

    fn has_let_go(&self) {
        self.release_files();
    }

    fn has_found_damage(&self) {
        self.work.notify();
    }

    fn is_closing(&self) -> bool {
        self.state.borrow().closing || self.log.stopped().is_some()
    }
}
