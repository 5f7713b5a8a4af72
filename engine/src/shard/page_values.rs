//! The values of a page, in the order in which they lie on the device, neighbours with one request.
//!
//! Whoever goes through the index adds what it meets, and values are read meanwhile. They wait
//! until some have come together, so that neighbours meet; then the device always has several
//! requests to do, of bounded length in all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::task::Poll;

use larder_runtime::env::{DISK_ALIGNMENT, Env, IoClass};

use super::Shard;
use super::pins::SegmentPin;
use crate::concurrent::Lanes;
use crate::error::EngineError;
use crate::index::table::key_hash;
use crate::scan::PageItem;
use crate::value_log::WantedValue;

/// Requests under way at a time: what a device needs for all of its rate, 64, and as many again,
/// so that it has work while the core works on those that are done.
const READS_MAX: usize = 128;

/// After so many that are done the device gets its next requests: while the core works on all of
/// them it would run out of work.
const TURN_READS: usize = 16;

/// Bytes that they bring: as many as the page may have, and within these bounds, unless one value
/// alone has more. Requests that are that long in all reach a device's bandwidth with fewer of
/// them.
const READS_BYTES: RangeInclusive<usize> = SPAN_BYTES_MAX..=1 << 20;

/// Values are read together if no more than this lies between them: to read two blocks in vain
/// takes a device, and the core, less than another request.
const GAP_BYTES_MAX: usize = 2 * DISK_ALIGNMENT;

/// How long a request for several values is at most: what devices take without cutting it up.
const SPAN_BYTES_MAX: usize = 128 << 10;

/// So many values wait before reads begin, while more are to come: with less there would be few
/// neighbours among them, and with more the device would wait longer for the first.
const GATHERED_MIN: usize = 256;

/// Where a value lies, and whose it is: segment, offset, place in the page.
type ValuePlace = (u32, u32, usize);

/// What is known of a value of a page that was read, or could not be.
type FoundValue = (usize, Result<Vec<u8>, EngineError>);

/// A value that waits for its turn; its segment stays until it was read.
struct PinnedValue {
    wanted: WantedValue,
    pin: SegmentPin,
}

/// The values of a page that are not in memory.
pub(super) struct PageValues {
    waiting: BTreeMap<ValuePlace, PinnedValue>,
    /// What requests that are under way bring at most.
    bytes_max: usize,
    /// Where the reads have come.
    next: ValuePlace,
    is_complete: bool,
    found: Vec<FoundValue>,
}

/// Values that are read together.
struct Neighbours {
    items: Vec<usize>,
    wanted: Vec<WantedValue>,
    /// They lie in one segment.
    pin: SegmentPin,
    /// Bytes of the request.
    bytes: usize,
}

impl PageValues {
    /// The values of a page of so many bytes at most.
    pub(super) fn new(page_bytes_max: usize) -> Self {
        let bytes_max = page_bytes_max.clamp(*READS_BYTES.start(), *READS_BYTES.end());
        let (waiting, found) = (BTreeMap::new(), Vec::new());
        Self { waiting, bytes_max, next: (0, 0, 0), is_complete: false, found }
    }

    /// Adds the value of an item of the page, whose segment is pinned.
    pub(super) fn add(&mut self, item: usize, wanted: WantedValue, pin: SegmentPin) {
        let pointer = wanted.pointer;
        let place = (pointer.segment, pointer.offset, item);
        self.waiting.insert(place, PinnedValue { wanted, pin });
    }

    /// Those that are not being read yet need not be read.
    pub(super) fn abandon(&mut self) {
        self.waiting.clear();
    }

    /// No more are added.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }

    fn is_over(&self) -> bool {
        self.is_complete && self.waiting.is_empty()
    }

    /// The values that are read next, if it is time, while requests for so many bytes are under
    /// way.
    fn take(&mut self, under_way: usize) -> Option<Neighbours> {
        if !self.is_complete && self.waiting.len() < GATHERED_MIN {
            return None;
        }
        let from = |next: ValuePlace| self.waiting.range(next..).map(|(place, _)| *place).next();
        let first = from(self.next).or_else(|| from((0, 0, 0)))?;
        let (mut places, mut bounds) = (Vec::new(), (0, 0));
        for (&place, value) in self.waiting.range(first..) {
            let (start, end) = blocks_of(&value.wanted);
            if places.is_empty() {
                bounds = (start, end);
            } else if place.0 != first.0
                || start > bounds.1 + GAP_BYTES_MAX
                || end.max(bounds.1) - bounds.0 > SPAN_BYTES_MAX
            {
                break;
            }
            bounds.1 = end.max(bounds.1);
            places.push(place);
        }
        let bytes = bounds.1 - bounds.0;
        if under_way > 0 && under_way + bytes > self.bytes_max {
            return None;
        }
        let last = places.last()?;
        self.next = (last.0, last.1, last.2 + 1);
        let items = places.iter().map(|place| place.2).collect();
        let taken = places.iter().filter_map(|place| self.waiting.remove(place));
        let (wanted, pins): (_, Vec<_>) = taken.map(|value| (value.wanted, value.pin)).unzip();
        let pin = pins.into_iter().next()?;
        Some(Neighbours { items, wanted, pin, bytes })
    }

    /// Puts the values that were read in their places. Returns the items whose values cannot be
    /// read, in order.
    ///
    /// # Errors
    ///
    /// What is no matter of one value.
    pub(super) fn put_into(
        self,
        items: &mut [PageItem],
    ) -> Result<Vec<(usize, EngineError)>, EngineError> {
        let mut lost = Vec::new();
        for (item, value) in self.found {
            match value {
                Ok(value) => items[item].value = Some(value),
                Err(error @ (EngineError::Damaged { .. } | EngineError::Read(_))) => {
                    lost.push((item, error));
                }
                Err(error) => return Err(error),
            }
        }
        lost.sort_unstable_by_key(|(item, _)| *item);
        Ok(lost)
    }
}

/// Takes the items out whose values cannot be read.
pub(super) fn leave_out(items: &mut Vec<PageItem>, lost: &[(usize, EngineError)]) {
    let mut lost = lost.iter().map(|(item, _)| *item).peekable();
    let mut number = 0..;
    items.retain(|_| {
        let item = number.next();
        lost.next_if(|lost| Some(*lost) == item).is_none()
    });
}

/// Where the blocks of a value's record begin in the segment's file, and where they end.
fn blocks_of(wanted: &WantedValue) -> (usize, usize) {
    let (offset, len) = (wanted.pointer.offset as usize, wanted.pointer.len as usize);
    let start = offset - offset % DISK_ALIGNMENT;
    (start, (offset + len).next_multiple_of(DISK_ALIGNMENT))
}

impl<E: Env> Shard<E> {
    /// The value of `wanted` if the value cache has it.
    pub(super) fn cached_value(&self, wanted: &WantedValue) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        let cached = state.items.value_at(key_hash(&wanted.key), wanted.pointer);
        cached.filter(|(key, _)| *key == wanted.key).map(|(_, value)| value.to_vec())
    }

    /// Reads what is in `values`, and what is added to it by whoever this runs beside, until that
    /// is complete.
    pub(super) async fn read_values(&self, values: &RefCell<PageValues>) {
        let (mut lanes, mut under_way) = (Lanes::new(READS_MAX), 0);
        let read = |neighbours: Neighbours| async move {
            let found = self.log.read_together(&neighbours.wanted, IoClass::Scan).await;
            drop(neighbours.pin);
            self.release_files();
            (neighbours.bytes, neighbours.items, found)
        };
        poll_fn(|context| {
            let mut done = 0;
            loop {
                while lanes.has_room() {
                    let Some(neighbours) = values.borrow_mut().take(under_way) else { break };
                    under_way += neighbours.bytes;
                    lanes.begin(read(neighbours));
                }
                if done == TURN_READS {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match lanes.poll_next(context) {
                    Poll::Ready(Some((bytes, items, found))) => {
                        done += 1;
                        under_way -= bytes;
                        self.state.borrow_mut().operations.value_reads += items.len() as u64;
                        values.borrow_mut().found.extend(items.into_iter().zip(found));
                    }
                    Poll::Ready(None) if values.borrow().is_over() => return Poll::Ready(()),
                    // Whoever adds to it is polled with this.
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Pointer;
    use crate::shard::pins::Pins;

    fn value(segment: u32, offset: u32, len: u32) -> WantedValue {
        WantedValue { pointer: Pointer { segment, offset, len }, value_len: len, key: Vec::new() }
    }

    fn complete(values: impl IntoIterator<Item = WantedValue>) -> PageValues {
        let mut all = PageValues::new(usize::MAX);
        values.into_iter().enumerate().for_each(|(item, value)| add(&mut all, item, value));
        all.complete();
        all
    }

    fn add(values: &mut PageValues, item: usize, value: WantedValue) {
        let pin = Pins::default().segment(value.pointer.segment, 0);
        values.add(item, value, pin);
    }

    /// Items and bytes of all requests, one after the other.
    fn requests(mut values: PageValues) -> Vec<(Vec<usize>, usize)> {
        let next = || values.take(0).map(|neighbours| (neighbours.items, neighbours.bytes));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn neighbours_are_read_together_in_the_order_of_the_device() {
        let values = [
            value(2, 4096, 1000),
            value(1, 9000, 1000),
            value(1, 4096, 1000),
            value(1, 4096, 1000),
            // One gap that is read along, and one that is not.
            value(1, 12_288 + 8192, 4096),
            value(1, 24_576 + 8193 + 4095, 10),
        ];
        let expected = [(vec![2, 3, 1, 4], 20_480), (vec![5], 4096), (vec![0], 4096)];
        assert_eq!(requests(complete(values)), expected);
    }

    #[test]
    fn requests_have_a_bounded_length_unless_one_value_is_longer() {
        let side_by_side = (0..100).map(|number| value(1, number * 4096, 4096));
        let lengths: Vec<_> =
            requests(complete(side_by_side)).iter().map(|(items, _)| items.len()).collect();
        assert_eq!(lengths, [32, 32, 32, 4]);
        let long = complete([value(1, 0, 4096), value(1, 4096, 1 << 20)]);
        assert_eq!(requests(long), [(vec![0], 4096), (vec![1], 1 << 20)]);
    }

    #[test]
    fn few_bytes_are_under_way_and_one_value_always_may_be() {
        let mut values = complete([value(1, 0, 5 << 20), value(2, 0, 10)]);
        assert!(values.take(1).is_none());
        assert_eq!(values.take(0).map(|neighbours| neighbours.items), Some(vec![0]));
        assert!(values.take(5 << 20).is_none());
        assert!(values.take(READS_BYTES.end() - 4096).is_some());
        assert!(values.is_over());
    }

    #[test]
    fn values_wait_until_some_have_come_together_or_there_are_no_more() {
        let mut values = PageValues::new(usize::MAX);
        for number in 0..GATHERED_MIN as u32 {
            assert!(values.take(0).is_none(), "{number}");
            add(&mut values, number as usize, value(number, 0, 10));
        }
        assert_eq!(values.take(0).map(|neighbours| neighbours.items), Some(vec![0]));
        assert!(values.take(0).is_none() && !values.is_over());
        // What lies in front of those that were read comes after all that lie behind.
        add(&mut values, 0, value(0, 0, 10));
        assert_eq!(values.take(0).map(|neighbours| neighbours.items), Some(vec![1]));
        values.complete();
        assert_eq!(requests(values).last(), Some(&(vec![0], 4096)));
    }
}
