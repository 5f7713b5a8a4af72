//! Pages of a record's items by a list of their keys.

use crate::scan::{PageItem, Scan};

/// Some items of a record, in the order of a list of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedItems {
    /// The record id.
    pub record: Vec<u8>,
    /// The item keys; one may be there twice.
    pub keys: Vec<Vec<u8>>,
    /// The first of them that is looked at.
    pub first: usize,
    /// The namespace, and how much the page holds at most. Bounds and order are those of the list.
    pub limits: Scan,
}

impl KeyedItems {
    /// Bytes of memory that it has besides its own size.
    pub fn memory(&self) -> usize {
        let of_key = |key: &Vec<u8>| size_of::<Vec<u8>>() + key.capacity();
        self.record.capacity() + self.keys.iter().map(of_key).sum::<usize>() + self.limits.memory()
    }
}

/// Items in the order of a list of keys; those that are not there are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyedPage {
    /// The items.
    pub items: Vec<PageItem>,
    /// The place in the list of the first key that was not looked at; `None` if there is no more.
    pub next: Option<usize>,
    /// How far the log has to be acknowledged before the page may be sent; 0 for not at all.
    pub needs: u64,
    /// Whether items were left out that cannot be read.
    pub is_damaged: bool,
}
