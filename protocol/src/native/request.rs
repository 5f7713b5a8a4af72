//! What a client asks for. Requests are small, `Copy`, and borrow their bytes from the input.

use super::header::{HEADER_BYTES, checksum};
use super::item::{DeleteItem, GetItem, IncrementItem, ItemKey, PutItem, TouchItem};
use super::large::LargeItem;
use super::lease::{self, BeginLease};
use super::multi::MultiGet;
use super::mutate::{DeleteItems, MutateRecord};
use super::namespaces::{self, NamespaceChange};
use super::page::{GetItems, ScanItems};
use super::parse::flags;
use super::{
    HELLO_NAME_BYTES_MAX, Header, IdempotencyToken, Opcode, PING_BYTES_MAX, ReceivedToken,
    RequestDurability, Side, u16_at, u32_at,
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

/// Why a body is not that of its opcode.
pub(super) type BodyError = &'static str;

pub(super) const SHORT: BodyError = "the body is shorter than the opcode's fixed part";
pub(super) const RESERVED: BodyError = "reserved bytes must be 0";

impl<'a> NativeRequest<'a> {
    /// Reads the body of a request with this opcode.
    #[inline(always)]
    pub(super) fn read(opcode: Opcode, body: &'a [u8]) -> Result<Self, BodyError> {
        match opcode {
            Opcode::Get => GetItem::read(body).map(Self::Get),
            Opcode::Put => PutItem::read(body).map(Self::Put),
            Opcode::Delete => DeleteItem::read(body).map(Self::Delete),
            Opcode::Increment => IncrementItem::read(body).map(Self::Increment),
            Opcode::Touch | Opcode::GetAndTouch => TouchItem::read(opcode, body).map(Self::Touch),
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
            Self::Get(get) => get.put_body(out),
            Self::Put(put) => put.put_body(out),
            Self::Delete(delete) => delete.put_body(out),
            Self::Increment(increment) => increment.put_body(out),
            Self::Touch(touch) => touch.put_body(out),
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

fn put_hello(hello: &ClientHello<'_>, out: &mut Vec<u8>) {
    let ClientHello { version_min, version_max, name } = *hello;
    assert!(name.len() <= HELLO_NAME_BYTES_MAX, "a client's name is at most 64 bytes");
    out.extend_from_slice(&version_min.to_le_bytes());
    out.extend_from_slice(&version_max.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(name.as_bytes());
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
