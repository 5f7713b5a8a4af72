//! Segment files: their names, headers, and how one is made ready to be written to.

use std::path::Path;

use larder_runtime::env::{DISK_ALIGNMENT, Env, File, IoClass, OpenMode};

use crate::canary::{self, Defect};
use crate::error::EngineError;

/// The bytes of a segment before its first frame.
pub const HEADER_BYTES: u32 = DISK_ALIGNMENT as u32;

/// How much is zeroed with one write while a new segment is prepared.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"LARDSEG\0";
const FORMAT: u16 = 1;

/// An open segment.
#[derive(Clone)]
pub struct Segment<F> {
    /// The segment's number; later segments have higher numbers.
    pub number: u32,
    /// The file's length in bytes.
    pub bytes: u32,
    /// The file.
    pub file: F,
}

/// Whose segments these are: part of every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreIdentity {
    /// The store's random id.
    pub store: u128,
    /// The shard's index in the store.
    pub shard: u16,
}

/// The file name of a segment.
pub fn file_name(number: u32) -> String {
    format!("segment-{number:08x}.log")
}

/// The number of the segment with this file name, if it is one.
pub fn parse_file_name(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

/// Where a new segment's file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A new file, zeroed so that later writes change no file system metadata: for the log, whose
    /// small writes are waited for one by one.
    Zeroed,
    /// A new file whose blocks are only allocated: for what is written once, in long frames, where
    /// zeros would be as many bytes again. A file system that allocates without keeping the space
    /// may then refuse a frame.
    Allocated,
    /// The file of a freed segment, which keeps its blocks.
    Recycled(u32),
}

/// Makes the file of segment `number` ready to be written to: durable name, space and header.
///
/// The caller records the segment in the manifest before it writes the first frame. `class` is
/// asked for each request: somebody may come to wait for the segment while it is being filled.
pub async fn prepare<E: Env>(
    env: &E,
    directory: &Path,
    identity: StoreIdentity,
    number: u32,
    bytes: u32,
    origin: Origin,
    class: impl Fn() -> IoClass,
) -> Result<Segment<E::File>, EngineError> {
    let path = directory.join(file_name(number));
    let failed = |operation: &'static str| {
        let path = path.clone();
        move |source: std::io::Error| EngineError::io(&path, operation, &source)
    };
    let file = match origin {
        Origin::Recycled(old) => {
            let old_path = directory.join(file_name(old));
            env.rename(&old_path, &path).await.map_err(failed("renaming a segment to"))?;
            env.open(&path, OpenMode::ReadWrite).await.map_err(failed("opening"))?
        }
        Origin::Zeroed | Origin::Allocated => {
            let file = env.open(&path, OpenMode::CreateNew).await.map_err(failed("creating"))?;
            let mut made = file.allocate(u64::from(bytes)).await;
            if made.is_ok() && origin == Origin::Zeroed {
                made = fill_with_zeros(env, &file, u64::from(bytes), &class).await;
            }
            if let Err(error) = made {
                drop(file);
                env.remove(&path).await.map_err(failed("removing"))?;
                return Err(EngineError::io(&path, "preparing", &error));
            }
            file
        }
    };
    let mut header = env.buffer(HEADER_BYTES as usize);
    encode_header(&mut header, identity, number, bytes);
    let (result, _) = file.write_durably(class(), 0, header).await;
    if let Err(error) = result {
        drop(file);
        // The next attempt makes the file of this number once more.
        if !matches!(origin, Origin::Recycled(_)) {
            env.remove(&path).await.map_err(failed("removing"))?;
        }
        return Err(EngineError::io(&path, "writing the header of", &error));
    }
    if !canary::has(Defect::SkipSegmentDirectorySync) {
        env.sync_directory(directory).await.map_err(failed("syncing the directory of"))?;
    }
    Ok(Segment { number, bytes, file })
}

async fn fill_with_zeros<E: Env>(
    env: &E,
    file: &E::File,
    bytes: u64,
    class: &impl Fn() -> IoClass,
) -> std::io::Result<()> {
    let mut buffer = env.buffer(ZERO_CHUNK_BYTES.min(bytes as usize));
    buffer.fill(0);
    let mut offset = 0;
    while offset < bytes {
        buffer.set_len(buffer.capacity().min((bytes - offset) as usize));
        let len = buffer.len() as u64;
        let (result, back) = file.write(class(), offset, buffer).await;
        result?;
        buffer = back;
        offset += len;
    }
    Ok(())
}

/// Opens a segment that the manifest knows and that has no seal, for a start that goes through it.
/// A damaged header is reported, not refused: every frame and record carries its own identity.
///
/// # Errors
///
/// [`EngineError::Open`], whose text names the file.
pub async fn open<E: Env>(
    env: &E,
    directory: &Path,
    identity: StoreIdentity,
    number: u32,
    bytes: u32,
) -> Result<Segment<E::File>, EngineError> {
    let path = directory.join(file_name(number));
    let segment = open_file(env, &path, number, bytes).await.map_err(EngineError::Open)?;
    // What a direct read returns may still be in the device's cache only.
    segment
        .file
        .sync(IoClass::Scrub)
        .await
        .map_err(|source| EngineError::Open(format!("syncing {}: {source}", path.display())))?;
    check_header(env, &path, &segment, identity).await;
    Ok(segment)
}

/// Opens a sealed segment, all of which is durable, for whoever reads it first.
///
/// # Errors
///
/// [`EngineError::Read`], whose text names the file.
pub async fn open_sealed<E: Env>(
    env: &E,
    directory: &Path,
    identity: StoreIdentity,
    number: u32,
    bytes: u32,
) -> Result<Segment<E::File>, EngineError> {
    let path = directory.join(file_name(number));
    let segment = open_file(env, &path, number, bytes).await.map_err(EngineError::Read)?;
    check_header(env, &path, &segment, identity).await;
    Ok(segment)
}

async fn open_file<E: Env>(
    env: &E,
    path: &Path,
    number: u32,
    bytes: u32,
) -> Result<Segment<E::File>, String> {
    let opened = env.open(path, OpenMode::ReadWrite).await;
    let file = opened
        .map_err(|source| format!("opening the value log segment {}: {source}", path.display()))?;
    check_len(path, Some(file.len()), bytes)?;
    Ok(Segment { number, bytes, file })
}

/// Holds the length of a segment's file, if there is one, against what the manifest says. Returns
/// what is wrong with it.
pub(crate) fn check_len(path: &Path, found: Option<u64>, bytes: u32) -> Result<(), String> {
    let what = match found {
        None => "the manifest names it, but it is not there".to_owned(),
        Some(len) if len < u64::from(bytes) => {
            format!("{len} bytes long, but the manifest says {bytes}: the file was cut short")
        }
        Some(_) => return Ok(()),
    };
    Err(format!("{}: {what}; restore the directory from a backup", path.display()))
}

async fn check_header<E: Env>(
    env: &E,
    path: &Path,
    segment: &Segment<E::File>,
    identity: StoreIdentity,
) {
    let buffer = env.buffer(HEADER_BYTES as usize);
    let (result, header) = segment.file.read(IoClass::Scrub, 0, buffer).await;
    if result.is_err() || !header_matches(&header, identity, segment.number) {
        tracing::error!(path = %path.display(), "the segment's header is damaged; reading on");
    }
}

/// Writes the header of a segment over `out`, which is [`HEADER_BYTES`] long.
pub(crate) fn encode_header(out: &mut [u8], identity: StoreIdentity, number: u32, bytes: u32) {
    out.fill(0);
    out[..8].copy_from_slice(MAGIC);
    out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    out[10..12].copy_from_slice(&identity.shard.to_le_bytes());
    out[12..16].copy_from_slice(&number.to_le_bytes());
    out[16..32].copy_from_slice(&identity.store.to_le_bytes());
    out[32..36].copy_from_slice(&bytes.to_le_bytes());
    let crc = crc32c::crc32c(&out[..36]);
    out[36..40].copy_from_slice(&crc.to_le_bytes());
}

/// Whether these are the bytes of the header of this segment.
pub fn header_matches(header: &[u8], identity: StoreIdentity, number: u32) -> bool {
    if header.len() < 40 {
        return false;
    }
    let mut expected = [0u8; 32];
    expected[..8].copy_from_slice(MAGIC);
    expected[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    expected[10..12].copy_from_slice(&identity.shard.to_le_bytes());
    expected[12..16].copy_from_slice(&number.to_le_bytes());
    expected[16..32].copy_from_slice(&identity.store.to_le_bytes());
    let crc = crc32c::crc32c(&header[..36]);
    header[..32] == expected && header[36..40] == crc.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use larder_runtime::simulation::{
        FailOperation, Failure, FaultPlan, OperationKind, OperationKinds,
    };

    use super::*;
    use crate::value_log::test_log::{IDENTITY, directory, disk, life};

    #[test]
    fn names_round_trip_and_others_are_refused() {
        assert_eq!(parse_file_name(&file_name(0x1f)), Some(0x1f));
        for name in ["segment-1f.log", "segment-0000001F.log", "segment-00000001", "MANIFEST-1"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    /// Zeros would be as many bytes again as what collection moves.
    #[test]
    fn only_the_logs_new_files_are_filled_with_zeros() {
        let mut life = life(1, disk());
        let env = life.env();
        let written_for = async |number, origin| {
            let before = env.operations_of(OperationKinds::of(&[OperationKind::Write]));
            let class = || IoClass::Scrub;
            let made = prepare(&env, directory(), IDENTITY, number, 4 << 20, origin, class).await;
            assert_eq!(made.expect("there is room").file.len(), 4 << 20);
            env.operations_of(OperationKinds::of(&[OperationKind::Write])) - before
        };
        let written = life.block_on(async {
            [written_for(1, Origin::Zeroed).await, written_for(2, Origin::Allocated).await]
        });
        assert_eq!(written.expect("runs"), [5, 1]);
    }

    #[test]
    fn a_new_file_whose_header_finds_no_room_does_not_stay() {
        let mut life = life(1, disk());
        let env = life.env();
        let made = life.block_on(async {
            let writes = OperationKinds::of(&[OperationKind::Write]);
            let fail_operation = Some(FailOperation::once(0, Failure::NoSpace).among(writes));
            env.set_faults(FaultPlan { fail_operation, ..FaultPlan::default() });
            let class = || IoClass::Scrub;
            let make =
                || prepare(&env, directory(), IDENTITY, 1, 1 << 20, Origin::Allocated, class);
            let refused = make().await.err();
            assert!(matches!(refused, Some(EngineError::Full)), "{refused:?}");
            make().await.is_ok()
        });
        assert!(made.expect("runs"), "the file of the first attempt is in the way");
    }

    #[test]
    fn a_header_is_this_stores_and_this_segments() {
        let identity = StoreIdentity { store: 9, shard: 1 };
        let mut header = vec![0; HEADER_BYTES as usize];
        encode_header(&mut header, identity, 4, 1 << 20);
        assert!(header_matches(&header, identity, 4));
        assert!(!header_matches(&header, identity, 5));
        assert!(!header_matches(&header, StoreIdentity { store: 8, shard: 1 }, 4));
        header[33] ^= 1;
        assert!(!header_matches(&header, identity, 4));
    }
}
