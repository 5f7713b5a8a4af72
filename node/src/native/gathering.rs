//! Replies that several reads make together: their parts come from shards of any core, in any
//! order.
//!
//! What of it is there lies in one buffer, entry by entry as they came; who brings the last of them
//! writes the reply. All such buffers of a connection together have a bound. What has no room has
//! an entry that says so, and is asked for again.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use larder_protocol::native::reply::{self, NativeItem, ReplyHead};
use larder_protocol::native::{MULTI_ENTRY_BYTES, NativeStatus, not_found, put_found};

use crate::canary::{self, NodeDefect};
use crate::limits::{CONNECTION_WAITING_BYTES_MAX, PAGE_BYTES_MAX};

/// Bytes that the unfinished replies of a connection hold.
pub(super) type Held = Rc<Cell<usize>>;

/// A reply of which parts are missing.
#[derive(Debug)]
pub(super) struct Gathering {
    head: ReplyHead,
    /// Where the entries are, by their places in the reply. Empty while they have not come.
    entries: Vec<Range<usize>>,
    /// The entries in the order in which they came.
    bytes: Vec<u8>,
    /// Bytes of the values among them.
    item_bytes: usize,
    missing: usize,
    /// What of `held` is this one's.
    charged: usize,
    held: Held,
}

/// Bytes that each part takes before it has come.
const PART_BYTES: usize = size_of::<Range<usize>>() + MULTI_ENTRY_BYTES;

impl Gathering {
    /// Of so many parts, of which there is none.
    pub(super) fn new(head: ReplyHead, parts: usize, held: &Held) -> Self {
        let mut gathering = Self {
            head,
            entries: vec![0..0; parts],
            bytes: Vec::with_capacity(parts * MULTI_ENTRY_BYTES),
            item_bytes: 0,
            missing: parts,
            charged: 0,
            held: Rc::clone(held),
        };
        gathering.charge(parts * PART_BYTES);
        gathering
    }

    fn charge(&mut self, bytes: usize) {
        self.charged += bytes;
        self.held.set(self.held.get() + bytes);
    }

    /// Whether an item of so many bytes has room. The first has it however long it is, as long as
    /// the connection holds little.
    fn has_room(&self, bytes: usize) -> bool {
        let is_held = self.held.get() >= CONNECTION_WAITING_BYTES_MAX;
        !is_held && (self.item_bytes == 0 || self.item_bytes + bytes <= PAGE_BYTES_MAX)
    }

    /// Whether no further item has room, so that none needs to be read.
    pub(super) fn is_full(&self) -> bool {
        !self.has_room(0) || self.item_bytes >= PAGE_BYTES_MAX
    }

    /// Whether there are values among what has come.
    pub(super) fn holds_values(&self) -> bool {
        self.item_bytes > 0
    }

    /// Puts the entry of a part: an item, or why there is none.
    pub(super) fn put(&mut self, at: usize, found: Result<&NativeItem<'_>, NativeStatus>) {
        let start = self.bytes.len();
        match found {
            Ok(item) if self.has_room(item.value.len()) => {
                put_found(&mut self.bytes, item);
                self.item_bytes += item.value.len();
            }
            Ok(_) => self.bytes.extend_from_slice(&not_found(NativeStatus::Busy)),
            Err(status) => self.bytes.extend_from_slice(&not_found(status)),
        }
        let end = self.bytes.len();
        self.entries[at] = start..end;
        self.charge((end - start).saturating_sub(MULTI_ENTRY_BYTES));
    }

    /// Notes that the request went from one core to another.
    pub(super) fn note_hops(&mut self, hops: u8) {
        self.head.hops = self.head.hops.max(hops);
    }

    /// Lets the entry of a part leave, or says in its place that its shard has stopped. Appends the
    /// reply if it was the last.
    pub(super) fn pass(&mut self, at: usize, is_lost: bool, out: &mut Vec<u8>) {
        if is_lost {
            self.put(at, Err(NativeStatus::Stopped));
        }
        self.missing -= 1;
        if self.missing > 0 {
            return;
        }
        if canary::has(NodeDefect::LoseLastPart) && self.head.hops > 0 {
            let last = self.entries.len() - 1;
            self.put(last, Err(NativeStatus::Absent));
        }
        let is_in_order = self.entries.is_sorted_by_key(|entry| entry.start);
        let len: usize = self.entries.iter().map(ExactSizeIterator::len).sum();
        reply::put(out, self.head, NativeStatus::Ok, |out| {
            if is_in_order && len == self.bytes.len() {
                return out.extend_from_slice(&self.bytes);
            }
            out.reserve(len);
            for entry in &self.entries {
                out.extend_from_slice(&self.bytes[entry.clone()]);
            }
        });
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.held.set(self.held.get() - self.charged);
    }
}

/// A part of a reply that is gathered.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) of: Rc<RefCell<Gathering>>,
    pub(super) at: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_protocol::native::reply::NativeReply;

    /// Bytes of an item besides its value.
    const ITEM_BYTES: usize = 24;

    const HEAD: ReplyHead = ReplyHead { id: 7, opcode: 0x16, has_checksum: true, hops: 0 };

    fn item(value: &[u8]) -> NativeItem<'_> {
        let value_len = value.len() as u32;
        NativeItem { version: 1, client_flags: 2, expiry: 3, value_len, value }
    }

    /// What the entries of the reply are: a value's length, or a status.
    fn entries(out: &[u8], count: usize) -> Vec<Result<usize, NativeStatus>> {
        let (reply, len) = NativeReply::read(out, 16 << 20).expect("a reply");
        assert_eq!(len, out.len());
        let entries = reply.multi(count).expect("entries");
        let shown = |entry: &Result<NativeItem<'_>, Option<NativeStatus>>| match entry {
            Ok(item) => Ok(item.value.len()),
            Err(status) => Err(status.expect("a known status")),
        };
        entries.iter().map(shown).collect()
    }

    #[test]
    fn parts_in_any_order_make_a_reply_in_that_of_the_keys() {
        for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
            let held = Held::default();
            let mut gathering = Gathering::new(HEAD, 4, &held);
            let mut out = Vec::new();
            for at in order {
                assert!(out.is_empty());
                match at {
                    1 => gathering.put(at, Err(NativeStatus::Absent)),
                    _ => gathering.put(at, Ok(&item(&vec![b'v'; at]))),
                }
                gathering.note_hops(u8::from(at == 2));
                gathering.pass(at, at == 3, &mut out);
            }
            let expected = [Ok(0), Err(NativeStatus::Absent), Ok(2), Err(NativeStatus::Stopped)];
            assert_eq!(entries(&out, 4), expected);
            let (reply, _) = NativeReply::read(&out, 1 << 20).expect("a reply");
            assert_eq!(reply.head, ReplyHead { hops: 1, ..HEAD });
            let items = 3 * ITEM_BYTES + 5;
            let lost = "what is lost counts until all is gone";
            assert_eq!(held.get(), 4 * PART_BYTES + items, "{lost}");
            drop(gathering);
            assert_eq!(held.get(), 0);
        }
    }

    #[test]
    fn what_has_no_room_is_to_be_asked_for_again_and_the_first_has_it() {
        let held = Held::default();
        let long = vec![b'v'; PAGE_BYTES_MAX + 1];
        let mut gathering = Gathering::new(HEAD, 3, &held);
        let mut out = Vec::new();
        for at in 0..3 {
            assert_eq!(gathering.is_full(), at == 2);
            let value = if at == 1 { &long[..] } else { b"short" };
            gathering.put(at, Ok(&item(if at == 0 { b"" } else { value })));
            gathering.pass(at, false, &mut out);
        }
        let busy = Err(NativeStatus::Busy);
        assert_eq!(entries(&out, 3), [Ok(0), Ok(long.len()), busy]);
        let mut other = Gathering::new(HEAD, 1, &held);
        assert!(other.is_full(), "the connection holds too much already");
        drop(gathering);
        assert!(!other.is_full());
        other.put(0, Ok(&item(&long)));
        assert_eq!(held.get(), PART_BYTES + ITEM_BYTES + long.len());
    }
}
