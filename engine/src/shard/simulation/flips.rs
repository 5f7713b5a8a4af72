//! A store of about 100 KiB of which every byte is changed, one at a time but for runs of zeros.
//!
//! Each change is harmless or said: whoever opens the store and reads everything gets the right
//! answers, or an error that says what is damaged. No value is wrong, and no key that was
//! acknowledged is missing without a word.

use std::cell::Cell;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use larder_runtime::env::{Env, TaskQueue};
use larder_runtime::simulation::{SimDisk, Simulation};

use super::harness::{self, TestShard, tiny_options};
use super::history::Name;
use super::items;
use super::smoke::{delete, run, set};
use crate::error::EngineError;
use crate::operation::{Operation, Read};
use crate::shard::{OperationBuf, ShardOptions};

/// Threads that share the bytes. Each makes the store anew: the same seed makes the same one.
const THREADS: u64 = 2;

/// So many bytes are changed at once where all are zeros: most of a small store is padding.
const ZEROS: usize = 32;

const KEYS: u8 = 24;

fn options() -> ShardOptions {
    let mut options = tiny_options();
    options.segment_bytes = 16 << 10;
    options.memtable_bytes = 64 << 10;
    options.log.frames_in_flight_max = 1;
    options.free_segments_max = 0;
    // The longest of the values are compressed, others are as they are.
    options.compress_from = Some(40);
    options
}

fn key(number: u8) -> Vec<u8> {
    format!("key-{number:02}").into_bytes()
}

/// What a key ends up with; `None` if it is deleted.
pub(super) fn value(number: u8) -> Option<Vec<u8>> {
    let len = [5, 33, 300, 40][usize::from(number) % 4];
    (number % 5 != 4).then(|| vec![number ^ 0x5A; len])
}

/// What is done to each key, in rounds. The changes of a round share frames.
const ROUNDS: [fn(u8) -> Option<OperationBuf>; 3] = [
    |number| Some(set(&[number; 50])),
    |number| Some(value(number).map_or_else(delete, |value| set(&value))),
    |number| {
        let touch = Read { expiry: Some(2_000_000_000), ..Read::default() };
        match (number % 5, value(number)) {
            (0, Some(value)) => Some(set(&value)),
            (1, _) => Some(OperationBuf::new(&Operation::Read(touch))),
            _ => None,
        }
    },
];

fn write(life: &mut Simulation, shard: &TestShard) {
    let unfinished = Rc::new(Cell::new(0));
    for (index, round) in ROUNDS.into_iter().enumerate() {
        if index == 2 {
            // From here on the changes are in the log only.
            let shard = shard.clone();
            life.block_on(async move { items::flush_memtable(&shard).await }).expect("runs");
        }
        for number in 0..KEYS {
            let Some(operation) = round(number) else { continue };
            let (shard, unfinished) = (shard.clone(), Rc::clone(&unfinished));
            unfinished.set(unfinished.get() + 1);
            life.env().spawn(TaskQueue::Foreground, async move {
                run(&shard, &key(number), operation).await;
                unfinished.set(unfinished.get() - 1);
            });
        }
        let (env, unfinished) = (life.env(), Rc::clone(&unfinished));
        let finishing = async move {
            while unfinished.get() > 0 {
                env.sleep(1_000_000).await;
            }
        };
        life.block_on(finishing).expect("runs");
    }
    let closing = shard.clone();
    life.block_on(async move { closing.close().await }).expect("runs").expect("closes");
}

/// A store with a table, values in segments, and changes that no table has.
pub(super) fn store() -> SimDisk {
    let mut life = harness::life(1, harness::empty_disk(harness::CAPACITY));
    let (shard, _) = harness::open_in(&mut life, &options());
    write(&mut life, &shard);
    let statistics = shard.statistics();
    assert!(statistics.index.tables > 0 && statistics.index.memtable_entries > 0, "{statistics:?}");
    drop(shard);
    let mut disk = life.crash();
    // The manifest's file is allocated ahead; what follows its last record is of no meaning.
    for (path, _) in disk.files() {
        if path.to_string_lossy().contains("MANIFEST") {
            let bytes = disk.read_all(&path);
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            disk.truncate(&path, (used as u64).next_multiple_of(4096));
        }
    }
    disk
}

/// Opens the store and reads every key. Returns what is said of damage; panics where the answer is
/// wrong and nothing is said.
pub(super) fn open_and_read(disk: SimDisk, what: &str) -> Option<String> {
    let mut life = harness::life(3, disk);
    let opening = harness::open(life.env(), options());
    let (shard, report) = match life.block_on(opening).expect("opening does not hang") {
        Ok(opened) => opened,
        Err(error) => return Some(error.to_string()),
    };
    let mut said = report.damage.first().map(|damage| damage.what.clone());
    let is_said = said.is_some();
    let reading = async move {
        for number in 0..KEYS {
            match harness::stored(&shard, &Name::memcached(&key(number))).await {
                Ok(item) => {
                    let found = item.map(|item| item.value);
                    let is_right = found == value(number);
                    let is_older = found.is_none() || found == Some(vec![number; 50]);
                    assert!(is_right || (is_said && is_older), "{what}: key {number}: {found:?}");
                }
                Err(error @ EngineError::Damaged { .. }) => said = Some(error.to_string()),
                Err(error) => panic!("{what}: key {number}: {error}"),
            }
        }
        said
    };
    life.block_on(reading).expect("reading does not hang")
}

/// Every byte of every file, numbered.
pub(super) fn places(disk: &SimDisk) -> impl Iterator<Item = (u64, PathBuf, u64)> {
    let files = disk.files();
    files
        .into_iter()
        .flat_map(|(path, len)| (0..len).map(move |offset| (path.clone(), offset)))
        .zip(0..)
        .map(|((path, offset), number)| (number, path, offset))
}

/// The bit that is flipped of a byte: another one from byte to byte.
pub(super) fn bit(number: u64) -> u8 {
    ((number ^ (number >> 3) ^ (number >> 6)) % 8) as u8
}

/// The bytes of every file, each by itself but for those amid zeros.
fn stretches(disk: &SimDisk) -> Vec<(PathBuf, Range<u64>)> {
    let mut stretches = Vec::new();
    for (path, _) in disk.files() {
        let mut offset = 0;
        for chunk in disk.read_all(&path).chunks(ZEROS) {
            let step = if chunk.iter().all(|&byte| byte == 0) { chunk.len() as u64 } else { 1 };
            let end = offset + chunk.len() as u64;
            while offset < end {
                stretches.push((path.clone(), offset..offset + step));
                offset += step;
            }
        }
    }
    stretches
}

fn flip_share(share: u64) -> (u64, u64) {
    let disk = store();
    assert_eq!(open_and_read(disk.clone(), "nothing was changed"), None);
    let (mut said, mut harmless) = (0, 0);
    let stretches = stretches(&disk).into_iter().enumerate();
    for (index, (path, stretch)) in stretches.filter(|(index, _)| *index as u64 % THREADS == share)
    {
        let mut damaged = disk.clone();
        for offset in stretch.clone() {
            damaged.flip_bit(&path, offset, bit(index as u64 + offset));
        }
        let what = format!("a bit of each byte {stretch:?} of {}", path.display());
        let bytes = stretch.end - stretch.start;
        match open_and_read(damaged, &what) {
            Some(_) => said += bytes,
            None => harmless += bytes,
        }
    }
    (said, harmless)
}

#[test]
fn a_flip_of_any_byte_is_said_or_harmless() {
    let bytes: u64 = store().files().iter().map(|(_, len)| len).sum();
    assert!((48 << 10..120 << 10).contains(&bytes), "a store of {bytes} bytes");
    let counts = std::thread::scope(|scope| {
        let shares: Vec<_> =
            (0..THREADS).map(|share| scope.spawn(move || flip_share(share))).collect();
        shares.into_iter().map(|share| share.join().expect("no flip fails")).collect::<Vec<_>>()
    });
    let said: u64 = counts.iter().map(|count| count.0).sum();
    let harmless: u64 = counts.iter().map(|count| count.1).sum();
    eprintln!("{bytes} bytes: {said} flips were said, {harmless} were harmless");
    assert_eq!(said + harmless, bytes);
    assert!(said > 1000 && harmless > 1000, "{said} said, {harmless} harmless");
}
