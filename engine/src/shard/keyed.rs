//! Pages by a list of keys: look-ups as for single operations, all at one moment.
//!
//! The page takes the turns on all its keys at once, so none of them changes while it is made: who
//! changes several together is seen with all of it or none. As pages in order do it leaves both
//! caches as they are.

use std::rc::Rc;

use larder_runtime::env::Env;

use super::Shard;
use super::locate::Located;
use super::scan::Unread;
use crate::concurrent::concurrently;
use crate::error::EngineError;
use crate::index::table::key_hash;
use crate::key::Key;
use crate::keyed::{KeyedItems, KeyedPage};
use crate::scan::{Page, PageItem, Scan};

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
    /// As [`Shard::scan`].
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
        let _pin = self.pins.enter(self.env.now());
        for key in &mut *keys {
            self.state.borrow().set_generation(namespace, key);
        }
        let (now, began) = (self.unix_now(), self.log.sequence_next());
        let mut making = Making::new(&asked.limits, self.state.borrow().namespaces.flushed_end());
        'keys: for some in keys.chunks(LOOK_UPS_MAX) {
            let look_up = |key| self.locate(key, key_hash(key), now, false);
            let found = concurrently(LOOK_UPS_MAX, some.iter().map(|key| look_up(key))).await;
            for (key, located) in some.iter().zip(found) {
                if !making.take(key, located?, now) {
                    break 'keys;
                }
            }
            if self.is_late(&asked.limits) {
                break;
            }
        }
        let Making { mut page, unread, looked_at, .. } = making;
        self.read_values(&mut page, unread).await?;
        let alive = self.state.borrow().namespaces.generation(namespace).to_be_bytes();
        let is_outdated =
            |key: &Vec<u8>| key[..4] != alive || self.index.may_be_deleted_since(key, began);
        if keys[..looked_at].iter().any(is_outdated) {
            return Ok(None);
        }
        let next = (looked_at < keys.len()).then_some(asked.first + looked_at);
        Ok(Some(KeyedPage { items: page.items, next, needs: page.needs }))
    }
}

/// A page that is being made.
struct Making<'a> {
    limits: &'a Scan,
    page: Page,
    unread: Vec<Unread>,
    bytes: usize,
    looked_at: usize,
}

impl<'a> Making<'a> {
    fn new(limits: &'a Scan, needs: u64) -> Self {
        let page = Page { needs, ..Page::default() };
        Self { limits, page, unread: Vec::new(), bytes: 0, looked_at: 0 }
    }

    /// Takes what was found of the next key; false if there is no more room for it.
    fn take(&mut self, key: &[u8], mut located: Located, now: u32) -> bool {
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
            let value = located.value.take().filter(|_| is_shown);
            if let Some(pointer) = located.pointer()
                && is_shown
                && value.is_none()
            {
                let (item, key) = (self.page.items.len(), key.to_vec());
                let value_len = u32::try_from(value_len).expect("values have less than 4 GiB");
                self.unread.push(Unread { item, key, pointer, value_len });
            }
            let crate::key::DecodedKey { record, item, .. } =
                crate::key::decode(key).expect("it was encoded here");
            let metadata = located.metadata;
            let last_use = None;
            self.page.items.push(PageItem { record, item, metadata, value_len, value, last_use });
        }
        self.page.needs = self.page.needs.max(located.sequence_end);
        self.looked_at += 1;
        true
    }
}
