//! Every decoder of bytes from a file, as a fuzzer calls it: whatever the bytes are, it neither
//! panics nor takes memory out of proportion to their number.
//!
//! Most bytes stand behind a checksum that a random change breaks. `reseal` puts the checksums of
//! changed bytes right, so that what is behind them is reached.

use super::segments;
use crate::compression::{self, EXPANSION_MAX, ValueCompressor};
use crate::entry::{Entry, Metadata, Payload, Pointer};
use crate::index::table;
use crate::key::{self, Key};
use crate::value_log::frame::{FrameBuilder, FrameHeader};
use crate::value_log::moves::{Moves, MovesBuilder};
use crate::value_log::record::{self, Place, Record, RecordKind};
use crate::value_log::segment::{self, StoreIdentity};
use crate::{manifest, superblock};
use larder_runtime::buffer::Buffer;

/// A decoder of one kind of bytes.
#[derive(Clone, Copy)]
pub struct Decoder {
    /// What it decodes.
    pub name: &'static str,
    /// Bytes as they are written.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Decodes bytes that may be anything; whether they were accepted.
    pub decode: fn(&[u8]) -> bool,
    /// Puts the checksums of bytes of this kind right.
    pub reseal: fn(&mut [u8]),
    /// The most bytes of memory that a byte of input may take.
    pub expansion_max: usize,
}

const PLACE: Place = Place { store: 7, segment: 3, offset: 8192 };

const fn plain(
    name: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    decode: fn(&[u8]) -> bool,
    reseal: fn(&mut [u8]),
) -> Decoder {
    Decoder { name, seeds, decode, reseal, expansion_max: 64 }
}

/// All of them.
pub const DECODERS: [Decoder; 14] = [
    plain(
        "superblock",
        || vec![superblock::decoders_seed()],
        |bytes| superblock::choose_from(bytes).is_some(),
        superblock::seal_copies,
    ),
    // An edit may name one part many times, up to the codec's own bound.
    Decoder {
        expansion_max: 2048,
        ..plain(
            "manifest",
            || vec![manifest::decoders::file_seed()],
            manifest::decoders::file,
            manifest::decoders::seal_file,
        )
    },
    Decoder {
        expansion_max: 2048,
        ..plain("edit", manifest::decoders::edit_seeds, manifest::decoders::edit, |_| {})
    },
    plain("segment_header", || vec![segment_seed()], decode_segment, seal_segment),
    plain("frame", || vec![frame_seed()], decode_frame, seal_frame),
    Decoder {
        expansion_max: 2 * EXPANSION_MAX,
        ..plain("record", record_seeds, decode_record, seal_record)
    },
    plain(
        "footer",
        || vec![table::decoders::footer_seed()],
        table::decoders::footer,
        table::decoders::seal_footer,
    ),
    plain("index", || vec![table::decoders::index_seed()], table::decoders::index, |_| {}),
    plain("filter", || vec![table::decoders::filter_seed()], table::decoders::filter, |_| {}),
    plain("pointed", || vec![table::decoders::pointed_seed()], table::decoders::pointed, |_| {}),
    plain(
        "block",
        || vec![table::decoders::block_seed()],
        table::decoders::block,
        table::decoders::seal_block,
    ),
    // A key of three bytes may share a long one with the key before it.
    Decoder { expansion_max: 4096, ..plain("moves", moves_seeds, decode_moves, |_| {}) },
    plain("entry", entry_seeds, decode_entry, |_| {}),
    plain("key", key_seeds, decode_key, |_| {}),
];

const IDENTITY: StoreIdentity = StoreIdentity { store: PLACE.store, shard: 1 };

fn segment_seed() -> Vec<u8> {
    let mut header = vec![0; segment::HEADER_BYTES as usize];
    segment::encode_header(&mut header, IDENTITY, PLACE.segment, 1 << 20);
    header
}

fn decode_segment(bytes: &[u8]) -> bool {
    segment::header_matches(bytes, IDENTITY, PLACE.segment)
}

fn seal_segment(bytes: &mut [u8]) {
    if let Some((covered, rest)) = bytes.split_at_mut_checked(36)
        && let Some(checksum) = rest.first_chunk_mut::<4>()
    {
        *checksum = crc32c::crc32c(covered).to_le_bytes();
    }
}

fn put(key: &[u8], value: &'static [u8], kind: RecordKind) -> (Vec<u8>, &'static [u8], RecordKind) {
    (Key::memcached(key).encode(), value, kind)
}

fn frame_seed() -> Vec<u8> {
    let mut frame = FrameBuilder::new(Buffer::zeroed(4096), PLACE, 40);
    let records = [
        put(b"one", b"a value", RecordKind::Put),
        put(b"two", b"", RecordKind::Delete),
        put(b"three", b"another value, a bit longer", RecordKind::Put),
    ];
    for (key, payload, kind) in &records {
        let metadata = Metadata { version: 41, ..Metadata::default() };
        let record = Record { kind: *kind, metadata, key, payload, original: None };
        frame.push(&record, crc32c::crc32c(payload));
    }
    let len = frame.len();
    frame.seal(39, 0).0[..len].to_vec()
}

fn decode_frame(bytes: &[u8]) -> bool {
    if let Ok(pieces) = segments::pieces(bytes, PLACE) {
        let ends = pieces.iter().map(|piece| match piece {
            segments::Piece::Record(range) | segments::Piece::Damaged(range, _) => range.end,
        });
        assert!(ends.max().unwrap_or(0) <= bytes.len(), "a record that overruns its frame");
    }
    let Some((header, _)) = FrameHeader::decode(bytes, PLACE) else { return false };
    assert!(header.padded_len() as usize >= header.len as usize, "a length that overflows");
    assert!(header.sequence_end() >= header.sequence_first, "a sequence that overflows");
    true
}

fn seal_frame(bytes: &mut [u8]) {
    if let Some(header) = bytes.first_chunk_mut::<64>() {
        let checksum = crc32c::crc32c_append(PLACE.seed(), &header[8..]);
        header[4..8].copy_from_slice(&checksum.to_le_bytes());
    }
    // The first record, where it starts now.
    if let Some(record) = bytes.get_mut(64..) {
        seal_record_at(record, Place { offset: PLACE.offset + 64, ..PLACE });
    }
}

/// A value that is stored as it is, and one that is compressed.
fn record_seeds() -> Vec<Vec<u8>> {
    let (key, value, kind) = put(b"a key", b"a value of some length", RecordKind::Put);
    let words = value.repeat(20);
    let compressed = ValueCompressor::default().compress(&words).expect("it repeats itself");
    let encoded = |payload: &[u8], original| {
        let metadata = Metadata::default();
        let record = Record { kind, metadata, key: &key, payload, original };
        let mut bytes = vec![0; record.encoded_len()];
        record::encode(&record, crc32c::crc32c(payload), PLACE, &mut bytes);
        bytes
    };
    vec![encoded(value, None), encoded(&compressed.bytes, Some(compressed.original))]
}

fn decode_record(bytes: &[u8]) -> bool {
    let found = record::find(bytes, 0, PLACE);
    assert!(found.is_none_or(|at| at < bytes.len()), "a record outside of the bytes");
    let Ok(found) = record::decode(bytes, PLACE) else { return false };
    assert!(found.len <= bytes.len(), "a record that overruns its bytes");
    if let Some(original) = found.record.original {
        let _sound = compression::is_sound(found.record.payload, original);
    }
    let _key = key::display(found.record.key);
    true
}

fn seal_record(bytes: &mut [u8]) {
    seal_record_at(bytes, PLACE);
}

fn seal_record_at(bytes: &mut [u8], place: Place) {
    if bytes.len() < record::HEAD_BYTES {
        return;
    }
    let key_len = usize::from(u16::from_le_bytes([bytes[18], bytes[19]]));
    let extension_len = usize::from(u16::from_le_bytes([bytes[34], bytes[35]]));
    if let Some(covered) = bytes.get(4..record::HEAD_BYTES + key_len + extension_len) {
        let checksum = crc32c::crc32c_append(place.seed(), covered);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn entry_seeds() -> Vec<Vec<u8>> {
    let pointer = Pointer { segment: 3, offset: 4096, len: 600 };
    let payloads =
        [Payload::Tombstone, Payload::Inline(b"a value"), Payload::Separate(pointer, 550)];
    let encode = |payload| {
        let metadata = Metadata { version: 300, client_flags: 7, expiry: 1 << 30, state: 1 };
        let mut bytes = Vec::new();
        Entry { metadata, payload }.encode_into(&mut bytes);
        bytes
    };
    payloads.into_iter().map(encode).collect()
}

fn decode_entry(bytes: &[u8]) -> bool {
    let Some(entry) = Entry::decode(bytes) else { return false };
    let mut again = Vec::new();
    entry.encode_into(&mut again);
    assert_eq!(Entry::decode(&again), Some(entry), "an entry is not written as it was read");
    true
}

fn moves_seeds() -> Vec<Vec<u8>> {
    let mut builder = MovesBuilder::default();
    for (index, key) in [&b"one"[..], b"other", b"otherwise"].into_iter().enumerate() {
        let metadata = Metadata { version: 300 - index as u64, ..Metadata::default() };
        let to = Pointer { segment: 3, offset: 4160 + 700 * index as u32, len: 600 };
        builder.add(&Key::memcached(key).encode(), metadata, to, 550);
    }
    vec![builder.payload().to_vec()]
}

fn decode_moves(bytes: &[u8]) -> bool {
    let Some(moves) = Moves::decode(bytes) else { return false };
    let mut again = MovesBuilder::default();
    for (key, entry) in moves.iter() {
        let to = entry.pointer().expect("a moved record is in the log");
        again.add(key, entry.metadata, to, entry.value_len() as u32);
    }
    let read = Moves::decode(again.payload()).expect("it was read before");
    assert!(read.iter().eq(moves.iter()), "moves are not written as they were read");
    true
}

fn key_seeds() -> Vec<Vec<u8>> {
    let keys: [(&[u8], &[u8]); 3] = [(b"key", b""), (b"a\0b", b"item"), (b"", b"\0\x01")];
    keys.map(|(record, item)| Key { namespace: 1, record, item }.encode()).to_vec()
}

fn decode_key(bytes: &[u8]) -> bool {
    let _text = key::display(bytes);
    let Some(decoded) = key::decode(bytes) else { return false };
    let (record, item) = (&decoded.record, &decoded.item);
    let again = Key { namespace: decoded.namespace, record, item }.encode();
    assert_eq!(again, bytes, "a key is not written as it was read");
    true
}
