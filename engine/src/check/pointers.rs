//! What index entries point at: the record is there, intact, and that of the entry's key.

use std::collections::btree_map::BTreeMap;
use std::ops::Range;
use std::path::Path;

use larder_runtime::env::Env;

use super::CheckError;
use super::log::{self, Log};
use super::reader::Reader;
use crate::compression;
use crate::entry::{Entry, Payload, Pointer, state};
use crate::manifest::{SegmentState, State};
use crate::value_log::record::{self, Place, RecordKind};
use crate::value_log::segment;

/// Bytes read at once. Neighbours in the log are often asked for one after the other.
const AHEAD_BYTES: usize = 64 << 10;

/// Pointers that are followed in the order of their targets.
#[derive(Default)]
pub(super) struct Pointers {
    keys: Vec<u8>,
    targets: Vec<Target>,
}

/// An entry's pointer that does not lead to the entry's record.
pub(super) struct Dangling<'a> {
    pub(super) key: &'a [u8],
    pub(super) pointer: Pointer,
    /// Whether the manifest no longer has the segment: its records were moved or had expired.
    pub(super) is_freed: bool,
    /// Whether the manifest says that this one had.
    pub(super) had_expired: bool,
    pub(super) reason: String,
}

struct Target {
    pointer: Pointer,
    expiry: u32,
    value_len: u32,
    version: u64,
    is_stale: bool,
    key: Range<usize>,
}

impl Pointers {
    /// The pointers of changes that no table has yet, but for those into the part of the log that
    /// is replayed: replaying has read these.
    pub(super) fn of_log(log: &Log, state: &State) -> Self {
        let mut pointers = Self::default();
        for (key, found) in log.visible() {
            let pointer = found.entry.pointer();
            if pointer.is_some_and(|pointer| !log::is_replayed(state, pointer.segment)) {
                pointers.push(key, &found.entry);
            }
        }
        pointers
    }

    /// Adds the pointer of an entry, if it has one.
    pub(super) fn push(&mut self, key: &[u8], entry: &Entry<'_>) {
        let Payload::Separate(pointer, value_len) = entry.payload else { return };
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.targets.push(Target {
            pointer,
            expiry: entry.metadata.expiry,
            value_len,
            version: entry.metadata.version,
            is_stale: entry.metadata.state & state::STALE != 0,
            key: start..self.keys.len(),
        });
    }

    /// Follows all pointers and forgets them. Tells `damaged` where the target is not what
    /// it must be; returns how many pointers there were.
    pub(super) async fn follow<E: Env>(
        &mut self,
        env: &E,
        directory: &Path,
        store: u128,
        state: &State,
        mut damaged: impl FnMut(Dangling<'_>),
    ) -> Result<u64, CheckError> {
        self.targets.sort_unstable_by_key(|target| target.pointer);
        let mut open: Option<(u32, Option<Reader<'_, E>>)> = None;
        for target in &self.targets {
            env.yield_if_needed().await;
            let number = target.pointer.segment;
            if open.as_ref().is_none_or(|(of, _)| *of != number) {
                open = Some((number, open_segment(env, directory, &state.segments, number).await?));
            }
            let reader = open.as_mut().and_then(|(_, reader)| reader.as_mut());
            let key = &self.keys[target.key.clone()];
            if let Err(reason) = follow(reader, store, key, target).await? {
                damaged(Dangling {
                    key,
                    pointer: target.pointer,
                    is_freed: !state.segments.contains_key(&number),
                    had_expired: state.had_expired(number, target.expiry),
                    reason,
                });
            }
        }
        let count = self.targets.len() as u64;
        self.targets.clear();
        self.keys.clear();
        Ok(count)
    }
}

/// The reader of a segment; `None` if it is not there.
async fn open_segment<'a, E: Env>(
    env: &'a E,
    directory: &Path,
    segments: &BTreeMap<u32, SegmentState>,
    number: u32,
) -> Result<Option<Reader<'a, E>>, CheckError> {
    if !segments.contains_key(&number) {
        return Ok(None);
    }
    let path = directory.join(segment::file_name(number));
    match Reader::open(env, &path, AHEAD_BYTES).await {
        Ok(reader) => Ok(Some(reader)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CheckError::io(&path, "open")(error)),
    }
}

/// Reads what a pointer names. The inner error says why it is not what it must be.
async fn follow<E: Env>(
    reader: Option<&mut Reader<'_, E>>,
    store: u128,
    key: &[u8],
    target: &Target,
) -> Result<Result<(), String>, CheckError> {
    let Pointer { segment, offset, len } = target.pointer;
    let Some(reader) = reader else { return Ok(Err("the segment is not there".to_owned())) };
    let end = u64::from(offset) + u64::from(len);
    if end > reader.len() {
        return Ok(Err("the segment's file ends before it".to_owned()));
    }
    let place = Place { store, segment, offset };
    let read = reader.bytes(u64::from(offset), len as usize).await;
    let found = match record::decode(read.bytes, place) {
        Ok(found) => found,
        Err(error @ record::RecordError::Newer(_)) => {
            return Err(super::segments::newer(segment, error));
        }
        Err(error) if read.is_partial => {
            return Ok(Err(format!("the device cannot read it ({error})")));
        }
        Err(error) => return Ok(Err(error.to_string())),
    };
    let metadata = found.record.metadata;
    // What changes an item without its value leaves the record where it is, with the version that
    // it had. Marking an item stale gives it a version of its own choice.
    let version_fits = target.is_stale || metadata.version <= target.version;
    let is_sound = |record: &record::Record<'_>| {
        record.original.is_none_or(|original| compression::is_sound(record.payload, original))
    };
    let what = if !found.payload_intact {
        "the value does not match its checksum"
    } else if found.record.key != key || found.len != len as usize {
        "another key's record is there"
    } else if found.record.kind != RecordKind::Put {
        "the record there holds no value"
    } else if !version_fits {
        "the record there is of a newer version"
    } else if found.record.value_len() != target.value_len {
        "the value has another length than the index says"
    } else if !is_sound(&found.record) {
        "decompressed, the value does not match its checksum"
    } else {
        return Ok(Ok(()));
    };
    Ok(Err(what.to_owned()))
}
