//! What stands of an upload: whose it is, how long, and whether it was committed. FORMAT.md draws
//! the bytes.

use crate::key::{ITEM_BYTES_MAX, RECORD_BYTES_MAX};
use crate::large::{LargeRequest, LargeValue};

/// How far an upload has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Chunks may come.
    Staged,
    /// Its item has, or had, the value.
    Committed,
}

/// An upload of a large value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    /// The item's namespace, record id and item key.
    pub namespace: u32,
    pub record: Vec<u8>,
    pub item: Vec<u8>,
    pub stage: Stage,
    /// The Unix second until which it may be committed.
    pub until: u32,
    pub large: LargeValue,
}

/// Bytes before the record id.
const FIXED_BYTES: usize = 19;

impl Upload {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.record.len() + self.item.len());
        bytes.push(match self.stage {
            Stage::Staged => 0,
            Stage::Committed => 1,
        });
        bytes.extend_from_slice(&self.until.to_le_bytes());
        bytes.extend_from_slice(&self.large.len.to_le_bytes());
        bytes.extend_from_slice(&self.large.chunk_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.namespace.to_le_bytes());
        bytes.extend_from_slice(&(self.record.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.record);
        bytes.extend_from_slice(&self.item);
        bytes
    }

    /// Reads what stands of the upload with this number; `None` if the bytes are none.
    pub(super) fn decode(number: u64, bytes: &[u8]) -> Option<Self> {
        let (fixed, keys) = bytes.split_first_chunk::<FIXED_BYTES>()?;
        let le32 = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().expect("four"));
        let record_len = usize::from(u16::from_le_bytes([fixed[17], fixed[18]]));
        let (record, item) = keys.split_at_checked(record_len)?;
        if record_len > RECORD_BYTES_MAX || item.len() > ITEM_BYTES_MAX {
            return None;
        }
        let stage = match fixed[0] {
            0 => Stage::Staged,
            1 => Stage::Committed,
            _ => return None,
        };
        let large = LargeValue { upload: number, len: le32(5), chunk_bytes: le32(9) };
        let large = LargeValue::decode(&large.encode())?;
        let (record, item) = (record.to_vec(), item.to_vec());
        Some(Self { namespace: le32(13), record, item, stage, until: le32(1), large })
    }

    /// Whether it is for the item that `request` is about.
    pub(super) fn is_of(&self, request: &LargeRequest) -> bool {
        let LargeRequest { namespace, record, item, .. } = request;
        (self.namespace, &self.record, &self.item) == (*namespace, record, item)
    }

    /// The same, where it may be committed at Unix second `now`.
    pub(super) fn is_staged(&self, request: &LargeRequest, now: u32) -> bool {
        self.is_of(request) && self.stage == Stage::Staged && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn upload(stage: Stage) -> Upload {
        Upload {
            namespace: 9,
            record: b"record".to_vec(),
            item: b"item".to_vec(),
            stage,
            until: 77,
            large: LargeValue { upload: 5, len: 1000, chunk_bytes: 300 },
        }
    }

    #[test]
    fn uploads_are_read_as_they_were_written() {
        for stage in [Stage::Staged, Stage::Committed] {
            let written = upload(stage);
            let bytes = written.encode();
            assert_eq!(Upload::decode(5, &bytes), Some(written));
            assert_eq!(Upload::decode(5, &bytes[..FIXED_BYTES + 5]), None, "the record is cut");
        }
        let mut unknown = upload(Stage::Staged).encode();
        unknown[0] = 2;
        assert_eq!(Upload::decode(5, &unknown), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Some(upload) = Upload::decode(1, &bytes) {
                prop_assert_eq!(upload.encode(), bytes);
            }
        }
    }
}
