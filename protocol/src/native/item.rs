//! Requests about one item: its key, what is demanded of it, and the fixed bodies.

use super::request::{BodyError, RESERVED, SHORT};
use super::{ITEM_BYTES_MAX, Opcode, RECORD_BYTES_MAX, u16_at, u32_at, u64_at};

/// An item's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemKey<'a> {
    /// The namespace's number.
    pub namespace: u32,
    /// The record id.
    pub record: &'a [u8],
    /// The item key inside the record.
    pub item: &'a [u8],
}

/// What of an item a change demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Nothing.
    Any,
    /// That it has this version.
    Version(u64),
    /// That it has this value.
    Value(&'a [u8]),
}

impl<'a> Condition<'a> {
    /// The value that it demands; empty if it demands none.
    pub(super) fn value(&self) -> &'a [u8] {
        match self {
            Self::Value(value) => value,
            Self::Any | Self::Version(_) => &[],
        }
    }
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode<'a> {
    /// In any case, or only over a version or a value.
    Set(Condition<'a>),
    /// Only if there is no item.
    IfAbsent,
    /// Only if there is one.
    IfPresent,
    /// Behind the item's value, whose flags and expiry stay.
    Append,
    /// Before the item's value, whose flags and expiry stay.
    Prepend,
}

impl<'a> PutMode<'a> {
    /// The value that the item must have; empty if none is demanded.
    pub(super) fn demanded(&self) -> &'a [u8] {
        match self {
            Self::Set(condition) => condition.value(),
            Self::IfAbsent | Self::IfPresent | Self::Append | Self::Prepend => &[],
        }
    }
}

/// An item to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetItem<'a> {
    /// Its key.
    pub key: ItemKey<'a>,
    /// Whether the value is left out.
    pub metadata_only: bool,
    /// Whether the read does not count as use.
    pub is_quiet: bool,
}

/// A value to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutItem<'a> {
    /// Its key.
    pub key: ItemKey<'a>,
    /// How.
    pub mode: PutMode<'a>,
    /// The client's own bits.
    pub client_flags: u32,
    /// Seconds to live; 0 for ever.
    pub ttl: u32,
    /// The value.
    pub value: &'a [u8],
}

/// An item to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteItem<'a> {
    /// Its key.
    pub key: ItemKey<'a>,
    /// Only if.
    pub condition: Condition<'a>,
}

/// A number to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncrementItem<'a> {
    /// Its key.
    pub key: ItemKey<'a>,
    /// Whether it goes down, to no less than 0, instead of up modulo 2^64.
    pub is_decrement: bool,
    /// By how much.
    pub delta: u64,
    /// What a missing number begins with, and its seconds to live.
    pub initial: Option<(u64, u32)>,
}

/// An item that gets another expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TouchItem<'a> {
    /// Its key.
    pub key: ItemKey<'a>,
    /// Seconds to live; 0 for ever.
    pub ttl: u32,
    /// Whether it is read as well.
    pub with_value: bool,
}

/// Bytes of the part that says the key's lengths.
const KEY_HEAD_BYTES: usize = 8;

pub(super) const GET_METADATA_ONLY: u32 = 1;
pub(super) const GET_QUIET: u32 = 2;
/// The mode of puts and deletes that demand a value.
const MODE_IF_VALUE: u32 = 6;
const INCREMENT_DOWN: u32 = 1;
const INCREMENT_CREATE: u32 = 2;

const KEY_LENGTHS: BodyError = "record id and item key are longer than the body";
const BEHIND_KEY: BodyError = "the body is longer than its key says";

impl<'a> GetItem<'a> {
    #[inline]
    pub(super) fn read(body: &'a [u8]) -> Result<Self, BodyError> {
        let (fixed, key) = split_all(body, 8)?;
        let options = u32_at(fixed, 0);
        if options & !(GET_METADATA_ONLY | GET_QUIET) != 0 || u32_at(fixed, 4) != 0 {
            return Err(RESERVED);
        }
        let metadata_only = options & GET_METADATA_ONLY != 0;
        Ok(Self { key, metadata_only, is_quiet: options & GET_QUIET != 0 })
    }

    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let Self { key, metadata_only, is_quiet } = *self;
        let options =
            u32::from(metadata_only) * GET_METADATA_ONLY + u32::from(is_quiet) * GET_QUIET;
        put_key_head(&key, out);
        out.extend_from_slice(&options.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        put_key(&key, out);
    }
}

impl<'a> PutItem<'a> {
    #[inline]
    pub(super) fn read(body: &'a [u8]) -> Result<Self, BodyError> {
        let (fixed, key, value) = split(body, 24)?;
        let version = u64_at(fixed, 16);
        let (code, demanded_bytes) = (u32_at(fixed, 0), u32_at(fixed, 12) as usize);
        if code != MODE_IF_VALUE && demanded_bytes != 0 {
            return Err(RESERVED);
        }
        let parts = value.split_at_checked(demanded_bytes);
        let (demanded, value) =
            parts.ok_or("the value that is demanded is longer than the body")?;
        let mode = match code {
            0 => PutMode::Set(Condition::Any),
            1 => PutMode::IfAbsent,
            2 => PutMode::IfPresent,
            3 => PutMode::Set(Condition::Version(version)),
            4 => PutMode::Append,
            5 => PutMode::Prepend,
            MODE_IF_VALUE => PutMode::Set(Condition::Value(demanded)),
            _ => return Err("there is no such mode of putting"),
        };
        let has_version = matches!(mode, PutMode::Set(Condition::Version(_)));
        if !has_version && version != 0 {
            return Err(RESERVED);
        }
        let (client_flags, ttl) = (u32_at(fixed, 4), u32_at(fixed, 8));
        Ok(Self { key, mode, client_flags, ttl, value })
    }

    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let Self { key, mode, client_flags, ttl, value } = *self;
        let demanded = mode.demanded();
        let (code, version) = match mode {
            PutMode::Set(Condition::Any) => (0u32, 0),
            PutMode::IfAbsent => (1, 0),
            PutMode::IfPresent => (2, 0),
            PutMode::Set(Condition::Version(version)) => (3, version),
            PutMode::Append => (4, 0),
            PutMode::Prepend => (5, 0),
            PutMode::Set(Condition::Value(_)) => (MODE_IF_VALUE, 0),
        };
        let demanded_bytes = u32::try_from(demanded.len());
        let demanded_bytes = demanded_bytes.expect("values have less than 4 GiB");
        put_key_head(&key, out);
        out.extend_from_slice(&code.to_le_bytes());
        out.extend_from_slice(&client_flags.to_le_bytes());
        out.extend_from_slice(&ttl.to_le_bytes());
        out.extend_from_slice(&demanded_bytes.to_le_bytes());
        out.extend_from_slice(&version.to_le_bytes());
        put_key(&key, out);
        out.extend_from_slice(demanded);
        out.extend_from_slice(value);
    }
}

impl<'a> DeleteItem<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, BodyError> {
        let (fixed, key, demanded) = split(body, 16)?;
        let (code, version) = (u32_at(fixed, 0), u64_at(fixed, 8));
        if code != MODE_IF_VALUE && !demanded.is_empty() {
            return Err(BEHIND_KEY);
        }
        let condition = match code {
            0 | MODE_IF_VALUE if version != 0 => return Err(RESERVED),
            0 => Condition::Any,
            3 => Condition::Version(version),
            MODE_IF_VALUE => Condition::Value(demanded),
            _ => return Err("there is no such mode of deleting"),
        };
        if u32_at(fixed, 4) != 0 {
            return Err(RESERVED);
        }
        Ok(Self { key, condition })
    }

    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let Self { key, condition } = *self;
        let (mode, version) = match condition {
            Condition::Any => (0u32, 0),
            Condition::Version(version) => (3, version),
            Condition::Value(_) => (MODE_IF_VALUE, 0),
        };
        put_key_head(&key, out);
        out.extend_from_slice(&mode.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&version.to_le_bytes());
        put_key(&key, out);
        out.extend_from_slice(condition.value());
    }
}

impl<'a> IncrementItem<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, BodyError> {
        let (fixed, key) = split_all(body, 24)?;
        let (options, ttl) = (u32_at(fixed, 0), u32_at(fixed, 4));
        let (delta, initial) = (u64_at(fixed, 8), u64_at(fixed, 16));
        let creates = options & INCREMENT_CREATE != 0;
        let is_unused = creates || (ttl == 0 && initial == 0);
        if options & !(INCREMENT_DOWN | INCREMENT_CREATE) != 0 || !is_unused {
            return Err(RESERVED);
        }
        let is_decrement = options & INCREMENT_DOWN != 0;
        let initial = creates.then_some((initial, ttl));
        Ok(Self { key, is_decrement, delta, initial })
    }

    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let Self { key, is_decrement, delta, initial } = *self;
        let options = u32::from(is_decrement) * INCREMENT_DOWN
            + u32::from(initial.is_some()) * INCREMENT_CREATE;
        let (initial, ttl) = initial.unwrap_or_default();
        put_key_head(&key, out);
        out.extend_from_slice(&options.to_le_bytes());
        out.extend_from_slice(&ttl.to_le_bytes());
        out.extend_from_slice(&delta.to_le_bytes());
        out.extend_from_slice(&initial.to_le_bytes());
        put_key(&key, out);
    }
}

impl<'a> TouchItem<'a> {
    pub(super) fn read(opcode: Opcode, body: &'a [u8]) -> Result<Self, BodyError> {
        let (fixed, key) = split_all(body, 8)?;
        if u32_at(fixed, 4) != 0 {
            return Err(RESERVED);
        }
        let with_value = opcode == Opcode::GetAndTouch;
        Ok(Self { key, ttl: u32_at(fixed, 0), with_value })
    }

    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let Self { key, ttl, .. } = *self;
        put_key_head(&key, out);
        out.extend_from_slice(&ttl.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        put_key(&key, out);
    }
}

pub(super) fn put_key_head(key: &ItemKey<'_>, out: &mut Vec<u8>) {
    assert!(key.record.len() <= RECORD_BYTES_MAX, "a record id is at most 1,024 bytes");
    assert!(key.item.len() <= ITEM_BYTES_MAX, "an item key is at most 1,024 bytes");
    out.extend_from_slice(&key.namespace.to_le_bytes());
    out.extend_from_slice(&(key.record.len() as u16).to_le_bytes());
    out.extend_from_slice(&(key.item.len() as u16).to_le_bytes());
}

pub(super) fn put_key(key: &ItemKey<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(key.record);
    out.extend_from_slice(key.item);
}

/// The opcode's fixed part, the key, and what is behind it.
#[inline]
pub(super) fn split<'a>(
    body: &'a [u8],
    fixed: usize,
) -> Result<(&'a [u8], ItemKey<'a>, &'a [u8]), BodyError> {
    let end = KEY_HEAD_BYTES + fixed;
    if body.len() < end {
        return Err(SHORT);
    }
    let (record, item) = (usize::from(u16_at(body, 4)), usize::from(u16_at(body, 6)));
    if record == 0 || record > RECORD_BYTES_MAX {
        return Err("a record id has 1 to 1,024 bytes");
    }
    if item > ITEM_BYTES_MAX {
        return Err("an item key has at most 1,024 bytes");
    }
    let rest = &body[end..];
    if rest.len() < record + item {
        return Err(KEY_LENGTHS);
    }
    let (record, rest) = rest.split_at(record);
    let (item, rest) = rest.split_at(item);
    let key = ItemKey { namespace: u32_at(body, 0), record, item };
    Ok((&body[KEY_HEAD_BYTES..end], key, rest))
}

/// The same where nothing may be behind the key.
#[inline]
pub(super) fn split_all<'a>(
    body: &'a [u8],
    fixed: usize,
) -> Result<(&'a [u8], ItemKey<'a>), BodyError> {
    match split(body, fixed)? {
        (fixed, key, []) => Ok((fixed, key)),
        _ => Err(BEHIND_KEY),
    }
}
