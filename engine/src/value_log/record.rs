//! Records: one change to one key. FORMAT.md draws the bytes.
//!
//! The head's checksum covers the store's id, the segment, the record's offset, the head and the
//! key, so a record that lies where it was not written is not taken for one. The payload has its
//! own checksum, computed once when the value arrives and carried unchanged.

use crate::canary::{self, Defect};
use crate::entry::Metadata;
use crate::range_tombstones::RANGE_KEY_BYTES_MAX;

/// The bytes of a record before its key.
pub const HEAD_BYTES: usize = 36;

/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 128 << 20;

const RECORD_FORMAT: u8 = 1;

/// What a record does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// The key has this value.
    Put = 1,
    /// The key is gone.
    Delete = 2,
    /// The key's metadata changed; the payload is the encoded entry, whose value is elsewhere.
    Repoint = 3,
    /// The namespace in the key moved to the generation in the payload: all its items are gone.
    FlushNamespace = 4,
    /// The namespace in the key is to be flushed at the record's expiry time; 0 takes that back.
    ScheduleFlush = 5,
    /// The keys between two are gone; both stand in the key.
    DeleteRange = 6,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::Delete,
            3 => Self::Repoint,
            4 => Self::FlushNamespace,
            5 => Self::ScheduleFlush,
            6 => Self::DeleteRange,
            _ => return None,
        })
    }
}

/// A record, borrowed from the caller or from a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it does.
    pub kind: RecordKind,
    /// The item's metadata after the change.
    pub metadata: Metadata,
    /// The encoded key.
    pub key: &'a [u8],
    /// The value, or what the kind says.
    pub payload: &'a [u8],
}

/// Where a record lies: part of what its checksum covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The store's id.
    pub store: u128,
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the start of the segment's file.
    pub offset: u32,
}

impl Place {
    /// The checksum's starting value for bytes at this place.
    pub fn seed(&self) -> u32 {
        let mut identity = [0u8; 24];
        identity[..16].copy_from_slice(&self.store.to_le_bytes());
        identity[16..20].copy_from_slice(&self.segment.to_le_bytes());
        identity[20..].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c(&identity)
    }
}

/// The length in bytes of the record of a key and payload of these lengths.
pub fn encoded_len(key_len: usize, payload_len: usize) -> usize {
    HEAD_BYTES + key_len + payload_len
}

/// Writes `record` to the front of `out`, which is exactly as long as the record.
pub fn encode(record: &Record<'_>, payload_crc: u32, place: Place, out: &mut [u8]) {
    assert_eq!(out.len(), encoded_len(record.key.len(), record.payload.len()));
    let key_len = u16::try_from(record.key.len()).expect("an encoded key is under 64 KiB");
    let payload_len = u32::try_from(record.payload.len()).expect("a value is under 4 GiB");
    out[4..8].copy_from_slice(&payload_crc.to_le_bytes());
    out[8..16].copy_from_slice(&record.metadata.version.to_le_bytes());
    out[16] = record.kind as u8;
    out[17] = record.metadata.state;
    out[18..20].copy_from_slice(&key_len.to_le_bytes());
    out[20..24].copy_from_slice(&payload_len.to_le_bytes());
    out[24..28].copy_from_slice(&record.metadata.expiry.to_le_bytes());
    out[28..32].copy_from_slice(&record.metadata.client_flags.to_le_bytes());
    out[32] = RECORD_FORMAT;
    out[33] = 0; // bits that a reader must know or refuse
    out[34..36].copy_from_slice(&0u16.to_le_bytes()); // bytes of optional fields after the key
    let key_end = HEAD_BYTES + record.key.len();
    out[HEAD_BYTES..key_end].copy_from_slice(record.key);
    out[key_end..].copy_from_slice(record.payload);
    let head_crc = crc32c::crc32c_append(place.seed(), &out[4..key_end]);
    out[..4].copy_from_slice(&head_crc.to_le_bytes());
}

/// A record found in a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The record.
    pub record: Record<'a>,
    /// The record's length in bytes.
    pub len: usize,
    /// Whether the payload is as it was written. If not, the key and metadata are still good.
    pub payload_intact: bool,
    /// The payload's CRC-32C as it was when the value arrived: copies carry it unchanged, so that
    /// a copy of a damaged payload is a damaged payload.
    pub payload_crc: u32,
}

/// A record of which only head and key were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The record; its payload may be damaged.
    pub record: Record<'a>,
    /// The record's length in bytes.
    pub len: usize,
    /// The payload's CRC-32C as it was when the value arrived.
    pub payload_crc: u32,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The head or key does not match its checksum, or is cut short.
    #[error("the record's head does not match its checksum")]
    Head,
    /// The head is good but written by a newer version.
    #[error("the record has format {0} or fields that this version does not know")]
    Newer(u8),
}

/// Reads the record at the front of `bytes`, which lies at `place`.
///
/// Lengths are believed only after the head's checksum was found right.
pub fn decode(bytes: &[u8], place: Place) -> Result<Found<'_>, RecordError> {
    let Head { record, len, payload_crc } = decode_head(bytes, place)?;
    let payload_intact =
        crc32c::crc32c(record.payload) == payload_crc || canary::has(Defect::IgnorePayloadChecksum);
    Ok(Found { record, len, payload_intact, payload_crc })
}

/// Reads the record at the front of `bytes`, which lies at `place`, without a look at its payload.
///
/// # Errors
///
/// As for [`decode`].
pub fn decode_head(bytes: &[u8], place: Place) -> Result<Head<'_>, RecordError> {
    let head = bytes.first_chunk::<HEAD_BYTES>().ok_or(RecordError::Head)?;
    let key_len = usize::from(u16::from_le_bytes([head[18], head[19]]));
    let key_end = HEAD_BYTES + key_len;
    let covered = bytes.get(4..key_end).ok_or(RecordError::Head)?;
    let head_intact = crc32c::crc32c_append(place.seed(), covered) == le32(head, 0);
    if !head_intact && !canary::has(Defect::IgnoreHeadChecksum) {
        return Err(RecordError::Head);
    }
    let kind = RecordKind::from_byte(head[16]);
    let (Some(kind), RECORD_FORMAT, 0) = (kind, head[32], head[33]) else {
        return Err(RecordError::Newer(head[32]));
    };
    let extension_len = usize::from(u16::from_le_bytes([head[34], head[35]]));
    let payload_len = le32(head, 20) as usize;
    let payload_start = key_end + extension_len;
    let len = payload_start + payload_len;
    let payload = bytes.get(payload_start..len).ok_or(RecordError::Head)?;
    let metadata = Metadata {
        version: u64::from_le_bytes(head[8..16].try_into().expect("eight bytes")),
        client_flags: le32(head, 28),
        expiry: le32(head, 24),
        state: head[17],
    };
    let payload_crc = le32(head, 4);
    let record = Record { kind, metadata, key: &bytes[HEAD_BYTES..key_end], payload };
    Ok(Head { record, len, payload_crc })
}

/// Where the first readable record in `bytes` starts, at `from` or later; `bytes` starts at
/// `place`.
///
/// Finds the neighbours of a record whose head is damaged, and with it its length.
pub fn find(bytes: &[u8], from: usize, place: Place) -> Option<usize> {
    (from..bytes.len().saturating_sub(HEAD_BYTES - 1)).find(|&start| {
        let at = Place { offset: place.offset + start as u32, ..place };
        may_be_head(&bytes[start..]) && decode(&bytes[start..], at).is_ok()
    })
}

/// A cheap look that spares most bytes the checksum.
fn may_be_head(bytes: &[u8]) -> bool {
    let key_len = usize::from(u16::from_le_bytes([bytes[18], bytes[19]]));
    RecordKind::from_byte(bytes[16]).is_some()
        && bytes[32] == RECORD_FORMAT
        && key_len <= RANGE_KEY_BYTES_MAX
        && HEAD_BYTES + key_len + le32(bytes, 20) as usize <= bytes.len()
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place = Place { store: 7, segment: 3, offset: 4096 };

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = vec![0; encoded_len(record.key.len(), record.payload.len())];
        encode(record, crc32c::crc32c(record.payload), PLACE, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn records_round_trip_and_every_flip_is_seen(
            key in proptest::collection::vec(any::<u8>(), 0..30),
            payload in proptest::collection::vec(any::<u8>(), 0..60),
            version: u64, client_flags: u32, expiry: u32, flip: prop::sample::Index, bit in 0u8..8,
        ) {
            let metadata = Metadata { version, client_flags, expiry, state: 1 };
            let record = Record { kind: RecordKind::Put, metadata, key: &key, payload: &payload };
            let mut bytes = encoded(&record);
            let found = decode(&bytes, PLACE).expect("decodes");
            let payload_crc = crc32c::crc32c(record.payload);
            let len = bytes.len();
            prop_assert_eq!(found, Found { record, len, payload_intact: true, payload_crc });

            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(found) = decode(&bytes, PLACE) {
                prop_assert!(!found.payload_intact);
                prop_assert_eq!(found.record.key, &key[..]);
                prop_assert_eq!(found.record.metadata, metadata);
            }
        }

        #[test]
        fn any_bytes_are_refused_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            prop_assert!(decode(&bytes, PLACE).is_err());
        }
    }

    #[test]
    fn a_record_at_another_place_is_no_record() {
        let metadata = Metadata::default();
        let record = Record { kind: RecordKind::Put, metadata, key: b"k", payload: b"v" };
        let bytes = encoded(&record);
        for place in [
            Place { store: 8, ..PLACE },
            Place { segment: 4, ..PLACE },
            Place { offset: 8192, ..PLACE },
        ] {
            assert_eq!(decode(&bytes, place), Err(RecordError::Head));
        }
    }

    #[test]
    fn a_newer_record_is_named_as_such() {
        let metadata = Metadata::default();
        let record = Record { kind: RecordKind::Put, metadata, key: b"k", payload: b"v" };
        let mut bytes = encoded(&record);
        bytes[32] = 2;
        let covered = HEAD_BYTES + 1;
        let crc = crc32c::crc32c_append(PLACE.seed(), &bytes[4..covered]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&bytes, PLACE), Err(RecordError::Newer(2)));
    }
}
