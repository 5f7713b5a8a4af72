//! The part of the value log that tables refer to: every frame up to a segment's end is intact.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use larder_runtime::env::{DISK_ALIGNMENT, Env};

use super::reader::Reader;
use super::{CheckError, log};
use crate::compression;
use crate::manifest::{SegmentState, State};
use crate::value_log::frame::{self, FrameHeader};
use crate::value_log::record::{self, Place, RecordError};
use crate::value_log::segment;

/// Bytes read at once where the end of a segment is looked for.
const AHEAD_BYTES: usize = 1 << 20;

/// A part of a frame's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// An intact record.
    Record(Range<usize>),
    /// Bytes that are none.
    Damaged(Range<usize>, String),
}

/// Takes the records of a frame apart, without a look at what compressed values are. `bytes` are
/// those of the frame without its padding, or with it where no header says how long the frame is.
pub(crate) fn pieces(bytes: &[u8], frame: Place) -> Result<Vec<Piece>, RecordError> {
    let mut pieces = Vec::new();
    let mut at = frame::HEADER_BYTES;
    while at < bytes.len() && bytes[at..].iter().any(|&byte| byte != 0) {
        let place = Place { offset: frame.offset + at as u32, ..frame };
        match record::decode(&bytes[at..], place) {
            Ok(found) => {
                let range = at..at + found.len;
                at = range.end;
                pieces.push(if found.payload_intact {
                    Piece::Record(range)
                } else {
                    Piece::Damaged(range, found.record.damage())
                });
            }
            Err(RecordError::Head) => {
                let end = record::find(bytes, at + 1, frame).unwrap_or(bytes.len());
                let what = format!("{} bytes of records are unreadable", end - at);
                pieces.push(Piece::Damaged(at..end, what));
                at = end;
            }
            Err(error @ RecordError::Newer(_)) => return Err(error),
        }
    }
    Ok(pieces)
}

/// The same, where a record counts as damaged too if its value is compressed and is not, when it
/// is decompressed, what it was.
pub(super) async fn pieces_and_values<E: Env>(
    env: &E,
    bytes: &[u8],
    frame: Place,
) -> Result<Vec<Piece>, RecordError> {
    let mut pieces = pieces(bytes, frame)?;
    for piece in &mut pieces {
        let Piece::Record(range) = piece else { continue };
        let place = Place { offset: frame.offset + range.start as u32, ..frame };
        let record = record::decode_head(&bytes[range.clone()], place)?.record;
        let Some(original) = record.original else { continue };
        if !compression::is_sound(record.payload, original) {
            *piece = Piece::Damaged(range.clone(), record.damage());
        }
        env.yield_if_needed().await;
    }
    Ok(pieces)
}

/// A frame, or a stretch of whole blocks where one should be.
pub(crate) struct FrameAt {
    pub(crate) place: Place,
    /// `None` if it is damaged.
    pub(crate) header: Option<FrameHeader>,
    /// Bytes of the frame without padding; of whole blocks if there is no header.
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_partial: bool,
}

impl FrameAt {
    /// Where the next frame starts.
    pub(crate) fn end(&self) -> u32 {
        self.place.offset + frame::padded(self.bytes.len()) as u32
    }

    /// What is wrong with it, with the place of each.
    pub(crate) fn damage(&self, pieces: &[Piece]) -> Vec<(u32, String)> {
        let mut damage = Vec::new();
        let records = pieces.iter().filter(|piece| matches!(piece, Piece::Record(_))).count();
        match self.header {
            None => damage.push((self.place.offset, "no frame starts here".to_owned())),
            Some(header) if pieces.len() == records && records != header.count as usize => {
                let what = format!("{records} records instead of {}", header.count);
                damage.push((self.place.offset, what));
            }
            Some(_) => {}
        }
        if self.is_partial {
            damage.push((self.place.offset, "not all of the frame can be read".to_owned()));
        }
        damage.extend(pieces.iter().filter_map(|piece| match piece {
            Piece::Record(_) => None,
            Piece::Damaged(range, what) => {
                Some((self.place.offset + range.start as u32, what.clone()))
            }
        }));
        damage
    }
}

/// Reads the frame at `offset` of a segment whose frames end at `end`.
pub(crate) async fn read_frame<E: Env>(
    reader: &mut Reader<'_, E>,
    place: Place,
    end: u32,
) -> FrameAt {
    let header = header_at(reader, place).await;
    let header = header.filter(|header| {
        place.offset.checked_add(header.padded_len()).is_some_and(|frame_end| frame_end <= end)
    });
    let len = match header {
        Some(header) => header.len as usize,
        None => (next_header(reader, place, end).await - place.offset) as usize,
    };
    let read = reader.bytes(u64::from(place.offset), len).await;
    FrameAt { place, header, bytes: read.bytes.to_vec(), is_partial: read.is_partial }
}

async fn header_at<E: Env>(reader: &mut Reader<'_, E>, place: Place) -> Option<FrameHeader> {
    let read = reader.bytes(u64::from(place.offset), frame::HEADER_BYTES).await;
    FrameHeader::decode(read.bytes, place).map(|(header, _)| header)
}

/// The offset of the next intact frame behind `place`, or `end`.
async fn next_header<E: Env>(reader: &mut Reader<'_, E>, place: Place, end: u32) -> u32 {
    let step = DISK_ALIGNMENT as u32;
    let mut offset = place.offset + step;
    while offset < end {
        if header_at(reader, Place { offset, ..place }).await.is_some() {
            return offset;
        }
        offset += step;
    }
    end
}

/// What was found in a stretch of a segment.
#[derive(Default)]
pub(super) struct Stretch {
    pub(super) frames: u64,
    pub(super) records: u64,
    pub(super) damage: Vec<(u32, String)>,
}

/// Where the part of each segment ends that only pointers lead to.
pub(super) type Ends = BTreeMap<u32, u32>;

/// Finds these ends for the segments of the manifest.
pub(super) async fn ends<E: Env>(
    env: &E,
    directory: &Path,
    store: u128,
    state: &State,
) -> Result<Ends, CheckError> {
    let mut ends = Ends::new();
    for (&number, known) in &state.segments {
        let sealed = known.sealed.map(|seal| seal.end);
        let end = match sealed {
            _ if log::is_replayed(state, number) => {
                let from = state.replay_from;
                let position = if number == from.segment { from.offset } else { 0 };
                sealed.map_or(position, |end| end.min(position))
            }
            Some(end) => end,
            None if known.is_log() => 0,
            None => open_end(env, directory, store, number, known).await?,
        };
        ends.insert(number, end);
    }
    Ok(ends)
}

/// The end of a segment of collected records that was never sealed: where its last frame ends. One
/// frame was durable before the next was written, so what is none before that is damage.
async fn open_end<E: Env>(
    env: &E,
    directory: &Path,
    store: u128,
    number: u32,
    known: &SegmentState,
) -> Result<u32, CheckError> {
    let path = directory.join(segment::file_name(number));
    let (mut offset, mut last_end) = (segment::HEADER_BYTES, segment::HEADER_BYTES);
    let mut reader = match Reader::open(env, &path, AHEAD_BYTES).await {
        Ok(reader) => reader,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(last_end),
        Err(error) => return Err(CheckError::io(&path, "open")(error)),
    };
    while offset < known.file_bytes {
        env.yield_if_needed().await;
        let header = header_at(&mut reader, Place { store, segment: number, offset }).await;
        let end = header.and_then(|header| offset.checked_add(header.padded_len()));
        match end.filter(|end| *end <= known.file_bytes) {
            Some(end) => (offset, last_end) = (end, end),
            None => offset += DISK_ALIGNMENT as u32,
        }
    }
    Ok(last_end)
}

/// Checks the frames of segment `number` from its header up to `end`. With `is_open`, the last of
/// them may be what a crash has cut short, to which nothing points.
pub(super) async fn scan<E: Env>(
    env: &E,
    reader: &mut Reader<'_, E>,
    store: u128,
    number: u32,
    end: u32,
    is_open: bool,
) -> Result<Stretch, CheckError> {
    let mut stretch = Stretch::default();
    let mut offset = segment::HEADER_BYTES;
    while offset < end {
        env.yield_if_needed().await;
        let place = Place { store, segment: number, offset };
        let frame = read_frame(reader, place, end).await;
        let pieces = pieces_and_values(env, &frame.bytes, place).await;
        let pieces = pieces.map_err(|error| newer(number, error))?;
        stretch.frames += 1;
        stretch.records += pieces.len() as u64;
        offset = frame.end();
        if offset < end || !is_open {
            stretch.damage.extend(frame.damage(&pieces));
        }
    }
    Ok(stretch)
}

pub(super) fn newer(number: u32, error: RecordError) -> CheckError {
    CheckError::Newer(format!("{}: {error}", segment::file_name(number)))
}
