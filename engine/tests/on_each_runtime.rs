//! A shard on each runtime and a real file system: what the simulation cannot show.
#![forbid(unsafe_code)]

use std::path::Path;
use std::rc::Rc;

use larder_engine::key::Key;
use larder_engine::memory::ShardMemory;
use larder_engine::operation::{Delete, Operation, Outcome, Read, Store, StoreMode};
use larder_engine::shard::{OperationBuf, Shard, ShardOptions};
use larder_engine::value_log::Durability;
use larder_runtime::core_runtime::CoreRuntime;
use larder_runtime::core_thread::{Core, CoreOptions};
use larder_runtime::env::Env;

fn options(durability: Durability) -> ShardOptions {
    let memory = ShardMemory::plan(16 << 20, 1 << 20).expect("it is enough");
    let mut options = ShardOptions::for_memory(0, 1, &memory);
    options.segment_bytes = 1 << 20;
    options.memtable_bytes = 64 << 10;
    options.disk_reserve_bytes = 1 << 20;
    options.item_cache_bytes = 0;
    options.log.durability = durability;
    options
}

async fn open<E: Env>(core_env: E, directory: &Path, durability: Durability) -> Rc<Shard<E>> {
    let (shard, report) =
        Shard::open(core_env, directory, options(durability)).await.expect("the shard opens");
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    shard
}

async fn set<E: Env>(shard: &Rc<Shard<E>>, key: &[u8], value: &[u8]) {
    let store = Store {
        mode: StoreMode::Set,
        value,
        client_flags: 7,
        expiry: 0,
        compare: None,
        invalidate: false,
        is_large: false,
        vivify: None,
        version: None,
    };
    let operation = OperationBuf::new(&Operation::Store(store));
    let outcome = shard.run(&Key::memcached(key), operation, |answer| answer.outcome).await;
    assert_eq!(outcome.expect("stored"), Outcome::Stored);
}

async fn get<E: Env>(shard: &Rc<Shard<E>>, key: &[u8]) -> Option<Vec<u8>> {
    let read = OperationBuf::new(&Operation::Read(Read { value: true, ..Read::default() }));
    shard
        .run(&Key::memcached(key), read, |answer| {
            (answer.outcome == Outcome::Hit).then(|| answer.value.to_vec())
        })
        .await
        .expect("a read of sound data")
}

fn value(round: usize, index: usize) -> Vec<u8> {
    let len = [0, 20, 128, 129, 1000, 5000][(round + index) % 6];
    vec![(round * 31 + index) as u8; len]
}

fn what_was_stored_is_there<C: CoreRuntime>(make: fn(CoreOptions) -> C) {
    for durability in [Durability::Sync, Durability::Interval(1_000_000), Durability::None] {
        let directory = tempfile::tempdir_in(".").expect("a directory");
        let path = directory.path().join("shard-000");
        for round in 0..3 {
            let mut core = make(CoreOptions::default());
            let env = core.env();
            core.block_on(async {
                let shard = open(env.clone(), &path, durability).await;
                for index in 0..600usize {
                    let key = format!("key-{index}");
                    if round > 0 {
                        let expected = value(round - 1, index);
                        assert_eq!(get(&shard, key.as_bytes()).await, Some(expected), "{key}");
                    }
                    set(&shard, key.as_bytes(), &value(round, index)).await;
                }
                let delete = OperationBuf::new(&Operation::Delete(Delete::default()));
                set(&shard, b"gone", b"value").await;
                let gone = Key::memcached(b"gone");
                shard.run(&gone, delete, |_| ()).await.expect("deleted");
                assert_eq!(get(&shard, b"gone").await, None);
                while shard.statistics().index.counters.flushes == 0 {
                    env.sleep(1_000_000).await;
                }
                shard.close().await.expect("closed");
            });
            core.shutdown();
        }
    }
}

#[test]
fn what_was_stored_is_there_after_flushes_merges_and_restarts() {
    what_was_stored_is_there(|options| Core::new(options).expect("a core"));
}

#[test]
#[cfg(feature = "runtime-glommio")]
fn what_was_stored_is_there_after_flushes_merges_and_restarts_on_glommio() {
    use larder_runtime::glommio_runtime::GlommioCore;
    what_was_stored_is_there(|options| GlommioCore::new(options).expect("a core"));
}
