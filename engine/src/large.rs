//! Large values: what an item has in place of one, and what is asked of a shard to store and to
//! read it in chunks. FORMAT.md draws the bytes.

use crate::operation::Outcome;
use crate::shard::OperationBuf;

/// The longest large value, in bytes.
pub const LARGE_BYTES_MAX: u32 = 128 << 20;

/// The longest chunk, in bytes. A chunk is held in memory a few times on its way, as any value is;
/// longer ones are hardly quicker.
pub const CHUNK_BYTES_MAX: usize = 512 << 10;

/// An upload may have this part of the bytes that may be staged: beside one of the longest another
/// of its namespace has room, and one of any other namespace beside both.
pub(crate) const UPLOADS_OF_STAGED: u64 = 3;

/// How large values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeOptions {
    /// The longest chunk of what is staged from now on, in bytes.
    pub chunk_bytes_max: usize,
    /// How long chunks may wait for their commit, in seconds; then they go.
    pub staging_seconds: u32,
    /// How long an upload is kept of which no chunk has come, in seconds. Each chunk that comes
    /// earns it a part of `staging_seconds` more, which it has whole when all are there.
    pub first_chunk_seconds: u32,
    /// How many large values may be staged at a time, and how many bytes they may have together.
    /// What is left of both is shared: see [`LargeRefusal::TooManyStaged`].
    pub staged_max: usize,
    /// The bytes.
    pub staged_bytes_max: u64,
    /// How often it is looked whether chunks are still needed, in nanoseconds.
    pub round_nanoseconds: u64,
}

impl LargeOptions {
    /// The longest value that is taken, in bytes.
    pub fn len_max(&self) -> u32 {
        let part = self.staged_bytes_max / UPLOADS_OF_STAGED;
        u32::try_from(part).unwrap_or(u32::MAX).min(LARGE_BYTES_MAX)
    }
}

impl Default for LargeOptions {
    fn default() -> Self {
        Self {
            chunk_bytes_max: CHUNK_BYTES_MAX,
            staging_seconds: 3600,
            first_chunk_seconds: 30,
            staged_max: 1024,
            staged_bytes_max: 16 << 30,
            round_nanoseconds: 10_000_000_000,
        }
    }
}

/// What an item has in place of a large value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeValue {
    /// The number of the upload that its chunks came with. None is given out twice by a shard.
    pub upload: u64,
    /// The value's length in bytes.
    pub len: u32,
    /// The length of each chunk in bytes; the last may be shorter.
    pub chunk_bytes: u32,
}

impl LargeValue {
    /// Bytes of the encoded form.
    pub const ENCODED_BYTES: usize = 16;

    /// The encoded form.
    pub fn encode(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut bytes = [0; Self::ENCODED_BYTES];
        bytes[..8].copy_from_slice(&self.upload.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..].copy_from_slice(&self.chunk_bytes.to_le_bytes());
        bytes
    }

    /// Reads the encoded form; `None` if the bytes stand for no large value.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::ENCODED_BYTES] = bytes.try_into().ok()?;
        let (upload, lengths) = bytes.split_first_chunk()?;
        let (len, chunk_bytes) = lengths.split_first_chunk()?;
        let large = Self {
            upload: u64::from_le_bytes(*upload),
            len: u32::from_le_bytes(*len),
            chunk_bytes: u32::from_le_bytes(chunk_bytes.try_into().ok()?),
        };
        let is_sound = (1..=LARGE_BYTES_MAX).contains(&large.len) && large.chunk_bytes > 0;
        is_sound.then_some(large)
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> u32 {
        self.len.div_ceil(self.chunk_bytes)
    }

    /// The length in bytes of the chunk at this place; `None` behind the last.
    pub fn chunk_len(&self, index: u32) -> Option<u32> {
        let before = index.checked_mul(self.chunk_bytes).filter(|before| *before < self.len)?;
        Some(self.chunk_bytes.min(self.len - before))
    }
}

/// Something that concerns an item's large value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeRequest {
    /// Who asks: uploads of the same one share what one may have. It is not kept.
    pub client: u64,
    /// The item's namespace.
    pub namespace: u32,
    /// Its record id.
    pub record: Vec<u8>,
    /// Its key in the record.
    pub item: Vec<u8>,
    /// What is done.
    pub step: LargeStep,
}

impl LargeRequest {
    /// Whether it adds to what is stored. Others make room, or only read.
    pub fn adds(&self) -> bool {
        !self.only_reads() && !matches!(self.step, LargeStep::Abort { .. })
    }

    /// Whether it changes nothing.
    pub fn only_reads(&self) -> bool {
        matches!(self.step, LargeStep::GetChunk { .. })
    }

    /// Bytes of memory that it has besides its own size.
    pub fn memory(&self) -> usize {
        let bytes = match &self.step {
            LargeStep::PutChunk { bytes, .. } => bytes.capacity(),
            LargeStep::Stage { .. }
            | LargeStep::Commit { .. }
            | LargeStep::Abort { .. }
            | LargeStep::GetChunk { .. } => 0,
        };
        self.record.capacity() + self.item.capacity() + bytes
    }
}

/// A step on the way of a large value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LargeStep {
    /// Begin to store one of so many bytes.
    Stage {
        /// How many.
        len: u32,
    },
    /// Keep a chunk; the same one may come again.
    PutChunk {
        /// The upload's number.
        upload: u64,
        /// The chunk's place, from 0.
        index: u32,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Store the value, of which all chunks are there.
    Commit {
        /// The upload's number.
        upload: u64,
        /// The store that it is. Its value is empty.
        store: OperationBuf,
    },
    /// Forget all chunks.
    Abort {
        /// The upload's number.
        upload: u64,
    },
    /// Read a chunk.
    GetChunk {
        /// The upload's number.
        upload: u64,
        /// The chunk's place, from 0.
        index: u32,
    },
}

/// What became of a [`LargeRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LargeAnswer {
    /// Chunks of this large value may come.
    Staged(LargeValue),
    /// It is done.
    Done,
    /// The item has the large value, and this version.
    Committed(u64),
    /// The chunk.
    Chunk(Vec<u8>),
    /// Nothing was done.
    Refused(LargeRefusal),
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeRefusal {
    /// The value is empty, or longer than [`LargeOptions::len_max`] or the namespace allows.
    Length,
    /// As many large values are staged as may be, or as many bytes of them: in all, of this
    /// namespace, which has no more than are left for others, or by this client, which has no more
    /// than a quarter of that.
    TooManyStaged,
    /// The item has no such upload under way: it was committed, aborted, or its time is over.
    NoUpload,
    /// There is no chunk at this place, or it has another length.
    WrongChunk,
    /// This chunk has not come.
    Missing(u32),
    /// The item has not, or no longer, the value that this upload brought.
    Changed,
    /// The item is not as the store demands.
    Condition(Outcome),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(len: u32, chunk_bytes: u32) -> LargeValue {
        LargeValue { upload: 7, len, chunk_bytes }
    }

    #[test]
    fn chunks_make_the_value() {
        for (len, chunk_bytes) in [(1, 1), (10, 3), (9, 3), (2, 5), (LARGE_BYTES_MAX, 1000)] {
            let large = large(len, chunk_bytes);
            let chunk_len = |index| large.chunk_len(index).expect("a chunk");
            assert_eq!((0..large.chunks()).map(chunk_len).sum::<u32>(), len);
            assert_eq!(large.chunk_len(large.chunks()), None);
            assert_eq!(large.chunk_len(u32::MAX), None);
        }
    }

    #[test]
    fn what_stands_for_a_value_is_read_as_it_was_written() {
        let sound = large(LARGE_BYTES_MAX, 4096);
        assert_eq!(LargeValue::decode(&sound.encode()), Some(sound));
        for other in [large(0, 1), large(LARGE_BYTES_MAX + 1, 1), large(1, 0)] {
            assert_eq!(LargeValue::decode(&other.encode()), None, "{other:?}");
        }
        assert_eq!(LargeValue::decode(&sound.encode()[..15]), None);
        assert_eq!(LargeValue::decode(b""), None);
    }
}
