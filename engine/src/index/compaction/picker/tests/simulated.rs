//! A store of keys without files, which does what the picker chooses until there is nothing left to
//! do.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What an entry says, newest last: the number of the write, when it expires, whether it deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Write {
    number: u64,
    expiry: u32,
    is_tombstone: bool,
}

impl Write {
    fn is_gone(&self, now: u32) -> bool {
        self.is_tombstone || (self.expiry != 0 && self.expiry <= now)
    }

    fn separate_bytes(&self) -> u64 {
        if self.is_tombstone { 0 } else { 50 + self.number % 100 }
    }
}

#[derive(Clone)]
struct SimulatedTable {
    id: u64,
    generation: u32,
    smallest: Vec<u8>,
    largest: Vec<u8>,
    writes: BTreeMap<u32, Write>,
    is_damaged: bool,
}

struct Simulator {
    levels: Vec<Vec<SimulatedTable>>,
    options: PickerOptions,
    next_id: u64,
    model: BTreeMap<u32, Write>,
    next_write: u64,
    living: u32,
    now: u32,
}

const TABLE_KEYS: usize = 16;

fn candidate(table: &SimulatedTable, living: u32) -> Candidate<'_> {
    let writes = || table.writes.values();
    let items = || writes().filter(|write| !write.is_tombstone);
    let never = items().any(|write| write.expiry == 0);
    let last = items().map(|write| write.expiry).max().unwrap_or(0);
    Candidate {
        id: table.id,
        bytes: table.writes.len() as u64,
        smallest: &table.smallest,
        largest: &table.largest,
        entries: table.writes.len() as u64,
        tombstones: writes().filter(|write| write.is_tombstone).count() as u64,
        separate_bytes: writes().map(Write::separate_bytes).sum(),
        expiring_bytes: items().filter(|write| write.expiry != 0).map(Write::separate_bytes).sum(),
        expiry_max: if never { 0 } else { last.max(1) },
        expiry_last: last,
        hiding: Hiding::default(),
        is_dead: table.generation != living,
        is_damaged: table.is_damaged,
    }
}

impl Simulator {
    fn new(options: PickerOptions) -> Self {
        Self {
            levels: vec![Vec::new(); usize::from(options.levels_max)],
            options,
            next_id: 0,
            model: BTreeMap::new(),
            next_write: 0,
            living: 0,
            now: 1,
        }
    }

    fn flush(&mut self, keys: &[(u32, u8)]) {
        let mut writes = BTreeMap::new();
        for &(key, kind) in keys {
            let number = self.next_write;
            self.next_write += 1;
            let expiry = if kind % 4 == 1 { self.now + u32::from(kind / 16) } else { 0 };
            writes.insert(key, Write { number, expiry, is_tombstone: kind % 4 == 0 });
        }
        self.model.extend(writes.clone());
        let table = self.make(writes);
        self.levels[0].insert(0, table);
    }

    /// Everything so far is dead.
    fn clear(&mut self) {
        self.living += 1;
        self.model.clear();
    }

    fn make(&mut self, writes: BTreeMap<u32, Write>) -> SimulatedTable {
        self.next_id += 1;
        let key = |key: u32| [self.living.to_be_bytes(), key.to_be_bytes()].concat();
        SimulatedTable {
            id: self.next_id,
            generation: self.living,
            smallest: key(*writes.first_key_value().unwrap().0),
            largest: key(*writes.last_key_value().unwrap().0),
            writes,
            is_damaged: false,
        }
    }

    /// Something is damaged in one table of any level.
    fn damage(&mut self, chance: u8) {
        let tables: Vec<_> = self.levels.iter_mut().flatten().collect();
        let at = usize::from(chance) % tables.len().max(1);
        tables.into_iter().skip(at).take(1).for_each(|table| table.is_damaged = true);
    }

    fn view(&self) -> Vec<Level<'_>> {
        self.levels.iter().map(|level| Level { tables: self.level(level), stubs: vec![] }).collect()
    }

    fn level<'a>(&self, level: &'a [SimulatedTable]) -> Vec<Candidate<'a>> {
        level.iter().map(|table| candidate(table, self.living)).collect()
    }

    fn take(&mut self, id: u64) -> SimulatedTable {
        for level in &mut self.levels {
            if let Some(place) = level.iter().position(|table| table.id == id) {
                return level.remove(place);
            }
        }
        panic!("table {id} was chosen but is not there");
    }

    fn put(&mut self, level: u8, table: SimulatedTable) {
        let level = &mut self.levels[usize::from(level)];
        level.push(table);
        level.sort_by(|left, right| left.smallest.cmp(&right.smallest));
    }

    /// Carries one choice out; false when there is nothing to do. The picker itself asserts that
    /// the levels below level 0 are sorted runs.
    fn step(&mut self) -> bool {
        match pick(&self.view(), &self.options, Garbage::Enough, self.now) {
            Choice::Nothing => return false,
            Choice::Remove { tables } => {
                for id in tables {
                    self.take(id);
                }
            }
            Choice::Move { table, to } => {
                let table = self.take(table);
                self.put(to, table);
            }
            Choice::Merge { inputs, to } => self.merge(&inputs, to),
        }
        true
    }

    fn merge(&mut self, inputs: &[u64], to: u8) {
        let tables = self.levels.iter().flatten();
        let table_bytes: usize = tables.map(|table| table.writes.len()).sum();
        let merge_bytes = self.options.merge_bytes_of(table_bytes as u64);
        let mut merged = BTreeMap::new();
        for id in inputs.iter().rev() {
            let table = self.take(*id);
            if table.generation == self.living {
                merged.extend(table.writes);
            }
        }
        let deeper = &self.levels[usize::from(to) + 1..];
        let hides = |key: &u32| deeper.iter().flatten().any(|table| table.writes.contains_key(key));
        merged.retain(|key, write: &mut Write| !write.is_gone(self.now) || hides(key));
        let below = deeper.first().map_or(Vec::new(), |below| self.level(below));
        let cuts = output_cuts(&below, merge_bytes);
        let mut output = BTreeMap::new();
        let mut last = Vec::new();
        for (key, write) in merged {
            let encoded = [self.living.to_be_bytes(), key.to_be_bytes()].concat();
            let is_cut = cuts.iter().any(|cut| last < *cut && *cut <= encoded);
            if !output.is_empty() && (output.len() == TABLE_KEYS || is_cut) {
                let table = self.make(std::mem::take(&mut output));
                self.put(to, table);
            }
            output.insert(key, write);
            last = encoded;
        }
        if !output.is_empty() {
            let table = self.make(output);
            self.put(to, table);
        }
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        let tables = self.levels.iter().flatten().count();
        for steps in 0.. {
            let before = debt(&self.view(), &self.options);
            if !self.step() {
                prop_assert_eq!(before, 0, "there is debt, and nothing to do");
                return Ok(());
            }
            prop_assert!(steps < 100 + 20 * tables, "compaction does not come to an end");
        }
        unreachable!("the loop ends")
    }

    fn check_shape(&self) {
        let levels = self.view();
        let level_zero = &levels[0].tables;
        assert!((sorted_runs(level_zero).len() as u64) < self.options.level_zero_runs);
        assert!((level_zero.len() as u64) < self.options.level_zero_tables);
        let mut target = self.options.level_one_bytes;
        for level in &levels[1..levels.len() - 1] {
            assert!(level.tables.iter().map(|table| table.bytes).sum::<u64>() < target);
            target *= self.options.level_factor;
        }
        let tables = || levels.iter().flat_map(|level| &level.tables);
        let total: u64 = tables().map(|table| table.separate_bytes).sum();
        assert!(hidden_bytes(&levels, &self.options) <= total / self.options.hidden_part);
        assert!(tables().all(|table| !table.is_dead), "a dead table has stayed");
        assert!(tables().all(|table| !table.is_damaged), "a damaged table has stayed");
    }

    fn check_answers(&self) {
        for (key, write) in &self.model {
            let living = |table: &&SimulatedTable| table.generation == self.living;
            let mut tables = self.levels.iter().flatten().filter(living);
            let newest = tables.find_map(|table| table.writes.get(key));
            let is_gone = write.is_gone(self.now) && newest.is_none();
            assert!(newest == Some(write) || is_gone, "key {key}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn compaction_keeps_the_answers_and_ends_in_the_right_shape(
        flushes in proptest::collection::vec(
            (
                0u32..4000,
                1u32..3000,
                proptest::collection::vec(any::<(u32, u8)>(), 1..40),
                0u8..100,
                0u32..4,
            ),
            1..100,
        ),
        level_zero_runs in 1u64..5,
        merge_bytes in prop_oneof![Just(1u64), 20u64..200],
        merge_bytes_min in 1u64..200,
    ) {
        let options = PickerOptions {
            level_zero_runs,
            level_zero_tables: 8,
            level_one_bytes: 64,
            level_factor: 4,
            levels_max: 5,
            merge_bytes,
            merge_bytes_min,
            ..PickerOptions::default()
        };
        let mut simulator = Simulator::new(options);
        for (base, width, keys, chance, seconds) in flushes {
            if chance < 3 {
                simulator.clear();
            }
            let time_ordered = chance % 2 == 0;
            let start = if time_ordered { simulator.next_write as u32 * 10 } else { base };
            let keys = keys.iter().map(|(key, kind)| (start + key % width, *kind));
            let keys: Vec<_> = keys.collect();
            simulator.flush(&keys);
            simulator.now += seconds;
            if chance % 5 == 0 {
                simulator.damage(chance);
            }
            simulator.settle()?;
            simulator.check_shape();
            simulator.check_answers();
        }
        // When all has expired, all that expires goes by itself.
        simulator.now += 100;
        simulator.settle()?;
        simulator.check_answers();
        simulator.clear();
        simulator.settle()?;
        prop_assert_eq!(simulator.levels.iter().flatten().count(), 0);
    }
}
