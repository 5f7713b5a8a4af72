use std::collections::BTreeMap;
use std::path::Path;

use larder_runtime::simulation::{SimDisk, SimEnv, Simulation, SimulationOptions};

use super::compaction::picker::{Choice, PickerOptions};
use super::table::{EntryBuf, key_hash};
use super::test_host::TestHost;
use super::*;
use crate::entry::{Metadata, Payload, Pointer};
use crate::key::Key;

mod quarantine;

const DIRECTORY: &str = "/shard";
const RECORD_BYTES: u32 = 1000;

fn options() -> IndexOptions {
    IndexOptions {
        memtable_bytes: 16 << 10,
        block_cache_bytes: 64 << 10,
        tables: TableOptions { table_bytes: 32 << 10, ..TableOptions::default() },
        picker: PickerOptions {
            level_zero_runs: 3,
            level_one_bytes: 64 << 10,
            level_factor: 3,
            levels_max: 5,
            merge_bytes: 96 << 10,
            ..PickerOptions::default()
        },
    }
}

fn key(number: u32) -> Vec<u8> {
    Key::memcached(format!("key-{number:06}").as_bytes()).encode()
}

fn separate(version: u64) -> EntryBuf {
    let pointer = Pointer { segment: version as u32 % 4, offset: 4096, len: RECORD_BYTES };
    let metadata = Metadata { version, ..Metadata::default() };
    EntryBuf::new(&Entry { metadata, payload: Payload::Separate(pointer, RECORD_BYTES - 100) })
}

fn tombstone(version: u64) -> EntryBuf {
    let metadata = Metadata { version, ..Metadata::default() };
    EntryBuf::new(&Entry { metadata, payload: Payload::Tombstone })
}

/// An index on its own: no shard, no log.
struct Fixture {
    options: IndexOptions,
    simulation: Simulation,
    host: Rc<TestHost>,
    index: Rc<Index<SimEnv>>,
    model: BTreeMap<u32, EntryBuf>,
    sequence: u64,
}

impl Fixture {
    fn new(seed: u64) -> Self {
        Self::with(seed, options())
    }

    fn with(seed: u64, options: IndexOptions) -> Self {
        let mut disk = SimDisk::new(1 << 30);
        disk.create_directory(DIRECTORY);
        let mut simulation = Simulation::with_disk(SimulationOptions::new(seed), disk);
        let host = Rc::new(TestHost::new(4));
        let index = open(&mut simulation, &host, options).expect("opens");
        Self { options, simulation, host, index, model: BTreeMap::new(), sequence: 0 }
    }

    fn insert(&mut self, number: u32, make: fn(u64) -> EntryBuf) {
        self.sequence += 1;
        let entry = make(self.sequence);
        self.index.insert(&key(number), &entry.as_entry(), self.sequence);
        self.model.insert(number, entry);
    }

    fn flush(&mut self) {
        let position = LogPosition { segment: 0, offset: 0, sequence: self.sequence };
        self.index.freeze(position, Generations::default());
        let (index, host) = (self.index.clone(), self.host.clone());
        let flushed = self.simulation.block_on(async move { index.flush(&*host).await });
        flushed.expect("runs").expect("flushes");
    }

    fn compact(&mut self) -> Result<usize, EngineError> {
        for steps in 0..1000 {
            let choice = self.index.next_compaction(&self.host.durable_generations());
            if choice == Choice::Nothing {
                return Ok(steps);
            }
            let (index, host) = (self.index.clone(), self.host.clone());
            let work = async move {
                index.compact(choice, &*host).await?;
                index.remove_unread_files().await
            };
            self.simulation.block_on(work).expect("runs")?;
        }
        panic!("compaction does not come to an end");
    }

    fn get(&mut self, number: u32) -> Result<Option<EntryBuf>, EngineError> {
        let key = key(number);
        let found = self.index.in_memtables(&key, |found| EntryBuf::new(&found.entry));
        if found.is_some() {
            return Ok(found);
        }
        let index = self.index.clone();
        let look = async move { index.in_tables(&key, key_hash(&key)).await };
        self.simulation.block_on(look).expect("runs")
    }

    fn check(&mut self) {
        for (number, entry) in self.model.clone() {
            let found = self.get(number).expect("readable");
            let is_gone = entry.as_entry().is_tombstone() && found.is_none();
            assert!(found.as_ref() == Some(&entry) || is_gone, "key {number}");
        }
    }

    /// Opens the index again on the same disk and manifest.
    fn reopen(&mut self) {
        self.index = open(&mut self.simulation, &self.host, self.options).expect("opens");
    }
}

fn open(
    simulation: &mut Simulation,
    host: &Rc<TestHost>,
    options: IndexOptions,
) -> Result<Rc<Index<SimEnv>>, EngineError> {
    let (env, host) = (simulation.env(), host.clone());
    let opening = async move {
        let manifest = host.manifest.borrow().clone();
        Index::open(env, Path::new(DIRECTORY), 7, options, &manifest).await
    };
    simulation.block_on(opening).expect("runs").map(Rc::new)
}

#[test]
fn an_index_without_a_shard_flushes_compacts_and_opens_again() {
    let mut fixture = Fixture::new(1);
    for round in 0..6u32 {
        for number in 0..200 {
            let make = if (number + round) % 5 == 0 { tombstone } else { separate };
            fixture.insert(number * 7 % 300 + round, make);
        }
        fixture.flush();
        fixture.compact().expect("merges");
        fixture.check();
    }
    let statistics = fixture.index.statistics();
    assert_eq!(statistics.counters.flushes, 6);
    assert!(statistics.counters.compactions > 0, "{statistics:?}");
    fixture.reopen();
    assert_eq!(fixture.index.statistics().tables, statistics.tables);
    fixture.check();
    assert_eq!(fixture.get(999_999).expect("readable"), None);
}

#[test]
fn a_flush_and_a_merge_without_room_change_nothing() {
    let mut fixture = Fixture::new(2);
    for _ in 0..3 {
        for number in 0..100 {
            fixture.insert(number, separate);
        }
        fixture.flush();
    }
    fixture.host.room.set(0);
    assert!(matches!(fixture.compact(), Err(EngineError::Full)));
    let before = fixture.host.manifest.borrow().clone();
    fixture.insert(5, separate);
    fixture.index.freeze(before.replay_from, Generations::default());
    let (index, host) = (fixture.index.clone(), fixture.host.clone());
    let flushed = fixture.simulation.block_on(async move { index.flush(&*host).await });
    assert!(matches!(flushed.expect("runs"), Err(EngineError::Full)));
    assert!(fixture.index.has_frozen() && *fixture.host.manifest.borrow() == before);
    fixture.check();
    fixture.host.room.set(u64::MAX);
    fixture.compact().expect("there is room again");
    fixture.check();
    assert_eq!(fixture.host.live_bytes(), 100 * u64::from(RECORD_BYTES));
}

#[test]
fn a_table_holds_keys_of_one_generation() {
    let mut fixture = Fixture::new(3);
    for (sequence, generation) in (1..).zip([0, 0, 1, 7, 7, 7]) {
        let key = Key { namespace: generation, record: &[sequence as u8], item: b"" }.encode();
        fixture.index.insert(&key, &separate(sequence).as_entry(), sequence);
    }
    fixture.flush();
    let entries = || {
        let manifest = fixture.host.manifest.borrow();
        let mut tables: Vec<_> = manifest.levels.iter().flatten().cloned().collect();
        tables.sort_by(|left, right| left.smallest.cmp(&right.smallest));
        tables.iter().map(|table| table.entries).collect::<Vec<_>>()
    };
    assert_eq!(entries(), [2, 1, 3]);
}
