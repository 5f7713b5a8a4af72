//! Keys whose lengths are known to be good.

use larder_protocol::native::{ITEM_BYTES_MAX, ItemKey, ItemRange, RECORD_BYTES_MAX};

use crate::error::ClientError;

/// The key of an item: a namespace, a record, and the item's key inside the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRef<'a> {
    pub(crate) wire: ItemKey<'a>,
}

impl<'a> ItemRef<'a> {
    /// The key of `item` in `record` of the namespace with this number; 0 is `default`.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the record id has not 1 to 1,024 bytes, or the item key more than
    /// 1,024.
    pub fn new(namespace: u32, record: &'a [u8], item: &'a [u8]) -> Result<Self, ClientError> {
        if record.is_empty() || record.len() > RECORD_BYTES_MAX {
            let len = record.len();
            return Err(ClientError::Usage(format!(
                "a record id has 1 to {RECORD_BYTES_MAX} bytes, not {len}"
            )));
        }
        if item.len() > ITEM_BYTES_MAX {
            let len = item.len();
            return Err(ClientError::Usage(format!(
                "an item key has at most {ITEM_BYTES_MAX} bytes, not {len}"
            )));
        }
        Ok(Self { wire: ItemKey { namespace, record, item } })
    }

    /// The key of the item of `record` that has the empty key: what a memcached key is.
    ///
    /// # Errors
    /// As [`ItemRef::new`].
    pub fn of_record(record: &'a (impl AsRef<[u8]> + ?Sized)) -> Result<Self, ClientError> {
        Self::new(0, record.as_ref(), &[])
    }
}

/// The key of an item, for who keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ItemKeyBuf {
    namespace: u32,
    record: Vec<u8>,
    item: Vec<u8>,
}

impl ItemKeyBuf {
    pub(crate) fn wire(&self) -> ItemKey<'_> {
        ItemKey { namespace: self.namespace, record: &self.record, item: &self.item }
    }
}

impl From<ItemRef<'_>> for ItemKeyBuf {
    fn from(key: ItemRef<'_>) -> Self {
        let ItemKey { namespace, record, item } = key.wire;
        Self { namespace, record: record.to_vec(), item: item.to_vec() }
    }
}

/// A range's prefix and bounds are as long as item keys.
pub(crate) fn check_range(range: ItemRange<'_>) -> Result<(), ClientError> {
    let parts = match range {
        ItemRange::Prefix(prefix) => [Some(prefix), None],
        ItemRange::Between { from, to } => [from, to],
    };
    match parts.into_iter().flatten().find(|part| part.len() > ITEM_BYTES_MAX) {
        None => Ok(()),
        Some(long) => {
            let len = long.len();
            Err(ClientError::Usage(format!(
                "a prefix or bound has at most {ITEM_BYTES_MAX} bytes, not {len}"
            )))
        }
    }
}
