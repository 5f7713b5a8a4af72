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
fn files_are_written_read_renamed_listed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut core = core();
    let env = core.env();
    let root = directory.path().join("a/b");
    env.create_directory(&root).unwrap();
    env.create_directory(&root).unwrap();
    core.block_on(async {
        let file = env.open(&root.join("one"), OpenMode::CreateNew).await.unwrap();
        assert!(file.is_empty());
        let again = env.open(&root.join("one"), OpenMode::CreateNew).await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        file.allocate(1 << 20).await.unwrap();
        assert_eq!(file.len(), 1 << 20);
        let (result, zeros) = file.read(IoClass::Read, 8192, env.buffer(4096)).await;
        result.unwrap();
        assert!(zeros.iter().all(|&byte| byte == 0));

        file.write(IoClass::Flush, 4096, filled(&env, 8192, 1)).await.0.unwrap();
        file.sync(IoClass::Flush).await.unwrap();
        // Past the end, so the file grows, and longer than one leg.
        let long = 3 * (1 << 20) + 4096;
        file.write_durably(IoClass::Commit, 1 << 20, filled(&env, long, 2)).await.0.unwrap();
        assert_eq!(file.len(), (1 << 20) + long as u64);
        let (result, read) = file.read(IoClass::Read, 4096, env.buffer(8192)).await;
        result.unwrap();
        assert!(*read == *filled(&env, 8192, 1));
        let (result, read) = file.read(IoClass::Scan, 1 << 20, env.buffer(long)).await;
        result.unwrap();
        assert!(*read == *filled(&env, long, 2));
        let past = file.read(IoClass::Read, file.len(), env.buffer(4096)).await.0.unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);

        env.rename(&root.join("one"), &root.join("two")).await.unwrap();
        env.sync_directory(&root).await.unwrap();
        let listed = env.list(&directory.path().join("a")).unwrap();
        assert_eq!((listed.len(), listed[0].name.as_str(), listed[0].is_directory), (1, "b", true));
        let listed = env.list(&root).unwrap();
        assert_eq!((listed.len(), listed[0].name.as_str()), (1, "two"));
        assert_eq!(listed[0].len, file.len());

        let reader = env.open(&root.join("two"), OpenMode::Read).await.unwrap();
        assert_eq!(reader.len(), file.len());
        let refused = reader.write(IoClass::Flush, 0, env.buffer(4096)).await.0.unwrap_err();
        assert!(refused.to_string().starts_with("write "), "{refused}");
        env.remove(&root.join("two")).await.unwrap();
        let missing = env.remove(&root.join("two")).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().contains("two"), "{missing}");
    });
    assert!(env.free_space(&root).unwrap() > 0);
    assert_eq!(env.list(&root.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    let counters = env.disk_counters();
    assert_eq!(counters.classes[IoClass::Scan as usize].bytes, 3 * (1 << 20) + 4096);
    assert!(counters.classes[IoClass::Commit as usize].ring_nanoseconds > 0);
    assert_eq!(env.disk_requests(), 0);
    core.shutdown();
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

#[test]
fn a_file_system_in_memory_works_too() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("this machine has no /dev/shm to test on");
        return;
    };
    let mut core = core();
    let env = core.env();
    core.block_on(async {
        let path = directory.path().join("file");
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        file.allocate(8192).await.unwrap();
        file.write_durably(IoClass::Commit, 4096, filled(&env, 4096, 9)).await.0.unwrap();
        let (result, read) = file.read(IoClass::Read, 4096, env.buffer(4096)).await;
        result.unwrap();
        assert!(*read == *filled(&env, 4096, 9));
    });
}
