//! Bytes in the order in which they leave.

use crate::limits::SPARE_INPUT_BYTES_MAX;

/// Consumed bytes below this are not worth moving the others for.
const COMPACT_BYTES_MIN: usize = 4096;

/// Bytes that are appended at one end and taken at the other. Empty, it costs no large memory.
#[derive(Debug, Default)]
pub struct ByteQueue {
    bytes: Vec<u8>,
    head: usize,
}

impl ByteQueue {
    /// The vector to append to. What is in it must stay.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The first `len` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn front(&self, len: usize) -> &[u8] {
        &self.bytes[self.head..self.head + len]
    }

    /// Forgets the first `len` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, len: usize) {
        self.head += len;
        assert!(self.head <= self.bytes.len(), "more bytes consumed than there are");
        if self.head == self.bytes.len() {
            self.head = 0;
            self.bytes.clear();
            if self.bytes.capacity() > SPARE_INPUT_BYTES_MAX {
                self.bytes = Vec::new();
            }
        } else if self.head >= COMPACT_BYTES_MIN && self.head * 2 > self.bytes.len() {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut queue = ByteQueue::default();
        let mut expected = std::collections::VecDeque::new();
        for round in 0..2000usize {
            let bytes = [round as u8; 7];
            queue.tail().extend_from_slice(&bytes);
            expected.extend(bytes);
            let taken = (round % 8).min(queue.len());
            assert!(queue.front(taken).iter().eq(expected.iter().take(taken)));
            queue.consume(taken);
            expected.drain(..taken);
            assert_eq!(queue.len(), expected.len());
        }
        let left = queue.len();
        queue.consume(left);
        assert!(queue.is_empty() && queue.tail().is_empty());
    }
}
