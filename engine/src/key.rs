//! Keys: (namespace, record, item) as one byte string that sorts like the triple.
//!
//! The namespace is four bytes, big endian. The record is escaped (`00` becomes `00 FF`) and ended
//! by `00 01`, so that no record is a prefix of another and records sort bytewise; the item follows
//! as it is, because nothing comes after it. FORMAT.md draws the bytes.

/// The namespace that the memcached port uses.
pub const DEFAULT_NAMESPACE: u32 = 0;

/// Numbers of namespaces that are not given to users. The node keeps in them what it has to know of
/// the others.
pub const RESERVED_NAMESPACES: std::ops::RangeInclusive<u32> = 0x7FFF_FF00..=0x7FFF_FFFF;

/// The longest record id, in bytes.
pub const RECORD_BYTES_MAX: usize = 1024;

/// The longest item key, in bytes.
pub const ITEM_BYTES_MAX: usize = 1024;

/// The longest encoded key, in bytes: every byte of the record escaped.
pub const ENCODED_BYTES_MAX: usize = 4 + 2 * RECORD_BYTES_MAX + 2 + ITEM_BYTES_MAX;

/// The seed of the hash that routes a record to its shard; fixed by the disk format.
pub const ROUTE_SEED: u64 = 0;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const RECORD_END: u8 = 0x01;

/// The parts of a key, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a> {
    /// The namespace's number.
    pub namespace: u32,
    /// The record id, at most [`RECORD_BYTES_MAX`] bytes.
    pub record: &'a [u8],
    /// The item key inside the record, at most [`ITEM_BYTES_MAX`] bytes.
    pub item: &'a [u8],
}

impl<'a> Key<'a> {
    /// The key under which the memcached port stores `record`.
    pub fn memcached(record: &'a [u8]) -> Self {
        Self { namespace: DEFAULT_NAMESPACE, record, item: &[] }
    }

    /// Appends the encoded key to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        assert!(self.record.len() <= RECORD_BYTES_MAX, "record id over {RECORD_BYTES_MAX} bytes");
        assert!(self.item.len() <= ITEM_BYTES_MAX, "item key over {ITEM_BYTES_MAX} bytes");
        out.extend_from_slice(&self.namespace.to_be_bytes());
        if self.record.contains(&ESCAPE) {
            for &byte in self.record {
                out.push(byte);
                if byte == ESCAPE {
                    out.push(ESCAPED_ZERO);
                }
            }
        } else {
            out.extend_from_slice(self.record);
        }
        out.extend_from_slice(&[ESCAPE, RECORD_END]);
        out.extend_from_slice(self.item);
    }

    /// The encoded key as a new vector.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(6 + self.record.len() + self.item.len());
        self.encode_into(&mut out);
        out
    }
}

/// The hash that decides which shard owns `record`: XXH3-64 with the format's seed.
pub fn route_hash(record: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(record, ROUTE_SEED)
}

/// The shard of `shards` that owns the record with this hash: the high 64 bits of the product, so
/// the hash's high bits decide and every shard gets an equal part. Fixed by the disk format.
#[inline]
pub fn shard_of_hash(hash: u64, shards: u16) -> u16 {
    assert!(shards > 0, "a store has at least one shard");
    ((u128::from(hash) * u128::from(shards)) >> 64) as u16
}

/// The part of an encoded key that says namespace and record: what all items of a record share, and
/// no others.
pub fn record_part(encoded: &[u8]) -> &[u8] {
    let rest = encoded.get(4..).unwrap_or_default();
    let end = rest.windows(2).position(|pair| pair == [ESCAPE, RECORD_END]);
    &encoded[..end.map_or(encoded.len(), |end| 4 + end + 2)]
}

/// An encoded key taken apart, with the record unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedKey {
    /// The namespace's number.
    pub namespace: u32,
    /// The record id.
    pub record: Vec<u8>,
    /// The item key.
    pub item: Vec<u8>,
}

/// Takes an encoded key apart; `None` if the bytes are not an encoded key.
pub fn decode(encoded: &[u8]) -> Option<DecodedKey> {
    let (namespace, mut rest) = encoded.split_first_chunk::<4>()?;
    let mut record = Vec::new();
    loop {
        match rest {
            [ESCAPE, RECORD_END, item @ ..] => {
                let lengths_fit = record.len() <= RECORD_BYTES_MAX && item.len() <= ITEM_BYTES_MAX;
                return lengths_fit.then(|| DecodedKey {
                    namespace: u32::from_be_bytes(*namespace),
                    record,
                    item: item.to_vec(),
                });
            }
            [ESCAPE, ESCAPED_ZERO, after @ ..] => {
                record.push(ESCAPE);
                rest = after;
            }
            [ESCAPE, ..] | [] => return None,
            [byte, after @ ..] => {
                record.push(*byte);
                rest = after;
            }
        }
    }
}

/// An encoded key as people read it, for log lines: bytes that are not printable ASCII are escaped.
pub fn display(encoded: &[u8]) -> String {
    match decode(encoded) {
        Some(key) if key.item.is_empty() => format!("\"{}\"", key.record.escape_ascii()),
        Some(key) => format!("\"{}\"/\"{}\"", key.record.escape_ascii(), key.item.escape_ascii()),
        None => format!("undecodable key {}", encoded.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xFF), any::<u8>()], 0..12)
    }

    proptest! {
        #[test]
        fn encoding_keeps_the_order_and_round_trips(
            a in (0u32..3, bytes(), bytes()),
            b in (0u32..3, bytes(), bytes()),
        ) {
            let left = Key { namespace: a.0, record: &a.1, item: &a.2 };
            let right = Key { namespace: b.0, record: &b.1, item: &b.2 };
            prop_assert_eq!(left.cmp(&right), left.encode().cmp(&right.encode()));
            let decoded = decode(&left.encode()).expect("decodes");
            prop_assert_eq!((decoded.namespace, decoded.record, decoded.item), a);
        }

        #[test]
        fn decoding_any_bytes_never_panics(encoded in bytes()) {
            if let Some(key) = decode(&encoded) {
                let again = Key { namespace: key.namespace, record: &key.record, item: &key.item };
                prop_assert_eq!(again.encode(), encoded);
            }
        }
    }

    #[test]
    fn the_routing_hash_is_part_of_the_format() {
        assert_eq!(route_hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(route_hash(b"larder"), xxhash_rust::xxh3::xxh3_64(b"larder"));
    }
}
