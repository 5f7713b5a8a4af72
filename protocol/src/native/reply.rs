//! Answers to bytes, and back.

use super::header::{CHECKED_BYTES, HEADER_BYTES, checksum};
use super::multi::{MultiEntry, take_entry};
use super::mutate::CHANGED_BYTES;
use super::{
    Header, LargeHead, NativeLease, NativePage, NativePageItem, NativeStatus, Side, u32_at, u64_at,
};
use crate::sink::ReplySink;

/// What of a request its reply repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// The request's id.
    pub id: u64,
    /// The opcode's byte.
    pub opcode: u8,
    /// Whether it has a checksum.
    pub has_checksum: bool,
    /// How often the request has gone from one core to another.
    pub hops: u8,
}

/// The bit of a reply's details that says that a checksum covers it.
const DETAIL_CHECKSUM: u32 = 1 << 8;

/// Bytes of an item's metadata before its value.
pub(super) const ITEM_BYTES: usize = 24;

/// An item, as a reply shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeItem<'a> {
    /// Its version.
    pub version: u64,
    /// The client's own bits.
    pub client_flags: u32,
    /// Unix second at which it is gone; 0 for never.
    pub expiry: u32,
    /// How long its value is, in bytes, also where that is left out.
    pub value_len: u32,
    /// Its value.
    pub value: &'a [u8],
}

/// Appends a reply with this status, whose body `put` appends.
#[inline]
pub fn put(
    out: &mut Vec<u8>,
    head: ReplyHead,
    status: NativeStatus,
    put_body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    put_body(out);
    let body_bytes = out.len() - start - HEADER_BYTES;
    let mut header = header_of(head, status, body_bytes);
    let message = &mut out[start..];
    message[..HEADER_BYTES].copy_from_slice(&header.bytes());
    if head.has_checksum {
        let (head, body) = message.split_at(HEADER_BYTES);
        header.checksum = checksum(head, body);
        message[..HEADER_BYTES].copy_from_slice(&header.bytes());
    }
}

/// The header of a reply, without its checksum.
#[inline]
fn header_of(head: ReplyHead, status: NativeStatus, body_bytes: usize) -> Header {
    Header {
        side: Side::Node,
        opcode: head.opcode,
        code: status as u8,
        body_bytes: u32::try_from(body_bytes).expect("bodies have less than 4 GiB"),
        id: head.id,
        details: u32::from(head.hops) + u32::from(head.has_checksum) * DETAIL_CHECKSUM,
        checksum: 0,
    }
}

/// Appends a reply that says what went wrong, for programs and for people.
pub fn put_error(out: &mut Vec<u8>, head: ReplyHead, status: NativeStatus, reason: &str) {
    put(out, head, status, |out| out.extend_from_slice(reason.as_bytes()));
}

/// Appends a reply that shows an item.
#[inline]
pub fn put_item<S: ReplySink>(out: &mut S, head: ReplyHead, item: &NativeItem<'_>) {
    const FRONT_BYTES: usize = HEADER_BYTES + ITEM_BYTES;
    let body_bytes = ITEM_BYTES + item.value.len();
    let mut header = header_of(head, NativeStatus::Ok, body_bytes);
    out.make_room(FRONT_BYTES, item.value.len());
    let bytes = out.bytes();
    let start = bytes.len();
    bytes.resize(start + FRONT_BYTES, 0);
    let (of_header, rest) = bytes[start..].split_first_chunk_mut().expect("it was resized");
    header.write(of_header);
    let of_item = rest.first_chunk_mut().expect("it was resized");
    write_item_head(item, of_item);
    if head.has_checksum {
        let checked = checksum(of_header, of_item);
        header.checksum = crc32c::crc32c_append(checked, item.value);
        header.write(of_header);
    }
    out.put_value(item.value);
}

/// Appends a reply that shows an item with a large value, for which `stands` stands.
pub fn put_large(out: &mut Vec<u8>, head: ReplyHead, item: &NativeItem<'_>, stands: &[u8]) {
    put(out, head, NativeStatus::Large, |out| {
        out.extend_from_slice(&item_head(item));
        out.extend_from_slice(stands);
    });
}

/// An item's metadata before its value.
#[inline]
pub(super) fn item_head(item: &NativeItem<'_>) -> [u8; ITEM_BYTES] {
    let mut head = [0; ITEM_BYTES];
    write_item_head(item, &mut head);
    head
}

/// Writes it where it goes; see [`Header::write`].
#[inline]
fn write_item_head(item: &NativeItem<'_>, head: &mut [u8; ITEM_BYTES]) {
    head[0..8].copy_from_slice(&item.version.to_le_bytes());
    head[8..12].copy_from_slice(&item.client_flags.to_le_bytes());
    head[12..16].copy_from_slice(&item.expiry.to_le_bytes());
    head[16..20].copy_from_slice(&item.value_len.to_le_bytes());
}

/// The item that these bytes are.
pub(super) fn read_item(bytes: &[u8]) -> Result<NativeItem<'_>, ReplyError> {
    let (fixed, value) = bytes.split_at_checked(ITEM_BYTES).ok_or(ReplyError::Body)?;
    let value_len = u32_at(fixed, 16);
    if !value.is_empty() && value.len() != value_len as usize {
        return Err(ReplyError::Body);
    }
    Ok(NativeItem {
        version: u64_at(fixed, 0),
        client_flags: u32_at(fixed, 8),
        expiry: u32_at(fixed, 12),
        value_len,
        value,
    })
}

/// Appends a reply that shows the version that a change has made.
pub fn put_version(out: &mut Vec<u8>, head: ReplyHead, version: u64) {
    put(out, head, NativeStatus::Ok, |out| out.extend_from_slice(&version.to_le_bytes()));
}

/// Appends a reply that shows a number and the version that it has now.
pub fn put_number(out: &mut Vec<u8>, head: ReplyHead, number: u64, version: u64) {
    put(out, head, NativeStatus::Ok, |out| {
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&version.to_le_bytes());
    });
}

/// Appends a reply that shows what changes of a record have made.
pub fn put_changed(
    out: &mut Vec<u8>,
    head: ReplyHead,
    changed: impl ExactSizeIterator<Item = Changed>,
) {
    put(out, head, NativeStatus::Ok, |out| {
        out.reserve(changed.len() * CHANGED_BYTES);
        for Changed { version, number } in changed {
            out.extend_from_slice(&version.to_le_bytes());
            out.extend_from_slice(&number.to_le_bytes());
        }
    });
}

/// Appends a reply that says which change of a record was refused, and with it all others.
pub fn put_refused_change(out: &mut Vec<u8>, head: ReplyHead, status: NativeStatus, at: usize) {
    let at = u32::try_from(at).unwrap_or(u32::MAX);
    put(out, head, status, |out| out.extend_from_slice(&at.to_le_bytes()));
}

/// What a change of a record has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The version that the item has now; 0 if the change was to delete it.
    pub version: u64,
    /// What a number has become; 0 for other changes.
    pub number: u64,
}

/// Appends a reply that shows items, whose keys and values have about `bytes`, and the token of the
/// next page if there is one; and says whether something was left out that cannot be read.
pub fn put_page<'i>(
    out: &mut Vec<u8>,
    head: ReplyHead,
    items: impl ExactSizeIterator<Item = NativePageItem<'i>>,
    bytes: usize,
    (next, is_damaged): (Option<&[u8]>, bool),
) {
    put(out, head, NativeStatus::Ok, |out| NativePage::put(items, bytes, (next, is_damaged), out));
}

/// Appends a reply that gives a lease.
pub fn put_lease(out: &mut Vec<u8>, head: ReplyHead, lease: &NativeLease) {
    put(out, head, NativeStatus::Ok, |out| lease.put_body(out));
}

/// What a reply is told apart by.
///
/// # Panics
/// If the bytes are no reply that this module has written.
pub fn head_of(reply: &[u8]) -> ReplyHead {
    let header = reply.first_chunk().map(Header::read);
    let Some(Ok(header)) = header else { panic!("a reply begins with its header") };
    let has_checksum = header.details & DETAIL_CHECKSUM != 0;
    ReplyHead { id: header.id, opcode: header.opcode, has_checksum, hops: header.details as u8 }
}

/// A reply as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeReply<'a> {
    /// What it repeats of its request.
    pub head: ReplyHead,
    /// How the request has ended; `None` for a status that is not known here.
    pub status: Option<NativeStatus>,
    /// The body.
    pub body: &'a [u8],
}

/// Why bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// They are not this protocol's, or of a version that is not spoken here.
    Foreign,
    /// The body is longer than the client takes.
    TooLong(u32),
    /// The checksum is not theirs.
    Checksum,
    /// The body is not that of the opcode.
    Body,
}

impl<'a> NativeReply<'a> {
    /// Reads the reply at the front of `input`, and how long it is; `Err(Ok(n))` if there have to
    /// be `n` bytes before another try can say more. Bodies over `body_bytes_max` are refused.
    ///
    /// # Errors
    /// If the bytes are no reply.
    pub fn read(
        input: &'a [u8],
        body_bytes_max: u32,
    ) -> Result<(Self, usize), Result<usize, ReplyError>> {
        let Some(bytes) = input.first_chunk::<HEADER_BYTES>() else {
            return Err(Ok(HEADER_BYTES));
        };
        let header = Header::read(bytes).map_err(|_| Err(ReplyError::Foreign))?;
        if header.side != Side::Node {
            return Err(Err(ReplyError::Foreign));
        }
        if header.body_bytes > body_bytes_max {
            return Err(Err(ReplyError::TooLong(header.body_bytes)));
        }
        let end = HEADER_BYTES + header.body_bytes as usize;
        let body = input.get(HEADER_BYTES..end).ok_or(Ok(end))?;
        let has_checksum = header.details & DETAIL_CHECKSUM != 0;
        if has_checksum && header.checksum != checksum(&bytes[..CHECKED_BYTES], body) {
            return Err(Err(ReplyError::Checksum));
        }
        let status = NativeStatus::from_code(header.code);
        Ok((Self { head: head_of(bytes), status, body }, end))
    }

    /// What the changes of a record have made, in their order.
    ///
    /// # Errors
    /// If the body is no such list.
    pub fn changed(&self) -> Result<Vec<Changed>, ReplyError> {
        let (changes, rest) = self.body.as_chunks::<CHANGED_BYTES>();
        if !rest.is_empty() {
            return Err(ReplyError::Body);
        }
        let changed = |bytes: &[u8; CHANGED_BYTES]| Changed {
            version: u64_at(bytes, 0),
            number: u64_at(bytes, 8),
        };
        Ok(changes.iter().map(changed).collect())
    }

    /// Which change of a record was refused.
    ///
    /// # Errors
    /// If the body does not say it.
    pub fn refused_change(&self) -> Result<usize, ReplyError> {
        let at: &[u8; 4] = self.body.try_into().map_err(|_| ReplyError::Body)?;
        Ok(u32_at(at, 0) as usize)
    }

    /// The item that the reply shows.
    ///
    /// # Errors
    /// If the body is no item.
    pub fn item(&self) -> Result<NativeItem<'a>, ReplyError> {
        read_item(self.body)
    }

    /// The item that the reply shows, without its value, and what stands for that, which is large.
    ///
    /// # Errors
    /// If the body shows no such item.
    pub fn large(&self) -> Result<(NativeItem<'a>, LargeHead), ReplyError> {
        let (fixed, stands) = self.body.split_at_checked(ITEM_BYTES).ok_or(ReplyError::Body)?;
        let (item, large) = (read_item(fixed)?, LargeHead::read(stands).ok_or(ReplyError::Body)?);
        if item.value_len == large.len { Ok((item, large)) } else { Err(ReplyError::Body) }
    }

    /// The large value of which chunks may come now.
    ///
    /// # Errors
    /// If the body stands for none.
    pub fn staged(&self) -> Result<LargeHead, ReplyError> {
        LargeHead::read(self.body).ok_or(ReplyError::Body)
    }

    /// The entries of the reply to a read of `count` items.
    ///
    /// # Errors
    /// If the body is none.
    pub fn multi(&self, count: usize) -> Result<Vec<MultiEntry<'a>>, ReplyError> {
        let mut rest = self.body;
        let entries = (0..count).map(|_| take_entry(&mut rest)).collect::<Result<_, _>>()?;
        if rest.is_empty() { Ok(entries) } else { Err(ReplyError::Body) }
    }

    /// The version that a change has made.
    ///
    /// # Errors
    /// If the body is none.
    pub fn version(&self) -> Result<u64, ReplyError> {
        if self.body.len() == 8 { Ok(u64_at(self.body, 0)) } else { Err(ReplyError::Body) }
    }

    /// A number and its version.
    ///
    /// # Errors
    /// If the body is none.
    pub fn number(&self) -> Result<(u64, u64), ReplyError> {
        let is_number = self.body.len() == 16;
        is_number.then(|| (u64_at(self.body, 0), u64_at(self.body, 8))).ok_or(ReplyError::Body)
    }

    /// The lease that was given.
    ///
    /// # Errors
    /// If the body is none.
    pub fn lease(&self) -> Result<NativeLease, ReplyError> {
        NativeLease::read(self.body)
    }

    /// What went wrong, for people.
    pub fn reason(&self) -> String {
        String::from_utf8_lossy(self.body).into_owned()
    }
}
