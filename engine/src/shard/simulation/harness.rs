//! What all simulated tests share: chance, small geometries, and seeds.

use std::path::PathBuf;
use std::rc::Rc;

use larder_runtime::file_cache::FileCache;
use larder_runtime::random::Random;
use larder_runtime::simulation::{SimDisk, SimEnv, Simulation, SimulationOptions};

use super::history::Name;
use super::oracle::Item;
use crate::entry::Pointer;
use crate::error::EngineError;
use crate::index::compaction::picker::PickerOptions;
use crate::index::table::{TableOptions, key_hash};
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::large::LargeOptions;
use crate::shard::locate::Place;
use crate::shard::{OpenReport, RangeOptions, Shard, ShardOptions};
use crate::value_log::{Durability, LogOptions};

/// The simulation behind a bound of open files, as the node has it.
pub(super) type TestEnv = FileCache<SimEnv>;

pub(super) type TestShard = Rc<Shard<TestEnv>>;

/// More files than any test has.
pub(super) const FILES_MAX: usize = 4096;

/// Where the shard of most tests lives.
pub(super) const DIRECTORY: &str = "/data/shard-000";

/// Where the shard with this number lives.
pub(super) fn directory_of(shard: u16) -> PathBuf {
    PathBuf::from(format!("/data/shard-{shard:03}"))
}

/// A geometry in which a few hundred operations fill memtables, segments and levels.
pub(super) fn tiny_options() -> ShardOptions {
    ShardOptions {
        shard: 0,
        shards: 1,
        segment_bytes: 64 << 10,
        memtable_bytes: 8 << 10,
        inline_bytes_max: 32,
        compress_from: None,
        value_bytes_max: 256 << 10,
        item_cache_bytes: 0,
        block_cache_bytes: 0,
        dead_records_bytes: 64 << 10,
        listed_records_bytes: 1 << 20,
        table_memory_bytes: 0,
        disk_reserve_bytes: 2 << 20,
        free_segments_max: 2,
        recovery_log_bytes: 512 << 10,
        recovery_log_nanoseconds: 60_000_000_000,
        space_amplification_percent: 150,
        collect_bytes_per_second: None,
        scrub: crate::scrub::ScrubOptions::default(),
        budget: larder_runtime::disk_budget::DiskBudget::new(None),
        version_step: 1 << 20,
        log: LogOptions {
            durability: Durability::Sync,
            frame_bytes_max: 16 << 10,
            frames_in_flight_max: 2,
            queued_bytes_max: 64 << 10,
            kept_bytes_max: 4 << 20,
            sequences_low: 1 << 10,
            lazy_frame_bytes: 8 << 10,
        },
        tables: TableOptions {
            block_bytes: 4096,
            table_bytes: 32 << 10,
            bloom_bits_per_key: 10,
            restart_interval: 4,
        },
        ranges: RangeOptions {
            bytes_max: 8 << 10,
            round_nanoseconds: 20_000_000,
            unflushed_nanoseconds_max: 100_000_000,
        },
        large: LargeOptions {
            chunk_bytes_max: 700,
            staging_seconds: 1000,
            first_chunk_seconds: 100,
            staged_max: 64,
            staged_bytes_max: 1 << 20,
            round_nanoseconds: 20_000_000,
        },
        picker: PickerOptions {
            level_zero_runs: 3,
            level_one_bytes: 96 << 10,
            level_factor: 2,
            levels_max: 4,
            level_zero_tables: 8,
            merge_bytes: 128 << 10,
            merge_bytes_min: 16 << 10,
            ..PickerOptions::default()
        },
    }
}

/// A small geometry chosen by chance.
pub(super) fn random_options(random: &mut Random) -> ShardOptions {
    let mut options = tiny_options();
    options.segment_bytes = random.pick(&[64 << 10, 128 << 10, 256 << 10]);
    options.scrub = crate::scrub::ScrubOptions {
        bytes_per_second: Some(64 << 20),
        rest_nanoseconds: 5_000_000,
    };
    options.compress_from = random.pick(&[None, Some(1), Some(100), Some(600)]);
    options.memtable_bytes = random.pick(&[2 << 10, 4 << 10, 8 << 10, 16 << 10]);
    options.item_cache_bytes = random.pick(&[0, 16 << 10, 256 << 10]);
    options.block_cache_bytes = random.pick(&[0, 32 << 10]);
    options.dead_records_bytes = random.pick(&[0, 2 << 10, 64 << 10]);
    options.listed_records_bytes = random.pick(&[0, 128 << 10, 1 << 20]);
    // The caches give room up from the first tables on.
    options.table_memory_bytes = options.item_cache_bytes / 64;
    options.free_segments_max = random.pick(&[0, 1, 4]);
    options.recovery_log_bytes = random.pick(&[64 << 10, 256 << 10, 4 << 20]);
    options.space_amplification_percent = random.pick(&[110, 150, 300]);
    options.version_step = random.pick(&[64, 1000, 1 << 20]);
    options.log.durability = random.pick(&[
        Durability::Sync,
        Durability::Sync,
        Durability::Interval(2_000_000),
        Durability::None,
    ]);
    options.log.frame_bytes_max = random.pick(&[4 << 10, 16 << 10, 64 << 10]);
    options.log.frames_in_flight_max = random.pick(&[1, 2, 4]);
    options.log.queued_bytes_max = random.pick(&[8 << 10, 64 << 10]);
    options.log.sequences_low = random.pick(&[16, 500]);
    options.log.lazy_frame_bytes = random.pick(&[1 << 10, 8 << 10]);
    options.tables.block_bytes = random.pick(&[512, 1024, 4096]);
    options.tables.restart_interval = random.pick(&[1, 4, 16]);
    options.picker.level_zero_runs = random.pick(&[1, 2, 4]);
    options.picker.level_one_bytes = random.pick(&[64 << 10, 200 << 10]);
    options.picker.levels_max = random.pick(&[2, 3, 5]);
    options
}

/// A disk of `capacity_bytes` with the directory that the shard's is made in.
pub(super) fn empty_disk(capacity_bytes: u64) -> SimDisk {
    let mut disk = SimDisk::new(capacity_bytes);
    disk.create_directory("/data");
    disk
}

pub(super) const CAPACITY: u64 = 1 << 30;

/// A life on `disk` without faults.
pub(super) fn life(seed: u64, disk: SimDisk) -> Simulation {
    Simulation::with_disk(SimulationOptions::new(seed), disk)
}

pub(super) async fn open(
    env: SimEnv,
    options: ShardOptions,
) -> Result<(TestShard, OpenReport), EngineError> {
    open_over(FileCache::new(env, FILES_MAX), options).await
}

/// The same over the files of a core, which may have other shards.
pub(super) async fn open_over(
    files: TestEnv,
    options: ShardOptions,
) -> Result<(TestShard, OpenReport), EngineError> {
    let directory = directory_of(options.shard);
    Shard::open(files, &directory, options).await
}

/// Opens the shard in a life that nothing disturbs.
pub(super) fn open_in(
    simulation: &mut Simulation,
    options: &ShardOptions,
) -> (TestShard, OpenReport) {
    let opening = open(simulation.env(), options.clone());
    simulation.block_on(opening).expect("nothing stops the run").expect("the shard opens")
}

/// What the shard holds for a key, whether it has expired or not.
pub(super) async fn stored(shard: &TestShard, name: &Name) -> Result<Option<Item>, EngineError> {
    let mut encoded = name.as_key().encode();
    shard.state.borrow().set_generation(name.namespace, &mut encoded);
    let located = shard.locate(&encoded, key_hash(&encoded), 0, true).await?;
    Ok((located.place != Place::Absent).then(|| Item {
        metadata: located.metadata,
        value: located.value.expect("the value was asked for"),
    }))
}

/// Where the value of a key lies in the log.
pub(super) fn pointer(shard: &TestShard, record: &[u8]) -> Option<Pointer> {
    let mut encoded = Key::memcached(record).encode();
    let mut state = shard.state.borrow_mut();
    state.set_generation(DEFAULT_NAMESPACE, &mut encoded);
    shard.locate_resident(&mut state, &encoded, key_hash(&encoded), 0)?.pointer()
}

/// Runs `test` for the seeds that the environment asks for, or `count` from `first` on.
pub(super) fn for_each_seed(name: &str, first: u64, count: u64, test: impl Fn(u64)) {
    larder_runtime::simulation::for_each_seed(("larder-engine", name), first, count, test);
}
