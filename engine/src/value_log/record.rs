//! Records: one change to one key. FORMAT.md draws the bytes.
//!
//! The head's checksum covers the store's id, the segment, the record's offset, the head and the
//! key, so a record that lies where it was not written is not taken for one. The payload has its
//! own checksum, computed once when the value arrives and carried unchanged. A compressed value is
//! covered by two: its bytes by the payload's, and by another in the head what it was before.

use crate::canary::{self, Defect};
use crate::compression::OriginalValue;
use crate::entry::Metadata;
use crate::key;
use crate::range_tombstones::RANGE_KEY_BYTES_MAX;

/// The bytes of a record before its key.
pub const HEAD_BYTES: usize = 36;

/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 128 << 20;

const RECORD_FORMAT: u8 = 2;

/// The required bit of a record whose payload is compressed.
const COMPRESSED: u8 = 1;

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
    /// The records of several keys lie elsewhere; the payload is [`Moves`](super::moves::Moves).
    /// The record itself has no key.
    Moves = 7,
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
            7 => Self::Moves,
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
    /// What the payload was before it was compressed; `None` if it was not.
    pub original: Option<OriginalValue>,
}

impl Record<'_> {
    /// The record's length in bytes.
    pub fn encoded_len(&self) -> usize {
        encoded_len(self.key.len(), self.payload.len()) + self.extension_len()
    }

    /// The length in bytes of the value, as the client sent it.
    pub fn value_len(&self) -> u32 {
        let len = u32::try_from(self.payload.len()).expect("a value is under 4 GiB");
        self.original.map_or(len, |original| original.len)
    }

    /// Whether the value of a put is kept in the index, which takes values of so many bytes. What
    /// stands for a large value always is: it is what look-ups need.
    pub fn is_inline(&self, inline_bytes_max: usize) -> bool {
        let is_short = self.metadata.is_large() || self.payload.len() <= inline_bytes_max;
        self.original.is_none() && is_short
    }

    /// What is lost where the payload is not as it was written, for people.
    pub fn damage(&self) -> String {
        match self.kind {
            RecordKind::Moves => "where records were moved to is unreadable".to_owned(),
            _ => format!("the value of {} is damaged", key::display(self.key)),
        }
    }

    fn extension_len(&self) -> usize {
        self.original.map_or(0, |_| OriginalValue::ENCODED_BYTES)
    }
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

/// The length in bytes of the record of a key and of a payload, not compressed, of these lengths.
pub fn encoded_len(key_len: usize, payload_len: usize) -> usize {
    HEAD_BYTES + key_len + payload_len
}

/// Writes `record` to the front of `out`, which is exactly as long as the record.
pub fn encode(record: &Record<'_>, payload_crc: u32, place: Place, out: &mut [u8]) {
    assert_eq!(out.len(), record.encoded_len());
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
    out[33] = if record.original.is_some() { COMPRESSED } else { 0 };
    let extension_len = record.extension_len();
    out[34..36].copy_from_slice(&(extension_len as u16).to_le_bytes());
    let key_end = HEAD_BYTES + record.key.len();
    let payload_start = key_end + extension_len;
    out[HEAD_BYTES..key_end].copy_from_slice(record.key);
    if let Some(OriginalValue { len, checksum }) = record.original {
        out[key_end..key_end + 4].copy_from_slice(&len.to_le_bytes());
        out[key_end + 4..payload_start].copy_from_slice(&checksum.to_le_bytes());
    }
    out[payload_start..].copy_from_slice(record.payload);
    let head_crc = crc32c::crc32c_append(place.seed(), &out[4..payload_start]);
    out[..4].copy_from_slice(&head_crc.to_le_bytes());
}

/// A record found in a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The record.
    pub record: Record<'a>,
    /// The record's length in bytes.
    pub len: usize,
    /// Whether the payload is as it was written. If not, the key and metadata are still good. What
    /// a compressed one decompresses to was not looked at.
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
    let payload_intact = crc32c::crc32c(record.payload) == payload_crc
        || canary::has(Defect::IgnorePayloadChecksum)
        || (record.original.is_some() && canary::has(Defect::IgnoreCompressedChecksums));
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
    let payload_start = key_end + usize::from(u16::from_le_bytes([head[34], head[35]]));
    let covered = bytes.get(4..payload_start).ok_or(RecordError::Head)?;
    let head_intact = crc32c::crc32c_append(place.seed(), covered) == le32(head, 0);
    if !head_intact && !canary::has(Defect::IgnoreHeadChecksum) {
        return Err(RecordError::Head);
    }
    let kind = RecordKind::from_byte(head[16]);
    let newer = RecordError::Newer(head[32]);
    let original = match (head[33], bytes.get(key_end..payload_start)) {
        (0, _) => None,
        (COMPRESSED, Some(extension)) => Some(decode_original(extension).ok_or(newer)?),
        _ => return Err(newer),
    };
    let is_known = |kind: &RecordKind| original.is_none() || *kind == RecordKind::Put;
    let (Some(kind), RECORD_FORMAT) = (kind.filter(is_known), head[32]) else {
        return Err(newer);
    };
    let payload_len = le32(head, 20) as usize;
    let len = payload_start + payload_len;
    let payload = bytes.get(payload_start..len).ok_or(RecordError::Head)?;
    let metadata = Metadata {
        version: u64::from_le_bytes(head[8..16].try_into().expect("eight bytes")),
        client_flags: le32(head, 28),
        expiry: le32(head, 24),
        state: head[17],
    };
    let payload_crc = le32(head, 4);
    let key = &bytes[HEAD_BYTES..key_end];
    let record = Record { kind, metadata, key, payload, original };
    Ok(Head { record, len, payload_crc })
}

/// What a compressed payload was before; `None` if no value can have been that.
fn decode_original(extension: &[u8]) -> Option<OriginalValue> {
    let (original, _) = extension.split_first_chunk::<{ OriginalValue::ENCODED_BYTES }>()?;
    let original = OriginalValue { len: le32(original, 0), checksum: le32(original, 4) };
    (original.len as usize <= VALUE_BYTES_MAX).then_some(original)
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
        let mut bytes = vec![0; record.encoded_len()];
        encode(record, crc32c::crc32c(record.payload), PLACE, &mut bytes);
        bytes
    }

    fn put(metadata: Metadata) -> Record<'static> {
        let kind = RecordKind::Put;
        Record { kind, metadata, key: b"k", payload: b"v", original: None }
    }

    /// Puts the head's checksum right.
    fn seal(bytes: &mut [u8], payload_start: usize) {
        let crc = crc32c::crc32c_append(PLACE.seed(), &bytes[4..payload_start]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
    }

    proptest! {
        #[test]
        fn records_round_trip_and_every_flip_is_seen(
            key in proptest::collection::vec(any::<u8>(), 0..30),
            payload in proptest::collection::vec(any::<u8>(), 0..60),
            version: u64, client_flags: u32, expiry: u32, flip: prop::sample::Index, bit in 0u8..8,
            original: Option<(u32, u32)>,
        ) {
            let metadata = Metadata { version, client_flags, expiry, state: 1 };
            let original = original.map(|(len, checksum)| {
                OriginalValue { len: len % (VALUE_BYTES_MAX as u32 + 1), checksum }
            });
            let kind = RecordKind::Put;
            let record = Record { kind, metadata, key: &key, payload: &payload, original };
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
                prop_assert_eq!(found.record.original, original);
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
        let record = put(metadata);
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
        let record = put(metadata);
        let mut bytes = encoded(&record);
        bytes[32] = 3;
        seal(&mut bytes, HEAD_BYTES + 1);
        assert_eq!(decode(&bytes, PLACE), Err(RecordError::Newer(3)));
    }

    #[test]
    fn what_cannot_have_been_compressed_is_not_believed() {
        let original = Some(OriginalValue { len: 900, checksum: 7 });
        let record = Record { original, ..put(Metadata::default()) };
        let sound = encoded(&record);
        let payload_start = sound.len() - 1;
        assert_eq!(decode(&sound, PLACE).map(|found| found.record), Ok(record));
        assert_eq!(record.value_len(), 900);
        let newer = Err(RecordError::Newer(RECORD_FORMAT));
        // Another required bit, a value that is too long, and a kind that has no value.
        for (at, byte) in [(33, 3), (HEAD_BYTES + 1 + 3, 0x09), (16, RecordKind::Delete as u8)] {
            let mut bytes = sound.clone();
            bytes[at] = byte;
            seal(&mut bytes, payload_start);
            assert_eq!(decode(&bytes, PLACE), newer, "byte {at}");
        }
        // Too short for what it says of the value.
        let mut bytes = sound;
        bytes[34] = 7;
        seal(&mut bytes, payload_start - 1);
        assert_eq!(decode(&bytes, PLACE), newer);
    }
}
