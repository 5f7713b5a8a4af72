//! The file system without faults.

use std::io::ErrorKind;

use futures_lite::future::zip;

use super::*;
use crate::env::DirectoryEntry;

#[test]
fn open_modes() {
    let (_, result) = run(options(1), async |env| {
        let path = Path::new("/file");
        let open = async |path, mode| env.open(path, mode).await.map(drop).map_err(|e| e.kind());
        assert_eq!(open(path, OpenMode::Read).await, Err(ErrorKind::NotFound));
        assert_eq!(open(path, OpenMode::ReadWrite).await, Err(ErrorKind::NotFound));
        let missing = Path::new("/missing/file");
        assert_eq!(open(missing, OpenMode::CreateNew).await, Err(ErrorKind::NotFound));
        assert_eq!(open(path, OpenMode::CreateNew).await, Ok(()));
        assert_eq!(open(path, OpenMode::CreateNew).await, Err(ErrorKind::AlreadyExists));
        let below_file = Path::new("/file/below");
        assert_eq!(open(below_file, OpenMode::Read).await, Err(ErrorKind::NotADirectory));
        assert_eq!(open(Path::new("/"), OpenMode::Read).await, Err(ErrorKind::IsADirectory));

        let writer = env.open(path, OpenMode::ReadWrite).await.unwrap();
        put(&env, &writer, 0, 7).await.unwrap();
        let reader = env.open(path, OpenMode::Read).await.unwrap();
        assert_eq!(uniform(&get(&env, &reader, 0).await.unwrap()), Some(7));
        assert!(put(&env, &reader, 0, 8).await.is_err());
        assert!(reader.allocate(PAGE as u64).await.is_err());
        assert!(reader.sync(CLASS).await.is_ok());
        assert_eq!(uniform(&get(&env, &writer, 0).await.unwrap()), Some(7));
    });
    result.unwrap();
}

#[test]
fn only_one_of_two_creators_wins() {
    for seed in 0..50 {
        let (simulation, result) = run(options(seed), async |env| {
            let path = Path::new("/file");
            let both =
                zip(env.open(path, OpenMode::CreateNew), env.open(path, OpenMode::CreateNew));
            let (one, other) = both.await;
            assert!(one.is_ok() != other.is_ok(), "seed {seed}");
        });
        result.unwrap();
        assert_eq!(simulation.snapshot().files().len(), 1);
    }
}

#[test]
fn lengths_holes_and_ends() {
    let (_, result) = run(options(1), async |env| {
        let file = create(&env, "/file").await;
        assert!(file.is_empty());
        assert_eq!(get(&env, &file, 0).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        put(&env, &file, 3, 9).await.unwrap();
        assert_eq!(file.len(), 4 * PAGE as u64);
        assert_eq!(uniform(&get(&env, &file, 1).await.unwrap()), Some(0));
        assert_eq!(uniform(&get(&env, &file, 3).await.unwrap()), Some(9));
        let (result, buffer) = file.read(CLASS, 3 * PAGE as u64, env.buffer(2 * PAGE)).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(buffer.len(), 2 * PAGE);
        file.allocate(64 << 20).await.unwrap();
        assert_eq!(file.len(), 64 << 20);
        assert_eq!(uniform(&get(&env, &file, 16383).await.unwrap()), Some(0));
        assert_eq!(uniform(&get(&env, &file, 3).await.unwrap()), Some(9));
        file.allocate(PAGE as u64).await.unwrap();
        assert_eq!(file.len(), 64 << 20);
    });
    result.unwrap();
}

#[test]
fn names() {
    let (_, result) = run(options(1), async |env| {
        env.create_directory(Path::new("data/shard-0")).unwrap();
        env.create_directory(Path::new("/data/shard-0")).unwrap();
        let file = create(&env, "/data/b").await;
        put(&env, &file, 0, 1).await.unwrap();
        create(&env, "/data/a").await;
        let entry = |name: &str, len, is_directory| DirectoryEntry {
            name: name.to_string(),
            len,
            is_directory,
        };
        let listed = env.list(Path::new("/data")).unwrap();
        let expected =
            [entry("a", 0, false), entry("b", PAGE as u64, false), entry("shard-0", 0, true)];
        assert_eq!(listed, expected);

        env.rename(Path::new("/data/b"), Path::new("/data/a")).await.unwrap();
        let listed = env.list(Path::new("/data")).unwrap();
        assert_eq!(listed, [entry("a", PAGE as u64, false), entry("shard-0", 0, true)]);

        let rename =
            async |from, to| env.rename(Path::new(from), Path::new(to)).await.unwrap_err().kind();
        assert_eq!(rename("/data/b", "/data/c").await, ErrorKind::NotFound);
        assert_eq!(rename("/data/a", "/a").await, ErrorKind::InvalidInput);
        assert_eq!(rename("/data/a", "/data/shard-0").await, ErrorKind::IsADirectory);
        let missing = env.remove(Path::new("/data/b")).await.unwrap_err().kind();
        assert_eq!(missing, ErrorKind::NotFound);
        let missing = env.list(Path::new("/nothing")).unwrap_err().kind();
        assert_eq!(missing, ErrorKind::NotFound);
        assert!(env.create_directory(Path::new("/data/a/x")).is_err());
        assert!(env.list(Path::new("/data/../data")).is_err());
    });
    result.unwrap();
}

#[test]
fn a_handle_outlives_rename_and_removal() {
    let (simulation, result) = run(options(1), async |env| {
        let file = create_durably(&env, "/file").await;
        put(&env, &file, 0, 1).await.unwrap();
        env.rename(Path::new("/file"), Path::new("/other")).await.unwrap();
        put(&env, &file, 1, 2).await.unwrap();
        env.remove(Path::new("/other")).await.unwrap();
        env.sync_directory(Path::new("/")).await.unwrap();
        assert!(env.list(Path::new("/")).unwrap().is_empty());
        put(&env, &file, 2, 3).await.unwrap();
        file.sync(CLASS).await.unwrap();
        for (page, byte) in [(0, 1), (1, 2), (2, 3)] {
            assert_eq!(uniform(&get(&env, &file, page).await.unwrap()), Some(byte));
        }
        assert_eq!(env.snapshot().used_bytes(), 3 * PAGE as u64);
        drop(file);
        assert_eq!(env.snapshot().used_bytes(), 0);
    });
    result.unwrap();
    assert!(simulation.crash().files().is_empty());
}

#[test]
fn space_runs_out_and_comes_back() {
    let options = SimulationOptions { capacity_bytes: 10 * PAGE as u64, ..options(1) };
    let (_, result) = run(options, async |env| {
        let root = Path::new("/");
        let free = || env.free_space(root).unwrap() / PAGE as u64;
        let file = create(&env, "/file").await;
        assert_eq!(free(), 10);
        file.allocate(4 * PAGE as u64).await.unwrap();
        assert_eq!(free(), 6);
        // Within the reserved range a write takes nothing, past it one page; again, nothing.
        for (page, left) in [(0, 6), (3, 6), (8, 5), (8, 5)] {
            put(&env, &file, page, 1).await.unwrap();
            assert_eq!(free(), left);
        }
        // The page that is taken already is not taken again.
        file.allocate(10 * PAGE as u64).await.unwrap();
        assert_eq!(free(), 0);
        let other = create(&env, "/other").await;
        assert_eq!(put(&env, &other, 0, 1).await.unwrap_err().kind(), ErrorKind::StorageFull);
        assert!(other.is_empty());
        let full = other.allocate(PAGE as u64).await.unwrap_err().kind();
        assert_eq!(full, ErrorKind::StorageFull);
        put(&env, &file, 9, 1).await.unwrap();

        env.set_capacity(11 * PAGE as u64);
        put(&env, &other, 0, 1).await.unwrap();
        assert!(put(&env, &other, 1, 1).await.is_err());
        env.remove(Path::new("/file")).await.unwrap();
        assert_eq!(free(), 0);
        drop(file);
        assert_eq!(free(), 10);
        assert_eq!(env.free_space(Path::new("/x")).unwrap_err().kind(), ErrorKind::NotFound);
    });
    result.unwrap();
}

#[test]
fn writes_in_flight_at_once_cannot_overdraw_the_disk() {
    for seed in 0..30 {
        let options = SimulationOptions { capacity_bytes: PAGE as u64, ..options(seed) };
        let (simulation, result) = run(options, async |env| {
            let file = create(&env, "/file").await;
            zip(put(&env, &file, 0, 1), put(&env, &file, 1, 2)).await
        });
        let (one, other) = result.unwrap();
        assert!(one.is_ok() != other.is_ok(), "seed {seed}");
        assert_eq!(simulation.snapshot().used_bytes(), PAGE as u64);
    }
}

#[test]
fn a_read_that_overlaps_a_write_sees_old_or_new_sectors() {
    let mut seen = [false; 3];
    for seed in 0..100 {
        let (_, result) = run(options(seed), async |env| {
            let file = create(&env, "/file").await;
            put(&env, &file, 0, 1).await.unwrap();
            let (written, read) = zip(put(&env, &file, 0, 2), get(&env, &file, 0)).await;
            written.unwrap();
            let read = read.unwrap();
            for sector in read.chunks(512) {
                assert!(matches!(uniform(sector), Some(1 | 2)), "seed {seed}");
            }
            // Once both have resolved there is only the new.
            assert_eq!(uniform(&get(&env, &file, 0).await.unwrap()), Some(2));
            uniform(&read)
        });
        match result.unwrap() {
            Some(1) => seen[0] = true,
            Some(_) => seen[1] = true,
            None => seen[2] = true,
        }
    }
    assert_eq!(seen, [true; 3], "old, new, mixed");
}

#[test]
#[should_panic(expected = "is not aligned")]
fn an_unaligned_offset_is_a_mistake() {
    let _ = run(options(1), async |env| {
        let file = create(&env, "/file").await;
        let _ = file.write(CLASS, 512, env.buffer(PAGE)).await;
    });
}

#[test]
#[should_panic(expected = "is not aligned")]
fn an_unaligned_length_is_a_mistake() {
    let _ = run(options(1), async |env| {
        let file = create(&env, "/file").await;
        let _ = file.read(CLASS, 0, env.buffer(512)).await;
    });
}

#[test]
fn contents_match_a_plain_vector() {
    use crate::simulation::content::Content;
    for seed in 0..200 {
        let mut random = Stream::Application.of(seed);
        let mut content = Content::default();
        let mut model: Vec<u8> = Vec::new();
        for _ in 0..40 {
            let at = random.index(300 * PAGE);
            match random.below(5) {
                0 => {
                    content.truncate(at as u64);
                    model.resize(at, 0);
                }
                1 => {
                    content.extend(at as u64, random.coin());
                    model.resize(model.len().max(at), 0);
                }
                _ => {
                    let mut bytes = vec![0; 1 + random.index(3 * PAGE)];
                    random.fill(&mut bytes);
                    content.overwrite(at as u64, &bytes);
                    model.resize(model.len().max(at + bytes.len()), 0);
                    model[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            assert_eq!(content.len(), model.len() as u64, "seed {seed}");
            let pages = model.len().div_ceil(PAGE) as u64;
            assert!(content.charged_pages() <= pages, "seed {seed}");
        }
        let mut read = vec![1; model.len()];
        content.read(0, &mut read);
        assert!(read == model, "seed {seed}");
    }
}
