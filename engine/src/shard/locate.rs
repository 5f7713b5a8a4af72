//! Finding the newest entry of a key: cache, memtables, then the tables from newest to oldest.

use larder_runtime::env::{Env, IoClass};

use super::namespaces::CachePolicy;
use super::{Shard, State};
use crate::entry::{Entry, Metadata, Payload, Pointer};
use crate::error::EngineError;
use crate::index::memtable::Found;
use crate::index::table::{EntryBuf, Resident};
use crate::large::LargeValue;
use crate::operation::Current;

/// Where a located item's value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// There is no item.
    #[default]
    Absent,
    /// In the index.
    Inline,
    /// In the log.
    Separate(Pointer, u32),
}

/// What was found of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Located {
    pub metadata: Metadata,
    pub place: Place,
    /// The value, if it is at hand.
    pub value: Option<Vec<u8>>,
    /// The log position that covers what was found; 0 if that is long durable.
    pub sequence_end: u64,
    pub last_access: Option<u32>,
    pub fetched: bool,
    pub from_cache: bool,
}

impl Located {
    /// Whether nothing has to be read to know the value.
    pub(super) fn has_value(&self) -> bool {
        self.value.is_some() || self.place == Place::Absent
    }

    pub(super) fn pointer(&self) -> Option<Pointer> {
        match self.place {
            Place::Separate(pointer, _) => Some(pointer),
            Place::Absent | Place::Inline => None,
        }
    }

    pub(super) fn value_len(&self) -> usize {
        match self.place {
            Place::Absent => 0,
            Place::Inline => self.value.as_ref().map_or(0, Vec::len),
            Place::Separate(_, len) => len as usize,
        }
    }

    /// How long the value is that is shown, in bytes: all of a large one.
    pub(super) fn shown_len(&self) -> usize {
        self.large().map_or_else(|| self.value_len(), |large| large.len as usize)
    }

    /// The large value that the item stands for, if it does.
    pub(super) fn large(&self) -> Option<LargeValue> {
        let descriptor = self.value.as_deref().filter(|_| self.metadata.is_large())?;
        LargeValue::decode(descriptor)
    }

    /// The item as operations see it: none if it has expired.
    pub(super) fn current(&self, now: u32) -> Option<Current<'_>> {
        if self.place == Place::Absent || self.metadata.is_expired(now) {
            return None;
        }
        let value = self.value.as_deref().unwrap_or_default();
        Some(Current { metadata: self.metadata, value })
    }

    /// What the tables know of a key.
    fn from_table(entry: Option<Entry<'_>>) -> Self {
        entry.map_or_else(Self::default, |entry| Self::from_entry(&entry, 0))
    }

    fn from_entry(entry: &Entry<'_>, sequence_end: u64) -> Self {
        let (place, value) = match entry.payload {
            Payload::Tombstone => (Place::Absent, None),
            Payload::Inline(value) => (Place::Inline, Some(value.to_vec())),
            Payload::Separate(pointer, len) => (Place::Separate(pointer, len), None),
        };
        Self { metadata: entry.metadata, place, value, sequence_end, ..Self::default() }
    }
}

impl<E: Env> Shard<E> {
    fn locate_in_memory(
        &self,
        state: &mut State,
        key: &[u8],
        hash: u64,
        now: u32,
    ) -> Option<Located> {
        let hit = state.items.access(hash, key, now, false);
        if let Some(hit) = hit.filter(|hit| !self.is_deleted_since(key, hit.item.sequence)) {
            let place = match hit.item.pointer {
                Some(pointer) => Place::Separate(pointer, hit.value.len() as u32),
                None => Place::Inline,
            };
            return Some(Located {
                metadata: hit.item.metadata,
                place,
                value: Some(hit.value.to_vec()),
                sequence_end: hit.item.sequence + 1,
                last_access: Some(hit.item.last_access),
                fetched: hit.item.fetched,
                from_cache: true,
            });
        }
        let located = |found: Found<'_>| Located::from_entry(&found.entry, found.sequence + 1);
        self.index.in_memtables(key, hash, located).map(|located| self.unless_gone(located))
    }

    /// Whether `key` was deleted with a range after this log sequence.
    #[inline]
    pub(super) fn is_deleted_since(&self, key: &[u8], sequence: u64) -> bool {
        self.index.deleted_at(key).is_some_and(|at| at > sequence)
    }

    /// An item that had expired when its segment was freed stays gone, even if the clock goes back.
    /// Any other is never freed while it lives: where its segment is missing, reading it says so.
    fn unless_gone(&self, located: Located) -> Located {
        let journal = self.journal.state();
        let had_expired =
            |pointer: Pointer| journal.had_expired(pointer.segment, located.metadata.expiry);
        if located.pointer().is_some_and(had_expired) { Located::default() } else { located }
    }

    /// The newest entry of `key` if memory says what it is; `None` if the device has to be asked.
    pub(super) fn locate_resident(
        &self,
        state: &mut State,
        key: &[u8],
        hash: u64,
        now: u32,
    ) -> Option<Located> {
        if let Some(located) = self.locate_in_memory(state, key, hash, now) {
            return Some(located);
        }
        match self.index.in_resident_tables(key, hash, Located::from_table) {
            Resident::Answer(located) => Some(self.unless_gone(located)),
            Resident::NeedsDevice => None,
        }
    }

    /// The newest entry of `key`, and its value if `want_value`, reading what it takes. The segment
    /// that it points into is there when the future resolves, and may be freed as soon as something
    /// else is waited for: who is going to read it pins it before.
    ///
    /// The caller holds the key's turn, so nothing changes the key meanwhile.
    pub(super) async fn locate(
        &self,
        key: &[u8],
        hash: u64,
        now: u32,
        want_value: bool,
    ) -> Result<Located, EngineError> {
        let mut located = self.locate_anywhere(key, hash, now).await?;
        if want_value && located.value.is_none() && !located.metadata.is_expired(now) {
            self.read_value(key, &mut located).await?;
        }
        Ok(located)
    }

    /// The newest entry of `key`, without its value if that is in the log.
    async fn locate_anywhere(
        &self,
        key: &[u8],
        hash: u64,
        now: u32,
    ) -> Result<Located, EngineError> {
        let mut gone = None;
        loop {
            let located = self.locate_in_memory(&mut self.state.borrow_mut(), key, hash, now);
            if let Some(located) = located {
                return Ok(located);
            }
            let table_changes = self.index.table_changes();
            let policy = self.state.borrow().namespaces.cache_policy(key);
            let found = match policy {
                CachePolicy::Bypass => self.index.in_tables_uncached(key, hash).await?,
                CachePolicy::Values | CachePolicy::KeysOnly => {
                    self.index.in_tables(key, hash, IoClass::Read).await?
                }
            };
            let located = Located::from_table(found.as_ref().map(EntryBuf::as_entry));
            // The segment may have been freed while tables were read, and the item moved out of it:
            // only a look-up that began after that tells whether it is gone. And what had expired
            // is remembered no longer than tables have entries of it: they must be those of now.
            let is_gone = |pointer: &Pointer| self.is_gone(pointer.segment);
            let pointer = located.pointer().filter(is_gone);
            if pointer.is_none() {
                return Ok(located);
            }
            if !self.state.borrow().namespaces.generations().has_key(key) {
                // Everything was cleared meanwhile, and nothing of it is moved any more.
                return Ok(Located::default());
            }
            if pointer == gone && self.index.table_changes() == table_changes {
                return Ok(self.unless_gone(located));
            }
            gone = pointer;
        }
    }
}
