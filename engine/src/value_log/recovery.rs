//! Replaying the log after a start.
//!
//! Frames are read in the order of the segments' numbers from the manifest's position on. Where a
//! frame is unreadable, either the log ended there (a torn tail: what follows was never
//! acknowledged and is dropped silently) or acknowledged data is damaged (the readable rest is kept
//! and the loss is reported). A later frame that says the sequence was durable decides, or the seal
//! that a clean end or a full segment has put into the manifest. Damage that hits the very last
//! frames before a crash, those that no later frame has seen durable, looks like a torn tail: no
//! one node can tell the two apart. An unreadable sector is never taken for one.
//!
//! Nothing is written here: the caller makes the outcome durable in the manifest before it lets the
//! log grow, so replaying again after another crash finds the same.

use std::ops::Range;
use std::path::Path;

use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};

use super::frame::{self, FrameHeader};
use super::moves::Moves;
use super::record::{self, Place, Record, RecordError, RecordKind};
use super::segment::{self, Segment};
use super::window::{Piece, Window};
use crate::canary::{self, Defect};
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::manifest::{LogPosition, SegmentSeal};

/// So often bytes are read before they are believed to be no frame: what a device gives wrongly now
/// and then must not look like the end of the log, behind which everything is dropped.
const READS_BEFORE_BELIEF: usize = 4;

/// A segment to replay.
pub struct ReplaySegment<F> {
    /// The open segment.
    pub segment: Segment<F>,
    /// Where it ends, if an earlier start or a full segment fixed that.
    pub seal: Option<SegmentSeal>,
}

/// A record that was replayed. A record of moves is shown as a `Repoint` of each key, all with its
/// sequence.
pub struct Replayed<'a> {
    /// Its place in the log's order.
    pub sequence: u64,
    /// Where it lies.
    pub pointer: Pointer,
    /// The record.
    pub record: Record<'a>,
    /// Whether the payload is as it was written.
    pub payload_intact: bool,
}

/// Damage to acknowledged data that replaying has met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the start of its file.
    pub offset: u32,
    /// How many bytes are unreadable, those included that may never have been written.
    pub bytes: u32,
    /// The changes that may be lost, by sequence; none where a damaged value is still known of.
    pub lost: Range<u64>,
    /// What is lost or damaged, for the log.
    pub what: String,
}

/// What replaying has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Above every sequence that was replayed or skipped.
    pub sequence_next: u64,
    /// The end of every segment that had none yet.
    pub seals: Vec<SegmentSeal>,
    /// Whether unacknowledged frames were dropped at the end.
    pub torn: bool,
    /// Damage to acknowledged data.
    pub damage: Vec<Damage>,
    /// Records replayed.
    pub records: u64,
}

/// Replays every record from `from` on, in order, into `visit`.
///
/// `segments` are sorted by number and start with the one that `from` names.
pub async fn replay<E: Env>(
    env: &E,
    store: u128,
    segments: &[ReplaySegment<E::File>],
    from: LogPosition,
    mut visit: impl FnMut(Replayed<'_>),
) -> Result<Outcome, EngineError> {
    let mut replay = Replay {
        env,
        store,
        segments,
        outcome: Outcome {
            sequence_next: from.sequence,
            seals: Vec::new(),
            torn: false,
            damage: Vec::new(),
            records: 0,
        },
        previous: None,
    };
    let mut at = At { index: 0, offset: from.offset.max(segment::HEADER_BYTES) };
    while at.index < segments.len() {
        at = replay.one_segment(at, &mut visit).await?;
    }
    Ok(replay.outcome)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    index: usize,
    offset: u32,
}

struct Replay<'a, E: Env> {
    env: &'a E,
    store: u128,
    segments: &'a [ReplaySegment<E::File>],
    outcome: Outcome,
    /// The header checksum of the frame before, if it was readable.
    previous: Option<u32>,
}

/// What is at a place where a frame may start.
enum HeaderAt {
    /// A readable header and its checksum.
    Frame(FrameHeader, u32),
    /// Something else.
    None,
    /// The device cannot read it.
    Unreadable,
}

enum Next {
    /// A frame that continues the log.
    Frame(FrameHeader, u32),
    /// The log goes on elsewhere.
    GoTo(At),
}

impl<E: Env> Replay<'_, E> {
    /// Replays frames from `at` until the segment has no more; returns where to go on.
    async fn one_segment(
        &mut self,
        mut at: At,
        visit: &mut impl FnMut(Replayed<'_>),
    ) -> Result<At, EngineError> {
        let segments = self.segments;
        let source = &segments[at.index];
        let mut window = Window::new(self.env, &source.segment, IoClass::Read);
        let mut end = at.offset;
        loop {
            if let Some(seal) = source.seal
                && at.offset >= seal.end
            {
                // A start that sealed a segment also left out the sequences up to this one.
                self.skip_to(self.outcome.sequence_next.max(seal.sequence_last + 1));
                return Ok(At { index: at.index + 1, offset: segment::HEADER_BYTES });
            }
            match self.next_frame(&mut window, at).await {
                Next::GoTo(next) => {
                    if next.index != at.index {
                        self.end_of(at.index, end);
                        self.end_skipped(at.index + 1..next.index);
                        return Ok(next);
                    }
                    at = next;
                }
                Next::Frame(header, crc) => {
                    self.frame(&mut window, at, &header, visit).await?;
                    if self.outcome.torn {
                        self.end_of(at.index, end);
                        self.end_skipped(at.index + 1..segments.len());
                        return Ok(At { index: segments.len(), offset: 0 });
                    }
                    self.previous = Some(crc);
                    self.outcome.sequence_next = header.sequence_end();
                    at.offset += header.padded_len();
                    end = at.offset;
                }
            }
        }
    }

    /// Remembers where a segment ends that nothing has sealed before.
    fn end_of(&mut self, index: usize, end: u32) {
        if self.segments[index].seal.is_none() {
            self.outcome.seals.push(SegmentSeal {
                segment: self.segments[index].segment.number,
                end,
                sequence_last: self.outcome.sequence_next.saturating_sub(1),
            });
        }
    }

    /// Seals segments that replay skips over: they hold nothing that counts.
    ///
    /// A skipped segment may lie between two that hold frames: a spare that a longer one has
    /// replaced. Its last sequence is therefore that of the segment before it, never one of a
    /// segment behind it, because the next replay leaves out what a seal says has passed.
    fn end_skipped(&mut self, indices: Range<usize>) {
        for index in indices {
            self.end_of(index, segment::HEADER_BYTES);
        }
    }

    /// Decides how the log goes on at `at`.
    async fn next_frame(&mut self, window: &mut Window<'_, E>, at: At) -> Next {
        let expected = self.outcome.sequence_next;
        let header = self.believed_at(window, at, |header| self.continues(header)).await;
        if let HeaderAt::Frame(header, crc) = header
            && self.continues(&header)
        {
            return Next::Frame(header, crc);
        }
        let mut unreadable = matches!(header, HeaderAt::Unreadable);
        let mut beyond = None;
        if !unreadable {
            // A full segment ends where the next frame did not fit.
            match self.first_header_after(at.index).await {
                Some((index, HeaderAt::Frame(header, _))) if self.continues(&header) => {
                    return Next::GoTo(At { index, offset: segment::HEADER_BYTES });
                }
                Some((index, HeaderAt::Unreadable)) => {
                    unreadable = true;
                    beyond = Some(At { index, offset: segment::HEADER_BYTES });
                }
                _ => {}
            }
        }
        let later = self.first_frame_after(at, expected).await;
        // What follows in this segment counts before what cannot be read of a later one.
        let follows_here =
            |beyond: &At| later.as_ref().is_some_and(|(next, _)| next.index < beyond.index);
        let at = beyond.filter(|beyond| !follows_here(beyond)).unwrap_or(at);
        let sealed_here = self.segments[at.index].seal;
        let acknowledged = sealed_here.is_some()
            // A power failure tears, but leaves nothing unreadable: that comes from wear.
            || unreadable
            || match later {
                Some((next, header)) => {
                    later_is_proof(&header, expected) || self.durable_later(next, expected).await
                }
                None => false,
            };
        if !acknowledged {
            self.outcome.torn = later.is_some();
            return Next::GoTo(At { index: self.segments.len(), offset: 0 });
        }
        let what = format!("records from {expected} on are unreadable");
        match later {
            Some((_, header)) if canary::has(Defect::DropAfterDamage) => {
                self.report(
                    (at, self.bytes_until(at, None)),
                    expected..header.sequence_first,
                    what,
                );
                Next::GoTo(At { index: self.segments.len(), offset: 0 })
            }
            Some((next, header)) => {
                let bytes = self.bytes_until(at, Some(next));
                self.report((at, bytes), expected..header.sequence_first, what);
                self.skip_to(header.sequence_first);
                Next::GoTo(next)
            }
            None => {
                let sealed = sealed_here.map_or(0, |seal| seal.sequence_last + 1);
                // Without a seal nobody knows how many there were.
                let lost_end = if sealed_here.is_some() { sealed } else { u64::MAX };
                self.report((at, self.bytes_until(at, None)), expected..lost_end, what);
                self.skip_to(expected.max(sealed));
                Next::GoTo(At { index: at.index + 1, offset: segment::HEADER_BYTES })
            }
        }
    }

    fn skip_to(&mut self, sequence: u64) {
        self.outcome.sequence_next = sequence;
        self.previous = None;
    }

    fn report(&mut self, (at, bytes): (At, u32), lost: Range<u64>, what: String) {
        let segment = self.segments[at.index].segment.number;
        self.outcome.damage.push(Damage { segment, offset: at.offset, bytes, lost, what });
    }

    /// How many bytes lie between `at` and `next`, or the end of the segment.
    fn bytes_until(&self, at: At, next: Option<At>) -> u32 {
        let source = &self.segments[at.index];
        let end = source.seal.map_or(source.segment.bytes, |seal| seal.end);
        let next = next.filter(|next| next.index == at.index);
        next.map_or(end, |next| next.offset).saturating_sub(at.offset)
    }

    fn continues(&self, header: &FrameHeader) -> bool {
        let expected = self.outcome.sequence_next;
        let linked = self.previous.is_none_or(|previous| previous == header.previous);
        header.sequence_first == expected && linked
    }

    async fn header_at(&self, window: &mut Window<'_, E>, at: At) -> HeaderAt {
        let segment = self.segments[at.index].segment.number;
        let place = Place { store: self.store, segment, offset: at.offset };
        match window.bytes(at.offset, frame::HEADER_BYTES).await {
            Piece::Here(bytes) => match FrameHeader::decode(bytes, place) {
                Some((header, crc)) => HeaderAt::Frame(header, crc),
                None => HeaderAt::None,
            },
            Piece::Past => HeaderAt::None,
            Piece::Unreadable => HeaderAt::Unreadable,
        }
    }

    /// What is at `at`, read anew as often as it takes to believe that it is no frame that `fits`.
    async fn believed_at(
        &self,
        window: &mut Window<'_, E>,
        at: At,
        fits: impl Fn(&FrameHeader) -> bool,
    ) -> HeaderAt {
        let mut header = self.header_at(window, at).await;
        for _ in 1..READS_BEFORE_BELIEF {
            if matches!(&header, HeaderAt::Frame(header, _) if fits(header)) {
                break;
            }
            window.forget();
            header = self.header_at(window, at).await;
        }
        header
    }

    /// The first of the later segments that begins with a frame, or whose beginning the device
    /// cannot read, and what is there.
    async fn first_header_after(&self, index: usize) -> Option<(usize, HeaderAt)> {
        for (later, source) in self.segments.iter().enumerate().skip(index + 1) {
            let mut window = Window::new(self.env, &source.segment, IoClass::Read);
            let at = At { index: later, offset: segment::HEADER_BYTES };
            let header = self.believed_at(&mut window, at, |_| true).await;
            if !matches!(header, HeaderAt::None) {
                return Some((later, header));
            }
        }
        None
    }

    /// The first readable frame after `at` whose sequence is not below `sequence`.
    async fn first_frame_after(&self, at: At, sequence: u64) -> Option<(At, FrameHeader)> {
        let mut found = None;
        self.scan_after(at, |place, header| {
            let fits = header.sequence_first >= sequence;
            if fits {
                found = Some((place, *header));
            }
            fits
        })
        .await;
        found
    }

    /// Whether a frame at or after `at` says that `sequence` was durable.
    async fn durable_later(&self, at: At, sequence: u64) -> bool {
        let mut proof = false;
        self.scan_after(at, |_, header| {
            proof = later_is_proof(header, sequence);
            proof
        })
        .await;
        proof
    }

    /// Shows every readable frame header after `at` to `visit` until it returns true.
    async fn scan_after(&self, at: At, mut visit: impl FnMut(At, &FrameHeader) -> bool) {
        let mut offset = at.offset + DISK_ALIGNMENT as u32;
        for (index, source) in self.segments.iter().enumerate().skip(at.index) {
            let mut window = Window::new(self.env, &source.segment, IoClass::Read);
            let end = source.seal.map_or(source.segment.bytes, |seal| seal.end);
            while offset < end {
                let place = At { index, offset };
                if let HeaderAt::Frame(header, _) = self.header_at(&mut window, place).await
                    && visit(place, &header)
                {
                    return;
                }
                offset += DISK_ALIGNMENT as u32;
            }
            offset = segment::HEADER_BYTES;
        }
    }

    /// Replays one frame's records, or finds that the log is torn in the middle of it.
    async fn frame(
        &mut self,
        window: &mut Window<'_, E>,
        at: At,
        header: &FrameHeader,
        visit: &mut impl FnMut(Replayed<'_>),
    ) -> Result<(), EngineError> {
        let segment = self.segments[at.index].segment.number;
        let place = Place { store: self.store, segment, offset: at.offset };
        let len = header.len as usize;
        for attempt in 1..=READS_BEFORE_BELIEF {
            if let Piece::Here(bytes) = window.bytes(at.offset, len).await
                && is_whole(bytes, place, header)?
            {
                return self.records(bytes, at, header, visit);
            }
            if attempt < READS_BEFORE_BELIEF {
                window.forget();
            }
        }
        let unreadable = match window.bytes(at.offset, len).await {
            Piece::Here(_) => false,
            Piece::Unreadable => true,
            // No frame is written across a segment's end.
            Piece::Past => return self.broken_header(at, header).await,
        };
        if !unreadable && !self.frame_was_durable(at, header).await {
            self.outcome.torn = true;
            return Ok(());
        }
        let bytes = window.salvage(at.offset, len).await;
        self.records(&bytes, at, header, visit)
    }

    /// A header that is intact but claims what cannot be.
    async fn broken_header(&mut self, at: At, header: &FrameHeader) -> Result<(), EngineError> {
        if self.frame_was_durable(at, header).await {
            let lost = header.sequence_first..header.sequence_end();
            let bytes = self.bytes_until(at, None);
            self.report(
                (at, bytes),
                lost,
                format!("a frame of {} records has no end", header.count),
            );
        } else {
            self.outcome.torn = true;
        }
        Ok(())
    }

    /// Replays what is readable of a frame, and reports the rest.
    fn records(
        &mut self,
        bytes: &[u8],
        at: At,
        header: &FrameHeader,
        visit: &mut impl FnMut(Replayed<'_>),
    ) -> Result<(), EngineError> {
        let segment = self.segments[at.index].segment.number;
        let place = Place { store: self.store, segment, offset: at.offset };
        let mut offset = frame::HEADER_BYTES;
        // Records behind damage count from the least that they can be: only the order matters.
        let mut index = 0;
        while index < u64::from(header.count) && offset < bytes.len() {
            let at_record = At { offset: at.offset + offset as u32, ..at };
            let Some(found) = decode_record(bytes, offset, place)? else {
                let end = record::find(bytes, offset + 1, place).unwrap_or(bytes.len());
                let lost = header.sequence_first + index..header.sequence_end();
                let what = format!("{} bytes of records are unreadable", end - offset);
                self.report((at_record, (end - offset) as u32), lost, what);
                offset = end;
                index += 1;
                continue;
            };
            let pointer = Pointer { segment, offset: at_record.offset, len: found.len as u32 };
            let replayed = Replayed {
                sequence: header.sequence_first + index,
                pointer,
                record: found.record,
                payload_intact: found.payload_intact,
            };
            self.one_record(at_record, replayed, visit);
            offset += found.len;
            index += 1;
        }
        Ok(())
    }

    /// Replays a record whose head is intact.
    fn one_record(&mut self, at: At, replayed: Replayed<'_>, visit: &mut impl FnMut(Replayed<'_>)) {
        let Replayed { sequence, pointer, record, payload_intact } = replayed;
        if record.kind == RecordKind::Moves {
            let moves = Moves::decode(record.payload).filter(|_| payload_intact);
            match moves {
                Some(moves) => self.moves(&moves, (sequence, pointer), visit),
                None => {
                    let lost = sequence..sequence.saturating_add(1);
                    self.report((at, pointer.len), lost, record.damage());
                }
            }
            return;
        }
        if !payload_intact {
            self.report((at, pointer.len), sequence..sequence, record.damage());
        }
        visit(replayed);
        self.outcome.records += 1;
    }

    /// Replays each of some moves as what it is to its key: a change of where the value is.
    fn moves(
        &mut self,
        moves: &Moves,
        (sequence, pointer): (u64, Pointer),
        visit: &mut impl FnMut(Replayed<'_>),
    ) {
        let mut payload = Vec::new();
        for (key, entry) in moves.iter() {
            payload.clear();
            entry.encode_into(&mut payload);
            let (kind, metadata) = (RecordKind::Repoint, entry.metadata);
            let record = Record { kind, metadata, key, payload: &payload, original: None };
            visit(Replayed { sequence, pointer, record, payload_intact: true });
            self.outcome.records += 1;
        }
    }

    async fn frame_was_durable(&self, at: At, header: &FrameHeader) -> bool {
        let sealed = self.segments[at.index]
            .seal
            .is_some_and(|seal| at.offset + header.padded_len() <= seal.end);
        sealed || self.durable_later(at, header.sequence_first).await
    }
}

fn later_is_proof(later: &FrameHeader, sequence: u64) -> bool {
    later.durable_end > sequence
}

/// Whether a segment file that the manifest does not know holds a frame of its number. None does
/// unless the manifest has lost what it knew: a segment is in it before a frame is written.
///
/// # Errors
///
/// Those of opening and reading the file.
pub async fn holds_frames<E: Env>(
    env: &E,
    path: &Path,
    store: u128,
    number: u32,
) -> std::io::Result<bool> {
    let file = env.open(path, OpenMode::Read).await?;
    let offset = segment::HEADER_BYTES;
    if file.len() < u64::from(offset) + DISK_ALIGNMENT as u64 {
        return Ok(false);
    }
    let buffer = env.buffer(DISK_ALIGNMENT);
    let (result, buffer) = file.read(IoClass::Read, u64::from(offset), buffer).await;
    result?;
    let place = Place { store, segment: number, offset };
    Ok(FrameHeader::decode(&buffer, place).is_some())
}

/// Whether every record of the frame is there and as it was written.
pub(crate) fn is_whole(
    bytes: &[u8],
    place: Place,
    header: &FrameHeader,
) -> Result<bool, EngineError> {
    let mut offset = frame::HEADER_BYTES;
    for _ in 0..header.count {
        match decode_record(bytes, offset, place)? {
            Some(found) if found.payload_intact => offset += found.len,
            _ => return Ok(false),
        }
    }
    Ok(offset == bytes.len())
}

/// The record at `offset` of a frame, or `None` if there is none that can be read.
fn decode_record(
    bytes: &[u8],
    offset: usize,
    place: Place,
) -> Result<Option<record::Found<'_>>, EngineError> {
    let Some(rest) = bytes.get(offset..) else { return Ok(None) };
    let at = Place { offset: place.offset + offset as u32, ..place };
    match record::decode(rest, at) {
        Ok(found) => Ok(Some(found)),
        Err(RecordError::Head) => Ok(None),
        // A newer version's record is no damage: dropping it would lose what was acknowledged.
        Err(error @ RecordError::Newer(_)) => Err(EngineError::Open(format!(
            "{}: {error}: start a version of larder that does",
            segment::file_name(place.segment)
        ))),
    }
}

#[cfg(test)]
mod tests;
