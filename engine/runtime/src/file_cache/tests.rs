use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

use futures_lite::future::poll_once;

use super::*;
use crate::env::{DISK_ALIGNMENT, File, IoClass};
use crate::simulation::{
    FailOperation, Failure, FaultPlan, OperationKind, OperationKinds, SimDisk, SimEnv, Simulation,
    SimulationOptions,
};

const CLASS: IoClass = IoClass::Read;

type Cached = FileCache<SimEnv>;

/// One run on an empty disk with at most `open_max` files open; the disk afterwards.
fn run(seed: u64, open_max: usize, script: impl AsyncFnOnce(Cached)) -> SimDisk {
    run_with(SimulationOptions::new(seed), open_max, script)
}

fn run_with(
    options: SimulationOptions,
    open_max: usize,
    script: impl AsyncFnOnce(Cached),
) -> SimDisk {
    let seed = options.seed;
    let mut simulation = Simulation::new(options);
    let env = simulation.env();
    let cache = FileCache::new(env.clone(), open_max);
    simulation.block_on(script(cache)).unwrap_or_else(|stopped| panic!("seed {seed}: {stopped}"));
    simulation.run_until_idle().expect("nothing is left to do");
    let (open, most) = env.open_handles();
    assert!(most <= open_max, "seed {seed}: {most} files were open");
    assert_eq!(open, 0, "seed {seed}: files stay open");
    simulation.kill()
}

async fn create(cache: &Cached, path: &str) -> CachedFile<SimEnv> {
    cache.open(Path::new(path), OpenMode::CreateNew).await.expect("a new file")
}

async fn put(cache: &Cached, file: &CachedFile<SimEnv>, page: u64, byte: u8) -> io::Result<()> {
    let mut buffer = cache.buffer(DISK_ALIGNMENT);
    buffer.fill(byte);
    file.write(CLASS, page * DISK_ALIGNMENT as u64, buffer).await.0
}

/// The byte that fills a page.
async fn get(cache: &Cached, file: &CachedFile<SimEnv>, page: u64) -> io::Result<u8> {
    let buffer = cache.buffer(DISK_ALIGNMENT);
    let (result, buffer) = file.read(CLASS, page * DISK_ALIGNMENT as u64, buffer).await;
    result.map(|()| {
        assert!(buffer.iter().all(|byte| *byte == buffer[0]), "a page of two files");
        buffer[0]
    })
}

#[test]
fn the_least_recently_used_file_is_closed_for_another() {
    run(1, 2, async |cache| {
        let files = [create(&cache, "/a").await, create(&cache, "/b").await];
        assert_eq!(put(&cache, &files[0], 0, 1).await.ok(), Some(()));
        files[0].sync(CLASS).await.expect("synced");
        let third = create(&cache, "/c").await;
        let opens = cache.counters().opens;
        assert_eq!(get(&cache, &files[0], 0).await.ok(), Some(1));
        assert_eq!(cache.counters().opens, opens, "the first was used last");
        assert_eq!((files[1].len(), third.len()), (0, 0));
        files[1].sync(CLASS).await.expect("synced");
        let expected = FileCacheCounters {
            open_max: 2,
            open: 2,
            handles: 3,
            opens: opens + 1,
            evictions: 2,
            ..FileCacheCounters::default()
        };
        assert_eq!(cache.counters(), expected);
    });
}

#[test]
fn a_handle_never_reads_another_files_bytes() {
    for seed in 0..50 {
        run(seed, 1, async |cache| {
            let old = create(&cache, "/a").await;
            put(&cache, &old, 0, 1).await.expect("written");
            let other = create(&cache, "/b").await;
            put(&cache, &other, 0, 2).await.expect("written");
            assert_eq!(get(&cache, &old, 0).await.ok(), Some(1));
            // The name is somebody else's from here on.
            assert_eq!(get(&cache, &other, 0).await.ok(), Some(2));
            cache.remove(Path::new("/a")).await.expect("removed");
            let new = create(&cache, "/a").await;
            put(&cache, &new, 0, 3).await.expect("written");
            assert_eq!(get(&cache, &other, 0).await.ok(), Some(2));
            let gone = get(&cache, &old, 0).await.expect_err("its name is gone");
            assert_eq!((gone.kind(), old.len()), (io::ErrorKind::NotFound, 4096));
            cache.rename(Path::new("/b"), Path::new("/a")).await.expect("renamed");
            let third = create(&cache, "/b").await;
            put(&cache, &third, 0, 4).await.expect("written");
            assert_eq!(get(&cache, &other, 0).await.ok(), Some(2), "it follows its name");
            let gone = get(&cache, &new, 0).await.expect_err("it was replaced");
            assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        });
    }
}

#[test]
fn opening_and_changing_a_name_wait_for_each_other() {
    for seed in 0..200 {
        run(seed, 2, async |cache| {
            let files = [create(&cache, "/a").await, create(&cache, "/b").await];
            for (number, file) in files.iter().enumerate() {
                put(&cache, file, 0, number as u8).await.expect("written");
                file.sync(CLASS).await.expect("synced");
            }
            let others = [create(&cache, "/c").await, create(&cache, "/d").await];
            drop(others);
            let renaming = cache.rename(Path::new("/a"), Path::new("/b"));
            let reading = futures_lite::future::zip(get(&cache, &files[0], 0), async {
                get(&cache, &files[1], 0).await
            });
            let (renamed, (first, second)) = futures_lite::future::zip(renaming, reading).await;
            renamed.expect("renamed");
            assert_eq!(first.ok(), Some(0), "the file that got a new name");
            match second {
                Ok(byte) => assert_eq!(byte, 1, "seed {seed}: its own bytes"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
            }
        });
    }
}

#[test]
fn a_change_that_is_dropped_leaves_the_handles_without_a_name() {
    for seed in 0..50 {
        run(seed, 1, async |cache| {
            let file = create(&cache, "/a").await;
            put(&cache, &file, 0, 1).await.expect("written");
            let mut removal = Box::pin(cache.remove(Path::new("/a")));
            assert!(poll_once(&mut removal).await.is_none());
            drop(removal);
            drop(create(&cache, "/b").await);
            assert!(get(&cache, &file, 0).await.is_err(), "seed {seed}: it may be gone");
        });
    }
}

#[test]
fn errors_of_opening_show_where_the_file_is_needed() {
    run(3, 1, async |cache| {
        let missing = cache.open(Path::new("/x"), OpenMode::Read).await.expect_err("missing");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let file = create(&cache, "/a").await;
        let again = cache.open(Path::new("/a"), OpenMode::CreateNew).await.expect_err("exists");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        // Closed by the attempt, and then taken away behind the cache's back.
        cache.inner().remove(Path::new("/a")).await.expect("removed");
        let reads = futures_lite::future::zip(get(&cache, &file, 0), get(&cache, &file, 0)).await;
        for read in [reads.0, reads.1] {
            assert_eq!(read.expect_err("gone").kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(file.sync(CLASS).await.expect_err("gone").kind(), io::ErrorKind::NotFound);
        assert_eq!(cache.counters().open, 0);
    });
}

#[test]
fn a_file_that_was_written_is_synced_before_it_is_closed() {
    let disk = run(4, 1, async |cache| {
        cache.sync_directory(Path::new("/")).await.expect("synced");
        let file = create(&cache, "/a").await;
        put(&cache, &file, 0, 7).await.expect("written");
        let other = create(&cache, "/b").await;
        assert_eq!((cache.counters().syncs, cache.counters().evictions), (1, 1));
        // What a sync or a durable write has covered is closed without one.
        let mut buffer = cache.buffer(DISK_ALIGNMENT);
        buffer.fill(8);
        other.write_durably(CLASS, 0, buffer).await.0.expect("durable");
        assert_eq!(get(&cache, &file, 0).await.ok(), Some(7));
        put(&cache, &file, 0, 9).await.expect("written");
        file.sync(CLASS).await.expect("synced");
        assert_eq!(get(&cache, &other, 0).await.ok(), Some(8));
        assert_eq!(cache.counters().syncs, 1);
    });
    assert_eq!(disk.read_all("/a")[0], 9);
}

#[test]
fn a_forced_sync_that_fails_is_the_handles_own_failure() {
    let fails =
        FailOperation::once(0, Failure::Io).among(OperationKinds::of(&[OperationKind::Sync]));
    let faults = FaultPlan { fail_operation: Some(fails), ..FaultPlan::default() };
    let options = SimulationOptions { faults, ..SimulationOptions::new(5) };
    run_with(options, 1, async |cache| {
        let file = create(&cache, "/a").await;
        put(&cache, &file, 0, 7).await.expect("written");
        let other = create(&cache, "/b").await;
        assert_eq!(cache.counters().syncs, 1);
        for _ in 0..2 {
            file.sync(CLASS).await.expect_err("a write of it may be lost");
        }
        let buffer = cache.buffer(DISK_ALIGNMENT);
        file.write_durably(CLASS, 0, buffer).await.0.expect_err("the same");
        other.sync(CLASS).await.expect("it has lost nothing");
    });
}

#[test]
fn an_operation_that_nobody_goes_on_with_holds_up_no_other_file() {
    for seed in 0..50 {
        run(seed, 2, async |cache| {
            let files = [create(&cache, "/a").await, create(&cache, "/b").await];
            let third = create(&cache, "/c").await;
            for file in files.iter().chain([&third]) {
                put(&cache, file, 0, 1).await.expect("written");
            }
            let mut stalled = Box::pin(get(&cache, &files[0], 0));
            assert!(poll_once(&mut stalled).await.is_none());
            for file in [&third, &files[1], &third] {
                assert_eq!(get(&cache, file, 0).await.ok(), Some(1), "seed {seed}");
            }
            drop(stalled);
            assert_eq!(get(&cache, &files[0], 0).await.ok(), Some(1), "seed {seed}");
        });
    }
}

/// A task's files: by name, the handles that stand for it and the bytes of its pages.
#[derive(Default)]
struct Model {
    files: BTreeMap<PathBuf, (Vec<CachedFile<SimEnv>>, Vec<u8>)>,
    gone: Vec<(CachedFile<SimEnv>, Vec<u8>)>,
    created: usize,
}

const STEPS: usize = 120;
const PAGES: u64 = 3;

impl Model {
    /// One random step of task number `task`.
    async fn step(&mut self, cache: &Cached, task: usize) {
        let random = cache.random() as usize;
        let chosen = self.files.keys().nth(random / 16 % self.files.len().max(1)).cloned();
        let Some(path) = chosen.filter(|_| random % 16 > 1) else {
            self.created += 1;
            let path = PathBuf::from(format!("/{task}-{}", self.created % 5));
            let Entry::Vacant(entry) = self.files.entry(path) else { return };
            let file = cache.open(entry.key(), OpenMode::CreateNew).await.expect("a new file");
            entry.insert((vec![file], Vec::new()));
            return;
        };
        let (handles, pages) = self.files.get_mut(&path).expect("just found");
        let file = handles[random / 256 % handles.len()].clone();
        match random % 16 {
            2..=4 => {
                let page = (random as u64 / 4096 % PAGES).min(pages.len() as u64);
                let byte = cache.random() as u8;
                put(cache, &file, page, byte).await.expect("written");
                pages.resize(pages.len().max(page as usize + 1), 0);
                pages[page as usize] = byte;
            }
            5 => file.sync(CLASS).await.expect("synced"),
            6 => handles.push(cache.open(&path, OpenMode::ReadWrite).await.expect("it exists")),
            7 if handles.len() > 1 => drop(handles.pop()),
            8 => {
                cache.remove(&path).await.expect("removed");
                let (handles, pages) = self.files.remove(&path).expect("just found");
                self.gone.extend(handles.into_iter().map(|file| (file, pages.clone())));
            }
            9 => self.rename(cache, path, task, random).await,
            _ => read_back(cache, &file, pages).await,
        }
        if random.is_multiple_of(7) {
            self.read_gone(cache).await;
        }
    }

    async fn rename(&mut self, cache: &Cached, from: PathBuf, task: usize, random: usize) {
        let to = PathBuf::from(format!("/{task}-{}", random / 64 % 5));
        cache.rename(&from, &to).await.expect("renamed");
        if from != to {
            let moved = self.files.remove(&from).expect("it was there");
            let replaced = self.files.insert(to, moved);
            let (handles, pages) = replaced.unwrap_or_default();
            self.gone.extend(handles.into_iter().map(|file| (file, pages.clone())));
        }
    }

    /// Handles without a name answer with their own bytes, or not at all.
    async fn read_gone(&mut self, cache: &Cached) {
        for (file, pages) in std::mem::take(&mut self.gone) {
            for (page, byte) in pages.iter().enumerate() {
                match get(cache, &file, page as u64).await {
                    Ok(found) => assert_eq!(found, *byte, "a removed file's page"),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
                }
            }
        }
    }
}

async fn read_back(cache: &Cached, file: &CachedFile<SimEnv>, pages: &[u8]) {
    for (page, byte) in pages.iter().enumerate() {
        assert_eq!(get(cache, file, page as u64).await.expect("its own page"), *byte);
    }
    let past_the_end = get(cache, file, pages.len() as u64).await;
    assert_eq!(past_the_end.expect_err("no page").kind(), io::ErrorKind::UnexpectedEof);
    // The handle that wrote last knows the length at once, the others when they next have a
    // descriptor; none knows more than there is.
    assert!(file.len() <= (pages.len() * DISK_ALIGNMENT) as u64);
}

#[test]
fn random_tasks_see_their_own_files_within_the_bound() {
    // Random steps that never meet the bound prove nothing.
    let reached = std::cell::Cell::new(FileCacheCounters::default());
    for seed in 0..150 {
        let tasks = 1 + seed as usize % 5;
        let open_max = 1 + seed as usize / 5 % 4;
        run(seed, open_max, async |cache| {
            let (done, mut left) = (Rc::new(std::cell::Cell::new(0)), tasks);
            for task in 0..tasks {
                let (cache, done) = (cache.clone(), Rc::clone(&done));
                cache.clone().spawn(TaskQueue::Foreground, async move {
                    let mut model = Model::default();
                    for step in 0..STEPS {
                        model.step(&cache, task).await;
                        let open = cache.counters().open;
                        assert!(open <= open_max, "seed {seed}, step {step}: {open} are open");
                    }
                    for (handles, pages) in model.files.values() {
                        read_back(&cache, &handles[0], pages).await;
                    }
                    done.set(done.get() + 1);
                });
            }
            while left > 0 {
                cache.sleep(1_000_000).await;
                left = tasks - done.get();
            }
            let counters = cache.counters();
            assert_eq!(counters.handles, 0, "seed {seed}");
            let sum = reached.get();
            reached.set(FileCacheCounters {
                evictions: sum.evictions + counters.evictions,
                waits: sum.waits + counters.waits,
                syncs: sum.syncs + counters.syncs,
                ..counters
            });
        });
    }
    let FileCacheCounters { evictions, waits, syncs, .. } = reached.get();
    assert!(evictions > 1000 && waits > 1000 && syncs > 1000, "{:?}", reached.get());
}
