//! A collection that has failed leaves copies behind which wait for their frame, and its segment
//! stays: what happens to their keys until a later collection writes the frame counts.

use std::path::Path;

use larder_runtime::env::{Env, IoClass};
use larder_runtime::simulation::{SimDisk, SimEnv};

use super::harness::{self, TestShard, tiny_options};
use super::items::{flush_memtable, rest, touched};
use super::model::Reply;
use super::races::write_garbage;
use super::smoke::{delete, get, run, set, set_until};
use crate::collector::Victim;
use crate::error::EngineError;
use crate::index::table;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::operation::Outcome;
use crate::shard::ShardOptions;

const EXPIRY: u32 = 1_700_100_000;

/// Collections begin when the test says so, and tables stay as they are.
fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.memtable_bytes = 1 << 20;
    options.recovery_log_bytes = 64 << 20;
    options.space_amplification_percent = 10_000;
    options.picker.level_zero_runs = 100;
    options.picker.level_zero_tables = 100;
    (options.picker.hidden_part, options.picker.hidden_part_wanted) = (1, 1);
    options
}

/// The segments of a key in whose way something fails, and of another.
struct Segments {
    failing: u32,
    other: u32,
}

/// A store with `touched` and behind it, in the same segment, a key whose index entry cannot be
/// read.
fn prepare() -> (SimDisk, Segments) {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    let (table, segments) = life
        .block_on(async move {
            let segment = |key| harness::pointer(&shard, key).expect("a long value").segment;
            run(&shard, b"touched", set_until(&[1; 500], EXPIRY)).await;
            flush_memtable(&shard).await;
            run(&shard, b"unreadable", set(&[2; 500])).await;
            let failing = segment(b"unreadable");
            let newest = shard.journal.state().table_id_next;
            flush_memtable(&shard).await;
            write_garbage(&shard, 1).await;
            run(&shard, b"other", set(&[3; 500])).await;
            let other = segment(b"other");
            assert_ne!(failing, other);
            write_garbage(&shard, 1).await;
            flush_memtable(&shard).await;
            (newest, Segments { failing, other })
        })
        .expect("runs");
    let mut disk = life.kill();
    disk.lose_sector(Path::new(harness::DIRECTORY).join(table::file_name(table)), 0);
    (disk, segments)
}

async fn collect(shard: &TestShard, number: u32) -> Result<(), EngineError> {
    let known = shard.journal.state().segments.get(&number).copied().expect("it is there");
    let end = known.sealed.expect("the log has gone on").end;
    shard.collect(Victim { number, generation: known.generation, end }).await
}

/// Uses up what the log has left, first with items of long keys and then with deletes of them, on a
/// disk on which nothing that is freed is of use.
async fn fill_log(shard: &TestShard, env: &SimEnv) {
    for operation in [set(&[4; 500]), delete()] {
        for number in 0u64.. {
            assert!(number < 10_000, "the log does not become full");
            env.set_capacity(env.snapshot().used_bytes());
            let item = [&[0; 1000][..], &number.to_be_bytes()].concat();
            let key = Key { namespace: DEFAULT_NAMESPACE, record: b"fill", item: &item };
            match shard.run(&key, operation.clone(), Reply::new).await {
                Ok(reply) => assert_ne!(reply.outcome, Outcome::NotFound),
                Err(EngineError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A segment that is not the log's any more, and has these items and garbage.
async fn with_items(shard: &TestShard, name: &str, count: u64) -> u32 {
    for number in 0..count {
        run(shard, format!("{name}{number}").as_bytes(), set(&[2; 500])).await;
    }
    let key = format!("{name}{}", count - 1);
    let segment = harness::pointer(shard, key.as_bytes()).expect("a long value").segment;
    write_garbage(shard, 2).await;
    segment
}

#[test]
fn where_the_log_has_no_room_for_moves_nothing_is_copied_over_and_over() {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    let env = life.env();
    life.block_on(async move {
        let first = with_items(&shard, "first", 3).await;
        let victim = with_items(&shard, "lives", 10).await;
        let dead = with_items(&shard, "dead", 10).await;
        flush_memtable(&shard).await;
        collect(&shard, first).await.expect("there is room");
        for number in 0..10 {
            run(&shard, format!("dead{number}").as_bytes(), delete()).await;
        }
        // Collections begin when the test says so, even where space is waited for.
        shard.garbage.unreadable.borrow_mut().extend(0..1000);
        rest(&shard).await;
        fill_log(&shard, &env).await;
        let copied = || (shard.collector.room(), env.reads_of(IoClass::GarbageCollection));
        let failed = collect(&shard, victim).await;
        assert!(matches!(failed, Err(EngineError::Full)), "{failed:?}");
        let once = copied();
        assert!(once.0 > 0, "there is room for copies");
        for _ in 0..20 {
            let failed = collect(&shard, victim).await;
            assert!(matches!(failed, Err(EngineError::Full)), "{failed:?}");
        }
        let again = copied();
        assert_eq!(again.0, once.0, "what is left of the segment");
        // Until it meets a record that lives: it may be that none does.
        let reads = again.1 - once.1;
        assert!(reads <= 20 * 4, "{reads} reads");
        collect(&shard, dead).await.expect("nothing that lives has to be moved");
        assert!(shard.is_leaving(dead), "its space comes back");
        env.set_capacity(harness::CAPACITY);
        env.sleep(1_000_000_000).await;
        assert!(!shard.is_leaving(victim), "it waits for a collection");
        collect(&shard, victim).await.expect("there is room");
        rest(&shard).await;
        assert!(shard.is_leaving(victim));
        for number in 0..10 {
            let reply = run(&shard, format!("lives{number}").as_bytes(), get()).await;
            assert_eq!(reply.value, [2; 500]);
        }
    })
    .expect("runs");
}

/// A touch of a key whose copy waits is not lost when the copy becomes the key's place.
#[test]
pub(super) fn against_a_touch() {
    let (disk, segments) = prepare();
    let mut life = harness::life(2, disk);
    let (shard, _) = harness::open_in(&mut life, &options());
    life.block_on(async move {
        let failed = collect(&shard, segments.failing).await;
        assert!(matches!(failed, Err(EngineError::Read(_))), "{failed:?}");
        let place = || harness::pointer(&shard, b"touched").map(|pointer| pointer.segment);
        assert_eq!(run(&shard, b"touched", touched(EXPIRY + 1000)).await.outcome, Outcome::Hit);
        assert_eq!(place(), Some(segments.failing), "its copy waits");
        collect(&shard, segments.other).await.expect("nothing else fails");
        assert_ne!(place(), Some(segments.failing), "the copy is its place");
        assert_eq!(run(&shard, b"touched", get()).await.metadata.expiry, EXPIRY + 1000);
    })
    .expect("runs");
    let mut life = harness::life(3, life.crash());
    let (shard, report) = harness::open_in(&mut life, &options());
    assert_eq!(report.damage, []);
    let reply = life.block_on(async move { run(&shard, b"touched", get()).await }).expect("runs");
    assert_eq!((reply.metadata.expiry, reply.value), (EXPIRY + 1000, vec![1; 500]));
}
