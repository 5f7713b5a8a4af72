use std::collections::BTreeMap;
use std::path::Path;

use larder_runtime::env::IoClass;
use larder_runtime::simulation::{
    FailOperation, Failure, FaultPlan, OperationKind, OperationKinds, SimDisk, SimEnv, Simulation,
    SimulationOptions,
};

use super::compaction::picker::{Choice, Garbage, PickerOptions};
use super::table::{EntryBuf, key_hash};
use super::test_host::TestHost;
use super::*;
use crate::entry::{Metadata, Payload, Pointer};
use crate::key::Key;
use crate::range_tombstones::RangeTombstone;

mod hiding;

mod opening;
mod quarantine;
mod scans;

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
        self.index.insert(&key(number), key_hash(&key(number)), &entry.as_entry(), self.sequence);
        self.model.insert(number, entry);
    }

    fn delete_range(&mut self, from: u32, below: u32) {
        self.sequence += 1;
        let (start, end, sequence) = (key(from), key(below), self.sequence);
        self.index.delete_range(RangeTombstone { start, end, sequence });
        for (_, entry) in self.model.range_mut(from..below) {
            *entry = tombstone(sequence);
        }
    }

    fn flush(&mut self) {
        let position = LogPosition { segment: 0, offset: 0, sequence: self.sequence + 1 };
        self.index.freeze(position, Generations::default());
        let (index, host) = (self.index.clone(), self.host.clone());
        let flushed = self.simulation.block_on(async move { index.flush(&*host).await });
        flushed.expect("runs").expect("flushes");
    }

    fn compact(&mut self) -> Result<usize, EngineError> {
        for steps in 0..1000 {
            if !self.compact_once()? {
                return Ok(steps);
            }
        }
        panic!("compaction does not come to an end");
    }

    /// Carries out what is due first; false if nothing is.
    fn compact_once(&mut self) -> Result<bool, EngineError> {
        let choice = self.index.next_compaction(&self.host.durable(), Garbage::Enough);
        if choice == Choice::Nothing {
            return Ok(false);
        }
        let (index, host) = (self.index.clone(), self.host.clone());
        let work = async move {
            index.compact(choice, &*host).await?;
            index.remove_unread_files().await
        };
        self.simulation.block_on(work).expect("runs")?;
        Ok(true)
    }

    fn get(&mut self, number: u32) -> Result<Option<EntryBuf>, EngineError> {
        let key = key(number);
        let found =
            self.index.in_memtables(&key, key_hash(&key), |found| EntryBuf::new(&found.entry));
        if found.is_some() {
            return Ok(found);
        }
        let index = self.index.clone();
        let look = async move { index.in_tables(&key, key_hash(&key), IoClass::Read).await };
        self.simulation.block_on(look).expect("runs")
    }

    fn tables(&self) -> u64 {
        self.index.statistics().tables
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
        fixture.index.insert(&key, key_hash(&key), &separate(sequence).as_entry(), sequence);
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

fn expiring(version: u64) -> EntryBuf {
    let entry = separate(version);
    let Entry { metadata, payload } = entry.as_entry();
    EntryBuf::new(&Entry { metadata: Metadata { expiry: EXPIRY, ..metadata }, payload })
}

/// Some time after the simulation's clock begins.
const EXPIRY: u32 = 1_700_000_100;

#[test]
fn what_has_expired_as_a_whole_goes_unread() {
    let mut fixture = Fixture::new(4);
    for round in 0..8 {
        for number in 0..200 {
            fixture.insert(round * 200 + number, expiring);
        }
        fixture.flush();
        fixture.compact().expect("moves");
    }
    assert_eq!(fixture.index.next_expiry(), Some(EXPIRY));
    fixture.reopen();
    let reads = OperationKinds::of(&[OperationKind::Read]);
    let (before, tables) = (fixture.simulation.operations_of(reads), fixture.tables());
    assert!(tables >= 8 && fixture.host.live_bytes() == 1600 * u64::from(RECORD_BYTES));
    fixture.simulation.set_unix_seconds(EXPIRY.into());
    fixture.compact().expect("removes");
    assert_eq!((fixture.tables(), fixture.host.live_bytes()), (0, 0));
    assert_eq!(fixture.simulation.operations_of(reads) - before, tables, "one read for each");
    assert_eq!(fixture.simulation.snapshot().files(), []);
}

#[test]
fn deletes_and_overwrites_are_found_without_further_writes() {
    let mut fixture = Fixture::new(5);
    for number in 0..2000 {
        fixture.insert(number, separate);
    }
    fixture.flush();
    fixture.compact().expect("moves");
    for number in 0..1800 {
        fixture.insert(number, if number % 2 == 0 { tombstone } else { separate });
    }
    fixture.flush();
    assert!(fixture.index.estimate().hidden_bytes >= 1800 * u64::from(RECORD_BYTES));
    fixture.compact().expect("merges");
    let live = fixture.model.values().filter(|entry| !entry.as_entry().is_tombstone()).count();
    let counted = fixture.host.live_bytes() / u64::from(RECORD_BYTES);
    assert!(counted <= live as u64 * 9 / 8, "{counted} records count, {live} are alive");
    assert_eq!(fixture.index.debt(), 0);
    fixture.check();
}

#[test]
fn time_ordered_keys_leave_level_zero_and_cost_no_merge() {
    let mut fixture = Fixture::new(6);
    for round in 0..60 {
        for number in 0..100 {
            fixture.insert(round * 100 + number, separate);
        }
        fixture.flush();
        fixture.compact().expect("moves");
        let level_zero = fixture.host.manifest.borrow().levels[0].len() as u64;
        assert!(level_zero < fixture.options.picker.level_zero_tables, "{level_zero} tables");
    }
    assert_eq!(fixture.index.statistics().counters.compactions, 0);
    fixture.check();
}

#[test]
fn a_file_stays_as_long_as_a_look_up_may_read_it() {
    let mut fixture = Fixture::new(7);
    for round in 0..3 {
        for number in 0..200 {
            fixture.insert(number + round, separate);
        }
        fixture.flush();
    }
    let (index, name) = (fixture.index.clone(), key(100));
    let hash = key_hash(&name);
    // Begun, not polled: it has the tables of this moment.
    let looking = index.in_tables(&name, hash, IoClass::Read);
    fixture.compact().expect("merges");
    assert!(fixture.index.has_retired() && !fixture.index.has_unread_files());
    assert!(fixture.index.statistics().retired_bytes > 0);
    let found = fixture.simulation.block_on(looking).expect("runs").expect("readable");
    assert_eq!(found.as_ref(), fixture.model.get(&100));
    assert!(fixture.index.has_unread_files());
    let removing = async move { index.remove_unread_files().await };
    fixture.simulation.block_on(removing).expect("runs").expect("removes");
    assert!(!fixture.index.has_retired());
    let files = fixture.simulation.snapshot().files().len() as u64;
    assert_eq!(files, fixture.tables());
}

#[test]
fn blocks_that_were_just_written_are_not_read_and_those_of_gone_tables_are_not_kept() {
    let mut fixture = Fixture::with(8, IndexOptions { block_cache_bytes: 1 << 20, ..options() });
    for round in 0..12 {
        for number in 0..200 {
            fixture.insert(number * 7 % 400 + round, separate);
        }
        fixture.flush();
        fixture.compact().expect("merges");
    }
    let contents = fixture.index.contents.borrow();
    let blocks: usize = contents.tables.tables().map(|table| table.blocks()).sum();
    drop(contents);
    assert_eq!(fixture.index.blocks().counters().entries, blocks);
    fixture.check();
    assert_eq!(fixture.index.blocks().counters().misses, 0);
}

#[test]
fn a_table_that_cannot_be_opened_at_once_is_opened_again_or_given_up() {
    for (failures, flushes) in [(1, true), (2, true), (3, false)] {
        let mut fixture = Fixture::new(8);
        for number in 0..200 {
            fixture.insert(number, separate);
        }
        let position = LogPosition { segment: 0, offset: 0, sequence: fixture.sequence };
        fixture.index.freeze(position, Generations::default());
        let kinds = OperationKinds::of(&[OperationKind::Read]);
        let sticky = FailOperation { index: 0, among: kinds, failure: Failure::Io, sticky: true };
        let faults = FaultPlan { fail_operation: Some(sticky), ..FaultPlan::default() };
        let env = fixture.simulation.env();
        env.set_faults(faults);
        let (index, host) = (fixture.index.clone(), fixture.host.clone());
        let healing = async move {
            // The attempts are this far apart.
            env.sleep(OPEN_RETRY_NANOSECONDS * failures - OPEN_RETRY_NANOSECONDS / 2).await;
            env.set_faults(FaultPlan::default());
            std::future::pending::<()>().await;
        };
        let flushing = async move { index.flush(&*host).await };
        let healed = async move {
            healing.await;
            unreachable!("the flush ends first")
        };
        let flushed = futures_lite::future::or(flushing, healed);
        let flushed = fixture.simulation.block_on(flushed).expect("runs");
        match flushed {
            Ok(()) => assert!(flushes),
            Err(error) => {
                assert!(!flushes && matches!(error, EngineError::Read(_)), "{error}");
                assert_eq!(fixture.simulation.snapshot().files(), [], "the table is removed");
                fixture.simulation.env().set_faults(FaultPlan::default());
                let (index, host) = (fixture.index.clone(), fixture.host.clone());
                let again = async move { index.flush(&*host).await };
                fixture.simulation.block_on(again).expect("runs").expect("flushes");
            }
        }
        assert_eq!((fixture.tables(), fixture.index.has_frozen()), (1, false));
        fixture.check();
    }
}
