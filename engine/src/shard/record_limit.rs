//! How much a record may have in namespaces that limit it.
//!
//! Writes are blind, so nothing knows how much a record has. For records of such namespaces it is
//! counted once, and what is written is added from then on: the sum is never too low. Where it
//! passes the limit and something may have gone since, the record is counted anew before a change
//! is refused. The sums of the records that were written last are kept; others are counted again.
//!
//! A change that is refused costs a look-up of what it would replace, and no count: where the sum
//! is exact, and not old, nothing else has to be known. It stays exact where what a change replaces
//! is known, which is so of all changes of a record that is nearly full.

use std::collections::{BTreeMap, HashMap};

use larder_runtime::env::Env;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::admission::NotApplied;
use super::apply::Addressed;
use super::{Shard, State};
use crate::error::EngineError;
use crate::generations::generation_of;
use crate::index::table::key_hash;
use crate::key;
use crate::scan::Scan;

/// Sums are kept in two halves of so many records: when the younger one is full the older one is
/// forgotten. With what a map takes beside they have about 200 KiB.
const HALF_RECORDS_MAX: usize = 2048;

/// A sum that is older is not believed where it passes the limit, in nanoseconds: items expire.
const BELIEVED_NANOSECONDS: u64 = 1_000_000_000;

/// A change looks so often at how much its record has, while others change the record.
const COUNTS_MAX: usize = 4;

/// How much a record has at most, in bytes of item keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    bytes: u64,
    /// Whether items may have gone, or have been replaced, since it was counted.
    may_be_less: bool,
    counted_at: u64,
    /// The number of the count that it goes back to.
    count: u64,
}

/// A count under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    record: u64,
    /// By how much what was written meanwhile may have made the record longer, in bytes.
    grown: u64,
    /// Whether the record may have less than what is found and this.
    may_be_less: bool,
}

/// What an item had when a change of it began, in bytes of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    bytes: u64,
    /// The number of the count that the record's sum went back to when that was found out.
    count: u64,
}

/// What has to be found out before a change can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToCount {
    /// The encoded keys of the items of one record that it changes.
    keys: Vec<Vec<u8>>,
    /// Whether the record has to be counted; else only what these items have.
    pub(super) all: bool,
}

/// Whether a record has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    TooLittle,
    /// There was too little, but that is a while ago: items may have expired since.
    TooLittleBefore,
    /// It has to be counted.
    Unknown,
}

/// Sums of records, by the hash of their encoded keys without the item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordSums {
    young: HashMap<u64, Sum>,
    old: HashMap<u64, Sum>,
    /// Counts under way, by number.
    counting: BTreeMap<u64, Count>,
    next_count: u64,
    /// Of the hash of records, so that nobody can choose two with one hash.
    seed: u64,
}

impl RecordSums {
    fn get_mut(&mut self, record: u64) -> Option<&mut Sum> {
        if let Some(sum) = self.old.remove(&record) {
            self.put(record, sum);
        }
        self.young.get_mut(&record)
    }

    fn put(&mut self, record: u64, sum: Sum) {
        if self.young.len() >= HALF_RECORDS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(record, sum);
    }

    fn room(&mut self, record: u64, more: u64, (max, now): (u64, u64)) -> Room {
        let Some(sum) = self.get_mut(record) else { return Room::Unknown };
        if sum.bytes.saturating_add(more) <= max {
            return Room::Enough;
        }
        let is_old = now.saturating_sub(sum.counted_at) > BELIEVED_NANOSECONDS;
        match (sum.may_be_less, is_old) {
            (true, _) => Room::Unknown,
            (false, true) => Room::TooLittleBefore,
            (false, false) => Room::TooLittle,
        }
    }

    /// The number of the count that a record's sum goes back to, if it has one.
    fn count_of(&mut self, record: u64) -> Option<u64> {
        self.get_mut(record).map(|sum| sum.count)
    }

    /// What an item of a record had, if the record was not counted since that was found out: that
    /// count may not have met the item any more.
    fn still_in_sum(&mut self, record: u64, replaced: Option<Replaced>) -> Option<u64> {
        let replaced = replaced?;
        (self.count_of(record) == Some(replaced.count)).then_some(replaced.bytes)
    }

    /// An item of a record was written, or removed: so many bytes have taken the place of others,
    /// which may be known.
    fn note(&mut self, record: u64, bytes: u64, replaced: Option<Replaced>) {
        let replaced = self.still_in_sum(record, replaced);
        for count in self.counting.values_mut().filter(|count| count.record == record) {
            // The count has met either what was there or what is there now.
            count.grown += bytes.saturating_sub(replaced.unwrap_or(0));
            count.may_be_less |= replaced != Some(bytes);
        }
        if let Some(sum) = self.get_mut(record) {
            sum.bytes = (sum.bytes + bytes).saturating_sub(replaced.unwrap_or(0));
            sum.may_be_less |= replaced.is_none();
        }
    }

    /// Anything may be less than it was.
    pub(super) fn note_removals(&mut self) {
        for sum in self.young.values_mut().chain(self.old.values_mut()) {
            sum.may_be_less = true;
        }
    }

    /// Knows nothing any more: other namespaces limit their records from now on, and what was
    /// written in those that did not was not noted.
    pub(super) fn forget(&mut self, seed: u64) {
        *self = Self { next_count: self.next_count, seed, ..Self::default() };
    }

    /// What stands for the record of an encoded key.
    fn record_of(&self, encoded: &[u8]) -> u64 {
        xxh3_64_with_seed(key::record_part(encoded), self.seed)
    }

    /// Begins to count a record; returns the count's number.
    fn begin_count(&mut self, record: u64) -> u64 {
        let number = self.next_count;
        self.next_count += 1;
        self.counting.insert(number, Count { record, grown: 0, may_be_less: false });
        number
    }

    /// `counted` bytes were found, beside what was written meanwhile; nothing, if that failed.
    fn end_count(&mut self, number: u64, counted: Option<u64>, now: u64) {
        let count = self.counting.remove(&number);
        if let (Some(Count { record, grown, may_be_less }), Some(bytes)) = (count, counted) {
            self.old.remove(&record);
            let bytes = bytes + grown;
            self.put(record, Sum { bytes, may_be_less, counted_at: now, count: number });
        }
    }
}

/// What an item with this encoded key adds to its record, in bytes.
fn bytes_of(encoded: &[u8], value_len: usize) -> u64 {
    (encoded.len() - key::record_part(encoded).len() + value_len) as u64
}

/// What an operation knows of the records that it changes. It has its turns on its items, so nobody
/// else changes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    times: usize,
    /// By encoded key, what an item has, in bytes of its record.
    items: BTreeMap<Vec<u8>, Replaced>,
}

impl Counted {
    /// What the item of an encoded key has, if that was found out.
    pub(super) fn of(&self, encoded: &[u8]) -> Option<Replaced> {
        self.items.get(encoded).copied()
    }

    /// Time has passed: the items may have gone by themselves, or with a range.
    pub(super) fn forget_items(&mut self) {
        self.items.clear();
    }
}

impl<E: Env> Shard<E> {
    /// Whether the records of these items may have values of these lengths in their place; `None`
    /// stands for an item that goes.
    ///
    /// # Errors
    ///
    /// [`NotApplied::Uncounted`] if a record has to be counted first, or what is replaced looked
    /// up.
    pub(super) fn check_records<'a>(
        &self,
        state: &mut State,
        namespace: u32,
        items: impl Iterator<Item = (Addressed<'a>, Option<usize>)> + Clone,
    ) -> Result<(), NotApplied> {
        let Some(max) = state.namespaces.record_bytes_max(namespace) else { return Ok(()) };
        let now = self.env.now();
        let records = &mut state.namespaces.records;
        let mut changes: BTreeMap<u64, (u64, u64, bool)> = BTreeMap::new();
        for (Addressed { key, replaces, .. }, value_len) in items.clone() {
            let record = records.record_of(key);
            let replaced = records.still_in_sum(record, replaces);
            let (more, less, is_counted) = changes.entry(record).or_insert((0, 0, true));
            *more += value_len.map_or(0, |len| bytes_of(key, len));
            *less += replaced.unwrap_or(0);
            *is_counted &= replaced.is_some();
        }
        for (record, (more, less, is_counted)) in changes {
            let more = more.saturating_sub(less);
            let room =
                if more == 0 { Room::Enough } else { records.room(record, more, (max, now)) };
            let all = match (room, is_counted) {
                (Room::Enough, _) => continue,
                (Room::TooLittle, true) => {
                    return Err(NotApplied::Failed(EngineError::RecordFull(namespace)));
                }
                // Beside what it replaces there may be enough.
                (Room::TooLittle | Room::TooLittleBefore, false) => false,
                (Room::TooLittleBefore, true) | (Room::Unknown, _) => true,
            };
            let keys = items.map(|(addressed, _)| addressed.key);
            let keys = keys.filter(|key| records.record_of(key) == record);
            let keys = keys.map(<[u8]>::to_vec).collect();
            return Err(NotApplied::Uncounted(ToCount { keys, all }));
        }
        Ok(())
    }

    /// Finds out how much a record has, if that is asked for, and what of it the items have. What
    /// others write to the record meanwhile is added.
    ///
    /// # Errors
    ///
    /// [`EngineError::RecordChanging`] if that was done often for this operation: others change the
    /// record all the time, in ways that are not known.
    pub(super) async fn count_record(
        &self,
        to_count: &ToCount,
        counted: &mut Counted,
    ) -> Result<(), EngineError> {
        let ToCount { keys, all } = to_count;
        let Some(first) = keys.first() else { return Ok(()) };
        let (count, found): (u64, Vec<(Vec<u8>, u64)>) = if *all {
            counted.times += 1;
            if counted.times > COUNTS_MAX {
                let namespaces = &self.state.borrow().namespaces;
                let namespace = namespaces.number_of(generation_of(first));
                return Err(EngineError::RecordChanging(namespace));
            }
            let number = self.begin_count(first);
            let mut counting = Counting { shard: self, number, found: None };
            let (bytes, found) = self.bytes_in_record(keys).await?;
            counting.found = Some(bytes);
            (number, found.into_iter().collect())
        } else {
            // As of now: a count that ends while items are looked up may not meet them any more.
            let Some(count) = self.count_of(first) else { return Ok(()) };
            (count, self.bytes_of_items(keys).await?)
        };
        let known = found.into_iter().map(|(key, bytes)| (key, Replaced { bytes, count }));
        counted.items.extend(known);
        Ok(())
    }

    /// The number of the count that the sum of an encoded key's record goes back to.
    fn count_of(&self, encoded: &[u8]) -> Option<u64> {
        let records = &mut self.state.borrow_mut().namespaces.records;
        let record = records.record_of(encoded);
        records.count_of(record)
    }

    #[cfg(test)]
    pub(super) fn record_counts(&self) -> u64 {
        self.state.borrow().namespaces.records.next_count
    }

    fn begin_count(&self, encoded: &[u8]) -> u64 {
        let records = &mut self.state.borrow_mut().namespaces.records;
        let record = records.record_of(encoded);
        records.begin_count(record)
    }

    /// What each of these items has, by look-ups.
    async fn bytes_of_items(&self, keys: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, u64)>, EngineError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let now = self.unix_now();
            let located = self.locate(key, key_hash(key), now, false).await?;
            let is_there = located.current(now).is_some();
            let bytes = if is_there { bytes_of(key, located.shown_len()) } else { 0 };
            found.push((key.clone(), bytes));
            self.env.yield_if_needed().await;
        }
        Ok(found)
    }

    /// What a record has, and what of it each of these items.
    async fn bytes_in_record(
        &self,
        keys: &[Vec<u8>],
    ) -> Result<(u64, BTreeMap<Vec<u8>, u64>), EngineError> {
        let decoded = key::decode(&keys[0]).expect("it was encoded");
        let part = key::record_part(&keys[0]).len();
        let mut scan = Scan::of_record(decoded.namespace, &decoded.record);
        scan.keys_only = true;
        let mut bytes = 0;
        let mut found: BTreeMap<Vec<u8>, u64> = keys.iter().map(|key| (key.clone(), 0)).collect();
        let wanted: BTreeMap<&[u8], &Vec<u8>> =
            keys.iter().map(|key| (&key[part..], key)).collect();
        loop {
            let page = self.scan_now(&scan).await?;
            for item in &page.items {
                let of_item = (item.item.len() + item.value_len) as u64;
                bytes += of_item;
                if let Some(&key) = wanted.get(item.item.as_slice()) {
                    found.insert(key.clone(), of_item);
                }
            }
            self.env.yield_if_needed().await;
            match page.next {
                Some(place) => scan = scan.after(&place),
                None => return Ok((bytes, found)),
            }
        }
    }
}

/// A count that was begun; it ends with this, also where nobody waits for it any more.
struct Counting<'a, E: Env> {
    shard: &'a Shard<E>,
    number: u64,
    found: Option<u64>,
}

impl<E: Env> Drop for Counting<'_, E> {
    fn drop(&mut self) {
        // A sum is as old as its end: what has expired since the count began is no more than what
        // expires while the sum is believed. A long count would else be too old when it ends.
        let now = self.shard.env.now();
        let mut state = self.shard.state.borrow_mut();
        state.namespaces.records.end_count(self.number, self.found, now);
    }
}

impl super::Namespaces {
    /// Notes that the item with this encoded key was written, or removed where there is no length,
    /// if its record is limited.
    #[inline]
    pub(super) fn note_of_record(
        &mut self,
        encoded: &[u8],
        value_len: Option<usize>,
        replaced: Option<Replaced>,
    ) {
        if self.record_bytes_max(generation_of(encoded)).is_some() {
            let record = self.records.record_of(encoded);
            let bytes = value_len.map_or(0, |len| bytes_of(encoded, len));
            self.records.note(record, bytes, replaced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: (u64, u64) = (100, 0);

    fn counted(bytes: u64) -> RecordSums {
        let mut sums = RecordSums::default();
        let number = sums.begin_count(1);
        sums.end_count(number, Some(bytes), 0);
        sums
    }

    #[test]
    fn a_record_is_counted_before_it_is_refused() {
        assert_eq!(RecordSums::default().room(1, 1, AT), Room::Unknown);
        let mut sums = counted(90);
        assert_eq!((sums.room(1, 10, AT), sums.room(1, 11, AT)), (Room::Enough, Room::TooLittle));
        sums.note(1, 10, None);
        assert_eq!(sums.room(1, 1, AT), Room::Unknown, "it may have replaced something");
        let mut sums = counted(90);
        sums.note_removals();
        assert_eq!(sums.room(1, 11, AT), Room::Unknown);
        let mut sums = counted(90);
        assert_eq!(sums.room(1, 11, (100, BELIEVED_NANOSECONDS + 1)), Room::TooLittleBefore);
    }

    #[test]
    fn what_is_written_while_a_record_is_counted_is_added() {
        let mut sums = RecordSums::default();
        let first = sums.begin_count(1);
        sums.note(1, 7, None);
        sums.note(2, 1000, None);
        let second = sums.begin_count(1);
        sums.note(1, 2, None);
        sums.end_count(second, Some(50), 0);
        assert_eq!((sums.room(1, 48, AT), sums.room(1, 49, AT)), (Room::Enough, Room::Unknown));
        sums.end_count(first, Some(43), 0);
        assert_eq!(sums.room(1, 48, AT), Room::Enough, "each has what was written since it began");
        assert_eq!(sums.room(1, 49, AT), Room::Unknown);
        let failed = sums.begin_count(1);
        sums.end_count(failed, None, 0);
        assert_eq!(sums.room(1, 48, AT), Room::Enough, "a count that failed changes nothing");
        assert!(sums.counting.is_empty());
        let begun = sums.begin_count(1);
        sums.forget(1);
        sums.end_count(begun, Some(1), 0);
        assert_eq!(sums.room(1, 1, AT), Room::Unknown, "it was written to unseen");
    }

    #[test]
    fn a_sum_stays_exact_where_what_is_replaced_is_known() {
        let mut sums = counted(90);
        let replaced = |sums: &mut RecordSums, bytes| {
            Some(Replaced { bytes, count: sums.count_of(1).expect("it was counted") })
        };
        let known = replaced(&mut sums, 30);
        sums.note(1, 40, known);
        assert_eq!((sums.room(1, 0, AT), sums.room(1, 1, AT)), (Room::Enough, Room::TooLittle));
        // It was found out before a count that may not have met it any more.
        let begun = sums.begin_count(1);
        sums.end_count(begun, Some(60), 0);
        sums.note(1, 40, known);
        assert_eq!(sums.room(1, 1, AT), Room::Unknown);
        // What changes no length while it is counted keeps the count exact.
        let begun = sums.begin_count(1);
        let known = replaced(&mut sums, 30);
        sums.note(1, 30, known);
        sums.end_count(begun, Some(95), 0);
        assert_eq!((sums.room(1, 5, AT), sums.room(1, 6, AT)), (Room::Enough, Room::TooLittle));
        let begun = sums.begin_count(1);
        let known = replaced(&mut sums, 30);
        sums.note(1, 33, known);
        sums.end_count(begun, Some(95), 0);
        assert_eq!((sums.room(1, 2, AT), sums.room(1, 3, AT)), (Room::Enough, Room::Unknown));
    }

    #[test]
    fn a_sum_stays_exact_while_other_records_are_counted() {
        let mut sums = counted(90);
        let known = Some(Replaced { bytes: 30, count: sums.count_of(1).expect("it was counted") });
        let other = sums.begin_count(2);
        sums.end_count(other, Some(5), 0);
        sums.note(1, 40, known);
        assert_eq!((sums.room(1, 0, AT), sums.room(1, 1, AT)), (Room::Enough, Room::TooLittle));
        let of_other =
            Some(Replaced { bytes: 5, count: sums.count_of(2).expect("it was counted") });
        sums.note(1, 1, of_other);
        assert_eq!(sums.room(1, 0, AT), Room::Unknown, "that is of another record");
    }

    #[test]
    fn the_sums_of_few_records_are_kept() {
        let mut sums = RecordSums::default();
        for record in 0..10 * HALF_RECORDS_MAX as u64 {
            let number = sums.begin_count(record);
            sums.end_count(number, Some(1), 0);
            assert_eq!(sums.room(0, 1, AT), Room::Enough, "it is used again and again");
        }
        assert!(sums.young.len() <= HALF_RECORDS_MAX && sums.old.len() <= HALF_RECORDS_MAX);
    }
}
