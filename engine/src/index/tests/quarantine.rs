//! Blocks that cannot be read: their keys answer with an error, everything else goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use larder_runtime::env::Env as _;

use super::*;
use crate::index::scan::ScanRange;
use crate::index::table::file_name;
use crate::manifest::NamespaceGeneration;

/// An index whose disk loses blocks.
struct Failing {
    fixture: Fixture,
    /// Keys that were not written since blocks were last lost.
    suspects: BTreeSet<u32>,
    random: u64,
}

impl Failing {
    fn new(seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        // Garbage may stay hidden, so that there are tables in every level.
        let mut options = options();
        options.picker.hidden_part = 1;
        Self { fixture: Fixture::with(seed, options), suspects: BTreeSet::new(), random }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }

    fn write(&mut self, number: u32, make: fn(u64) -> EntryBuf) {
        self.fixture.insert(number, make);
        self.suspects.remove(&number);
    }

    fn write_all(&mut self, numbers: impl Iterator<Item = u32>) {
        for number in numbers {
            self.write(number, separate);
        }
        self.fixture.flush();
    }

    /// The power fails, and a block of the table is lost: unreadable, or other bytes.
    fn lose_block(&mut self, table: &TableMeta, block: u64, flips: bool) {
        let simulation = Simulation::new(SimulationOptions::new(self.random));
        let mut disk = std::mem::replace(&mut self.fixture.simulation, simulation).kill();
        let path = PathBuf::from(DIRECTORY).join(file_name(table.id));
        match flips {
            true => disk.flip_bit(&path, block * 4096 + 20, 3),
            false => disk.lose_sector(&path, block * 4096),
        }
        let options = SimulationOptions::new(self.random);
        self.fixture.simulation = Simulation::with_disk(options, disk);
        self.fixture.reopen();
        self.suspects = self.fixture.model.keys().copied().collect();
    }

    /// The tables of a level that are no stubs.
    fn tables(&self, level: usize) -> Vec<TableMeta> {
        let manifest = self.fixture.host.manifest.borrow();
        manifest.levels[level].iter().filter(|table| !table.is_stub()).cloned().collect()
    }

    /// Every key has its value, or is said to be damaged if it was written before a loss. Returns
    /// how many are.
    fn check(&mut self) -> usize {
        let mut damaged = 0;
        for (number, entry) in self.fixture.model.clone() {
            match self.fixture.get(number) {
                Ok(found) => {
                    let is_gone = entry.as_entry().is_tombstone() && found.is_none();
                    assert!(found.as_ref() == Some(&entry) || is_gone, "key {number}: {found:?}");
                }
                Err(EngineError::Damaged { .. } | EngineError::Read(_)) => {
                    assert!(self.suspects.contains(&number), "key {number} was written since");
                    damaged += 1;
                }
                Err(error) => panic!("key {number}: {error}"),
            }
        }
        self.check_scan(damaged);
        damaged
    }

    /// A scan says that something is lost, or has everything.
    fn check_scan(&mut self, damaged: usize) {
        for is_reverse in [false, true] {
            let range = ScanRange { start: Vec::new(), end: None, is_reverse, passes_lost: false };
            match self.fixture.scan(&range) {
                Ok((found, _)) => {
                    assert_eq!(damaged, 0);
                    let living = |(_, entry): &&(u32, EntryBuf)| !entry.as_entry().is_tombstone();
                    let expected = self.fixture.expected(&range);
                    let expected: Vec<_> = expected.iter().filter(living).collect();
                    assert_eq!(found.iter().filter(living).collect::<Vec<_>>(), expected);
                }
                Err(EngineError::Damaged { .. } | EngineError::Read(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn stubs(&self) -> u64 {
        self.fixture.index.statistics().stubs
    }

    /// All generations die: nothing may be left, and nothing count as live.
    fn clear(mut self) {
        let generation = NamespaceGeneration { namespace: 0, generation: (1 << 31) + 1 };
        let edit =
            manifest::Edit { namespace_generations: vec![generation], ..manifest::Edit::default() };
        self.fixture.host.manifest.borrow_mut().apply(&edit).expect("applies");
        self.fixture.compact().expect("removes");
        let statistics = self.fixture.index.statistics();
        assert_eq!((statistics.tables, statistics.stubs), (0, 0));
        assert_eq!(self.fixture.host.live_bytes(), 0);
        assert_eq!(self.fixture.simulation.snapshot().files(), []);
    }
}

/// Fills levels 1 and 2 and leaves a table in level 0.
fn filled(seed: u64) -> Failing {
    let mut failing = Failing::new(seed);
    for round in 0..12 {
        failing.write_all((0..400).map(|number| (number * 37 + round) % 3000));
        failing.fixture.compact().expect("merges");
    }
    failing.write_all((0..300).map(|number| number * 10));
    failing
}

/// A deletion that is carried out takes what is lost for newer, and waits for a stub only where
/// that has lost keys.
fn check_ranges(failing: &mut Failing, damaged: &[u32]) {
    let (first, last) = (damaged[0], damaged[damaged.len() - 1]);
    let index = failing.fixture.index.clone();
    for &number in damaged {
        let (index, key) = (index.clone(), key(number));
        let asks = async move { index.is_newer_in_tables(&key, key_hash(&key), 0).await };
        assert!(failing.fixture.simulation.block_on(asks).expect("runs").expect("readable"));
    }
    let sequence = u64::MAX - 1;
    let range = |from, below| RangeTombstone { start: key(from), end: key(below), sequence };
    assert!(index.hidden_by(&range(first, last + 1)).is_none(), "a stub is in the way");
    for (from, below) in [(0, first.saturating_sub(100)), (last + 100, 3000)] {
        assert!(from >= below || index.hidden_by(&range(from, below)).is_some());
    }
}

fn in_level(level: usize, flips: bool) {
    let mut failing = filled(level as u64);
    let tables = failing.tables(level);
    let table = &tables[tables.len() / 2];
    assert!(table.file_bytes >= 6 * 4096, "the table has blocks to lose");
    failing.lose_block(table, 1, flips);
    let before = failing.check();
    assert!(before > 20, "{before} keys are damaged");
    // Merges go on.
    let written = failing.fixture.index.statistics().counters.compactions;
    for round in 0..6 {
        failing.write_all((0..300).map(|number| (number * 31 + round * 7) % 2500));
        failing.fixture.compact().expect("merges");
        failing.check();
    }
    assert!(failing.fixture.index.statistics().counters.compactions > written + 3);
    assert_eq!(failing.stubs(), 1);
    // What is written or deleted later is found, and stays so after a restart.
    let damaged: Vec<u32> = (0..3000)
        .filter(|&number| matches!(failing.fixture.get(number), Err(EngineError::Damaged { .. })))
        .collect();
    assert!(damaged.iter().any(|number| failing.suspects.contains(number)));
    check_ranges(&mut failing, &damaged);
    for number in damaged {
        failing.write(number, if number % 2 == 0 { separate } else { tombstone });
    }
    failing.fixture.flush();
    for round in 0..4 {
        failing.write_all((0..500).map(|number| (number * 6 + round) % 3000));
        failing.fixture.compact().expect("merges");
        failing.fixture.reopen();
        assert_eq!(failing.check(), 0, "every damaged key was written");
    }
    failing.clear();
}

#[test]
fn a_block_lost_in_level_zero() {
    in_level(0, true);
    in_level(0, false);
}

#[test]
fn a_block_lost_in_the_middle() {
    in_level(1, true);
    in_level(1, false);
}

#[test]
fn a_block_lost_at_the_bottom() {
    in_level(2, true);
    in_level(2, false);
}

#[test]
fn a_merge_over_many_lost_blocks_does_not_wait_for_each() {
    let mut failing = filled(3);
    let tables: Vec<TableMeta> = (0..3).flat_map(|level| failing.tables(level)).collect();
    let mut lost = 0;
    for table in &tables {
        for block in 0..(table.file_bytes / 4096).saturating_sub(4) {
            failing.lose_block(table, block, false);
            lost += 1;
        }
    }
    assert!(lost >= 8, "{lost} blocks were lost");
    let now = |failing: &Failing| failing.fixture.simulation.env().now();
    for round in 0..4 {
        failing.write_all((0..300).map(|number| (number * 31 + round * 7) % 2500));
        let mut began = now(&failing);
        while failing.fixture.compact_once().expect("merges") {
            let ended = now(&failing);
            assert!(ended - began < 3_000_000_000, "a merge has taken {} ns", ended - began);
            began = ended;
        }
        failing.check();
    }
    assert!(failing.stubs() > 0);
}

#[test]
fn blocks_lost_anywhere_at_any_time_never_bring_an_older_value_back() {
    for seed in 1..60 {
        eprintln!("seed {seed}");
        let mut failing = Failing::new(seed);
        for _ in 0..14 {
            if failing.below(3) == 0 {
                let from = failing.below(3000) as u32;
                let below = from + 1 + failing.below(600) as u32;
                failing.fixture.delete_range(from, below);
                failing.suspects.retain(|number| !(from..below).contains(number));
            }
            let (start, step) = (failing.below(2000) as u32, 1 + failing.below(9) as u32);
            for number in 0..1 + failing.below(400) as u32 {
                let make = if failing.below(5) == 0 { tombstone } else { separate };
                failing.write((start + number * step) % 3000, make);
            }
            failing.fixture.flush();
            failing.check();
            let level = failing.below(4);
            let tables = failing.tables(level);
            if failing.below(3) == 0 && !tables.is_empty() {
                let table = &tables[failing.below(tables.len())];
                let blocks = (table.file_bytes / 4096).saturating_sub(4).max(1) as usize;
                let (block, flips) = (failing.below(blocks) as u64, failing.below(2) == 0);
                failing.lose_block(table, block, flips);
            }
            if failing.below(4) > 0 {
                failing.fixture.compact().expect("merges");
            }
            failing.check();
        }
        failing.fixture.compact().expect("merges");
        failing.check();
        failing.clear();
    }
}

impl Failing {
    /// The power fails, and all blocks of these tables are lost but for the last ones.
    fn lose_all(&mut self, tables: &[TableMeta]) -> usize {
        let simulation = Simulation::new(SimulationOptions::new(self.random));
        let mut disk = std::mem::replace(&mut self.fixture.simulation, simulation).kill();
        let mut lost = 0;
        for table in tables {
            let path = PathBuf::from(DIRECTORY).join(file_name(table.id));
            for block in 0..(table.file_bytes / 4096).saturating_sub(4) {
                disk.lose_sector(&path, block * 4096);
                lost += 1;
            }
        }
        let options = SimulationOptions::new(self.random);
        self.fixture.simulation = Simulation::with_disk(options, disk);
        self.fixture.reopen();
        self.suspects = self.fixture.model.keys().copied().collect();
        lost
    }

    /// The living items that one scan shows that passes over what is lost, where it ends if it was
    /// cut, and whether it says that something is left out.
    fn passing(&mut self, range: ScanRange) -> (Vec<u32>, Option<Vec<u8>>, bool) {
        let index = self.fixture.index.clone();
        let work = async move {
            let (mut scan, mut found) = (index.scan(range, IoClass::Scan), Vec::new());
            while let Some(scanned) = index.next_scanned(&mut scan).await? {
                if !scanned.entry.as_entry().is_tombstone() {
                    found.push(scanned.key);
                }
            }
            let cut_at = scan.cut_at().map(<[u8]>::to_vec);
            Ok::<_, EngineError>((found, cut_at, scan.has_left_out()))
        };
        let (found, cut_at, has_left_out) =
            self.fixture.simulation.block_on(work).expect("runs").expect("what is lost is passed");
        let numbers: BTreeMap<Vec<u8>, u32> = (0..40_000).map(|n| (key(n), n)).collect();
        let found = found.into_iter().map(|key| numbers[&key]).collect();
        (found, cut_at, has_left_out)
    }

    /// What all scans show that follow each other, and how many those are.
    fn all_passing(&mut self, is_reverse: bool) -> (Vec<u32>, usize) {
        let mut range = ScanRange { start: key(0), end: None, is_reverse, passes_lost: true };
        range.end = Some(key(39_999));
        let (mut all, mut pages, mut says) = (Vec::new(), 0, false);
        loop {
            let (found, cut_at, has_left_out) = self.passing(range.clone());
            all.extend(found);
            pages += 1;
            says |= has_left_out;
            let Some(cut_at) = cut_at else {
                assert!(says, "something is left out");
                return (all, pages);
            };
            if is_reverse {
                assert!(range.end.as_ref().is_some_and(|end| cut_at < *end), "it goes on");
                range.end = Some(cut_at);
            } else {
                assert!(cut_at >= range.start, "it goes on");
                range.start = [cut_at.as_slice(), &[0]].concat();
            }
        }
    }
}

#[test]
fn scans_that_pass_over_damage_come_to_an_end_however_much_there_is() {
    let mut failing = Failing::new(5);
    failing.write_all(0..32_000);
    let mut tables = failing.tables(0);
    tables.sort_by(|left, right| left.smallest.cmp(&right.smallest));
    let lost = failing.lose_all(&tables[..tables.len() * 3 / 4]);
    assert!(lost > 140, "{lost} blocks were lost");
    // Some of what is lost is written again.
    failing.write_all((0..32_000).filter(|number| number % 100 == 7));
    (0..32_000).filter(|number| number % 500 == 11).for_each(|n| failing.write(n, separate));
    let readable: Vec<u32> =
        (0..32_000).filter(|&n| matches!(failing.fixture.get(n), Ok(Some(_)))).collect();
    let again = |number: &&u32| **number % 100 == 7 || **number % 500 == 11;
    assert!(readable.iter().filter(again).count() == 384 && readable.len() > 1000);
    for is_reverse in [false, true] {
        let (mut shown, pages) = failing.all_passing(is_reverse);
        if is_reverse {
            shown.reverse();
        }
        assert_eq!(shown, readable, "in reverse: {is_reverse}");
        assert!((3..=6).contains(&pages), "{pages} scans");
    }
}

#[test]
fn of_a_stub_nothing_is_left_out_but_what_its_blocks_have_lost() {
    let mut failing = filled(4);
    let tables = failing.tables(2);
    let table = tables.iter().max_by_key(|table| table.file_bytes).expect("there are tables");
    failing.lose_block(table, 0, false);
    failing.lose_block(table, 3, false);
    for round in 0..6 {
        failing.write_all((0..300).map(|number| (number * 31 + round * 7) % 2500));
        failing.fixture.compact().expect("merges");
    }
    assert_eq!(failing.stubs(), 1);
    let lost: Vec<u32> = (0..3000).filter(|&number| failing.fixture.get(number).is_err()).collect();
    let (first, last) = (lost[0], lost[lost.len() - 1]);
    let gap = lost.windows(2).map(|pair| (pair[0] + 1, pair[1])).max_by_key(|(a, b)| b - a);
    let (gap_from, gap_below) = gap.expect("two blocks were lost");
    assert!(gap_below - gap_from > 50, "{lost:?}");
    // Newer ones of both, in a memtable and in a table.
    failing.write_all([first, lost[lost.len() / 2]].into_iter());
    failing.write(last, separate);
    for is_reverse in [false, true] {
        let (shown, _) = failing.all_passing(is_reverse);
        let shown: BTreeSet<u32> = shown.into_iter().collect();
        for number in [first, last, lost[lost.len() / 2]] {
            assert!(shown.contains(&number), "{number} was written since");
        }
        for number in (0..3000).filter(|n| (gap_from..gap_below).contains(n) || *n > last) {
            let is_there = matches!(failing.fixture.get(number), Ok(Some(_)));
            assert_eq!(shown.contains(&number), is_there, "{number} is in no lost block");
        }
        for number in lost.iter().filter(|n| failing.fixture.get(**n).is_err()) {
            assert!(!shown.contains(number), "{number} may be lost");
        }
    }
}

#[test]
fn the_file_of_a_stub_stays_as_long_as_anybody_has_the_table_that_it_was() {
    let mut failing = filled(6);
    let table = failing.tables(1)[0].clone();
    failing.lose_block(&table, 1, false);
    let snapshot = failing.fixture.index.snapshot().expect("the memtable is empty");
    assert!(snapshot.has(table.id));
    for round in 0..6 {
        failing.write_all((0..300).map(|number| (number * 31 + round * 7) % 2500));
        failing.fixture.compact().expect("merges");
    }
    assert_eq!(failing.stubs(), 1);
    let generation = NamespaceGeneration { namespace: 0, generation: (1 << 31) + 1 };
    let edit =
        manifest::Edit { namespace_generations: vec![generation], ..manifest::Edit::default() };
    failing.fixture.host.manifest.borrow_mut().apply(&edit).expect("applies");
    failing.fixture.compact().expect("removes");
    assert_eq!(failing.stubs(), 0, "the stub has gone");
    let path = PathBuf::from(DIRECTORY).join(file_name(table.id));
    let is_there = |failing: &mut Failing| {
        failing.fixture.simulation.snapshot().files().iter().any(|(file, _)| *file == path)
    };
    assert!(is_there(&mut failing), "the snapshot may read it");
    drop(snapshot);
    let index = failing.fixture.index.clone();
    let removing = async move { index.remove_unread_files().await };
    failing.fixture.simulation.block_on(removing).expect("runs").expect("removes");
    assert!(!is_there(&mut failing));
}
