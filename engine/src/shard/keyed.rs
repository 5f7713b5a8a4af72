//! Pages by a list of keys: look-ups as for single operations, all at one moment.
//!
//! The page takes the turns on all its keys at once, so none of them changes while it is made: who
//! changes several together is seen with all of it or none. As pages in order do it leaves both
//! caches as they are.

use std::cell::RefCell;
use std::rc::Rc;

use larder_runtime::env::Env;

use super::Shard;
use super::locate::Located;
use super::page_values::{PageValues, leave_out};
use super::pins::SegmentPin;
use crate::concurrent::concurrently;
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::index::table::key_hash;
use crate::key::Key;
use crate::keyed::{KeyedItems, KeyedPage};
use crate::scan::{PageItem, Scan};
use crate::value_log::WantedValue;

/// Keys that are looked up at a time.
const LOOK_UPS_MAX: usize = 16;

impl<E: Env> Shard<E> {
    /// The items that `asked` names and that live, as they are at one moment after the call, from
    /// the first of the list on as far as the limits allow. Near its deadline the page ends early,
    /// with at least one key looked at. It takes its places in the lines of its keys now, not when
    /// the future is first polled.
    ///
    /// Memory: the page, as for [`Shard::scan`], and the values in memory of 16 items.
    ///
    /// # Errors
    ///
    /// As [`Shard::scan`]. Of keys that cannot be looked up, or whose values cannot be read, those
    /// in front of the first are given.
    pub fn keyed_items(
        self: &Rc<Self>,
        asked: KeyedItems,
    ) -> impl Future<Output = Result<KeyedPage, EngineError>> + use<E> {
        let namespace = asked.limits.namespace();
        let record = asked.record.as_slice();
        let encode = |item: &Vec<u8>| Key { namespace, record, item }.encode();
        let mut keys: Vec<Vec<u8>> = asked.keys.iter().skip(asked.first).map(encode).collect();
        let mut hashes: Vec<u64> = keys.iter().map(|key| key_hash(key)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let turns: Vec<_> = hashes.into_iter().map(|hash| self.turns.enter(hash)).collect();
        let shard = Rc::clone(self);
        async move {
            for turn in &turns {
                turn.come().await;
            }
            let page = loop {
                match shard.keyed_page(&asked, &mut keys).await {
                    Ok(Some(page)) => break Ok(page),
                    // What was looked up is gone, with others.
                    Ok(None) => futures_lite::future::yield_now().await,
                    Err(error) => break Err(error),
                }
            };
            drop(turns);
            shard.release_files();
            page
        }
    }

    /// A page; `None` if something has taken items away meanwhile, whoever has their turns.
    async fn keyed_page(
        &self,
        asked: &KeyedItems,
        keys: &mut [Vec<u8>],
    ) -> Result<Option<KeyedPage>, EngineError> {
        self.apply_due_flush().await?;
        let namespace = asked.limits.namespace();
        for key in &mut *keys {
            self.state.borrow().set_generation(namespace, key);
        }
        let (now, began) = (self.unix_now(), self.log.sequence_next());
        let mut making = Making::new(&asked.limits, self.state.borrow().namespaces.flushed_end());
        'keys: for some in keys.chunks(LOOK_UPS_MAX) {
            let look_up = |key| self.locate_pinned(key, now);
            let found = concurrently(LOOK_UPS_MAX, some.iter().map(|key| look_up(key))).await;
            for (key, found) in some.iter().zip(found) {
                let goes_on = match found {
                    Ok(found) => making.take(self, key, found, now),
                    Err(error) => making.pass(error)?,
                };
                if !goes_on {
                    break 'keys;
                }
            }
            if self.is_late(&asked.limits) {
                break;
            }
        }
        let page = self.with_values(making).await?;
        let alive = self.state.borrow().namespaces.generation(namespace).to_be_bytes();
        let is_outdated =
            |key: &Vec<u8>| key[..4] != alive || self.index.may_be_deleted_since(key, began);
        let looked_at = page.next.unwrap_or(keys.len());
        if keys[..looked_at].iter().any(is_outdated) {
            return Ok(None);
        }
        let next = (looked_at < keys.len()).then_some(asked.first + looked_at);
        Ok(Some(KeyedPage { next, ..page }))
    }

    /// What is found of a key; the segment of its value stays for as long as the pin is held.
    async fn locate_pinned(
        &self,
        key: &[u8],
        now: u32,
    ) -> Result<(Located, Option<SegmentPin>), EngineError> {
        let located = self.locate(key, key_hash(key), now, false).await?;
        let pin = |pointer: Pointer| self.pins.segment(pointer.segment, self.env.now());
        let pin = located.pointer().filter(|_| located.value.is_none()).map(pin);
        Ok((located, pin))
    }

    /// The page with its values, as far as they can be read; it says under `next` how many keys it
    /// has looked at.
    async fn with_values(&self, making: Making<'_>) -> Result<KeyedPage, EngineError> {
        let Making { mut page, mut values, places, looked_at, limits, .. } = making;
        values.complete();
        let values = RefCell::new(values);
        self.read_values(&values).await;
        page.next = Some(looked_at);
        let lost = values.into_inner().put_into(&mut page.items)?;
        let Some((first, error)) = lost.first() else { return Ok(page) };
        if limits.passes_damage {
            page.is_damaged = true;
            leave_out(&mut page.items, &lost);
            return Ok(page);
        }
        if places[*first] == 0 {
            return Err(error.clone());
        }
        page.items.truncate(*first);
        page.next = Some(places[*first]);
        Ok(page)
    }
}

/// A page that is being made.
struct Making<'a> {
    limits: &'a Scan,
    page: KeyedPage,
    values: PageValues,
    /// By item, the place of its key in the list.
    places: Vec<usize>,
    bytes: usize,
    looked_at: usize,
}

impl<'a> Making<'a> {
    fn new(limits: &'a Scan, needs: u64) -> Self {
        let page = KeyedPage { needs, ..KeyedPage::default() };
        let (values, places) = (PageValues::new(limits.bytes_max), Vec::new());
        Self { limits, page, values, places, bytes: 0, looked_at: 0 }
    }

    /// Passes over a key that cannot be looked up; false if the page ends in front of it.
    fn pass(&mut self, error: EngineError) -> Result<bool, EngineError> {
        let is_damage = matches!(error, EngineError::Damaged { .. } | EngineError::Read(_));
        if is_damage && self.limits.passes_damage {
            self.page.is_damaged = true;
            self.looked_at += 1;
            return Ok(true);
        }
        if is_damage && self.looked_at > 0 { Ok(false) } else { Err(error) }
    }

    /// Takes what was found of the next key; false if there is no more room for it.
    fn take<E: Env>(
        &mut self,
        shard: &Shard<E>,
        key: &[u8],
        (mut located, pin): (Located, Option<SegmentPin>),
        now: u32,
    ) -> bool {
        if located.current(now).is_some() {
            let value_len = located.shown_len();
            let is_whole = !self.limits.keys_only && !located.metadata.is_large();
            let is_shown = is_whole && value_len <= self.limits.value_bytes_max;
            let more = key.len() + if is_shown { value_len } else { 0 };
            let is_full = self.page.items.len() >= self.limits.items_max.max(1)
                || (self.bytes + more > self.limits.bytes_max && !self.page.items.is_empty());
            if is_full {
                return false;
            }
            self.bytes += more;
            let mut value = located.value.take().filter(|_| is_shown);
            if let (Some(pointer), Some(pin)) = (located.pointer(), pin)
                && is_shown
            {
                let value_len = u32::try_from(value_len).expect("values have less than 4 GiB");
                let wanted = WantedValue { pointer, value_len, key: key.to_vec() };
                value = shard.cached_value(&wanted);
                if value.is_none() {
                    self.values.add(self.page.items.len(), wanted, pin);
                }
            }
            let crate::key::DecodedKey { record, item, .. } =
                crate::key::decode(key).expect("it was encoded here");
            let metadata = located.metadata;
            let last_use = None;
            self.places.push(self.looked_at);
            self.page.items.push(PageItem { record, item, metadata, value_len, value, last_use });
        }
        self.page.needs = self.page.needs.max(located.sequence_end);
        self.looked_at += 1;
        true
    }
}
