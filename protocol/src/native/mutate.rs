//! Changes of a record's items: as a whole or not at all, and of a range.
//!
//! A list of changes has a body of fixed parts, so that values need not be copied to be read:
//!
//! | offset | length | |
//! |---|---|---|
//! | 0 | 4 | namespace |
//! | 4 | 2 | length of the record id |
//! | 6 | 2 | changes, 1 to 1,024 |
//! | 8 | | record id, then the changes |
//!
//! and each change:
//!
//! | offset | length | |
//! |---|---|---|
//! | 0 | 1 | kind |
//! | 1 | 1 | 0 |
//! | 2 | 2 | length of the item key |
//! | 4 | 4 | client flags of what is put |
//! | 8 | 4 | seconds to live of what is put, or of a number that begins |
//! | 12 | 4 | length of the value |
//! | 16 | 8 | version or length of the value that is demanded, or how much a number changes |
//! | 24 | 8 | what a missing number begins with |
//! | 32 | | item key, then the value that is demanded, then the value |

use super::page::read_range;
use super::request::BodyError;
use super::{
    Condition, DeleteItem, GetItem, ITEM_BYTES_MAX, IncrementItem, ItemKey, ItemRange,
    NativeRequest, PutItem, PutMode, RECORD_BYTES_MAX, u16_at, u32_at, u64_at,
};

/// The most changes of one request.
pub const MUTATE_CHANGES_MAX: usize = 1024;

const HEAD_BYTES: usize = 8;
const CHANGE_BYTES: usize = 32;

/// Bytes of a reply for each change: the version that it has made, 0 for none, and the number.
pub(super) const CHANGED_BYTES: usize = 16;

mod kind {
    pub(super) const SET: u8 = 0;
    pub(super) const PUT_IF_ABSENT: u8 = 1;
    pub(super) const PUT_IF_PRESENT: u8 = 2;
    pub(super) const PUT_IF_VERSION: u8 = 3;
    pub(super) const APPEND: u8 = 4;
    pub(super) const PREPEND: u8 = 5;
    pub(super) const DELETE: u8 = 6;
    pub(super) const DELETE_IF_VERSION: u8 = 7;
    pub(super) const INCREMENT: u8 = 8;
    pub(super) const DECREMENT: u8 = 9;
    pub(super) const INCREMENT_OR_CREATE: u8 = 10;
    pub(super) const DECREMENT_OR_CREATE: u8 = 11;
    pub(super) const CHECK_PRESENT: u8 = 12;
    pub(super) const PUT_IF_VALUE: u8 = 13;
    pub(super) const DELETE_IF_VALUE: u8 = 14;
}

/// Changes of items of one record that are made together or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MutateRecord<'a> {
    /// The namespace's number.
    pub namespace: u32,
    /// The record id.
    pub record: &'a [u8],
    count: usize,
    /// The changes, whose lengths were checked.
    changes: &'a [u8],
}

/// A range of a record's items that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteItems<'a> {
    /// The namespace's number.
    pub namespace: u32,
    /// The record id.
    pub record: &'a [u8],
    /// Which items.
    pub range: ItemRange<'a>,
}

const CUT_SHORT: BodyError = "the changes are longer than the body";
const UNUSED: BodyError = "a part of a change that its kind has no use for must be 0";

impl<'a> MutateRecord<'a> {
    /// The body with these requests as changes: puts, deletes, increments, and reads, which demand
    /// that an item is there. Their keys are all of this record.
    ///
    /// # Panics
    ///
    /// If another request is among them, there are none or more than [`MUTATE_CHANGES_MAX`], or a
    /// key is too long.
    pub fn body(namespace: u32, record: &[u8], changes: &[NativeRequest<'_>]) -> Vec<u8> {
        assert!((1..=MUTATE_CHANGES_MAX).contains(&changes.len()), "1 to 1,024 changes");
        assert!((1..=RECORD_BYTES_MAX).contains(&record.len()), "a record id of 1 to 1,024 bytes");
        let mut body = Vec::new();
        body.extend_from_slice(&namespace.to_le_bytes());
        body.extend_from_slice(&(record.len() as u16).to_le_bytes());
        body.extend_from_slice(&(changes.len() as u16).to_le_bytes());
        body.extend_from_slice(record);
        for change in changes {
            Change::of(change).put(&mut body);
        }
        body
    }

    /// Reads a body, whose bytes are all looked at.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(body: &'a [u8]) -> Result<Self, &'static str> {
        if body.len() < HEAD_BYTES {
            return Err("the body is shorter than the opcode's fixed part");
        }
        let (namespace, len) = (u32_at(body, 0), usize::from(u16_at(body, 4)));
        let count = usize::from(u16_at(body, 6));
        if !(1..=RECORD_BYTES_MAX).contains(&len) {
            return Err("a record id has 1 to 1,024 bytes");
        }
        if !(1..=MUTATE_CHANGES_MAX).contains(&count) {
            return Err("there are 1 to 1,024 changes");
        }
        let (record, changes) = body[HEAD_BYTES..].split_at_checked(len).ok_or(CUT_SHORT)?;
        let mut rest = changes;
        for _ in 0..count {
            Change::take(&mut rest)?.as_request(ItemKey { namespace, record, item: &[] })?;
        }
        if !rest.is_empty() {
            return Err("the body is longer than its changes");
        }
        Ok(Self { namespace, record, count, changes })
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none, which no body says.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The changes, each as the request that makes it alone; a read demands that its item is there.
    pub fn changes(&self) -> impl Iterator<Item = NativeRequest<'a>> + use<'a> {
        let Self { namespace, record, count, changes: mut rest } = *self;
        (0..count).map(move |_| {
            let change = Change::take(&mut rest).expect("all changes were read before");
            let key = ItemKey { namespace, record, item: change.item };
            change.as_request(key).expect("all changes were read before")
        })
    }

    /// Appends the body.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.namespace.to_le_bytes());
        out.extend_from_slice(&(self.record.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.count as u16).to_le_bytes());
        out.extend_from_slice(self.record);
        out.extend_from_slice(self.changes);
    }
}

/// A change as it stands in a body.
#[derive(Clone, Copy, Default)]
struct Change<'a> {
    kind: u8,
    item: &'a [u8],
    client_flags: u32,
    ttl: u32,
    /// The value that is demanded; its length is the number.
    demanded: &'a [u8],
    value: &'a [u8],
    number: u64,
    initial: u64,
}

impl<'a> Change<'a> {
    fn of(request: &NativeRequest<'a>) -> Self {
        match *request {
            NativeRequest::Put(PutItem { key, mode, client_flags, ttl, value }) => {
                let (kind, number) = match mode {
                    PutMode::Set(Condition::Any) => (kind::SET, 0),
                    PutMode::Set(Condition::Version(version)) => (kind::PUT_IF_VERSION, version),
                    PutMode::Set(Condition::Value(value)) => {
                        (kind::PUT_IF_VALUE, value.len() as u64)
                    }
                    PutMode::IfAbsent => (kind::PUT_IF_ABSENT, 0),
                    PutMode::IfPresent => (kind::PUT_IF_PRESENT, 0),
                    PutMode::Append => (kind::APPEND, 0),
                    PutMode::Prepend => (kind::PREPEND, 0),
                };
                let (item, demanded) = (key.item, mode.demanded());
                let initial = 0;
                Self { kind, item, client_flags, ttl, demanded, value, number, initial }
            }
            NativeRequest::Delete(DeleteItem { key, condition }) => {
                let (kind, number) = match condition {
                    Condition::Any => (kind::DELETE, 0),
                    Condition::Version(version) => (kind::DELETE_IF_VERSION, version),
                    Condition::Value(value) => (kind::DELETE_IF_VALUE, value.len() as u64),
                };
                let demanded = condition.value();
                Self { kind, item: key.item, demanded, number, ..Self::default() }
            }
            NativeRequest::Increment(IncrementItem { key, is_decrement, delta, initial }) => {
                let kind = match (is_decrement, initial.is_some()) {
                    (false, false) => kind::INCREMENT,
                    (true, false) => kind::DECREMENT,
                    (false, true) => kind::INCREMENT_OR_CREATE,
                    (true, true) => kind::DECREMENT_OR_CREATE,
                };
                let (initial, ttl) = initial.unwrap_or_default();
                Self { kind, item: key.item, ttl, number: delta, initial, ..Self::default() }
            }
            NativeRequest::Get(GetItem { key, .. }) => {
                Self { kind: kind::CHECK_PRESENT, item: key.item, ..Self::default() }
            }
            ref other => panic!("no change of a record: {other:?}"),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        assert!(self.item.len() <= ITEM_BYTES_MAX, "an item key is at most 1,024 bytes");
        let value_len = u32::try_from(self.value.len()).expect("values have less than 4 GiB");
        out.extend_from_slice(&[self.kind, 0]);
        out.extend_from_slice(&(self.item.len() as u16).to_le_bytes());
        for number in [self.client_flags, self.ttl, value_len] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.initial.to_le_bytes());
        out.extend_from_slice(self.item);
        out.extend_from_slice(self.demanded);
        out.extend_from_slice(self.value);
    }

    /// Takes a change off the front of `rest`.
    fn take(rest: &mut &'a [u8]) -> Result<Self, BodyError> {
        let (fixed, behind) = rest.split_at_checked(CHANGE_BYTES).ok_or(CUT_SHORT)?;
        let (item_len, value_len) = (usize::from(u16_at(fixed, 2)), u32_at(fixed, 12) as usize);
        if item_len > ITEM_BYTES_MAX {
            return Err("an item key has at most 1,024 bytes");
        }
        if fixed[1] != 0 {
            return Err("reserved bytes must be 0");
        }
        let (item, behind) = behind.split_at_checked(item_len).ok_or(CUT_SHORT)?;
        let number = u64_at(fixed, 16);
        let demanded_len = match fixed[0] {
            kind::PUT_IF_VALUE | kind::DELETE_IF_VALUE => usize::try_from(number).ok(),
            _ => Some(0),
        };
        let split = demanded_len.and_then(|len| behind.split_at_checked(len));
        let (demanded, behind) = split.ok_or(CUT_SHORT)?;
        let (value, behind) = behind.split_at_checked(value_len).ok_or(CUT_SHORT)?;
        *rest = behind;
        Ok(Self {
            kind: fixed[0],
            item,
            client_flags: u32_at(fixed, 4),
            ttl: u32_at(fixed, 8),
            demanded,
            value,
            number,
            initial: u64_at(fixed, 24),
        })
    }

    fn as_request(&self, key: ItemKey<'a>) -> Result<NativeRequest<'a>, BodyError> {
        let Self { kind, client_flags, ttl, demanded, value, number, initial, .. } = *self;
        let has_version = matches!(kind, kind::PUT_IF_VERSION | kind::DELETE_IF_VERSION);
        let has_value = matches!(kind, kind::PUT_IF_VALUE | kind::DELETE_IF_VALUE);
        let counts = (kind::INCREMENT..=kind::DECREMENT_OR_CREATE).contains(&kind);
        let creates = counts && kind >= kind::INCREMENT_OR_CREATE;
        let puts = kind <= kind::PREPEND || kind == kind::PUT_IF_VALUE;
        let is_unused = (puts || (client_flags == 0 && value.is_empty()))
            && (puts || creates || ttl == 0)
            && (has_version || has_value || counts || number == 0)
            && (creates || initial == 0);
        if !is_unused {
            return Err(UNUSED);
        }
        let condition = match (has_version, has_value) {
            (true, _) => Condition::Version(number),
            (_, true) => Condition::Value(demanded),
            _ => Condition::Any,
        };
        let mode = match kind {
            kind::SET | kind::PUT_IF_VERSION | kind::PUT_IF_VALUE => PutMode::Set(condition),
            kind::PUT_IF_ABSENT => PutMode::IfAbsent,
            kind::PUT_IF_PRESENT => PutMode::IfPresent,
            kind::APPEND => PutMode::Append,
            kind::PREPEND => PutMode::Prepend,
            kind::DELETE | kind::DELETE_IF_VERSION | kind::DELETE_IF_VALUE => {
                return Ok(NativeRequest::Delete(DeleteItem { key, condition }));
            }
            kind::INCREMENT
            | kind::DECREMENT
            | kind::INCREMENT_OR_CREATE
            | kind::DECREMENT_OR_CREATE => {
                let is_decrement = matches!(kind, kind::DECREMENT | kind::DECREMENT_OR_CREATE);
                let initial = creates.then_some((initial, ttl));
                let increment = IncrementItem { key, is_decrement, delta: number, initial };
                return Ok(NativeRequest::Increment(increment));
            }
            kind::CHECK_PRESENT => {
                return Ok(NativeRequest::Get(GetItem {
                    key,
                    metadata_only: true,
                    is_quiet: true,
                }));
            }
            _ => return Err("there is no such kind of change"),
        };
        Ok(NativeRequest::Put(PutItem { key, mode, client_flags, ttl, value }))
    }
}

impl<'a> DeleteItems<'a> {
    /// Reads a body.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, BodyError> {
        let (namespace, record, range) = read_range(body)?;
        Ok(Self { namespace, record, range })
    }

    /// Appends the body.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        super::page::put_range(self.namespace, self.record, self.range, out);
    }
}
