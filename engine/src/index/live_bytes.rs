//! What a flush or a merge changes of the segments' live bytes.

use std::collections::BTreeMap;

use super::table::Pointed;
use crate::entry::Entry;
use crate::manifest::{NEVER_EXPIRES, SegmentPointers};

/// Changes of the live bytes of segments, and until when those live that came to be pointed to.
#[derive(Default)]
pub(super) struct LiveBytes {
    changes: BTreeMap<u32, i64>,
    pointers: BTreeMap<u32, SegmentPointers>,
}

impl LiveBytes {
    /// Counts the log record that `entry` points to, if it points to one.
    pub(super) fn add(&mut self, entry: &Entry<'_>, sign: i64) {
        if let Some(pointer) = entry.pointer() {
            *self.changes.entry(pointer.segment).or_default() += sign * i64::from(pointer.len);
        }
    }

    /// Notes that `entry` is new, and with it what the manifest keeps of pointers.
    pub(super) fn add_new(&mut self, entry: &Entry<'_>) {
        self.add(entry, 1);
        if let Some(pointer) = entry.pointer() {
            let expiry = match entry.metadata.expiry {
                0 => NEVER_EXPIRES,
                expiry => expiry,
            };
            let segment = pointer.segment;
            let noted = SegmentPointers { segment, expiry: 0, end: 0 };
            let noted = self.pointers.entry(segment).or_insert(noted);
            noted.expiry = noted.expiry.max(expiry);
            noted.end = noted.end.max(pointer.end());
        }
    }

    /// Takes a table's share back.
    pub(super) fn take(&mut self, share: &Pointed) {
        for (segment, bytes) in share.iter() {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            *self.changes.entry(segment).or_default() -= bytes;
        }
    }

    /// The changes as an edit lists them, and what is known of the new pointers.
    pub(super) fn into_edit(self) -> (Vec<(u32, i64)>, Vec<SegmentPointers>) {
        let changes = self.changes.into_iter().filter(|(_, delta)| *delta != 0).collect();
        (changes, self.pointers.into_values().collect())
    }
}
