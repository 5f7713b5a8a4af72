//! Pages of items in order.
//!
//! What a page shows is one moment's: memtables and tables are looked at once, when it begins, and
//! a pin keeps the segments that they point into. Values are read in the order in which they lie
//! on the device. The value cache gives what it has, and keeps it as it is.

use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::Shard;
use super::answer::shown_len;
use crate::concurrent::concurrently;
use crate::entry::{Payload, Pointer};
use crate::error::EngineError;
use crate::index::scan::{IndexScan, ScanRange, Scanned};
use crate::index::table::key_hash;
use crate::key;
use crate::scan::{LastUse, Page, PageItem, PagePlace, Scan};

/// Values of a page that are read at a time: what a device needs for most of its rate.
const READS_MAX: usize = 32;

/// Entries that a page looks at for each item that it may have, and at least: behind many deleted
/// items a page ends early, so that none takes without end.
const EXAMINED_PER_ITEM: usize = 4;
const EXAMINED_MIN: usize = 4096;

/// After so many entries others may have a turn.
const TURN_ENTRIES: usize = 64;

/// Whether so many entries are a multiple of those behind which others may have a turn.
fn is_turn(examined: usize) -> bool {
    examined > 0 && examined.is_multiple_of(TURN_ENTRIES)
}

/// A value that is still to be read.
pub(super) struct Unread {
    /// The item's place in the page.
    pub(super) item: usize,
    pub(super) key: Vec<u8>,
    pub(super) pointer: Pointer,
    pub(super) value_len: u32,
}

impl<E: Env> Shard<E> {
    /// A page of the items that `scan` asks for and that live: a snapshot of one moment after the
    /// call. Near its deadline it ends early, with at least one item or a place further on.
    ///
    /// Memory: the page, at most `items_max` items with `bytes_max` bytes unless the first has
    /// more; a copy of at most 1,024 entries of memtables; and up to 128 KiB for each sorted run of
    /// tables in the range.
    ///
    /// # Errors
    ///
    /// [`EngineError::Damaged`] and [`EngineError::Read`] if part of the range, or a value in it,
    /// cannot be read.
    pub fn scan(
        self: &Rc<Self>,
        scan: Scan,
    ) -> impl Future<Output = Result<Page, EngineError>> + use<E> {
        let shard = Rc::clone(self);
        async move {
            if scan.is_empty() {
                return Ok(Page::default());
            }
            shard.apply_due_flush().await?;
            shard.scan_as_is(&scan).await
        }
    }

    /// The same, where a flush that is due need not be carried out before.
    pub(super) async fn scan_as_is(&self, scan: &Scan) -> Result<Page, EngineError> {
        // Before the index is looked at: what it points to stays until the page is there.
        let pin = self.pins.enter(self.env.now());
        let (begun, needs) = self.begin(scan);
        let page = self.page(scan, begun, needs, self.unix_now()).await;
        drop(pin);
        self.release_files();
        page
    }

    fn begin(&self, scan: &Scan) -> (IndexScan<E>, u64) {
        let state = self.state.borrow();
        let (start, end) = scan.bounds(state.namespaces.generation(scan.namespace()));
        let range = ScanRange { start, end, is_reverse: scan.is_reverse };
        (self.index.scan(range, IoClass::Scan), state.namespaces.flushed_end())
    }

    async fn page(
        &self,
        scan: &Scan,
        mut begun: IndexScan<E>,
        needs: u64,
        now: u32,
    ) -> Result<Page, EngineError> {
        let mut page = Page { needs, ..Page::default() };
        let (mut unread, mut bytes, mut examined) = (Vec::new(), 0, 0);
        let examined_max = EXAMINED_MIN.max(scan.items_max.saturating_mul(EXAMINED_PER_ITEM));
        let mut last: Option<Vec<u8>> = None;
        loop {
            let Some(scanned) = self.index.next_scanned(&mut begun).await? else {
                page.next = begun.cut_at().map(PagePlace::at);
                break;
            };
            page.needs = page.needs.max(scanned.sequence_end);
            let item = self.page_item(&scanned, now);
            let shows_value = |item: &PageItem| {
                let is_whole = !scan.keys_only && !item.metadata.is_large();
                is_whole && item.value_len <= scan.value_bytes_max
            };
            let more = item.as_ref().map_or(0, |item| {
                let value = if shows_value(item) { item.value_len } else { 0 };
                scanned.key.len() + value
            });
            let is_full = page.items.len() >= scan.items_max.max(1)
                || (bytes + more > scan.bytes_max && !page.items.is_empty());
            let is_over = examined >= examined_max || (is_turn(examined) && self.is_late(scan));
            if (is_full && item.is_some()) || is_over {
                page.next = last.as_deref().map(PagePlace::at);
                break;
            }
            examined += 1;
            bytes += more;
            if let Some(mut item) = item {
                if scan.shows_use {
                    item.last_use = self.last_use(&scanned.key);
                }
                if !shows_value(&item) {
                    item.value = None;
                } else if let Payload::Separate(pointer, value_len) =
                    scanned.entry.as_entry().payload
                {
                    let key = scanned.key.clone();
                    unread.push(Unread { item: page.items.len(), key, pointer, value_len });
                }
                page.items.push(item);
            }
            last = Some(scanned.key);
            if is_turn(examined) {
                self.env.yield_if_needed().await;
            }
        }
        self.read_values(&mut page, unread).await?;
        Ok(page)
    }

    /// Whether no further entry is to be looked at for want of time.
    pub(super) fn is_late(&self, scan: &Scan) -> bool {
        scan.deadline.is_some_and(|deadline| self.env.now() >= deadline)
    }

    /// The item that an entry stands for, if it lives; with its value if that is in the index.
    fn page_item(&self, scanned: &Scanned, now: u32) -> Option<PageItem> {
        let entry = scanned.entry.as_entry();
        let metadata = entry.metadata;
        let had_expired =
            |pointer: Pointer| self.journal.state().had_expired(pointer.segment, metadata.expiry);
        if metadata.is_expired(now) || entry.pointer().is_some_and(had_expired) {
            return None;
        }
        let (value_len, value) = match entry.payload {
            Payload::Tombstone => return None,
            Payload::Inline(value) => (shown_len(&metadata, value), Some(value.to_vec())),
            Payload::Separate(_, len) => (len as usize, None),
        };
        let key::DecodedKey { record, item, .. } =
            key::decode(&scanned.key).expect("the index has encoded keys");
        Some(PageItem { record, item, metadata, value_len, value, last_use: None })
    }

    /// When the item of a key was used last, if it is in the value cache.
    fn last_use(&self, key: &[u8]) -> Option<LastUse> {
        let mut state = self.state.borrow_mut();
        let hit = state.items.access(key_hash(key), key, self.unix_now(), false)?;
        Some(LastUse { at: hit.item.last_access, is_fetched: hit.item.fetched })
    }

    /// Brings the values, from the value cache or from the device.
    pub(super) async fn read_values(
        &self,
        page: &mut Page,
        unread: Vec<Unread>,
    ) -> Result<(), EngineError> {
        let mut reads = Vec::new();
        {
            let state = self.state.borrow();
            for unread in unread {
                let cached = state.items.value_at(key_hash(&unread.key), unread.pointer);
                match cached.filter(|(key, _)| *key == unread.key) {
                    Some((_, value)) => page.items[unread.item].value = Some(value.to_vec()),
                    None => reads.push(unread),
                }
            }
        }
        reads.sort_unstable_by_key(|read| (read.pointer.segment, read.pointer.offset));
        let read = |unread: Unread| async move {
            let place = (unread.pointer, unread.value_len);
            let found = self.log.read(place, &unread.key, IoClass::Scan).await;
            (unread.item, found)
        };
        for found in concurrently(READS_MAX, reads.into_iter().map(read)).await {
            let (item, value) = found;
            self.state.borrow_mut().operations.value_reads += 1;
            page.items[item].value = Some(value?);
        }
        Ok(())
    }
}
