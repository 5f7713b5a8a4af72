use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::index::table::key_hash;

fn insert(table: &mut Memtable, key: &[u8], entry: &Entry<'_>, sequence: u64) {
    table.insert(key, key_hash(key), entry, sequence);
}

fn inline(version: u64, value: &[u8]) -> Entry<'_> {
    let metadata = Metadata { version, ..Metadata::default() };
    Entry { metadata, payload: Payload::Inline(value) }
}

fn separate(version: u64, segment: u32) -> Entry<'static> {
    let pointer = Pointer { segment, offset: version as u32 * 64, len: 200 };
    Entry { payload: Payload::Separate(pointer, 100), ..inline(version, b"") }
}

#[test]
fn the_newest_entry_wins_and_the_size_follows() {
    let mut table = Memtable::default();
    insert(&mut table, b"b", &inline(1, b"one"), 1);
    let once = table.bytes();
    insert(&mut table, b"b", &inline(2, b"three"), 2);
    assert_eq!(table.bytes(), once, "the allocator gives either value the same");
    insert(&mut table, b"b", &inline(3, &[b'v'; 100]), 3);
    assert_eq!(table.bytes(), once + 112 - 32);
    insert(&mut table, b"b", &inline(4, b"three"), 4);
    insert(&mut table, b"a", &inline(5, b""), 5);
    let found = table.get(b"b", key_hash(b"b")).expect("there");
    assert_eq!((found.entry, found.sequence), (inline(4, b"three"), 4));
    let keys: Vec<&[u8]> = table.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"a", b"b"]);
    let tombstone = Entry { payload: Payload::Tombstone, ..inline(6, b"") };
    insert(&mut table, b"b", &tombstone, 6);
    assert!(table.get(b"b", key_hash(b"b")).expect("there").entry.is_tombstone());
    assert_eq!((table.len(), table.is_empty(), table.tombstones()), (2, false, 1));
    insert(&mut table, b"b", &inline(7, b"again"), 7);
    assert_eq!(table.tombstones(), 0);
    let before = table.bytes();
    insert(&mut table, &[b'k'; 100], &tombstone, 8);
    assert_eq!(table.bytes(), before + SLOT_BYTES + 112, "a long key lies outside of its slot");
}

#[test]
fn a_replaced_value_is_told() {
    let pointer = |offset| Pointer { segment: 7, offset, len: 200 };
    let entry = |version, payload| Entry { payload, ..inline(version, b"") };
    let mut table = Memtable::default();
    let mut replaced =
        |sequence, payload| table.insert(b"k", key_hash(b"k"), &entry(sequence, payload), sequence);
    assert_eq!(replaced(1, Payload::Separate(pointer(64), 100)), None);
    assert_eq!(replaced(2, Payload::Separate(pointer(512), 100)), Some(pointer(64)));
    assert_eq!(replaced(3, Payload::Tombstone), Some(pointer(512)));
    assert_eq!(replaced(4, Payload::Inline(b"short")), None);
    assert_eq!(replaced(5, Payload::Separate(pointer(1024), 100)), None);
}

#[test]
fn every_segment_that_was_pointed_into_is_remembered() {
    let mut table = Memtable::default();
    for (sequence, segment) in [(1, 5), (2, 5), (3, 2), (4, 5), (5, 9)] {
        insert(&mut table, b"k", &separate(sequence, segment), sequence);
    }
    let known: Vec<u32> = (0..20).filter(|&segment| table.points_into(segment)).collect();
    assert_eq!(known, [2, 5, 9]);
}

#[test]
fn a_memtable_is_dropped_in_steps() {
    let mut table = Memtable::default();
    for number in 0..1000u64 {
        insert(&mut table, &number.to_be_bytes(), &inline(number, b"value"), number);
    }
    let mut left = vec![table.len()];
    while table.drop_some() {
        left.push(table.len());
    }
    assert_eq!(left, [1000, 768, 512, 256, 0]);
    assert_eq!((table.order.iter().count(), table.hashes.held()), (0, 0));
}

#[test]
#[should_panic(expected = "the log's order")]
fn an_older_change_is_refused() {
    let mut table = Memtable::default();
    insert(&mut table, b"b", &inline(2, b"two"), 2);
    insert(&mut table, b"b", &inline(1, b"one"), 1);
}

/// Keys that begin alike, end early, hold zeros, and lie in the slot or outside of it.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    let beginning = prop_oneof![Just(0), Just(3), Just(16), Just(27), Just(60)];
    let byte = prop_oneof![Just(0), Just(0), Just(1), Just(255), any::<u8>()];
    (beginning, vec(byte, 0..8)).prop_map(|(zeros, end)| [vec![0; zeros], end].concat())
}

/// Hashes as they are; the same for all keys; with one beginning; with one end.
fn hash_of(kind: u8, key: &[u8]) -> u64 {
    match kind {
        0 => key_hash(key),
        1 => 0x1234_5678_9ABC_DEF0,
        2 => key_hash(key) >> 20,
        _ => key_hash(key) << 40,
    }
}

/// What the model holds for a key: the segment, or none for a tombstone; and the sequence.
type Model = BTreeMap<Vec<u8>, (Option<u32>, u64)>;

fn assert_same(table: &Memtable, model: &Model) {
    let is_same = |found: Found<'_>, (segment, sequence): (Option<u32>, u64)| {
        let there = found.entry.pointer().map(|pointer| pointer.segment);
        (there, found.sequence) == (segment, sequence)
    };
    assert_eq!(table.len(), model.len());
    for ((key, found), (wanted, &value)) in table.iter().zip(model) {
        assert!(key == wanted && is_same(found, value), "{key:?} {found:?}, {wanted:?} {value:?}");
    }
    let separate = model.values().filter(|(segment, _)| segment.is_some()).count();
    assert_eq!(table.separate_bytes(), separate as u64 * 200);
    assert_eq!(table.tombstones() as usize, model.len() - separate);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_memtable_is_a_sorted_map(
        kind in 0..4u8,
        changes in vec((keys(), proptest::option::of(0..4u32)), 0..1500),
    ) {
        let (mut table, mut model) = (Memtable::default(), Model::new());
        for (sequence, (key, segment)) in (1..).zip(&changes) {
            let hash = hash_of(kind, key);
            let tombstone = Entry { payload: Payload::Tombstone, ..inline(sequence, b"") };
            let entry = segment.map_or(tombstone, |segment| separate(sequence, segment));
            let replaced = table.insert(key, hash, &entry, sequence);
            let old = model.insert(key.clone(), (*segment, sequence));
            let old = old.and_then(|(segment, sequence)| separate(sequence, segment?).pointer());
            prop_assert_eq!(replaced, old);
        }
        assert_same(&table, &model);
        for (key, _) in &changes {
            let found = table.get(key, hash_of(kind, key)).expect("it is there");
            prop_assert_eq!(found.sequence, model[key].1);
            let absent = [key, &b"absent"[..]].concat();
            prop_assert!(table.get(&absent, hash_of(kind, &absent)).is_none());
        }
    }

    #[test]
    fn the_size_does_not_depend_on_the_order(mut keys in vec(keys(), 0..600), seed: u64) {
        let mut sizes = Vec::new();
        for _ in 0..2 {
            let mut table = Memtable::default();
            for (sequence, key) in (1..).zip(&keys) {
                insert(&mut table, key, &separate(sequence, 1), sequence);
            }
            sizes.push((table.bytes(), table.len()));
            keys.sort_by_key(|key| key_hash(key) ^ seed);
        }
        prop_assert_eq!(sizes[0], sizes[1]);
    }
}

#[test]
fn a_large_memtable_finds_all_keys_without_asking_the_order() {
    let mut table = Memtable::default();
    let key = |number: u64| format!("a beginning that all keys have {number}").into_bytes();
    let mut keys: Vec<Vec<u8>> = (0..30_000).map(key).collect();
    // In an order that says nothing of the bits that the parts are chosen by.
    keys.sort_by_key(|key| key_hash(key) as u32);
    for (sequence, key) in (1..).zip(&keys) {
        insert(&mut table, key, &separate(sequence, 1), sequence);
    }
    assert_eq!(table.hashes.held(), keys.len(), "hashes that nobody has chosen all find a place");
    for (sequence, key) in (1..).zip(&keys) {
        assert_eq!(table.get(key, key_hash(key)).expect("there").sequence, sequence);
    }
    keys.sort();
    assert!(table.iter().map(|(key, _)| key).eq(keys.iter().map(|key| &key[..])));
}

#[test]
fn keys_with_one_hash_are_found_in_the_order() {
    let mut table = Memtable::default();
    for sequence in 1..5000u64 {
        table.insert(&sequence.to_le_bytes(), 77, &separate(sequence, 1), sequence);
    }
    assert_eq!(table.hashes.held(), 8);
    for sequence in 1..5000u64 {
        assert_eq!(table.get(&sequence.to_le_bytes(), 77).expect("there").sequence, sequence);
        let next = table.insert(&sequence.to_le_bytes(), 77, &separate(9000, 1), sequence + 5000);
        assert_eq!(next, separate(sequence, 1).pointer());
    }
    assert!(table.get(b"absent", 77).is_none());
    assert!(table.iter().map(|(key, _)| key).is_sorted());
}
