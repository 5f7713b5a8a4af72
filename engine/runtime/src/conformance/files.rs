//! What files go through, whatever runs the core.

use std::io;

use super::Make;
use crate::buffer::Buffer;
use crate::core_env::CoreEnv;
use crate::core_runtime::CoreRuntime;
use crate::core_thread::CoreOptions;
use crate::env::{Env, File, IoClass, OpenMode};

fn filled<E: Env>(env: &E, len: usize, seed: usize) -> Buffer {
    let mut buffer = env.buffer(len);
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = (index * 31 + index / 4096 + seed) as u8;
    }
    buffer
}

pub(super) fn files_are_written_read_renamed_listed_and_removed<C: CoreRuntime>(make: Make<C>) {
    let directory = tempfile::tempdir().unwrap();
    let mut core = make(CoreOptions::default());
    let env = core.env();
    let root = directory.path().join("a/b");
    env.create_directory(&root).unwrap();
    env.create_directory(&root).unwrap();
    core.block_on(async {
        let file = env.open(&root.join("one"), OpenMode::CreateNew).await.unwrap();
        assert!(file.is_empty());
        let again = env.open(&root.join("one"), OpenMode::CreateNew).await.err().unwrap();
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
        let across = file.read(IoClass::Read, file.len() - 4096, env.buffer(8192)).await;
        assert_eq!(across.0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

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
        let missing = env.open(&root.join("two"), OpenMode::Read).await.err().unwrap();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let missing = env.sync_directory(&root.join("none")).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    });
    assert!(env.free_space(&root).unwrap() > 0);
    assert_eq!(env.list(&root.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    let counters = env.figures().disk;
    assert_eq!(counters.classes[IoClass::Scan as usize].bytes, 3 * (1 << 20) + 4096);
    assert!(counters.classes[IoClass::Commit as usize].ring_nanoseconds > 0);
    core.shutdown();
}

pub(super) fn a_file_ends_where_it_ends<C: CoreRuntime>(make: Make<C>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odd");
    #[allow(clippy::disallowed_methods, reason = "no runtime makes files that end there")]
    std::fs::write(&path, vec![7; 4096 + 100]).unwrap();
    let mut core = make(CoreOptions::default());
    let env = core.env();
    core.block_on(async {
        let file = env.open(&path, OpenMode::Read).await.unwrap();
        assert_eq!(file.len(), 4096 + 100);
        let (result, whole) = file.read(IoClass::Read, 0, env.buffer(4096)).await;
        result.unwrap();
        assert!(whole.iter().all(|&byte| byte == 7));
        for (offset, len) in [(0, 8192), (4096, 4096), (0, 65536), (8192, 4096)] {
            let error = file.read(IoClass::Read, offset, env.buffer(len)).await.0.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{len} at {offset}");
        }
    });
    core.shutdown();
}

pub(super) fn many_requests_at_once<C: CoreRuntime>(make: Make<C>) {
    const BLOCKS: u64 = 512;
    let directory = tempfile::tempdir().unwrap();
    let mut core = make(CoreOptions::default());
    let env = core.env();
    core.block_on(async {
        let path = directory.path().join("many");
        let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
        file.allocate(BLOCKS * 4096).await.unwrap();
        let write = |block: u64| {
            let buffer = filled(&env, 4096, block as usize);
            Box::pin(file.write(IoClass::Commit, block * 4096, buffer))
        };
        let mut writes: Vec<_> = (0..BLOCKS).map(write).collect();
        // All of them are under way together.
        for write in &mut writes {
            if let Some(done) = futures_lite::future::poll_once(&mut *write).await {
                panic!("a write that was not waited for has ended: {:?}", done.0);
            }
        }
        for write in writes {
            write.await.0.unwrap();
        }
        file.sync(IoClass::Commit).await.unwrap();
        let read = |block| file.read(IoClass::Read, block * 4096, env.buffer(4096));
        let reads: Vec<_> = (0..BLOCKS).map(read).collect();
        for (block, read) in reads.into_iter().enumerate() {
            let (result, buffer) = read.await;
            result.unwrap();
            assert!(*buffer == *filled(&env, 4096, block), "block {block}");
        }
    });
    let disk = env.figures().disk;
    assert_eq!((disk.writes, disk.reads, disk.syncs), (BLOCKS, BLOCKS, 1));
    core.shutdown();
}

/// A core that shuts down waits for what is under way, whoever has lost interest in it.
pub(super) fn requests_are_dropped_in_flight<C: CoreRuntime>(make: Make<C>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for round in 0..10u64 {
        let mut core = make(CoreOptions::default());
        let env = core.env();
        core.block_on(async {
            let mode = if round == 0 { OpenMode::CreateNew } else { OpenMode::ReadWrite };
            let file = env.open(&path, mode).await.unwrap();
            file.allocate(8 << 20).await.unwrap();
            let mut reads: Vec<_> = (0..8)
                .map(|block| Box::pin(file.read(IoClass::Read, block << 20, env.buffer(1 << 20))))
                .collect();
            for read in &mut reads {
                assert!(futures_lite::future::poll_once(read).await.is_none());
            }
            if round % 2 == 0 {
                futures_lite::future::yield_now().await;
            }
            drop(reads);
            let (result, _) = file.read(IoClass::Read, 0, env.buffer(4096)).await;
            result.unwrap();
        });
        core.shutdown();
    }
}

pub(super) fn a_file_system_in_memory_works_too<C: CoreRuntime>(make: Make<C>) {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("this machine has no /dev/shm to test on");
        return;
    };
    let mut core = make(CoreOptions::default());
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
    core.shutdown();
}
