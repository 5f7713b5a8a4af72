use super::*;
use crate::core_thread::{Core, CoreOptions};
use crate::env::{Env, TaskQueue};
use crate::ring_env::RingEnv;

fn core() -> Core {
    Core::new(CoreOptions::default()).unwrap()
}

fn filled(env: &RingEnv, len: usize, seed: usize) -> Buffer {
    let mut buffer = env.buffer(len);
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = (index * 31 + index / 4096 + seed) as u8;
    }
    buffer
}

#[test]
fn more_operations_than_the_ring_has_entries() {
    let directory = tempfile::tempdir().unwrap();
    let options = CoreOptions { ring_entries: 1, registered_bytes: 0, ..CoreOptions::default() };
    let mut core = Core::new(options).unwrap();
    let env = core.env();
    core.block_on(async {
        let path = directory.path().join("many");
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        file.allocate(64 * 4096).await.unwrap();
        let writes: Vec<_> = (0..64usize)
            .map(|block| {
                let buffer = filled(&env, 4096, block);
                file.write_durably(IoClass::Commit, block as u64 * 4096, buffer)
            })
            .collect();
        for write in writes {
            write.await.0.unwrap();
        }
        let reads: Vec<_> = (0..64u64)
            .map(|block| file.read(IoClass::Read, block * 4096, env.buffer(4096)))
            .collect();
        for (block, read) in reads.into_iter().enumerate() {
            let (result, buffer) = read.await;
            result.unwrap();
            assert!(*buffer == *filled(&env, 4096, block), "block {block}");
        }
    });
    assert_eq!(env.disk_counters().syncs, 64);
}

#[test]
fn a_read_dropped_in_flight_leaves_no_leak() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    let free = core.pool().free_bytes();
    let path = directory.path().join("file");
    let file = core.block_on(env.open(&path, OpenMode::CreateNew)).unwrap();
    core.block_on(file.allocate(1 << 20)).unwrap();
    for round in 0..20u64 {
        let mut reads: Vec<_> = (0..8)
            .map(|block| Box::pin(file.read(IoClass::Read, block * 4096, env.buffer(65536))))
            .collect();
        core.block_on(async {
            // Some are dropped before the ring sees them, some while the device works on them.
            for read in &mut reads {
                assert!(futures_lite::future::poll_once(read).await.is_none());
            }
            if round % 2 == 0 {
                futures_lite::future::yield_now().await;
            }
        });
        drop(reads);
    }
    core.block_on(async {
        while env.disk_requests() > 0 {
            env.sleep(100_000).await;
        }
    });
    assert_eq!(core.pool().free_bytes(), free);
    core.shutdown();
}

#[test]
fn files_and_futures_may_outlive_their_core() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    let path = directory.path().join("file");
    let file = core.block_on(env.open(&path, OpenMode::CreateNew)).unwrap();
    let write = file.write_durably(IoClass::Commit, 0, env.buffer(4096));
    let task_file = file.clone();
    let buffer = env.buffer(4096);
    env.spawn(TaskQueue::Flush, async move {
        task_file.write(IoClass::Flush, 4096, buffer).await.0.unwrap();
    });
    core.shutdown();
    drop(write);
    env.spawn(TaskQueue::Flush, async { panic!("the core is gone") });
    assert_eq!(env.disk_requests(), 0);
}
