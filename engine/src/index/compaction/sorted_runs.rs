//! Groups tables into sorted runs: sequences of which at most one table can hold a key.

use std::rc::Rc;

use larder_runtime::env::Env;

use crate::index::table::{Table, TableMeta};

/// Something that covers keys from a first to a last one, both included.
pub trait KeyRange {
    /// The first key, encoded.
    fn smallest(&self) -> &[u8];

    /// The last key, encoded.
    fn largest(&self) -> &[u8];

    /// Whether some key may be in both.
    fn overlaps(&self, other: &impl KeyRange) -> bool {
        self.smallest() <= other.largest() && other.smallest() <= self.largest()
    }
}

impl KeyRange for TableMeta {
    fn smallest(&self) -> &[u8] {
        &self.smallest
    }

    fn largest(&self) -> &[u8] {
        &self.largest
    }
}

impl<E: Env> KeyRange for Table<E> {
    fn smallest(&self) -> &[u8] {
        &self.meta().smallest
    }

    fn largest(&self) -> &[u8] {
        &self.meta().largest
    }
}

impl<T: KeyRange> KeyRange for Rc<T> {
    fn smallest(&self) -> &[u8] {
        (**self).smallest()
    }

    fn largest(&self) -> &[u8] {
        (**self).largest()
    }
}

impl<T: KeyRange> KeyRange for &T {
    fn smallest(&self) -> &[u8] {
        (**self).smallest()
    }

    fn largest(&self) -> &[u8] {
        (**self).largest()
    }
}

/// Groups tables, given newest first, into runs, newest first: neighbours that do not overlap
/// share one, sorted by key. A table of an earlier run is newer than one of a later run wherever
/// they overlap.
pub fn sorted_runs<T: KeyRange>(newest_first: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let mut runs: Vec<Vec<T>> = Vec::new();
    for table in newest_first {
        if let Some(run) = runs.last_mut() {
            let place = run.partition_point(|other| other.largest() < table.smallest());
            if run.get(place).is_none_or(|next| table.largest() < next.smallest()) {
                run.insert(place, table);
                continue;
            }
        }
        runs.push(vec![table]);
    }
    runs
}
