//! Which generation of each namespace is alive.
//!
//! The number in an encoded key is the generation, not the namespace: flushing a namespace gives it
//! a new generation, so that its items are unreachable at once whatever their number, and tables
//! lose them when they are next merged.

use std::collections::BTreeMap;

use super::{Shard, State};
use crate::entry::Metadata;
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::value_log::record::{Record, RecordKind};
use crate::value_log::{Append, commit::Refused};
use larder_runtime::env::Env;

/// The living generation of each namespace, and the flushes to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Namespaces {
    generations: BTreeMap<u32, u32>,
    default_generation: u32,
    /// The default namespace is flushed at this Unix second; 0: no flush is scheduled.
    flush_at: u32,
}

impl Namespaces {
    /// The namespaces with the generations that the manifest has; the others were never flushed.
    pub fn from_manifest(generations: &BTreeMap<u32, u64>) -> Self {
        let generations: BTreeMap<u32, u32> = generations
            .iter()
            .map(|(namespace, generation)| {
                (*namespace, u32::try_from(*generation).unwrap_or(u32::MAX))
            })
            .collect();
        let default_generation = generations.get(&DEFAULT_NAMESPACE).copied().unwrap_or(0);
        Self { generations, default_generation, flush_at: 0 }
    }

    /// The living generation of `namespace`.
    pub fn generation(&self, namespace: u32) -> u32 {
        if namespace == DEFAULT_NAMESPACE {
            return self.default_generation;
        }
        self.generations.get(&namespace).copied().unwrap_or(namespace)
    }

    /// Whether keys with this number are those of a living generation.
    pub fn is_alive(&self, generation: u32) -> bool {
        generation == self.default_generation
            || self.generations.values().any(|alive| *alive == generation)
    }

    /// Every namespace that was flushed, with its living generation.
    pub fn generations(&self) -> &BTreeMap<u32, u32> {
        &self.generations
    }

    /// Makes `generation` the living one.
    pub fn set_generation(&mut self, namespace: u32, generation: u32) {
        self.generations.insert(namespace, generation);
        if namespace == DEFAULT_NAMESPACE {
            self.default_generation = generation;
            self.flush_at = 0;
        }
    }

    pub fn schedule_flush(&mut self, at: u32) {
        self.flush_at = at;
    }

    pub fn scheduled_flush(&self) -> Option<u32> {
        (self.flush_at != 0).then_some(self.flush_at)
    }

    pub fn flush_is_due(&self, now: u32) -> bool {
        self.flush_at != 0 && self.flush_at <= now
    }

    fn next_generation(&self) -> u32 {
        self.generations.values().copied().max().unwrap_or(0).max(self.default_generation) + 1
    }
}

impl<E: Env> Shard<E> {
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
            let appended = self.try_log_namespace(&mut self.state.borrow_mut(), kind, at);
            match appended {
                Ok(sequence_end) => return Ok(sequence_end),
                Err(Refused::Stopped) => {
                    return Err(EngineError::Stopped(self.log.stopped().unwrap_or_default()));
                }
                Err(_) => self.wait_for_room().await?,
            }
        }
    }

    /// Logs a namespace's change and makes it.
    pub(super) fn try_log_namespace(
        &self,
        state: &mut State<E>,
        kind: RecordKind,
        at: u32,
    ) -> Result<u64, Refused> {
        let key = Key { namespace: DEFAULT_NAMESPACE, record: &[], item: &[] }.encode();
        let generation = state.namespaces.next_generation();
        let payload = generation.to_le_bytes();
        let metadata = Metadata { expiry: at, ..Metadata::default() };
        let record = Record { kind, metadata, key: &key, payload: &payload };
        let append = Append { record, payload_crc: crc32c::crc32c(&payload) };
        let appended = self.log.append(&append)?;
        match kind {
            RecordKind::ScheduleFlush => state.namespaces.schedule_flush(at),
            _ => {
                state.namespaces.set_generation(DEFAULT_NAMESPACE, generation);
                state.items.clear();
            }
        }
        Ok(appended.sequence + 1)
    }
}

/// Replays a namespace record into `namespaces`.
pub(super) fn replay(namespaces: &mut Namespaces, record: &Record<'_>) {
    let Some(key) = crate::key::decode(record.key) else { return };
    match (record.kind, <[u8; 4]>::try_from(record.payload)) {
        (RecordKind::ScheduleFlush, _) => namespaces.schedule_flush(record.metadata.expiry),
        (RecordKind::FlushNamespace, Ok(payload)) => {
            namespaces.set_generation(key.namespace, u32::from_le_bytes(payload));
        }
        _ => tracing::error!("a namespace record in the log has no generation; it is ignored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::key_hash;

    #[test]
    fn a_new_generation_replaces_the_old_one() {
        let mut namespaces = Namespaces::from_manifest(&BTreeMap::new());
        assert_eq!(namespaces.generation(DEFAULT_NAMESPACE), 0);
        assert!(namespaces.is_alive(0));
        namespaces.schedule_flush(100);
        assert!(!namespaces.flush_is_due(99) && namespaces.flush_is_due(100));
        namespaces.set_generation(DEFAULT_NAMESPACE, namespaces.next_generation());
        assert!(namespaces.is_alive(1) && !namespaces.is_alive(0));
        assert_eq!(namespaces.scheduled_flush(), None);
        let manifest = BTreeMap::from([(DEFAULT_NAMESPACE, 1)]);
        let again = Namespaces::from_manifest(&manifest);
        assert_eq!(again.generation(DEFAULT_NAMESPACE), 1);
    }

    #[test]
    fn keys_of_two_generations_have_different_hashes() {
        let key = |namespace| Key { namespace, record: b"k", item: b"" }.encode();
        assert_ne!(key_hash(&key(0)), key_hash(&key(1)));
    }
}
