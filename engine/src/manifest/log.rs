//! One manifest file: created with a snapshot, appended to, read back.

use std::io;
use std::path::{Path, PathBuf};

use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};

use super::codec;
use super::edit::{Edit, EditError};
use super::error::ManifestError;
use super::record::{
    self, Damage, HEADER_BYTES, Heading, Kind, LogIdentity, PAYLOAD_BYTES_MAX, Record,
};
use super::state::State;
use super::{FILE_BYTES_MAX, Limits};
use crate::canary::{self, Defect};
use crate::error::is_full;

/// Files are read and written in pieces of at most this many bytes.
const PIECE_BYTES: usize = 256 << 10;
const _: () = assert!(PIECE_BYTES.is_multiple_of(DISK_ALIGNMENT));

const NAME_PREFIX: &str = "MANIFEST-";

/// The name of the manifest file with this number.
pub(super) fn file_name(number: u64) -> String {
    format!("{NAME_PREFIX}{number:08}")
}

/// The number of the manifest file with this name; `None` if it is not the name of one.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    let number = name.strip_prefix(NAME_PREFIX)?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// An open manifest file.
pub(super) struct Log<E: Env> {
    env: E,
    file: E::File,
    path: PathBuf,
    identity: LogIdentity,
    limits: Limits,
    /// Where the next record starts: everything before it is durable.
    end: u64,
    /// The number of the next edit.
    sequence_next: u64,
    checksum_last: u32,
    snapshot_bytes: u64,
}

impl<E: Env> Log<E> {
    /// The file's length in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file.len()
    }

    /// Creates the file in `directory` with a snapshot of `state` as its first record, whose number
    /// is `sequence`. When this resolves with `Ok` the file, its name and the snapshot are durable.
    pub(super) async fn create(
        env: &E,
        directory: &Path,
        identity: LogIdentity,
        limits: Limits,
        sequence: u64,
        state: &State,
    ) -> Result<Self, ManifestError> {
        let path = directory.join(file_name(identity.number));
        let file = env.open(&path, OpenMode::CreateNew).await;
        let mut log = Self {
            env: env.clone(),
            file: file.map_err(ManifestError::io(&path, "create"))?,
            path,
            identity,
            limits,
            end: 0,
            sequence_next: sequence,
            checksum_last: 0,
            snapshot_bytes: 0,
        };
        log.append(Kind::Snapshot, &state.snapshot()).await?;
        log.snapshot_bytes = log.end;
        if !canary::has(Defect::SkipManifestDirectorySync) {
            let synced = env.sync_directory(directory).await;
            synced.map_err(ManifestError::io(directory, "sync"))?;
        }
        Ok(log)
    }

    /// Opens the file, makes sure that what it holds is durable, and replays it. Writes nothing.
    pub(super) async fn open(
        env: &E,
        directory: &Path,
        identity: LogIdentity,
        limits: Limits,
    ) -> Result<(Self, State), ManifestError> {
        let path = directory.join(file_name(identity.number));
        let file = open_named(env, &path, OpenMode::ReadWrite).await?;
        // Bytes that are read from a cache could still be lost: they count only once flushed.
        file.sync(IoClass::Commit).await.map_err(ManifestError::io(&path, "sync"))?;
        let contents = load(env, &file, &path, identity).await?;
        let end = contents.end;
        if contents.is_torn {
            tracing::info!(path = %path.display(), end, "dropping an unfinished append");
        }
        let log = Self {
            env: env.clone(),
            identity,
            limits,
            end,
            sequence_next: contents.sequence_last + 1,
            checksum_last: contents.checksum_last,
            snapshot_bytes: contents.snapshot_bytes,
            file,
            path,
        };
        Ok((log, contents.state))
    }

    /// Whether the next edit should start a new file instead of being appended to this one.
    pub(super) fn is_long(&self) -> bool {
        self.end > self.limits.switch_bytes.max(2 * self.snapshot_bytes)
    }

    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's number.
    pub(super) fn number(&self) -> u64 {
        self.identity.number
    }

    /// The number that the next edit gets.
    pub(super) fn sequence_next(&self) -> u64 {
        self.sequence_next
    }

    /// Appends a record. It is durable when this resolves with `Ok`.
    ///
    /// After [`ManifestError::Full`] nothing has changed. After any other error, or if the future
    /// is dropped before it resolves, the file may hold part of the record and must not be appended
    /// to.
    pub(super) async fn append(&mut self, kind: Kind, edit: &Edit) -> Result<(), ManifestError> {
        let payload = codec::encode(edit);
        if payload.len() > PAYLOAD_BYTES_MAX {
            let (bytes, max) = (payload.len(), PAYLOAD_BYTES_MAX);
            return Err(EditError::TooLarge { bytes, max }.into());
        }
        let heading = Heading {
            kind,
            sequence: self.sequence_next,
            checksum_previous: self.checksum_last,
            offset: self.end,
        };
        let (header, checksum) = record::header(self.identity, heading, &payload);
        let end = self.end + record::padded_bytes(payload.len()) as u64;
        self.reserve(end).await?;
        self.write(&header, &payload).await?;
        self.end = end;
        self.sequence_next += 1;
        self.checksum_last = checksum;
        Ok(())
    }

    /// Makes sure that the file is at least `end` bytes long. Growing is rare, so that the flush of
    /// an append has no file-system metadata to write.
    async fn reserve(&self, end: u64) -> Result<(), ManifestError> {
        if end <= self.file.len() {
            return Ok(());
        }
        let len = end.next_multiple_of(self.limits.allocation_step);
        self.file.allocate(len).await.map_err(|source| {
            if is_full(&source) {
                return ManifestError::Full { path: self.path.clone() };
            }
            ManifestError::io(&self.path, "allocate space for")(source)
        })?;
        self.sync().await
    }

    async fn sync(&self) -> Result<(), ManifestError> {
        self.file.sync(IoClass::Commit).await.map_err(ManifestError::io(&self.path, "sync"))
    }

    /// Writes a record at the end of the log and flushes it.
    async fn write(
        &self,
        header: &[u8; HEADER_BYTES],
        payload: &[u8],
    ) -> Result<(), ManifestError> {
        let total = record::padded_bytes(payload.len());
        let mut buffer = self.env.buffer(total.min(PIECE_BYTES));
        let mut written = 0;
        while written < total {
            let piece = (total - written).min(PIECE_BYTES);
            buffer.set_len(piece);
            fill_piece(&mut buffer, written, header, payload);
            let offset = self.end + written as u64;
            let result;
            (result, buffer) = if piece == total {
                self.file.write_durably(IoClass::Commit, offset, buffer).await
            } else {
                self.file.write(IoClass::Commit, offset, buffer).await
            };
            result.map_err(ManifestError::io(&self.path, "write"))?;
            written += piece;
        }
        if total > PIECE_BYTES { self.sync().await } else { Ok(()) }
    }
}

/// Fills `piece` with the bytes from `start` on of header, payload and zeros, laid end to end.
fn fill_piece(piece: &mut [u8], start: usize, header: &[u8; HEADER_BYTES], payload: &[u8]) {
    let mut filled = 0;
    for (part_start, part) in [(0, header.as_slice()), (HEADER_BYTES, payload)] {
        let skipped = (start + filled).saturating_sub(part_start).min(part.len());
        let part = &part[skipped..];
        let len = part.len().min(piece.len() - filled);
        piece[filled..filled + len].copy_from_slice(&part[..len]);
        filled += len;
    }
    piece[filled..].fill(0);
}

/// What a whole file comes to.
pub(super) struct Contents {
    pub(super) state: State,
    /// How many records there are, the snapshot included.
    pub(super) records: usize,
    /// Where the next record would start.
    pub(super) end: u64,
    /// Whether something follows that no intact record is.
    is_torn: bool,
    sequence_last: u64,
    checksum_last: u32,
    snapshot_bytes: u64,
}

/// Reads and replays the file `identity` in `directory`, which is opened for reading only.
pub(super) async fn read<E: Env>(
    env: &E,
    directory: &Path,
    identity: LogIdentity,
) -> Result<Contents, ManifestError> {
    let path = directory.join(file_name(identity.number));
    let file = open_named(env, &path, OpenMode::Read).await?;
    load(env, &file, &path, identity).await
}

/// Opens the file that the superblock names.
async fn open_named<E: Env>(
    env: &E,
    path: &Path,
    mode: OpenMode,
) -> Result<E::File, ManifestError> {
    match env.open(path, mode).await {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = "the superblock names this file, but there is none".to_owned();
            Err(ManifestError::Damaged { path: path.to_path_buf(), offset: 0, what })
        }
        Err(error) => Err(ManifestError::io(path, "open")(error)),
    }
}

async fn load<E: Env>(
    env: &E,
    file: &E::File,
    path: &Path,
    identity: LogIdentity,
) -> Result<Contents, ManifestError> {
    let bytes = read_whole(env, file, path).await?;
    let damaged = |damage: Damage| ManifestError::Damaged {
        path: path.to_path_buf(),
        offset: damage.offset as u64,
        what: damage.what,
    };
    let records = record::scan(&bytes, identity).map_err(damaged)?;
    let state = replay(&records).map_err(damaged)?;
    let first = records.first().expect("a scan finds at least the snapshot");
    let last = records.last().expect("a scan finds at least the snapshot");
    Ok(Contents {
        state,
        records: records.len(),
        end: last.end() as u64,
        is_torn: bytes.get(last.end()..).is_some_and(|tail| tail.iter().any(|&byte| byte != 0)),
        sequence_last: last.sequence,
        checksum_last: last.checksum,
        snapshot_bytes: first.end() as u64,
    })
}

/// The state that the records come to.
fn replay(records: &[Record<'_>]) -> Result<State, Damage> {
    let mut state = State::default();
    for record in records {
        let damage = |what| Damage { offset: record.offset, what };
        let edit = codec::decode(record.payload).map_err(|error| damage(error.to_string()))?;
        state.apply(&edit).map_err(|error| damage(error.to_string()))?;
    }
    Ok(state)
}

/// Whether the file `identity` in `directory` holds an edit besides its snapshot. Only a file that
/// the superblock has named does.
pub(super) async fn holds_edits<E: Env>(
    env: &E,
    directory: &Path,
    identity: LogIdentity,
) -> Result<bool, ManifestError> {
    let path = directory.join(file_name(identity.number));
    let file = env.open(&path, OpenMode::Read).await;
    let file = file.map_err(ManifestError::io(&path, "open"))?;
    let bytes = read_whole(env, &file, &path).await?;
    Ok(record::intact_record_from(&bytes, identity, DISK_ALIGNMENT).is_some())
}

/// The whole blocks of a file.
async fn read_whole<E: Env>(
    env: &E,
    file: &E::File,
    path: &Path,
) -> Result<Vec<u8>, ManifestError> {
    let len = file.len();
    if len > FILE_BYTES_MAX {
        let what = format!("the file has {len} bytes, more than a manifest can");
        let path = path.to_path_buf();
        return Err(ManifestError::Damaged { path, offset: FILE_BYTES_MAX, what });
    }
    let len = usize::try_from(len).expect("the length was checked");
    let len = len - len % DISK_ALIGNMENT;
    let mut bytes = Vec::with_capacity(len);
    let mut buffer = env.buffer(len.min(PIECE_BYTES));
    while bytes.len() < len {
        buffer.set_len((len - bytes.len()).min(PIECE_BYTES));
        let result;
        (result, buffer) = file.read(IoClass::Read, bytes.len() as u64, buffer).await;
        result.map_err(ManifestError::io(path, "read"))?;
        bytes.extend_from_slice(&buffer);
    }
    Ok(bytes)
}

/// The state that the bytes of a file come to.
pub(super) fn recover(bytes: &[u8], identity: LogIdentity) -> Result<State, Damage> {
    replay(&record::scan(bytes, identity)?)
}
