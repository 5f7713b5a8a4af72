//! The part of the value log that a start replays.

use std::io;
use std::path::Path;
use std::rc::Rc;

use larder_runtime::env::{Env, File, OpenMode};

use super::CheckError;
use super::pointers::Dangling;
use crate::compression;
use crate::entry::{Entry, Payload};
use crate::error::EngineError;
use crate::index::Living;
use crate::index::memtable::{Found, Memtable};
use crate::index::table::key_hash;
use crate::manifest::{SegmentState, State};
use crate::range_tombstones::{RangeTombstone, RangeTombstones};
use crate::shard::namespaces::{self, Namespaces};
use crate::value_log::record::RecordKind;
use crate::value_log::recovery::{self, Outcome, ReplaySegment, Replayed};
use crate::value_log::segment::{self, Segment};

/// What replaying has given.
pub(super) struct Log {
    pub(super) outcome: Outcome,
    /// The newest entry of each key that was changed. Values stay in the log.
    pub(super) changes: Memtable,
    /// What is alive after it.
    pub(super) living: Living,
    /// Intact records that do not hold an entry or a value that they must: segment, offset.
    pub(super) undecodable: Vec<(u32, u32)>,
}

/// Whether a start replays this segment, from the replay position in it or from its beginning.
pub(super) fn is_replayed(state: &State, number: u32) -> bool {
    let is_log = state.segments.get(&number).is_none_or(SegmentState::is_log);
    is_log && number >= state.replay_from.segment
}

/// Replays the log as a start does, without writing anything. Segments whose file is missing or
/// short are left out: whoever asks says so.
pub(super) async fn replay<E: Env>(
    env: &E,
    directory: &Path,
    store: u128,
    state: &State,
) -> Result<Log, CheckError> {
    let mut segments = Vec::new();
    for (&number, known) in state.segments.iter().filter(|(number, _)| is_replayed(state, **number))
    {
        let path = directory.join(segment::file_name(number));
        let bytes = known.file_bytes;
        match env.open(&path, OpenMode::Read).await {
            Ok(file) if file.len() >= u64::from(bytes) => {
                let segment = Segment { number, bytes, file };
                segments.push(ReplaySegment { segment, seal: known.sealed });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(CheckError::io(&path, "open")(error)),
        }
    }
    let mut from = state.replay_from;
    if segments.first().is_some_and(|first| first.segment.number != from.segment) {
        from.offset = segment::HEADER_BYTES;
    }
    let mut changes = Memtable::default();
    let mut namespaces = Namespaces::from_manifest(&state.namespace_generations);
    let mut ranges = RangeTombstones::clone(&state.ranges);
    let mut undecodable = Vec::new();
    let visit = |replayed: Replayed<'_>| {
        if is_of_namespace(replayed.record.kind) {
            namespaces::replay(&mut namespaces, &replayed.record, replayed.payload_intact);
        } else if replayed.record.kind == RecordKind::DeleteRange {
            match RangeTombstone::decode_key(replayed.record.key) {
                Some((start, end)) => ranges.add(RangeTombstone {
                    start: start.to_vec(),
                    end: end.to_vec(),
                    sequence: replayed.sequence,
                }),
                None => undecodable.push((replayed.pointer.segment, replayed.pointer.offset)),
            }
        } else if !note(&mut changes, &replayed) || is_spoiled(&replayed) {
            undecodable.push((replayed.pointer.segment, replayed.pointer.offset));
        }
    };
    let outcome = recovery::replay(env, store, &segments, from, visit).await;
    let outcome = outcome.map_err(|error| match error {
        EngineError::Open(reason) => CheckError::Newer(reason),
        error => CheckError::Newer(error.to_string()),
    })?;
    let generations = namespaces.generations().clone();
    let living = Living { generations, ranges: Rc::new(ranges) };
    Ok(Log { outcome, changes, living, undecodable })
}

impl Log {
    /// The changes that no later deletion of a range hides.
    pub(super) fn visible(&self) -> impl Iterator<Item = (&[u8], Found<'_>)> {
        let is_hidden = |key: &[u8], found: &Found<'_>| {
            self.living.ranges.newest(key).is_some_and(|at| at > found.sequence)
        };
        self.changes.iter().filter(move |(key, found)| !is_hidden(key, found))
    }

    /// The change of `key`, if no later deletion of a range hides it.
    pub(super) fn change_of(&self, key: &[u8]) -> Option<Found<'_>> {
        let deleted_at = self.living.ranges.newest(key);
        let found = self.changes.get(key, key_hash(key));
        found.filter(|found| deleted_at.is_none_or(|at| at < found.sequence))
    }

    /// Whether it is no damage that an entry leads nowhere: what it pointed to had expired, or is
    /// of a namespace that was emptied, and its segment was freed.
    pub(super) fn may_be_gone(&self, found: &Dangling<'_>) -> bool {
        let is_dead = || !self.living.generations.has_key(found.key);
        found.is_freed && (found.had_expired || is_dead())
    }
}

fn is_of_namespace(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::FlushNamespace | RecordKind::ScheduleFlush)
}

/// Whether a compressed value, whose bytes are as they were written, is not that value.
fn is_spoiled(replayed: &Replayed<'_>) -> bool {
    let payload = replayed.record.payload;
    let original = replayed.record.original.filter(|_| replayed.payload_intact);
    original.is_some_and(|original| !compression::is_sound(payload, original))
}

/// Makes a record's entry the newest of its key; false if the record must hold one and does not.
fn note(changes: &mut Memtable, replayed: &Replayed<'_>) -> bool {
    let record = &replayed.record;
    let here = Payload::Separate(replayed.pointer, record.value_len());
    let repointed = match record.kind {
        RecordKind::Repoint if replayed.payload_intact => Entry::decode(record.payload),
        _ => None,
    };
    let payload = match record.kind {
        RecordKind::Delete => Payload::Tombstone,
        RecordKind::Repoint => repointed.map_or(here, |entry| entry.payload),
        _ => here,
    };
    let entry = Entry { metadata: record.metadata, payload };
    changes.insert(record.key, key_hash(record.key), &entry, replayed.sequence);
    record.kind != RecordKind::Repoint || repointed.is_some() || !replayed.payload_intact
}
