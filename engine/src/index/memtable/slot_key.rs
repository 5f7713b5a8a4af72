//! A key as a slot holds it: in the slot itself if it is short, so that comparing it takes one
//! access to memory that is not in the processor's cache, and not two.

use std::ops::Deref;

/// The longest key that lies in the slot.
const SHORT_MAX: usize = 30;

/// The bytes of a key.
#[derive(Debug)]
pub(super) enum SlotKey {
    Short(u8, [u8; SHORT_MAX]),
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<SlotKey>() == 32);

impl SlotKey {
    /// How many bytes were allocated for it, if any were.
    pub(super) fn allocated_len(&self) -> Option<usize> {
        match self {
            Self::Short(..) => None,
            Self::Long(key) => Some(key.len()),
        }
    }
}

impl From<&[u8]> for SlotKey {
    fn from(key: &[u8]) -> Self {
        let mut short = [0; SHORT_MAX];
        match short.get_mut(..key.len()) {
            Some(bytes) => {
                bytes.copy_from_slice(key);
                Self::Short(key.len() as u8, short)
            }
            None => Self::Long(key.into()),
        }
    }
}

impl Deref for SlotKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len)],
            Self::Long(key) => key,
        }
    }
}
