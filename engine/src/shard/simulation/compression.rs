//! Compressed values: every operation gives the same answers as on values that are stored as they
//! are, and what does not decompress to what it was is an error for its key.

use std::path::Path;

use larder_runtime::env::IoClass;
use larder_runtime::random::Random;
use larder_runtime::simulation::{SimDisk, Simulation};

use super::checks;
use super::harness::{self, TestShard, tiny_options};
use super::items::{flush_memtable, touched};
use super::model::Reply;
use super::smoke::{delete, get, run, set};
use crate::canary::{self, Defect};
use crate::check::repair;
use crate::compression::CHUNK_BYTES;
use crate::entry::Metadata;
use crate::error::EngineError;
use crate::key::{DEFAULT_NAMESPACE, Key};
use crate::operation::{Arithmetic, Delete, Operation, Outcome, Read, Store, StoreMode};
use crate::scan::Scan;
use crate::shard::{
    Attempt, BatchAnswer, BatchStep, CompressionCounters, ItemBatch, OperationBuf, ShardOptions,
};
use crate::space::CompressedSpace;

/// From which length on values are compressed here.
const FROM: usize = 400;

fn options(compress_from: Option<usize>, item_cache_bytes: usize) -> ShardOptions {
    let memtable_bytes = 64 << 10;
    ShardOptions { compress_from, item_cache_bytes, memtable_bytes, ..tiny_options() }
}

/// A value that compresses well.
fn words(len: usize) -> Vec<u8> {
    (0..).flat_map(|number: u32| format!("word {number}, ").into_bytes()).take(len).collect()
}

/// Values below, at and above the threshold and the length of a chunk; half of them are noise.
fn values() -> Vec<Vec<u8>> {
    let lengths = [0, 1, 20, 32, 33, FROM - 1, FROM, FROM + 1, 5000, CHUNK_BYTES];
    let longer = [CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7, 200_000];
    let lengths = lengths.into_iter().chain(longer);
    let noise = |len| Random::new(len as u64).bytes(len);
    lengths.flat_map(|len| [words(len), noise(len)]).chain([b"41".to_vec()]).collect()
}

fn store(mode: StoreMode, value: &[u8], compare: Option<u64>) -> OperationBuf {
    let store = Store {
        mode,
        value,
        client_flags: 3,
        expiry: 0,
        compare,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    };
    OperationBuf::new(&Operation::Store(store))
}

/// Every kind of operation that goes on from a value. Versions are those of a shard in which one
/// change has made one item.
fn operations() -> Vec<OperationBuf> {
    let read = |read: Read| OperationBuf::new(&Operation::Read(read));
    let deletion = |delete: Delete| OperationBuf::new(&Operation::Delete(delete));
    let arithmetic = Arithmetic {
        delta: 1,
        decrement: false,
        compare: None,
        vivify: None,
        expiry: None,
        version: None,
    };
    let (few, many) = (words(10), words(40_000));
    vec![
        get(),
        read(Read::default()),
        read(Read { quiet: true, value: true, ..Read::default() }),
        touched(2_000_000_000),
        read(Read { value: true, expiry: Some(2_000_000_000), ..Read::default() }),
        read(Read { value: true, leases: true, recache_before: Some(9), ..Read::default() }),
        set(&words(500)),
        store(StoreMode::Set, &many, Some(1)),
        store(StoreMode::Set, &few, Some(77)),
        store(StoreMode::Add, &few, None),
        store(StoreMode::Replace, &many, None),
        store(StoreMode::Append, &few, None),
        store(StoreMode::Prepend, &few, None),
        store(StoreMode::Append, &many, None),
        store(StoreMode::Prepend, &many, Some(1)),
        OperationBuf::new(&Operation::Arithmetic(arithmetic)),
        deletion(Delete::default()),
        deletion(Delete { invalidate: true, ..Delete::default() }),
        deletion(Delete { clear_value: true, ..Delete::default() }),
    ]
}

/// Where a value is when an operation meets it.
#[derive(Clone, Copy, Debug)]
enum Where {
    Cache,
    Memtable,
    Table,
    AfterRestart,
}

/// What a client sees of an operation on `value` and of the item afterwards.
type Seen = Vec<(Outcome, Metadata, Vec<u8>, usize)>;

fn seen(reply: Reply) -> (Outcome, Metadata, Vec<u8>, usize) {
    (reply.outcome, reply.metadata, reply.value, reply.value_len)
}

fn play(
    value: &[u8],
    operation: &OperationBuf,
    (place, from): (Where, Option<usize>),
) -> (Seen, CompressionCounters) {
    let cache = if matches!(place, Where::Cache) { 2 << 20 } else { 0 };
    let options = options(from, cache);
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (mut shard, _) = harness::open_in(&mut life, &options);
    let (worker, first) = (shard.clone(), set(value));
    let is_flushed = matches!(place, Where::Table);
    let writing = async move {
        run(&worker, b"key", first).await;
        if is_flushed {
            flush_memtable(&worker).await;
        }
        worker.statistics().compression
    };
    let mut counters = life.block_on(writing).expect("runs");
    if matches!(place, Where::AfterRestart) {
        drop(shard);
        life = harness::life(2, life.crash());
        shard = harness::open_in(&mut life, &options).0;
    }
    let operation = operation.clone();
    let playing = async move {
        let replies = [
            run(&shard, b"key", operation).await,
            run(&shard, b"key", get()).await,
            run(&shard, b"key", OperationBuf::new(&Operation::Read(Read::default()))).await,
        ];
        (replies.map(seen).to_vec(), shard.statistics().compression)
    };
    let (seen, later) = life.block_on(playing).expect("runs");
    counters.values += later.values;
    (seen, counters)
}

#[test]
fn every_operation_answers_as_if_nothing_were_compressed() {
    let mut compressed = 0;
    for value in values() {
        for operation in operations() {
            for place in [Where::Cache, Where::Memtable, Where::Table, Where::AfterRestart] {
                let (plain, _) = play(&value, &operation, (place, None));
                let (found, counters) = play(&value, &operation, (place, Some(FROM)));
                let what = format!("{:?} on {} bytes in {place:?}", operation, value.len());
                let what = &what[..what.len().min(300)];
                assert!(plain == found, "{what}");
                compressed += counters.values;
            }
        }
    }
    assert!(compressed > 500, "{compressed} values were compressed");
}

#[test]
fn batches_and_pages_answer_as_if_nothing_were_compressed() {
    let of = |from: Option<usize>| {
        let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
        // Moves take sequences, and so versions: nothing is collected.
        let options = ShardOptions { space_amplification_percent: 10_000, ..options(from, 0) };
        let (shard, _) = harness::open_in(&mut life, &options);
        let work = async move {
            let mut answers = Vec::new();
            for (number, value) in values().iter().enumerate() {
                let step = |item: &[u8], operation| BatchStep {
                    namespace: DEFAULT_NAMESPACE,
                    record: vec![number as u8],
                    item: item.to_vec(),
                    operation,
                };
                for operation in [set(value), store(StoreMode::Append, &words(300), None)] {
                    let steps = vec![step(b"a", operation), step(b"b", set(&words(600)))];
                    let value_bytes_max = 1 << 20;
                    let batch = ItemBatch { value_bytes_max, steps, once: None };
                    let (answer, needs) = shard.execute_batch(batch).await.expect("done");
                    shard.wait_acknowledged(needs).await.expect("durable");
                    assert!(matches!(answer, BatchAnswer::Done(_)), "{answer:?}");
                    answers.push(answer);
                }
            }
            flush_memtable(&shard).await;
            let mut pages = Vec::new();
            for (is_reverse, keys_only, value_bytes_max) in [
                (false, false, usize::MAX),
                (true, false, usize::MAX),
                (false, true, usize::MAX),
                (false, false, 5000),
            ] {
                let mut scan = Scan::of_namespace(DEFAULT_NAMESPACE);
                (scan.is_reverse, scan.keys_only) = (is_reverse, keys_only);
                (scan.bytes_max, scan.value_bytes_max) = (300_000, value_bytes_max);
                let mut next = Some(scan);
                while let Some(scan) = next {
                    let page = shard.scan(scan.clone()).await.expect("a page");
                    next = page.next.as_ref().map(|place| scan.after(place));
                    pages.push((page.items, page.next));
                }
            }
            (answers, pages, shard.statistics().compression.values)
        };
        life.block_on(work).expect("runs")
    };
    let (plain, compressed) = (of(None), of(Some(FROM)));
    assert!(plain.0 == compressed.0, "the answers differ");
    assert!(plain.1 == compressed.1, "the pages differ");
    assert_eq!(plain.2, 0);
    assert!(compressed.2 > 40, "{} values were compressed", compressed.2);
}

#[test]
fn a_long_value_is_compressed_by_a_task_and_noise_is_left_alone() {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options(Some(FROM), 0));
    let attempt = |value: &[u8]| {
        let key = Key::memcached(b"key");
        let operation = set(value);
        shard.try_execute(&key, None, &operation.as_operation(), 1_700_000_000, |_| ())
    };
    assert!(matches!(attempt(&words(CHUNK_BYTES)), Attempt::Done { .. }));
    assert!(matches!(attempt(&words(CHUNK_BYTES + 1)), Attempt::Later));
    let noise = Random::new(1).bytes(CHUNK_BYTES + 1);
    assert!(matches!(attempt(&noise), Attempt::Done { .. }));
    let counters = shard.statistics().compression;
    assert_eq!((counters.values, counters.incompressible), (1, 1));
    assert_eq!(counters.bytes_before, CHUNK_BYTES as u64);
    assert!(counters.bytes_after < counters.bytes_before / 2, "{counters:?}");
}

#[test]
fn a_namespace_has_a_threshold_of_its_own_from_when_it_is_set() {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options(Some(FROM), 0));
    let work = async move {
        let put = async |namespace: u32, len: usize| {
            let before = shard.statistics().compression.values;
            let key = Key { namespace, record: b"record", item: b"" };
            let stored = shard.run(&key, set(&words(len)), |answer| answer.outcome).await;
            assert_eq!(stored.expect("done"), Outcome::Stored);
            shard.statistics().compression.values - before
        };
        assert_eq!([put(0, 1000).await, put(5, 1000).await, put(5, 300).await], [1, 1, 0]);
        shard.set_compression(5, None);
        assert_eq!([put(0, 1000).await, put(5, 1000).await], [1, 0]);
        shard.set_compression(5, Some(200));
        assert_eq!([put(0, 300).await, put(5, 300).await, put(5, 199).await], [0, 1, 0]);
        // What goes into tables does not, however low the threshold is.
        shard.set_compression(5, Some(1));
        assert_eq!([put(5, 32).await, put(5, 200).await], [0, 1]);
        // After a clear it is the same namespace.
        shard.set_compression(0, None);
        shard.flush_all(None).await.expect("cleared");
        assert_eq!(put(0, 1000).await, 0);
    };
    life.block_on(work).expect("runs");
}

#[test]
fn a_collection_moves_compressed_bytes_as_they_are() {
    for item_cache_bytes in [0, 2 << 20] {
        let mut options = options(Some(FROM), item_cache_bytes);
        options.memtable_bytes = 8 << 10;
        let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
        let (shard, _) = harness::open_in(&mut life, &options);
        let work = async move {
            let key = |number: u32| format!("key-{number}").into_bytes();
            let value = |number: u32| words(3000 + number as usize);
            let mut places = Vec::new();
            for number in 0..8 {
                run(&shard, &key(number), set(&value(number))).await;
                places.push(harness::pointer(&shard, &key(number)).expect("in the log"));
            }
            for round in 0..600u32 {
                run(&shard, b"other", set(&words(2000 + round as usize % 9))).await;
            }
            let statistics = shard.statistics();
            assert!(statistics.operations.collected_records > 0, "{statistics:?}");
            for (number, before) in (0..).zip(places) {
                let pointer = shard_pointer(&shard, &key(number)).await;
                assert!(pointer.segment != before.segment, "it was moved");
                assert_eq!(pointer.len, before.len, "it is as long as before");
                assert_eq!(run(&shard, &key(number), get()).await.value, value(number));
            }
            // Moving is no compressing.
            assert_eq!(shard.statistics().compression.values, 608);
        };
        life.block_on(work).expect("runs");
    }
}

/// Where the value of a key lies in the log, wherever that is said.
async fn shard_pointer(shard: &TestShard, record: &[u8]) -> crate::entry::Pointer {
    let encoded = Key::memcached(record).encode();
    let hash = crate::index::table::key_hash(&encoded);
    let located = shard.locate(&encoded, hash, 0, false).await;
    located.expect("readable").pointer().expect("in the log")
}

/// A store with a value that was compressed to something else, and a sound one.
fn spoiled(is_flushed: bool) -> SimDisk {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options(Some(FROM), 0));
    let work = async move {
        run(&shard, b"sound", set(&words(3000))).await;
        let switched = canary::with(Defect::SpoilCompressed);
        run(&shard, b"spoiled", set(&words(3000))).await;
        drop(switched);
        run(&shard, b"short", set(b"value")).await;
        if is_flushed {
            flush_memtable(&shard).await;
        }
        shard.close().await.expect("closes");
    };
    life.block_on(work).expect("runs");
    life.kill()
}

fn open(disk: &SimDisk) -> (Simulation, TestShard) {
    let mut life = harness::life(2, disk.clone());
    let (shard, report) = harness::open_in(&mut life, &options(Some(FROM), 0));
    assert_eq!(report.damage, []);
    (life, shard)
}

#[test]
fn a_value_that_does_not_decompress_to_what_it_was_is_an_error_for_its_key() {
    for is_flushed in [false, true] {
        let (mut life, shard) = open(&spoiled(is_flushed));
        let work = async move {
            let key = Key::memcached(b"spoiled");
            for operation in [get(), store(StoreMode::Append, b"more", None)] {
                let done = shard.run(&key, operation, Reply::new).await;
                let Err(EngineError::Damaged { key, reason }) = done else {
                    panic!("the answer is {done:?}");
                };
                assert!(key.contains("spoiled") && reason.contains("decompressed"), "{reason}");
            }
            let scan = Scan::of_namespace(DEFAULT_NAMESPACE);
            let front = shard.scan(scan.clone()).await.expect("there are items in front");
            let records: Vec<_> = front.items.iter().map(|item| item.record.as_slice()).collect();
            assert_eq!(records, [&b"short"[..], b"sound"]);
            let page = shard.scan(scan.after(&front.next.expect("there is more"))).await;
            assert!(matches!(page, Err(EngineError::Damaged { .. })), "{page:?}");
            assert_eq!(run(&shard, b"sound", get()).await.value, words(3000));
            // Its length is known all the same, and it can be written anew and deleted.
            let read = OperationBuf::new(&Operation::Read(Read::default()));
            assert_eq!(run(&shard, b"spoiled", read).await.value_len, 3000);
            assert_eq!(run(&shard, b"spoiled", set(b"new")).await.outcome, Outcome::Stored);
            assert_eq!(run(&shard, b"spoiled", delete()).await.outcome, Outcome::Deleted);
        };
        life.block_on(work).expect("runs");
    }
}

#[test]
fn a_check_finds_it_and_a_repair_drops_it() {
    for is_flushed in [false, true] {
        let disk = spoiled(is_flushed);
        let text = checks::problems(&checks::check(&disk).expect("a store")).join("\n");
        assert!(text.contains("segment-"), "{text}");
        let mut life = harness::life(5, disk);
        let env = life.env();
        let repairing =
            async move { repair(&env, Path::new(harness::DIRECTORY)).await.expect("repaired") };
        life.block_on(repairing).expect("runs");
        let disk = life.kill();
        let report = checks::check(&disk).expect("a store");
        assert_eq!(checks::problems(&report), [] as [String; 0]);
        let (mut life, shard) = open(&disk);
        let work = async move {
            assert_eq!(run(&shard, b"spoiled", get()).await.outcome, Outcome::Miss);
            assert_eq!(run(&shard, b"sound", get()).await.value, words(3000));
            assert_eq!(run(&shard, b"short", get()).await.value, b"value");
        };
        life.block_on(work).expect("runs");
    }
}

#[test]
fn a_flip_of_any_byte_of_a_compressed_record_is_an_error() {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let options = options(Some(FROM), 0);
    let (shard, _) = harness::open_in(&mut life, &options);
    let worker = shard.clone();
    let work = async move {
        run(&worker, b"key", set(&words(700))).await;
        let pointer = harness::pointer(&worker, b"key").expect("in the log");
        flush_memtable(&worker).await;
        worker.close().await.expect("closes");
        pointer
    };
    let pointer = life.block_on(work).expect("runs");
    drop(shard);
    let disk = life.kill();
    let name = crate::value_log::segment::file_name(pointer.segment);
    let path = Path::new(harness::DIRECTORY).join(name);
    assert!(pointer.len < 500, "{pointer:?} is compressed");
    for offset in pointer.offset..pointer.end() {
        // Whether or not what is on disk is compared with its checksum.
        for defect in [None, Some(Defect::IgnorePayloadChecksum)] {
            let mut damaged = disk.clone();
            damaged.flip_bit(&path, u64::from(offset), (offset % 8) as u8);
            let _switched = defect.map(canary::with);
            let mut life = harness::life(2, damaged);
            let (shard, _) = harness::open_in(&mut life, &options);
            let read = async move {
                let encoded = Key::memcached(b"key").encode();
                shard.log.read((pointer, 700), &encoded, IoClass::Read).await
            };
            let found = life.block_on(read).expect("runs");
            let is_error = matches!(found, Err(EngineError::Damaged { .. }));
            let is_harmless = defect.is_some() && found.as_ref().is_ok_and(|it| *it == words(700));
            assert!(is_error || is_harmless, "byte {offset}: {found:?}");
        }
    }
}

#[test]
fn space_tells_what_compressing_has_saved() {
    for is_flushed in [false, true] {
        let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
        let (shard, _) = harness::open_in(&mut life, &options(Some(FROM), 0));
        let work = async move {
            for number in 0..20u8 {
                run(&shard, &[b'w', number], set(&words(3000))).await;
                run(&shard, &[b'n', number], set(&Random::new(1).bytes(3000))).await;
            }
            run(&shard, b"w\x03", delete()).await;
            run(&shard, b"w\x04", touched(2_000_000_000)).await;
            if is_flushed {
                flush_memtable(&shard).await;
            }
            let pointer = shard_pointer(&shard, b"w\x05").await;
            shard.close().await.expect("closes");
            u64::from(pointer.len)
        };
        let record_bytes = life.block_on(work).expect("runs");
        let disk = life.kill();
        assert_eq!(checks::problems(&checks::check(&disk).expect("a store")), [] as [String; 0]);
        let compressed = checks::space(&disk).compressed.expect("it was counted");
        let expected = CompressedSpace {
            values: 19,
            value_bytes: 19 * 3000,
            // One of the keys has a zero byte, which is two when it is encoded.
            record_bytes: 19 * record_bytes + 1,
        };
        assert_eq!(compressed, expected);
    }
}
