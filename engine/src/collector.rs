//! Garbage collection of the value log: the live records of a mostly dead segment move, then the
//! segment is freed.
//!
//! Where the segment's records are listed in memory, only those are looked at that are not known to
//! be dead (`listed.rs`); otherwise all of the segment is read.
//!
//! Survivors go to segments of their own: by how often they have been moved, and those that expire
//! by how much time they have left (`kinds.rs`). These segments are no part of the log: the log
//! only gets records of the moves, which point the keys to the new places.
//!
//! The order, for each batch of survivors:
//! 1. the copies are written and flushed, if the log has room for the record of the first moves: on
//!    a full disk they would be written over and over, and nobody would point to them;
//! 2. each is made its key's place if the key's newest entry still points to the old one, by a
//!    record in the log for many of them ([`CollectorHost::move_records`]);
//! 3. when all of the segment was gone through, the log is flushed, and the segment freed.
//!
//! So a pointer is durable only after its target, a segment is freed only after the pointers to the
//! copies are durable, and a value that was overwritten or deleted meanwhile does not come back. A
//! segment of which some part cannot be read is not freed: its keys answer with an error.

pub mod abandoned;
mod kinds;
mod listed;
mod output;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{Env, IoClass};

use crate::concurrent::concurrently;
use crate::entry::{Metadata, Pointer};
use crate::error::EngineError;
use crate::space::ListedPart;
use crate::value_log::frame::{self, FrameHeader};
use crate::value_log::moves::MOVES_MAX;
use crate::value_log::record::{self, Head, Place, RecordKind};
use crate::value_log::segment::{self, Segment};
use crate::value_log::window::{Piece, Window};

pub use kinds::{EXPIRY_CLASSES_OPEN_MAX, Separation};
pub use output::RecordMove;

use kinds::Kind;
use output::Output;

/// How many look-ups of one segment's keys may be under way.
const LOOK_UPS_MAX: usize = 16;

/// So many moves follow each other before others get the core, at most: they share a record of the
/// log.
const MOVES_AT_A_TIME: usize = 32;
const _: () = assert!(MOVES_AT_A_TIME <= MOVES_MAX);

/// Moves that share a record have keys of at most so many bytes together, if they are several: it
/// has to find room in what is left of the log.
const MOVED_KEY_BYTES: usize = 2 << 10;

/// The generation of records that were moved.
pub const GENERATION_MOVED: u8 = 1;

/// The generation of records that were moved more than once, where those are kept apart.
pub const GENERATION_OLD: u8 = 2;

/// The generation of records that expire, where those are kept apart.
pub const GENERATION_EXPIRING: u8 = 3;

/// What the collector needs of the shard around it.
pub trait CollectorHost<E: Env> {
    /// Of the records that are listed of a segment, from the `from`-th on, those that are not known
    /// to be dead; see [`ListedRecords::part`]. `None` if there is no list.
    ///
    /// [`ListedRecords::part`]: crate::space::ListedRecords::part
    fn listed(&self, segment: u32, from: usize, most: (usize, usize)) -> Option<ListedPart>;

    /// Key and value of the record at `pointer`, whose key has this hash, if they are in memory.
    fn in_memory(&self, hash: u64, pointer: Pointer) -> Option<(Vec<u8>, Vec<u8>)>;

    /// What memory alone can tell of the record of `key` at `pointer`.
    fn fate(&self, key: &[u8], pointer: Pointer) -> Fate;

    /// The newest entry of `key`, if it points to `pointer` and the item has not expired.
    ///
    /// # Errors
    ///
    /// Those of reading the index.
    fn newest_at(
        &self,
        key: &[u8],
        pointer: Pointer,
    ) -> impl Future<Output = Result<Option<Newest>, EngineError>>;

    /// Makes a new segment of at least `bytes` for records of `generation`, which the manifest
    /// knows.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`] if there is no space, and those of making the file.
    fn open_segment(
        &self,
        generation: u8,
        bytes: u32,
    ) -> impl Future<Output = Result<Segment<E::File>, EngineError>>;

    /// Says that a segment takes no more records and where it ends.
    fn seal_segment(&self, number: u32, end: u32) -> impl Future<Output = Result<(), EngineError>>;

    /// Waits until the log has room for a record of these moves.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`] if it has none, and nothing is under way that frees any; those of
    /// ending.
    fn room_for_moves(&self, moves: &[RecordMove])
    -> impl Future<Output = Result<(), EngineError>>;

    /// Points each key to the copy of its record if its newest entry still points to the record.
    /// The copies lie one behind the other in one segment.
    fn move_records(&self, moves: Vec<RecordMove>)
    -> impl Future<Output = Result<(), EngineError>>;

    /// Which records are kept apart from others.
    fn separation(&self) -> Separation;

    /// Whether the work is to be broken off: the shard is being closed.
    fn is_closing(&self) -> bool;

    /// Told of each part of a segment that was gone through. Waits for as long as the rate limit
    /// says.
    fn passed(&self, passage: Passage) -> impl Future<Output = ()>;
}

/// What a record that is gone through comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is dead.
    Dead,
    /// It lives, and this is the newest entry of its key.
    Lives(Newest),
    /// The device has to be asked.
    Unknown,
}

/// What is known of the newest entry of a key, which points to the record that is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its metadata.
    pub metadata: Metadata,
    /// Bytes of its value.
    pub value_len: u32,
    /// How often the tables had changed: after another time they may know something newer, or
    /// nothing.
    pub table_changes: u64,
}

/// A part of a segment that was gone through, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Of the part.
    pub bytes: u64,
    /// What of it is dead.
    pub dead: u64,
    /// What is left of the segment.
    pub left: u64,
}

/// A segment to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its number.
    pub number: u32,
    /// How often its records have been moved.
    pub generation: u8,
    /// Where it ends.
    pub end: u32,
}

/// What going through a segment came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Bytes of records that were moved.
    pub moved_bytes: u64,
    /// Of these, bytes that were not read for it.
    pub cached_bytes: u64,
    /// Records that were moved.
    pub moved: u64,
    /// Bytes of the segment that were dead, or are dead now.
    pub dead_bytes: u64,
    /// All of the segment was read and gone through: it may be freed once the log is flushed.
    pub is_complete: bool,
}

/// Moves live records out of segments. Belongs to one shard; one segment at a time.
pub struct Collector<E: Env> {
    env: E,
    store: u128,
    outputs: RefCell<BTreeMap<Kind, Output<E>>>,
    /// The memory of the last frame: new memory is cleared by the kernel page by page.
    spare: RefCell<Option<Buffer>>,
    /// What is kept apart in the collection that is under way.
    separation: Cell<Separation>,
    /// Whether the log has no room for the moves that wait, in the collection that is under way.
    is_full: Cell<bool>,
    /// The outputs' segments, from when they are made until they are sealed.
    written_to: RefCell<BTreeSet<u32>>,
    /// What there was room for when it was known last, in bytes.
    room: Cell<u64>,
}

/// A record within the bytes of its frame, and the kind that it comes to if it lives.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    key: &'a [u8],
    start: usize,
    len: usize,
    kind: Kind,
}

/// A record that lives, and the newest entry of its key.
struct Survivor<'a> {
    record: Candidate<'a>,
    newest: Newest,
}

impl Candidate<'_> {
    /// Where the record is, if its frame is at `frame`.
    fn pointer(self, frame: Place) -> Pointer {
        Pointer {
            segment: frame.segment,
            offset: frame.offset + self.start as u32,
            len: u32::try_from(self.len).expect("a record's length was checked"),
        }
    }
}

impl<E: Env> Collector<E> {
    /// A collector of the store with this id.
    pub fn new(env: E, store: u128) -> Self {
        let (outputs, spare, separation, is_full, written_to, room) = Default::default();
        Self { env, store, outputs, spare, separation, is_full, written_to, room }
    }

    /// Whether the collector still writes to this segment.
    pub fn writes_to(&self, number: u32) -> bool {
        self.written_to.borrow().contains(&number)
    }

    /// What can still be copied before some kind of records needs a new segment, in bytes.
    pub fn room(&self) -> u64 {
        let outputs = self.outputs.borrow();
        // One that is written to at the moment is not among them, and will be.
        if outputs.len() >= self.written_to.borrow().len() {
            self.room.set(outputs.values().map(Output::room).min().unwrap_or(0));
        }
        self.room.get()
    }

    /// Moves everything that lives in `victim`, whose open segment is `source`.
    ///
    /// Until it is over, no entry may come to point into the victim. Afterwards the caller flushes
    /// the log and, if the result is complete, frees the segment.
    ///
    /// # Errors
    ///
    /// [`EngineError::Full`] and [`EngineError::Read`]: some records were moved, the others are
    /// where they were. All others are final.
    pub async fn collect(
        &self,
        victim: Victim,
        source: &Segment<E::File>,
        host: &impl CollectorHost<E>,
    ) -> Result<Collected, EngineError> {
        self.separation.set(host.separation());
        // What a failed collection has copied goes first. Where that cannot be moved yet, what is
        // copied now could not be either; but a victim in which nothing lives needs no copies.
        let sent_off = self.send_off(host).await;
        self.is_full.set(matches!(sent_off, Err(EngineError::Full)));
        if !self.is_full.get() {
            sent_off?;
        }
        let mut collected = Collected::default();
        if !self.listed(victim, source, host, &mut collected).await? {
            // What was copied is moved before the records are gone through again: it would be
            // copied a second time.
            self.write_out_new(host).await?;
            collected.dead_bytes = 0;
            self.unlisted(victim, source, host, &mut collected).await?;
        }
        if !host.is_closing() {
            self.write_out_new(host).await?;
        }
        Ok(collected)
    }

    /// Writes and moves what earlier collections have left, and closes the segments that no kind
    /// needs any more.
    async fn send_off(&self, host: &impl CollectorHost<E>) -> Result<(), EngineError> {
        self.write_out(host).await?;
        while let Some(kind) = self.surplus() {
            self.close(kind, host).await?;
        }
        Ok(())
    }

    /// Writes and moves what this collection has copied. Where there is no room for moves that is
    /// nothing.
    async fn write_out_new(&self, host: &impl CollectorHost<E>) -> Result<(), EngineError> {
        if self.is_full.get() { Ok(()) } else { self.write_out(host).await }
    }

    /// Goes through all frames of `victim`.
    async fn unlisted(
        &self,
        victim: Victim,
        source: &Segment<E::File>,
        host: &impl CollectorHost<E>,
        collected: &mut Collected,
    ) -> Result<(), EngineError> {
        let mut window = Window::new(&self.env, source, IoClass::GarbageCollection);
        let mut offset = segment::HEADER_BYTES;
        let end = victim.end;
        collected.is_complete = offset >= end;
        while offset < end && !host.is_closing() {
            let place = Place { store: self.store, segment: victim.number, offset };
            let header = match window.bytes(offset, frame::HEADER_BYTES).await {
                Piece::Here(bytes) => FrameHeader::decode(bytes, place),
                Piece::Past | Piece::Unreadable => None,
            };
            let Some((header, _)) = header else { break };
            let Piece::Here(bytes) = window.bytes(offset, header.len as usize).await else {
                break;
            };
            let before = collected.moved_bytes;
            let all_read = self.frame(victim, bytes, place, &header, host, collected).await?;
            let dead = u64::from(header.padded_len()) - (collected.moved_bytes - before);
            collected.dead_bytes += dead;
            if !all_read {
                break;
            }
            offset += header.padded_len();
            collected.is_complete = offset >= end;
            let left = u64::from(end.saturating_sub(offset));
            host.passed(Passage { bytes: u64::from(header.padded_len()), dead, left }).await;
            self.env.yield_if_needed().await;
        }
        Ok(())
    }

    /// Copies what lives of a frame; false if some of it cannot be read.
    async fn frame(
        &self,
        victim: Victim,
        bytes: &[u8],
        place: Place,
        header: &FrameHeader,
        host: &impl CollectorHost<E>,
        collected: &mut Collected,
    ) -> Result<bool, EngineError> {
        let mut offset = frame::HEADER_BYTES;
        let mut survivors = Vec::new();
        let mut undecided = Vec::new();
        for _ in 0..header.count {
            let Some(rest) = bytes.get(offset..) else { return Ok(false) };
            let at = Place { offset: place.offset + offset as u32, ..place };
            let Ok(found) = record::decode_head(rest, at) else { return Ok(false) };
            let record = found.record;
            let start = offset;
            offset += found.len;
            if record.kind != RecordKind::Put {
                continue;
            }
            let kind = Kind::of(victim, record.metadata, self.separation.get());
            let record = Candidate { key: record.key, start, len: found.len, kind };
            match host.fate(record.key, record.pointer(place)) {
                Fate::Dead => {}
                Fate::Lives(newest) => survivors.push(Survivor { record, newest }),
                Fate::Unknown => undecided.push(record),
            }
        }
        let look_up = |record| look_up(host, record, place);
        for found in concurrently(LOOK_UPS_MAX, undecided.into_iter().map(look_up)).await {
            survivors.extend(found?);
        }
        // The copies lie in the order of the originals.
        survivors.sort_unstable_by_key(|survivor| survivor.record.start);
        for survivor in survivors {
            collected.moved += 1;
            collected.moved_bytes += survivor.record.len as u64;
            let Survivor { record: Candidate { start, kind, .. }, newest } = survivor;
            let at = Place { offset: place.offset + start as u32, ..place };
            let found = record::decode_head(&bytes[start..], at).expect("it was decoded before");
            let from = survivor.record.pointer(place);
            self.copy(&found, from, newest, kind, host).await?;
        }
        Ok(true)
    }

    /// Copies the record `found` at `from` to the segment of its kind.
    async fn copy(
        &self,
        found: &Head<'_>,
        from: Pointer,
        newest: Newest,
        kind: Kind,
        host: &impl CollectorHost<E>,
    ) -> Result<(), EngineError> {
        if self.is_full.get() {
            return Err(EngineError::Full);
        }
        let len = found.len;
        let kind = kind.among(self.outputs.borrow().keys().copied(), self.separation.get());
        let is_full = self.outputs.borrow().get(&kind).is_some_and(|output| !output.has_room(len));
        if is_full {
            self.close(kind, host).await?;
        }
        let output = self.outputs.borrow_mut().remove(&kind);
        let (kind, mut output) = match output {
            Some(output) => (kind, output),
            None => self.open_output(kind, len, host).await?,
        };
        if output.ends_frame(found.record.encoded_len())
            && let Err(error) = host.room_for_moves(first_together(output.waiting())).await
        {
            self.outputs.borrow_mut().insert(kind, output);
            return Err(error);
        }
        let moves = match output.add(&self.env, &self.spare, found, (from, newest)) {
            Some(frame) => output.write(frame, &self.spare).await,
            None => Ok(Vec::new()),
        };
        self.outputs.borrow_mut().insert(kind, output);
        self.make_moves(moves?, host).await
    }

    /// Opens a segment for records of `kind`, the first of which has `len` bytes. Where there is no
    /// space for another segment they go to one that is open for others.
    async fn open_output(
        &self,
        kind: Kind,
        len: usize,
        host: &impl CollectorHost<E>,
    ) -> Result<(Kind, Output<E>), EngineError> {
        match host.open_segment(kind.generation, Output::<E>::bytes_for(len)).await {
            Ok(segment) => {
                self.written_to.borrow_mut().insert(segment.number);
                Ok((kind, Output::new(self.store, segment)))
            }
            Err(EngineError::Full) => self.other_output(kind, len).ok_or(EngineError::Full),
            Err(error) => Err(error),
        }
    }

    /// Takes the open output that has room for `len` bytes and is nearest to `kind`.
    fn other_output(&self, kind: Kind, len: usize) -> Option<(Kind, Output<E>)> {
        let mut outputs = self.outputs.borrow_mut();
        let with_room = outputs.iter().filter(|(_, output)| output.has_room(len));
        let nearest = with_room.map(|(other, _)| *other).min_by_key(|it| kind.distance(*it))?;
        outputs.remove_entry(&nearest)
    }

    /// Writes what is left in memory, and points the keys to it.
    async fn write_out(&self, host: &impl CollectorHost<E>) -> Result<(), EngineError> {
        let kinds: Vec<Kind> = self.outputs.borrow().keys().copied().collect();
        for kind in kinds {
            self.await_moves(kind, host).await?;
            let output = self.outputs.borrow_mut().remove(&kind);
            let Some(mut output) = output else { continue };
            let moves = match output.close_frame() {
                Some(frame) => output.write(frame, &self.spare).await,
                None => Ok(Vec::new()),
            };
            self.outputs.borrow_mut().insert(kind, output);
            self.make_moves(moves?, host).await?;
        }
        Ok(())
    }

    /// An open output of a kind that is not kept apart any more, where open ones are many for what
    /// lives. It would take a segment until the shard is opened again, and nothing that dies in it
    /// would be freed.
    fn surplus(&self) -> Option<Kind> {
        let (separation, outputs) = (self.separation.get(), self.outputs.borrow());
        if !separation.is_crowded(outputs.len()) {
            return None;
        }
        let of = |generation| outputs.iter().filter(move |(kind, _)| kind.generation == generation);
        let old = of(GENERATION_OLD).find(|_| !separation.by_age);
        let has_surplus = of(GENERATION_EXPIRING).count() > separation.expiry_classes;
        let fullest = of(GENERATION_EXPIRING).min_by_key(|(_, output)| output.room());
        old.or(fullest.filter(|_| has_surplus)).map(|(kind, _)| *kind)
    }

    /// Writes the rest of an output and seals its segment. If that fails it stays open.
    async fn close(&self, kind: Kind, host: &impl CollectorHost<E>) -> Result<(), EngineError> {
        self.await_moves(kind, host).await?;
        let Some(mut output) = self.outputs.borrow_mut().remove(&kind) else { return Ok(()) };
        let moves = match output.close_frame() {
            Some(frame) => output.write(frame, &self.spare).await,
            None => Ok(Vec::new()),
        };
        let (number, end) = (output.number(), output.end());
        self.outputs.borrow_mut().insert(kind, output);
        self.make_moves(moves?, host).await?;
        host.seal_segment(number, end).await?;
        self.outputs.borrow_mut().remove(&kind);
        self.written_to.borrow_mut().remove(&number);
        Ok(())
    }

    /// Waits until what is left in memory of a kind can be moved once it is written.
    async fn await_moves(
        &self,
        kind: Kind,
        host: &impl CollectorHost<E>,
    ) -> Result<(), EngineError> {
        let output = self.outputs.borrow_mut().remove(&kind);
        let Some(output) = output else { return Ok(()) };
        let room = match output.waiting() {
            [] => Ok(()),
            moves => host.room_for_moves(first_together(moves)).await,
        };
        self.outputs.borrow_mut().insert(kind, output);
        room
    }

    async fn make_moves(
        &self,
        moves: Vec<RecordMove>,
        host: &impl CollectorHost<E>,
    ) -> Result<(), EngineError> {
        let mut rest = moves.into_iter();
        while !rest.as_slice().is_empty() {
            let count = first_together(rest.as_slice()).len();
            host.move_records(rest.by_ref().take(count).collect()).await?;
            self.env.yield_if_needed().await;
        }
        Ok(())
    }
}

/// Of these moves the first that share a record of the log.
fn first_together(moves: &[RecordMove]) -> &[RecordMove] {
    let mut key_bytes = 0;
    let fits = |one: &&RecordMove| {
        key_bytes += one.key.len();
        key_bytes <= MOVED_KEY_BYTES
    };
    let count = moves.iter().take(MOVES_AT_A_TIME).take_while(fits).count();
    &moves[..count.max(1).min(moves.len())]
}

/// Asks the index whether a record lives, where memory cannot tell.
async fn look_up<'a, E: Env>(
    host: &impl CollectorHost<E>,
    record: Candidate<'a>,
    place: Place,
) -> Result<Option<Survivor<'a>>, EngineError> {
    let newest = host.newest_at(record.key, record.pointer(place)).await?;
    Ok(newest.map(|newest| Survivor { record, newest }))
}
