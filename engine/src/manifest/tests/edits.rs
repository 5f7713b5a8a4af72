//! Edits: their encoding, and what becomes of a state.

use super::*;
use crate::range_tombstones::RangeTombstone;

fn arbitrary_table() -> impl Strategy<Value = TableMeta> {
    let key = || proptest::collection::vec(any::<u8>(), 0..20);
    let numbers = (any::<u64>(), any::<u8>(), any::<u64>(), any::<u64>(), any::<u64>());
    let bytes = (any::<u64>(), any::<u64>(), any::<u32>());
    let bad_blocks = proptest::collection::vec(any::<u32>(), 0..3);
    let sums = (any::<u32>(), any::<u64>());
    (numbers, key(), key(), sums, bytes, bad_blocks).prop_map(
        |(numbers, smallest, largest, (sum, version_max), bytes, bad_blocks)| {
            let (id, level, file_bytes, entries, tombstones) = numbers;
            TableMeta {
                id,
                level,
                file_bytes,
                entries,
                tombstones,
                smallest,
                largest,
                footer_checksum: sum,
                version_max,
                separate_bytes: bytes.0,
                expiring_bytes: bytes.1,
                expiry_max: bytes.2,
                expiry_last: bytes.2.rotate_left(7),
                bad_blocks,
                deleted_until: bytes.0.rotate_left(9),
            }
        },
    )
}

fn arbitrary_edit() -> impl Strategy<Value = Edit> {
    use proptest::collection::vec;
    let position = || (any::<u32>(), any::<u32>(), any::<u64>());
    let tables = (
        vec(arbitrary_table(), 0..4),
        vec(any::<u64>(), 0..4),
        vec(any::<(u64, u8)>(), 0..4),
        any::<Option<u64>>(),
    );
    let segments = (
        vec(any::<(u32, u32)>(), 0..4),
        vec(position(), 0..4),
        vec(any::<u32>(), 0..4),
        vec(any::<(u32, i64)>(), 0..4),
        any::<Option<u32>>(),
        vec(any::<(u32, u8)>(), 0..4),
        vec(any::<(u32, u32, u32)>(), 0..4),
        vec(position(), 0..4),
    );
    let range = (vec(any::<u8>(), 0..9), vec(any::<u8>(), 0..9), any::<u64>())
        .prop_map(|(start, end, sequence)| RangeTombstone { start, end, sequence });
    let rest = (
        proptest::option::of(position()),
        any::<Option<u64>>(),
        vec(any::<(u32, u64)>(), 0..4),
        vec(range.clone(), 0..4),
        vec(range, 0..4),
    );
    (tables, segments, rest).prop_map(|(tables, segments, rest)| Edit {
        tables_added: tables.0,
        tables_removed: tables.1,
        tables_moved: tables.2,
        table_id_next: tables.3,
        segments_opened: segments.0,
        segments_sealed: segments
            .1
            .into_iter()
            .map(|(segment, end, sequence_last)| SegmentSeal { segment, end, sequence_last })
            .collect(),
        segments_freed: segments.2,
        live_bytes: segments.3,
        segment_id_next: segments.4,
        segments_collected: segments.5,
        segment_pointers: segments
            .6
            .into_iter()
            .map(|(segment, expiry, end)| SegmentPointers { segment, expiry, end })
            .collect(),
        segments_expired: segments
            .7
            .into_iter()
            .map(|(segment, until, live_bytes)| SegmentExpiry { segment, until, live_bytes })
            .collect(),
        replay_from: rest.0.map(|(segment, offset, sequence)| LogPosition {
            segment,
            offset,
            sequence,
        }),
        version_ceiling: rest.1,
        namespace_generations: rest
            .2
            .into_iter()
            .map(|(namespace, generation)| NamespaceGeneration { namespace, generation })
            .collect(),
        ranges_deleted: rest.3,
        ranges_forgotten: rest.4,
    })
}

proptest! {
    #[test]
    fn edits_round_trip(edit in arbitrary_edit()) {
        let bytes = codec::encode(&edit);
        prop_assert_eq!(codec::decode(&bytes).expect("decodes"), edit);
    }

    #[test]
    fn any_bytes_decode_or_not_but_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        with_identifier: bool,
    ) {
        if with_identifier && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&[8, 0, 0, 0, b'L', b'R', b'M', b'E']);
        }
        let _decoded = codec::decode(&bytes);
    }

    #[test]
    fn any_bytes_in_a_file_are_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..9000),
    ) {
        prop_assert!(log::recover(&bytes, log_identity()).is_err());
    }

    #[test]
    fn a_snapshot_rebuilds_the_state(seed: u64) {
        for (_, state) in history(25, seed) {
            let snapshot = codec::decode(&codec::encode(&state.snapshot())).expect("decodes");
            let mut rebuilt = State::default();
            rebuilt.apply(&snapshot).expect("a snapshot applies to nothing");
            prop_assert_eq!(rebuilt, state);
        }
    }

    #[test]
    fn a_refused_edit_changes_nothing(seed: u64, edit in arbitrary_edit()) {
        let (_, state) = history(10, seed).pop().expect("ten steps");
        let mut after = state.clone();
        if after.apply(&edit).is_err() {
            prop_assert_eq!(after, state);
        }
    }
}

/// An edit with something in every field of the schema.
fn full_edit() -> Edit {
    let stub = TableMeta { bad_blocks: vec![3, 90], ..table(41, 1, b"apple", b"pear") };
    Edit {
        tables_added: vec![stub, table(42, 0, b"", b"\x00\xFF")],
        tables_removed: vec![7, u64::MAX],
        tables_moved: vec![(5, 2), (6, 7)],
        segments_opened: vec![(3, 4096), (4, u32::MAX)],
        segments_sealed: vec![SegmentSeal { segment: 3, end: 4000, sequence_last: 1 << 40 }],
        segments_freed: vec![1, 2],
        live_bytes: vec![(3, -2), (4, i64::MAX)],
        replay_from: Some(LogPosition { segment: 3, offset: 8192, sequence: 77 }),
        version_ceiling: Some(0),
        table_id_next: Some(43),
        segment_id_next: Some(5),
        namespace_generations: vec![NamespaceGeneration { namespace: 9, generation: 10 }],
        segments_collected: vec![(4, 2)],
        segment_pointers: vec![
            SegmentPointers { segment: 3, expiry: 1_800_000_000, end: 0 },
            SegmentPointers { segment: 4, expiry: NEVER_EXPIRES, end: 70_000 },
        ],
        segments_expired: vec![SegmentExpiry {
            segment: 2,
            until: 1_700_000_000,
            live_bytes: 1 << 40,
        }],
        ranges_deleted: vec![range(b"apple", b"fig", 78), range(b"pear", b"plum", 1 << 40)],
        ranges_forgotten: vec![range(b"\x00", b"\x00\xFF", 9)],
    }
}

fn range(start: &[u8], end: &[u8], sequence: u64) -> RangeTombstone {
    RangeTombstone { start: start.to_vec(), end: end.to_vec(), sequence }
}

/// The first fixture pins the bytes that are written. The second is what
/// `flatc --binary edit.fbs full_edit.json` makes of the same edit: another implementation's
/// layout, so that what is read is the schema and not just this module's own writing.
#[test]
fn the_encoding_is_that_of_the_schema() {
    assert!(codec::encode(&full_edit()) == include_bytes!("../fixtures/full_edit.bin"));
    let foreign = include_bytes!("../fixtures/full_edit_by_flatc.bin");
    assert_eq!(codec::decode(foreign).expect("decodes"), full_edit());
}

/// A later version may append fields to a table; they are skipped. `flatc` wrote this one with
/// the schema's tables extended.
#[test]
fn unknown_fields_are_skipped() {
    let newer = include_bytes!("../fixtures/full_edit_with_unknown_fields.bin");
    assert_eq!(codec::decode(newer).expect("decodes"), full_edit());
}

#[test]
fn every_damaged_byte_of_an_encoded_edit_decodes_or_not_but_never_panics() {
    let (edit, _) = history(8, 1).pop().unwrap();
    let bytes = codec::encode(&edit);
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << bit;
            let _decoded = codec::decode(&damaged);
        }
        assert!(codec::decode(&bytes[..index]).is_err() || index + 8 > bytes.len());
    }
}

#[test]
fn a_small_buffer_that_stands_for_a_huge_edit_is_refused() {
    let count = 10_000u32;
    let honest =
        Edit { tables_added: vec![table(1, 0, &[1; 3000], &[2; 3000])], ..Edit::default() };
    let mut bytes = codec::encode(&honest);
    // A second list whose many elements are all the one table.
    let find = |bytes: &[u8], at: usize| at + u32_at(bytes, at) as usize;
    let root = find(&bytes, 0);
    let vtable = root - u32_at(&bytes, root) as usize;
    let field = root + usize::from(u16::from_le_bytes([bytes[vtable + 4], bytes[vtable + 5]]));
    let vector = find(&bytes, field);
    let table_at = find(&bytes, vector + 4);
    // Offsets only lead forwards, so the table moves behind the new list: by copying the buffer.
    let copy_at = bytes.len().next_multiple_of(16) + 16 + count as usize * 4;
    let copy = bytes.clone();
    let list_at = bytes.len().next_multiple_of(16);
    bytes.resize(list_at, 0);
    bytes.extend_from_slice(&count.to_le_bytes());
    for index in 0..count as usize {
        let from = list_at + 4 + index * 4;
        bytes.extend_from_slice(&((copy_at + table_at - from) as u32).to_le_bytes());
    }
    bytes.resize(copy_at, 0);
    bytes.extend_from_slice(&copy);
    let field_value = (list_at - field) as u32;
    bytes[field..field + 4].copy_from_slice(&field_value.to_le_bytes());
    let refused = codec::decode(&bytes).expect_err("60 MB out of 50 kB").to_string();
    assert!(refused.contains("pparent size"), "{refused}");
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn impossible_edits_of_tables() -> Vec<(Edit, &'static str)> {
    let none = Edit::default;
    vec![
        (Edit { tables_removed: vec![9], ..none() }, "table 9 is not there"),
        (Edit { tables_removed: vec![1, 1], ..none() }, "table 1 is not there"),
        (
            Edit { tables_removed: vec![1], tables_moved: vec![(1, 2)], ..none() },
            "table 1 is not there",
        ),
        (Edit { tables_moved: vec![(3, 0)], ..none() }, "table 3 cannot go to level 0"),
        (Edit { tables_moved: vec![(3, 8)], ..none() }, "table 3 cannot go to level 8"),
        (Edit { tables_moved: vec![(3, 1)], ..none() }, "tables 1 and 3 of level 1 overlap"),
        (
            Edit { tables_added: vec![table(1, 0, b"a", b"b")], ..none() },
            "table number 1 is in use",
        ),
        (
            Edit { tables_added: vec![table(4, 0, b"b", b"a")], ..none() },
            "table 4 ends before it starts",
        ),
        (
            Edit { tables_added: vec![table(4, 1, b"f", b"f")], ..none() },
            "tables 1 and 4 of level 1 overlap",
        ),
        (
            Edit { tables_added: vec![table(u64::MAX, 0, b"a", b"b")], ..none() },
            "there are no table numbers left",
        ),
    ]
}

fn impossible_edits_of_segments() -> Vec<(Edit, &'static str)> {
    let none = Edit::default;
    vec![
        (Edit { segments_opened: vec![(0, 1)], ..none() }, "segment number 0 was used before"),
        (
            Edit { segments_opened: vec![(u32::MAX, 1)], ..none() },
            "there are no segment numbers left",
        ),
        (Edit { segments_freed: vec![4], ..none() }, "segment 4 is not there"),
        (Edit { segments_freed: vec![0, 0], ..none() }, "segment 0 is not there"),
        (
            Edit { live_bytes: vec![(0, -101)], ..none() },
            "segment 0 of 8192 bytes cannot have -1 live ones",
        ),
        (
            Edit {
                segments_sealed: vec![SegmentSeal { segment: 0, end: 8193, sequence_last: 0 }],
                ..none()
            },
            "segment 0 of 8192 bytes cannot end at byte 8193",
        ),
    ]
}

fn impossible_edits_of_counters() -> Vec<(Edit, &'static str)> {
    let none = Edit::default;
    vec![
        (
            Edit { version_ceiling: Some(49), ..none() },
            "the version ceiling cannot go back from 50 to 49",
        ),
        (
            Edit { replay_from: Some(LogPosition::default()), ..none() },
            "the replay position cannot go back from 5 to 0",
        ),
        (
            Edit { table_id_next: Some(3), ..none() },
            "the next table number cannot go back from 4 to 3",
        ),
        (
            Edit { segment_id_next: Some(0), ..none() },
            "the next segment number cannot go back from 1 to 0",
        ),
        (
            Edit {
                namespace_generations: vec![NamespaceGeneration { namespace: 1, generation: 9 }],
                ..none()
            },
            "a namespace's generation cannot go back from 10 to 9",
        ),
    ]
}

#[test]
fn impossible_edits_are_refused() {
    let mut state = State::default();
    let first = Edit {
        tables_added: vec![
            table(1, 1, b"a", b"f"),
            table(2, 1, b"g", b"m"),
            table(3, 0, b"a", b"z"),
        ],
        segments_opened: vec![(0, 8192)],
        live_bytes: vec![(0, 100)],
        replay_from: Some(LogPosition { segment: 0, offset: 0, sequence: 5 }),
        version_ceiling: Some(50),
        namespace_generations: vec![NamespaceGeneration { namespace: 1, generation: 10 }],
        ..Edit::default()
    };
    state.apply(&first).expect("a possible edit");
    let mut cases = impossible_edits_of_tables();
    cases.extend(impossible_edits_of_segments());
    cases.extend(impossible_edits_of_counters());
    for (edit, message) in cases {
        let before = state.clone();
        let error = state.apply(&edit).expect_err(message);
        assert_eq!(error.to_string(), message);
        assert_eq!(state, before, "{message}");
    }
    let seal = SegmentSeal { segment: 0, end: 8192, sequence_last: 4 };
    let sealing = Edit { segments_sealed: vec![seal], ..Edit::default() };
    state.apply(&sealing).expect("seals once");
    assert_eq!(state.apply(&sealing), Err(EditError::SealedTwice { segment: 0 }));
    state
        .apply(&Edit { live_bytes: vec![(0, -200), (0, 150)], ..Edit::default() })
        .expect("sums first");
    assert_eq!(state.segments[&0].live_bytes, 50);
    state
        .apply(&Edit { live_bytes: vec![(0, 9000)], ..Edit::default() })
        .expect("several entries may point at one record");
}

#[test]
fn what_had_expired_in_a_freed_segment_is_remembered_while_tables_point_into_it() {
    let mut state = State::default();
    let expiry = |segment, until, live_bytes| SegmentExpiry { segment, until, live_bytes };
    let opened = Edit {
        segments_opened: vec![(0, 8192), (1, 8192)],
        live_bytes: vec![(0, 100), (1, 70)],
        ..Edit::default()
    };
    state.apply(&opened).expect("opens");
    let freed = Edit {
        segments_freed: vec![0, 1],
        segments_expired: vec![expiry(0, 1000, 100)],
        ..Edit::default()
    };
    state.apply(&freed).expect("frees");
    let known = |state: &State| -> Vec<bool> {
        let items = [(0, 999), (0, 1000), (0, 1001), (0, 0), (1, 999)];
        items.iter().map(|&(segment, expiry)| state.had_expired(segment, expiry)).collect()
    };
    assert_eq!(known(&state), [true, true, false, false, false]);
    // Merges drop the entries, in several steps; of the other segment nothing is known.
    let merged = |difference| Edit { live_bytes: vec![(0, difference)], ..Edit::default() };
    state.apply(&merged(-60)).expect("counts");
    assert_eq!(state.segments_expired[&0], expiry(0, 1000, 40));
    assert!(known(&state)[0]);
    state.apply(&merged(-40)).expect("counts");
    assert_eq!(state.segments_expired.len(), 0);
    assert_eq!(known(&state), [false; 5]);
    // More than there is can only come from damage, and is no reason to stop.
    let again = Edit { segments_expired: vec![expiry(0, 1000, 5)], ..Edit::default() };
    state.apply(&again).expect("says so");
    state.apply(&merged(-60)).expect("counts");
    assert_eq!(state.segments_expired.len(), 0);
}

#[test]
fn level_zero_is_sorted_from_new_to_old_and_moves_keep_levels_sorted() {
    let mut state = State::default();
    for (id, key) in [(4, b"d"), (2, b"b"), (3, b"c")] {
        let added = vec![table(id, 0, key, key)];
        state.apply(&Edit { tables_added: added, ..Edit::default() }).unwrap();
    }
    let ids = |state: &State, level: usize| -> Vec<u64> {
        state.levels[level].iter().map(|table| table.id).collect()
    };
    assert_eq!(ids(&state, 0), [3, 2, 4]);
    let moves = Edit { tables_moved: vec![(4, 2), (2, 2)], ..Edit::default() };
    state.apply(&moves).unwrap();
    assert_eq!((ids(&state, 0), ids(&state, 2)), (vec![3], vec![2, 4]));
    assert!(state.levels[2].iter().all(|table| table.level == 2));
}
