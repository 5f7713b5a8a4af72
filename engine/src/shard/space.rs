//! The shard's part of the disk: for what there is space and for what not. Each file here is one
//! thing that is done for it: `keeper` supplies the log, `next_segment` makes segments,
//! `growth` says whether the log may grow for writes, `freeing` frees segments and gives files
//! back, `accounts` reckons with the node's budget.

mod accounts;
mod freeing;
mod growth;
mod keeper;
mod next_segment;

use larder_runtime::disk_budget::DiskBudget;
use larder_runtime::env::Env;

use super::Shard;
use super::refusals::Line;

/// What manifest and superblock may take besides what the manifest says of other files.
pub(super) const MANIFEST_BYTES: u64 = 2 << 20;

/// Whether the log may grow for changes that are not deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ingest {
    /// It may.
    #[default]
    Open,
    /// Not before something is freed, and there is something to free: who writes has to wait.
    Waiting,
    /// There is no space, and nothing to free.
    Refused,
}

/// For what there is no space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fullness {
    pub ingest: Ingest,
    /// There is no room to write the memtable out.
    pub flushes: bool,
    /// There is no room for an edit of the manifest.
    pub manifest: bool,
    /// Merging tables does not go on: there is no room, or damage has stopped it.
    pub merges: bool,
    /// There is no room to collect garbage.
    pub collections: bool,
    /// The log has no room for deletes and moves, and nothing frees any.
    pub removals: bool,
    /// The log has begun to use the reserve, which is for deletes and moves.
    pub reserve_in_use: bool,
}

impl Fullness {
    /// Whether writes are refused.
    pub(super) fn refuses(self) -> bool {
        self.ingest == Ingest::Refused || self.flushes || self.manifest
    }

    /// Whether others had better give back what they can do without.
    fn is_shortage(self) -> bool {
        self.refuses() || self.collections || self.removals
    }
}

impl<E: Env> Shard<E> {
    /// Notes for what there is space and for what not, and lets those look again who wait.
    pub(super) fn note_full(&self, note: impl FnOnce(&mut Fullness)) {
        let (before, after) = {
            let mut state = self.state.borrow_mut();
            let before = state.full;
            note(&mut state.full);
            (before, state.full)
        };
        if before == after {
            return;
        }
        if before.is_shortage() != after.is_shortage() {
            let shortage = after.is_shortage().then(|| DiskBudget::shortage(&self.options.budget));
            self.shortage.replace(shortage);
        }
        self.tell_of_refusals();
        self.offer_room();
    }

    /// Says in the log whether writes are refused, if it has changed and it is time to.
    pub(super) fn tell_of_refusals(&self) {
        let is_refusing = self.state.borrow().full.refuses();
        let mut refusals = self.refusals.get();
        let line = refusals.see(is_refusing, self.env.now());
        self.refusals.set(refusals);
        let Some(Line { is_refusing, times }) = line else { return };
        let (directory, times) = (self.directory.display(), times);
        if is_refusing {
            tracing::warn!(
                %directory,
                times,
                "there is no space: writes are refused, reads and deletes go on"
            );
        } else {
            tracing::info!(%directory, times, "there is space again: writes are accepted");
        }
    }
}
