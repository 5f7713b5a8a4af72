//! What a flush or a merge changes of the segments' live bytes.

use std::collections::BTreeMap;

use super::table::Pointed;
use crate::entry::Entry;

/// Changes of the live bytes of segments.
#[derive(Default)]
pub(super) struct LiveBytes(BTreeMap<u32, i64>);

impl LiveBytes {
    /// Counts the log record that `entry` points to, if it points to one.
    pub(super) fn add(&mut self, entry: &Entry<'_>, sign: i64) {
        if let Some(pointer) = entry.pointer() {
            *self.0.entry(pointer.segment).or_default() += sign * i64::from(pointer.len);
        }
    }

    /// Takes a table's share back.
    pub(super) fn take(&mut self, share: &Pointed) {
        for (segment, bytes) in share.iter() {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            *self.0.entry(segment).or_default() -= bytes;
        }
    }

    /// The changes as an edit lists them.
    pub(super) fn into_edit(self) -> Vec<(u32, i64)> {
        self.0.into_iter().filter(|(_, delta)| *delta != 0).collect()
    }
}
