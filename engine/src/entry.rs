//! What the index holds for a key: metadata, and the value itself or a pointer to it.
//!
//! The encoded form is the value of an SSTable entry; FORMAT.md draws the bytes.

use crate::compression::EXPANSION_MAX;

/// Where a record lies in the value log. The bytes `offset..offset + len` of the segment are the
/// whole record: header, key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the start of the segment's file to the record.
    pub offset: u32,
    /// The record's length in bytes.
    pub len: u32,
}

impl Pointer {
    /// Bytes from the start of the segment's file to the record's end.
    pub fn end(&self) -> u32 {
        self.offset.saturating_add(self.len)
    }
}

/// State bits of an item.
pub mod state {
    /// The item was invalidated (`md I`): readers get it marked stale until it is set again.
    pub const STALE: u8 = 1;
    /// A reader has been told to recache the item (`W`); later readers get `Z`.
    pub const WIN_SENT: u8 = 2;
    /// What is stored stands for a large value, which lies elsewhere: see
    /// [`LargeValue`](crate::large::LargeValue).
    pub const LARGE: u8 = 4;
    /// All bits that this version knows; others are refused as a newer format's.
    pub const KNOWN: u8 = STALE | WIN_SENT | LARGE;
}

/// What is known of an item besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The CAS id: unique within the shard, and larger for later writes.
    pub version: u64,
    /// The client's own 32 bits.
    pub client_flags: u32,
    /// Unix second at which the item is gone; 0 means never.
    pub expiry: u32,
    /// Bits of [`state`].
    pub state: u8,
}

impl Metadata {
    /// Whether the item is gone at `now` (Unix seconds).
    pub fn is_expired(&self, now: u32) -> bool {
        self.expiry != 0 && self.expiry <= now
    }

    /// Whether the item's value is large, and lies elsewhere.
    #[inline]
    pub fn is_large(&self) -> bool {
        self.state & state::LARGE != 0
    }
}

/// Where an entry's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The key was deleted.
    Tombstone,
    /// The value itself.
    Inline(&'a [u8]),
    /// The value has so many bytes, as the client sent it, and is in the record that `Pointer`
    /// names: the last bytes of it, or compressed.
    Separate(Pointer, u32),
}

/// An entry, borrowed from the memtable or from an SSTable's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The item's metadata; a tombstone has only its version.
    pub metadata: Metadata,
    /// The value or where to find it.
    pub payload: Payload<'a>,
}

const KIND_TOMBSTONE: u8 = 0;
const KIND_INLINE: u8 = 1;
const KIND_SEPARATE: u8 = 2;
const KIND_BITS: u32 = 4;
const KIND_MASK: u8 = (1 << KIND_BITS) - 1;
const _: () = assert!((state::KNOWN as u32) << KIND_BITS <= u8::MAX as u32);

impl<'a> Entry<'a> {
    /// An entry that says that the key is gone.
    pub fn tombstone(version: u64) -> Self {
        Self { metadata: Metadata { version, ..Metadata::default() }, payload: Payload::Tombstone }
    }

    /// Whether this entry says that the key is gone.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.payload, Payload::Tombstone)
    }

    /// The pointer, if the value is in the value log.
    pub fn pointer(&self) -> Option<Pointer> {
        match self.payload {
            Payload::Separate(pointer, _) => Some(pointer),
            Payload::Inline(_) | Payload::Tombstone => None,
        }
    }

    /// The value's length in bytes; 0 for a tombstone.
    pub fn value_len(&self) -> usize {
        match self.payload {
            Payload::Tombstone => 0,
            Payload::Inline(value) => value.len(),
            Payload::Separate(_, len) => len as usize,
        }
    }

    /// Appends the encoded entry to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let kind = match self.payload {
            Payload::Tombstone => KIND_TOMBSTONE,
            Payload::Inline(_) => KIND_INLINE,
            Payload::Separate(..) => KIND_SEPARATE,
        };
        out.push(kind | (self.metadata.state << KIND_BITS));
        put_varint(out, self.metadata.version);
        if kind == KIND_TOMBSTONE {
            return;
        }
        put_varint(out, u64::from(self.metadata.client_flags));
        put_varint(out, u64::from(self.metadata.expiry));
        match self.payload {
            Payload::Tombstone => {}
            Payload::Inline(value) => out.extend_from_slice(value),
            Payload::Separate(pointer, value_len) => {
                put_varint(out, u64::from(pointer.segment));
                put_varint(out, u64::from(pointer.offset));
                put_varint(out, u64::from(pointer.len));
                put_varint(out, u64::from(value_len));
            }
        }
    }

    /// Reads an entry that fills `bytes` exactly; `None` if the bytes are no entry.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&first, mut rest) = bytes.split_first()?;
        let state = first >> KIND_BITS;
        if state & !state::KNOWN != 0 {
            return None;
        }
        let version = take_varint(&mut rest)?;
        let mut metadata = Metadata { version, client_flags: 0, expiry: 0, state };
        if first & KIND_MASK == KIND_TOMBSTONE {
            return rest.is_empty().then_some(Self { metadata, payload: Payload::Tombstone });
        }
        metadata.client_flags = take_u32(&mut rest)?;
        metadata.expiry = take_u32(&mut rest)?;
        let payload = match first & KIND_MASK {
            KIND_INLINE => Payload::Inline(rest),
            KIND_SEPARATE => {
                let segment = take_u32(&mut rest)?;
                let offset = take_u32(&mut rest)?;
                let len = take_u32(&mut rest)?;
                let value_len = take_u32(&mut rest)?;
                let longest = u64::from(len) * EXPANSION_MAX as u64;
                let fits = u64::from(value_len) <= longest && offset.checked_add(len).is_some();
                if !fits || !rest.is_empty() {
                    return None;
                }
                Payload::Separate(Pointer { segment, offset, len }, value_len)
            }
            _ => return None,
        };
        Some(Self { metadata, payload })
    }
}

/// Appends `value` as a little-endian base-128 varint: at most ten bytes.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7F) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a varint off the front of `bytes`; `None` if it is cut short or over 64 bits.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7F);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Reads a varint of 32 bits off the front of `bytes`; `None` if it is none.
pub fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_round_trip(
            version: u64, client_flags: u32, expiry: u32, state in 0..=state::KNOWN,
            value in proptest::collection::vec(any::<u8>(), 0..200),
            pointer in (any::<u32>(), 0..u32::MAX / 2, 0..u32::MAX / 2), kind in 0..3,
            expansion in 0u64..256,
        ) {
            let pointer = Pointer { segment: pointer.0, offset: pointer.1, len: pointer.2 };
            let (metadata, payload) = match kind {
                0 => (Metadata { version, state, ..Metadata::default() }, Payload::Tombstone),
                1 => (Metadata { version, client_flags, expiry, state }, Payload::Inline(&value)),
                _ => (
                    Metadata { version, client_flags, expiry, state },
                    Payload::Separate(pointer, (u64::from(pointer.len) * expansion / 2) as u32),
                ),
            };
            let entry = Entry { metadata, payload };
            let mut bytes = Vec::new();
            entry.encode_into(&mut bytes);
            prop_assert_eq!(Entry::decode(&bytes), Some(entry));
        }

        #[test]
        fn any_bytes_decode_or_not_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _decoded = Entry::decode(&bytes);
        }
    }

    #[test]
    fn an_overlong_varint_is_refused() {
        let mut bytes: &[u8] = &[0xFF; 11];
        assert_eq!(take_varint(&mut bytes), None);
        let mut bytes: &[u8] = &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        assert_eq!(take_varint(&mut bytes), Some(u64::MAX));
    }
}
