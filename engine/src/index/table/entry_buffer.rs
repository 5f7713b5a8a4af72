//! An entry that owns its bytes.

use crate::entry::{Entry, Metadata, Payload, Pointer};

/// An owned [`Entry`]. Only a value in the index takes memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBuf {
    metadata: Metadata,
    payload: OwnedPayload,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnedPayload {
    Tombstone,
    Inline(Box<[u8]>),
    Separate(Pointer, u32),
}

impl EntryBuf {
    /// A copy of `entry`.
    pub fn new(entry: &Entry<'_>) -> Self {
        let payload = match entry.payload {
            Payload::Tombstone => OwnedPayload::Tombstone,
            Payload::Inline(value) => OwnedPayload::Inline(value.into()),
            Payload::Separate(pointer, value_len) => OwnedPayload::Separate(pointer, value_len),
        };
        let mut metadata = entry.metadata;
        if payload == OwnedPayload::Tombstone {
            // As in a table: a tombstone tells neither.
            (metadata.client_flags, metadata.expiry) = (0, 0);
        }
        Self { metadata, payload }
    }

    /// The entry.
    pub fn as_entry(&self) -> Entry<'_> {
        let payload = match &self.payload {
            OwnedPayload::Tombstone => Payload::Tombstone,
            OwnedPayload::Inline(value) => Payload::Inline(value),
            OwnedPayload::Separate(pointer, value_len) => Payload::Separate(*pointer, *value_len),
        };
        Entry { metadata: self.metadata, payload }
    }
}
