//! How much a record may have in namespaces that limit it.
//!
//! Writes are blind, so nothing knows how much a record has. For records of such namespaces it is
//! counted once, and what is written is added from then on: the sum is never too low. Where it
//! passes the limit and something may have gone since, the record is counted anew before a change
//! is refused. The sums of the records that were written last are kept; others are counted again.

use std::collections::{BTreeMap, HashMap};

use larder_runtime::env::Env;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::admission::NotApplied;
use super::execute::Addressed;
use super::{Shard, State};
use crate::error::EngineError;
use crate::generations::generation_of;
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
}

/// Whether a record has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    TooLittle,
    /// It has to be counted.
    Unknown,
}

/// Sums of records, by the hash of their encoded keys without the item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordSums {
    young: HashMap<u64, Sum>,
    old: HashMap<u64, Sum>,
    /// Counts under way, by number: the record, and what was written of it since, in bytes.
    counting: BTreeMap<u64, (u64, u64)>,
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
        if sum.may_be_less || is_old { Room::Unknown } else { Room::TooLittle }
    }

    /// An item of a record was written, or removed.
    fn note(&mut self, record: u64, bytes: u64) {
        for counting in self.counting.values_mut().filter(|counting| counting.0 == record) {
            counting.1 += bytes;
        }
        if let Some(sum) = self.get_mut(record) {
            sum.bytes += bytes;
            sum.may_be_less = true;
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
        let next_count = self.next_count;
        *self = Self { next_count, seed, ..Self::default() };
    }

    /// What stands for the record of an encoded key.
    fn record_of(&self, encoded: &[u8]) -> u64 {
        xxh3_64_with_seed(key::record_part(encoded), self.seed)
    }

    /// Begins to count a record; returns the count's number.
    fn begin_count(&mut self, record: u64) -> u64 {
        let number = self.next_count;
        self.next_count += 1;
        self.counting.insert(number, (record, 0));
        number
    }

    /// `counted` bytes were found, beside what was written meanwhile; nothing, if that failed.
    fn end_count(&mut self, number: u64, counted: Option<u64>, now: u64) {
        let counting = self.counting.remove(&number);
        if let (Some((record, written)), Some(bytes)) = (counting, counted) {
            let may_be_less = written > 0;
            self.old.remove(&record);
            self.put(record, Sum { bytes: bytes + written, may_be_less, counted_at: now });
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
    /// By encoded key, what an item had when its record was counted, in bytes of the record.
    items: BTreeMap<Vec<u8>, u64>,
}

impl Counted {
    /// What the item of an encoded key has, in bytes of its record, if that was counted.
    pub(super) fn of(&self, encoded: &[u8]) -> Option<u64> {
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
    /// [`NotApplied::Uncounted`] with the keys of a record that has to be counted first.
    pub(super) fn check_records<'a>(
        &self,
        state: &mut State,
        namespace: u32,
        items: impl Iterator<Item = (Addressed<'a>, Option<usize>)> + Clone,
    ) -> Result<(), NotApplied> {
        let Some(max) = state.namespaces.record_bytes_max(namespace) else { return Ok(()) };
        let now = self.env.now();
        let mut changes: BTreeMap<u64, (u64, u64, bool)> = BTreeMap::new();
        for (Addressed { key, replaces, .. }, value_len) in items.clone() {
            let (more, less, is_counted) =
                changes.entry(state.namespaces.records.record_of(key)).or_insert((0, 0, true));
            *more += value_len.map_or(0, |len| bytes_of(key, len));
            *less += replaces.unwrap_or(0);
            *is_counted &= replaces.is_some();
        }
        for (record, (more, less, is_counted)) in changes {
            let more = more.saturating_sub(less);
            let room = if more == 0 {
                Room::Enough
            } else {
                state.namespaces.records.room(record, more, (max, now))
            };
            match room {
                Room::Enough => {}
                Room::TooLittle if is_counted => {
                    return Err(NotApplied::Failed(EngineError::RecordFull(namespace)));
                }
                // Of what it replaces it may be that there is enough.
                Room::TooLittle | Room::Unknown => {
                    let keys = items.map(|(addressed, _)| addressed.key);
                    let keys = keys.filter(|key| state.namespaces.records.record_of(key) == record);
                    return Err(NotApplied::Uncounted(keys.map(<[u8]>::to_vec).collect()));
                }
            }
        }
        Ok(())
    }

    /// Counts how much the record of these encoded keys has, and what of it their items have. What
    /// others write to it meanwhile is added.
    ///
    /// # Errors
    ///
    /// [`EngineError::RecordFull`] if it was counted often for this operation: others add to it all
    /// the time.
    pub(super) async fn count_record(
        &self,
        keys: &[Vec<u8>],
        counted: &mut Counted,
    ) -> Result<(), EngineError> {
        let Some(first) = keys.first() else { return Ok(()) };
        counted.times += 1;
        if counted.times > COUNTS_MAX {
            let namespace = self.state.borrow().namespaces.number_of(generation_of(first));
            return Err(EngineError::RecordFull(namespace));
        }
        let number = self.begin_count(first);
        let mut counting = Counting { shard: self, number, found: None, now: self.env.now() };
        counting.found = Some(self.bytes_in_record(keys, counted).await?);
        Ok(())
    }

    fn begin_count(&self, encoded: &[u8]) -> u64 {
        let records = &mut self.state.borrow_mut().namespaces.records;
        let record = records.record_of(encoded);
        records.begin_count(record)
    }

    async fn bytes_in_record(
        &self,
        keys: &[Vec<u8>],
        counted: &mut Counted,
    ) -> Result<u64, EngineError> {
        let decoded = key::decode(&keys[0]).expect("it was encoded");
        let part = key::record_part(&keys[0]).len();
        let mut scan = Scan::of_record(decoded.namespace, &decoded.record);
        scan.keys_only = true;
        let mut bytes = 0;
        counted.items.extend(keys.iter().map(|key| (key.clone(), 0)));
        let wanted: BTreeMap<&[u8], &Vec<u8>> =
            keys.iter().map(|key| (&key[part..], key)).collect();
        loop {
            let page = self.scan_now(&scan).await?;
            for item in &page.items {
                let of_item = (item.item.len() + item.value_len) as u64;
                bytes += of_item;
                if let Some(&key) = wanted.get(item.item.as_slice()) {
                    counted.items.insert(key.clone(), of_item);
                }
            }
            self.env.yield_if_needed().await;
            match page.next {
                Some(place) => scan = scan.after(&place),
                None => return Ok(bytes),
            }
        }
    }
}

/// A count that was begun; it ends with this, also where nobody waits for it any more.
struct Counting<'a, E: Env> {
    shard: &'a Shard<E>,
    number: u64,
    found: Option<u64>,
    now: u64,
}

impl<E: Env> Drop for Counting<'_, E> {
    fn drop(&mut self) {
        let mut state = self.shard.state.borrow_mut();
        state.namespaces.records.end_count(self.number, self.found, self.now);
    }
}

impl super::Namespaces {
    /// Notes that the item with this encoded key was written, or removed, if its record is limited.
    #[inline]
    pub(super) fn note_of_record(&mut self, encoded: &[u8], value_len: usize) {
        if self.record_bytes_max(generation_of(encoded)).is_some() {
            let record = self.records.record_of(encoded);
            self.records.note(record, bytes_of(encoded, value_len));
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
        sums.note(1, 10);
        assert_eq!(sums.room(1, 1, AT), Room::Unknown, "it may have replaced something");
        let mut sums = counted(90);
        sums.note_removals();
        assert_eq!(sums.room(1, 11, AT), Room::Unknown);
        let mut sums = counted(90);
        assert_eq!(sums.room(1, 11, (100, BELIEVED_NANOSECONDS + 1)), Room::Unknown);
    }

    #[test]
    fn what_is_written_while_a_record_is_counted_is_added() {
        let mut sums = RecordSums::default();
        let first = sums.begin_count(1);
        sums.note(1, 7);
        sums.note(2, 1000);
        let second = sums.begin_count(1);
        sums.note(1, 2);
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
