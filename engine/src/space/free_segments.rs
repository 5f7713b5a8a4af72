//! Files of freed segments: first those that somebody may still read, then those to use again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The files of freed segments, and those of segments that are about to be freed.
#[derive(Default)]
pub struct FreeSegments {
    /// Segments that no entry may come to point into any more: they are being collected, or taken
    /// out of the manifest.
    leaving: BTreeSet<u32>,
    /// (moment of freeing, number)
    in_use: VecDeque<(u64, u32)>,
    /// Bytes of the files in `in_use`, by number.
    in_use_bytes: BTreeMap<u32, u32>,
    ready: BTreeSet<u32>,
}

impl FreeSegments {
    /// Says that no entry may come to point into the segment from now on.
    pub fn leave(&mut self, number: u32) {
        self.leaving.insert(number);
    }

    /// Takes [`FreeSegments::leave`] back: the segment could not be freed.
    pub fn stay(&mut self, number: u32) {
        self.leaving.remove(&number);
    }

    /// Whether no entry may come to point into the segment.
    pub fn is_leaving(&self, number: u32) -> bool {
        self.leaving.contains(&number)
    }

    /// Notes a file of `bytes` that the manifest does not name any more. Whoever began before
    /// `moment` may still read it.
    pub fn freed(&mut self, number: u32, bytes: u32, moment: u64) {
        self.leaving.remove(&number);
        self.in_use.push_back((moment, number));
        self.in_use_bytes.insert(number, bytes);
    }

    /// Whether there are files that somebody may still read.
    pub fn has_files_in_use(&self) -> bool {
        !self.in_use.is_empty()
    }

    /// Takes the next file that nobody reads any more; `has_passed` says of a moment whether all
    /// who began before it have ended.
    pub fn take_unread(&mut self, has_passed: impl FnOnce(u64) -> bool) -> Option<(u32, u32)> {
        let &(moment, number) = self.in_use.front()?;
        if !has_passed(moment) {
            return None;
        }
        self.in_use.pop_front();
        let bytes = self.in_use_bytes.remove(&number).expect("every file has a length");
        Some((number, bytes))
    }

    /// A file that nobody reads and that can be used again.
    pub fn add(&mut self, number: u32) {
        self.ready.insert(number);
    }

    /// Takes a file to use again.
    pub fn take(&mut self) -> Option<u32> {
        self.ready.pop_first()
    }

    /// How many files can be used again.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether the file of a segment with this number is free, or will be.
    #[cfg(test)]
    pub(crate) fn holds(&self, number: u32) -> bool {
        self.ready.contains(&number)
            || self.leaving.contains(&number)
            || self.in_use.iter().any(|(_, freed)| *freed == number)
    }

    /// Above every number of a file that can be used again.
    pub fn number_next(&self) -> u32 {
        self.ready.last().map_or(0, |last| last + 1)
    }

    /// Bytes of all files here; those to use again have `segment_bytes` each.
    pub fn bytes(&self, segment_bytes: u32) -> u64 {
        let in_use: u64 = self.in_use_bytes.values().map(|bytes| u64::from(*bytes)).sum();
        in_use + self.ready.len() as u64 * u64::from(segment_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_used_again_after_its_readers_have_left() {
        let mut free = FreeSegments::default();
        free.leave(3);
        assert!(free.is_leaving(3));
        free.freed(3, 4096, 7);
        assert!(!free.is_leaving(3) && free.has_files_in_use());
        assert_eq!(free.bytes(100), 4096);
        assert_eq!(free.take_unread(|moment| moment < 7), None);
        assert_eq!(free.take_unread(|moment| moment == 7), Some((3, 4096)));
        free.add(3);
        assert_eq!((free.ready(), free.number_next(), free.bytes(100)), (1, 4, 100));
        assert_eq!((free.take(), free.take()), (Some(3), None));
    }
}
