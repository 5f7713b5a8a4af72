//! Appending and group commit.
//!
//! Appending is synchronous: the record is encoded into the open frame and its place is known at
//! once. A task writes the frame as soon as fewer than `frames_in_flight_max` frames are on their
//! way; what arrives meanwhile shares the next frame. There is no timer: a lone writer waits for
//! one write and flush, and many writers share them.
//!
//! Sequences: `durable_end` and `written_end` are the first sequences that are not yet durable and
//! not yet written. `durable_end <= written_end <= sequence_next` always holds.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{Env, File, IoClass, TaskQueue};

use super::frame::{self, FrameBuilder};
use super::record::{self, Place, Record};
use super::segment::{self, Segment, StoreIdentity};
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::manifest::SegmentSeal;
use crate::signal::Signal;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the device flush that covers it.
    Sync,
    /// At once; the log is flushed this often, in nanoseconds.
    Interval(u64),
    /// At once; the log is flushed when the engine needs it to be.
    None,
}

/// The log's settings.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// When writes are acknowledged.
    pub durability: Durability,
    /// A frame is closed before it grows over this many bytes, unless one record is larger.
    pub frame_bytes_max: usize,
    /// How many frames may be on their way to the device.
    pub frames_in_flight_max: usize,
    /// Bytes of frames that are not written yet, above which appending has to wait.
    pub queued_bytes_max: usize,
    /// [`ValueLog::needs`] is notified when no more than this many reserved sequences are left.
    pub sequences_low: u64,
    /// In the modes that do not wait for the flush: a frame is written when it has this many bytes.
    pub lazy_frame_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            frame_bytes_max: 1 << 20,
            // Two, so that one frame fills and encodes while the other is flushed. More make each
            // frame smaller while the device still serves one flush at a time.
            frames_in_flight_max: 2,
            queued_bytes_max: 8 << 20,
            sequences_low: 1 << 22,
            lazy_frame_bytes: 64 << 10,
        }
    }
}

/// A record to append. The sequence becomes its place in the log's order.
pub struct Append<'a> {
    /// The record.
    pub record: Record<'a>,
    /// The payload's CRC-32C.
    pub payload_crc: u32,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place.
    pub pointer: Pointer,
    /// Its place in the log's order.
    pub sequence: u64,
}

/// Why nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The next segment is not ready: wait for [`ValueLog::changed`] and try again.
    NoSegment,
    /// Too much waits for the device: wait for [`ValueLog::changed`] and try again.
    Queued,
    /// The sequence numbers that the manifest reserved are used up: wait and try again.
    NoSequence,
    /// The log has stopped for good.
    Stopped,
}

struct Frame {
    segment: u32,
    offset: u32,
    bytes: u32,
    sequence_end: u64,
    buffer: Option<Buffer>,
    written: bool,
}

struct State<E: Env> {
    segments: BTreeMap<u32, Rc<Segment<E::File>>>,
    current: Rc<Segment<E::File>>,
    spare: Option<Rc<Segment<E::File>>>,
    /// The longest segment that an append has asked for and not got.
    wanted_bytes: u32,
    /// Where the next frame starts in the current segment, if none is open.
    offset: u32,
    open: Option<FrameBuilder>,
    /// Closed frames in log order: first those on their way, then those that wait.
    frames: VecDeque<Frame>,
    in_flight: usize,
    queued_bytes: usize,
    previous: u32,
    sequence_next: u64,
    sequence_limit: u64,
    written_end: u64,
    durable_end: u64,
    /// Segments with writes that no flush has covered (not used in sync mode).
    unsynced: BTreeSet<u32>,
    seals: Vec<SegmentSeal>,
    /// A flush is under way; the next one waits, because it may rely on its outcome.
    flushing: bool,
    stopped: Option<String>,
    counters: LogCounters,
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogCounters {
    /// Frames written.
    pub frames: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes of frames written, padding included.
    pub frame_bytes: u64,
    /// Bytes of records appended.
    pub record_bytes: u64,
}

/// The log of one shard. Clones share it.
pub struct ValueLog<E: Env> {
    shared: Rc<Shared<E>>,
}

impl<E: Env> Clone for ValueLog<E> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

struct Shared<E: Env> {
    env: E,
    directory: PathBuf,
    identity: StoreIdentity,
    options: LogOptions,
    state: RefCell<State<E>>,
    changed: Signal,
    needs: Signal,
    to_write: Signal,
}

impl<E: Env> ValueLog<E> {
    /// A log that appends to `current`, an empty prepared segment, and reads from `segments`.
    ///
    /// `sequence_next` is above every sequence ever used; `sequence_limit` is the first that the
    /// manifest has not reserved. Starts the task that writes frames.
    pub fn start(
        env: &E,
        directory: &Path,
        identity: StoreIdentity,
        options: LogOptions,
        current: Segment<E::File>,
        segments: Vec<Segment<E::File>>,
        (sequence_next, sequence_limit): (u64, u64),
    ) -> Self {
        let current = Rc::new(current);
        let mut open_segments: BTreeMap<u32, Rc<Segment<E::File>>> =
            segments.into_iter().map(|segment| (segment.number, Rc::new(segment))).collect();
        open_segments.insert(current.number, Rc::clone(&current));
        let state = State {
            segments: open_segments,
            current,
            spare: None,
            wanted_bytes: 0,
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
            flushing: false,
            stopped: None,
            counters: LogCounters::default(),
        };
        let log = Self {
            shared: Rc::new(Shared {
                env: env.clone(),
                directory: directory.to_path_buf(),
                identity,
                options,
                state: RefCell::new(state),
                changed: Signal::default(),
                needs: Signal::default(),
                to_write: Signal::default(),
            }),
        };
        env.spawn(TaskQueue::Foreground, log.clone().write_frames());
        if let Durability::Interval(nanoseconds) = options.durability {
            env.spawn(TaskQueue::Foreground, log.clone().flush_every(nanoseconds));
        }
        if options.durability == Durability::None {
            env.spawn(TaskQueue::Foreground, log.clone().write_every(LAZY_WRITE_NANOSECONDS));
        }
        log
    }

    /// The sequence that the next appended record gets.
    pub fn sequence_next(&self) -> u64 {
        self.shared.state.borrow().sequence_next
    }

    /// The first sequence that is not durable. Everything below survives a crash.
    pub fn durable_end(&self) -> u64 {
        self.shared.state.borrow().durable_end
    }

    /// The first sequence whose acknowledgement has to wait, by the log's durability.
    pub fn acknowledged_end(&self) -> u64 {
        match self.shared.options.durability {
            Durability::Sync => self.shared.state.borrow().durable_end,
            Durability::Interval(_) | Durability::None => u64::MAX,
        }
    }

    /// Notified when segments, space, sequences or durability have changed, or the log stopped.
    pub fn changed(&self) -> &Signal {
        &self.shared.changed
    }

    /// Why the log has stopped, if it has.
    pub fn stopped(&self) -> Option<String> {
        self.shared.state.borrow().stopped.clone()
    }

    /// Notified when a segment or sequences should be prepared.
    pub fn needs(&self) -> &Signal {
        &self.shared.needs
    }

    /// Whether the reserved sequences run low.
    pub fn needs_sequences(&self) -> bool {
        let state = self.shared.state.borrow();
        state.sequence_limit - state.sequence_next <= self.shared.options.sequences_low
    }

    /// What has been done so far.
    pub fn counters(&self) -> LogCounters {
        self.shared.state.borrow().counters
    }

    /// Stops the log for good: nothing is appended or acknowledged from now on.
    pub fn stop(&self, reason: String) {
        let mut state = self.shared.state.borrow_mut();
        if state.stopped.is_none() {
            tracing::error!(%reason, "the value log has stopped taking writes");
            state.stopped = Some(reason);
        }
        drop(state);
        self.shared.changed.notify();
        self.shared.to_write.notify();
    }

    /// Appends a record to the open frame. It is durable when [`ValueLog::durable_end`] is above
    /// its sequence.
    pub fn append(&self, append: &Append<'_>) -> Result<Appended, Refused> {
        let shared = &*self.shared;
        let mut state = shared.state.borrow_mut();
        let had_spare = state.spare.is_some();
        let appended = state.append(shared, append);
        let low = state.sequence_limit - state.sequence_next == shared.options.sequences_low;
        let wants = had_spare != state.spare.is_some() || low;
        drop(state);
        if wants || matches!(appended, Err(Refused::NoSegment | Refused::NoSequence)) {
            shared.needs.notify();
        }
        shared.to_write.notify();
        appended
    }

    /// How many bytes long the next segment has to be, if one should be prepared now: none is
    /// ready, or one record needs a longer one.
    pub fn wants_segment(&self, standard_bytes: u32) -> Option<u32> {
        let state = self.shared.state.borrow();
        let wanted = state.wanted_bytes.max(standard_bytes);
        let ready = state.spare.as_ref().is_some_and(|spare| spare.bytes >= wanted);
        (!ready && state.stopped.is_none()).then_some(wanted)
    }

    /// Takes a prepared segment, which the manifest knows; returns the one that it replaces.
    pub fn offer_segment(&self, segment: Segment<E::File>) -> Option<u32> {
        let mut state = self.shared.state.borrow_mut();
        let segment = Rc::new(segment);
        assert!(segment.number > state.current.number, "segments are used in their number's order");
        if segment.bytes >= state.wanted_bytes {
            state.wanted_bytes = 0;
        }
        state.segments.insert(segment.number, Rc::clone(&segment));
        let replaced = state.spare.replace(segment).map(|spare| spare.number);
        if let Some(number) = replaced {
            state.segments.remove(&number);
        }
        drop(state);
        self.shared.changed.notify();
        replaced
    }

    /// Allows sequences below `limit`, which the manifest has reserved durably.
    pub fn extend_sequences(&self, limit: u64) {
        let mut state = self.shared.state.borrow_mut();
        state.sequence_limit = state.sequence_limit.max(limit);
        drop(state);
        self.shared.changed.notify();
    }

    /// The first sequence that the manifest has not reserved.
    pub fn sequence_limit(&self) -> u64 {
        self.shared.state.borrow().sequence_limit
    }

    /// Where the next record will be at the earliest: replay from here finds all that follows.
    pub fn position(&self) -> crate::manifest::LogPosition {
        let mut state = self.shared.state.borrow_mut();
        state.close_open_frame();
        crate::manifest::LogPosition {
            segment: state.current.number,
            offset: state.offset,
            sequence: state.sequence_next,
        }
    }

    /// Bytes that can still be appended without another segment, and the current segment's number.
    pub fn room(&self) -> (u64, u32) {
        let state = self.shared.state.borrow();
        let open = state.open.as_ref().map_or(0, |open| frame::padded(open.len()) as u32);
        let current = u64::from(state.current.bytes.saturating_sub(state.offset + open));
        let spare = state.spare.as_ref().map_or(0, |spare| u64::from(spare.bytes));
        (current + spare, state.current.number)
    }

    /// The segments that were filled since this was last asked.
    pub fn take_seals(&self) -> Vec<SegmentSeal> {
        std::mem::take(&mut self.shared.state.borrow_mut().seals)
    }

    /// Forgets a freed segment's file; returns its length. Readers that still hold it keep it open.
    pub fn forget_segment(&self, number: u32) -> Option<u32> {
        let mut state = self.shared.state.borrow_mut();
        assert_ne!(state.current.number, number, "the current segment is never freed");
        state.segments.remove(&number).map(|segment| segment.bytes)
    }

    /// Completes when every record below `sequence_end` is durable.
    pub async fn wait_durable(&self, sequence_end: u64) -> Result<(), EngineError> {
        self.wait(|state| state.durable_end >= sequence_end).await
    }

    async fn wait(&self, done: impl Fn(&State<E>) -> bool) -> Result<(), EngineError> {
        let shared = &*self.shared;
        shared
            .changed
            .wait_for(|| {
                let state = shared.state.borrow();
                if done(&state) {
                    return Some(Ok(()));
                }
                state.stopped.clone().map(|reason| Err(EngineError::Stopped(reason)))
            })
            .await
    }

    /// Sends the open frame to the device without waiting for more records.
    fn write_open_frame(&self) {
        self.shared.state.borrow_mut().close_open_frame();
        self.shared.to_write.notify();
    }

    /// Makes everything that was appended before the call durable, in any durability mode.
    pub async fn flush(&self) -> Result<(), EngineError> {
        let target = self.sequence_next();
        self.write_open_frame();
        self.wait(|state| state.written_end >= target && !state.flushing).await?;
        self.shared.state.borrow_mut().flushing = true;
        let result = self.sync_written_segments().await;
        {
            let mut state = self.shared.state.borrow_mut();
            state.flushing = false;
            if result.is_ok() {
                state.durable_end = state.durable_end.max(target);
            }
        }
        self.shared.changed.notify();
        result
    }

    async fn sync_written_segments(&self) -> Result<(), EngineError> {
        let files: Vec<Rc<Segment<E::File>>> = {
            let mut state = self.shared.state.borrow_mut();
            let numbers = std::mem::take(&mut state.unsynced);
            numbers.iter().filter_map(|number| state.segments.get(number).cloned()).collect()
        };
        for segment in files {
            if let Err(source) = segment.file.sync(IoClass::Commit).await {
                let error = self.segment_error(segment.number, "flushing", &source);
                self.stop(error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Keeps what was appended from lingering in memory in the mode that never waits for it.
    async fn write_every(self, nanoseconds: u64) {
        while self.stopped().is_none() {
            self.shared.env.sleep(nanoseconds).await;
            self.write_open_frame();
        }
    }

    async fn flush_every(self, nanoseconds: u64) {
        loop {
            self.shared.env.sleep(nanoseconds).await;
            let idle = {
                let state = self.shared.state.borrow();
                state.durable_end == state.sequence_next
            };
            if !idle && self.flush().await.is_err() {
                return;
            }
        }
    }

    fn segment_error(&self, number: u32, operation: &str, source: &std::io::Error) -> EngineError {
        let path = self.shared.directory.join(segment::file_name(number));
        EngineError::Stopped(format!("{operation} {}: {source}", path.display()))
    }

    /// The task that sends frames to the device.
    async fn write_frames(self) {
        let shared = Rc::clone(&self.shared);
        loop {
            let frame = shared
                .to_write
                .wait_for(|| {
                    let mut state = shared.state.borrow_mut();
                    if state.stopped.is_some() {
                        return Some(None);
                    }
                    state.next_to_write(&shared.options).map(Some)
                })
                .await;
            let Some((file, offset, buffer, index)) = frame else { return };
            shared.env.spawn(TaskQueue::Foreground, self.clone().write(file, offset, buffer, index));
        }
    }

    async fn write(self, file: E::File, offset: u32, buffer: Buffer, sequence_end: u64) {
        let durable = self.shared.options.durability == Durability::Sync;
        let (result, _buffer) = if durable {
            file.write_durably(IoClass::Commit, u64::from(offset), buffer).await
        } else {
            file.write(IoClass::Commit, u64::from(offset), buffer).await
        };
        match result {
            Ok(()) => self.shared.state.borrow_mut().frame_written(sequence_end, durable),
            Err(source) => {
                let number = self.shared.state.borrow().segment_of_frame(sequence_end);
                let error = self.segment_error(number, "writing", &source);
                self.stop(error.to_string());
            }
        }
        self.shared.changed.notify();
        self.shared.to_write.notify();
    }

    /// Reads the whole record at `pointer`, which a table or the memtable names for `key`; returns
    /// the buffer and the value's range in it.
    pub async fn read(
        &self,
        pointer: Pointer,
        key: &[u8],
        class: IoClass,
    ) -> Result<(Buffer, std::ops::Range<usize>), EngineError> {
        let damaged = |reason: String| EngineError::Damaged {
            key: crate::key::display(key),
            reason: format!(
                "{reason} ({} at byte {})",
                segment::file_name(pointer.segment),
                pointer.offset
            ),
        };
        if self.shared.state.borrow().is_in_open_frame(pointer) {
            self.write_open_frame();
        }
        self.wait(|state| state.is_written(pointer)).await?;
        let segment = self.shared.state.borrow().segments.get(&pointer.segment).cloned();
        let Some(segment) = segment else {
            return Err(damaged("the segment is not there".to_owned()));
        };
        let start = pointer.offset as usize & !(larder_runtime::env::DISK_ALIGNMENT - 1);
        let end = frame::padded(pointer.offset as usize + pointer.len as usize);
        if end > segment.bytes as usize {
            return Err(damaged("the pointer is past the segment's end".to_owned()));
        }
        let buffer = self.shared.env.buffer(end - start);
        let (result, buffer) = segment.file.read(class, start as u64, buffer).await;
        if let Err(source) = result {
            return Err(damaged(format!("reading failed: {source}")));
        }
        let skip = pointer.offset as usize - start;
        let place = Place {
            store: self.shared.identity.store,
            segment: pointer.segment,
            offset: pointer.offset,
        };
        let bytes = &buffer[skip..skip + pointer.len as usize];
        let found = record::decode(bytes, place).map_err(|error| damaged(error.to_string()))?;
        if !found.payload_intact {
            return Err(damaged("the value does not match its checksum".to_owned()));
        }
        if found.record.key != key || found.len != bytes.len() {
            return Err(damaged("another key's record is there".to_owned()));
        }
        let value_start = skip + found.len - found.record.payload.len();
        let value = value_start..skip + found.len;
        Ok((buffer, value))
    }
}

impl<E: Env> State<E> {
    fn append(&mut self, shared: &Shared<E>, append: &Append<'_>) -> Result<Appended, Refused> {
        let record = &append.record;
        let len = record::encoded_len(record.key.len(), record.payload.len());
        self.check_room(&shared.options)?;
        let buffer = |bytes: usize| shared.env.buffer(bytes);
        self.make_room(shared.identity.store, &shared.options, len, &buffer)?;
        let open = self.open.as_mut().expect("make_room has opened a frame");
        let offset = open.push(record, append.payload_crc);
        let pointer = Pointer { segment: open.place().segment, offset, len: len as u32 };
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        self.counters.records += 1;
        self.counters.record_bytes += len as u64;
        Ok(Appended { pointer, sequence })
    }

    fn check_room(&self, options: &LogOptions) -> Result<(), Refused> {
        if self.stopped.is_some() {
            return Err(Refused::Stopped);
        }
        if self.queued_bytes > options.queued_bytes_max {
            return Err(Refused::Queued);
        }
        if self.sequence_next >= self.sequence_limit {
            return Err(Refused::NoSequence);
        }
        Ok(())
    }

    /// Leaves an open frame with a buffer that has room for a record of `len` bytes.
    fn make_room(
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
            let buffer = buffer(needed.max(FRAME_BUFFER_BYTES));
            self.open = Some(FrameBuilder::new(buffer, place, self.sequence_next));
            return Ok(());
        };
        let grown = open.len() + len;
        if grown > open.capacity() {
            open.move_to(buffer(frame::padded(grown.max(2 * open.capacity()))));
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
            self.wanted_bytes = self.wanted_bytes.max(bytes);
            return Err(Refused::NoSegment);
        }
        self.seals.push(SegmentSeal {
            segment: self.current.number,
            end: self.offset,
            sequence_last: self.sequence_next.saturating_sub(1),
        });
        self.current = self.spare.take().expect("checked above");
        self.offset = segment::HEADER_BYTES;
        Ok(())
    }

    fn close_open_frame(&mut self) {
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
    fn next_to_write(&mut self, options: &LogOptions) -> Option<(E::File, u32, Buffer, u64)> {
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
        let segment = self.segments.get(&number).expect("a frame's segment is open");
        Some((segment.file.clone(), offset, buffer, sequence_end))
    }

    fn segment_of_frame(&self, sequence_end: u64) -> u32 {
        let frame = self.frames.iter().find(|frame| frame.sequence_end == sequence_end);
        frame.map_or(self.current.number, |frame| frame.segment)
    }

    /// Notes that a frame's write has finished; frames count in log order only.
    fn frame_written(&mut self, sequence_end: u64, durable: bool) {
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

    fn is_in_open_frame(&self, pointer: Pointer) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let place = open.place();
            covers(place.segment, place.offset, open.len(), pointer)
        })
    }

    /// Whether the bytes at `pointer` have reached the file.
    fn is_written(&self, pointer: Pointer) -> bool {
        let on_its_way = |frame: &Frame| {
            !frame.written
                && covers(frame.segment, frame.offset, frame.bytes as usize, pointer)
        };
        !self.is_in_open_frame(pointer) && !self.frames.iter().any(on_its_way)
    }
}

fn covers(segment: u32, offset: u32, bytes: usize, pointer: Pointer) -> bool {
    let (start, at) = (u64::from(offset), u64::from(pointer.offset));
    segment == pointer.segment && (start..start + bytes as u64).contains(&at)
}

/// How often a log that waits for nothing writes out what it has.
const LAZY_WRITE_NANOSECONDS: u64 = 100_000_000;

/// The size of a frame's first buffer: most group commits fit it.
const FRAME_BUFFER_BYTES: usize = 64 << 10;
