//! A scan of a shard: one page after the other, and again from the beginning.

use larder_engine::key::DEFAULT_NAMESPACE;
use larder_engine::scan::{Page, PagePlace, Scan};

/// Bytes of a page, at most.
const PAGE_BYTES: usize = 1 << 20;

/// What a page came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageCounts {
    pub(super) items: u64,
    /// Bytes of keys and values.
    pub(super) bytes: u64,
    /// Items whose values have another length than was stored, or are there without being asked
    /// for.
    pub(super) wrong: u64,
    next: Option<PagePlace>,
}

/// Where a scan has come.
pub(super) struct ShardPages {
    keys_only: bool,
    value_size: usize,
    next: Option<PagePlace>,
    /// Items since the beginning of the shard.
    items: u64,
}

impl ShardPages {
    pub(super) fn new(keys_only: bool, value_size: usize) -> Self {
        Self { keys_only, value_size, next: None, items: 0 }
    }

    /// What the next page asks for.
    pub(super) fn scan(&self) -> Scan {
        let mut scan = Scan::of_namespace(DEFAULT_NAMESPACE);
        scan.keys_only = self.keys_only;
        scan.bytes_max = PAGE_BYTES;
        scan.items_max = usize::MAX;
        match &self.next {
            Some(place) => scan.after(place),
            None => scan,
        }
    }

    /// Looks at a page.
    pub(super) fn count(&self, page: Page) -> PageCounts {
        let mut counts = PageCounts { items: 0, bytes: 0, wrong: 0, next: page.next };
        let value_len = (!self.keys_only).then_some(self.value_size);
        for item in page.items {
            let value_bytes = item.value.as_ref().map(Vec::len);
            counts.items += 1;
            counts.bytes += (item.record.len() + value_bytes.unwrap_or(0)) as u64;
            counts.wrong +=
                u64::from(value_bytes != value_len || item.value_len != self.value_size);
        }
        counts
    }

    /// Goes on behind a page. Behind the last one it says how many items there were in all, and
    /// begins again.
    pub(super) fn advance(&mut self, counts: PageCounts) -> Option<u64> {
        self.items += counts.items;
        self.next = counts.next;
        self.next.is_none().then(|| std::mem::take(&mut self.items))
    }
}

#[cfg(test)]
mod tests {
    use larder_engine::key::Key;
    use larder_engine::scan::PageItem;

    use super::*;

    fn page(values: &[Option<usize>], goes_on: bool) -> Page {
        let item = |value: &Option<usize>| PageItem {
            record: b"key".to_vec(),
            item: Vec::new(),
            metadata: Default::default(),
            value_len: 10,
            value: value.map(|len| vec![0; len]),
            last_use: None,
        };
        let place = Key { namespace: 0, record: b"key", item: b"" }.encode();
        let next = goes_on.then(|| PagePlace::from_bytes(&place[4..]).expect("a place"));
        Page { items: values.iter().map(item).collect(), next, ..Page::default() }
    }

    #[test]
    fn a_scan_goes_from_page_to_page_and_begins_again_behind_the_last() {
        let mut pages = ShardPages::new(false, 10);
        let first = pages.count(page(&[Some(10), Some(10)], true));
        assert_eq!((first.items, first.bytes, first.wrong), (2, 26, 0));
        let beginning = pages.scan();
        assert_eq!(pages.advance(first), None);
        assert_ne!(pages.scan(), beginning);
        let last = pages.count(page(&[Some(10)], false));
        assert_eq!(pages.advance(last), Some(3));
        assert_eq!(pages.scan(), beginning);
    }

    #[test]
    fn values_of_another_length_are_wrong_and_so_are_those_that_nobody_asked_for() {
        let wrong = |keys_only, value| {
            let pages = ShardPages::new(keys_only, 10);
            pages.count(page(&[value], false)).wrong
        };
        assert_eq!([wrong(false, Some(9)), wrong(false, None), wrong(true, Some(10))], [1; 3]);
        assert_eq!([wrong(false, Some(10)), wrong(true, None)], [0; 2]);
    }
}
