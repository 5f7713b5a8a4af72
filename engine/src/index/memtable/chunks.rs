//! A sequence that grows without moving what it holds: no push takes longer than filling a chunk's
//! worth of fresh memory does.

use std::ops::{Index, IndexMut};

/// Elements of a chunk; so many are freed at a time.
pub(super) const CHUNK: usize = 256;

/// Elements by number, in chunks of one size. All but the last chunk are full.
#[derive(Debug)]
pub(super) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    /// Appends an element and returns its number.
    pub(super) fn push(&mut self, element: T) -> u32 {
        let number = u32::try_from(self.len()).expect("memtables are far smaller");
        if number as usize == self.chunks.len() * CHUNK {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut().expect("there is room in one").push(element);
        number
    }

    /// Frees the last chunk; false if there was none.
    pub(super) fn drop_some(&mut self) -> bool {
        self.chunks.pop().is_some()
    }
}

impl<T> Index<u32> for Chunks<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }
}
