//! Pages: items of a namespace in order, as they are at one moment.

use crate::entry::Metadata;
use crate::key::{self, Key};

/// What a page is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    namespace: u32,
    /// Encoded, without the namespace; the least key.
    start: Vec<u8>,
    /// As `start`: the key that all are below, if not all of the namespace are meant.
    end: Option<Vec<u8>>,
    /// Whether the greatest key comes first.
    pub is_reverse: bool,
    /// Whether values are left out.
    pub keys_only: bool,
    /// The most items, at least one.
    pub items_max: usize,
    /// The most bytes of keys and values; the first item comes however long it is.
    pub bytes_max: usize,
    /// Longer values are left out, in bytes.
    pub value_bytes_max: usize,
    /// Whether it is told of items when they were used last.
    pub shows_use: bool,
    /// Whether what cannot be read is left out, and the page says so. Otherwise it ends in front of
    /// that.
    pub passes_damage: bool,
    /// The lease whose moment is shown; `None` for the present.
    pub lease: Option<u64>,
    /// When no further entries are looked at, on the clock of the shard's runtime, in nanoseconds:
    /// the page ends with what it has then, and goes forward in any case.
    pub deadline: Option<u64>,
}

/// Bytes of an encoded key that say the namespace.
const NAMESPACE_BYTES: usize = 4;

/// Items and bytes of a page unless they are said.
const ITEMS_MAX_DEFAULT: usize = 1024;
const BYTES_MAX_DEFAULT: usize = 1 << 20;

impl Scan {
    /// All items of a namespace, by record.
    pub fn of_namespace(namespace: u32) -> Self {
        Self {
            namespace,
            start: Vec::new(),
            end: None,
            is_reverse: false,
            keys_only: false,
            items_max: ITEMS_MAX_DEFAULT,
            bytes_max: BYTES_MAX_DEFAULT,
            value_bytes_max: usize::MAX,
            shows_use: false,
            passes_damage: false,
            lease: None,
            deadline: None,
        }
    }

    /// The items of a record.
    pub fn of_record(namespace: u32, record: &[u8]) -> Self {
        Self::of_items(namespace, record, b"")
    }

    /// The items of a record whose keys begin with `prefix`.
    pub fn of_items(namespace: u32, record: &[u8], prefix: &[u8]) -> Self {
        let start = encoded(&Key { namespace, record, item: prefix });
        let end = behind(&start);
        Self { start, end, ..Self::of_namespace(namespace) }
    }

    /// Leaves out the items before `item` of `record`.
    pub fn from(mut self, record: &[u8], item: &[u8]) -> Self {
        let start = encoded(&Key { namespace: self.namespace, record, item });
        self.start = self.start.max(start);
        self
    }

    /// Leaves out `item` of `record` and what is behind it.
    pub fn below(mut self, record: &[u8], item: &[u8]) -> Self {
        let end = encoded(&Key { namespace: self.namespace, record, item });
        self.end = Some(self.end.map_or(end.clone(), |before| before.min(end)));
        self
    }

    /// Goes on where a page has ended, and not beyond the bounds that were set before.
    pub fn after(mut self, place: &PagePlace) -> Self {
        if self.is_reverse {
            let end = place.0.clone();
            self.end = Some(self.end.map_or(end.clone(), |before| before.min(end)));
        } else {
            // No key lies between one and the same with a zero byte behind it.
            let start = [&place.0, &[0][..]].concat();
            self.start = self.start.max(start);
        }
        self
    }

    /// Whether no key is within the bounds.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| self.start >= *end)
    }

    /// Bytes of memory that it has besides its own size.
    pub fn memory(&self) -> usize {
        self.start.capacity() + self.end.as_ref().map_or(0, Vec::capacity)
    }

    /// The namespace.
    pub fn namespace(&self) -> u32 {
        self.namespace
    }

    /// The encoded bounds where the namespace has this generation.
    pub(crate) fn bounds(&self, generation: u32) -> (Vec<u8>, Option<Vec<u8>>) {
        let whole = |key: &[u8]| [&generation.to_be_bytes(), key].concat();
        let end = match &self.end {
            Some(end) => Some(whole(end)),
            None => generation.checked_add(1).map(|next| next.to_be_bytes().to_vec()),
        };
        (whole(&self.start), end)
    }
}

/// A key without its namespace.
fn encoded(key: &Key<'_>) -> Vec<u8> {
    key.encode().split_off(NAMESPACE_BYTES)
}

/// The least key that is greater than all that begin with `prefix`, if there is one.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut behind = prefix[..=last].to_vec();
    behind[last] += 1;
    Some(behind)
}

/// Where a page has ended: what the next one begins behind, without its namespace. It is in the
/// order of encoded keys, and need be none: behind what cannot be read nobody knows a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagePlace(Vec<u8>);

impl PagePlace {
    pub(crate) fn at(encoded: &[u8]) -> Self {
        Self(encoded[NAMESPACE_BYTES..].to_vec())
    }

    /// The place as bytes, for whoever asks for the next page.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The place that these bytes are; `None` if they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let lengths = 1..=key::ENCODED_BYTES_MAX - NAMESPACE_BYTES;
        lengths.contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }
}

/// When an item was used last, as far as the value cache knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// The Unix second at which it was read or written last.
    pub at: u32,
    /// Whether it was read since it was written.
    pub is_fetched: bool,
}

/// An item of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageItem {
    /// The record id.
    pub record: Vec<u8>,
    /// The item key.
    pub item: Vec<u8>,
    /// What is known of it besides.
    pub metadata: Metadata,
    /// How long the value is, in bytes.
    pub value_len: usize,
    /// The value, unless it was left out.
    pub value: Option<Vec<u8>>,
    /// If it was asked for and is known.
    pub last_use: Option<LastUse>,
}

impl PageItem {
    /// The memory that it takes, in bytes.
    pub fn memory(&self) -> usize {
        let value = self.value.as_ref().map_or(0, Vec::capacity);
        size_of::<Self>() + self.record.capacity() + self.item.capacity() + value
    }
}

/// Items in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The items.
    pub items: Vec<PageItem>,
    /// Where the next page begins; `None` if there is no more.
    pub next: Option<PagePlace>,
    /// How far the log has to be acknowledged before the page may be sent; 0 for not at all.
    pub needs: u64,
    /// Whether something was left out that cannot be read: an item, or a part of the keys with all
    /// that is in it.
    pub is_damaged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_its_bytes_and_has_no_more_than_a_key() {
        for (record, item) in [(&b"r"[..], &b"item"[..]), (b"a\0b", b""), (b"\xFF", &[0; 1024])] {
            let key = Key { namespace: 7, record, item };
            let place = PagePlace::at(&key.encode());
            assert_eq!(PagePlace::from_bytes(place.as_bytes()), Some(place.clone()));
        }
        let longest = key::ENCODED_BYTES_MAX - NAMESPACE_BYTES;
        assert!(PagePlace::from_bytes(&vec![1; longest]).is_some());
        assert_eq!(PagePlace::from_bytes(&vec![1; longest + 1]), None);
        assert_eq!(PagePlace::from_bytes(b""), None);
    }

    #[test]
    fn a_place_elsewhere_does_not_widen_the_bounds() {
        let place = |item: &[u8]| PagePlace::at(&Key { namespace: 0, record: b"r", item }.encode());
        let scan = Scan::of_record(0, b"r").from(b"r", b"c").below(b"r", b"f");
        assert_eq!(scan.clone().after(&place(b"a")), scan);
        assert!(scan.clone().after(&place(b"x")).is_empty() && !scan.is_empty());
        let reverse = Scan { is_reverse: true, ..scan };
        assert_eq!(reverse.clone().after(&place(b"x")), reverse);
        assert!(reverse.after(&place(b"a")).is_empty());
        assert!(Scan::of_record(0, b"r").from(b"r", b"b").below(b"r", b"a").is_empty());
    }
}
