//! The segments that the collector of an earlier life has not filled: they get their ends, so that
//! they can be collected as all others.

use std::collections::BTreeMap;
use std::rc::Rc;

use larder_runtime::env::Env;

use super::Shard;
use crate::collector::abandoned::{self, SegmentEnd};
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::manifest::{self, Edit, SegmentSeal};
use crate::value_log::segment;

/// Segments of collected records that have no seal, and where the last record ends in each that the
/// index ever pointed to.
#[derive(Default)]
pub(super) struct Abandoned(BTreeMap<u32, u32>);

impl Abandoned {
    /// Those of which the manifest knows what the tables point to.
    pub(super) fn of(state: &manifest::State) -> Self {
        let open = state.segments.iter().filter(|(_, s)| !s.is_log() && s.sealed.is_none());
        Self(open.filter_map(|(number, s)| Some((*number, s.pointers_end()?))).collect())
    }

    /// Notes that a memtable points there.
    pub(super) fn see(&mut self, pointer: Pointer) {
        if let Some(end) = self.0.get_mut(&pointer.segment) {
            *end = pointer.end().max(*end);
        }
    }
}

impl<E: Env> Shard<E> {
    /// Seals the segments whose ends can be proven.
    pub(super) async fn seal_abandoned(self: Rc<Self>, abandoned: Abandoned) {
        for (number, pointers_end) in abandoned.0 {
            match self.seal_one(number, pointers_end).await {
                // Without space for the edit only if the shard is being closed.
                Ok(()) | Err(EngineError::Full) => {}
                Err(EngineError::Read(reason) | EngineError::Open(reason)) => {
                    tracing::error!(segment = number, "the segment stays open: {reason}");
                }
                Err(error) => return self.log.stop(format!("sealing a segment: {error}")),
            }
        }
        self.something_changed();
    }

    async fn seal_one(&self, number: u32, pointers_end: u32) -> Result<(), EngineError> {
        let Some(segment) = self.log.segment(number).await? else { return Ok(()) };
        let store = self.identity.store;
        let is_closing = || self.state.borrow().closing || self.log.stopped().is_some();
        let found = abandoned::end_of(&self.env, store, &segment, pointers_end, is_closing).await?;
        drop(segment);
        self.release_files();
        let end = match found {
            SegmentEnd::Proven(end) => end,
            SegmentEnd::Unproven => {
                tracing::error!(
                    file = segment::file_name(number),
                    pointers_end,
                    "the index points behind the last frame that can be read: the segment is \
                     damaged, and stays open"
                );
                return Ok(());
            }
            SegmentEnd::Unknown => return Ok(()),
        };
        let seal = SegmentSeal { segment: number, end, sequence_last: 0 };
        self.commit_edit(|state| {
            // Its last record may have died meanwhile, and the segment with it.
            state.segments.get(&number)?;
            Some(Edit { segments_sealed: vec![seal], ..Edit::default() })
        })
        .await
    }
}
