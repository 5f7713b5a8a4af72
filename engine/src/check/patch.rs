//! Replaces the unreadable bytes of a segment, in a copy of its file that takes its place.
//!
//! Intact records stay where they are: pointers lead to them, and their checksums hold at their own
//! place alone. What is unreadable becomes records that nothing refers to, so that every frame of
//! the part that no start replays is intact again.

use std::path::Path;

use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};

use super::CheckError;
use super::reader::Reader;
use super::segments::{self, Piece};
use crate::entry::Metadata;
use crate::value_log::frame::{self, FrameHeader};
use crate::value_log::record::{self, Place, Record, RecordKind};
use crate::value_log::segment::{self, StoreIdentity};

/// Bytes read and written at once where nothing is patched.
const CHUNK_BYTES: usize = 1 << 20;

/// A segment to patch.
pub(super) struct Patch<'a> {
    pub(super) directory: &'a Path,
    pub(super) identity: StoreIdentity,
    pub(super) number: u32,
    /// The length that the file must have.
    pub(super) file_bytes: u32,
    /// Where the part ends that no start replays.
    pub(super) end: u32,
    /// Whether a start replays the rest, so that all of it must be copied.
    pub(super) is_replayed: bool,
    /// A number that no segment of the manifest has: the copy's until it is whole. A start takes
    /// such a file for one that was never finished.
    pub(super) spare_number: u32,
}

impl Patch<'_> {
    /// Makes every frame intact. Durable when it resolves with `Ok(true)`; with `Ok(false)` nothing
    /// has changed, because the part that a start replays cannot be read whole.
    pub(super) async fn apply<E: Env>(&self, env: &E) -> Result<bool, CheckError> {
        let path = self.directory.join(segment::file_name(self.number));
        let copy_path = self.directory.join(segment::file_name(self.spare_number));
        let reader = Reader::open(env, &path, CHUNK_BYTES).await;
        let mut reader = reader.map_err(CheckError::io(&path, "open"))?;
        let copy = env.open(&copy_path, OpenMode::CreateNew).await;
        let copy = copy.map_err(CheckError::io(&copy_path, "create"))?;
        let written = self.write(env, &mut reader, &copy).await;
        if !matches!(written, Ok(true)) {
            // The first error says more than one of the removal would.
            let _removed = env.remove(&copy_path).await;
            return written;
        }
        env.rename(&copy_path, &path).await.map_err(CheckError::io(&path, "replace"))?;
        let synced = env.sync_directory(self.directory).await;
        synced.map_err(CheckError::io(self.directory, "sync"))?;
        Ok(true)
    }

    async fn write<E: Env>(
        &self,
        env: &E,
        reader: &mut Reader<'_, E>,
        copy: &E::File,
    ) -> Result<bool, CheckError> {
        let mut header = vec![0; segment::HEADER_BYTES as usize];
        segment::encode_header(&mut header, self.identity, self.number, self.file_bytes);
        self.put(env, copy, 0, &header).await?;
        let mut offset = segment::HEADER_BYTES;
        while offset < self.end {
            env.yield_if_needed().await;
            let place = Place { store: self.identity.store, segment: self.number, offset };
            let mut frame = segments::read_frame(reader, place, self.end).await;
            let pieces = segments::pieces_and_values(env, &frame.bytes, place).await;
            let pieces = pieces.map_err(|error| segments::newer(self.number, error))?;
            if !frame.damage(&pieces).is_empty() {
                rebuild(&mut frame.bytes, place, frame.header, &pieces);
            }
            offset = frame.end();
            frame.bytes.resize(frame::padded(frame.bytes.len()), 0);
            self.put(env, copy, place.offset, &frame.bytes).await?;
        }
        while offset < self.file_bytes {
            let len = CHUNK_BYTES.min((self.file_bytes - offset) as usize);
            let read = reader.bytes(u64::from(offset), len).await;
            if read.is_partial && self.is_replayed {
                return Ok(false);
            }
            let bytes = read.bytes.to_vec();
            self.put(env, copy, offset, &bytes).await?;
            offset += len as u32;
        }
        let synced = copy.sync(IoClass::Scrub).await;
        synced.map_err(CheckError::io(self.directory, "sync a file in"))?;
        Ok(true)
    }

    async fn put<E: Env>(
        &self,
        env: &E,
        copy: &E::File,
        offset: u32,
        bytes: &[u8],
    ) -> Result<(), CheckError> {
        for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let mut buffer = env.buffer(chunk.len());
            buffer.copy_from_slice(chunk);
            let at = u64::from(offset) + (index * CHUNK_BYTES) as u64;
            let (result, _) = copy.write(IoClass::Scrub, at, buffer).await;
            result.map_err(CheckError::io(self.directory, "write a file in"))?;
        }
        Ok(())
    }
}

/// Makes a frame of the intact records in `bytes`, and of fillers for the rest.
fn rebuild(bytes: &mut [u8], place: Place, header: Option<FrameHeader>, pieces: &[Piece]) {
    let mut end = frame::HEADER_BYTES;
    let mut count = 0u32;
    // Damage in a row is one filler: what is left of a head may be shorter than a record.
    let mut gap: Option<usize> = None;
    for piece in pieces {
        match piece {
            Piece::Record(range) => {
                count += fill(bytes, place, gap.take().map(|start| start..range.start));
                count += 1;
                end = range.end;
            }
            Piece::Damaged(range, _) => {
                gap.get_or_insert(range.start);
                end = range.end;
            }
        }
    }
    if header.is_none() {
        // Nothing says where the frame ends, so it goes on up to the next one.
        gap.get_or_insert(end);
        end = bytes.len();
    }
    count += fill(bytes, place, gap.map(|start| start..end));
    let lost = FrameHeader { sequence_first: 0, durable_end: 0, len: 0, count: 0, previous: 0 };
    let len = header.map_or(bytes.len() as u32, |header| header.len);
    FrameHeader { len, count, ..header.unwrap_or(lost) }.encode(place, bytes);
}

/// Writes a record over `gap` that no key has. Returns how many records that are.
fn fill(bytes: &mut [u8], frame: Place, gap: Option<std::ops::Range<usize>>) -> u32 {
    let Some(gap) = gap else { return 0 };
    let place = Place { offset: frame.offset + gap.start as u32, ..frame };
    // A whole record at least lies between two intact ones; less is left at a frame's end only.
    let Some(payload_len) = gap.len().checked_sub(record::HEAD_BYTES) else {
        bytes[gap].fill(0);
        return 0;
    };
    let payload = vec![0; payload_len];
    let metadata = Metadata::default();
    let kind = RecordKind::Delete;
    let record = Record { kind, metadata, key: &[], payload: &payload, original: None };
    record::encode(&record, crc32c::crc32c(&payload), place, &mut bytes[gap]);
    1
}

const _: () = assert!(CHUNK_BYTES.is_multiple_of(DISK_ALIGNMENT));
