//! Lists of what is stored: one page after the other of the default namespace's scan, shard by
//! shard. Nothing is kept for a client that reads slowly but the page that it is given.

use std::sync::Arc;

use larder_engine::key::DEFAULT_NAMESPACE;
use larder_engine::scan::{Page, PageItem, PagePlace, Scan};
use larder_protocol::memcached::reply::{self, DumpedItem, END};
use larder_protocol::memcached::{Dump, DumpForm, ITEM_OVERHEAD_BYTES, KEY_BYTES_MAX};

use crate::limits::{DUMP_ITEMS, PAGE_BYTES_DEFAULT};
use crate::request::{ShardRequest, ShardWork};

/// The size class that all items are in.
pub(super) const CLASS: u32 = 1;

/// How far a list has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dumping {
    form: DumpForm,
    shard: u16,
    /// How many items may follow; `None` for all.
    left: Option<u32>,
    is_begun: bool,
}

impl Dumping {
    /// A list that begins.
    pub(super) fn new(dump: &Dump) -> Self {
        let left = match dump.form {
            DumpForm::Cache { limit } => (limit > 0).then_some(limit),
            DumpForm::Metadata | DumpForm::Keys => None,
        };
        Self { form: dump.form, shard: 0, left, is_begun: false }
    }

    /// The command.
    pub(super) fn dump(&self) -> Dump {
        Dump { form: self.form, has_items: true }
    }

    /// What the list asks for: the page behind `place`, or the shard's first.
    pub(super) fn request(&self, place: Option<&PagePlace>) -> Arc<ShardRequest> {
        let mut scan = Scan::of_namespace(DEFAULT_NAMESPACE);
        if let Some(place) = place {
            scan = scan.after(place);
        }
        scan.keys_only = true;
        scan.shows_use = self.form == DumpForm::Metadata;
        scan.items_max = DUMP_ITEMS;
        scan.bytes_max = PAGE_BYTES_DEFAULT;
        Arc::new(ShardRequest::new(self.shard, None, ShardWork::Page(scan)))
    }

    /// Appends what is told of a page of a store of so many shards at Unix second `now`; returns
    /// what to ask next, if there is more.
    pub(super) fn put(
        &mut self,
        page: &Page,
        shards: u16,
        now: u32,
        out: &mut Vec<u8>,
    ) -> Option<Arc<ShardRequest>> {
        if !std::mem::replace(&mut self.is_begun, true) {
            put_begin(self.form, out);
        }
        // Others have keys that no client of memcached's can name.
        let is_shown = |item: &&PageItem| {
            item.item.is_empty() && (1..=KEY_BYTES_MAX).contains(&item.record.len())
        };
        // A line of this list could not be told from others with such a key in it.
        let is_plain = |item: &&PageItem| {
            !matches!(self.form, DumpForm::Cache { .. })
                || item.record.iter().all(|byte| *byte > b' ' && *byte != 0x7F)
        };
        for item in page.items.iter().filter(is_shown).filter(is_plain) {
            if self.left == Some(0) {
                break;
            }
            self.left = self.left.map(|left| left - 1);
            self.put_item(item, now, out);
        }
        let is_full = self.left == Some(0);
        match &page.next {
            Some(place) if !is_full => return Some(self.request(Some(place))),
            None if !is_full && self.shard + 1 < shards => {
                self.shard += 1;
                return Some(self.request(None));
            }
            _ => {}
        }
        put_end(self.form, out);
        None
    }

    fn put_item(&self, item: &PageItem, now: u32, out: &mut Vec<u8>) {
        let key = &item.record;
        match self.form {
            DumpForm::Keys => reply::dumped_key(out, key),
            DumpForm::Cache { .. } => {
                reply::cache_dumped(out, key, item.value_len, item.metadata.expiry);
            }
            DumpForm::Metadata => {
                let dumped = DumpedItem {
                    key,
                    expiry: item.metadata.expiry,
                    last_access: item.last_use.map_or(now, |last| last.at),
                    version: item.metadata.version,
                    is_fetched: item.last_use.is_some_and(|last| last.is_fetched),
                    class: CLASS,
                    item_bytes: (key.len() + item.value_len + ITEM_OVERHEAD_BYTES) as u64,
                };
                reply::dumped_item(out, &dumped);
            }
        }
    }
}

/// Appends the list of a class that no item is in.
pub(super) fn put_nothing(form: DumpForm, out: &mut Vec<u8>) {
    put_begin(form, out);
    put_end(form, out);
}

fn put_begin(form: DumpForm, out: &mut Vec<u8>) {
    if !matches!(form, DumpForm::Cache { .. }) {
        out.extend_from_slice(reply::OK);
    }
}

fn put_end(form: DumpForm, out: &mut Vec<u8>) {
    out.extend_from_slice(if form == DumpForm::Keys { reply::KEYS_END } else { END });
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_engine::key::Key;

    fn item(record: &[u8], item: &[u8]) -> PageItem {
        PageItem {
            record: record.to_vec(),
            item: item.to_vec(),
            metadata: Default::default(),
            value_len: 3,
            value: None,
            last_use: None,
        }
    }

    fn page(records: &[&[u8]], goes_on: bool) -> Page {
        let items = records.iter().map(|record| item(record, b"")).collect();
        let key = Key { namespace: 0, record: b"z", item: b"" }.encode();
        let next = goes_on.then(|| PagePlace::from_bytes(&key[4..]).expect("a place"));
        Page { items, next, ..Page::default() }
    }

    fn shard_of(request: Option<Arc<ShardRequest>>) -> Option<u16> {
        request.map(|request| request.shard)
    }

    #[test]
    fn a_list_goes_through_all_pages_of_all_shards() {
        let mut out = Vec::new();
        let mut dumping = Dumping::new(&Dump { form: DumpForm::Keys, has_items: true });
        assert_eq!(dumping.request(None).shard, 0);
        assert_eq!(shard_of(dumping.put(&page(&[b"a"], true), 2, 7, &mut out)), Some(0));
        assert_eq!(shard_of(dumping.put(&page(&[], false), 2, 7, &mut out)), Some(1));
        assert_eq!(shard_of(dumping.put(&page(&[b"b", b"c"], true), 2, 7, &mut out)), Some(1));
        assert_eq!(shard_of(dumping.put(&page(&[], false), 2, 7, &mut out)), None);
        assert_eq!(out, b"OK\r\nmg a\r\nmg b\r\nmg c\r\nEN\r\n");
    }

    #[test]
    fn keys_that_no_line_can_have_are_in_no_line() {
        let mut out = Vec::new();
        let form = DumpForm::Cache { limit: 0 };
        let mut dumping = Dumping::new(&Dump { form, has_items: true });
        let records: [&[u8]; 4] = [b"a b", b"a\n", b"\x7F", "\u{e9}".as_bytes()];
        assert_eq!(shard_of(dumping.put(&page(&records, false), 1, 7, &mut out)), None);
        assert_eq!(out, "ITEM \u{e9} [3 b; 0 s]\r\nEND\r\n".as_bytes());
    }

    #[test]
    fn a_limit_ends_it() {
        let mut out = Vec::new();
        let form = DumpForm::Cache { limit: 2 };
        let mut dumping = Dumping::new(&Dump { form, has_items: true });
        let next = dumping.put(&page(&[b"a", b"b", b"c"], true), 2, 7, &mut out);
        assert_eq!(shard_of(next), None);
        assert_eq!(out, b"ITEM a [3 b; 0 s]\r\nITEM b [3 b; 0 s]\r\nEND\r\n");
    }

    #[test]
    fn what_no_client_can_name_is_left_out() {
        let mut out = Vec::new();
        let mut dumping = Dumping::new(&Dump { form: DumpForm::Keys, has_items: true });
        let long = [b'k'; KEY_BYTES_MAX + 1];
        let items = vec![item(b"r", b"item"), item(&long, b""), item(b"", b""), item(b"r", b"")];
        let page = Page { items, ..Page::default() };
        assert_eq!(shard_of(dumping.put(&page, 1, 7, &mut out)), None);
        assert_eq!(out, b"OK\r\nmg r\r\nEN\r\n");
        out.clear();
        put_nothing(DumpForm::Metadata, &mut out);
        assert_eq!(out, b"OK\r\nEND\r\n");
    }
}
