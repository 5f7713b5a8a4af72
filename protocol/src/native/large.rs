//! Large values: what is asked on their way, and what stands for one in replies.

use super::item::{ItemKey, put_key, put_key_head, split, split_all};
use super::request::{BodyError, RESERVED};
use super::{Opcode, u32_at, u64_at};

/// Bytes of a [`LargeHead`].
pub const LARGE_HEAD_BYTES: usize = 16;

/// What stands for a large value: with it, its chunks are stored and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeHead {
    /// The number of the upload that brings, or brought, its chunks.
    pub upload: u64,
    /// The value's length in bytes.
    pub len: u32,
    /// The length of each chunk in bytes; the last may be shorter.
    pub chunk_bytes: u32,
}

impl LargeHead {
    /// Its bytes.
    pub fn bytes(&self) -> [u8; LARGE_HEAD_BYTES] {
        let mut bytes = [0; LARGE_HEAD_BYTES];
        bytes[..8].copy_from_slice(&self.upload.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..].copy_from_slice(&self.chunk_bytes.to_le_bytes());
        bytes
    }

    /// Reads it; `None` if the bytes stand for no large value.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LARGE_HEAD_BYTES] = bytes.try_into().ok()?;
        let (len, chunk_bytes) = (u32_at(bytes, 8), u32_at(bytes, 12));
        (len > 0 && chunk_bytes > 0).then(|| Self { upload: u64_at(bytes, 0), len, chunk_bytes })
    }

    /// How many chunks it has.
    pub fn chunks(&self) -> u32 {
        self.len.div_ceil(self.chunk_bytes)
    }

    /// The length in bytes of the chunk at this place; 0 behind the last.
    pub fn chunk_len(&self, index: u32) -> u32 {
        let before = u64::from(index) * u64::from(self.chunk_bytes);
        let left = u64::from(self.len).saturating_sub(before);
        self.chunk_bytes.min(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

/// When a large value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreWhen {
    /// In any case.
    Always,
    /// If there is no item.
    IfAbsent,
    /// If there is one.
    IfPresent,
    /// If the item has this version.
    IfVersion(u64),
}

/// A step on the way of a large value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeItem<'a> {
    /// The item's key.
    pub key: ItemKey<'a>,
    /// What is done.
    pub work: LargeWork<'a>,
}

/// What a step on the way of a large value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeWork<'a> {
    /// Begin to store one.
    Stage {
        /// Its length in bytes.
        len: u32,
    },
    /// Bring a chunk.
    PutChunk {
        /// The upload's number.
        upload: u64,
        /// The chunk's place, from 0.
        index: u32,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// Store the value.
    Commit {
        /// The upload's number.
        upload: u64,
        /// On what condition.
        when: StoreWhen,
        /// The client's own bits.
        client_flags: u32,
        /// Seconds to live; 0 for ever.
        ttl: u32,
    },
    /// Forget the chunks.
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

impl<'a> LargeItem<'a> {
    /// Reads the body of a request with this opcode, one of those of large values.
    pub(super) fn read(opcode: Opcode, body: &'a [u8]) -> Result<Self, BodyError> {
        if opcode == Opcode::PutChunk {
            let (fixed, key, bytes) = split(body, 16)?;
            if u32_at(fixed, 12) != 0 {
                return Err(RESERVED);
            }
            let work =
                LargeWork::PutChunk { upload: u64_at(fixed, 0), index: u32_at(fixed, 8), bytes };
            return Ok(Self { key, work });
        }
        let fixed_bytes = match opcode {
            Opcode::Commit => 32,
            Opcode::GetChunk => 16,
            _ => 8,
        };
        let (fixed, key) = split_all(body, fixed_bytes)?;
        let work = match opcode {
            Opcode::Stage if u32_at(fixed, 4) != 0 => return Err(RESERVED),
            Opcode::Stage => LargeWork::Stage { len: u32_at(fixed, 0) },
            Opcode::Commit => read_commit(fixed)?,
            Opcode::GetChunk if u32_at(fixed, 12) != 0 => return Err(RESERVED),
            Opcode::GetChunk => {
                LargeWork::GetChunk { upload: u64_at(fixed, 0), index: u32_at(fixed, 8) }
            }
            _ => LargeWork::Abort { upload: u64_at(fixed, 0) },
        };
        Ok(Self { key, work })
    }

    /// The bytes of the chunk that it brings; empty if it brings none.
    pub(super) fn chunk(&self) -> &'a [u8] {
        match self.work {
            LargeWork::PutChunk { bytes, .. } => bytes,
            _ => &[],
        }
    }

    /// The opcode.
    pub(super) fn opcode(&self) -> Opcode {
        match self.work {
            LargeWork::Stage { .. } => Opcode::Stage,
            LargeWork::PutChunk { .. } => Opcode::PutChunk,
            LargeWork::Commit { .. } => Opcode::Commit,
            LargeWork::Abort { .. } => Opcode::Abort,
            LargeWork::GetChunk { .. } => Opcode::GetChunk,
        }
    }

    /// Appends the body.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        put_key_head(&self.key, out);
        match self.work {
            LargeWork::Stage { len } => {
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
            }
            LargeWork::PutChunk { upload, index, .. } | LargeWork::GetChunk { upload, index } => {
                out.extend_from_slice(&upload.to_le_bytes());
                out.extend_from_slice(&index.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
            }
            LargeWork::Commit { upload, when, client_flags, ttl } => {
                let (mode, version) = match when {
                    StoreWhen::Always => (0u32, 0),
                    StoreWhen::IfAbsent => (1, 0),
                    StoreWhen::IfPresent => (2, 0),
                    StoreWhen::IfVersion(version) => (3, version),
                };
                out.extend_from_slice(&mode.to_le_bytes());
                out.extend_from_slice(&client_flags.to_le_bytes());
                out.extend_from_slice(&ttl.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&upload.to_le_bytes());
            }
            LargeWork::Abort { upload } => out.extend_from_slice(&upload.to_le_bytes()),
        }
        put_key(&self.key, out);
        out.extend_from_slice(self.chunk());
    }
}

fn read_commit(fixed: &[u8]) -> Result<LargeWork<'static>, BodyError> {
    let version = u64_at(fixed, 16);
    let when = match u32_at(fixed, 0) {
        0..=2 if version != 0 => return Err(RESERVED),
        0 => StoreWhen::Always,
        1 => StoreWhen::IfAbsent,
        2 => StoreWhen::IfPresent,
        3 => StoreWhen::IfVersion(version),
        _ => return Err("there is no such mode of storing a large value"),
    };
    if u32_at(fixed, 12) != 0 {
        return Err(RESERVED);
    }
    let (client_flags, ttl) = (u32_at(fixed, 4), u32_at(fixed, 8));
    Ok(LargeWork::Commit { upload: u64_at(fixed, 24), when, client_flags, ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_make_the_value() {
        let head = LargeHead { upload: 1, len: 1000, chunk_bytes: 300 };
        assert_eq!(head.chunks(), 4);
        assert_eq!([0, 3, 4, u32::MAX].map(|index| head.chunk_len(index)), [300, 100, 0, 0]);
        assert_eq!(LargeHead::read(&head.bytes()), Some(head));
        assert_eq!(LargeHead::read(&LargeHead { len: 0, ..head }.bytes()), None);
        assert_eq!(LargeHead::read(&LargeHead { chunk_bytes: 0, ..head }.bytes()), None);
        assert_eq!(LargeHead::read(&head.bytes()[1..]), None);
    }
}
