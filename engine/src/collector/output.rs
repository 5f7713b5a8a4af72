//! The segment that survivors of one kind are copied to.

use std::cell::RefCell;

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{Env, File, IoClass};

use super::Newest;
use crate::canary::{self, Defect};
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::value_log::frame::{self, FrameBuilder};
use crate::value_log::record::{self, Place};
use crate::value_log::segment::{self, Segment};

/// A frame is written when it is about this long.
const FRAME_BYTES: usize = 512 << 10;

/// A record that was copied, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMove {
    /// The key whose record it is.
    pub key: Vec<u8>,
    /// The newest entry of the key, when the record was copied.
    pub newest: Newest,
    /// Where the record is.
    pub from: Pointer,
    /// Where its copy is.
    pub to: Pointer,
}

/// A frame that is complete, and what is in it.
pub(super) struct Frame {
    buffer: Buffer,
    offset: u32,
    moves: Vec<RecordMove>,
}

/// An open segment of collected records.
pub(super) struct Output<E: Env> {
    store: u128,
    segment: Segment<E::File>,
    /// Where the next frame starts.
    offset: u32,
    open: Option<FrameBuilder>,
    moves: Vec<RecordMove>,
}

impl<E: Env> Output<E> {
    pub(super) fn new(store: u128, segment: Segment<E::File>) -> Self {
        Self { store, segment, offset: segment::HEADER_BYTES, open: None, moves: Vec::new() }
    }

    /// How long a segment has to be for a record of `len` bytes.
    pub(super) fn bytes_for(len: usize) -> u32 {
        let bytes = segment::HEADER_BYTES as usize + frame::padded(frame::HEADER_BYTES + len);
        u32::try_from(bytes).expect("a record's length was checked")
    }

    pub(super) fn number(&self) -> u32 {
        self.segment.number
    }

    /// Where the frames written so far end.
    pub(super) fn end(&self) -> u32 {
        self.offset
    }

    /// Bytes that records may still take, about.
    pub(super) fn room(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, FrameBuilder::len);
        u64::from(self.segment.bytes - self.offset).saturating_sub(open as u64)
    }

    /// Whether a record of `len` bytes fits.
    pub(super) fn has_room(&self, len: usize) -> bool {
        let open = self.open.as_ref().map_or(frame::HEADER_BYTES, FrameBuilder::len);
        // At worst the open frame ends here and the record begins one of its own.
        let needed = frame::padded(open) + frame::padded(frame::HEADER_BYTES + len);
        self.offset as usize + needed <= self.segment.bytes as usize
    }

    /// Whether a record of `len` bytes ends the open frame, which is written before it.
    pub(super) fn ends_frame(&self, len: usize) -> bool {
        self.open.as_ref().is_some_and(|open| open.len() + len > open.capacity())
    }

    /// The records of the open frame, which are to be moved once it is written.
    pub(super) fn waiting(&self) -> &[RecordMove] {
        &self.moves
    }

    /// Adds a record, which has room; returns the frame before it if that is complete now. A new
    /// frame takes the memory in `spare`, if there is some.
    pub(super) fn add(
        &mut self,
        env: &E,
        spare: &RefCell<Option<Buffer>>,
        found: &record::Head<'_>,
        (from, newest): (Pointer, Newest),
    ) -> Option<Frame> {
        let len = found.record.encoded_len();
        let complete = if self.ends_frame(len) { self.close_frame() } else { None };
        // The frame that is on its way takes its place before it is written.
        let offset = complete.as_ref().map_or(self.offset, |frame| {
            frame.offset + u32::try_from(frame.buffer.len()).expect("a frame is under 4 GiB")
        });
        let place = Place { store: self.store, segment: self.segment.number, offset };
        let open = self.open.get_or_insert_with(|| {
            let bytes = frame::padded(frame::HEADER_BYTES + len).max(FRAME_BYTES);
            let spare = spare.take().filter(|spare| spare.capacity() >= bytes);
            FrameBuilder::new(spare.unwrap_or_else(|| env.buffer(bytes)), place, 0)
        });
        let record_offset = open.push(&found.record, found.payload_crc);
        let to = Pointer { segment: place.segment, offset: record_offset, len: len as u32 };
        self.moves.push(RecordMove { key: found.record.key.to_vec(), newest, from, to });
        complete
    }

    /// Ends the open frame; `None` if there is nothing in it.
    pub(super) fn close_frame(&mut self) -> Option<Frame> {
        let open = self.open.take()?;
        let offset = open.place().offset;
        let (buffer, _) = open.seal(0, 0);
        Some(Frame { buffer, offset, moves: std::mem::take(&mut self.moves) })
    }

    /// Writes a frame, whose memory is left in `spare`; when it resolves with `Ok` the copies are
    /// durable.
    ///
    /// # Errors
    ///
    /// [`EngineError::Stopped`]: a write that failed is not tried again.
    pub(super) async fn write(
        &mut self,
        frame: Frame,
        spare: &RefCell<Option<Buffer>>,
    ) -> Result<Vec<RecordMove>, EngineError> {
        let bytes = u32::try_from(frame.buffer.len()).expect("a frame is under 4 GiB");
        let class = IoClass::GarbageCollection;
        let offset = u64::from(frame.offset);
        let file = &self.segment.file;
        let (result, buffer) = if canary::has(Defect::SkipCopySync) {
            file.write(class, offset, frame.buffer).await
        } else {
            file.write_durably(class, offset, frame.buffer).await
        };
        spare.replace(Some(buffer));
        result.map_err(|source| {
            let name = segment::file_name(self.segment.number);
            EngineError::Stopped(format!("writing {name}: {source}"))
        })?;
        self.offset = frame.offset + bytes;
        Ok(frame.moves)
    }
}
