//! Reading values: one by one, or neighbours together.

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass};

use super::ValueLog;
use crate::compression::{Decompressing, OriginalValue, SpoiledValue};
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::value_log::frame;
use crate::value_log::record::{self, Place};
use crate::value_log::segment;

/// A value that is to be read, and what must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedValue {
    /// Where its record is.
    pub pointer: Pointer,
    /// How long it is, in bytes, as the client sent it.
    pub value_len: u32,
    /// The encoded key.
    pub key: Vec<u8>,
}

/// Whole blocks of a segment.
struct Span {
    /// Bytes from the start of the segment's file.
    start: usize,
    buffer: Buffer,
}

impl Span {
    /// The first byte, and the one behind the last, of the blocks that hold the bytes from `offset`
    /// to `end`.
    fn bounds(offset: usize, end: usize) -> (usize, usize) {
        (offset & !(DISK_ALIGNMENT - 1), frame::padded(end))
    }

    fn record(&self, pointer: Pointer) -> &[u8] {
        let skip = pointer.offset as usize - self.start;
        &self.buffer[skip..skip + pointer.len as usize]
    }
}

/// The byte behind a record's last.
fn end_of(pointer: Pointer) -> usize {
    pointer.offset as usize + pointer.len as usize
}

fn damaged(pointer: Pointer, key: &[u8], reason: &str) -> EngineError {
    let (file, offset) = (segment::file_name(pointer.segment), pointer.offset);
    EngineError::Damaged {
        key: crate::key::display(key),
        reason: format!("{reason} ({file} at byte {offset})"),
    }
}

impl<E: Env> ValueLog<E> {
    /// Reads the value of the record at `pointer`, which a table or the memtable names for `key`
    /// with the value's length, and decompresses it if it is compressed.
    ///
    /// # Errors
    ///
    /// [`EngineError::Damaged`] if it cannot be read, or is not that value, whole.
    pub async fn read(
        &self,
        (pointer, value_len): (Pointer, u32),
        key: &[u8],
        class: IoClass,
    ) -> Result<Vec<u8>, EngineError> {
        self.wait_written(pointer).await?;
        let bounds = (pointer.offset as usize, end_of(pointer));
        let span = self.read_span(pointer.segment, bounds, class).await;
        let span = span.map_err(|reason| damaged(pointer, key, &reason))?;
        self.value_in(&span, (pointer, value_len), key).await
    }

    /// Reads values whose records lie near each other in one segment, with one request if the
    /// device can read all of it. Each has a result of its own, in the order of `wanted`.
    pub async fn read_together(
        &self,
        wanted: &[WantedValue],
        class: IoClass,
    ) -> Vec<Result<Vec<u8>, EngineError>> {
        let span = if wanted.len() > 1 { self.span_of(wanted, class).await } else { None };
        let mut values = Vec::with_capacity(wanted.len());
        for WantedValue { pointer, value_len, key } in wanted {
            let place = (*pointer, *value_len);
            values.push(match &span {
                Some(span) => self.value_in(span, place, key).await,
                // One bad block must not hide its neighbours.
                None => self.read(place, key, class).await,
            });
        }
        values
    }

    /// All blocks in which `wanted` lies; `None` if some of them cannot be read.
    async fn span_of(&self, wanted: &[WantedValue], class: IoClass) -> Option<Span> {
        let pointers = || wanted.iter().map(|wanted| wanted.pointer);
        let segment = pointers().next()?.segment;
        assert!(pointers().all(|pointer| pointer.segment == segment), "a span is of one segment");
        for pointer in pointers() {
            self.wait_written(pointer).await.ok()?;
        }
        let start = pointers().map(|pointer| pointer.offset as usize).min()?;
        let end = pointers().map(end_of).max()?;
        self.read_span(segment, (start, end), class).await.ok()
    }

    /// Waits until the record was given to the device.
    async fn wait_written(&self, pointer: Pointer) -> Result<(), EngineError> {
        if self.shared.state.borrow().is_in_open_frame(pointer) {
            self.write_open_frame();
        }
        self.wait(|state| state.is_written(pointer)).await
    }

    /// Reads the blocks that hold these bytes of a segment, or says why it cannot.
    async fn read_span(
        &self,
        number: u32,
        (offset, end): (usize, usize),
        class: IoClass,
    ) -> Result<Span, String> {
        let segment = self.segment(number).await.map_err(|error| error.to_string())?;
        let segment = segment.ok_or_else(|| "the segment is not there".to_owned())?;
        let (start, end) = Span::bounds(offset, end);
        if end > segment.bytes as usize {
            return Err("the pointer is past the segment's end".to_owned());
        }
        let buffer = self.shared.env.buffer(end - start);
        let (result, buffer) = segment.file.read(class, start as u64, buffer).await;
        result.map_err(|source| format!("reading failed: {source}"))?;
        Ok(Span { start, buffer })
    }

    /// The value of the record at `pointer`, which lies within `span`.
    async fn value_in(
        &self,
        span: &Span,
        (pointer, value_len): (Pointer, u32),
        key: &[u8],
    ) -> Result<Vec<u8>, EngineError> {
        let damaged = |reason: &str| damaged(pointer, key, reason);
        let Pointer { segment, offset, .. } = pointer;
        let place = Place { store: self.shared.identity.store, segment, offset };
        let bytes = span.record(pointer);
        let found = record::decode(bytes, place).map_err(|error| damaged(&error.to_string()))?;
        if !found.payload_intact {
            return Err(damaged("the value does not match its checksum"));
        }
        if found.record.key != key || found.len != bytes.len() {
            return Err(damaged("another key's record is there"));
        }
        if found.record.value_len() != value_len {
            return Err(damaged("the value has another length than the index says"));
        }
        let Some(original) = found.record.original else {
            return Ok(found.record.payload.to_vec());
        };
        let value = self.decompress(found.record.payload, original).await;
        value.map_err(|error| damaged(&error.to_string()))
    }

    /// Decompresses a value; others have the core between its chunks.
    async fn decompress(
        &self,
        bytes: &[u8],
        original: OriginalValue,
    ) -> Result<Vec<u8>, SpoiledValue> {
        let mut decompressing = Decompressing::begin(bytes, original)?;
        let mut value = Vec::with_capacity(original.len as usize);
        while decompressing.step(&mut value)? {
            self.shared.env.yield_if_needed().await;
        }
        Ok(value)
    }
}
