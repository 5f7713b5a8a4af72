//! Values that the client compresses.
//!
//! A compressed value begins with its length in plain, as u32 in little-endian, then comes a block
//! of LZ4. Bit 31 of the client flags says that it is one.

use std::borrow::Cow;

use larder_protocol::native::{Condition, DeleteItem, NativeRequest, PutItem, PutMode};

use crate::connection::{Item, VALUE_BYTES_MAX};
use crate::error::ClientError;
use crate::pages::ListedItem;

/// The client flag that says that a value is compressed.
pub const COMPRESSED: u32 = 1 << 31;

/// How much longer than its compressed form a value can be.
const RATIO_MAX: usize = 256;

/// Why a node is not asked to compare values.
pub(super) const NOT_COMPARED: &str = "values that may be compressed are not compared: read the \
     item and demand its version, or build the client without `compress`";

/// The value as it is stored, and whether it is compressed: only if that saves an eighth.
fn compressed(value: &[u8], from: usize) -> Cow<'_, [u8]> {
    if value.len() < from || value.len() > VALUE_BYTES_MAX {
        return Cow::Borrowed(value);
    }
    let packed = lz4_flex::compress_prepend_size(value);
    let is_worth_it = packed.len() <= value.len() - value.len() / 8;
    if is_worth_it { Cow::Owned(packed) } else { Cow::Borrowed(value) }
}

/// A put whose value may have become shorter.
pub(super) struct Packed<'a> {
    value: Cow<'a, [u8]>,
    put: PutItem<'a>,
}

impl<'a> Packed<'a> {
    /// Compresses the value of a put, from so many bytes on.
    ///
    /// # Errors
    /// [`ClientError::Usage`] where it would not be told from other values, or changes one.
    pub(super) fn new(put: PutItem<'a>, from: usize) -> Result<Self, ClientError> {
        let refused = |text: &str| Err(ClientError::Usage(text.to_owned()));
        if put.client_flags & COMPRESSED != 0 {
            return refused(
                "bit 31 of the client flags says that a value is compressed: use another, or \
                 build the client without `compress`",
            );
        }
        if matches!(put.mode, PutMode::Append | PutMode::Prepend) {
            return refused(
                "nothing can be appended or prepended to values that may be compressed: build \
                 the client without `compress`, or put the whole value",
            );
        }
        if matches!(put.mode, PutMode::Set(Condition::Value(_))) {
            return refused(NOT_COMPARED);
        }
        Ok(Self { value: compressed(put.value, from), put })
    }

    /// The put as it is sent.
    pub(super) fn put(&self) -> PutItem<'_> {
        let flag = if matches!(self.value, Cow::Owned(_)) { COMPRESSED } else { 0 };
        PutItem { value: &self.value, client_flags: self.put.client_flags | flag, ..self.put }
    }
}

/// The same of a change of a record; what is no put stays as it is.
pub(super) fn packed<'a>(
    change: NativeRequest<'a>,
    from: usize,
) -> Result<Result<Packed<'a>, NativeRequest<'a>>, ClientError> {
    match change {
        NativeRequest::Put(put) => Packed::new(put, from).map(Ok),
        NativeRequest::Delete(DeleteItem { condition: Condition::Value(_), .. }) => {
            Err(ClientError::Usage(NOT_COMPARED.to_owned()))
        }
        other => Ok(Err(other)),
    }
}

/// The plain form of a value with these client flags; `None` if it is plain.
fn expanded(value: &[u8], client_flags: u32) -> Result<Option<Vec<u8>>, ClientError> {
    if client_flags & COMPRESSED == 0 {
        return Ok(None);
    }
    let Some((length, block)) = value.split_first_chunk() else {
        return Err(ClientError::Compression("it is too short"));
    };
    let length = u32::from_le_bytes(*length) as usize;
    // Checked before so much memory is taken.
    if length > VALUE_BYTES_MAX || length > block.len().saturating_mul(RATIO_MAX) {
        return Err(ClientError::Compression("says that it is longer than it can be"));
    }
    match lz4_flex::decompress(block, length) {
        Ok(plain) if plain.len() == length => Ok(Some(plain)),
        _ => Err(ClientError::Compression("its bytes are no block of LZ4 of its length")),
    }
}

/// An item with its value in plain. Without its value it is as it is stored.
pub(super) fn expand_item(mut item: Item) -> Result<Item, ClientError> {
    let is_left_out = item.value.is_empty() && item.value_len > 0;
    if !is_left_out && let Some(plain) = expanded(&item.value, item.client_flags)? {
        item.value_len = plain.len() as u32;
        item.client_flags &= !COMPRESSED;
        item.value = plain;
    }
    Ok(item)
}

/// The same of an item of a page.
pub(super) fn expand_listed(mut item: ListedItem) -> Result<ListedItem, ClientError> {
    if let Some(value) = &item.value
        && let Some(plain) = expanded(value, item.client_flags)?
    {
        item.value_len = plain.len() as u32;
        item.client_flags &= !COMPRESSED;
        item.value = Some(plain);
    }
    Ok(item)
}

#[cfg(test)]
mod tests {
    use larder_protocol::native::ItemKey;

    use super::*;

    fn put<'a>(value: &'a [u8], client_flags: u32, mode: PutMode<'a>) -> PutItem<'a> {
        let key = ItemKey { namespace: 0, record: b"r", item: b"" };
        PutItem { key, mode, client_flags, ttl: 0, value }
    }

    const SET: PutMode = PutMode::Set(Condition::Any);

    fn item(put: PutItem<'_>) -> Item {
        let (value, client_flags) = (put.value.to_vec(), put.client_flags);
        Item { version: 1, client_flags, expiry: 0, value_len: value.len() as u32, value }
    }

    #[test]
    fn values_come_back_as_they_went() {
        let noise: Vec<u8> =
            (0..5000u64).map(|at| (super::super::budget::mix(at) >> 9) as u8).collect();
        let text = b"a text that repeats ".repeat(200);
        for (value, is_packed) in [(&text[..], true), (&noise[..], false), (&text[..99], false)] {
            let packed = Packed::new(put(value, 7, SET), 100).expect("fine");
            let sent = packed.put();
            assert_eq!(sent.client_flags == 7 | COMPRESSED, is_packed);
            assert!(!is_packed || sent.value.len() <= value.len() / 8 * 7);
            let read = expand_item(item(sent)).expect("its own");
            assert_eq!((read.client_flags, read.value_len as usize), (7, value.len()));
            assert!(read.value == value);
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        for wrong in [
            put(b"v", COMPRESSED, SET),
            put(b"v", 0, PutMode::Append),
            put(b"v", 0, PutMode::Prepend),
            put(b"v", 0, PutMode::Set(Condition::Value(b"plain"))),
        ] {
            assert!(matches!(Packed::new(wrong, 0), Err(ClientError::Usage(_))));
        }
        let delete = DeleteItem { key: put(b"", 0, SET).key, condition: Condition::Value(b"v") };
        let refused = packed(NativeRequest::Delete(delete), 0);
        assert!(matches!(refused, Err(ClientError::Usage(_))));
    }

    #[test]
    fn what_others_have_marked_is_an_error_and_no_memory() {
        let mut packed = lz4_flex::compress_prepend_size(&[b'x'; 4000]);
        packed.extend_from_slice(b"appended");
        let lying = [&u32::MAX.to_le_bytes()[..], b"block"].concat();
        let longer = [&1000u32.to_le_bytes()[..], b"\x10x and more"].concat();
        for value in [&b""[..], b"abc", b"plain text", &packed, &lying, &longer] {
            let error = expand_item(item(put(value, COMPRESSED, SET))).expect_err("no such value");
            assert!(matches!(error, ClientError::Compression(_)), "{error}");
        }
        let left_out = Item { value: Vec::new(), ..item(put(b"12345", COMPRESSED, SET)) };
        assert_eq!(expand_item(left_out.clone()).expect("without its value"), left_out);
    }
}
