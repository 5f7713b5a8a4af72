//! Appending and group commit.
//!
//! Appending is synchronous: the record is encoded into the open frame and its place is known at
//! once. A task writes the frame as soon as fewer than `frames_in_flight_max` frames are on their
//! way; what arrives meanwhile shares the next frame. There is no timer: a lone writer waits for
//! one write and flush, and many writers share them.
//!
//! Sequences: `durable_end` and `written_end` are the first sequences that are not yet durable and
//! not yet written. `durable_end <= written_end <= sequence_next` always holds.

mod buffers;
mod demand;
mod device;
mod room;
mod state;
#[cfg(test)]
mod tests;
mod values;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};

pub use self::demand::Acknowledgement;
pub use self::room::{PlaceInLine, Room, RoomGate};
use self::state::{Mark, State};
pub use self::values::WantedValue;
use super::frame;
use super::log_segments::LogSegments;
use super::record::{self, Record, RecordKind};
use super::segment::{self, Segment, StoreIdentity};
use crate::canary::{self, Defect};
use crate::compression::CompressedValue;
use crate::entry::{Metadata, Pointer};
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
    /// Bytes of buffers that are kept for later frames.
    pub kept_bytes_max: usize,
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
            kept_bytes_max: 4 << 20,
            sequences_low: 1 << 22,
            lazy_frame_bytes: 256 << 10,
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

impl<'a> Append<'a> {
    /// A record of a kind and its metadata for `key`, with `payload`, or what that was compressed
    /// to.
    pub fn new(
        (kind, metadata): (RecordKind, Metadata),
        key: &'a [u8],
        payload: &'a [u8],
        compressed: Option<&'a CompressedValue>,
    ) -> Self {
        match compressed {
            Some(CompressedValue { bytes, checksum, original }) => {
                let (payload, original) = (&bytes[..], Some(*original));
                let record = Record { kind, metadata, key, payload, original };
                Self { record, payload_crc: *checksum }
            }
            None => {
                let record = Record { kind, metadata, key, payload, original: None };
                Self { record, payload_crc: crc32c::crc32c(payload) }
            }
        }
    }
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
    /// There is no space for a segment that is long enough for the record.
    NoSpace,
    /// The log has stopped for good.
    Stopped,
}

/// How often a log that waits for nothing writes out what it has.
const LAZY_WRITE_NANOSECONDS: u64 = 100_000_000;

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

/// Where the log ends, segment by segment. Frames that are not closed yet are in no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEnds {
    /// Where the closed frames end, by segment: in the current one, and in full ones that the
    /// manifest may not know the ends of.
    pub appended: BTreeMap<u32, u32>,
    /// Where the first frame starts, by segment, that has not reached the device.
    pub unwritten: BTreeMap<u32, u32>,
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
    room: Room,
    needs: Signal,
    to_write: Signal,
}

impl<E: Env> ValueLog<E> {
    /// A log that appends to `current`, an empty prepared segment, and reads from `segments`.
    ///
    /// `sequences` are one above every sequence ever used, and the first that the manifest has not
    /// reserved. Starts the task that writes frames.
    pub fn start(
        env: &E,
        directory: &Path,
        identity: StoreIdentity,
        options: LogOptions,
        current: Segment<E::File>,
        segments: LogSegments<E::File>,
        sequences: (u64, u64),
    ) -> Self {
        let state = State::new(current, segments, sequences, options.kept_bytes_max);
        let log = Self {
            shared: Rc::new(Shared {
                env: env.clone(),
                directory: directory.to_path_buf(),
                identity,
                options,
                state: RefCell::new(state),
                changed: Signal::default(),
                room: Room::default(),
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
    ///
    /// In the modes that do not wait for the device it may go back: while half of the bytes that
    /// may wait for the device do, an acknowledgement waits until its frame is written. So a client
    /// who writes faster than the device is slowed down by its answers, and the other half is for
    /// changes that are under way.
    pub fn acknowledged_end(&self) -> u64 {
        match self.shared.options.durability {
            Durability::Sync if canary::has(Defect::AcknowledgeEarly) => u64::MAX,
            Durability::Sync => self.durable_end(),
            Durability::Interval(_) | Durability::None => self.made_end(),
        }
    }

    /// Bytes that wait for the device, and those that were written since the start, padding
    /// included. Nothing waits in a log that has stopped; an open frame that is to become longer
    /// before it is written waits for more, not for the device.
    pub fn backlog(&self) -> (usize, u64) {
        let options = &self.shared.options;
        let state = self.shared.state.borrow();
        let written = state.counters.frame_bytes - state.queued_bytes as u64;
        let is_due = |bytes: &usize| match options.durability {
            Durability::Sync => true,
            Durability::Interval(_) | Durability::None => *bytes >= options.lazy_frame_bytes,
        };
        let open = state.open.as_ref().map(frame::FrameBuilder::len).filter(is_due).unwrap_or(0);
        let is_running = state.stopped.is_none();
        (if is_running { state.queued_bytes + open } else { 0 }, written)
    }

    /// Those who wait for room to append.
    pub fn room(&self) -> &Room {
        &self.shared.room
    }

    /// Lets those go who wait for room, as far as there is some: in the segments that the log has,
    /// and before the device.
    pub fn offer_room(&self) {
        if self.shared.room.is_empty() {
            return;
        }
        let queued = self.shared.state.borrow().queued_bytes;
        let free = self.shared.options.queued_bytes_max.saturating_sub(queued) as u64;
        self.shared.room.admit(free, self.space_left().0);
    }

    /// Lets everyone look again who waits for what the log is, and as many of those who wait for
    /// room as there is some for: what they wait for may have come.
    pub fn changed_for_all(&self) {
        self.shared.changed.notify();
        self.offer_room();
    }

    /// The same where all who wait for room have to learn what has become of the log.
    fn ended_for_all(&self) {
        self.shared.room.set_gate(RoomGate::Open);
        self.shared.changed.notify();
        self.shared.room.admit_all();
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
        self.ended_for_all();
        self.shared.to_write.notify();
    }

    /// Appends a record to the open frame. It is durable when [`ValueLog::durable_end`] is above
    /// its sequence.
    pub fn append(&self, append: &Append<'_>) -> Result<Appended, Refused> {
        self.make_room_for(1, append.record.encoded_len())?;
        let shared = &*self.shared;
        let mut state = shared.state.borrow_mut();
        let appended = state.append(append);
        let low = state.sequence_limit - state.sequence_next == shared.options.sequences_low;
        drop(state);
        if low {
            shared.needs.notify();
        }
        shared.to_write.notify();
        Ok(appended)
    }

    /// Appends several records to one frame: after a crash all of them are there or none.
    pub fn append_all(&self, appends: &[Append<'_>]) -> Result<Vec<Appended>, Refused> {
        let len = |append: &Append<'_>| append.record.encoded_len();
        self.make_room_for(appends.len() as u64, appends.iter().map(len).sum())?;
        let shared = &*self.shared;
        let store = shared.identity.store;
        let mut state = shared.state.borrow_mut();
        let left = |state: &State<E>| state.sequence_limit - state.sequence_next;
        let before = left(&state);
        let mut appended = Vec::with_capacity(appends.len());
        for append in appends {
            appended.push(state.append(append));
            if canary::has(Defect::SplitBatches) {
                state.close_open_frame();
                let buffer = |bytes: usize| shared.env.buffer(bytes);
                let _made = state.make_room(store, &shared.options, len(append), &buffer);
            }
        }
        let low = shared.options.sequences_low;
        let is_low = before > low && left(&state) <= low;
        drop(state);
        if is_low {
            shared.needs.notify();
        }
        shared.to_write.notify();
        Ok(appended)
    }

    /// Makes room in the open frame for a record with a key and a payload of so many bytes, which
    /// can be appended then. So a change that has to wait learns it before its payload is looked
    /// at.
    pub fn make_room(&self, key_bytes: usize, payload_bytes: usize) -> Result<(), Refused> {
        self.make_room_for(1, record::encoded_len(key_bytes, payload_bytes))
    }

    /// The same for several records that have `len` bytes together, and go into one frame.
    pub fn make_room_for(&self, records: u64, len: usize) -> Result<(), Refused> {
        let shared = &*self.shared;
        let mut state = shared.state.borrow_mut();
        let had_spare = state.spare.is_some();
        let buffer = |bytes: usize| shared.env.buffer(bytes);
        let store = shared.identity.store;
        let made = state.check_room(&shared.options, records);
        let made = made.and_then(|()| state.make_room(store, &shared.options, len, &buffer));
        let has_taken_spare = had_spare != state.spare.is_some();
        drop(state);
        if has_taken_spare || matches!(made, Err(Refused::NoSegment | Refused::NoSequence)) {
            shared.needs.notify();
        }
        if made.is_err() {
            shared.to_write.notify();
        }
        made
    }

    /// How many bytes long the next segment has to be, if one should be prepared now: none is
    /// ready, or one record needs a longer one.
    pub fn wants_segment(&self, standard_bytes: u32) -> Option<u32> {
        let state = self.shared.state.borrow();
        let wanted = state.wanted_bytes.max(standard_bytes);
        let ready = state.spare.as_ref().is_some_and(|spare| spare.bytes >= wanted);
        (!ready && state.stopped.is_none()).then_some(wanted)
    }

    /// Whether somebody waits for another segment.
    pub fn has_no_room(&self) -> bool {
        self.shared.state.borrow().wanted_bytes != 0
    }

    /// Takes a prepared segment, which the manifest knows; returns the one that it replaces.
    pub fn offer_segment(&self, segment: Segment<E::File>) -> Option<u32> {
        let mut state = self.shared.state.borrow_mut();
        let segment = Rc::new(segment);
        assert!(segment.number > state.current.number, "segments are used in their number's order");
        if segment.bytes >= state.wanted_bytes {
            state.wanted_bytes = 0;
        }
        state.segments.add(Rc::clone(&segment));
        let replaced = state.spare.replace(segment).map(|spare| spare.number);
        if let Some(number) = replaced {
            state.segments.remove(number);
        }
        drop(state);
        self.changed_for_all();
        replaced
    }

    /// Allows sequences below `limit`, which the manifest has reserved durably.
    pub fn extend_sequences(&self, limit: u64) {
        let mut state = self.shared.state.borrow_mut();
        state.sequence_limit = state.sequence_limit.max(limit);
        drop(state);
        self.changed_for_all();
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
    pub fn space_left(&self) -> (u64, u32) {
        let state = self.shared.state.borrow();
        let open = state.open.as_ref().map_or(0, |open| frame::padded(open.len()) as u32);
        let current = u64::from(state.current.bytes.saturating_sub(state.offset + open));
        let spare = state.spare.as_ref().map_or(0, |spare| u64::from(spare.bytes));
        (current + spare, state.current.number)
    }

    /// Whether the segment after the current one is ready.
    pub fn has_spare(&self) -> bool {
        self.shared.state.borrow().spare.is_some()
    }

    /// Where the log ends in each segment whose end the manifest may not know yet.
    pub fn ends(&self) -> LogEnds {
        self.shared.state.borrow().ends()
    }

    /// Notes that what was appended so far is to be flushed to tables: the log that has to be
    /// replayed counts from here. `unflushed` bytes before it still count.
    pub fn mark(&self, unflushed: u64) {
        let now = self.shared.env.now();
        let mut state = self.shared.state.borrow_mut();
        let bytes = state.appended_bytes();
        state.mark = Mark { bytes, nanoseconds: now };
        state.replayed_bytes = unflushed;
    }

    /// Bytes that were appended since the last mark, padding included.
    pub fn bytes_since_mark(&self) -> u64 {
        let state = self.shared.state.borrow();
        state.appended_bytes() + state.replayed_bytes - state.mark.bytes
    }

    /// How long ago the last mark was; 0 if nothing was appended since.
    pub fn nanoseconds_since_mark(&self) -> u64 {
        if self.bytes_since_mark() == 0 {
            return 0;
        }
        let mark = self.shared.state.borrow().mark.nanoseconds;
        self.shared.env.now().saturating_sub(mark)
    }

    /// The segments that were filled, and became durable, since this was last asked.
    pub fn take_seals(&self) -> Vec<SegmentSeal> {
        self.shared.state.borrow_mut().take_seals()
    }

    /// Whether a filled segment is not durable to its end.
    #[cfg(test)]
    pub(crate) fn is_rolling(&self) -> bool {
        let state = self.shared.state.borrow();
        state.seals.iter().any(|seal| seal.sequence_last >= state.durable_end)
    }

    /// Ends the log, all of which has to be durable: nothing is appended from now on. Returns the
    /// segments whose end the manifest does not know.
    pub fn close(&self) -> Vec<SegmentSeal> {
        let seals = self.shared.state.borrow_mut().close();
        self.ended_for_all();
        self.shared.to_write.notify();
        seals
    }

    /// Says that there is no space for the long segment that an append asked for.
    pub fn refuse_segment(&self, bytes: u32) {
        let mut state = self.shared.state.borrow_mut();
        state.wanted_bytes = 0;
        state.unavailable_bytes = bytes;
        drop(state);
        self.shared.room.admit_all();
    }

    /// Makes a segment of collected records known, which is no part of the log.
    pub fn add_collected(&self, segment: Segment<E::File>) {
        let mut state = self.shared.state.borrow_mut();
        state.segments.add(Rc::new(segment));
    }

    /// A segment that can be read from, opened now if nobody has read it yet; `None` if it is not
    /// there, or not any more.
    ///
    /// # Errors
    ///
    /// [`EngineError::Read`] if it cannot be opened.
    pub async fn segment(&self, number: u32) -> Result<Option<Rc<Segment<E::File>>>, EngineError> {
        let shared = &*self.shared;
        let unopened = {
            let segments = &shared.state.borrow().segments;
            let open = segments.open(number);
            match segments.unopened(number) {
                Some(unopened) => unopened,
                None => return Ok(open),
            }
        };
        let _held = unopened.opening.enter().await;
        let is_unopened = || shared.state.borrow().segments.unopened(number).is_some();
        if is_unopened() {
            let (env, directory) = (&shared.env, &shared.directory);
            let bytes = unopened.bytes;
            let opened = segment::open_sealed(env, directory, shared.identity, number, bytes).await;
            // A segment that was freed meanwhile is nobody's concern any more.
            if is_unopened() {
                shared.state.borrow_mut().segments.add(Rc::new(opened?));
            }
        }
        Ok(shared.state.borrow().segments.open(number))
    }

    /// Forgets a freed segment's file. Readers that still hold it keep it open.
    pub fn forget_segment(&self, number: u32) {
        let mut state = self.shared.state.borrow_mut();
        assert_ne!(state.current.number, number, "the current segment is never freed");
        state.segments.remove(number);
    }
}
