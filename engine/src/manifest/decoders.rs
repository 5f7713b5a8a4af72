//! The decoders of a manifest file, each called on bytes that may be anything.

use larder_runtime::env::DISK_ALIGNMENT;

use super::codec;
use super::edit::{
    Edit, LogPosition, NamespaceGeneration, SegmentExpiry, SegmentPointers, SegmentSeal,
};
use super::log::recover;
use super::record::{self, Heading, Kind, LogIdentity};
use crate::index::table::TableMeta;
use crate::range_tombstones::RangeTombstone;

const IDENTITY: LogIdentity = LogIdentity { store_id: 7, number: 1 };

/// Replays a whole file.
pub(crate) fn file(bytes: &[u8]) -> bool {
    recover(bytes, IDENTITY).is_ok()
}

/// Puts the checksums of all records right.
pub(crate) fn seal_file(bytes: &mut [u8]) {
    for offset in (0..bytes.len()).step_by(DISK_ALIGNMENT) {
        record::seal(&mut bytes[offset..], IDENTITY, offset as u64);
    }
}

/// A snapshot and an edit.
pub(crate) fn file_seed() -> Vec<u8> {
    let edits = [(Kind::Snapshot, full_edit()), (Kind::Edit, small_edit())];
    let mut bytes = Vec::new();
    let mut checksum_previous = 0;
    for (sequence, (kind, edit)) in (1..).zip(edits) {
        let payload = codec::encode(&edit);
        let offset = bytes.len() as u64;
        let heading = Heading { kind, sequence, checksum_previous, offset };
        let (header, checksum) = record::header(IDENTITY, heading, &payload);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len().next_multiple_of(DISK_ALIGNMENT), 0);
        checksum_previous = checksum;
    }
    bytes
}

/// Decodes an edit.
pub(crate) fn edit(bytes: &[u8]) -> bool {
    let Ok(edit) = codec::decode(bytes) else { return false };
    let again = codec::decode(&codec::encode(&edit));
    assert_eq!(again.ok(), Some(edit), "an edit that is not written as it was read");
    true
}

/// An edit in which everything occurs, and one in which little does.
pub(crate) fn edit_seeds() -> Vec<Vec<u8>> {
    vec![codec::encode(&full_edit()), codec::encode(&small_edit())]
}

fn full_edit() -> Edit {
    let table = |id: u64, level| TableMeta {
        id,
        level,
        file_bytes: 16 << 10,
        entries: 10,
        tombstones: 1,
        smallest: format!("{id}-a").into_bytes(),
        largest: format!("{id}-z").into_bytes(),
        footer_checksum: 5,
        version_max: 9,
        separate_bytes: 500,
        expiring_bytes: 100,
        expiry_max: 0,
        expiry_last: 2_000_000_000,
        bad_blocks: if id == 3 { vec![0, 2] } else { Vec::new() },
        deleted_until: 30 + id,
    };
    Edit {
        tables_added: vec![table(1, 0), table(2, 1), table(3, 1)],
        segments_opened: vec![(1, 1 << 20), (2, 1 << 20)],
        segments_collected: vec![(1, 2)],
        segments_sealed: vec![SegmentSeal { segment: 1, end: 8192, sequence_last: 40 }],
        live_bytes: vec![(1, 500)],
        segment_pointers: vec![SegmentPointers { segment: 1, expiry: 2_000_000_000, end: 8000 }],
        segments_expired: vec![SegmentExpiry { segment: 0, until: 1_900_000_000, live_bytes: 90 }],
        replay_from: Some(LogPosition { segment: 2, offset: 4096, sequence: 41 }),
        version_ceiling: Some(1000),
        table_id_next: Some(4),
        segment_id_next: Some(3),
        namespace_generations: vec![NamespaceGeneration { namespace: 0, generation: 1 << 31 }],
        ranges_deleted: vec![range(b"a", b"c", 33), range(b"e", b"f", 12)],
        ..Edit::default()
    }
}

fn range(start: &[u8], end: &[u8], sequence: u64) -> RangeTombstone {
    RangeTombstone { start: start.to_vec(), end: end.to_vec(), sequence }
}

fn small_edit() -> Edit {
    Edit {
        tables_removed: vec![2],
        tables_moved: vec![(1, 2)],
        segments_freed: vec![1],
        live_bytes: vec![(2, 7)],
        ranges_forgotten: vec![range(b"b", b"f", 20)],
        ..Edit::default()
    }
}
