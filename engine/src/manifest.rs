//! The manifest: which files make up a shard, as a log of edits that survives any crash.
//!
//! ```text
//! SUPERBLOCK          four copies of one block; names the manifest file in force
//! MANIFEST-00000042   a snapshot of the state, then one record for each edit
//! ```
//!
//! Invariants:
//! - The manifest file that the superblock names starts with a durable snapshot, and no other
//!   manifest file is ever appended to.
//! - An edit is durable before [`Manifest::append`] resolves, whole or not at all after a crash.
//!   The caller makes the files that an edit refers to durable first, and reuses or removes those
//!   that it drops afterwards.
//! - A block that holds acknowledged data is never written again.
//! - One append is in flight at a time; after one that failed or was abandoned there is no other.
//!
//! When the file is long, the next edit is not appended: a snapshot that includes it starts a new
//! file, and the superblock's change to that file is what makes the edit durable. Where there is no
//! space for another file, the old one takes edits as long as it has room for them.
//!
//! Opening decides first, reading only; then it mends the superblock's copies and removes what an
//! interrupted creation or switch left behind. It writes to no file that it found damaged.

mod codec;
pub(crate) mod decoders;
mod edit;
mod error;
mod levels;
mod log;
mod record;
mod segments;
mod state;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod test_disk;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use larder_runtime::env::Env;

pub use self::edit::{
    Edit, EditError, LogPosition, NEVER_EXPIRES, NamespaceGeneration, SegmentExpiry,
    SegmentPointers, SegmentSeal,
};
pub use self::error::ManifestError;
pub use self::levels::{LEVELS, Levels};
pub use self::segments::SegmentState;
pub use self::state::State;

use self::log::Log;
use self::record::{Kind, LogIdentity, PAYLOAD_BYTES_MAX, padded_bytes};
use crate::superblock::{
    self, SUPERBLOCK_FILE, SUPERBLOCK_UNFINISHED_FILE, ShardIdentity, Superblock, SuperblockFile,
};

/// The number of a new shard's first manifest file.
const NUMBER_FIRST: u64 = 1;

/// The longest manifest file in bytes; a longer one is refused before it is read into memory.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// When manifest files grow and when they end.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// A file up to this many bytes is not replaced.
    switch_bytes: u64,
    /// Files grow by multiples of this many bytes.
    allocation_step: u64,
}

/// In tests the files are short, so that crashes hit their replacement.
const LIMITS: Limits = if cfg!(test) {
    Limits { switch_bytes: 16 << 10, allocation_step: 16 << 10 }
} else {
    Limits { switch_bytes: 1 << 20, allocation_step: 256 << 10 }
};

// A file is replaced once it is longer than twice its snapshot, so one more record is the most that
// it can have beyond that.
const _: () = {
    let record_bytes = padded_bytes(PAYLOAD_BYTES_MAX) as u64;
    assert!(LIMITS.switch_bytes < 2 * record_bytes);
    assert!(3 * record_bytes + LIMITS.allocation_step <= FILE_BYTES_MAX);
};

/// A shard's open manifest. Nothing else writes the manifest files and the superblock.
pub struct Manifest<E: Env> {
    env: E,
    directory: PathBuf,
    superblock: SuperblockFile<E>,
    log: Log<E>,
    /// The number of the next manifest file: higher than any that was seen, so that no two files
    /// of a number ever exist.
    number_next: u64,
    limits: Limits,
    /// A write failed or was abandoned, and what it left on disk is unknown until the next open.
    poisoned: bool,
    /// There was no space for another file when one was due, and that was said.
    lacks_space: bool,
}

/// Whether a file of this name in a shard's directory belongs to the manifest or superblock.
pub fn owns_file(name: &str) -> bool {
    log::parse_file_name(name).is_some()
        || [SUPERBLOCK_FILE, SUPERBLOCK_UNFINISHED_FILE].contains(&name)
}

/// What a directory holds, as far as manifest and superblock go.
struct Contents {
    has_superblock: bool,
    has_unfinished_superblock: bool,
    manifest_numbers: Vec<u64>,
    has_others: bool,
}

impl Contents {
    fn list(env: &impl Env, directory: &Path) -> Result<Self, ManifestError> {
        let mut contents = Self {
            has_superblock: false,
            has_unfinished_superblock: false,
            manifest_numbers: Vec::new(),
            has_others: false,
        };
        let entries = match env.list(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(ManifestError::io(directory, "list"))?,
        };
        for entry in entries {
            match (entry.name.as_str(), log::parse_file_name(&entry.name)) {
                (_, Some(number)) => contents.manifest_numbers.push(number),
                (SUPERBLOCK_FILE, None) => contents.has_superblock = true,
                (SUPERBLOCK_UNFINISHED_FILE, None) => contents.has_unfinished_superblock = true,
                _ => contents.has_others = true,
            }
        }
        Ok(contents)
    }

    /// What an interrupted switch or creation left beside the manifest file `number`.
    fn leftovers(&self, number: u64) -> Vec<String> {
        let manifests = self.manifest_numbers.iter().filter(|&&other| other != number);
        let mut leftovers: Vec<String> = manifests.map(|&other| log::file_name(other)).collect();
        if self.has_unfinished_superblock {
            leftovers.push(SUPERBLOCK_UNFINISHED_FILE.to_owned());
        }
        leftovers
    }

    fn is_empty(&self) -> bool {
        !self.has_others && !self.has_unfinished_superblock && self.manifest_numbers.is_empty()
    }

    /// Whether a crash during [`Manifest::create`] can have left this: the unfinished superblock
    /// comes first and becomes the superblock last.
    fn is_unfinished_creation(&self) -> bool {
        let first_only = self.manifest_numbers.iter().all(|&number| number == NUMBER_FIRST);
        self.has_unfinished_superblock && !self.has_others && first_only
    }
}

impl<E: Env> Manifest<E> {
    /// The length in bytes of the file in force.
    pub fn file_bytes(&self) -> u64 {
        self.log.file_bytes()
    }

    /// Whether `directory` holds a shard: `false` if it is missing or empty, or if its creation was
    /// cut short, in which case [`Manifest::create`] starts over.
    ///
    /// A directory that holds other files but no superblock is a [`ManifestError::NotAStore`].
    pub fn exists(env: &E, directory: &Path) -> Result<bool, ManifestError> {
        let contents = Contents::list(env, directory)?;
        if contents.has_superblock {
            return Ok(true);
        }
        if contents.is_empty() || contents.is_unfinished_creation() {
            return Ok(false);
        }
        Err(ManifestError::NotAStore { path: directory.to_path_buf() })
    }

    /// Makes a new, empty shard in `directory`, which must hold no files, and opens it. The
    /// directory is created if it is missing. All of it is durable when this resolves with `Ok`.
    pub async fn create(
        env: E,
        directory: &Path,
        identity: ShardIdentity,
    ) -> Result<Self, ManifestError> {
        Self::create_with(env, directory, identity, LIMITS).await
    }

    async fn create_with(
        env: E,
        directory: &Path,
        identity: ShardIdentity,
        limits: Limits,
    ) -> Result<Self, ManifestError> {
        if Self::exists(&env, directory)? {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(ManifestError::io(&directory.join(SUPERBLOCK_FILE), "create")(exists));
        }
        let created = env.create_directory(directory);
        created.map_err(ManifestError::io(directory, "create"))?;
        let parent = match directory.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        sync_directory(&env, parent).await?;
        remove_unfinished_creation(&env, directory).await?;

        let superblock = Superblock { sequence: 1, identity, manifest_number: NUMBER_FIRST };
        SuperblockFile::create_unfinished(&env, directory, superblock).await?;
        sync_directory(&env, directory).await?;
        let log_identity = LogIdentity { store_id: identity.store_id, number: NUMBER_FIRST };
        Log::create(&env, directory, log_identity, limits, 1, &State::default()).await?;
        let finished = directory.join(SUPERBLOCK_FILE);
        let renamed = env.rename(&directory.join(SUPERBLOCK_UNFINISHED_FILE), &finished).await;
        renamed.map_err(ManifestError::io(&finished, "create"))?;
        sync_directory(&env, directory).await?;

        let (manifest, _, _) = Self::open_with(env, directory, limits).await?;
        Ok(manifest)
    }

    /// Opens the shard in `directory`: the state is that of the last edit that was acknowledged, or
    /// of the one that was being appended when the shard was last written to.
    ///
    /// Errors: [`ManifestError::NotAStore`]; [`ManifestError::WrongFormat`];
    /// [`ManifestError::Damaged`] if anything acknowledged cannot be read back;
    /// [`ManifestError::Io`], of kind `NotFound` if there is no shard.
    pub async fn open(
        env: E,
        directory: &Path,
    ) -> Result<(Self, State, Superblock), ManifestError> {
        Self::open_with(env, directory, LIMITS).await
    }

    async fn open_with(
        env: E,
        directory: &Path,
        limits: Limits,
    ) -> Result<(Self, State, Superblock), ManifestError> {
        if !Self::exists(&env, directory)? {
            let missing = io::Error::from(io::ErrorKind::NotFound);
            return Err(ManifestError::io(&directory.join(SUPERBLOCK_FILE), "open")(missing));
        }
        let superblock = SuperblockFile::open(&env, directory).await?;
        let current = superblock.current();
        let log_identity =
            LogIdentity { store_id: current.identity.store_id, number: current.manifest_number };
        let (log, state) = Log::open(&env, directory, log_identity, limits).await?;
        let contents = Contents::list(&env, directory)?;
        check_superblock_is_latest(&env, directory, log_identity, &contents).await?;

        // The plan is made: from here on recovery writes.
        superblock.mend().await?;
        remove_leftovers(&env, directory, current.manifest_number, &contents).await?;
        let highest =
            contents.manifest_numbers.iter().fold(current.manifest_number, |a, &b| a.max(b));
        let manifest = Self {
            env,
            directory: directory.to_path_buf(),
            superblock,
            log,
            number_next: highest + 1,
            limits,
            poisoned: false,
            lacks_space: false,
        };
        Ok((manifest, state, current))
    }

    /// Records `edit`, which has made `state_after` out of the state before. The edit is durable
    /// when this resolves with `Ok`.
    ///
    /// After [`ManifestError::Full`] the edit is not there, and may be appended again. After any
    /// other error, or if the future is dropped before it resolves, the edit may or may not be
    /// found by the next open, and all further appends are refused with
    /// [`ManifestError::Poisoned`].
    pub async fn append(&mut self, edit: &Edit, state_after: &State) -> Result<(), ManifestError> {
        if self.poisoned {
            return Err(ManifestError::Poisoned);
        }
        // Taken back only at the end, so that a dropped future counts as a failure: its write may
        // still be under way.
        self.poisoned = true;
        let written = self.write(edit, state_after).await;
        self.poisoned = !matches!(written, Ok(()) | Err(ManifestError::Full { .. }));
        written
    }

    async fn write(&mut self, edit: &Edit, state_after: &State) -> Result<(), ManifestError> {
        if self.log.is_long()
            && let Some(log) = self.create_next(state_after).await?
        {
            return self.switch(log).await;
        }
        self.log.append(Kind::Edit, edit).await
    }

    /// The superblock in force.
    pub fn superblock(&self) -> Superblock {
        self.superblock.current()
    }

    /// Makes a new file with a snapshot of `state`; `None` if there is no space for it.
    async fn create_next(&mut self, state: &State) -> Result<Option<Log<E>>, ManifestError> {
        let number = self.number_next;
        self.number_next += 1;
        let store_id = self.superblock.current().identity.store_id;
        let identity = LogIdentity { store_id, number };
        let sequence = self.log.sequence_next();
        let created =
            Log::create(&self.env, &self.directory, identity, self.limits, sequence, state).await;
        match created {
            Err(error) if error.is_full() => {
                if !std::mem::replace(&mut self.lacks_space, true) {
                    tracing::warn!("{error}: the manifest goes on in its old file");
                }
                // Nothing names the file: what stays of it is removed by the next start.
                let _removed = self.env.remove(&self.directory.join(log::file_name(number))).await;
                Ok(None)
            }
            created => created.map(Some),
        }
    }

    /// Goes on in a new file, which holds the edit that is to be made durable.
    async fn switch(&mut self, log: Log<E>) -> Result<(), ManifestError> {
        self.lacks_space = false;
        self.superblock.advance(log.number()).await?;
        let old = std::mem::replace(&mut self.log, log);
        remove(&self.env, old.path()).await?;
        sync_directory(&self.env, &self.directory).await
    }
}

/// What a shard's superblock and manifest say, read without writing anything.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The superblock in force.
    pub superblock: Superblock,
    /// The numbers of the superblock's copies that do not hold it.
    pub bad_copies: Vec<usize>,
    /// The name of the manifest file in force.
    pub manifest_name: String,
    /// How many records that file holds, the snapshot included.
    pub records: usize,
    /// Where they end, in bytes from the start of the file.
    pub end: u64,
    /// What they come to.
    pub state: State,
    /// Files that an interrupted creation or switch has left; opening the shard removes them.
    pub leftovers: Vec<String>,
}

/// Reads superblock and manifest of the shard in `directory`, for whoever must not write.
///
/// # Errors
///
/// Those of [`Manifest::open`].
pub async fn read<E: Env>(env: &E, directory: &Path) -> Result<Reading, ManifestError> {
    if !Manifest::exists(env, directory)? {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        return Err(ManifestError::io(&directory.join(SUPERBLOCK_FILE), "open")(missing));
    }
    let (superblock, bad_copies) = superblock::read(env, directory).await?;
    let number = superblock.manifest_number;
    let identity = LogIdentity { store_id: superblock.identity.store_id, number };
    let log = log::read(env, directory, identity).await?;
    let contents = Contents::list(env, directory)?;
    check_superblock_is_latest(env, directory, identity, &contents).await?;
    Ok(Reading {
        superblock,
        bad_copies,
        manifest_name: log::file_name(number),
        records: log.records,
        end: log.end,
        state: log.state,
        leftovers: contents.leftovers(number),
    })
}

/// Refuses a superblock that was put back to an earlier state: there is a later manifest file that
/// was appended to, which happens only after the superblock has come to name it.
async fn check_superblock_is_latest<E: Env>(
    env: &E,
    directory: &Path,
    current: LogIdentity,
    contents: &Contents,
) -> Result<(), ManifestError> {
    for &number in contents.manifest_numbers.iter().filter(|&&number| number > current.number) {
        if log::holds_edits(env, directory, LogIdentity { number, ..current }).await? {
            let what = format!(
                "it is older than the directory: it names {}, but {} holds later edits",
                log::file_name(current.number),
                log::file_name(number),
            );
            let path = directory.join(SUPERBLOCK_FILE);
            return Err(ManifestError::Damaged { path, offset: 0, what });
        }
    }
    Ok(())
}

/// Removes what an interrupted switch or creation left beside the manifest file `number`.
async fn remove_leftovers<E: Env>(
    env: &E,
    directory: &Path,
    number: u64,
    contents: &Contents,
) -> Result<(), ManifestError> {
    let leftovers = contents.leftovers(number);
    if leftovers.is_empty() {
        return Ok(());
    }
    for name in leftovers {
        remove(env, &directory.join(name)).await?;
    }
    sync_directory(env, directory).await
}

/// Removes what a creation that was cut short left behind. The unfinished superblock goes last: it
/// is what tells such a directory from one that has lost its superblock.
async fn remove_unfinished_creation<E: Env>(
    env: &E,
    directory: &Path,
) -> Result<(), ManifestError> {
    let contents = Contents::list(env, directory)?;
    for &number in &contents.manifest_numbers {
        remove(env, &directory.join(log::file_name(number))).await?;
    }
    sync_directory(env, directory).await?;
    if contents.has_unfinished_superblock {
        remove(env, &directory.join(SUPERBLOCK_UNFINISHED_FILE)).await?;
        sync_directory(env, directory).await?;
    }
    Ok(())
}

async fn remove<E: Env>(env: &E, path: &Path) -> Result<(), ManifestError> {
    env.remove(path).await.map_err(ManifestError::io(path, "remove"))
}

async fn sync_directory<E: Env>(env: &E, directory: &Path) -> Result<(), ManifestError> {
    env.sync_directory(directory).await.map_err(ManifestError::io(directory, "sync"))
}
