//! Every operation with every combination of its options on every kind of item, judged by the
//! simulation's oracle.

use super::*;
use crate::shard::simulation::oracle::{self, After, Circumstances, Item};

const NOW: u32 = 10;
const LIMIT: usize = 64;

fn items() -> Vec<Option<Item>> {
    let mut items = vec![None];
    let numbers: [&[u8]; 8] = [
        b"",
        b"7",
        b"x",
        b"40 ",
        b"18446744073709551615",
        b"18446744073709551616",
        b"-1",
        &[0; 40],
    ];
    for value in numbers {
        for expiry in [0, NOW, NOW + 1, 9000] {
            for state in [0, STALE, WIN_SENT, STALE | WIN_SENT] {
                let metadata = Metadata { version: 50, client_flags: 3, expiry, state };
                items.push(Some(Item { metadata, value: value.to_vec() }));
            }
        }
    }
    items
}

/// Decides with what the operation says it needs to know, and no more.
fn judge(item: Option<&Item>, operation: &Operation<'_>) {
    let context = Context { version_next: NEXT, value_bytes_max: LIMIT };
    let circumstances = Circumstances { now: NOW, version_next: NEXT, value_bytes_max: LIMIT };
    let expected = oracle::expected(item, operation, circumstances);
    let alive = item.filter(|item| !item.metadata.is_expired(NOW));
    let known = alive.filter(|_| operation.need() > Need::Nothing).map(|item| Current {
        metadata: item.metadata,
        value: if operation.need() == Need::Value { &item.value } else { &[] },
    });
    let decision = decide(known, operation, context);
    let after = match decision.effect {
        Effect::None => After::Same,
        Effect::Remove => After::Becomes(None),
        Effect::Put(metadata, value) => {
            After::Becomes(Some(Item { metadata, value: value.into_owned() }))
        }
        Effect::Remark(metadata) => {
            let value = alive.expect("only an item can be marked").value.clone();
            After::Becomes(Some(Item { metadata, value }))
        }
    };
    let what = || format!("{operation:?}\non {item:?}\ndoes {after:?}, expected {expected:?}");
    assert_eq!(decision.outcome, expected.outcome, "{}", what());
    assert_eq!(decision.lease, expected.lease, "{}", what());
    assert_eq!(after, expected.after, "{}", what());
    assert!(after == After::Same || operation.may_write(), "{}", what());
    if let Some(shown) = &expected.shown {
        assert_eq!(decision.metadata, shown.metadata, "{}", what());
    }
}

/// Returns how many cases there were.
fn judge_all(operations: &[Operation<'_>]) -> usize {
    let items = items();
    for operation in operations {
        for item in &items {
            judge(item.as_ref(), operation);
        }
    }
    items.len() * operations.len()
}

/// Calls `each` with every combination of an element of each list.
macro_rules! for_all {
    ($($name:ident in $values:expr),+ ; $each:expr) => {
        for_all!(@ $each, $($name in $values),+)
    };
    (@ $each:expr, $name:ident in $values:expr $(, $names:ident in $rest:expr)*) => {
        for $name in $values { for_all!(@ $each $(, $names in $rest)*); }
    };
    (@ $each:expr) => { $each };
}

const COMPARES: [Option<u64>; 4] = [None, Some(49), Some(50), Some(51)];
const VERSIONS: [Option<u64>; 2] = [None, Some(9)];
const EXPIRIES: [Option<u32>; 4] = [None, Some(0), Some(EXPIRED), Some(8000)];
const EITHER: [bool; 2] = [false, true];

#[test]
fn every_store_does_what_the_oracle_says() {
    let mut operations = Vec::new();
    let modes =
        [StoreMode::Set, StoreMode::Add, StoreMode::Replace, StoreMode::Append, StoreMode::Prepend];
    let values: [&[u8]; 5] = [b"", b"new", &[1; 24], &[1; 25], &[1; LIMIT + 1]];
    for_all!(mode in modes, value in values, expiry in [0, EXPIRED, 8000], compare in COMPARES,
    invalidate in EITHER, vivify in EXPIRIES, version in VERSIONS;
    operations.push(Operation::Store(Store {
        mode, value, client_flags: 7, expiry, compare, invalidate, is_large: false, vivify, version,
    })));
    assert_eq!(judge_all(&operations), 619_200);
}

#[test]
fn every_read_does_what_the_oracle_says() {
    let mut operations = Vec::new();
    let limits = [None, Some(1), Some(8000), Some(8001), Some(9000), Some(9001)];
    for_all!(value in EITHER, expiry in EXPIRIES, vivify in EXPIRIES, recache_before in limits,
    leases in EITHER, quiet in EITHER, version in VERSIONS;
    operations.push(Operation::Read(Read {
        value, expiry, vivify, recache_before, leases, quiet, version,
    })));
    assert_eq!(judge_all(&operations), 198_144);
}

#[test]
fn every_delete_does_what_the_oracle_says() {
    let mut operations = Vec::new();
    for_all!(compare in COMPARES, invalidate in EITHER, clear_value in EITHER,
    expiry in EXPIRIES, version in VERSIONS;
    operations.push(Operation::Delete(Delete {
        compare, invalidate, clear_value, expiry, version,
    })));
    assert_eq!(judge_all(&operations), 16_512);
}

#[test]
fn every_exchange_does_what_the_oracle_says() {
    let mut operations = Vec::new();
    let expected: [&[u8]; 5] = [b"", b"7", b"x", b"40", &[0; 40]];
    let values: [&[u8]; 4] = [b"", b"new", &[1; LIMIT], &[1; LIMIT + 1]];
    for_all!(expected in expected, value in values, flags in [0, 7], expiry in [0, EXPIRED, 8000];
    operations.push(Operation::Exchange(Exchange::store(expected, value, flags, expiry))));
    operations.extend(expected.map(|expected| Operation::Exchange(Exchange::delete(expected))));
    for operation in &operations {
        let (kept, values) = (operation.without_values(), operation.values().concat());
        assert_eq!((kept.with_values(&values), kept.value_len()), (*operation, 0));
    }
    assert_eq!(judge_all(&operations), 16_125);
}

#[test]
fn every_count_does_what_the_oracle_says() {
    let mut operations = Vec::new();
    let vivifies = [None, Some((5, 0)), Some((0, 77)), Some((5, EXPIRED))];
    for_all!(delta in [0, 1, 5, u64::MAX], decrement in EITHER, compare in COMPARES,
    vivify in vivifies, expiry in EXPIRIES, version in VERSIONS;
    operations.push(Operation::Arithmetic(Arithmetic {
        delta, decrement, compare, vivify, expiry, version,
    })));
    assert_eq!(judge_all(&operations), 132_096);
}
