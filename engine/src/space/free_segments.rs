//! Files of freed segments: first those that somebody may still read, then those to use again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Who may still read a freed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Nobody.
    Nobody,
    /// Leases alone.
    Leases,
    /// An operation, which will have ended soon.
    Operations,
}

/// The files of freed segments, and those of segments that are about to be freed.
#[derive(Default)]
pub struct FreeSegments {
    /// Segments that no entry may come to point into any more: they are being collected, or taken
    /// out of the manifest.
    leaving: BTreeSet<u32>,
    /// (moment of freeing, number)
    in_use: VecDeque<(u64, u32)>,
    /// The same, of files that leases alone may still read: they are looked at again when one ends.
    leased: Vec<(u64, u32)>,
    /// Bytes of the files in `in_use` and `leased`, by number.
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

    /// Notes a file of `bytes` that the manifest does not name any more since `moment`. Who has
    /// pinned it before may still read it.
    pub fn freed(&mut self, number: u32, bytes: u32, moment: u64) {
        self.leaving.remove(&number);
        self.in_use.push_back((moment, number));
        self.in_use_bytes.insert(number, bytes);
    }

    /// Whether there are files that operations under way may still read.
    pub fn has_files_in_use(&self) -> bool {
        !self.in_use.is_empty()
    }

    /// Takes the first file that nobody reads any more, whoever reads those before it; `readers`
    /// says of a moment and a number who may still read the segment that was freed then.
    pub fn take_unread(&mut self, readers: impl Fn(u64, u32) -> Readers) -> Option<(u32, u32)> {
        let mut at = 0;
        while let Some(&(moment, number)) = self.in_use.get(at) {
            match readers(moment, number) {
                Readers::Operations => at += 1,
                Readers::Leases => self.leased.extend(self.in_use.remove(at)),
                Readers::Nobody => {
                    self.in_use.remove(at);
                    let bytes = self.in_use_bytes.remove(&number).expect("every file has a length");
                    return Some((number, bytes));
                }
            }
        }
        None
    }

    /// Told that a lease has ended.
    pub fn look_again(&mut self) {
        // They were freed before those that are in line now.
        for file in self.leased.drain(..).rev() {
            self.in_use.push_front(file);
        }
    }

    /// Bytes of the files that leases alone may still read.
    pub fn leased_bytes(&self) -> u64 {
        self.leased.iter().map(|(_, number)| u64::from(self.in_use_bytes[number])).sum()
    }

    /// Bytes of the files of which `is_held` says so, by the moment of their freeing and number.
    pub fn bytes_held(&self, is_held: impl Fn(u64, u32) -> bool) -> u64 {
        let held = self.unreleased().filter(|(moment, number)| is_held(*moment, *number));
        held.map(|(_, number)| u64::from(self.in_use_bytes[&number])).sum()
    }

    /// The files that somebody may still read: moments of freeing, and numbers.
    pub fn unreleased(&self) -> impl Iterator<Item = (u64, u32)> {
        self.leased.iter().chain(&self.in_use).copied()
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
            || self.leased.iter().chain(&self.in_use).any(|(_, freed)| *freed == number)
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
        assert_eq!(free.take_unread(|_, _| Readers::Operations), None);
        let readers = |moment, number| {
            assert_eq!((moment, number), (7, 3));
            Readers::Nobody
        };
        assert_eq!(free.take_unread(readers), Some((3, 4096)));
        free.add(3);
        assert_eq!((free.ready(), free.number_next(), free.bytes(100)), (1, 4, 100));
        assert_eq!((free.take(), free.take()), (Some(3), None));
    }

    #[test]
    fn a_file_that_is_read_stands_in_nobodys_way() {
        let mut free = FreeSegments::default();
        for (number, moment) in [(3, 7), (4, 8), (5, 9)] {
            free.freed(number, 100, moment);
        }
        let reads = |readers: [Readers; 3]| move |_: u64, number: u32| readers[number as usize - 3];
        let slow = reads([Readers::Operations, Readers::Nobody, Readers::Operations]);
        assert_eq!((free.take_unread(slow), free.take_unread(slow)), (Some((4, 100)), None));
        assert_eq!(free.unreleased().collect::<Vec<_>>(), [(7, 3), (9, 5)]);
        let slow = reads([Readers::Operations, Readers::Nobody, Readers::Nobody]);
        assert_eq!((free.take_unread(slow), free.has_files_in_use()), (Some((5, 100)), true));
        assert_eq!(free.take_unread(|_, _| Readers::Nobody), Some((3, 100)));
    }

    #[test]
    fn files_that_leases_hold_stand_in_nobodys_way_and_are_looked_at_when_one_ends() {
        let mut free = FreeSegments::default();
        for (number, moment) in [(3, 7), (4, 8), (5, 9)] {
            free.freed(number, 100, moment);
        }
        let of_lease = |_, number| if number == 5 { Readers::Nobody } else { Readers::Leases };
        assert_eq!(free.take_unread(of_lease), Some((5, 100)));
        assert_eq!((free.take_unread(of_lease), free.has_files_in_use()), (None, false));
        assert_eq!((free.bytes(0), free.bytes_held(|moment, _| moment > 7)), (200, 100));
        assert_eq!(free.take_unread(|_, _| Readers::Nobody), None);
        free.look_again();
        let taken = [(); 3].map(|()| free.take_unread(|_, _| Readers::Nobody));
        assert_eq!(taken, [Some((3, 100)), Some((4, 100)), None]);
    }
}
