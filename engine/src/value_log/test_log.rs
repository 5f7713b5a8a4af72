//! A log on a simulated disk, for the tests of its parts.

use std::path::{Path, PathBuf};

use larder_runtime::env::IoClass;
use larder_runtime::simulation::{SimDisk, SimEnv, SimFile, Simulation, SimulationOptions};

use super::LogSegments;
use super::commit::{Append, Appended, Durability, LogOptions, Refused, ValueLog};
use super::record::RecordKind;
use super::recovery::{self, Outcome, ReplaySegment};
use super::segment::{self, Origin, Segment, StoreIdentity};
use crate::entry::Metadata;
use crate::error::EngineError;
use crate::manifest::{LogPosition, SegmentSeal};

pub(crate) const IDENTITY: StoreIdentity = StoreIdentity { store: 77, shard: 0 };
pub(crate) const SEGMENT_BYTES: u32 = 32 << 10;
const DIRECTORY: &str = "/log";

pub(crate) type TestLog = ValueLog<SimEnv>;

/// Frames of one record each, unless several arrive while one is on its way.
pub(crate) fn options(durability: Durability) -> LogOptions {
    LogOptions {
        durability,
        frame_bytes_max: 8 << 10,
        frames_in_flight_max: 2,
        queued_bytes_max: 16 << 10,
        kept_bytes_max: 4 << 20,
        sequences_low: 4,
        lazy_frame_bytes: 6 << 10,
    }
}

pub(crate) fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

pub(crate) fn path(number: u32) -> PathBuf {
    directory().join(segment::file_name(number))
}

pub(crate) fn disk() -> SimDisk {
    let mut disk = SimDisk::new(1 << 30);
    disk.create_directory(DIRECTORY);
    disk
}

pub(crate) fn life(seed: u64, disk: SimDisk) -> Simulation {
    Simulation::with_disk(SimulationOptions::new(seed), disk)
}

pub(crate) async fn prepare(env: &SimEnv, number: u32, bytes: u32) -> Segment<SimFile> {
    let prepared =
        segment::prepare(env, directory(), IDENTITY, number, bytes, Origin::Zeroed, || {
            IoClass::Scrub
        })
        .await;
    prepared.expect("there is room")
}

/// A log whose first segment is 0 and whose first sequence is 1.
pub(crate) async fn start(env: &SimEnv, options: LogOptions) -> TestLog {
    let current = prepare(env, 0, SEGMENT_BYTES).await;
    ValueLog::start(env, directory(), IDENTITY, options, current, LogSegments::default(), (1, 1000))
}

/// Appends a value of `len` bytes that are all `fill`, under a key that says so.
pub(crate) fn append(log: &TestLog, fill: u8, len: usize) -> Result<Appended, Refused> {
    let payload = vec![fill; len];
    let metadata = Metadata { version: log.sequence_next(), ..Metadata::default() };
    let key = key(fill);
    log.append(&Append::new((RecordKind::Put, metadata), &key, &payload, None))
}

pub(crate) fn key(fill: u8) -> Vec<u8> {
    format!("key-{fill:03}").into_bytes()
}

/// Appends records 1, 2, ... of `len` bytes, each durable before the next, in as many segments as
/// it takes. Returns where they are.
pub(crate) async fn write(env: &SimEnv, log: &TestLog, count: u8, len: usize) -> Vec<Appended> {
    let mut written = Vec::new();
    let mut next_segment = 1;
    for fill in 1..=count {
        let appended = loop {
            match append(log, fill, len) {
                Ok(appended) => break appended,
                Err(Refused::NoSegment) => {
                    log.offer_segment(prepare(env, next_segment, SEGMENT_BYTES).await);
                    next_segment += 1;
                }
                Err(refused) => panic!("{refused:?}"),
            }
        };
        log.wait_durable(appended.sequence + 1).await.expect("nothing fails");
        written.push(appended);
    }
    written
}

/// A disk with records 1 to `count` in frames of their own, and where they are.
pub(crate) fn written(count: u8, len: usize) -> (SimDisk, Vec<Appended>) {
    let mut life = life(1, disk());
    let env = life.env();
    let written = life.block_on(async move {
        let log = start(&env, options(Durability::Sync)).await;
        write(&env, &log, count, len).await
    });
    (life.crash(), written.expect("nothing stops the run"))
}

/// What replay showed: sequence, fill byte of the value, and whether it was intact.
pub(crate) type Shown = Vec<(u64, u8, bool)>;

/// Replays the segments 0.. of `disk`, whose ends are known as far as `seals` says.
pub(crate) fn replay(
    disk: &SimDisk,
    segments: u32,
    seals: &[SegmentSeal],
) -> Result<(Outcome, Shown), EngineError> {
    let mut life = life(2, disk.clone());
    let (env, seals) = (life.env(), seals.to_vec());
    let replayed = life.block_on(async move {
        let mut sources = Vec::new();
        for number in 0..segments {
            let bytes = SEGMENT_BYTES;
            let segment = segment::open(&env, directory(), IDENTITY, number, bytes).await?;
            let seal = seals.iter().find(|seal| seal.segment == number).copied();
            sources.push(ReplaySegment { segment, seal });
        }
        let from = LogPosition { segment: 0, offset: 0, sequence: 1 };
        let mut shown = Shown::new();
        let outcome = recovery::replay(&env, IDENTITY.store, &sources, from, |replayed| {
            let number = replayed.record.key[4..]
                .iter()
                .fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'));
            shown.push((replayed.sequence, number as u8, replayed.payload_intact));
        })
        .await?;
        Ok((outcome, shown))
    });
    replayed.expect("nothing stops the run")
}
