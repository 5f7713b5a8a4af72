//! Reading a segment from front to back through a window, so that small frames cost no read of
//! their own.

use larder_runtime::buffer::Buffer;
use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass};

use super::frame;
use super::segment::Segment;

/// How much of a segment is read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// What reading a piece of a segment gave.
pub(crate) enum Piece<'a> {
    /// The bytes.
    Here(&'a [u8]),
    /// The piece goes past the segment's end.
    Past,
    /// The device cannot read it.
    Unreadable,
}

/// Reads a segment through a window, so that small frames cost no read of their own.
pub(crate) struct Window<'a, E: Env> {
    env: &'a E,
    segment: &'a Segment<E::File>,
    class: IoClass,
    start: u32,
    buffer: Option<Buffer>,
}

impl<'a, E: Env> Window<'a, E> {
    pub(crate) fn new(env: &'a E, segment: &'a Segment<E::File>, class: IoClass) -> Self {
        Self { env, segment, class, start: 0, buffer: None }
    }

    /// The bytes `offset..offset + len`.
    pub(crate) async fn bytes(&mut self, offset: u32, len: usize) -> Piece<'_> {
        let end = offset as usize + len;
        if end > self.segment.bytes as usize {
            return Piece::Past;
        }
        let held = self.buffer.as_ref().map_or(0, |buffer| buffer.len());
        let inside = offset >= self.start && end <= self.start as usize + held;
        if !inside && !self.fill(offset, len, WINDOW_BYTES).await {
            // One bad sector must not hide its neighbours: read no more than was asked for.
            if !self.fill(offset, len, 0).await {
                return Piece::Unreadable;
            }
        }
        let at = (offset - self.start) as usize;
        let buffer = self.buffer.as_ref().expect("it was just filled");
        Piece::Here(&buffer[at..at + len])
    }

    /// Reads anew what is asked for next: a transfer that went wrong must not look like damage.
    pub(crate) fn forget(&mut self) {
        self.buffer = None;
    }

    /// The bytes `offset..offset + len`, block by block, with zeros for those that the device
    /// cannot read.
    pub(crate) async fn salvage(&mut self, offset: u32, len: usize) -> Vec<u8> {
        let mut salvaged = vec![0; len];
        for (index, block) in salvaged.chunks_mut(DISK_ALIGNMENT).enumerate() {
            let start = offset + (index * DISK_ALIGNMENT) as u32;
            if self.fill(start, block.len(), 0).await
                && let Some(buffer) = &self.buffer
            {
                block.copy_from_slice(&buffer[..block.len()]);
            }
        }
        self.forget();
        salvaged
    }

    async fn fill(&mut self, offset: u32, len: usize, at_least: usize) -> bool {
        self.start = offset & !(DISK_ALIGNMENT as u32 - 1);
        let wanted = ((offset - self.start) as usize + len).max(at_least);
        let available = self.segment.bytes as usize - self.start as usize;
        let bytes = frame::padded(wanted).min(available & !(DISK_ALIGNMENT - 1));
        // New memory is cleared by the kernel page by page.
        let buffer = match self.buffer.take() {
            Some(mut buffer) if buffer.capacity() >= bytes => {
                buffer.set_len(bytes);
                buffer
            }
            _ => self.env.buffer(bytes),
        };
        let start = u64::from(self.start);
        let (result, buffer) = self.segment.file.read(self.class, start, buffer).await;
        self.buffer = result.is_ok().then_some(buffer);
        result.is_ok()
    }
}
