//! Changes as they are made: decided, appended to the log, put into memtable and cache.

use std::borrow::Cow;

use larder_runtime::env::Env;

use super::admission::NotApplied;
use super::answer::{AnswerBuf, shown_len};
use super::compression::Tried;
use super::locate::{Located, Place};
use super::namespaces::CachePolicy;
use super::record_limit::Replaced;
use super::{Shard, State};
use crate::cache::CachedItem;
use crate::canary::{self, Defect};
use crate::entry::{Entry, Metadata, Payload};
use crate::operation::{self, Context, Effect, Operation};
use crate::value_log::record::{Record, RecordKind};
use crate::value_log::{Append, Appended};

/// The item that an operation is about.
#[derive(Clone, Copy)]
pub(super) struct Addressed<'a> {
    pub(super) namespace: u32,
    /// The namespace that says whether the value is compressed.
    pub(super) compress_as: u32,
    /// The encoded key, of the namespace's living generation.
    pub(super) key: &'a [u8],
    pub(super) hash: u64,
    /// What the item has that is going to be replaced, if that was found out.
    pub(super) replaces: Option<Replaced>,
}

/// A change to one key, with what was known of it before.
pub(super) struct Change<'a> {
    pub(super) addressed: Addressed<'a>,
    pub(super) located: &'a Located,
    pub(super) now: u32,
}

impl<E: Env> Shard<E> {
    /// Decides and applies, with everything that has to be known at hand.
    pub(super) fn finish(
        &self,
        state: &mut State,
        addressed: Addressed<'_>,
        operation: &Operation<'_>,
        located: Located,
        now: u32,
        tried: &Tried,
    ) -> Result<(AnswerBuf, u64), NotApplied> {
        let Addressed { key, hash, .. } = addressed;
        let usual = self.options.value_bytes_max;
        let context = Context {
            version_next: self.log.sequence_next(),
            value_bytes_max: state.namespaces.value_bytes_max(key, usual),
        };
        let current = located.current(now);
        let decision = operation::decide(current, operation, context);
        // An item that a flush took away must not be reported missing before the flush is durable.
        let mut needs = located.sequence_end.max(state.namespaces.flushed_end());
        if !matches!(decision.effect, Effect::None) {
            let change = Change { addressed, located: &located, now };
            needs = needs.max(self.apply(state, &change, &decision.effect, tried)?);
            if let (Operation::Read(read), Effect::Remark(metadata)) = (operation, &decision.effect)
                && !read.quiet
            {
                state.note_fetched(&change, *metadata, needs);
            }
        } else if let Operation::Read(read) = operation {
            self.cache_located(state, key, hash, &located, now, read.quiet);
        }
        Ok((AnswerBuf::new(operation, &decision, located, now), needs))
    }

    /// Makes a change: log, memtable, cache. Returns the log position that covers it.
    fn apply(
        &self,
        state: &mut State,
        change: &Change<'_>,
        effect: &Effect<'_>,
        tried: &Tried,
    ) -> Result<u64, NotApplied> {
        let Addressed { namespace, compress_as, key, .. } = change.addressed;
        let removes = matches!(effect, Effect::Remove);
        self.check_namespace(state, key)?;
        self.check_space(state, removes)?;
        let (kind, metadata, payload) = self.describe(change, effect)?;
        if matches!(effect, Effect::Put(..)) {
            self.check_quota(state, key, payload.len())?;
            let len = shown_len(&metadata, &payload);
            let put = std::iter::once((change.addressed, Some(len)));
            self.check_records(state, namespace, put)?;
        }
        // A change that has to wait comes here again and again: no more than needed is done for it.
        let stored_len = tried.compressed().map_or(payload.len(), |it| it.record_bytes());
        let made = self.log.make_room(key.len(), stored_len);
        made.map_err(|refused| self.not_applied(state, removes, refused))?;
        let compressed = match kind {
            RecordKind::Put => self.compressed(compress_as, &payload, tried)?,
            _ => None,
        };
        let append = Append::new((kind, metadata), key, &payload, compressed.as_deref());
        let appended = self.log.append(&append);
        let appended = appended.map_err(|refused| self.not_applied(state, removes, refused))?;
        let is_replaced = !matches!(effect, Effect::Remark(_));
        self.make_known(state, change, (&append.record, &payload), (appended, is_replaced));
        if self.is_flush_due() {
            self.freeze(state);
        }
        Ok(appended.sequence + 1)
    }

    /// Makes a change that was appended known to memtable and cache, which gets the value as it was
    /// before it was compressed. `is_replaced` says whether the value that was there before, if
    /// any, is no more.
    pub(super) fn make_known(
        &self,
        state: &mut State,
        change: &Change<'_>,
        (record, value): (&Record<'_>, &[u8]),
        (appended, is_replaced): (Appended, bool),
    ) {
        let Addressed { compress_as, key, hash, replaces, .. } = change.addressed;
        let entry = self.entry_of(record, change.located, appended.pointer);
        let replaced = self.index.insert(key, hash, &entry, appended.sequence);
        if is_replaced || canary::has(Defect::MarkTheLiving) {
            let cached = state.items.place_of(hash, key);
            self.garbage.mark_dead([replaced, cached, change.located.pointer()]);
        }
        if entry.pointer() == Some(appended.pointer) {
            self.garbage.note_record(appended.pointer, hash, entry.metadata.expiry);
        }
        if record.kind == RecordKind::Put {
            self.compression.count(compress_as, record);
        }
        let is_removal = record.kind == RecordKind::Delete;
        state.namespaces.quotas.note(key, appended.pointer.len, is_removal);
        let len = (!is_removal).then(|| shown_len(&record.metadata, value));
        if is_replaced {
            state.namespaces.note_of_record(key, len, replaces);
        }
        state.update_cache(change, record.kind, &entry, value, appended.sequence);
        self.note_written(appended.pointer.len);
    }

    /// What the log is told of a change: kind, metadata and payload of its record.
    pub(super) fn describe<'a>(
        &self,
        change: &'a Change<'_>,
        effect: &'a Effect<'_>,
    ) -> Result<(RecordKind, Metadata, Cow<'a, [u8]>), NotApplied> {
        let version = self.log.sequence_next();
        let located = change.located;
        Ok(match (effect, located.place) {
            (Effect::None | Effect::Remove, _) => {
                let metadata = Metadata { version, ..Metadata::default() };
                (RecordKind::Delete, metadata, Cow::Borrowed(&[]))
            }
            (Effect::Put(metadata, value), _) => {
                (RecordKind::Put, *metadata, Cow::Borrowed(value.as_ref()))
            }
            (Effect::Remark(metadata), Place::Separate(pointer, len))
                if !self.is_leaving(pointer.segment) =>
            {
                let mut entry = Vec::new();
                let payload = Payload::Separate(pointer, len);
                Entry { metadata: *metadata, payload }.encode_into(&mut entry);
                (RecordKind::Repoint, *metadata, Cow::Owned(entry))
            }
            // The item had expired, a merge has dropped it, its segment was freed, and then the
            // clock went back.
            (Effect::Remark(_), Place::Separate(..)) if located.value.is_none() => {
                return Err(NotApplied::LookAgain);
            }
            (Effect::Remark(metadata), _) => {
                let value = located.value.as_deref().unwrap_or_default();
                (RecordKind::Put, *metadata, Cow::Borrowed(value))
            }
        })
    }

    fn entry_of<'a>(
        &self,
        record: &Record<'a>,
        located: &Located,
        pointer: crate::entry::Pointer,
    ) -> Entry<'a> {
        let payload = match record.kind {
            RecordKind::Repoint => match located.place {
                Place::Separate(target, len) => Payload::Separate(target, len),
                Place::Inline | Place::Absent => unreachable!("repointed items have a pointer"),
            },
            RecordKind::Put if record.is_inline(self.options.inline_bytes_max) => {
                Payload::Inline(record.payload)
            }
            RecordKind::Put => Payload::Separate(pointer, record.value_len()),
            _ => Payload::Tombstone,
        };
        Entry { metadata: record.metadata, payload }
    }

    fn cache_located(
        &self,
        state: &mut State,
        key: &[u8],
        hash: u64,
        located: &Located,
        now: u32,
        quiet: bool,
    ) {
        let Some(value) = located.value.as_deref() else { return };
        if located.from_cache || located.current(now).is_none() {
            return;
        }
        if state.namespaces.cache_policy(key) != CachePolicy::Values {
            return;
        }
        // What was found in a memtable has no more than its value from the device.
        let is_in_log = located.pointer().is_some();
        if is_in_log || located.sequence_end == 0 {
            state.note_value_read(hash, is_in_log);
        }
        let deleted_at = self.index.deleted_at(key).unwrap_or(0);
        let item = CachedItem {
            metadata: located.metadata,
            // It was found alive: what was deleted before does not concern it.
            sequence: located.sequence_end.saturating_sub(1).max(deleted_at),
            last_access: now,
            fetched: !quiet,
            pointer: located.pointer(),
        };
        state.items.insert(hash, key, &item, value);
    }
}

impl State {
    /// A read that has changed an item's metadata is a read like others: the item counts as fetched
    /// and, if its value was read, is cached. `needs` is the log position that covers the change.
    fn note_fetched(&mut self, change: &Change<'_>, metadata: Metadata, needs: u64) {
        let (Addressed { key, hash, .. }, now) = (change.addressed, change.now);
        let is_cached = self.items.access(hash, key, now, true).is_some();
        let Some(value) = change.located.value.as_deref().filter(|_| !is_cached) else { return };
        if self.namespaces.cache_policy(key) != CachePolicy::Values {
            return;
        }
        let item = CachedItem {
            metadata,
            sequence: needs.saturating_sub(1),
            last_access: now,
            fetched: true,
            pointer: change.located.pointer(),
        };
        self.items.insert(hash, key, &item, value);
    }

    /// The cache never holds anything but the newest value of a key.
    fn update_cache(
        &mut self,
        change: &Change<'_>,
        kind: RecordKind,
        entry: &Entry<'_>,
        value: &[u8],
        sequence: u64,
    ) {
        let Addressed { key, hash, .. } = change.addressed;
        let item = CachedItem {
            metadata: entry.metadata,
            sequence,
            last_access: change.now,
            fetched: false,
            pointer: entry.pointer(),
        };
        match kind {
            RecordKind::Put if self.namespaces.cache_policy(key) == CachePolicy::Values => {
                self.items.insert(hash, key, &item, value);
            }
            RecordKind::Repoint => {
                if !self.items.update_metadata(hash, key, item.metadata, sequence) {
                    self.items.remove(hash, key);
                }
            }
            _ => {
                self.items.remove(hash, key);
            }
        }
    }
}
