//! Which generation of each namespace is alive, which namespaces there are, and how they are kept.
//!
//! [`Generations`] says which generation lives; here are the flushes that change it, done and to
//! come. Who uses the shard may tell it which namespaces there are: then it takes changes of no
//! others, so that nothing comes behind the deletion of all that one had.

use std::collections::BTreeMap;

use super::quota::Quotas;
use super::record_limit::RecordSums;
use super::{Shard, State};
use crate::entry::Metadata;
use crate::error::EngineError;
use crate::generations::{CLEARED, Generations, generation_of};
use crate::key::{DEFAULT_NAMESPACE, Key, RESERVED_NAMESPACES};
use crate::scan::Scan;
use crate::value_log::record::{Record, RecordKind};
use crate::value_log::{Append, commit::Refused};
use larder_runtime::env::Env;

/// What the caches keep of a namespace's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// Values, and the blocks of tables that lead to them.
    #[default]
    Values,
    /// The blocks alone: each read of a value goes to the device.
    KeysOnly,
    /// Nothing.
    Bypass,
}

/// Which values of a namespace are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespaceCompression {
    /// Those that the shard's options say.
    #[default]
    AsShard,
    /// Those of so many bytes or more.
    From(usize),
    /// None.
    Never,
}

/// How the items of a namespace are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceOptions {
    /// What the caches keep.
    pub cache: CachePolicy,
    /// Which values are compressed.
    pub compression: NamespaceCompression,
    /// The longest value, in bytes; `None` for the shard's limit.
    pub value_bytes_max: Option<usize>,
    /// How much of the shard's disk they may take, in bytes; `None` for no limit.
    pub bytes_max: Option<u64>,
    /// How much a record may have, in bytes of item keys and values; `None` for no limit.
    pub record_bytes_max: Option<u64>,
}

/// The living generation of each namespace, and the flushes to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespaces {
    generations: Generations,
    default_generation: u32,
    /// The default namespace is flushed at this Unix second; 0: no flush is scheduled.
    flush_at: u32,
    /// The log position that covers the last flush of the default namespace since the start: what
    /// shows that an item is gone must not be answered before that is durable.
    flushed_end: u64,
    /// Those that there are, besides the default and the reserved ones; `None` if any may be used.
    known: Option<BTreeMap<u32, NamespaceOptions>>,
    /// How the items of the default one are kept; `None` if as usual.
    default_options: Option<NamespaceOptions>,
    /// What was written of those with a limit.
    pub(super) quotas: Quotas,
    /// What records have of those that limit them.
    pub(super) records: RecordSums,
}

impl Namespaces {
    /// The namespaces with the generations that the manifest has; the others were never flushed.
    pub(crate) fn from_manifest(generations: &BTreeMap<u32, u64>) -> Self {
        let generations = Generations::from_manifest(generations);
        let default_generation = generations.of(DEFAULT_NAMESPACE);
        Self { generations, default_generation, ..Self::default() }
    }

    /// Whether changes are taken of the namespace with this number, or generation.
    #[inline]
    pub(super) fn takes(&self, namespace: u32) -> bool {
        if namespace == DEFAULT_NAMESPACE || RESERVED_NAMESPACES.contains(&namespace) {
            return true;
        }
        let is_known = |known: &BTreeMap<u32, NamespaceOptions>| known.contains_key(&namespace);
        namespace & CLEARED != 0 || self.known.as_ref().is_none_or(is_known)
    }

    /// How the items of a namespace with this number, or generation, are kept; `None` if as usual.
    #[inline]
    fn options(&self, namespace: u32) -> Option<&NamespaceOptions> {
        if namespace == self.default_generation || namespace == DEFAULT_NAMESPACE {
            return self.default_options.as_ref();
        }
        self.known.as_ref()?.get(&namespace)
    }

    /// The number of the namespace with this number, or living generation.
    pub(super) fn number_of(&self, generation: u32) -> u32 {
        if generation == self.default_generation { DEFAULT_NAMESPACE } else { generation }
    }

    /// From now on there are these, besides the reserved ones and the default one, which may be
    /// among them.
    fn set_known(&mut self, mut namespaces: BTreeMap<u32, NamespaceOptions>, seed: u64) {
        let limited = namespaces.iter().filter(|(_, options)| options.bytes_max.is_some());
        let generations = limited.map(|(&namespace, _)| self.generation(namespace));
        let generations: Vec<u32> = generations.collect();
        self.quotas.keep(generations.into_iter());
        self.records.forget(seed);
        let usual = NamespaceOptions::default();
        self.default_options = namespaces.remove(&DEFAULT_NAMESPACE).filter(|told| *told != usual);
        self.known = Some(namespaces);
    }

    /// How much of the disk a namespace may take, in bytes.
    #[inline]
    pub(super) fn bytes_max(&self, namespace: u32) -> Option<u64> {
        self.options(namespace)?.bytes_max
    }

    /// How much a record of a namespace may have, in bytes.
    #[inline]
    pub(super) fn record_bytes_max(&self, namespace: u32) -> Option<u64> {
        self.options(namespace)?.record_bytes_max
    }

    /// How long a value may become under this encoded key where the shard takes `usual` bytes.
    #[inline]
    pub(super) fn value_bytes_max(&self, key: &[u8], usual: usize) -> usize {
        let limit = self.options(generation_of(key)).and_then(|options| options.value_bytes_max);
        limit.map_or(usual, |limit| limit.min(usual))
    }

    /// What caches keep of the item with this encoded key.
    #[inline]
    pub(super) fn cache_policy(&self, key: &[u8]) -> CachePolicy {
        let generation = generation_of(key);
        if RESERVED_NAMESPACES.contains(&generation) {
            return CachePolicy::KeysOnly;
        }
        self.options(generation).map_or(CachePolicy::Values, |options| options.cache)
    }

    /// The living generation of `namespace`.
    pub(super) fn generation(&self, namespace: u32) -> u32 {
        if namespace == DEFAULT_NAMESPACE {
            return self.default_generation;
        }
        self.generations.of(namespace)
    }

    /// The living generation of every namespace that was ever flushed.
    pub(crate) fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Makes `generation` the living one.
    pub(super) fn set_generation(&mut self, namespace: u32, generation: u32) {
        let before = self.generation(namespace);
        self.quotas.begin_anew(before, generation);
        self.generations.set(namespace, generation);
        if namespace == DEFAULT_NAMESPACE {
            self.default_generation = generation;
            self.flush_at = 0;
        }
    }

    /// Notes the generation of a key that replay has met. One that nothing has announced means that
    /// the record of its flush is lost: only the default namespace is ever flushed, so it was its.
    pub(super) fn see_key(&mut self, key: &[u8]) {
        let number = generation_of(key);
        if number & CLEARED != 0 && number > self.default_generation {
            self.set_generation(DEFAULT_NAMESPACE, number);
        }
    }

    pub(super) fn schedule_flush(&mut self, at: u32) {
        self.flush_at = at;
    }

    pub(super) fn scheduled_flush(&self) -> Option<u32> {
        (self.flush_at != 0).then_some(self.flush_at)
    }

    pub(super) fn flush_is_due(&self, now: u32) -> bool {
        self.flush_at != 0 && self.flush_at <= now
    }

    /// The log position that covers the last flush since the start; 0 if there was none.
    pub(super) fn flushed_end(&self) -> u64 {
        self.flushed_end
    }

    fn next_generation(&self) -> u32 {
        self.generations.next()
    }
}

impl<E: Env> Shard<E> {
    /// Says which namespaces there are, besides the reserved ones, and how their items are kept.
    /// The default one is always there, and kept as usual if it is not among them. Until it is
    /// called any may be used. Changes of others fail from now on with
    /// [`EngineError::NoNamespace`].
    pub fn set_namespaces(&self, namespaces: BTreeMap<u32, NamespaceOptions>) {
        self.compression.set_all(&namespaces);
        let seed = self.env.random();
        self.state.borrow_mut().namespaces.set_known(namespaces, seed);
    }

    /// Whether a namespace takes values of so many bytes.
    #[inline]
    pub fn takes_value(&self, namespace: u32, bytes: usize) -> bool {
        let state = self.state.borrow();
        let limit = state.namespaces.options(namespace).and_then(|options| options.value_bytes_max);
        limit.is_none_or(|limit| bytes <= limit)
    }

    /// Deletes all items of a namespace that there is no more, whatever their number, and waits
    /// until that is durable in any durability mode. Their space is freed by and by.
    ///
    /// # Errors
    ///
    /// As [`Shard::delete_range`].
    ///
    /// # Panics
    ///
    /// If [`Shard::set_namespaces`] has not said that there is no such namespace.
    pub async fn drop_namespace(&self, namespace: u32) -> Result<(), EngineError> {
        let is_known = self.state.borrow().namespaces.takes(namespace);
        assert!(!is_known, "changes of namespace {namespace} may follow");
        self.delete_range(&Scan::of_namespace(namespace)).await?;
        self.sync().await
    }

    /// Drops every item of the default namespace at Unix second `at`, or now if `at` has passed.
    ///
    /// Returns the log position that has to be acknowledged before the answer may be sent.
    pub async fn flush_all(&self, at: Option<u32>) -> Result<u64, EngineError> {
        let now = self.unix_now();
        match at {
            Some(at) if at > now => self.log_namespace(RecordKind::ScheduleFlush, at).await,
            _ => self.log_namespace(RecordKind::FlushNamespace, 0).await,
        }
    }

    /// Carries out a scheduled flush whose time has come.
    pub(super) async fn apply_due_flush(&self) -> Result<(), EngineError> {
        while self.state.borrow().flush_is_due(self.unix_now()) {
            self.log_namespace(RecordKind::FlushNamespace, 0).await?;
        }
        Ok(())
    }

    async fn log_namespace(&self, kind: RecordKind, at: u32) -> Result<u64, EngineError> {
        loop {
            {
                let mut state = self.state.borrow_mut();
                self.check_running(&state)?;
                match self.try_log_namespace(&mut state, kind, at) {
                    Ok(sequence_end) => return Ok(sequence_end),
                    Err(Refused::NoSegment) if self.refuses(&state, true) => {
                        return Err(EngineError::Full);
                    }
                    Err(Refused::NoSpace) => return Err(EngineError::Full),
                    Err(_) => {}
                }
            }
            self.wait_for_room(0).await;
        }
    }

    /// Logs a namespace's change and makes it.
    pub(super) fn try_log_namespace(
        &self,
        state: &mut State,
        kind: RecordKind,
        at: u32,
    ) -> Result<u64, Refused> {
        let key = Key { namespace: DEFAULT_NAMESPACE, record: &[], item: &[] }.encode();
        let generation = state.namespaces.next_generation();
        let payload = generation.to_le_bytes();
        let metadata = Metadata { expiry: at, ..Metadata::default() };
        let appended = self.log.append(&Append::new((kind, metadata), &key, &payload, None))?;
        match kind {
            RecordKind::ScheduleFlush => state.namespaces.schedule_flush(at),
            _ => {
                state.namespaces.set_generation(DEFAULT_NAMESPACE, generation);
                state.namespaces.flushed_end = appended.sequence + 1;
                state.items.clear();
            }
        }
        Ok(appended.sequence + 1)
    }
}

/// Replays a namespace record into `namespaces`.
pub(crate) fn replay(namespaces: &mut Namespaces, record: &Record<'_>, payload_intact: bool) {
    let Some(key) = crate::key::decode(record.key) else { return };
    match (record.kind, <[u8; 4]>::try_from(record.payload)) {
        (RecordKind::ScheduleFlush, _) => namespaces.schedule_flush(record.metadata.expiry),
        (RecordKind::FlushNamespace, Ok(payload)) if payload_intact => {
            namespaces.set_generation(key.namespace, u32::from_le_bytes(payload));
        }
        // Generations are given out in order, so the one that was lost is known.
        _ => namespaces.set_generation(key.namespace, namespaces.next_generation()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::table::key_hash;

    #[test]
    fn a_new_generation_replaces_the_old_one() {
        let mut namespaces = Namespaces::from_manifest(&BTreeMap::new());
        assert_eq!(namespaces.generation(DEFAULT_NAMESPACE), 0);
        assert!(namespaces.generations().is_alive(0));
        namespaces.schedule_flush(100);
        assert!(!namespaces.flush_is_due(99) && namespaces.flush_is_due(100));
        namespaces.set_generation(DEFAULT_NAMESPACE, namespaces.next_generation());
        let living = namespaces.generation(DEFAULT_NAMESPACE);
        assert!(
            namespaces.generations().is_alive(living)
                && !namespaces.generations().is_alive(DEFAULT_NAMESPACE)
        );
        assert_eq!(namespaces.scheduled_flush(), None);
        let manifest = BTreeMap::from([(DEFAULT_NAMESPACE, u64::from(living))]);
        let again = Namespaces::from_manifest(&manifest);
        assert_eq!(again.generation(DEFAULT_NAMESPACE), living);
        assert_eq!(again.next_generation(), living + 1);
    }

    #[test]
    fn a_flush_whose_record_was_lost_shows_in_the_keys_after_it() {
        let mut namespaces = Namespaces::from_manifest(&BTreeMap::new());
        let number = namespaces.next_generation();
        namespaces.see_key(&Key { namespace: 5, record: b"k", item: b"" }.encode());
        assert_eq!(namespaces.generation(DEFAULT_NAMESPACE), DEFAULT_NAMESPACE);
        namespaces.see_key(&Key { namespace: number, record: b"k", item: b"" }.encode());
        assert_eq!(namespaces.generation(DEFAULT_NAMESPACE), number);
        assert_eq!(namespaces.next_generation(), number + 1);
    }

    #[test]
    fn a_flush_of_one_namespace_touches_no_other() {
        let mut namespaces = Namespaces::from_manifest(&BTreeMap::new());
        for _ in 0..3 {
            namespaces.set_generation(DEFAULT_NAMESPACE, namespaces.next_generation());
        }
        for other in [1, 2, 3, 77] {
            assert_eq!(namespaces.generation(other), other);
            assert!(namespaces.generations().is_alive(other), "namespace {other}");
        }
        namespaces.set_generation(2, namespaces.next_generation());
        assert!(
            !namespaces.generations().is_alive(2)
                && namespaces.generations().is_alive(namespaces.generation(2))
        );
    }

    #[test]
    fn keys_of_two_generations_have_different_hashes() {
        let key = |namespace| Key { namespace, record: b"k", item: b"" }.encode();
        assert_ne!(key_hash(&key(0)), key_hash(&key(1)));
    }
}
