//! Chunks to which no item refers any more, or that were never committed, go.
//!
//! All uploads of the shard are looked at in turn, slowly and for ever: an upload costs a look-up
//! of its item. Sooner or later that finds whatever has become of the item, so nothing has to be
//! told to this task, and nothing is lost when it is interrupted.

use std::rc::Rc;

use larder_runtime::env::Env;

use super::upload::Stage;
use super::{LARGE_NAMESPACE, UPLOADS, Upload};
use crate::canary::{self, Defect};
use crate::error::EngineError;
use crate::index::table::key_hash;
use crate::key::{Key, display};
use crate::large::LargeValue;
use crate::operation::{EXPIRED, Operation, Outcome, Store, StoreMode};
use crate::scan::Scan;
use crate::shard::{OperationBuf, Shard};

/// Uploads that are looked at before there is a pause.
const PAGE_UPLOADS: usize = 256;

/// A pause is this part of the time between two rounds.
const PAUSES_PER_ROUND: u64 = 64;

/// While space is short, so much less is waited.
const SHORT_OF_SPACE_PART: u64 = 16;

/// How long to wait before uploads are looked at again of which something cannot be read, in
/// nanoseconds.
const RETRY_DAMAGED_NANOSECONDS: u64 = 60_000_000_000;

impl<E: Env> Shard<E> {
    /// Looks again and again whether chunks are still needed.
    pub(in crate::shard) async fn keep_uploads(self: Rc<Self>) {
        let round = self.options.large.round_nanoseconds;
        loop {
            let rest = match self.sweep_uploads().await {
                Ok(()) | Err(EngineError::Full) => round,
                Err(EngineError::Stopped(_)) => return,
                Err(error) => {
                    tracing::error!("chunks of large values are not collected: {error}");
                    round.max(RETRY_DAMAGED_NANOSECONDS)
                }
            };
            if self.rest(rest).await {
                return;
            }
        }
    }

    /// Looks at every upload once. What cannot be read keeps no other back; the last such error is
    /// returned.
    async fn sweep_uploads(self: &Rc<Self>) -> Result<(), EngineError> {
        let mut scan = Scan::of_record(LARGE_NAMESPACE, UPLOADS);
        (scan.keys_only, scan.items_max) = (true, PAGE_UPLOADS);
        let mut result = Ok(());
        loop {
            let page = self.scan_as_is(&scan).await?;
            let mut has_found = false;
            for found in &page.items {
                let Ok(number) = found.item.as_slice().try_into().map(u64::from_be_bytes) else {
                    continue;
                };
                match self.sweep_upload(number).await {
                    Err(error @ (EngineError::Damaged { .. } | EngineError::Read(_))) => {
                        result = Err(error);
                    }
                    swept => has_found |= swept?,
                }
                self.env.yield_if_needed().await;
            }
            let Some(place) = page.next else { return result };
            scan = scan.after(&place);
            // Where some go there may be more, and who makes them is not to be faster than this.
            if !has_found
                && self.rest(self.options.large.round_nanoseconds / PAUSES_PER_ROUND).await
            {
                return result;
            }
        }
    }

    /// Waits; true if the shard is being closed.
    async fn rest(&self, nanoseconds: u64) -> bool {
        let is_short = self.state.borrow().full.refuses();
        let part = if is_short { SHORT_OF_SPACE_PART } else { 1 };
        let is_ending = || self.state.borrow().closing || self.log.stopped().is_some();
        let ended = async {
            self.work.wait_for(|| is_ending().then_some(())).await;
        };
        futures_lite::future::or(ended, self.env.sleep(nanoseconds / part)).await;
        is_ending()
    }

    /// Deletes an upload and its chunks if they are not needed any more; says whether it did, or
    /// met the upload for the first time.
    async fn sweep_upload(self: &Rc<Self>, number: u64) -> Result<bool, EngineError> {
        let _turn = self.turn_on(number).await;
        let (Some(upload), _) = self.upload(number).await? else { return Ok(false) };
        let is_new = self.state.borrow_mut().uploads.meet(number, &upload);
        let is_needed = match upload.stage {
            Stage::Staged => {
                let takes = self.state.borrow().namespaces.takes(upload.namespace);
                let now = self.unix_now();
                let is_overdue =
                    || self.state.borrow().uploads.is_overdue(number, now, &self.options.large);
                takes && now < upload.until && !is_overdue()
            }
            Stage::Committed if canary::has(Defect::CollectLivingChunks) => false,
            Stage::Committed => self.is_referred_to(number, &upload).await?,
        };
        if !is_needed {
            self.collect_chunks(number, &upload).await?;
        }
        Ok(is_new || !is_needed)
    }

    /// Whether the item of a committed upload has its value. One that has expired has it no more,
    /// and is deleted: if the clock went back it would be an item without its chunks.
    async fn is_referred_to(
        self: &Rc<Self>,
        number: u64,
        upload: &Upload,
    ) -> Result<bool, EngineError> {
        let Upload { namespace, record, item, .. } = upload;
        let key = Key { namespace: *namespace, record, item };
        loop {
            if let Some(found) = self.look_at(&key).await? {
                return Ok(found.is_some_and(|large| large.upload == number));
            }
            if !self.state.borrow().namespaces.takes(*namespace) {
                return Ok(false);
            }
            let gone = Store { expiry: EXPIRED, ..Store::plain(StoreMode::Add, b"") };
            let bury = OperationBuf::new(&Operation::Store(gone));
            match self.execute(&key, bury).await {
                Ok((answer, _)) if answer.as_answer().outcome == Outcome::Stored => {
                    return Ok(false);
                }
                // Something was stored meanwhile.
                Ok(_) => {}
                Err(EngineError::NoNamespace(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// The item of this key, if there is one, and the large value that it has, if it has one. Other
    /// values are not read, and the value cache stays as it is.
    async fn look_at(&self, key: &Key<'_>) -> Result<Option<Option<LargeValue>>, EngineError> {
        let mut encoded = key.encode();
        let turn = self.turns.enter(key_hash(&encoded));
        turn.come().await;
        self.state.borrow().set_generation(key.namespace, &mut encoded);
        let now = self.unix_now();
        let located = self.locate(&encoded, key_hash(&encoded), now, false).await;
        drop(turn);
        self.release_files();
        let located = located?;
        if located.metadata.is_large() && located.large().is_none() {
            let reason = "what stands for the large value cannot be read".to_owned();
            return Err(EngineError::Damaged { key: display(&encoded), reason });
        }
        Ok(located.current(now).map(|_| located.large()))
    }
}
