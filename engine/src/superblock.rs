//! The superblock: who a shard is, and which manifest file is in force.
//!
//! The file `SUPERBLOCK` holds [`COPIES`] copies of one block. FORMAT.md draws the bytes;
//! magic, format version, checksum and sequence are where they are in every format, so that any
//! version recognises any other's directory.
//!
//! A new block goes to copies 0 and 1, and only when those are durable to copies 2 and 3. So there
//! are two good copies of the old block or of the new one at any moment, and the newest block with
//! [`QUORUM`] copies is the one in force. A newer block with a single copy is a write that a crash
//! cut short, and does not count. Without a quorum, which takes damage at rest, a single good copy
//! is accepted if it is the only one: nothing contradicts it, and the manifest file that it names
//! must still be there and intact. Good copies that disagree without a quorum are refused, since
//! nothing tells the stale one from the one in force.

use std::io;
use std::path::{Path, PathBuf};

use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};

use crate::manifest::ManifestError;

#[cfg(test)]
mod tests;

/// The superblock's file in a shard's directory.
pub const SUPERBLOCK_FILE: &str = "SUPERBLOCK";

/// The superblock's file while the shard is being created.
pub(crate) const SUPERBLOCK_UNFINISHED_FILE: &str = "SUPERBLOCK.new";

/// The version of the disk format of everything in a shard's directory.
pub const FORMAT_VERSION: u32 = 6;

/// How many copies of the block the file holds.
pub const COPIES: usize = 4;

/// How many equal copies make a block the one in force.
pub const QUORUM: usize = 2;

/// The length of a copy in bytes.
const BLOCK_BYTES: usize = 4096;
const _: () = assert!(BLOCK_BYTES.is_multiple_of(DISK_ALIGNMENT));

const MAGIC: [u8; 8] = *b"LARDERSB";
const FORMAT_AT: usize = MAGIC.len();
const CHECKSUM_AT: usize = FORMAT_AT + size_of::<u32>();
const SEQUENCE_AT: usize = CHECKSUM_AT + size_of::<u32>();
const STORE_ID_AT: usize = SEQUENCE_AT + size_of::<u64>();
const MANIFEST_NUMBER_AT: usize = STORE_ID_AT + size_of::<u128>();
const ROUTE_SEED_AT: usize = MANIFEST_NUMBER_AT + size_of::<u64>();
const SEGMENT_BYTES_AT: usize = ROUTE_SEED_AT + size_of::<u64>();
const SHARD_INDEX_AT: usize = SEGMENT_BYTES_AT + size_of::<u32>();
const SHARD_COUNT_AT: usize = SHARD_INDEX_AT + size_of::<u16>();
const FIELDS_END: usize = SHARD_COUNT_AT + size_of::<u16>();
const _: () = assert!(FIELDS_END == 64);

/// What is decided when a shard is created and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardIdentity {
    /// The store's random id, the same in all its shards. It seeds every checksum.
    pub store_id: u128,
    /// Which of the store's shards this is.
    pub shard_index: u16,
    /// How many shards the store has.
    pub shard_count: u16,
    /// The seed of the hash that routes a record to its shard.
    pub route_seed: u64,
    /// The length of a standard segment file in bytes, a multiple of [`DISK_ALIGNMENT`].
    pub segment_bytes: u32,
}

impl ShardIdentity {
    fn is_valid(&self) -> bool {
        self.shard_index < self.shard_count
            && self.segment_bytes > 0
            && (self.segment_bytes as usize).is_multiple_of(DISK_ALIGNMENT)
    }
}

/// The contents of the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Goes up by one with every change.
    pub sequence: u64,
    /// Who the shard is.
    pub identity: ShardIdentity,
    /// The number of the manifest file in force.
    pub manifest_number: u64,
}

type Block = [u8; BLOCK_BYTES];

/// The copies; `None` for those that could not be read.
type Copies = [Option<Box<Block>>; COPIES];

impl Superblock {
    fn encode(&self) -> Block {
        let mut block = [0; BLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(FORMAT_AT, &FORMAT_VERSION.to_le_bytes());
        put(SEQUENCE_AT, &self.sequence.to_le_bytes());
        put(STORE_ID_AT, &self.identity.store_id.to_le_bytes());
        put(MANIFEST_NUMBER_AT, &self.manifest_number.to_le_bytes());
        put(ROUTE_SEED_AT, &self.identity.route_seed.to_le_bytes());
        put(SEGMENT_BYTES_AT, &self.identity.segment_bytes.to_le_bytes());
        put(SHARD_INDEX_AT, &self.identity.shard_index.to_le_bytes());
        put(SHARD_COUNT_AT, &self.identity.shard_count.to_le_bytes());
        let checksum = checksum(&block);
        block[CHECKSUM_AT..SEQUENCE_AT].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// The fields of an intact block of this format; `None` if they make no sense.
    fn decode(block: &Block) -> Option<Self> {
        let identity = ShardIdentity {
            store_id: u128::from_le_bytes(field(block, STORE_ID_AT)),
            shard_index: u16::from_le_bytes(field(block, SHARD_INDEX_AT)),
            shard_count: u16::from_le_bytes(field(block, SHARD_COUNT_AT)),
            route_seed: u64::from_le_bytes(field(block, ROUTE_SEED_AT)),
            segment_bytes: u32::from_le_bytes(field(block, SEGMENT_BYTES_AT)),
        };
        let manifest_number = u64::from_le_bytes(field(block, MANIFEST_NUMBER_AT));
        let sequence = sequence(block);
        // The highest numbers are left free so that the next ones exist.
        let in_range = manifest_number < u64::MAX && sequence < u64::MAX && identity.is_valid();
        in_range.then_some(Self { sequence, identity, manifest_number })
    }
}

fn field<const N: usize>(block: &Block, at: usize) -> [u8; N] {
    block[at..at + N].try_into().expect("a field lies inside the block")
}

fn format_version(block: &Block) -> u32 {
    u32::from_le_bytes(field(block, FORMAT_AT))
}

fn sequence(block: &Block) -> u64 {
    u64::from_le_bytes(field(block, SEQUENCE_AT))
}

/// The CRC32C of all of the block but the checksum itself.
fn checksum(block: &Block) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..CHECKSUM_AT]), &block[SEQUENCE_AT..])
}

fn is_intact(block: &Block) -> bool {
    block.starts_with(&MAGIC) && u32::from_le_bytes(field(block, CHECKSUM_AT)) == checksum(block)
}

/// Why no superblock could be made out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Damaged(&'static str),
    WrongFormat(u32),
}

/// The superblock in force, given the copies that could be read.
fn choose(copies: &Copies) -> Result<Superblock, Refusal> {
    let read = || copies.iter().flatten().map(|copy| &**copy);
    let intact: Vec<&Block> = read().filter(|block| is_intact(block)).collect();
    let votes = |block: &Block| intact.iter().filter(|other| **other == block).count();
    let backed = || intact.iter().copied().filter(|block| votes(block) >= QUORUM);
    let winner = match (backed().max_by_key(|block| sequence(block)), intact.as_slice()) {
        (Some(winner), _) => winner,
        (None, [only]) => only,
        (None, []) => return Err(refusal_without_intact_copy(read())),
        (None, _) => return Err(Refusal::Damaged("its copies disagree")),
    };
    if backed().any(|block| sequence(block) == sequence(winner) && block != winner) {
        return Err(Refusal::Damaged("its copies disagree"));
    }
    if format_version(winner) != FORMAT_VERSION {
        return Err(Refusal::WrongFormat(format_version(winner)));
    }
    Superblock::decode(winner).ok_or(Refusal::Damaged("its fields are out of range"))
}

/// Tells a format whose blocks this version cannot check from damage: several copies say so.
fn refusal_without_intact_copy<'a>(copies: impl Iterator<Item = &'a Block>) -> Refusal {
    let mut others: Vec<u32> = copies
        .filter(|block| block.starts_with(&MAGIC))
        .map(format_version)
        .filter(|&version| version != FORMAT_VERSION)
        .collect();
    others.sort_unstable();
    match others.windows(QUORUM).find(|versions| versions.iter().all(|v| *v == versions[0])) {
        Some(versions) => Refusal::WrongFormat(versions[0]),
        None => Refusal::Damaged("none of its copies is intact"),
    }
}

/// The superblock in force in a file of these bytes, if one is.
pub(crate) fn choose_from(bytes: &[u8]) -> Option<Superblock> {
    let mut copies = Copies::default();
    let (blocks, _rest) = bytes.as_chunks::<BLOCK_BYTES>();
    for (copy, block) in copies.iter_mut().zip(blocks) {
        *copy = Some(Box::new(*block));
    }
    choose(&copies).ok()
}

/// Puts the checksums of all copies right in a file of these bytes.
pub(crate) fn seal_copies(bytes: &mut [u8]) {
    let (blocks, _rest) = bytes.as_chunks_mut::<BLOCK_BYTES>();
    for block in blocks {
        let checksum = checksum(block);
        block[CHECKSUM_AT..SEQUENCE_AT].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// The bytes of a file as they are written.
pub(crate) fn decoders_seed() -> Vec<u8> {
    let identity = ShardIdentity {
        store_id: 7,
        shard_index: 1,
        shard_count: 4,
        route_seed: 0,
        segment_bytes: 64 << 20,
    };
    Superblock { sequence: 3, identity, manifest_number: 2 }.encode().repeat(COPIES)
}

/// The open file of the superblock.
pub(crate) struct SuperblockFile<E: Env> {
    env: E,
    file: E::File,
    path: PathBuf,
    current: Superblock,
    /// Which copies do not hold the current block.
    bad_copies: Vec<usize>,
}

impl<E: Env> SuperblockFile<E> {
    /// Writes the superblock of a shard that is being created, under the name that says so. The
    /// contents are durable when this resolves with `Ok`, the name is not.
    pub(crate) async fn create_unfinished(
        env: &E,
        directory: &Path,
        superblock: Superblock,
    ) -> Result<(), ManifestError> {
        assert!(superblock.identity.is_valid(), "impossible shard: {:?}", superblock.identity);
        let path = directory.join(SUPERBLOCK_UNFINISHED_FILE);
        let file = env.open(&path, OpenMode::CreateNew).await;
        let file = file.map_err(ManifestError::io(&path, "create"))?;
        let new = Self { env: env.clone(), file, path, current: superblock, bad_copies: vec![] };
        new.write(&superblock, 0..COPIES).await
    }

    /// Opens the file and decides which block is in force. Writes nothing.
    pub(crate) async fn open(env: &E, directory: &Path) -> Result<Self, ManifestError> {
        let path = directory.join(SUPERBLOCK_FILE);
        let file = env.open(&path, OpenMode::ReadWrite).await;
        let file = file.map_err(ManifestError::io(&path, "open"))?;
        // Bytes that are read from a cache could still be lost: they count only once flushed.
        file.sync(IoClass::Commit).await.map_err(ManifestError::io(&path, "sync"))?;
        let (current, bad_copies) = decide(env, &file, &path).await?;
        Ok(Self { env: env.clone(), file, path, current, bad_copies })
    }

    /// The superblock in force.
    pub(crate) fn current(&self) -> Superblock {
        self.current
    }

    /// Rewrites the copies that did not hold the block in force. All copies are good and durable
    /// when this resolves with `Ok`; a crash before that leaves the good ones untouched.
    pub(crate) async fn mend(&self) -> Result<(), ManifestError> {
        if self.bad_copies.is_empty() {
            return Ok(());
        }
        tracing::warn!(path = %self.path.display(), copies = ?self.bad_copies, "mending copies");
        self.write(&self.current, self.bad_copies.iter().copied()).await
    }

    /// Makes another manifest file the one in force: durable when this resolves with `Ok`. A crash
    /// before that leaves the old block in force or the new one.
    ///
    /// After an error or a dropped future the file must be opened anew before it is written to.
    pub(crate) async fn advance(&mut self, manifest_number: u64) -> Result<(), ManifestError> {
        let sequence = self.current.sequence + 1;
        let next = Superblock { sequence, manifest_number, ..self.current };
        self.write(&next, 0..QUORUM).await?;
        self.write(&next, QUORUM..COPIES).await?;
        self.current = next;
        Ok(())
    }

    /// Writes `superblock` to the given copies and flushes them.
    async fn write(
        &self,
        superblock: &Superblock,
        copies: impl Iterator<Item = usize>,
    ) -> Result<(), ManifestError> {
        let mut buffer = self.env.buffer(BLOCK_BYTES);
        buffer.copy_from_slice(&superblock.encode());
        for copy in copies {
            let result;
            (result, buffer) = self.file.write(IoClass::Commit, copy_offset(copy), buffer).await;
            result.map_err(ManifestError::io(&self.path, "write"))?;
        }
        self.file.sync(IoClass::Commit).await.map_err(ManifestError::io(&self.path, "sync"))
    }
}

/// The superblock in force, and the numbers of the copies that do not hold it. The file is opened
/// for reading only.
pub(crate) async fn read<E: Env>(
    env: &E,
    directory: &Path,
) -> Result<(Superblock, Vec<usize>), ManifestError> {
    let path = directory.join(SUPERBLOCK_FILE);
    let file = env.open(&path, OpenMode::Read).await;
    let file = file.map_err(ManifestError::io(&path, "open"))?;
    decide(env, &file, &path).await
}

/// Reads the copies and decides which block is in force; with the copies that do not hold it.
async fn decide<E: Env>(
    env: &E,
    file: &E::File,
    path: &Path,
) -> Result<(Superblock, Vec<usize>), ManifestError> {
    let path = || path.to_path_buf();
    let (copies, error) = read_copies(env, file).await;
    let current = match (choose(&copies), error) {
        (Ok(superblock), _) => superblock,
        (Err(Refusal::WrongFormat(found)), _) => {
            let supported = FORMAT_VERSION;
            return Err(ManifestError::WrongFormat { path: path(), found, supported });
        }
        (Err(Refusal::Damaged(_)), Some(error)) => {
            return Err(ManifestError::io(&path(), "read")(error));
        }
        (Err(Refusal::Damaged(what)), None) => {
            let what = what.to_owned();
            return Err(ManifestError::Damaged { path: path(), offset: 0, what });
        }
    };
    let block = current.encode();
    let bad = |index: &usize| copies[*index].as_deref() != Some(&block);
    Ok((current, (0..COPIES).filter(bad).collect()))
}

fn copy_offset(copy: usize) -> u64 {
    (copy * BLOCK_BYTES) as u64
}

/// Reads the copies one by one, so that an unreadable sector costs one of them; with the first
/// error.
async fn read_copies<E: Env>(env: &E, file: &E::File) -> (Copies, Option<io::Error>) {
    let mut copies = Copies::default();
    let mut first_error = None;
    for (index, copy) in copies.iter_mut().enumerate() {
        if file.len() < copy_offset(index + 1) {
            break;
        }
        let buffer = env.buffer(BLOCK_BYTES);
        match file.read(IoClass::Read, copy_offset(index), buffer).await {
            (Ok(()), buffer) => {
                let block: &Block = buffer[..].try_into().expect("the buffer is one block");
                *copy = Some(Box::new(*block));
            }
            (Err(error), _) => first_error = first_error.or(Some(error)),
        }
    }
    (copies, first_error)
}
