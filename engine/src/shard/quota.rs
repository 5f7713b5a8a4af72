//! How much a namespace may take of the shard's disk.
//!
//! What a namespace takes is what its tables have and point to, and what was written of it since
//! they were made; after a start, what the log still has alone counts for nothing until it is
//! flushed. Both count what was overwritten or deleted until it is merged away, as the disk does.
//! So where a namespace comes near its quota, the memtable is written out early, once a second at
//! most: a namespace whose items are overwritten again and again is not refused for long for what
//! is no more, and one whose items are deleted gets room again. Nobody waits for that: other
//! namespaces use the same memtable.

use std::collections::BTreeMap;

use larder_runtime::env::Env;

use super::admission::NotApplied;
use super::{Shard, State};
use crate::error::EngineError;
use crate::generations::generation_of;

/// A memtable is written out early only if it has at least this part of the quota of a namespace.
const FLUSHED_PART: u64 = 16;

/// At least so long is between two flushes that are early, in nanoseconds.
const EARLY_NANOSECONDS_MIN: u64 = 1_000_000_000;

/// What a namespace takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    /// Log records of the active memtable, and of the frozen one.
    active: u64,
    frozen: u64,
    /// Tables with what they point to, as they were after so many changes of tables.
    flushed: u64,
    table_changes: Option<u64>,
    /// Whether the active memtable has tombstones.
    has_removed: bool,
}

/// What was written of the namespaces that have a quota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quotas {
    used: BTreeMap<u32, Used>,
    /// Before then no memtable is written out early, on the shard's clock.
    early_from: u64,
}

impl Quotas {
    /// Keeps count of the namespaces with these living generations alone.
    pub(super) fn keep(&mut self, namespaces: impl Iterator<Item = u32>) {
        let before = std::mem::take(&mut self.used);
        let known = |namespace| before.get(&namespace).copied().unwrap_or_default();
        self.used = namespaces.map(|namespace| (namespace, known(namespace))).collect();
    }

    /// A namespace has another generation, which has nothing yet.
    pub(super) fn begin_anew(&mut self, before: u32, generation: u32) {
        if self.used.remove(&before).is_some() {
            self.used.insert(generation, Used::default());
        }
    }

    /// Bytes were appended for a key, perhaps to remove it.
    #[inline]
    pub(super) fn note(&mut self, key: &[u8], bytes: u32, is_removal: bool) {
        if self.used.is_empty() {
            return;
        }
        if let Some(used) = self.used.get_mut(&generation_of(key)) {
            used.active += u64::from(bytes);
            used.has_removed |= is_removal;
        }
    }

    /// The memtable is being written out, and a new one begins.
    pub(super) fn froze(&mut self) {
        for used in self.used.values_mut() {
            used.frozen += std::mem::take(&mut used.active);
            used.has_removed = false;
        }
    }

    /// It is written out.
    pub(super) fn flushed(&mut self) {
        self.used.values_mut().for_each(|used| used.frozen = 0);
    }

    /// What a generation takes where tables have changed so often; `look` adds its tables up.
    fn of(&mut self, generation: u32, table_changes: u64, look: impl FnOnce() -> u64) -> Used {
        let used = self.used.entry(generation).or_default();
        if used.table_changes != Some(table_changes) {
            (used.flushed, used.table_changes) = (look(), Some(table_changes));
        }
        *used
    }
}

impl<E: Env> Shard<E> {
    /// Whether the namespace of this encoded key may take so many bytes more.
    pub(super) fn check_quota(
        &self,
        state: &mut State,
        key: &[u8],
        bytes: usize,
    ) -> Result<(), NotApplied> {
        let generation = generation_of(key);
        let Some(bytes_max) = state.namespaces.bytes_max(generation) else { return Ok(()) };
        let namespace = state.namespaces.number_of(generation);
        let look = || self.index.bytes_of(generation);
        let table_changes = self.index.table_changes();
        let used = state.namespaces.quotas.of(generation, table_changes, look);
        let Used { active, frozen, flushed, .. } = used;
        // Chunks are items of another namespace, and count here.
        let large = state.uploads.bytes_of(namespace);
        let total = flushed + active + frozen + large + bytes as u64;
        let is_near = total > bytes_max - bytes_max / 4 && active > bytes_max / FLUSHED_PART;
        if is_near || (total > bytes_max && used.has_removed) {
            self.freeze_early(state);
        }
        if total <= bytes_max {
            return Ok(());
        }
        Err(NotApplied::Failed(EngineError::OverQuota(namespace)))
    }

    /// Has the memtable written out, if that was not done a moment ago.
    fn freeze_early(&self, state: &mut State) {
        let now = self.env.now();
        if self.index.has_frozen() || now < state.namespaces.quotas.early_from {
            return;
        }
        state.namespaces.quotas.early_from = now + EARLY_NANOSECONDS_MIN;
        self.freeze(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn what_is_written_counts_until_it_is_flushed() {
        let key = |namespace| Key { namespace, record: b"r", item: b"" }.encode();
        let mut quotas = Quotas::default();
        let written = |quotas: &Quotas, namespace| {
            let used = quotas.used.get(&namespace).copied().unwrap_or_default();
            (used.active, used.frozen)
        };
        quotas.note(&key(3), 10, false);
        assert_eq!(quotas, Quotas::default(), "nobody asked for it");
        quotas.keep([3, 4].into_iter());
        quotas.note(&key(3), 10, false);
        quotas.note(&key(5), 10, false);
        assert_eq!(written(&quotas, 3), (10, 0));
        quotas.froze();
        quotas.note(&key(3), 1, false);
        assert_eq!(written(&quotas, 3), (1, 10));
        quotas.flushed();
        assert_eq!(written(&quotas, 3), (1, 0));
        quotas.keep([3].into_iter());
        assert_eq!(written(&quotas, 3), (1, 0));
        quotas.keep([4].into_iter());
        assert_eq!((written(&quotas, 3), written(&quotas, 4)), Default::default());
    }

    #[test]
    fn tables_are_added_up_when_they_have_changed() {
        let mut quotas = Quotas::default();
        quotas.keep([3].into_iter());
        assert_eq!(quotas.of(3, 7, || 100).flushed, 100);
        assert_eq!(quotas.of(3, 7, || panic!("nothing has changed")).flushed, 100);
        assert_eq!(quotas.of(3, 8, || 90).flushed, 90);
    }
}
