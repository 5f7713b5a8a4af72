//! Which survivors go to the same segment. Pure.
//!
//! By *generation*, how often a record has been moved, so that what lives long is not mixed with
//! what dies soon. Those that expire go by the time that they have left, so that a segment of
//! theirs expires as a whole and is dropped unread: in classes of powers of four, of which a few
//! are open at a time.

use super::{GENERATION_EXPIRING, GENERATION_MOVED, GENERATION_OLD, Victim};
use crate::entry::Metadata;

/// Classes of records that expire for which a segment is open at a time, at most. Each takes up to
/// a segment that is not full, and a frame in memory.
pub const EXPIRY_CLASSES_OPEN_MAX: usize = 4;

/// Which records are moved to segments of their own. Each kind has an open segment, which takes
/// space for little while it is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Separation {
    /// Those that were moved before: what has lived long is likely to go on.
    pub by_age: bool,
    /// Those that expire, in at most so many segments at a time; 0 if they are not kept apart.
    pub expiry_classes: usize,
    /// What lives, in segments.
    pub live_segments: u64,
    /// The present, in Unix seconds.
    pub now: u32,
}

/// Open segments of kinds that are no longer kept apart are closed where all that are open are more
/// than one for so many that live. With more they may be wanted again soon, and a segment that is
/// closed before it is full is space that is lost.
const LIVE_SEGMENTS_OF_OPEN: u64 = 4;

impl Separation {
    /// Whether so many open segments are too many for what lives.
    pub(super) fn is_crowded(&self, open: usize) -> bool {
        u64::try_from(open).unwrap_or(u64::MAX) > self.live_segments / LIVE_SEGMENTS_OF_OPEN
    }
}

/// What the records in a segment that the collector fills have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// What the manifest has of the segment.
    pub(super) generation: u8,
    /// How much time they have left: a power of four of seconds. 0 for those that do not expire.
    class: u8,
}

impl Kind {
    /// What a record of `victim` comes to that lives.
    pub(super) fn of(victim: Victim, metadata: Metadata, separation: Separation) -> Self {
        if separation.expiry_classes > 0 && metadata.expiry != 0 {
            let left = metadata.expiry.saturating_sub(separation.now);
            let class = (left.max(1).ilog2() / 2) as u8;
            return Self { generation: GENERATION_EXPIRING, class };
        }
        let generation = match victim.generation {
            GENERATION_MOVED | GENERATION_OLD if separation.by_age => GENERATION_OLD,
            _ => GENERATION_MOVED,
        };
        Self { generation, class: 0 }
    }

    /// Of the kinds in `open`, the one that records of this kind go to; this one if it is to have a
    /// segment of its own.
    pub(super) fn among(self, open: impl Iterator<Item = Self>, separation: Separation) -> Self {
        if self.generation != GENERATION_EXPIRING {
            return self;
        }
        let mut others = 0;
        let mut nearest: Option<Self> = None;
        for kind in open.filter(|kind| kind.generation == GENERATION_EXPIRING) {
            others += 1;
            let is_nearer = |nearest: Self| self.distance(kind) < self.distance(nearest);
            if nearest.is_none_or(is_nearer) {
                nearest = Some(kind);
            }
        }
        nearest.filter(|_| others >= separation.expiry_classes).unwrap_or(self)
    }

    /// How little this kind and another belong together: those of a generation first.
    pub(super) fn distance(self, other: Self) -> (bool, u8) {
        (self.generation != other.generation, self.class.abs_diff(other.class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_700_000_000;

    fn separation(by_age: bool, expiry_classes: usize) -> Separation {
        Separation { by_age, expiry_classes, live_segments: 0, now: NOW }
    }

    /// Of a record that was moved so often and has so many seconds left, 0 for all.
    fn kind(generation: u8, left: u32, separation: Separation) -> (u8, u8) {
        let victim = Victim { number: 1, generation, end: 0 };
        let expiry = if left == 0 { 0 } else { NOW + left };
        let kind = Kind::of(victim, Metadata { expiry, ..Metadata::default() }, separation);
        (kind.generation, kind.class)
    }

    #[test]
    fn records_go_by_how_often_they_were_moved_and_how_long_they_have_left() {
        let mixed = separation(false, 0);
        assert_eq!([0, 1, 2, 3].map(|generation| kind(generation, 0, mixed).0), [1; 4]);
        let by_age = separation(true, 0);
        assert_eq!([0, 1, 2, 3].map(|generation| kind(generation, 0, by_age).0), [1, 2, 2, 1]);
        assert_eq!(kind(0, 60, by_age), (GENERATION_MOVED, 0));
        let apart = separation(true, 1);
        assert_eq!(kind(2, 0, apart), (GENERATION_OLD, 0));
        let classes = [1, 3, 4, 60, 300, 86_400].map(|left| kind(2, left, apart));
        assert_eq!(classes, [0, 0, 1, 2, 4, 8].map(|class| (GENERATION_EXPIRING, class)));
    }

    #[test]
    fn open_segments_are_few_of_those_that_live() {
        let lives = |live_segments| Separation { live_segments, ..Separation::default() };
        assert_eq!(
            [0, 3, 4, 7, 8].map(|live| lives(live).is_crowded(1)),
            [true, true, false, false, false]
        );
        assert_eq!([16, 23, 24].map(|live| lives(live).is_crowded(6)), [true, true, false]);
        assert!(!lives(0).is_crowded(0));
    }

    #[test]
    fn a_few_classes_are_open_and_the_others_go_to_the_nearest() {
        let of_class = |class| Kind { generation: GENERATION_EXPIRING, class };
        let eternal = Kind { generation: GENERATION_MOVED, class: 0 };
        let open = [eternal, of_class(2), of_class(5), of_class(6)];
        let goes_to = |class: u8, most: usize| {
            of_class(class).among(open.into_iter(), separation(true, most)).class
        };
        assert_eq!([2, 3, 9].map(|class| goes_to(class, 4)), [2, 3, 9], "there is room for one");
        assert_eq!([1, 2, 3, 4, 5, 9].map(|class| goes_to(class, 3)), [2, 2, 2, 5, 5, 6]);
        assert_eq!([1, 9].map(|class| goes_to(class, 1)), [2, 6], "there may be fewer than before");
        let first = of_class(7).among([eternal].into_iter(), separation(true, 1));
        assert_eq!(first, of_class(7));
        assert_eq!(eternal.among(open.into_iter(), separation(true, 1)), eternal);
    }
}
