//! What is stored: the bytes of each key, and of the value that belongs to it.
//!
//! A value is a function of its key's number, its version and its length alone, so that an answer can
//! be checked in any later run: eight bytes of check word, then bytes of a fixed filler that do not
//! compress. The load generator stores version 0 alone; who overwrites counts versions upwards, and
//! can tell from a check word which key and version it belongs to.

use super::random::{Random, mix, unmix};

/// The longest key that memcached's protocol allows, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 250;

/// The longest value, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 128 << 20;

/// Bytes of the check word at the front of a value.
pub(crate) const CHECK_BYTES: usize = 8;

/// The filler starts at one of this many places, so that neighbouring values differ throughout.
const FILLER_STARTS: u64 = 64;

/// Makes check words differ from other uses of the same mixing.
const CHECK_SALT: u64 = 0x6C61_7264_6572_2121;

/// The word that the value of key `index`, in version 0, begins with.
pub(crate) fn check_word(index: u64) -> u64 {
    version_word(index, 0)
}

/// The word that version `version` of the value of key `index`, below 2^32, begins with. Different
/// pairs have different words.
fn version_word(index: u64, version: u32) -> u64 {
    mix((index ^ (u64::from(version) << 32)) ^ CHECK_SALT)
}

/// The key's number and the version that a check word belongs to; any word belongs to one pair.
fn word_owner(word: u64) -> (u64, u32) {
    let pair = unmix(word) ^ CHECK_SALT;
    (pair & u64::from(u32::MAX), (pair >> 32) as u32)
}

/// The part of the check word that a value of `length` bytes has room for, as a mask over its
/// little-endian bytes.
pub(crate) fn check_mask(length: usize) -> u64 {
    if length >= CHECK_BYTES { u64::MAX } else { (1u64 << (8 * length)) - 1 }
}

/// The fewest bytes that tell `keys` keys apart.
pub(crate) fn key_bytes_min(keys: u64) -> usize {
    let largest = keys.saturating_sub(1);
    1 + largest.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}

/// Writes keys of one length: `k`, then the number in decimal with leading zeros.
#[derive(Clone, Debug)]
pub(crate) struct KeyFormat {
    blank: Vec<u8>,
}

impl KeyFormat {
    /// Keys of `size` bytes, at least [`key_bytes_min`] of the largest number.
    pub(crate) fn new(size: usize) -> Self {
        assert!((2..=KEY_BYTES_MAX).contains(&size), "key size {size} is out of range");
        let mut blank = vec![b'0'; size];
        blank[0] = b'k';
        Self { blank }
    }

    /// Appends the key of number `index`.
    pub(crate) fn append(&self, index: u64, out: &mut Vec<u8>) {
        let start = out.len() + 1;
        out.extend_from_slice(&self.blank);
        let mut rest = index;
        for digit in out[start..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        debug_assert_eq!(rest, 0, "key {index} does not fit");
    }
}

/// Writes values of one length.
#[derive(Clone, Debug)]
pub(crate) struct ValueFormat {
    size: usize,
    filler: Vec<u8>,
}

impl ValueFormat {
    /// Values of `size` bytes, at most [`VALUE_BYTES_MAX`].
    pub(crate) fn new(size: usize) -> Self {
        assert!(size <= VALUE_BYTES_MAX, "value size {size} is out of range");
        let mut random = Random::new(0, 0);
        let words = (size + FILLER_STARTS as usize).div_ceil(8);
        let filler = (0..words).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { size, filler }
    }

    /// Appends the value of key `index`, in version 0.
    pub(crate) fn append(&self, index: u64, out: &mut Vec<u8>) {
        self.append_version(index, 0, out);
    }

    /// Appends version `version` of the value of key `index`, which is below 2^32.
    pub(crate) fn append_version(&self, index: u64, version: u32, out: &mut Vec<u8>) {
        let word = version_word(index, version);
        let checked = self.size.min(CHECK_BYTES);
        out.extend_from_slice(&word.to_le_bytes()[..checked]);
        out.extend_from_slice(self.filler_of(word));
    }

    /// The version of key `index` whose value `bytes` is.
    ///
    /// # Errors
    /// What `bytes` is instead.
    pub(crate) fn version_of(&self, index: u64, bytes: &[u8]) -> Result<u32, String> {
        assert!(self.size >= CHECK_BYTES, "shorter values do not tell their version");
        if bytes.len() != self.size {
            return Err(format!("{} bytes instead of {}", bytes.len(), self.size));
        }
        let (head, filler) = bytes.split_first_chunk().expect("the length was compared");
        let word = u64::from_le_bytes(*head);
        let (owner, version) = word_owner(word);
        if filler != self.filler_of(word) {
            return Err(format!(
                "bytes that no value has, beginning with `{}`",
                head.escape_ascii()
            ));
        }
        if owner != index {
            return Err(format!("the value of key number {owner}"));
        }
        Ok(version)
    }

    /// What follows the check word in a value.
    fn filler_of(&self, word: u64) -> &[u8] {
        let start = (word % FILLER_STARTS) as usize;
        &self.filler[start..start + self.size - self.size.min(CHECK_BYTES)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(size: usize, index: u64) -> String {
        let mut out = b"mg ".to_vec();
        KeyFormat::new(size).append(index, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn keys_are_padded_numbers() {
        assert_eq!(key(16, 0), "mg k000000000000000");
        assert_eq!(key(16, 1234), "mg k000000000001234");
        assert_eq!(key(4, 999), "mg k999");
        assert_eq!(key(250, 7).len(), 253);
    }

    #[test]
    fn the_smallest_key_holds_the_largest_number() {
        for (keys, bytes) in [(1, 2), (10, 2), (11, 3), (100_000, 6), (100_001, 7)] {
            assert_eq!(key_bytes_min(keys), bytes, "{keys}");
            assert!(key(bytes, keys - 1).ends_with(&(keys - 1).to_string()));
        }
    }

    #[test]
    fn a_value_begins_with_its_check_word_and_has_its_length() {
        for size in [0, 1, 7, 8, 9, 32, 1000] {
            let format = ValueFormat::new(size);
            for index in [0, 1, 99_999] {
                let mut value = Vec::new();
                format.append(index, &mut value);
                assert_eq!(value.len(), size);
                let mut head = [0; CHECK_BYTES];
                head[..size.min(8)].copy_from_slice(&value[..size.min(8)]);
                assert_eq!(u64::from_le_bytes(head), check_word(index) & check_mask(size));
            }
        }
    }

    #[test]
    fn values_differ_between_keys() {
        let format = ValueFormat::new(64);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        format.append(1, &mut one);
        format.append(2, &mut two);
        assert_ne!(one[..8], two[..8]);
        assert_ne!(one[8..], two[8..]);
    }

    #[test]
    fn a_value_tells_its_version_and_what_it_is_instead() {
        let format = ValueFormat::new(40);
        let value = |index, version| {
            let mut out = Vec::new();
            format.append_version(index, version, &mut out);
            out
        };
        for (index, version) in [(0, 0), (7, 1), (u64::from(u32::MAX), u32::MAX)] {
            assert_eq!(format.version_of(index, &value(index, version)), Ok(version));
        }
        let mut plain = Vec::new();
        format.append(7, &mut plain);
        assert_eq!(plain, value(7, 0), "the load generator's values are version 0");
        let error = format.version_of(7, &value(8, 3)).expect_err("another key's");
        assert_eq!(error, "the value of key number 8");
        assert_eq!(format.version_of(7, b"short").expect_err("short"), "5 bytes instead of 40");
        for at in [0, 8, 39] {
            let mut torn = value(7, 1);
            torn[at] ^= 1;
            assert!(format.version_of(7, &torn).is_err(), "byte {at}");
        }
    }
}
