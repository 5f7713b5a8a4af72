//! Pages of items in order.
//!
//! What a page shows is one moment's: memtables and tables are looked at once, when it begins. The
//! value cache gives what it has, and keeps it as it is; the other values are read while the index
//! is gone through (`page_values.rs`).
//!
//! The segment of a value is pinned when the page comes to it. If it was freed since the page
//! began, what lay there was moved, or is no more: then the page begins again, at a new moment, and
//! pins all segments of that.
//!
//! A page ends in front of what cannot be read, and one that begins there fails, unless it is to
//! leave that out.

use std::cell::RefCell;
use std::rc::Rc;

use larder_runtime::env::{Env, IoClass};

use super::Shard;
use super::answer::shown_len;
use super::leases::Lease;
use super::page_values::{PageValues, leave_out};
use super::pins::{SegmentPin, SnapshotPin};
use crate::entry::{Payload, Pointer};
use crate::error::EngineError;
use crate::index::scan::{IndexScan, ScanRange, Scanned};
use crate::index::table::key_hash;
use crate::key::{self, Key};
use crate::scan::{LastUse, Page, PageItem, PagePlace, Scan};
use crate::space::Readers;
use crate::value_log::WantedValue;

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

/// What a page shows is of this moment.
struct PageMoment<E: Env> {
    /// In Unix seconds.
    now: u32,
    /// How far the log has to be acknowledged in any case.
    needs: u64,
    /// What is kept of it, if it is not the present.
    leased: Option<Rc<Lease<E>>>,
    /// Keeps all segments of the present, if the page keeps more than those that it comes to.
    all: Option<SnapshotPin>,
}

impl<E: Env> PageMoment<E> {
    /// Whether every segment that the page may come to stays until its end.
    fn keeps_all(&self) -> bool {
        self.leased.is_some() || self.all.is_some()
    }
}

impl<E: Env> Shard<E> {
    /// A page of the items that `scan` asks for and that live: a snapshot of one moment after the
    /// call, or of the lease's. Near its deadline it ends early, with at least one item or a place
    /// further on.
    ///
    /// Memory: the page, at most `items_max` items with `bytes_max` bytes unless the first has
    /// more; a copy of at most 1,024 entries of memtables; up to 128 KiB for each sorted run of
    /// tables in the range; and what is read at a time, at most as many bytes as the page may have,
    /// and at least 128 KiB and at most 1 MiB, or one value.
    ///
    /// # Errors
    ///
    /// [`EngineError::Damaged`] and [`EngineError::Read`] if what the page begins with cannot be
    /// read, and is not to be left out; [`EngineError::LeaseEnded`].
    pub fn scan(
        self: &Rc<Self>,
        scan: Scan,
    ) -> impl Future<Output = Result<Page, EngineError>> + use<E> {
        let shard = Rc::clone(self);
        async move { shard.scan_now(&scan).await }
    }

    /// The same for who has the shard anyway.
    pub(super) async fn scan_now(&self, scan: &Scan) -> Result<Page, EngineError> {
        if scan.is_empty() {
            return Ok(Page::default());
        }
        let leased = scan.lease.map(|id| self.leased(id)).transpose()?;
        if leased.is_none() {
            self.apply_due_flush().await?;
        }
        self.scan_at(scan, leased).await
    }

    /// The same, where a flush that is due need not be carried out before.
    pub(super) async fn scan_as_is(&self, scan: &Scan) -> Result<Page, EngineError> {
        self.scan_at(scan, None).await
    }

    async fn scan_at(
        &self,
        scan: &Scan,
        leased: Option<Rc<Lease<E>>>,
    ) -> Result<Page, EngineError> {
        let is_leased = leased.is_some();
        let mut moment = self.moment(leased);
        let page = loop {
            match self.page_at(scan, &moment).await {
                Ok(Some(page)) => break Ok(page),
                Ok(None) => moment = PageMoment { all: Some(self.pin_all()), ..self.moment(None) },
                Err(error) => break Err(error),
            }
        };
        drop(moment);
        if is_leased {
            // The lease may have ended meanwhile: then nobody else looks at what it kept.
            self.look_for_files();
        } else {
            self.release_files();
        }
        page
    }

    /// The moment of a lease, or the present.
    fn moment(&self, leased: Option<Rc<Lease<E>>>) -> PageMoment<E> {
        let (now, needs) = match &leased {
            Some(lease) => (lease.unix_now, lease.needs),
            None => (self.unix_now(), self.state.borrow().namespaces.flushed_end()),
        };
        PageMoment { now, needs, leased, all: None }
    }

    fn pin_all(&self) -> SnapshotPin {
        let below = self.journal.state().segment_id_next;
        self.pins.snapshot(below, Readers::Operations, self.env.now())
    }

    fn begin(&self, scan: &Scan, moment: &PageMoment<E>) -> IndexScan<E> {
        let namespace = scan.namespace();
        let generation = match &moment.leased {
            Some(lease) => lease.generation(namespace),
            None => self.state.borrow().namespaces.generation(namespace),
        };
        let (start, end) = scan.bounds(generation);
        let Scan { is_reverse, passes_damage: passes_lost, .. } = *scan;
        let range = ScanRange { start, end, is_reverse, passes_lost };
        let begun = match &moment.leased {
            Some(lease) => self.index.scan_snapshot(&lease.snapshot, range, IoClass::Scan),
            None => self.index.scan(range, IoClass::Scan),
        };
        begun.expecting(self.expected_items(scan))
    }

    /// About how many items a page has if the range does not end before.
    fn expected_items(&self, scan: &Scan) -> usize {
        let mean = self.index.estimate().mean_record_bytes;
        let mean = if scan.keys_only { 1 } else { usize::try_from(mean).unwrap_or(usize::MAX) };
        scan.items_max.min(scan.bytes_max / mean.max(1))
    }

    /// A page of `moment`, which begins now unless it is a lease's: values are read while the index
    /// is gone through. `None` if it has come to a segment that was freed since.
    async fn page_at(
        &self,
        scan: &Scan,
        moment: &PageMoment<E>,
    ) -> Result<Option<Page>, EngineError> {
        let begun = self.begin(scan, moment);
        let values = RefCell::new(PageValues::new(scan.bytes_max));
        let walk = async {
            let walked = self.walk(scan, begun, moment, &values).await;
            if !matches!(walked, Ok(Some(_))) {
                values.borrow_mut().abandon();
            }
            values.borrow_mut().complete();
            walked
        };
        let (walked, ()) = futures_lite::future::zip(walk, self.read_values(&values)).await;
        let Some(mut page) = walked? else { return Ok(None) };
        let lost = values.into_inner().put_into(&mut page.items)?;
        let Some((first, error)) = lost.first() else { return Ok(Some(page)) };
        if scan.passes_damage {
            page.is_damaged = true;
            leave_out(&mut page.items, &lost);
            return Ok(Some(page));
        }
        let before = first.checked_sub(1).ok_or_else(|| error.clone())?;
        page.items.truncate(*first);
        let PageItem { record, item, .. } = &page.items[before];
        let key = Key { namespace: scan.namespace(), record, item };
        page.next = Some(PagePlace::at(&key.encode()));
        Ok(Some(page))
    }

    /// Goes through the index, as far as the page goes; `None` as for [`Shard::page_at`].
    async fn walk(
        &self,
        scan: &Scan,
        mut begun: IndexScan<E>,
        moment: &PageMoment<E>,
        values: &RefCell<PageValues>,
    ) -> Result<Option<Page>, EngineError> {
        let mut page = Page { needs: moment.needs, ..Page::default() };
        let (mut bytes, mut examined) = (0, 0);
        let examined_max = EXAMINED_MIN.max(scan.items_max.saturating_mul(EXAMINED_PER_ITEM));
        let mut last: Option<Vec<u8>> = None;
        loop {
            let scanned = match self.index.next_scanned(&mut begun).await {
                Ok(Some(scanned)) => scanned,
                Ok(None) => {
                    page.next = begun.cut_at().map(PagePlace::at);
                    break;
                }
                Err(error) => {
                    page.next = Some(PagePlace::at(&last.ok_or(error)?));
                    break;
                }
            };
            page.needs = page.needs.max(scanned.sequence_end);
            let item = self.page_item(&scanned, moment);
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
                    let wanted = WantedValue { pointer, value_len, key: scanned.key.clone() };
                    item.value = self.cached_value(&wanted);
                    if item.value.is_none() {
                        let Some(pin) = self.pin_value(pointer, moment) else { return Ok(None) };
                        values.borrow_mut().add(page.items.len(), wanted, pin);
                    }
                }
                page.items.push(item);
            }
            last = Some(scanned.key);
            if is_turn(examined) {
                self.env.yield_if_needed().await;
            }
        }
        page.is_damaged = begun.has_left_out();
        Ok(Some(page))
    }

    /// Pins the segment of a value that a page of `moment` has come to; `None` if it was freed
    /// since that.
    fn pin_value(&self, pointer: Pointer, moment: &PageMoment<E>) -> Option<SegmentPin> {
        let is_there = moment.keeps_all() || !self.is_gone(pointer.segment);
        is_there.then(|| self.pins.segment(pointer.segment, self.env.now()))
    }

    /// Whether no further entry is to be looked at for want of time.
    pub(super) fn is_late(&self, scan: &Scan) -> bool {
        scan.deadline.is_some_and(|deadline| self.env.now() >= deadline)
    }

    /// The item that an entry stands for, if it lives; with its value if that is in the index.
    fn page_item(&self, scanned: &Scanned, moment: &PageMoment<E>) -> Option<PageItem> {
        let entry = scanned.entry.as_entry();
        let metadata = entry.metadata;
        let had_expired = |pointer: Pointer| match &moment.leased {
            Some(lease) => lease.had_expired(pointer, metadata),
            None => self.journal.state().had_expired(pointer.segment, metadata.expiry),
        };
        if metadata.is_expired(moment.now) || entry.pointer().is_some_and(had_expired) {
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
}
