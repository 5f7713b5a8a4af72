//! What a repair does about the part of the log that a start replays.
//!
//! A start keeps all of it that is readable. So where something of it is damaged, the shard is
//! started, writes out what it has found, and is closed again: nothing of the damaged part is
//! replayed any more, and the rest of the repair deals with it as with any other segment.

use std::io;
use std::path::Path;
use std::rc::Rc;

use larder_runtime::env::{Env, File, IoClass, OpenMode};

use super::log::{self, Log};
use super::{CheckError, pointers};
use crate::error::EngineError;
use crate::manifest::State;
use crate::memory::ShardMemory;
use crate::shard::{Shard, ShardOptions};
use crate::superblock::ShardIdentity;
use crate::value_log::segment;

/// The longest value that the shard is planned for; longer ones in the log are kept as they are.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// How often it is looked whether the shard's tasks have ended, in nanoseconds.
const STEP_NANOSECONDS: u64 = 1_000_000;

/// Gives every file of the log that a start replays its length again, so that the start can read
/// what is left of it. Returns what was done, for people.
pub(super) async fn complete_files(
    env: &impl Env,
    directory: &Path,
    state: &State,
) -> Result<Vec<String>, CheckError> {
    let mut done = Vec::new();
    for (&number, known) in state.segments.iter().filter(|(n, _)| log::is_replayed(state, **n)) {
        let name = segment::file_name(number);
        let path = directory.join(&name);
        let file = match env.open(&path, OpenMode::ReadWrite).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                env.open(&path, OpenMode::CreateNew).await
            }
            opened => opened,
        };
        let file = file.map_err(CheckError::io(&path, "open"))?;
        let len = file.len();
        if len >= u64::from(known.file_bytes) {
            continue;
        }
        let allocated = file.allocate(u64::from(known.file_bytes)).await;
        allocated.map_err(CheckError::io(&path, "extend"))?;
        file.sync(IoClass::Scrub).await.map_err(CheckError::io(&path, "sync"))?;
        let synced = env.sync_directory(directory).await;
        synced.map_err(CheckError::io(directory, "sync"))?;
        done.push(format!("{name}: zeros in the place of all that was cut off at byte {len}"));
    }
    Ok(done)
}

/// Whether something of the part of the log that a start replays is damaged, or leads to a value
/// that is.
pub(super) async fn is_damaged(
    env: &impl Env,
    directory: &Path,
    store: u128,
    state: &State,
    log: &Log,
) -> Result<bool, CheckError> {
    let mut is_damaged = !log.outcome.damage.is_empty() || !log.undecodable.is_empty();
    let mut pointers = pointers::Pointers::of_log(log, state);
    let follow = pointers.follow(env, directory, store, state, |found| {
        is_damaged |= !log.may_be_gone(&found);
    });
    follow.await?;
    Ok(is_damaged)
}

/// Starts the shard, has everything written to tables that a start would replay, and closes it.
pub(super) async fn write_out<E: Env>(
    env: &E,
    directory: &Path,
    identity: &ShardIdentity,
) -> Result<(), CheckError> {
    let failed = |error: EngineError| CheckError::NotWrittenOut {
        path: directory.to_path_buf(),
        reason: error.to_string(),
    };
    let opened = Shard::open(env.clone(), directory, options(identity)).await;
    let (shard, _) = opened.map_err(failed)?;
    let written = shard.write_out().await;
    let closed = shard.close().await;
    // Its tasks end with what they are at; each of them holds the shard.
    while Rc::strong_count(&shard) > 1 {
        env.sleep(STEP_NANOSECONDS).await;
    }
    written.and(closed).map_err(failed)
}

/// Settings with which the shard does nothing but what it is told.
fn options(identity: &ShardIdentity) -> ShardOptions {
    let share = ShardMemory::share_min(VALUE_BYTES_MAX);
    let memory = ShardMemory::plan(share, VALUE_BYTES_MAX).expect("it is the least that suffices");
    let (shard, shards) = (identity.shard_index, identity.shard_count);
    ShardOptions {
        space_amplification_percent: u32::MAX,
        ..ShardOptions::for_memory(shard, shards, &memory)
    }
}
