use std::ops::RangeInclusive;

use super::super::sorted_runs::sorted_runs;
use super::*;

mod simulated;

/// Every key of one byte.
static KEYS: [u8; 256] = {
    let mut keys = [0; 256];
    let mut key = 0;
    while key < 256 {
        keys[key] = key as u8;
        key += 1;
    }
    keys
};

fn key(number: u8) -> &'static [u8] {
    std::slice::from_ref(&KEYS[usize::from(number)])
}

fn table(id: u64, bytes: u64, keys: RangeInclusive<u8>) -> Candidate<'static> {
    let (smallest, largest) = (key(*keys.start()), key(*keys.end()));
    Candidate { id, bytes, smallest, largest, entries: 10, ..Candidate::default() }
}

fn level(tables: Vec<Candidate<'static>>) -> Level<'static> {
    Level { tables, stubs: Vec::new() }
}

fn levels(tables: impl IntoIterator<Item = Vec<Candidate<'static>>>) -> Vec<Level<'static>> {
    tables.into_iter().map(level).collect()
}

const OPTIONS: PickerOptions = PickerOptions {
    level_zero_runs: 4,
    level_zero_tables: 10,
    level_one_bytes: 100,
    level_factor: 8,
    levels_max: 4,
    merge_bytes: 1000,
    merge_bytes_min: 1000,
    hidden_part: 8,
    hidden_part_wanted: 32,
    dead_part: 4,
};

const NOW: u32 = 1000;

fn choose(levels: &[Level<'_>]) -> Choice {
    pick(levels, &OPTIONS, Garbage::Enough, NOW)
}

fn merge(inputs: &[u64], to: u8) -> Choice {
    Choice::Merge { inputs: inputs.to_vec(), to }
}

#[test]
fn a_merge_takes_a_part_of_the_tables() {
    let options = PickerOptions::default();
    let of = |mebibytes: u64| options.merge_bytes_of(mebibytes << 20) >> 20;
    assert_eq!([0, 64, 144, 512, 1 << 20].map(of), [8, 8, 9, 32, 64]);
}

/// Four runs in level 0 over eight tables in level 1: by slices, none of which takes all of them.
#[test]
fn of_a_small_index_a_merge_takes_a_small_part() {
    let options = PickerOptions { merge_bytes_min: 100, ..OPTIONS };
    let slice = |id: u8, bytes, at: u8| table(u64::from(id), bytes, at * 10..=at * 10 + 9);
    let level_one: Vec<_> = (0..8).map(|at| slice(100 + at, 100, at)).collect();
    let below = level(level_one.clone());
    let bytes = options.merge_bytes_of(8 * 100);
    assert_eq!(output_cuts(&below.tables, bytes).len(), 7, "each run is cut for each table");
    let runs = (0..4).flat_map(|run| (0..8).map(move |at| slice(run * 8 + at, 10, at)));
    let options = PickerOptions { level_zero_tables: 100, ..options };
    let choice = pick(&levels([runs.collect(), level_one]), &options, Garbage::Enough, NOW);
    let Choice::Merge { inputs, to: 1 } = choice else { panic!("{choice:?}") };
    assert_eq!(inputs.len(), 5, "{inputs:?}");
}

#[test]
fn nothing_happens_below_the_targets() {
    assert_eq!(choose(&[]), Choice::Nothing);
    let level_zero = (0..3).map(|id| table(id, 50, 0..=9)).collect();
    let levels = levels([level_zero, vec![table(8, 99, 0..=9)], vec![table(9, 799, 0..=9)]]);
    assert_eq!(choose(&levels), Choice::Nothing);
    assert_eq!((debt(&levels, &OPTIONS), hidden_bytes(&levels, &OPTIONS)), (0, 0));
}

#[test]
fn level_zero_gives_the_slice_around_its_oldest_table() {
    let mut level_zero =
        vec![table(5, 9, 1..=2), table(4, 9, 8..=9), table(3, 9, 2..=3), table(2, 9, 2..=2)];
    level_zero.push(table(1, 9, 2..=20));
    let level_one = vec![table(10, 9, 0..=1), table(11, 9, 10..=12), table(12, 9, 21..=30)];
    let mut levels = levels([level_zero, level_one]);
    // Tables 5 and 11 overlap what table 1 overlaps, and table 10 what 5 does.
    assert_eq!(choose(&levels), merge(&[5, 4, 3, 2, 1, 10, 11], 1));
    // Too large for one merge: the newest stay.
    levels[0].tables[2].bytes = 990;
    assert_eq!(choose(&levels), merge(&[4, 2, 1, 11], 1));
    // Table 5 may not pass the older table 3, which stays.
    levels[0].tables[0].largest = key(3);
    assert_eq!(choose(&levels), merge(&[4, 2, 1, 11], 1));
}

#[test]
fn tables_of_one_flush_count_as_one_run() {
    let flush = |id| [table(id, 9, 5..=9), table(id + 1, 9, 0..=4)];
    let below = vec![table(90, 9, 0..=9)];
    let three = levels([[flush(4), flush(2), flush(0)].concat(), below.clone()]);
    assert_eq!(choose(&three), Choice::Nothing);
    let four = levels([[flush(6), flush(4), flush(2), flush(0)].concat(), below]);
    // The hull of the slice is that of its lower half.
    assert_eq!(choose(&four), merge(&[7, 5, 3, 1, 90], 1));
}

#[test]
fn many_disjoint_tables_of_level_zero_go_down_unread() {
    let disjoint = |count: u8| (0..count).rev().map(|id| table(id.into(), 9, id..=id)).collect();
    assert_eq!(choose(&levels([disjoint(9)])), Choice::Nothing);
    assert_eq!(choose(&levels([disjoint(10)])), Choice::Move { table: 0, to: 1 });
    let over_older = levels([disjoint(10), vec![table(90, 9, 0..=0)]]);
    assert_eq!(choose(&over_older), Choice::Move { table: 1, to: 1 });
}

#[test]
fn a_table_moves_from_level_zero_only_over_nothing_older() {
    let level_zero = vec![
        table(5, 9, 50..=60),
        table(4, 9, 1..=2),
        table(3, 9, 2..=3),
        table(2, 9, 2..=2),
        table(1, 9, 2..=20),
    ];
    let mut levels = levels([level_zero, vec![table(9, 9, 20..=20)]]);
    assert_eq!(choose(&levels), Choice::Move { table: 5, to: 1 });
    levels[1].tables.push(table(10, 9, 60..=61));
    assert!(matches!(choose(&levels), Choice::Merge { .. }));
    // Nothing is older than the oldest.
    levels[1].tables.remove(0);
    assert_eq!(choose(&levels), Choice::Move { table: 1, to: 1 });
}

#[test]
fn a_deeper_level_gives_the_table_that_rewrites_least() {
    let level_one = vec![table(1, 50, 0..=9), table(2, 60, 10..=19)];
    let level_two = vec![table(10, 100, 0..=5), table(11, 100, 6..=9), table(12, 150, 15..=30)];
    let mut levels = levels([Vec::new(), level_one, level_two, vec![table(20, 1, 30..=31)]]);
    assert_eq!(choose(&levels), merge(&[2, 12], 2));
    levels[2].tables.truncate(2);
    assert_eq!(choose(&levels), Choice::Move { table: 2, to: 2 });
    // It would overlap too much of level 3, so it is written in parts.
    levels[3].tables = vec![table(20, 1001, 10..=31)];
    assert_eq!(choose(&levels), merge(&[2], 2));
    let cuts = [table(1, 600, 0..=1), table(2, 600, 2..=3), table(3, 300, 4..=5)];
    assert_eq!(output_cuts(&cuts, 1000), [key(2)]);
}

#[test]
fn level_zero_goes_first_then_the_fullest_and_the_deepest_never() {
    let level_zero: Vec<_> = (0..5).map(|id| table(id, 9, 0..=9)).collect();
    let deepest = vec![table(30, u64::MAX / 2, 0..=9)];
    let two = vec![table(20, 9000, 20..=29)];
    let mut levels = levels([level_zero, vec![table(10, 990, 0..=9)], two, deepest]);
    assert!(matches!(choose(&levels), Choice::Merge { to: 1, .. }));
    levels[0].tables.clear();
    assert_eq!(choose(&levels), Choice::Move { table: 20, to: 3 });
    levels[2].tables.clear();
    assert_eq!(choose(&levels), merge(&[10], 2));
    levels[1].tables.clear();
    assert_eq!(choose(&levels), Choice::Nothing);
}

#[test]
fn dead_and_expired_tables_are_taken_out_unread() {
    let mut levels = levels([
        vec![table(1, 9, 0..=9)],
        vec![table(2, 9, 0..=4), table(3, 9, 5..=9)],
        vec![table(4, 9, 0..=2)],
    ]);
    levels[0].tables[0].is_dead = true;
    levels[2].stubs.push(Candidate { is_dead: true, ..table(5, 9, 0..=1) });
    let remove = |tables: &[u64]| Choice::Remove { tables: tables.to_vec() };
    assert_eq!(choose(&levels), remove(&[1, 5]));
    levels[0].tables.clear();
    levels[2].stubs.clear();
    levels[1].tables[1].expiry_max = NOW;
    assert_eq!(choose(&levels), remove(&[3]));
    levels[1].tables[1].expiry_max = NOW + 1;
    assert_eq!(choose(&levels), Choice::Nothing);
    assert_eq!(next_expiry(&levels, NOW), Some(NOW + 1));
    // What it hides must not come to light.
    levels[1].tables[0].expiry_max = NOW;
    assert_eq!(choose(&levels), merge(&[2, 4], 2));
    // What is lost must not be taken for never written.
    levels[1].tables[1].expiry_max = NOW;
    levels[2].tables.clear();
    levels[2].stubs.push(table(5, 9, 7..=8));
    assert_eq!(choose(&levels), remove(&[2]));
    levels[1].tables.remove(0);
    assert_eq!(choose(&levels), Choice::Nothing);
}

#[test]
fn garbage_may_be_hidden_up_to_a_part_of_everything() {
    let points_at = |of: Candidate<'static>, separate_bytes| Candidate { separate_bytes, ..of };
    let mut levels = levels([
        vec![points_at(table(1, 9, 0..=4), 100)],
        vec![points_at(table(2, 9, 7..=9), 500)],
        vec![points_at(table(3, 9, 0..=9), 10_000)],
    ]);
    // The entries may hide records of the mean length.
    assert_eq!(hidden_bytes(&levels, &OPTIONS), 2 * 3540);
    assert_eq!(choose(&levels), Choice::Move { table: 1, to: 1 });
    levels[0].tables[0].entries = 2;
    levels[1].tables[0].entries = 2;
    levels[2].tables[0].entries = 96;
    assert_eq!(hidden_bytes(&levels, &OPTIONS), 2 * 106 + 500);
    assert_eq!(choose(&levels), Choice::Nothing);
    // Where nothing else has garbage, a smaller part is too much: 331 here.
    let wanted = |levels: &[Level<'_>]| pick(levels, &OPTIONS, Garbage::Wanted, NOW);
    assert_eq!(wanted(&levels), merge(&[2, 3], 2));
    levels[1].tables.clear();
    assert!((1..10_000 / 32).contains(&hidden_bytes(&levels, &OPTIONS)));
    assert_eq!(wanted(&levels), Choice::Nothing, "merges come to an end");
}

#[test]
fn what_is_visible_goes_by_how_much_of_each_level_hides_something() {
    let of =
        |id, bytes, entries| Candidate { separate_bytes: bytes, entries, ..table(id, 9, 0..=9) };
    let mut levels = levels([vec![of(1, 1000, 10)], vec![of(2, 3000, 30)], vec![of(3, 6000, 60)]]);
    assert_eq!(mean_record_bytes(&levels, &OPTIONS), 100);
    assert_eq!(visible_bytes(&levels, &OPTIONS), 6000 - 125, "as if all of it were hidden");
    levels[1].tables[0].hiding.share = 500;
    assert_eq!(visible_bytes(&levels, &OPTIONS), 7500 - 2500 / 32);
    assert_eq!(hidden_bytes(&levels, &OPTIONS), 2500);
    levels[0].tables[0].hiding.share = 0;
    assert_eq!(visible_bytes(&levels, &OPTIONS), 8500 - 1500 / 32);
    // A tombstone hides as much as any other entry, and has nothing to be hidden.
    levels[0] = level(vec![Candidate { tombstones: 10, ..of(1, 0, 10) }]);
    assert_eq!(visible_bytes(&levels, &OPTIONS), 9000 - 1500 - 1000 - 2500 / 32);
    assert_eq!(visible_bytes(&[], &OPTIONS), 0);
    assert_eq!(mean_record_bytes(&[], &OPTIONS), 0);
}

#[test]
fn what_goes_down_for_its_garbage_goes_down_together() {
    let of = |id, bytes| Candidate { separate_bytes: 600, ..table(id, bytes, 0..=9) };
    let below = Candidate { separate_bytes: 8000, entries: 200, ..table(9, 2000, 0..=9) };
    let mut levels = levels([vec![of(3, 50), of(2, 50), of(1, 50)], vec![below]]);
    assert_eq!(choose(&levels), merge(&[3, 2, 1, 9], 1), "as many as there are");
    levels[0].tables[1].bytes = 990;
    // Together they would be too large.
    assert_eq!(choose(&levels), merge(&[1, 9], 1));
}

#[test]
fn level_zero_over_a_large_level_is_merged_at_once() {
    let level_zero: Vec<_> = (0..4).rev().map(|id| table(id, 50, 0..=9)).collect();
    let below = vec![table(10, 2000, 0..=4), table(11, 2000, 5..=9), table(12, 9, 10..=12)];
    let mut levels = levels([level_zero, below]);
    assert_eq!(choose(&levels), merge(&[3, 2, 1, 0, 10, 11], 1));
    // A table that would widen a merge which is too large already stays.
    levels[0].tables[0].largest = key(10);
    assert_eq!(choose(&levels), merge(&[2, 1, 0, 10, 11], 1));
}

#[test]
fn tombstones_and_expired_entries_are_dropped_where_that_gains_something() {
    let dying = Candidate { tombstones: 3, ..table(1, 9, 0..=4) };
    let mut levels = levels([Vec::new(), vec![dying], vec![table(2, 9, 4..=9)]]);
    assert_eq!(choose(&levels), merge(&[1, 2], 2));
    levels[2].tables[0].smallest = key(5);
    assert_eq!(choose(&levels), merge(&[1], 1));
    levels[1].tables[0].tombstones = 2;
    assert_eq!(choose(&levels), Choice::Nothing);
    let half = Candidate { separate_bytes: 100, expiring_bytes: 50, ..table(1, 9, 0..=4) };
    levels[1].tables[0] = Candidate { expiry_last: NOW + 1, ..half };
    assert_eq!(choose(&levels), Choice::Nothing);
    levels[1].tables[0].expiry_last = NOW;
    assert_eq!(choose(&levels), merge(&[1], 1));
    levels[1].stubs.push(table(7, 9, 0..=0));
    assert_eq!(choose(&levels), Choice::Nothing, "a tombstone over what is lost stays");
}

#[test]
fn stubs_go_down_with_the_tables_over_them() {
    let level_one = Level {
        tables: vec![table(1, 150, 10..=19), table(2, 140, 30..=39)],
        stubs: vec![table(7, 9, 15..=25), table(8, 9, 50..=60)],
    };
    let level_two = level(vec![table(3, 9, 0..=5), table(4, 9, 20..=22)]);
    let mut levels = [level(Vec::new()), level_one, level_two];
    // Level 2's entries in the stub's range may be outdated, so they come along.
    assert_eq!(choose(&levels), merge(&[1, 7, 4], 2));
    levels[1].tables.remove(0);
    assert_eq!(choose(&levels), Choice::Move { table: 2, to: 2 });
}

#[test]
fn debt_grows_with_what_is_over_the_targets() {
    let level_zero = |count| (0..count).map(|id| table(id, 9, 0..=9)).collect();
    let debts = [4, 5, 10, 16, 40].map(|count| debt(&levels([level_zero(count)]), &OPTIONS));
    assert_eq!(debts, [0, 83, 500, DEBT_MAX, 3 * DEBT_MAX]);
    let one = |bytes| levels([Vec::new(), vec![table(1, bytes, 0..=9)]]);
    let debts = [100, 8100, 16_100, 64_099, 64_100].map(|bytes| debt(&one(bytes), &OPTIONS));
    assert_eq!(debts, [0, 500, DEBT_MAX - 1, DEBT_MAX - 1, DEBT_MAX], "one run may be long");
}
