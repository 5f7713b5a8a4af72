//! What was asked of keys, counted by what stands before a delimiter in them. While nobody wants it
//! nothing is counted.

use std::collections::HashMap;

use crate::counters::Kind;
use crate::limits::PREFIXES_MAX;

/// What was asked of the keys with one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Reads.
    pub gets: u64,
    /// Those of them that have found an item.
    pub hits: u64,
    /// Stores.
    pub sets: u64,
    /// Deletes.
    pub deletes: u64,
}

impl PrefixCounts {
    /// Adds what another core has counted.
    pub fn add(&mut self, other: &Self) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.sets += other.sets;
        self.deletes += other.deletes;
    }
}

/// The counts of one core.
#[derive(Debug)]
pub struct Prefixes {
    delimiter: u8,
    is_on: bool,
    counts: HashMap<Box<[u8]>, PrefixCounts>,
}

impl Prefixes {
    /// No counts yet.
    pub fn new(delimiter: u8, is_on: bool) -> Self {
        Self { delimiter, is_on, counts: HashMap::new() }
    }

    /// Begins to count, or ends it. What was counted stays.
    pub fn switch(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    /// Whether it counts.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Forgets what was counted.
    pub fn reset(&mut self) {
        self.counts = HashMap::new();
    }

    /// Counts a request, if its key has a prefix, and there is room for that.
    pub fn count(&mut self, key: &[u8], kind: Kind, is_found: bool) {
        let Some(end) = key.iter().position(|&byte| byte == self.delimiter) else { return };
        let prefix = &key[..end];
        if !self.counts.contains_key(prefix) {
            if self.counts.len() >= PREFIXES_MAX {
                return;
            }
            self.counts.insert(prefix.into(), PrefixCounts::default());
        }
        let counts = self.counts.get_mut(prefix).expect("it was just made");
        match kind {
            Kind::Get { .. } => {
                counts.gets += 1;
                counts.hits += u64::from(is_found);
            }
            Kind::Store | Kind::CompareAndStore | Kind::TooLarge => counts.sets += 1,
            Kind::Delete => counts.deletes += 1,
            Kind::Increment | Kind::Decrement | Kind::Touch | Kind::Other => {}
        }
    }

    /// What was counted, by prefix.
    pub fn counted(&self) -> Vec<(Box<[u8]>, PrefixCounts)> {
        self.counts.iter().map(|(prefix, counts)| (prefix.clone(), *counts)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_first_delimiter_counts() {
        let mut prefixes = Prefixes::new(b':', true);
        let get = Kind::Get { touches: false };
        prefixes.count(b"a:b", Kind::Store, true);
        prefixes.count(b"a:b:c", get, true);
        prefixes.count(b"a:x", get, false);
        prefixes.count(b"a:x", Kind::Delete, false);
        prefixes.count(b"a:x", Kind::Increment, true);
        prefixes.count(b"none", get, true);
        prefixes.count(b":x", Kind::TooLarge, false);
        let mut counted = prefixes.counted();
        counted.sort_by(|left, right| left.0.cmp(&right.0));
        let a = PrefixCounts { gets: 2, hits: 1, sets: 1, deletes: 1 };
        let empty = PrefixCounts { sets: 1, ..PrefixCounts::default() };
        assert_eq!(counted, [(b"".as_slice().into(), empty), (b"a".as_slice().into(), a)]);
        prefixes.reset();
        assert_eq!(prefixes.counted(), []);
    }

    #[test]
    fn there_are_not_more_of_them_than_may_be() {
        let mut prefixes = Prefixes::new(b'/', true);
        for number in 0..PREFIXES_MAX + 10 {
            prefixes.count(format!("{number}/key").as_bytes(), Kind::Store, true);
        }
        prefixes.count(b"0/key", Kind::Store, true);
        assert_eq!(prefixes.counted().len(), PREFIXES_MAX);
        let first = prefixes.counted().into_iter().find(|(prefix, _)| **prefix == *b"0");
        assert_eq!(first.expect("it was first").1.sets, 2);
    }
}
