//! The decoders of a table's parts, each called on bytes that may be anything.

use super::block::BlockBuilder;
use super::block_index::{BlockIndex, BlockIndexBuilder};
use super::filter::Filter;
use super::footer::{FOOTER_BYTES, Footer};
use super::format::{Section, SectionHandle, TableIdentity, seal};
use super::pointed::Pointed;
use super::scan::{BlockPlace, visit_block};
use crate::entry::{Entry, Metadata, Payload, Pointer};

const IDENTITY: TableIdentity = TableIdentity { store: 7, table: 9 };

/// Where an index that is decoded is said to start.
const INDEX_OFFSET: u64 = 4 * FOOTER_BYTES as u64;

/// Decodes a footer at the end of a file of 16 pages.
pub(crate) fn footer(bytes: &[u8]) -> bool {
    let checksum = bytes.last_chunk::<4>().map_or(0, |last| u32::from_le_bytes(*last));
    Footer::decode(IDENTITY, 16 * FOOTER_BYTES as u64, checksum, bytes).is_ok()
}

/// Puts a footer's checksum right.
pub(crate) fn seal_footer(bytes: &mut [u8]) {
    if let Some((covered, checksum)) = bytes.split_last_chunk_mut::<4>() {
        let offset = 15 * FOOTER_BYTES as u64;
        *checksum = IDENTITY.checksum(offset, covered).to_le_bytes();
    }
}

/// A footer as the builder writes it.
pub(crate) fn footer_seed() -> Vec<u8> {
    let section = |page: u64| SectionHandle {
        offset: page * FOOTER_BYTES as u64,
        length: FOOTER_BYTES as u32,
        checksum: 1,
    };
    let footer = Footer {
        identity: IDENTITY,
        file_bytes: 16 * FOOTER_BYTES as u64,
        entries: 100,
        tombstones: 3,
        version_max: 77,
        separate_bytes: 5000,
        expiring_bytes: 600,
        expiry_max: 0,
        expiry_last: 2_000_000_000,
        index: section(12),
        filter: section(13),
        pointed: section(14),
    };
    footer.encode().0
}

/// Decodes an index and looks keys up in it.
pub(crate) fn index(bytes: &[u8]) -> bool {
    let index =
        Section::trusted(bytes).and_then(|section| BlockIndex::decode(section, INDEX_OFFSET));
    let Ok(index) = index else { return false };
    for key in [&b""[..], b"banana", b"\xff\xff", bytes] {
        assert!(index.find(key) < index.len(), "a block that is not there");
    }
    let end = (0..index.len()).map(|number| index.block(number).end()).max();
    assert_eq!(end, Some(INDEX_OFFSET), "blocks that do not end where the index starts");
    true
}

/// An index of three blocks.
pub(crate) fn index_seed() -> Vec<u8> {
    let mut builder = BlockIndexBuilder::new();
    let blocks = [("", "apple", 100), ("banana", "bandit", 5000), ("bandits", "cherry", 4096)];
    let mut offset = 0;
    for (last_key, first_key, length) in blocks {
        builder.begin_block(last_key.as_bytes(), first_key.as_bytes());
        let handle = SectionHandle { offset, length, checksum: length };
        builder.end_block(handle);
        offset = handle.end();
    }
    let mut bytes = builder.encode();
    seal(IDENTITY, INDEX_OFFSET, &mut bytes, builder.blocks(), 0);
    bytes
}

/// Decodes a filter and asks it.
pub(crate) fn filter(bytes: &[u8]) -> bool {
    let filter = Section::trusted(bytes).and_then(Filter::decode);
    let Ok(filter) = filter else { return false };
    for hash in [0, 1, u64::MAX, bytes.len() as u64, 0x1234_5678_9ABC_DEF0] {
        let _answer = filter.may_contain(hash);
    }
    true
}

/// A filter of a few keys.
pub(crate) fn filter_seed() -> Vec<u8> {
    let hashes: Vec<u64> = (0..40u64).map(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let mut filter = Filter::for_keys(hashes.len(), 12);
    filter.insert_all(&hashes);
    let (lines, probes) = filter.header();
    let mut bytes = filter.encode();
    seal(IDENTITY, 0, &mut bytes, lines, probes);
    bytes
}

/// Decodes the list of the segments that a table points into.
pub(crate) fn pointed(bytes: &[u8]) -> bool {
    let pointed = Section::trusted(bytes).and_then(Pointed::decode);
    let Ok(pointed) = pointed else { return false };
    let most = pointed.iter().map(|(_, bytes)| bytes).max().unwrap_or(0);
    assert!(pointed.total() >= most, "a sum below one of its parts");
    true
}

/// A list of a few segments.
pub(crate) fn pointed_seed() -> Vec<u8> {
    let mut pointed = Pointed::default();
    for (segment, bytes) in [(3, 600), (7, u32::MAX), (1 << 30, 1)] {
        pointed.add(segment, bytes);
    }
    let mut bytes = pointed.encode();
    seal(IDENTITY, 0, &mut bytes, pointed.len() as u32, 0);
    bytes
}

/// Decodes a data block in both ways: walking it and searching it.
pub(crate) fn block(bytes: &[u8]) -> bool {
    let section = Section::trusted(bytes).and_then(super::block::Block::parse);
    if let Ok(block) = section {
        for key in [&b""[..], b"key-07", b"key-99", b"\xff"] {
            let _found = block.find(key);
        }
    }
    let Some(place) = BlockPlace::of_header(0, bytes) else { return false };
    let mut last = Vec::new();
    let walked = visit_block(IDENTITY, place, bytes, b"", |key, _| {
        assert!(last.as_slice() < key, "keys out of order");
        last = key.to_vec();
    });
    assert!(walked.is_err() || !last.is_empty(), "a block without entries");
    walked.is_ok()
}

/// Puts a block's length and checksum right.
pub(crate) fn seal_block(bytes: &mut [u8]) {
    if let Some((count, detail)) =
        Section::trusted(bytes).ok().map(|section| (section.count, section.detail))
    {
        seal(IDENTITY, 0, bytes, count, detail);
    }
}

/// A block of entries of every kind.
pub(crate) fn block_seed() -> Vec<u8> {
    let mut builder = BlockBuilder::new(4);
    for number in 0..20u8 {
        let payload = match number % 3 {
            0 => Payload::Inline(b"a value"),
            1 => Payload::Separate(Pointer { segment: 3, offset: 4096, len: 600 }, 550),
            _ => Payload::Tombstone,
        };
        let metadata = Metadata { version: u64::from(number), ..Metadata::default() };
        let mut value = Vec::new();
        Entry { metadata, payload }.encode_into(&mut value);
        assert!(builder.try_add(format!("key-{number:02}").as_bytes(), &value, 4096));
    }
    builder.seal(IDENTITY, 0);
    builder.sealed().to_vec()
}
