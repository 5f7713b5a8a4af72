//! A store written by an earlier build opens, and reads what was written.
//!
//! The files under `golden/format-6` are of disk format 6. They never change; a new format gets a
//! folder of its own beside them, and this build must go on reading the old ones or refuse them by
//! their version, as it does with `format-1` to `format-5`, of which only the
//! superblocks are left.
//! `LARDER_WRITE_GOLDEN=1 cargo test -p larder-engine --test golden` wrote them.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "the fixture is copied with the standard library")]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use larder_engine::entry::state;
use larder_engine::key::{DEFAULT_NAMESPACE, Key};
use larder_engine::large::{LargeAnswer, LargeRequest, LargeStep, LargeValue};
use larder_engine::memory::ShardMemory;
use larder_engine::operation::{Arithmetic, Delete, Operation, Outcome, Read, Store, StoreMode};
use larder_engine::scan::Scan;
use larder_engine::shard::{OperationBuf, Shard, ShardOptions};
use larder_runtime::core_thread::{Core, CoreOptions};
use larder_runtime::env::Env;
use larder_runtime::ring_env::RingEnv;

type RingShard = Rc<Shard<RingEnv>>;

/// Far enough that no test outlives it.
const EXPIRY: u32 = 4_000_000_000;

const CHUNK_BYTES: usize = 1000;

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/format-{format}"))
}

fn options() -> ShardOptions {
    let memory = ShardMemory::plan(16 << 20, 1 << 20).expect("it is enough");
    let mut options = ShardOptions::for_memory(1, 3, &memory);
    options.segment_bytes = 64 << 10;
    options.memtable_bytes = 4 << 10;
    options.disk_reserve_bytes = 1 << 20;
    options.free_segments_max = 0;
    options.large.chunk_bytes_max = CHUNK_BYTES;
    options
}

async fn run(shard: &RingShard, key: &[u8], operation: Operation<'_>) -> Outcome {
    let operation = OperationBuf::new(&operation);
    shard.run(&Key::memcached(key), operation, |answer| answer.outcome).await.expect("done")
}

fn store(value: &[u8], client_flags: u32, expiry: u32) -> Operation<'_> {
    Operation::Store(Store {
        mode: StoreMode::Set,
        value,
        client_flags,
        expiry,
        compare: None,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    })
}

/// What a reader sees of an item.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    value: Vec<u8>,
    client_flags: u32,
    expiry: u32,
    state: u8,
    version: u64,
}

async fn see(shard: &RingShard, key: &[u8]) -> Option<Seen> {
    let read = Operation::Read(Read { value: true, ..Read::default() });
    let key = Key::memcached(key);
    let seen = shard.run(&key, OperationBuf::new(&read), |answer| {
        (answer.outcome == Outcome::Hit).then(|| Seen {
            value: answer.value.to_vec(),
            client_flags: answer.metadata.client_flags,
            expiry: answer.metadata.expiry,
            state: answer.metadata.state,
            version: answer.metadata.version,
        })
    });
    seen.await.expect("the golden store is sound")
}

fn large(seed: u8) -> Vec<u8> {
    (0..3000u32).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// A long value that does not become shorter.
fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9u32;
    let bytes = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    bytes.take(2000).collect()
}

/// A value of three chunks.
fn in_chunks() -> Vec<u8> {
    (0..3 * CHUNK_BYTES as u32 - 7).map(|index| (index % 251) as u8).collect()
}

async fn step(shard: &RingShard, record: &[u8], step: LargeStep) -> LargeAnswer {
    let (namespace, item) = (DEFAULT_NAMESPACE, Vec::new());
    let request = LargeRequest { client: 0, namespace, record: record.to_vec(), item, step };
    shard.large(&request).await.expect("done").0
}

async fn put_in_chunks(shard: &RingShard, record: &[u8], value: &[u8]) {
    let staged = step(shard, record, LargeStep::Stage { len: value.len() as u32 }).await;
    let LargeAnswer::Staged(large) = staged else { panic!("{staged:?}") };
    let upload = large.upload;
    for (index, bytes) in value.chunks(CHUNK_BYTES).enumerate() {
        let (index, bytes) = (index as u32, bytes.to_vec());
        step(shard, record, LargeStep::PutChunk { upload, index, bytes }).await;
    }
    let store = OperationBuf::new(&store(b"", 5, EXPIRY));
    let committed = step(shard, record, LargeStep::Commit { upload, store }).await;
    assert!(matches!(committed, LargeAnswer::Committed(_)), "{committed:?}");
}

async fn see_chunks(shard: &RingShard, record: &[u8]) -> Vec<u8> {
    let read = Operation::Read(Read { value: true, ..Read::default() });
    let key = Key::memcached(record);
    let seen = shard.run(&key, OperationBuf::new(&read), |answer| {
        assert_eq!(answer.outcome, Outcome::Large);
        LargeValue::decode(answer.value).expect("it stands for one")
    });
    let large = seen.await.expect("the golden store is sound");
    let mut value = Vec::new();
    for index in 0..large.chunks() {
        let asked = LargeStep::GetChunk { upload: large.upload, index };
        match step(shard, record, asked).await {
            LargeAnswer::Chunk(bytes) => value.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    value
}

async fn write(env: &RingEnv, shard: &RingShard) {
    run(shard, b"flushed", store(b"gone with the generation", 0, 0)).await;
    shard.flush_all(None).await.expect("flushed");
    run(shard, b"inline", store(b"small", 7, 0)).await;
    run(shard, b"separate", store(&large(1), 8, EXPIRY)).await;
    run(shard, b"deleted", store(b"x", 0, 0)).await;
    run(shard, b"deleted", Operation::Delete(Delete::default())).await;
    run(shard, b"touched", store(&large(2), 9, 0)).await;
    let touch = Read { expiry: Some(EXPIRY), ..Read::default() };
    run(shard, b"touched", Operation::Read(touch)).await;
    run(shard, b"stale", store(b"old news", 0, 0)).await;
    let invalidate = Delete { invalidate: true, ..Delete::default() };
    run(shard, b"stale", Operation::Delete(invalidate)).await;
    for index in 0..100 {
        run(shard, format!("many-{index}").as_bytes(), store(b"filler", index, 0)).await;
    }
    while shard.statistics().index.counters.flushes == 0 {
        env.sleep(1_000_000).await;
    }
    // What follows is in the log only.
    run(shard, b"number", store(b"41", 0, 0)).await;
    let increment = Arithmetic {
        delta: 1,
        decrement: false,
        compare: None,
        vivify: None,
        expiry: None,
        version: None,
    };
    run(shard, b"number", Operation::Arithmetic(increment)).await;
    run(shard, b"\x00binary\xff", store(&large(3), u32::MAX, 0)).await;
    run(shard, b"noise", store(&noise(), 1, 0)).await;
    run(shard, b"ranged", store(b"gone with others", 0, 0)).await;
    let range = Scan::of_record(DEFAULT_NAMESPACE, b"ranged");
    shard.delete_range(&range).await.expect("deleted");
    put_in_chunks(shard, b"chunked", &in_chunks()).await;
    shard.sync().await.expect("synced");
    let compression = shard.statistics().compression;
    assert_eq!((compression.values, compression.incompressible), (3, 1));
}

async fn check(shard: &RingShard) {
    assert_eq!(see(shard, b"flushed").await, None);
    assert_eq!(see(shard, b"deleted").await, None);
    assert_eq!(see(shard, b"ranged").await, None);
    let expected = [
        (&b"inline"[..], b"small".to_vec(), 7, 0, 0, 3),
        (b"separate", large(1), 8, EXPIRY, 0, 4),
        (b"touched", large(2), 9, EXPIRY, 0, 7),
        (b"stale", b"old news".to_vec(), 0, 0, state::STALE, 10),
        (b"number", b"42".to_vec(), 0, 0, 0, 113),
        (b"\x00binary\xff", large(3), u32::MAX, 0, 0, 114),
        (b"noise", noise(), 1, 0, 0, 115),
    ];
    for (key, value, client_flags, expiry, state, version) in expected {
        let seen = Seen { value, client_flags, expiry, state, version };
        assert_eq!(see(shard, key).await, Some(seen), "{}", key.escape_ascii());
    }
    assert_eq!(see_chunks(shard, b"chunked").await, in_chunks());
    for index in 0..100 {
        let seen = see(shard, format!("many-{index}").as_bytes()).await.expect("there");
        assert_eq!((seen.value.as_slice(), seen.client_flags), (&b"filler"[..], index));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("the fixture is there") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[test]
fn a_store_of_format_6_opens_and_reads_back() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path().join("shard-001");
    let writes = std::env::var_os("LARDER_WRITE_GOLDEN").is_some();
    if !writes {
        copy(&fixture(6), &path);
    }
    let mut core = Core::new(CoreOptions::default()).expect("a core");
    let env = core.env();
    core.block_on(async {
        let (shard, report) = Shard::open(env.clone(), &path, options()).await.expect("it opens");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!(report.created, writes);
        if writes {
            write(&env, &shard).await;
        } else {
            assert!(report.records > 0, "a part of the golden store is in the log only");
        }
        check(&shard).await;
    });
    core.shutdown();
    if writes {
        copy(&path, &fixture(6));
    }
}

#[test]
fn a_store_of_another_format_is_refused_with_both_versions() {
    for format in [1, 2, 3, 4, 5] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let path = directory.path().join("shard-001");
        copy(&fixture(format), &path);
        let mut core = Core::new(CoreOptions::default()).expect("a core");
        let env = core.env();
        let opened = core.block_on(async move { Shard::open(env, &path, options()).await });
        let error = opened.err().expect("refused").to_string();
        assert!(error.contains(&format!("disk format {format};")), "{error}");
        assert!(error.contains("reads format 6"), "{error}");
        core.shutdown();
    }
}
