//! An entry that owns its bytes.

use crate::entry::Entry;

/// An owned, encoded [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBuf {
    /// Always a whole encoded entry.
    encoded: Box<[u8]>,
}

impl EntryBuf {
    /// A copy of `entry`.
    pub fn new(entry: &Entry<'_>) -> Self {
        let mut encoded = Vec::with_capacity(32 + entry.value_len());
        entry.encode_into(&mut encoded);
        Self { encoded: encoded.into_boxed_slice() }
    }

    /// A copy of an encoded entry; `None` if the bytes are no entry.
    pub fn from_encoded(encoded: &[u8]) -> Option<Self> {
        Entry::decode(encoded)?;
        Some(Self { encoded: encoded.into() })
    }

    /// The entry.
    pub fn as_entry(&self) -> Entry<'_> {
        Entry::decode(&self.encoded).expect("the bytes were an entry when they were copied")
    }

    /// The encoded bytes.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}
