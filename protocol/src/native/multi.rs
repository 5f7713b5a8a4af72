//! Reads of several items at once.
//!
//! A request:
//!
//! | offset | length | |
//! |---|---|---|
//! | 0 | 4 | namespace |
//! | 4 | 2 | keys, 1 to 1,024 |
//! | 6 | 2 | options, as of a get |
//! | 8 | | for each key 2 bytes of length of its record id, 2 of its item key, and both |
//!
//! Its reply has for each key, in their order, 8 bytes and what they announce:
//!
//! | offset | length | |
//! |---|---|---|
//! | 0 | 1 | status |
//! | 1 | 3 | 0 |
//! | 4 | 4 | length of what follows: an item if the status is `ok`, else nothing |

use super::item::{GET_METADATA_ONLY, GET_QUIET};
use super::reply::{ITEM_BYTES, NativeItem, ReplyError, item_head, read_item};
use super::request::BodyError;
use super::{GetItem, ITEM_BYTES_MAX, ItemKey, NativeStatus, RECORD_BYTES_MAX, u16_at, u32_at};

/// The most keys of one request.
pub const MULTI_GET_KEYS_MAX: usize = 1024;

const HEAD_BYTES: usize = 8;
const KEY_HEAD_BYTES: usize = 4;

/// Bytes of an entry of a reply before its item.
pub const MULTI_ENTRY_BYTES: usize = 8;

const CUT_SHORT: BodyError = "the keys are longer than the body";

/// Items to read, all of one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiGet<'a> {
    /// The namespace's number.
    pub namespace: u32,
    /// Whether values are left out.
    pub metadata_only: bool,
    /// Whether the reads do not count as use.
    pub is_quiet: bool,
    count: usize,
    /// The keys, whose lengths were checked.
    keys: &'a [u8],
}

impl<'a> MultiGet<'a> {
    /// The body that asks for these items with the options of `options`, whose key is not looked
    /// at.
    ///
    /// # Panics
    ///
    /// If there are none or more than [`MULTI_GET_KEYS_MAX`], one is of another namespace than the
    /// first, or a part of a key is too long.
    pub fn body(keys: &[ItemKey<'_>], metadata_only: bool, is_quiet: bool) -> Vec<u8> {
        assert!((1..=MULTI_GET_KEYS_MAX).contains(&keys.len()), "1 to 1,024 keys");
        let namespace = keys[0].namespace;
        let mut body = Vec::new();
        put_head(&mut body, namespace, keys.len(), metadata_only, is_quiet);
        for key in keys {
            assert_eq!(key.namespace, namespace, "all keys are of one namespace");
            assert!((1..=RECORD_BYTES_MAX).contains(&key.record.len()), "1 to 1,024 bytes");
            assert!(key.item.len() <= ITEM_BYTES_MAX, "an item key is at most 1,024 bytes");
            body.extend_from_slice(&(key.record.len() as u16).to_le_bytes());
            body.extend_from_slice(&(key.item.len() as u16).to_le_bytes());
            body.extend_from_slice(key.record);
            body.extend_from_slice(key.item);
        }
        body
    }

    /// Reads a body, whose bytes are all looked at.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(body: &'a [u8]) -> Result<Self, &'static str> {
        let Some((head, keys)) = body.split_at_checked(HEAD_BYTES) else {
            return Err("the body is shorter than the opcode's fixed part");
        };
        let (count, options) = (usize::from(u16_at(head, 4)), u32::from(u16_at(head, 6)));
        if !(1..=MULTI_GET_KEYS_MAX).contains(&count) {
            return Err("there are 1 to 1,024 keys");
        }
        if options & !(GET_METADATA_ONLY | GET_QUIET) != 0 {
            return Err("reserved bytes must be 0");
        }
        let mut rest = keys;
        for _ in 0..count {
            take_key(0, &mut rest)?;
        }
        if !rest.is_empty() {
            return Err("the body is longer than its keys");
        }
        Ok(Self {
            namespace: u32_at(head, 0),
            metadata_only: options & GET_METADATA_ONLY != 0,
            is_quiet: options & GET_QUIET != 0,
            count,
            keys,
        })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none, which no body says.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The read at `cursor`, which begins as 0 and is moved to the next; `None` behind the last.
    #[inline]
    pub fn get_at(&self, cursor: &mut usize) -> Option<GetItem<'a>> {
        let Self { namespace, metadata_only, is_quiet, keys, .. } = *self;
        let mut rest = keys.get(*cursor..).filter(|rest| !rest.is_empty())?;
        let key = take_key(namespace, &mut rest).ok()?;
        *cursor = keys.len() - rest.len();
        Some(GetItem { key, metadata_only, is_quiet })
    }

    /// The reads, in order.
    pub fn gets(&self) -> impl Iterator<Item = GetItem<'a>> + use<'a> {
        let (multi, mut cursor) = (*self, 0);
        std::iter::from_fn(move || multi.get_at(&mut cursor))
    }

    /// Appends the body.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        put_head(out, self.namespace, self.count, self.metadata_only, self.is_quiet);
        out.extend_from_slice(self.keys);
    }
}

fn put_head(out: &mut Vec<u8>, namespace: u32, count: usize, metadata_only: bool, is_quiet: bool) {
    let options = u32::from(metadata_only) * GET_METADATA_ONLY + u32::from(is_quiet) * GET_QUIET;
    out.extend_from_slice(&namespace.to_le_bytes());
    out.extend_from_slice(&(count as u16).to_le_bytes());
    out.extend_from_slice(&(options as u16).to_le_bytes());
}

/// Takes a key off the front of `rest`.
#[inline]
fn take_key<'a>(namespace: u32, rest: &mut &'a [u8]) -> Result<ItemKey<'a>, BodyError> {
    let (head, behind) = rest.split_at_checked(KEY_HEAD_BYTES).ok_or(CUT_SHORT)?;
    let (record, item) = (usize::from(u16_at(head, 0)), usize::from(u16_at(head, 2)));
    if record == 0 || record > RECORD_BYTES_MAX {
        return Err("a record id has 1 to 1,024 bytes");
    }
    if item > ITEM_BYTES_MAX {
        return Err("an item key has at most 1,024 bytes");
    }
    let (record, behind) = behind.split_at_checked(record).ok_or(CUT_SHORT)?;
    let (item, behind) = behind.split_at_checked(item).ok_or(CUT_SHORT)?;
    *rest = behind;
    Ok(ItemKey { namespace, record, item })
}

/// Appends the entry of a reply that shows an item.
#[inline]
pub fn put_found(out: &mut Vec<u8>, item: &NativeItem<'_>) {
    let bytes = ITEM_BYTES + item.value.len();
    let mut front = [0; MULTI_ENTRY_BYTES + ITEM_BYTES];
    let len = u32::try_from(bytes).expect("items have less than 4 GiB");
    front[4..8].copy_from_slice(&len.to_le_bytes());
    front[MULTI_ENTRY_BYTES..].copy_from_slice(&item_head(item));
    out.reserve(MULTI_ENTRY_BYTES + bytes);
    out.extend_from_slice(&front);
    out.extend_from_slice(item.value);
}

/// The entry of a reply that shows none.
pub fn not_found(status: NativeStatus) -> [u8; MULTI_ENTRY_BYTES] {
    [status as u8, 0, 0, 0, 0, 0, 0, 0]
}

/// An entry of a reply: the item, or the status why there is none, `None` where that is not known
/// here.
pub type MultiEntry<'a> = Result<NativeItem<'a>, Option<NativeStatus>>;

/// Takes an entry off the front of `rest`.
///
/// # Errors
///
/// If there is none.
pub(super) fn take_entry<'a>(rest: &mut &'a [u8]) -> Result<MultiEntry<'a>, ReplyError> {
    let (head, behind) = rest.split_at_checked(MULTI_ENTRY_BYTES).ok_or(ReplyError::Body)?;
    let len = u32_at(head, 4) as usize;
    let (item, behind) = behind.split_at_checked(len).ok_or(ReplyError::Body)?;
    *rest = behind;
    match NativeStatus::from_code(head[0]) {
        Some(NativeStatus::Ok) => read_item(item).map(Ok),
        status => Ok(Err(status)),
    }
}
