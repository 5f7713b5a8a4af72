//! What a client asks for. Requests are small, `Copy`, and borrow their bytes from the input.

use super::header::{HEADER_BYTES, checksum};
use super::large::LargeItem;
use super::lease::{self, BeginLease};
use super::multi::MultiGet;
use super::mutate::{DeleteItems, MutateRecord};
use super::namespaces::{self, NamespaceChange};
use super::page::{GetItems, ScanItems};
use super::parse::flags;
use super::{
    HELLO_NAME_BYTES_MAX, Header, ITEM_BYTES_MAX, IdempotencyToken, Opcode, PING_BYTES_MAX,
    RECORD_BYTES_MAX, ReceivedToken, RequestDurability, Side, u16_at, u32_at, u64_at,
};

/// What every request says besides what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The request's id.
    pub id: u64,
    /// The opcode.
    pub opcode: Opcode,
    /// Microseconds from now after which nobody waits for the answer; 0 for no end.
    pub deadline_microseconds: u32,
    /// Whether it came with a checksum, and the reply is to have one.
    pub has_checksum: bool,
    /// When its reply is sent.
    pub durability: RequestDurability,
    /// What keeps it from being done twice.
    pub token: Option<ReceivedToken>,
}

/// How a request is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestOptions {
    /// As [`RequestHead::deadline_microseconds`].
    pub deadline_microseconds: u32,
    /// As [`RequestHead::has_checksum`].
    pub has_checksum: bool,
    /// As [`RequestHead::durability`].
    pub durability: RequestDurability,
    /// What keeps it from being done twice.
    pub token: Option<IdempotencyToken>,
}

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

/// A client that says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// The lowest version of the protocol that it speaks.
    pub version_min: u16,
    /// The highest.
    pub version_max: u16,
    /// Its name, for people.
    pub name: &'a str,
}

/// A request, whole and well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeRequest<'a> {
    /// Answer with these bytes.
    Ping(&'a [u8]),
    /// Who is there?
    Hello(ClientHello<'a>),
    /// Tell the node's figures.
    Statistics,
    /// Read.
    Get(GetItem<'a>),
    /// Store.
    Put(PutItem<'a>),
    /// Delete.
    Delete(DeleteItem<'a>),
    /// Count.
    Increment(IncrementItem<'a>),
    /// Touch, with or without a read.
    Touch(TouchItem<'a>),
    /// Read several items.
    MultiGet(MultiGet<'a>),
    /// Show a page of a record.
    GetItems(GetItems<'a>),
    /// Show a page of a namespace.
    Scan(ScanItems<'a>),
    /// Change items of a record together or not at all.
    Mutate(MutateRecord<'a>),
    /// Delete a range of a record's items.
    DeleteItems(DeleteItems<'a>),
    /// Make a namespace.
    CreateNamespace(NamespaceChange<'a>),
    /// Change how one is.
    SetNamespace(NamespaceChange<'a>),
    /// Show the one of this name, or all.
    ListNamespaces(Option<&'a str>),
    /// Delete the one of this name with all that it has.
    DropNamespace(&'a str),
    /// Keep a shard's moment for pages.
    BeginLease(BeginLease<'a>),
    /// Keep the moment of this lease no longer.
    EndLease(u64),
    /// Do a step on the way of a large value.
    Large(LargeItem<'a>),
}

/// Bytes of the part that says the key's lengths.
const KEY_HEAD_BYTES: usize = 8;

pub(super) const GET_METADATA_ONLY: u32 = 1;
pub(super) const GET_QUIET: u32 = 2;
/// The mode of puts and deletes that demand a value.
const MODE_IF_VALUE: u32 = 6;
const INCREMENT_DOWN: u32 = 1;
const INCREMENT_CREATE: u32 = 2;

/// Why a body is not that of its opcode.
pub(super) type BodyError = &'static str;

const SHORT: BodyError = "the body is shorter than the opcode's fixed part";
const KEY_LENGTHS: BodyError = "record id and item key are longer than the body";
const BEHIND_KEY: BodyError = "the body is longer than its key says";
pub(super) const RESERVED: BodyError = "reserved bytes must be 0";

impl<'a> NativeRequest<'a> {
    /// Reads the body of a request with this opcode.
    #[inline]
    pub(super) fn read(opcode: Opcode, body: &'a [u8]) -> Result<Self, BodyError> {
        match opcode {
            Opcode::Get => read_get(body),
            Opcode::Put => read_put(body),
            Opcode::Delete => read_delete(body),
            Opcode::Increment => read_increment(body),
            Opcode::Touch | Opcode::GetAndTouch => read_touch(opcode, body),
            Opcode::Hello => read_hello(body),
            Opcode::MultiGet => MultiGet::read(body).map(Self::MultiGet),
            Opcode::GetItems => GetItems::read(body).map(Self::GetItems),
            Opcode::Scan => ScanItems::read(body).map(Self::Scan),
            Opcode::MutateRecord => MutateRecord::read(body).map(Self::Mutate),
            Opcode::DeleteItems => DeleteItems::read(body).map(Self::DeleteItems),
            Opcode::CreateNamespace => namespaces::read_settings(body).map(Self::CreateNamespace),
            Opcode::SetNamespace => namespaces::read_settings(body).map(Self::SetNamespace),
            Opcode::ListNamespaces => namespaces::read_name(body).map(Self::ListNamespaces),
            Opcode::DropNamespace => namespaces::read_one_name(body).map(Self::DropNamespace),
            Opcode::BeginLease => BeginLease::read(body).map(Self::BeginLease),
            Opcode::EndLease => lease::read_end(body).map(Self::EndLease),
            Opcode::Stage
            | Opcode::PutChunk
            | Opcode::Commit
            | Opcode::Abort
            | Opcode::GetChunk => LargeItem::read(opcode, body).map(Self::Large),
            Opcode::Statistics if body.is_empty() => Ok(Self::Statistics),
            Opcode::Statistics => Err("a question for statistics has no body"),
            Opcode::Ping if body.len() <= PING_BYTES_MAX => Ok(Self::Ping(body)),
            Opcode::Ping => Err("a ping carries at most 64 bytes"),
        }
    }

    /// The key, if the request is about one item.
    #[inline]
    pub fn key(&self) -> Option<ItemKey<'a>> {
        match self {
            Self::Get(get) => Some(get.key),
            Self::Put(put) => Some(put.key),
            Self::Delete(delete) => Some(delete.key),
            Self::Increment(increment) => Some(increment.key),
            Self::Touch(touch) => Some(touch.key),
            Self::Ping(_)
            | Self::Hello(_)
            | Self::Statistics
            | Self::MultiGet(_)
            | Self::GetItems(_)
            | Self::Scan(_)
            | Self::Mutate(_)
            | Self::DeleteItems(_)
            | Self::CreateNamespace(_)
            | Self::SetNamespace(_)
            | Self::ListNamespaces(_)
            | Self::DropNamespace(_)
            | Self::BeginLease(_)
            | Self::EndLease(_)
            // A task does it.
            | Self::Large(_) => None,
        }
    }

    /// Bytes of the value that it brings, and of the one that it demands.
    #[inline]
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Put(put) => put.value.len() + put.mode.demanded().len(),
            Self::Delete(delete) => delete.condition.value().len(),
            Self::Large(large) => large.chunk().len(),
            _ => 0,
        }
    }

    /// The opcode.
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Ping(_) => Opcode::Ping,
            Self::Hello(_) => Opcode::Hello,
            Self::Statistics => Opcode::Statistics,
            Self::Get(_) => Opcode::Get,
            Self::Put(_) => Opcode::Put,
            Self::Delete(_) => Opcode::Delete,
            Self::Increment(_) => Opcode::Increment,
            Self::Touch(TouchItem { with_value: false, .. }) => Opcode::Touch,
            Self::Touch(TouchItem { with_value: true, .. }) => Opcode::GetAndTouch,
            Self::MultiGet(_) => Opcode::MultiGet,
            Self::GetItems(_) => Opcode::GetItems,
            Self::Scan(_) => Opcode::Scan,
            Self::Mutate(_) => Opcode::MutateRecord,
            Self::DeleteItems(_) => Opcode::DeleteItems,
            Self::CreateNamespace(_) => Opcode::CreateNamespace,
            Self::SetNamespace(_) => Opcode::SetNamespace,
            Self::ListNamespaces(_) => Opcode::ListNamespaces,
            Self::DropNamespace(_) => Opcode::DropNamespace,
            Self::BeginLease(_) => Opcode::BeginLease,
            Self::EndLease(_) => Opcode::EndLease,
            Self::Large(large) => large.opcode(),
        }
    }

    /// Appends the body.
    ///
    /// # Panics
    /// If record id, item key, name or ping are longer than they may be.
    pub fn put_body(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Ping(bytes) => {
                assert!(bytes.len() <= PING_BYTES_MAX, "a ping carries at most 64 bytes");
                out.extend_from_slice(bytes);
            }
            Self::Hello(hello) => put_hello(&hello, out),
            Self::Statistics => {}
            Self::Get(GetItem { key, metadata_only, is_quiet }) => {
                let options =
                    u32::from(metadata_only) * GET_METADATA_ONLY + u32::from(is_quiet) * GET_QUIET;
                put_key_head(&key, out);
                out.extend_from_slice(&options.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
                put_key(&key, out);
            }
            Self::Put(put) => put_put(&put, out),
            Self::Delete(DeleteItem { key, condition }) => {
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
            Self::Increment(IncrementItem { key, is_decrement, delta, initial }) => {
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
            Self::Touch(TouchItem { key, ttl, .. }) => {
                put_key_head(&key, out);
                out.extend_from_slice(&ttl.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
                put_key(&key, out);
            }
            Self::MultiGet(multi) => multi.put_body(out),
            Self::GetItems(get_items) => get_items.put_body(out),
            Self::Scan(scan) => scan.put_body(out),
            Self::Mutate(mutate) => mutate.put_body(out),
            Self::DeleteItems(delete) => delete.put_body(out),
            Self::CreateNamespace(change) | Self::SetNamespace(change) => {
                namespaces::put_change(Some(change.name), Some(&change.settings), out);
            }
            Self::ListNamespaces(name) => namespaces::put_change(name, None, out),
            Self::DropNamespace(name) => namespaces::put_change(Some(name), None, out),
            Self::BeginLease(begin) => begin.put_body(out),
            Self::EndLease(lease) => out.extend_from_slice(&lease.to_le_bytes()),
            Self::Large(large) => large.put_body(out),
        }
    }
}

/// Appends a whole request.
///
/// # Panics
/// As [`NativeRequest::put_body`], and if the value has 4 GiB or more.
pub fn put_request(
    out: &mut Vec<u8>,
    id: u64,
    deadline_microseconds: u32,
    has_checksum: bool,
    request: &NativeRequest<'_>,
) {
    let options =
        RequestOptions { deadline_microseconds, has_checksum, ..RequestOptions::default() };
    put_request_as(out, id, &options, request);
}

/// The same with all that may be said of how it is sent.
///
/// # Panics
/// As [`put_request`].
pub fn put_request_as(
    out: &mut Vec<u8>,
    id: u64,
    options: &RequestOptions,
    request: &NativeRequest<'_>,
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    if let Some(token) = &options.token {
        token.put(out);
    }
    request.put_body(out);
    let body_bytes = out.len() - start - HEADER_BYTES;
    let mut header = Header {
        side: Side::Client,
        opcode: request.opcode() as u8,
        code: flags(options),
        body_bytes: u32::try_from(body_bytes).expect("bodies have less than 4 GiB"),
        id,
        details: options.deadline_microseconds,
        checksum: 0,
    };
    let message = &mut out[start..];
    message[..HEADER_BYTES].copy_from_slice(&header.bytes());
    if options.has_checksum {
        let (head, body) = message.split_at(HEADER_BYTES);
        header.checksum = checksum(head, body);
        message[..HEADER_BYTES].copy_from_slice(&header.bytes());
    }
}

fn put_put(put: &PutItem<'_>, out: &mut Vec<u8>) {
    let PutItem { key, mode, client_flags, ttl, value } = *put;
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

fn put_hello(hello: &ClientHello<'_>, out: &mut Vec<u8>) {
    let ClientHello { version_min, version_max, name } = *hello;
    assert!(name.len() <= HELLO_NAME_BYTES_MAX, "a client's name is at most 64 bytes");
    out.extend_from_slice(&version_min.to_le_bytes());
    out.extend_from_slice(&version_max.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(name.as_bytes());
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

#[inline]
fn read_get(body: &[u8]) -> Result<NativeRequest<'_>, BodyError> {
    let (fixed, key) = split_all(body, 8)?;
    let options = u32_at(fixed, 0);
    if options & !(GET_METADATA_ONLY | GET_QUIET) != 0 || u32_at(fixed, 4) != 0 {
        return Err(RESERVED);
    }
    let metadata_only = options & GET_METADATA_ONLY != 0;
    Ok(NativeRequest::Get(GetItem { key, metadata_only, is_quiet: options & GET_QUIET != 0 }))
}

#[inline]
fn read_put(body: &[u8]) -> Result<NativeRequest<'_>, BodyError> {
    let (fixed, key, value) = split(body, 24)?;
    let version = u64_at(fixed, 16);
    let (code, demanded_bytes) = (u32_at(fixed, 0), u32_at(fixed, 12) as usize);
    if code != MODE_IF_VALUE && demanded_bytes != 0 {
        return Err(RESERVED);
    }
    let parts = value.split_at_checked(demanded_bytes);
    let (demanded, value) = parts.ok_or("the value that is demanded is longer than the body")?;
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
    Ok(NativeRequest::Put(PutItem { key, mode, client_flags, ttl, value }))
}

fn read_delete(body: &[u8]) -> Result<NativeRequest<'_>, BodyError> {
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
    Ok(NativeRequest::Delete(DeleteItem { key, condition }))
}

fn read_increment(body: &[u8]) -> Result<NativeRequest<'_>, BodyError> {
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
    Ok(NativeRequest::Increment(IncrementItem { key, is_decrement, delta, initial }))
}

fn read_touch(opcode: Opcode, body: &[u8]) -> Result<NativeRequest<'_>, BodyError> {
    let (fixed, key) = split_all(body, 8)?;
    if u32_at(fixed, 4) != 0 {
        return Err(RESERVED);
    }
    let with_value = opcode == Opcode::GetAndTouch;
    Ok(NativeRequest::Touch(TouchItem { key, ttl: u32_at(fixed, 0), with_value }))
}

fn read_hello(body: &[u8]) -> Result<NativeRequest<'_>, BodyError> {
    if body.len() < 8 {
        return Err(SHORT);
    }
    let name = &body[8..];
    if name.len() > HELLO_NAME_BYTES_MAX {
        return Err("a client's name has at most 64 bytes");
    }
    let name = std::str::from_utf8(name).map_err(|_| "a client's name is UTF-8")?;
    let (version_min, version_max) = (u16_at(body, 0), u16_at(body, 2));
    if u32_at(body, 4) != 0 {
        return Err(RESERVED);
    }
    if version_min > version_max {
        return Err("the lowest version is above the highest");
    }
    Ok(NativeRequest::Hello(ClientHello { version_min, version_max, name }))
}
