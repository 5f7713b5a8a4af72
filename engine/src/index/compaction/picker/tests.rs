use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn table(id: u64, bytes: u64, keys: std::ops::RangeInclusive<u8>) -> Candidate {
    Candidate { id, bytes, smallest: vec![*keys.start()], largest: vec![*keys.end()] }
}

const OPTIONS: PickerOptions =
    PickerOptions { level_zero_runs: 4, level_one_bytes: 100, level_factor: 8, levels_max: 4 };

#[test]
fn nothing_happens_below_the_targets() {
    assert_eq!(pick(&[], &OPTIONS), Choice::Nothing);
    let level_zero = (0..3).map(|id| table(id, 50, 0..=9)).collect();
    let levels = [level_zero, vec![table(8, 99, 0..=9)], vec![table(9, 799, 0..=9)]];
    assert_eq!(pick(&levels, &OPTIONS), Choice::Nothing);
}

#[test]
fn level_zero_merges_whole_with_all_in_its_hull() {
    let level_zero =
        vec![table(4, 9, 1..=2), table(3, 9, 2..=3), table(2, 9, 2..=2), table(1, 9, 2..=20)];
    let level_one = vec![table(10, 9, 0..=1), table(11, 9, 10..=12), table(12, 9, 21..=30)];
    let mut levels = vec![level_zero, level_one, vec![table(20, 9, 40..=50)]];
    let expected = |is_bottom| Choice::Merge {
        inputs: vec![4, 3, 2, 1, 10, 11],
        from_level: 0,
        to_level: 1,
        is_bottom,
    };
    assert_eq!(pick(&levels, &OPTIONS), expected(true));
    // Table 10 widens the range to key 0.
    levels[2].insert(0, table(21, 9, 0..=0));
    assert_eq!(pick(&levels, &OPTIONS), expected(false));
}

#[test]
fn tables_of_one_flush_count_as_one_run() {
    let flush = |id| [table(id, 9, 5..=9), table(id + 1, 9, 0..=4)];
    let levels = [[flush(4), flush(2), flush(0)].concat()];
    assert_eq!(pick(&levels, &OPTIONS), Choice::Nothing);
    let levels = [[flush(6), flush(4), flush(2), flush(0)].concat()];
    assert!(matches!(pick(&levels, &OPTIONS), Choice::Merge { inputs, .. } if inputs.len() == 8));
}

#[test]
fn a_table_moves_from_level_zero_only_if_it_stands_alone() {
    let level_zero =
        vec![table(4, 9, 1..=2), table(3, 9, 2..=3), table(2, 9, 2..=2), table(1, 9, 2..=20)];
    let mut levels = vec![[vec![table(5, 9, 50..=60)], level_zero].concat()];
    assert_eq!(pick(&levels, &OPTIONS), Choice::Move { table: 5, to: 1 });
    levels.push(vec![table(10, 9, 60..=61)]);
    assert!(matches!(pick(&levels, &OPTIONS), Choice::Merge { .. }));
}

#[test]
fn a_deeper_level_gives_the_table_that_rewrites_least() {
    let level_one = vec![table(1, 50, 0..=9), table(2, 60, 10..=19)];
    let level_two = vec![table(10, 100, 0..=5), table(11, 100, 6..=9), table(12, 150, 15..=30)];
    let mut levels = vec![Vec::new(), level_one, level_two, vec![table(20, 1, 30..=31)]];
    let merge = Choice::Merge { inputs: vec![2, 12], from_level: 1, to_level: 2, is_bottom: false };
    assert_eq!(pick(&levels, &OPTIONS), merge);
    levels[2].truncate(2);
    assert_eq!(pick(&levels, &OPTIONS), Choice::Move { table: 2, to: 2 });
}

#[test]
fn the_fullest_level_goes_first_and_the_deepest_never() {
    let level_zero: Vec<_> = (0..5).map(|id| table(id, 9, 0..=9)).collect();
    let deepest = vec![table(30, u64::MAX / 2, 0..=9)];
    let mut levels = vec![level_zero, vec![table(10, 120, 0..=9)], Vec::new(), deepest];
    assert!(matches!(pick(&levels, &OPTIONS), Choice::Merge { from_level: 0, .. }));
    levels[1][0].bytes = 130;
    assert_eq!(pick(&levels, &OPTIONS), Choice::Move { table: 10, to: 2 });
    levels[0].clear();
    levels[1].clear();
    assert_eq!(pick(&levels, &OPTIONS), Choice::Nothing);
}

/// A store of keys without files: each table is its keys with the number of the write.
struct Simulator {
    levels: Vec<Vec<SimulatedTable>>,
    options: PickerOptions,
    next_id: u64,
    model: BTreeMap<u32, u64>,
    next_write: u64,
}

#[derive(Clone)]
struct SimulatedTable {
    id: u64,
    writes: BTreeMap<u32, u64>,
}

const TABLE_KEYS: usize = 16;

impl Simulator {
    fn flush(&mut self, keys: &[u32]) {
        let first_write = self.next_write;
        self.next_write += keys.len() as u64;
        let writes: BTreeMap<u32, u64> = keys.iter().copied().zip(first_write..).collect();
        self.model.extend(writes.clone());
        let id = self.take_id();
        self.levels[0].insert(0, SimulatedTable { id, writes });
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn candidates(&self) -> Vec<Vec<Candidate>> {
        let candidate = |table: &SimulatedTable| Candidate {
            id: table.id,
            bytes: table.writes.len() as u64,
            smallest: table.writes.first_key_value().unwrap().0.to_be_bytes().to_vec(),
            largest: table.writes.last_key_value().unwrap().0.to_be_bytes().to_vec(),
        };
        self.levels.iter().map(|level| level.iter().map(candidate).collect()).collect()
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
        level.sort_by_key(|table| *table.writes.first_key_value().unwrap().0);
    }

    /// Carries one choice out; false when there is nothing to do. The picker itself asserts that
    /// the levels below level 0 are sorted runs.
    fn step(&mut self) -> bool {
        match pick(&self.candidates(), &self.options) {
            Choice::Nothing => return false,
            Choice::Move { table, to } => {
                let table = self.take(table);
                self.put(to, table);
            }
            Choice::Merge { inputs, to_level, is_bottom, .. } => {
                let mut merged = BTreeMap::new();
                for id in inputs.into_iter().rev() {
                    merged.extend(self.take(id).writes);
                }
                let deeper = &self.levels[usize::from(to_level) + 1..];
                let hides_nothing = |table: &SimulatedTable| {
                    table.writes.keys().all(|key| !merged.contains_key(key))
                };
                assert!(!is_bottom || deeper.iter().flatten().all(hides_nothing));
                let writes: Vec<_> = merged.into_iter().collect();
                for writes in writes.chunks(TABLE_KEYS) {
                    let id = self.take_id();
                    let writes = writes.iter().copied().collect();
                    self.put(to_level, SimulatedTable { id, writes });
                }
            }
        }
        true
    }

    fn check_shape(&self) {
        let levels = self.candidates();
        assert!(sorted_runs(&levels[0]).len() < self.options.level_zero_runs as usize);
        let mut target = self.options.level_one_bytes;
        for level in &levels[1..levels.len() - 1] {
            assert!(level.iter().map(|table| table.bytes).sum::<u64>() < target);
            target *= self.options.level_factor;
        }
    }

    fn check_answers(&self) {
        for (key, write) in &self.model {
            let mut tables = self.levels.iter().flatten();
            let newest = tables.find_map(|table| table.writes.get(key));
            assert_eq!(newest, Some(write), "key {key}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn flushes_and_compactions_keep_the_shape_and_the_answers(
        flushes in proptest::collection::vec(
            (0u32..4000, 1u32..3000, proptest::collection::vec(any::<u32>(), 1..40)),
            1..120,
        ),
    ) {
        let options = PickerOptions {
            level_zero_runs: 4, level_one_bytes: 64, level_factor: 4, levels_max: 5,
        };
        let mut simulator = Simulator {
            levels: vec![Vec::new(); 5],
            options,
            next_id: 0,
            model: BTreeMap::new(),
            next_write: 0,
        };
        for (base, width, keys) in flushes {
            let keys: Vec<u32> = keys.iter().map(|key| base + key % width).collect();
            simulator.flush(&keys);
            let mut steps = 0;
            while simulator.step() {
                steps += 1;
                prop_assert!(steps < 1000, "compaction does not come to an end");
            }
            simulator.check_shape();
        }
        simulator.check_answers();
    }
}
