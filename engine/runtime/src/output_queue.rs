//! A connection's output: small replies in one growing buffer, and large values linked between.
//!
//! A value that somebody owns already is not copied: it is put where it belongs among the other
//! bytes, and sent from where it lies. What is small is copied, because a further piece costs the
//! kernel and this side more than that.

#![forbid(unsafe_code)]

/// From which length on a value that is owned is linked instead of copied, in bytes. To copy as
/// much takes about a microsecond where it is not in the nearest caches; a link costs an entry of
/// the send's list, and its memory goes back to the allocator one by one.
pub const LINK_BYTES_MIN: usize = 16 << 10;

/// Bytes to send, in order.
#[derive(Debug, Default)]
pub struct OutputQueue {
    bytes: Vec<u8>,
    /// The large values; most outputs have none.
    links: Option<Box<Links>>,
}

#[derive(Debug, Default)]
struct Links {
    /// By the place in the buffer that they stand before.
    links: Vec<Link>,
    /// The sum of their lengths.
    len: usize,
    /// The memory that they take, in bytes.
    memory: usize,
}

#[derive(Debug)]
struct Link {
    /// How many bytes of the buffer come before it.
    at: usize,
    len: usize,
    /// Empty when it is sent.
    value: Vec<u8>,
}

/// How far an output had come, to go back there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputMark {
    bytes: usize,
    links: usize,
}

impl OutputQueue {
    /// The buffer to append to. What is in it must stay.
    #[inline]
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// How many bytes there are, those of values included.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.links.as_ref().map_or(0, |links| links.len)
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a value behind the first `at` bytes of the buffer, and behind all values that are there
    /// already.
    ///
    /// # Panics
    ///
    /// If the buffer has not so many bytes, or a value stands behind that place.
    pub fn link_at(&mut self, at: usize, value: Vec<u8>) {
        let links = self.links.get_or_insert_default();
        let last = links.links.last().map_or(0, |link| link.at);
        assert!((last..=self.bytes.len()).contains(&at), "a value at {at}, behind {last}");
        links.len += value.len();
        links.memory += value.capacity();
        links.links.push(Link { at, len: value.len(), value });
    }

    /// How far it has come.
    #[inline]
    pub fn mark(&self) -> OutputMark {
        let links = self.links.as_ref().map_or(0, |links| links.links.len());
        OutputMark { bytes: self.bytes.len(), links }
    }

    /// Takes back what was appended since.
    pub fn truncate(&mut self, mark: OutputMark) {
        self.bytes.truncate(mark.bytes);
        let Some(links) = self.links.as_deref_mut() else { return };
        for link in links.links.drain(mark.links..) {
            links.len -= link.len;
            links.memory -= link.value.capacity();
        }
    }

    /// The memory that it takes, in bytes.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        let of_links = |links: &Links| {
            size_of::<Links>() + links.memory + links.links.capacity() * size_of::<Link>()
        };
        self.bytes.capacity() + self.links.as_deref().map_or(0, of_links)
    }

    /// Whether it has values of their own.
    #[inline]
    pub(crate) fn has_links(&self) -> bool {
        self.links.is_some()
    }

    /// Its pieces, without the first `skipped` bytes and without empty ones.
    pub fn pieces(&self, skipped: usize) -> Pieces<'_> {
        let links = self.links.as_deref().map_or(&[][..], |links| &links.links);
        Pieces { bytes: &self.bytes, links, start: 0, is_at_value: false, skipped }
    }

    /// Gives back the memory of the values that lie within the first `sent` bytes.
    pub(crate) fn release(&mut self, sent: usize) {
        let Some(links) = self.links.as_deref_mut() else { return };
        let mut before = 0;
        for link in &mut links.links {
            before += link.len;
            if link.at + before > sent {
                return;
            }
            links.memory -= link.value.capacity();
            link.value = Vec::new();
        }
    }

    /// The buffer alone, when everything is sent.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// The pieces of an [`OutputQueue`].
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    bytes: &'a [u8],
    links: &'a [Link],
    /// How many bytes of the buffer are behind.
    start: usize,
    /// Whether the first link's value comes next, and not what stands before it.
    is_at_value: bool,
    skipped: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (len, piece) = match self.links.split_first() {
                Some((link, rest)) if self.is_at_value => {
                    self.links = rest;
                    self.is_at_value = false;
                    (link.len, &link.value[..])
                }
                first => {
                    let end = first.map_or(self.bytes.len(), |(link, _)| link.at);
                    if first.is_none() && self.start == end {
                        return None;
                    }
                    let piece = &self.bytes[self.start..end];
                    self.start = end;
                    self.is_at_value = first.is_some();
                    (piece.len(), piece)
                }
            };
            let skipped = self.skipped.min(len);
            self.skipped -= skipped;
            if skipped < len {
                return Some(&piece[skipped..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn joined(queue: &OutputQueue, skipped: usize) -> Vec<u8> {
        queue
            .pieces(skipped)
            .inspect(|piece| assert!(!piece.is_empty()))
            .flatten()
            .copied()
            .collect()
    }

    #[test]
    fn pieces_are_the_same_bytes_whatever_is_linked_and_skipped() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let (mut queue, mut expected) = (OutputQueue::default(), Vec::new());
            for _ in 0..random.index(12) {
                let len = random.index(20);
                let bytes = random.bytes(len);
                expected.extend_from_slice(&bytes);
                if random.percent(50) {
                    queue.bytes().extend_from_slice(&bytes);
                } else {
                    let at = queue.bytes().len();
                    queue.link_at(at, bytes);
                }
            }
            assert_eq!(queue.len(), expected.len(), "seed {seed}");
            let mut sent = 0;
            while sent < expected.len() {
                assert_eq!(joined(&queue, sent), expected[sent..], "seed {seed} at {sent}");
                sent += random.count(1..=expected.len() - sent);
                queue.release(sent);
            }
            assert_eq!(queue.pieces(sent).count(), 0, "seed {seed}");
        }
    }

    #[test]
    fn what_is_taken_back_takes_its_values_along() {
        let mut queue = OutputQueue::default();
        queue.bytes().extend_from_slice(b"kept");
        queue.link_at(4, b"value".to_vec());
        let (mark, memory) = (queue.mark(), queue.memory());
        // The value before the mark stands at the very place where the mark is.
        queue.link_at(4, vec![0; 1000]);
        queue.bytes().extend_from_slice(b"more");
        queue.truncate(mark);
        assert_eq!((joined(&queue, 0).as_slice(), queue.len()), (&b"keptvalue"[..], 9));
        assert!(queue.memory() < memory + 1000);
    }

    #[test]
    fn a_value_is_held_until_all_of_it_is_sent() {
        let mut queue = OutputQueue::default();
        queue.bytes().extend_from_slice(b"head");
        queue.link_at(4, vec![7; 1000]);
        queue.bytes().extend_from_slice(b"tail");
        let memory = queue.memory();
        assert!(queue.has_links() && memory >= 1008);
        queue.release(1003);
        assert_eq!(queue.memory(), memory);
        queue.release(1004);
        assert_eq!((queue.memory(), queue.len()), (memory - 1000, 1008));
        assert_eq!(joined(&queue, 1004), b"tail");
    }
}
