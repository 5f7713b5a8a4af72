//! Memory that frames are built in, used again.

use larder_runtime::buffer::Buffer;

/// The size of a frame's first buffer: most group commits fit it.
pub(super) const FRAME_BUFFER_BYTES: usize = 64 << 10;

/// Buffers of frames that were written. New memory is cleared by the kernel page by page, which
/// costs more than building a frame in it.
pub(super) struct FrameBuffers {
    kept: Vec<Buffer>,
    bytes: usize,
    bytes_max: usize,
}

impl FrameBuffers {
    /// None yet, and never more than `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { kept: Vec::new(), bytes: 0, bytes_max }
    }

    /// A buffer for at least `bytes`; `make` makes one if none is kept.
    pub(super) fn take(&mut self, bytes: usize, make: &dyn Fn(usize) -> Buffer) -> Buffer {
        match self.kept.iter().rposition(|buffer| buffer.capacity() >= bytes) {
            Some(at) => {
                let buffer = self.kept.swap_remove(at);
                self.bytes -= buffer.capacity();
                buffer
            }
            None => make(bytes.max(FRAME_BUFFER_BYTES)),
        }
    }

    /// Keeps a buffer that was written out, if there is room for it.
    pub(super) fn give(&mut self, buffer: Buffer) {
        if self.bytes + buffer.capacity() <= self.bytes_max {
            self.bytes += buffer.capacity();
            self.kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_what_is_kept_is_bounded() {
        let mut buffers = FrameBuffers::new(4 << 20);
        let make = |bytes: usize| Buffer::zeroed(bytes);
        let never = |bytes: usize| -> Buffer { panic!("{bytes} bytes are asked for anew") };
        let first = buffers.take(100, &make);
        assert_eq!(first.capacity(), FRAME_BUFFER_BYTES);
        buffers.give(first);
        let again = buffers.take(FRAME_BUFFER_BYTES, &never);
        let larger = buffers.take(1 << 20, &make);
        buffers.give(again);
        buffers.give(larger);
        assert_eq!(buffers.take(1 << 20, &never).capacity(), 1 << 20);
        for _ in 0..100 {
            buffers.give(Buffer::zeroed(1 << 20));
        }
        assert!(buffers.bytes <= 4 << 20);
    }
}
