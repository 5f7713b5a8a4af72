//! What a start opens: what it has to go through, several files at a time. The rest is opened when
//! it is first read.

use std::path::{Path, PathBuf};

use larder_runtime::env::Env;
use larder_runtime::file_cache::FileCache;
use larder_runtime::simulation::{
    FaultPlan, OperationKind, OperationKinds, SimDisk, SimEnv, Simulation,
};

use super::harness::{self, TestShard, tiny_options};
use super::smoke::{get, run, set};
use crate::index::table;
use crate::operation::Outcome;
use crate::shard::ShardOptions;
use crate::value_log::segment;

/// How long a request to the device takes, in nanoseconds.
const LATENCY: u64 = 10_000_000;

const VALUES: usize = 400;
const VALUE_BYTES: usize = 3000;

fn key(number: usize) -> Vec<u8> {
    format!("key-{number:05}").into_bytes()
}

async fn check(shard: TestShard) {
    for number in 0..VALUES {
        let reply = run(&shard, &key(number), get()).await;
        assert_eq!(reply.outcome, Outcome::Hit, "key {number}");
        assert_eq!(reply.value, vec![number as u8; VALUE_BYTES], "key {number}");
    }
}

/// A shard of many tables and segments that nobody merges or collects.
fn options() -> ShardOptions {
    let mut options = ShardOptions { memtable_bytes: 1 << 10, ..tiny_options() };
    options.picker.level_zero_runs = 10_000;
    options.picker.level_zero_tables = 10_000;
    options.space_amplification_percent = 10_000;
    options.scrub.bytes_per_second = None;
    options
}

/// The disk of such a shard after a clean end, and the paths of its segments and tables.
fn filled() -> (SimDisk, Vec<PathBuf>, Vec<PathBuf>) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    life.block_on(async move {
        for number in 0..VALUES {
            let reply = run(&shard, &key(number), set(&[number as u8; VALUE_BYTES])).await;
            assert_eq!(reply.outcome, Outcome::Stored);
        }
        shard.close().await.expect("closes");
    })
    .expect("runs");
    let disk = life.kill();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let paths: Vec<PathBuf> = disk.files().into_iter().map(|(path, _)| path).collect();
    let of = |is: &dyn Fn(&str) -> bool| {
        paths.iter().filter(|path| is(&name(path))).cloned().collect::<Vec<_>>()
    };
    let segments = of(&|name| segment::parse_file_name(name).is_some());
    let tables = of(&|name| table::parse_file_name(name).is_some());
    assert!(segments.len() > 20 && tables.len() > 20, "{segments:?} {tables:?}");
    (disk, segments, tables)
}

async fn open_with(env: SimEnv, files_max: usize) -> TestShard {
    let files = FileCache::new(env, files_max);
    harness::open_over(files, options()).await.expect("opens").0
}

fn opens(life: &Simulation) -> u64 {
    life.operations_of(OperationKinds::of(&[OperationKind::Open]))
}

#[test]
fn a_start_opens_no_segment_that_it_need_not_go_through() {
    let (disk, segments, tables) = filled();
    let mut life = harness::life(2, disk);
    let (shard, report) = harness::open_in(&mut life, &options());
    assert_eq!(report.damage, []);
    let others = opens(&life) - tables.len() as u64;
    assert!(others < 10, "{others} files besides tables were opened of {}", segments.len());
    // The log's spare segment, which is being made.
    let env = life.env();
    life.block_on(async move { env.sleep(1_000_000_000).await }).expect("runs");
    // Each is opened once, however many readers come at the same time.
    let before = opens(&life);
    let known = {
        let state = shard.journal.state();
        (state.segment_id_next, state.table_id_next)
    };
    let counted = shard.clone();
    let reading = async move {
        let readers = (0..VALUES).map(|number| {
            let shard = shard.clone();
            async move { run(&shard, &key(number), get()).await.value }
        });
        let values = crate::concurrent::concurrently(VALUES, readers).await;
        for (number, value) in values.into_iter().enumerate() {
            assert_eq!(value, vec![number as u8; VALUE_BYTES], "key {number}");
        }
    };
    life.block_on(reading).expect("runs");
    let opened = opens(&life) - before;
    let state = counted.journal.state();
    // A memtable may have been written out meanwhile.
    let made = u64::from(state.segment_id_next - known.0) + state.table_id_next - known.1;
    let segments = segments.len() as u64;
    assert!(opened <= segments + made, "{opened} of {segments} segments, {made} files more");
}

#[test]
fn a_start_opens_files_side_by_side_and_keeps_to_its_descriptors() {
    let (disk, segments, tables) = filled();
    for files_max in [4, harness::FILES_MAX] {
        let mut life = harness::life(3, disk.clone());
        let env = life.env();
        let latency_nanoseconds = LATENCY..=LATENCY;
        env.set_faults(FaultPlan { latency_nanoseconds, ..FaultPlan::default() });
        let began = env.now();
        let opening = open_with(env.clone(), files_max);
        let shard = life.block_on(opening).expect("runs");
        let took = env.now() - began;
        let alone = (segments.len() + tables.len()) as u64 * LATENCY;
        assert!(files_max == 4 || took < alone, "{took} ns, one file after the other {alone}");
        env.set_faults(FaultPlan::default());
        life.block_on(check(shard)).expect("runs");
        let (_, most) = env.open_handles();
        assert!(most <= files_max, "{most} files were open at a time");
    }
}

#[test]
fn a_segment_that_is_missing_or_cut_short_is_named_by_the_start() {
    let (disk, segments, _) = filled();
    let path = &segments[segments.len() / 2];
    let refusal = |mut life: Simulation| {
        let opened = life.block_on(harness::open(life.env(), options())).expect("runs");
        opened.err().expect("refused").to_string()
    };
    let mut short = disk.clone();
    short.truncate(path, 4096);
    let error = refusal(harness::life(4, short));
    let name = path.to_string_lossy();
    assert!(error.contains(&*name) && error.contains("cut short"), "{error}");
    let mut life = harness::life(5, disk);
    let (env, missing) = (life.env(), path.clone());
    life.block_on(async move { env.remove(&missing).await }).expect("runs").expect("removes");
    let error = refusal(harness::life(6, life.kill()));
    assert!(error.contains(&*name) && error.contains("not there"), "{error}");
}

#[test]
fn a_segment_that_goes_after_the_start_is_an_error_for_its_keys() {
    let (mut disk, segments, _) = filled();
    // A damaged header costs nothing: every record says where it belongs.
    disk.flip_bit(&segments[3], 16, 2);
    let mut life = harness::life(7, disk);
    let (shard, _) = harness::open_in(&mut life, &options());
    let pointer = |number| harness::pointer(&shard, &key(number));
    assert_eq!(pointer(0), None, "the tables are asked");
    life.block_on(check(shard)).expect("runs");

    let mut life = harness::life(8, life.kill());
    let (shard, _) = harness::open_in(&mut life, &options());
    let (env, gone) = (life.env(), segments[3].clone());
    let failed = life.block_on(async move {
        env.remove(&gone).await.expect("removes");
        let mut failed = Vec::new();
        for number in 0..VALUES {
            let key = crate::key::Key::memcached(&key(number)).encode();
            let hash = table::key_hash(&key);
            if let Err(error) = shard.locate(&key, hash, 0, true).await {
                failed.push(error.to_string());
            }
        }
        assert_eq!(shard.stopped(), None);
        failed
    });
    let failed = failed.expect("runs");
    let name = segments[3].file_name().expect("a name").to_string_lossy().into_owned();
    assert!(!failed.is_empty() && failed.len() < 30, "{failed:?}");
    assert!(failed.iter().all(|error| error.contains(&name)), "{failed:?}");
}
