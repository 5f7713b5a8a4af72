//! The log's state machine: what is open, on its way, written and durable. No I/O happens here.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::Env;

use super::buffers::FrameBuffers;
use super::demand::Demand;
use super::{Append, Appended, Durability, LogCounters, LogEnds, LogOptions, Refused};
use crate::entry::Pointer;
use crate::manifest::SegmentSeal;
use crate::value_log::frame::{self, FrameBuilder};
use crate::value_log::log_segments::LogSegments;
use crate::value_log::record::Place;
use crate::value_log::segment::{self, Segment};

/// A closed frame.
pub(super) struct Frame {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
    pub(super) sequence_end: u64,
    pub(super) buffer: Option<Buffer>,
    pub(super) written: bool,
}

/// From where on the log counts as unflushed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// Of all bytes appended since the start.
    pub(super) bytes: u64,
    pub(super) nanoseconds: u64,
}

/// The log of one shard at one moment.
pub(super) struct State<E: Env> {
    pub(super) segments: LogSegments<E::File>,
    pub(super) current: Rc<Segment<E::File>>,
    pub(super) spare: Option<Rc<Segment<E::File>>>,
    /// The longest segment that an append has asked for and not got.
    pub(super) wanted_bytes: u32,
    /// There is no space for a segment of this length, which is not the standard one: the append
    /// that asked for it is refused. 0 if there is none.
    pub(super) unavailable_bytes: u32,
    /// Where the next frame starts in the current segment, if none is open.
    pub(super) offset: u32,
    pub(super) open: Option<FrameBuilder>,
    /// Closed frames in log order: first those on their way, then those that wait.
    pub(super) frames: VecDeque<Frame>,
    pub(super) in_flight: usize,
    pub(super) queued_bytes: usize,
    pub(super) previous: u32,
    pub(super) sequence_next: u64,
    pub(super) sequence_limit: u64,
    pub(super) written_end: u64,
    pub(super) durable_end: u64,
    /// Segments with writes that no flush has covered (not used in sync mode).
    pub(super) unsynced: BTreeSet<u32>,
    pub(super) seals: Vec<SegmentSeal>,
    pub(super) demand: Demand,
    /// A flush is under way; the next one waits, because it may rely on its outcome.
    pub(super) flushing: bool,
    pub(super) stopped: Option<String>,
    pub(super) counters: LogCounters,
    pub(super) buffers: FrameBuffers,
    pub(super) mark: Mark,
    /// Bytes before the start that are unflushed.
    pub(super) replayed_bytes: u64,
}

impl<E: Env> State<E> {
    /// A log with nothing appended to `current` yet, which keeps so many bytes of buffers.
    pub(super) fn new(
        current: Segment<E::File>,
        mut segments: LogSegments<E::File>,
        (sequence_next, sequence_limit): (u64, u64),
        kept_bytes_max: usize,
    ) -> Self {
        let current = Rc::new(current);
        segments.add(Rc::clone(&current));
        Self {
            segments,
            current,
            spare: None,
            wanted_bytes: 0,
            unavailable_bytes: 0,
            offset: segment::HEADER_BYTES,
            open: None,
            frames: VecDeque::new(),
            in_flight: 0,
            queued_bytes: 0,
            previous: 0,
            sequence_next,
            sequence_limit,
            written_end: sequence_next,
            durable_end: sequence_next,
            unsynced: BTreeSet::new(),
            seals: Vec::new(),
            demand: Demand::default(),
            flushing: false,
            stopped: None,
            counters: LogCounters::default(),
            buffers: FrameBuffers::new(kept_bytes_max),
            mark: Mark::default(),
            replayed_bytes: 0,
        }
    }

    /// Adds a record, for which there is room, to the open frame.
    pub(super) fn append(&mut self, append: &Append<'_>) -> Appended {
        let record = &append.record;
        let len = record.encoded_len();
        let open = self.open.as_mut().expect("room has been made in a frame");
        let offset = open.push(record, append.payload_crc);
        let pointer = Pointer { segment: open.place().segment, offset, len: len as u32 };
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        self.counters.records += 1;
        self.counters.record_bytes += len as u64;
        Appended { pointer, sequence }
    }

    /// Bytes appended since the start, padding included, but for the open frame's.
    pub(super) fn appended_bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, FrameBuilder::len);
        self.counters.frame_bytes + open as u64
    }

    /// Whether `records` records may be appended, as far as their number matters.
    pub(super) fn check_room(&self, options: &LogOptions, records: u64) -> Result<(), Refused> {
        if self.stopped.is_some() {
            return Err(Refused::Stopped);
        }
        if self.queued_bytes > options.queued_bytes_max {
            return Err(Refused::Queued);
        }
        if self.sequence_limit.saturating_sub(self.sequence_next) < records {
            return Err(Refused::NoSequence);
        }
        Ok(())
    }

    /// Leaves an open frame with a buffer that has room for records of `len` bytes together;
    /// `buffer` makes the memory that frames are built in.
    pub(super) fn make_room(
        &mut self,
        store: u128,
        options: &LogOptions,
        len: usize,
        buffer: &dyn Fn(usize) -> Buffer,
    ) -> Result<(), Refused> {
        if let Some(open) = &self.open {
            let grown = open.len() + len;
            let in_segment = open.place().offset as usize + frame::padded(grown);
            if grown > options.frame_bytes_max || in_segment > self.current.bytes as usize {
                self.close_open_frame();
            }
        }
        let Some(open) = &mut self.open else {
            let needed = frame::padded(frame::HEADER_BYTES + len);
            if self.offset as usize + needed > self.current.bytes as usize {
                self.next_segment(needed)?;
            }
            let place = Place { store, segment: self.current.number, offset: self.offset };
            let buffer = self.buffers.take(needed, buffer);
            self.open = Some(FrameBuilder::new(buffer, place, self.sequence_next));
            return Ok(());
        };
        let grown = open.len() + len;
        if grown > open.capacity() {
            let wanted = frame::padded(grown.max(2 * open.capacity()));
            let outgrown = open.move_to(self.buffers.take(wanted, buffer));
            self.buffers.give(outgrown);
        }
        Ok(())
    }

    fn next_segment(&mut self, needed: usize) -> Result<(), Refused> {
        let fits = |spare: &Rc<Segment<E::File>>| {
            segment::HEADER_BYTES as usize + needed <= spare.bytes as usize
        };
        if !self.spare.as_ref().is_some_and(fits) {
            let bytes = segment::HEADER_BYTES as usize + needed;
            let bytes = u32::try_from(bytes).expect("a record's length was checked");
            if self.unavailable_bytes != 0 && bytes >= self.unavailable_bytes {
                // Asked for once more, the space may be there.
                self.unavailable_bytes = 0;
                return Err(Refused::NoSpace);
            }
            self.wanted_bytes = self.wanted_bytes.max(bytes);
            return Err(Refused::NoSegment);
        }
        self.seals.push(self.seal_of_current());
        self.current = self.spare.take().expect("checked above");
        self.offset = segment::HEADER_BYTES;
        Ok(())
    }

    fn seal_of_current(&self) -> SegmentSeal {
        SegmentSeal {
            segment: self.current.number,
            end: self.offset,
            sequence_last: self.sequence_next.saturating_sub(1),
        }
    }

    /// The ends of the segments that were filled and are durable, each once. What a seal covers
    /// counts as acknowledged, so a segment with a frame on its way has to wait.
    pub(super) fn take_seals(&mut self) -> Vec<SegmentSeal> {
        let durable_end = self.durable_end;
        self.seals.extract_if(.., |seal| seal.sequence_last < durable_end).collect()
    }

    /// Ends the log, all of which is durable: the ends of all segments, the current one included.
    pub(super) fn close(&mut self) -> Vec<SegmentSeal> {
        assert!(self.open.is_none() && self.durable_end == self.sequence_next, "all is durable");
        self.seals.push(self.seal_of_current());
        self.stopped = Some("the shard was closed".to_owned());
        self.take_seals()
    }

    /// Seals the open frame and puts it in the line of those to be written.
    pub(super) fn close_open_frame(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.is_empty() {
            return;
        }
        let place = open.place();
        let sequence_end = open.sequence_end();
        let (buffer, crc) = open.seal(self.durable_end, self.previous);
        self.previous = crc;
        let bytes = buffer.len() as u32;
        self.offset = place.offset + bytes;
        self.queued_bytes += buffer.len();
        self.counters.frames += 1;
        self.counters.frame_bytes += u64::from(bytes);
        self.frames.push_back(Frame {
            segment: place.segment,
            offset: place.offset,
            bytes,
            sequence_end,
            buffer: Some(buffer),
            written: false,
        });
    }

    /// Takes the next frame to write, if one may go now: its file, offset, bytes and end.
    pub(super) fn next_to_write(
        &mut self,
        options: &LogOptions,
    ) -> Option<(E::File, u32, Buffer, u64)> {
        if self.in_flight >= options.frames_in_flight_max {
            return None;
        }
        if !self.frames.iter().any(|frame| frame.buffer.is_some()) {
            let due = match options.durability {
                Durability::Sync => true,
                Durability::Interval(_) | Durability::None => {
                    let bytes = self.open.as_ref().map_or(0, FrameBuilder::len);
                    bytes >= options.lazy_frame_bytes
                }
            };
            if due {
                self.close_open_frame();
            }
        }
        let frame = self.frames.iter_mut().find(|frame| frame.buffer.is_some())?;
        let buffer = frame.buffer.take().expect("found by it");
        let (number, offset, sequence_end) = (frame.segment, frame.offset, frame.sequence_end);
        self.in_flight += 1;
        let segment = self.segments.open(number).expect("a frame's segment is open");
        Some((segment.file.clone(), offset, buffer, sequence_end))
    }

    pub(super) fn segment_of_frame(&self, sequence_end: u64) -> u32 {
        let frame = self.frames.iter().find(|frame| frame.sequence_end == sequence_end);
        frame.map_or(self.current.number, |frame| frame.segment)
    }

    /// Notes that a frame's write has finished; frames count in log order only.
    pub(super) fn frame_written(&mut self, sequence_end: u64, durable: bool) {
        if self.stopped.is_some() {
            return;
        }
        let frame = self.frames.iter_mut().find(|frame| frame.sequence_end == sequence_end);
        let frame = frame.expect("a frame stays queued until it is written");
        frame.written = true;
        self.queued_bytes -= frame.bytes as usize;
        self.in_flight -= 1;
        if !durable {
            self.unsynced.insert(frame.segment);
        }
        // A frame that went through after the one before it may leave the list only with it.
        while self.frames.front().is_some_and(|frame| frame.written) {
            let frame = self.frames.pop_front().expect("just seen");
            self.written_end = frame.sequence_end;
            if durable {
                self.durable_end = frame.sequence_end;
            }
        }
    }

    pub(super) fn ends(&self) -> LogEnds {
        let mut ends = LogEnds::default();
        ends.appended.extend(self.seals.iter().map(|seal| (seal.segment, seal.end)));
        ends.appended.insert(self.current.number, self.offset);
        for frame in &self.frames {
            ends.unwritten.entry(frame.segment).or_insert(frame.offset);
        }
        ends
    }

    pub(super) fn is_in_open_frame(&self, pointer: Pointer) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let place = open.place();
            covers(place.segment, place.offset, open.len(), pointer)
        })
    }

    /// Whether the bytes at `pointer` have reached the file.
    pub(super) fn is_written(&self, pointer: Pointer) -> bool {
        let on_its_way = |frame: &Frame| {
            !frame.written && covers(frame.segment, frame.offset, frame.bytes as usize, pointer)
        };
        !self.is_in_open_frame(pointer) && !self.frames.iter().any(on_its_way)
    }
}

fn covers(segment: u32, offset: u32, bytes: usize, pointer: Pointer) -> bool {
    let (start, at) = (u64::from(offset), u64::from(pointer.offset));
    segment == pointer.segment && (start..start + bytes as u64).contains(&at)
}
