//! The estimate of what newer entries hide.

use super::*;

const KEYS: u32 = 1000;
const ALL_BYTES: u64 = KEYS as u64 * RECORD_BYTES as u64;

/// Nothing is merged: the two flushes stay in level 0.
fn unmerged() -> IndexOptions {
    let mut options = options();
    options.picker.level_zero_runs = 100;
    options.picker.level_zero_tables = 100;
    options
}

fn is_about(found: u64, expected: u64) -> bool {
    found.abs_diff(expected) <= expected / 20
}

#[test]
fn new_keys_between_old_ones_hide_nothing() {
    let mut fixture = Fixture::with(1, unmerged());
    for parity in 0..2 {
        (0..KEYS).filter(|number| number % 2 == parity).for_each(|number| {
            fixture.insert(number, separate);
        });
        fixture.flush();
    }
    for what in ["flushed", "opened again"] {
        let estimate = fixture.index.estimate();
        assert!(is_about(estimate.visible_bytes, ALL_BYTES), "{what}: {estimate:?}");
        assert!(estimate.hidden_bytes < ALL_BYTES / 20, "{what}: {estimate:?}");
        assert_eq!(estimate.mean_record_bytes, u64::from(RECORD_BYTES));
        fixture.reopen();
    }
}

#[test]
fn overwritten_keys_count_once_however_often_they_are_written() {
    let mut fixture = Fixture::with(2, unmerged());
    for _ in 0..4 {
        (0..KEYS).for_each(|number| fixture.insert(number, separate));
        fixture.flush();
    }
    for what in ["flushed", "opened again"] {
        let estimate = fixture.index.estimate();
        // The hidden are three times as many, and taken for a thirty-second part more.
        assert!(estimate.visible_bytes <= ALL_BYTES, "{what}: {estimate:?}");
        assert!(estimate.visible_bytes >= ALL_BYTES * 9 / 10, "{what}: {estimate:?}");
        assert!(is_about(estimate.hidden_bytes, 3 * ALL_BYTES), "{what}: {estimate:?}");
        fixture.reopen();
    }
}

#[test]
fn a_merge_learns_what_its_outputs_hide_below() {
    let mut fixture = Fixture::new(3);
    for round in 0..12 {
        (0..KEYS / 2).for_each(|number| fixture.insert(number * 2 + round % 2, separate));
        fixture.flush();
        fixture.compact().expect("merges");
        if round > 0 {
            let estimate = fixture.index.estimate();
            let live = fixture.model.len() as u64 * u64::from(RECORD_BYTES);
            let low = live * 9 / 10;
            assert!((low..=live * 21 / 20).contains(&estimate.visible_bytes), "{estimate:?}");
        }
    }
}

#[test]
fn memtables_are_taken_to_be_like_what_was_flushed_last() {
    let mut fixture = Fixture::with(4, unmerged());
    (0..KEYS).for_each(|number| fixture.insert(number, separate));
    fixture.flush();
    (0..100).for_each(|number| fixture.insert(number, separate));
    let hidden = |fixture: &Fixture| fixture.index.estimate().memtable_hidden_bytes;
    assert_eq!(hidden(&fixture), 0, "all were new");
    (100..110).for_each(|number| fixture.insert(number, tombstone));
    let record = u64::from(RECORD_BYTES);
    assert_eq!(hidden(&fixture), 10 * record, "what is deleted was there");
    fixture.flush();
    (0..50).for_each(|number| fixture.insert(number, separate));
    assert_eq!(hidden(&fixture), 50 * record);
}

#[test]
fn small_items_that_are_written_often_hide_no_large_ones() {
    const LARGE: u32 = 100_000;
    let mut fixture = Fixture::with(5, unmerged());
    let large = |version| {
        let pointer = Pointer { segment: 0, offset: 4096, len: LARGE };
        let metadata = Metadata { version, ..Metadata::default() };
        EntryBuf::new(&Entry { metadata, payload: Payload::Separate(pointer, LARGE - 100) })
    };
    (0..KEYS / 10).for_each(|number| fixture.insert(2 * KEYS + number, large));
    let all = ALL_BYTES + u64::from(KEYS / 10) * u64::from(LARGE);
    for round in 0..4 {
        (0..KEYS).for_each(|number| fixture.insert(number, separate));
        if round > 0 {
            let hidden = fixture.index.estimate().memtable_hidden_bytes;
            assert!(is_about(hidden, if round == 1 { 0 } else { ALL_BYTES }), "{hidden}");
        }
        fixture.flush();
        let estimate = fixture.index.estimate();
        assert!(is_about(estimate.visible_bytes, all), "{round}: {estimate:?}");
    }
}
