//! Lists of item keys: the lengths of all, and the keys behind each other.

use super::ITEM_BYTES_MAX;
use super::request::BodyError;

/// The most item keys of one request.
pub const ITEM_KEYS_MAX: usize = 1024;

/// Bytes of a length, as it stands in a body.
const LENGTH_BYTES: usize = 2;

const COUNT: BodyError = "there are 1 to 1,024 item keys";
const LONG: BodyError = "an item key has at most 1,024 bytes";

/// Some item keys of a record, whose lengths were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemKeys<'a> {
    /// Little-endian, two bytes each.
    lengths: &'a [[u8; LENGTH_BYTES]],
    bytes: &'a [u8],
}

impl<'a> ItemKeys<'a> {
    /// The list with these lengths.
    pub(super) fn read(lengths: &'a [u8], bytes: &'a [u8]) -> Result<Self, BodyError> {
        let (lengths, _) = lengths.as_chunks();
        if !(1..=ITEM_KEYS_MAX).contains(&lengths.len()) {
            return Err(COUNT);
        }
        let keys = Self { lengths, bytes };
        if keys.lengths().any(|len| len > ITEM_BYTES_MAX) {
            return Err(LONG);
        }
        if keys.lengths().sum::<usize>() != bytes.len() {
            return Err("key_lengths and keys are not of the same list");
        }
        Ok(keys)
    }

    fn lengths(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.lengths.iter().map(|len| usize::from(u16::from_le_bytes(*len)))
    }

    /// The lengths as numbers.
    pub(super) fn length_numbers(&self) -> Vec<u16> {
        self.lengths.iter().map(|len| u16::from_le_bytes(*len)).collect()
    }

    /// The keys behind each other.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How long each is, as it stands in a body.
    pub fn length_bytes(&self) -> &'a [u8] {
        self.lengths.as_flattened()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none, which no list says.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.bytes;
        self.lengths().map(move |len| {
            let (key, behind) = rest.split_at(len);
            rest = behind;
            key
        })
    }
}

/// Some item keys of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemKeyList {
    lengths: Vec<u8>,
    bytes: Vec<u8>,
}

impl ItemKeyList {
    /// These keys, in this order; one may be there twice.
    ///
    /// # Errors
    ///
    /// If there are none or more than [`ITEM_KEYS_MAX`], or one is too long.
    pub fn new<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Result<Self, &'static str> {
        let mut list = Self { lengths: Vec::new(), bytes: Vec::new() };
        for key in keys {
            let key = key.as_ref();
            let len = u16::try_from(key.len()).map_err(|_| LONG)?;
            list.lengths.extend_from_slice(&len.to_le_bytes());
            list.bytes.extend_from_slice(key);
            if list.lengths.len() > ITEM_KEYS_MAX * LENGTH_BYTES {
                return Err(COUNT);
            }
        }
        ItemKeys::read(&list.lengths, &list.bytes)?;
        Ok(list)
    }

    /// The keys.
    pub fn as_keys(&self) -> ItemKeys<'_> {
        let (lengths, _) = self.lengths.as_chunks();
        ItemKeys { lengths, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_were_written() {
        let keys: [&[u8]; 4] = [b"b", b"", b"a", &[7; ITEM_BYTES_MAX]];
        let list = ItemKeyList::new(keys).expect("good keys");
        let read = list.as_keys();
        assert_eq!(ItemKeys::read(read.length_bytes(), read.bytes()), Ok(read));
        assert_eq!((read.len(), read.is_empty()), (4, false));
        assert_eq!(read.iter().collect::<Vec<_>>(), keys);
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        assert_eq!(ItemKeyList::new([[0; ITEM_BYTES_MAX + 1]]).err(), Some(LONG));
        assert_eq!(ItemKeyList::new([vec![0; 1 << 16]]).err(), Some(LONG));
        assert_eq!(ItemKeyList::new([""; ITEM_KEYS_MAX + 1]).err(), Some(COUNT));
        assert!(ItemKeyList::new([""; ITEM_KEYS_MAX]).is_ok());
        assert_eq!(ItemKeyList::new([""; 0]).err(), Some(COUNT));
        assert!(ItemKeys::read(&[1, 0, 2, 0], b"abc").is_ok());
        assert!(ItemKeys::read(&[1, 0, 2, 0], b"ab").is_err());
        assert!(ItemKeys::read(&[1, 0, 2, 0], b"abcd").is_err());
        assert!(ItemKeys::read(&[0xFF; 2048], b"").is_err());
    }
}
