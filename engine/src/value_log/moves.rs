//! What a record of moves says: where the log records of several keys lie now. FORMAT.md draws the
//! bytes.
//!
//! The collector moves many records at a time, one behind the other into one segment. So the
//! segment is written once, and of each key and place what is different from the one before.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::compression::EXPANSION_MAX;
use crate::entry::{Entry, Metadata, Payload, Pointer, put_varint, state, take_u32, take_varint};
use crate::key::ENCODED_BYTES_MAX;

/// The most moves that a record has.
pub const MOVES_MAX: usize = 256;

/// A move takes less than this besides its key, in bytes: a byte and nine varints.
pub const MOVE_BYTES_MAX: usize = 64;

/// The payload of a record of moves, as it is made.
#[derive(Debug, Default)]
pub struct MovesBuilder {
    payload: Vec<u8>,
    count: usize,
    key: Vec<u8>,
    version: u64,
    segment: u32,
    /// Where the record before ends.
    end: u32,
}

impl MovesBuilder {
    /// Adds the move of `key`, whose record has `metadata` and a value of `value_len` bytes, to
    /// `to`.
    ///
    /// # Panics
    ///
    /// If `to` is not behind the record before it in the same segment, or there are [`MOVES_MAX`]
    /// moves already.
    pub fn add(&mut self, key: &[u8], metadata: Metadata, to: Pointer, value_len: u32) {
        if self.count == 0 {
            self.segment = to.segment;
            put_varint(&mut self.payload, u64::from(to.segment));
        }
        assert!(to.segment == self.segment && to.offset >= self.end, "moves go on in one segment");
        assert!(self.count < MOVES_MAX, "at most {MOVES_MAX} moves");
        self.count += 1;
        let shared = self.key.iter().zip(key).take_while(|(before, now)| before == now).count();
        put_varint(&mut self.payload, shared as u64);
        put_varint(&mut self.payload, (key.len() - shared) as u64);
        self.payload.extend_from_slice(&key[shared..]);
        self.payload.push(metadata.state);
        put_varint(&mut self.payload, zigzag(metadata.version.wrapping_sub(self.version)));
        put_varint(&mut self.payload, u64::from(metadata.client_flags));
        put_varint(&mut self.payload, u64::from(metadata.expiry));
        put_varint(&mut self.payload, u64::from(to.offset - self.end));
        put_varint(&mut self.payload, u64::from(to.len));
        put_varint(&mut self.payload, u64::from(value_len));
        self.key.truncate(shared);
        self.key.extend_from_slice(&key[shared..]);
        self.version = metadata.version;
        self.end = to.end();
    }

    /// What was added; nothing if that is no move.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// A key whose record was moved.
#[derive(Debug)]
struct Moved {
    /// Its bytes among those of all keys.
    key: Range<usize>,
    metadata: Metadata,
    to: Pointer,
    value_len: u32,
}

/// The moves of a record, which are of different keys.
#[derive(Debug)]
pub struct Moves {
    keys: Vec<u8>,
    moved: Vec<Moved>,
}

impl Moves {
    /// Reads the payload of a record of moves; `None` if it is none.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut rest = payload;
        let segment = take_u32(&mut rest)?;
        let mut moves = Self { keys: Vec::new(), moved: Vec::new() };
        let (mut version, mut end) = (0, 0);
        while !rest.is_empty() {
            if moves.moved.len() == MOVES_MAX {
                return None;
            }
            let key = moves.take_key(&mut rest)?;
            let (&state, after) = rest.split_first()?;
            rest = after;
            if state & !state::KNOWN != 0 {
                return None;
            }
            version = unzigzag(take_varint(&mut rest)?).wrapping_add(version);
            let client_flags = take_u32(&mut rest)?;
            let expiry = take_u32(&mut rest)?;
            let offset = take_u32(&mut rest)?.checked_add(end)?;
            let len = take_u32(&mut rest)?;
            end = offset.checked_add(len)?;
            let value_len = take_u32(&mut rest)?;
            if u64::from(value_len) > u64::from(len) * EXPANSION_MAX as u64 {
                return None;
            }
            let metadata = Metadata { version, client_flags, expiry, state };
            let to = Pointer { segment, offset, len };
            moves.moved.push(Moved { key, metadata, to, value_len });
        }
        let different: BTreeSet<&[u8]> = moves.iter().map(|(key, _)| key).collect();
        (!different.is_empty() && different.len() == moves.moved.len()).then_some(moves)
    }

    /// Reads the next key, which begins as the one before it does.
    fn take_key(&mut self, rest: &mut &[u8]) -> Option<Range<usize>> {
        let before = self.moved.last().map_or(0..0, |moved| moved.key.clone());
        let shared = usize::try_from(take_varint(rest)?).ok()?;
        let own = usize::try_from(take_varint(rest)?).ok()?;
        let is_sound = shared <= before.len() && own <= ENCODED_BYTES_MAX - shared;
        let (own, after) = rest.split_at_checked(if is_sound { own } else { usize::MAX })?;
        *rest = after;
        let start = self.keys.len();
        self.keys.extend_from_within(before.start..before.start + shared);
        self.keys.extend_from_slice(own);
        Some(start..self.keys.len())
    }

    /// Each key and its new entry, in the order in which the records lie.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Entry<'static>)> {
        self.moved.iter().map(|moved| {
            let payload = Payload::Separate(moved.to, moved.value_len);
            (&self.keys[moved.key.clone()], Entry { metadata: moved.metadata, payload })
        })
    }
}

/// A difference as a number that is small if the difference is, whatever its sign.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ ((difference as i64) >> 63) as u64
}

fn unzigzag(encoded: u64) -> u64 {
    (encoded >> 1) ^ (encoded & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Move = (Vec<u8>, Metadata, Pointer, u32);

    fn payload(moves: &[Move]) -> Vec<u8> {
        let mut builder = MovesBuilder::default();
        for (key, metadata, to, value_len) in moves {
            builder.add(key, *metadata, *to, *value_len);
        }
        builder.payload().to_vec()
    }

    fn decoded(payload: &[u8]) -> Option<Vec<Move>> {
        let moves = Moves::decode(payload)?;
        let of = |(key, entry): (&[u8], Entry<'_>)| {
            let to = entry.pointer().expect("a moved record is in the log");
            (key.to_vec(), entry.metadata, to, entry.value_len() as u32)
        };
        Some(moves.iter().map(of).collect())
    }

    /// So many moves of records that lie one behind the other.
    fn some(count: u32) -> Vec<Move> {
        let of = |index: u32| {
            let metadata = Metadata { version: u64::from(900 - index * 7), ..Metadata::default() };
            let to = Pointer { segment: 70, offset: 4160 + index * 1058, len: 1058 };
            (format!("\0\0\0\0key-{index:012}\0\x01").into_bytes(), metadata, to, 1000)
        };
        (0..count).map(of).collect()
    }

    fn one(key: &[u8], to: Pointer) -> Move {
        (key.to_vec(), Metadata::default(), to, 0)
    }

    proptest! {
        #[test]
        fn moves_round_trip(
            parts in proptest::collection::btree_map(
                proptest::collection::vec(any::<u8>(), 0..20),
                ((any::<u64>(), any::<u32>(), any::<u32>(), 0..=state::KNOWN), 0u32..1 << 20,
                 0u32..1 << 20, 0u32..256),
                1..40,
            ),
            segment: u32,
        ) {
            let mut end = 0;
            let moves: Vec<Move> = parts.into_iter().map(|(key, (metadata, gap, len, times))| {
                let (version, client_flags, expiry, state) = metadata;
                let to = Pointer { segment, offset: end + gap, len };
                end = to.end();
                let metadata = Metadata { version, client_flags, expiry, state };
                (key, metadata, to, len.saturating_mul(times))
            }).collect();
            prop_assert_eq!(decoded(&payload(&moves)), Some(moves));
        }

        #[test]
        fn any_bytes_decode_or_not_but_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let _decoded = Moves::decode(&bytes);
        }
    }

    #[test]
    fn moves_are_written_as_the_format_says() {
        let to = |offset| Pointer { segment: 3, offset, len: 600 };
        let first = Metadata { version: 300, client_flags: 7, expiry: 0, state: state::STALE };
        let second = Metadata { version: 299, ..Metadata::default() };
        let moves =
            [(b"ab".to_vec(), first, to(4160), 550), (b"ac".to_vec(), second, to(4760), 550)];
        let mut expected = vec![3];
        expected.extend([0, 2, b'a', b'b', 1, 0xD8, 4, 7, 0, 0xC0, 0x20, 0xD8, 4, 0xA6, 4]);
        expected.extend([1, 1, b'c', 0, 1, 0, 0, 0, 0xD8, 4, 0xA6, 4]);
        assert_eq!(payload(&moves), expected);
    }

    #[test]
    fn what_moves_share_is_written_once() {
        let (few, many) = (payload(&some(16)).len(), payload(&some(32)).len());
        assert!((many - few) / 16 < 16, "{few} and {many} bytes");
        assert_eq!(decoded(&payload(&some(32))), Some(some(32)));
    }

    #[test]
    fn what_cannot_have_been_written_is_refused() {
        assert!(Moves::decode(&[]).is_none());
        assert!(Moves::decode(&[7]).is_none(), "no move");
        let sound = payload(&some(2));
        for end in 1..sound.len() {
            let is_whole = end == payload(&some(1)).len();
            assert_eq!(Moves::decode(&sound[..end]).is_some(), is_whole, "{end} bytes");
        }
        let to = |offset| Pointer { segment: 3, offset, len: 50 };
        let twice = payload(&[one(b"a", to(0)), one(b"a", to(100))]);
        assert!(Moves::decode(&twice).is_none(), "a key twice");
        let beyond = payload(&[one(b"a", Pointer { segment: 3, offset: u32::MAX, len: 1 })]);
        assert!(Moves::decode(&beyond).is_none(), "a place that overflows");
        // A segment, and then a key that shares what is not there, or is too long.
        assert!(Moves::decode(&[3, 1, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(Moves::decode(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_some());
        let mut long = vec![3, 0];
        put_varint(&mut long, ENCODED_BYTES_MAX as u64 + 1);
        long.resize(long.len() + ENCODED_BYTES_MAX + 1 + 7, 0);
        assert!(Moves::decode(&long).is_none());
        let mut more = vec![3];
        for index in 0..=MOVES_MAX {
            more.extend([0, 2, index as u8, (index >> 8) as u8, 0, 0, 0, 0, 0, 0, 0]);
        }
        assert!(
            Moves::decode(&more).is_none() && Moves::decode(&more[..more.len() - 11]).is_some()
        );
    }
}
