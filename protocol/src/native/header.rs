//! The header that every request and every reply begins with.

use super::{u32_at, u64_at};

/// The header's length in bytes.
pub const HEADER_BYTES: usize = 24;

/// The first byte of a request.
pub const MAGIC_REQUEST: u8 = 0xD1;

/// The first byte of a reply.
pub const MAGIC_REPLY: u8 = 0xD2;

/// The version that is spoken here.
pub const VERSION: u8 = 1;

/// Bytes of the header that a checksum covers; the checksum itself follows.
pub(super) const CHECKED_BYTES: usize = 20;

/// Whose a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client: the message is a request.
    Client,
    /// A node: it is a reply.
    Node,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Answer with the same bytes.
    Ping = 0x01,
    /// Say who is there and what it can do.
    Hello = 0x02,
    /// Tell the node's figures.
    Statistics = 0x03,
    /// Read an item.
    Get = 0x10,
    /// Store one.
    Put = 0x11,
    /// Delete one.
    Delete = 0x12,
    /// Change a number.
    Increment = 0x13,
    /// Give an item another expiry.
    Touch = 0x14,
    /// The same, and read it.
    GetAndTouch = 0x15,
    /// Read several items.
    MultiGet = 0x16,
    /// Read a page of a record's items.
    GetItems = 0x20,
    /// Read a page of a namespace's items.
    Scan = 0x21,
    /// Change items of a record together or not at all.
    MutateRecord = 0x22,
    /// Delete a range of a record's items.
    DeleteItems = 0x23,
    /// Make a namespace.
    CreateNamespace = 0x30,
    /// Change how one is.
    SetNamespace = 0x31,
    /// Show one or all.
    ListNamespaces = 0x32,
    /// Delete one with all that it has.
    DropNamespace = 0x33,
    /// Begin to store a large value.
    Stage = 0x40,
    /// Bring a chunk of it.
    PutChunk = 0x41,
    /// Store it.
    Commit = 0x42,
    /// Forget it.
    Abort = 0x43,
    /// Read a chunk of a large value.
    GetChunk = 0x44,
    /// Keep a shard's moment for pages.
    BeginLease = 0x50,
    /// Keep it no longer.
    EndLease = 0x51,
}

impl Opcode {
    /// Every opcode.
    pub const ALL: [Self; 25] = [
        Self::Ping,
        Self::Hello,
        Self::Statistics,
        Self::Get,
        Self::Put,
        Self::Delete,
        Self::Increment,
        Self::Touch,
        Self::GetAndTouch,
        Self::MultiGet,
        Self::GetItems,
        Self::Scan,
        Self::MutateRecord,
        Self::DeleteItems,
        Self::CreateNamespace,
        Self::SetNamespace,
        Self::ListNamespaces,
        Self::DropNamespace,
        Self::Stage,
        Self::PutChunk,
        Self::Commit,
        Self::Abort,
        Self::GetChunk,
        Self::BeginLease,
        Self::EndLease,
    ];

    /// The opcode of this byte.
    #[inline]
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x01 => Self::Ping,
            0x02 => Self::Hello,
            0x03 => Self::Statistics,
            0x10 => Self::Get,
            0x11 => Self::Put,
            0x12 => Self::Delete,
            0x13 => Self::Increment,
            0x14 => Self::Touch,
            0x15 => Self::GetAndTouch,
            0x16 => Self::MultiGet,
            0x20 => Self::GetItems,
            0x21 => Self::Scan,
            0x22 => Self::MutateRecord,
            0x23 => Self::DeleteItems,
            0x30 => Self::CreateNamespace,
            0x31 => Self::SetNamespace,
            0x32 => Self::ListNamespaces,
            0x33 => Self::DropNamespace,
            0x40 => Self::Stage,
            0x41 => Self::PutChunk,
            0x42 => Self::Commit,
            0x43 => Self::Abort,
            0x44 => Self::GetChunk,
            0x50 => Self::BeginLease,
            0x51 => Self::EndLease,
            _ => return None,
        })
    }
}

/// When the reply to a request is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestDurability {
    /// As the node says.
    #[default]
    AsNode = 0,
    /// When what it shows, or has changed, is durable.
    Sync = 1,
    /// If it changes something: as soon as that is done.
    None = 2,
}

/// A header. What its fourth byte and its fifth field mean depends on who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub side: Side,
    /// The opcode's byte; a reply has that of its request.
    pub opcode: u8,
    /// A request's flags, or a reply's status.
    pub code: u8,
    /// How long the body is, in bytes.
    pub body_bytes: u32,
    /// Chosen by the client; a reply has that of its request.
    pub id: u64,
    /// A request's deadline in microseconds, 0 for none; or a reply's details.
    pub details: u32,
    /// The checksum, or 0.
    pub checksum: u32,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// They begin with another byte: these are not the protocol's bytes.
    Magic(u8),
    /// A version whose header may be another.
    Version(u8),
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// If it is none of this version. The version's own field is the last that is looked at then.
    #[inline]
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let side = match bytes[0] {
            MAGIC_REQUEST => Side::Client,
            MAGIC_REPLY => Side::Node,
            other => return Err(HeaderError::Magic(other)),
        };
        if bytes[1] != VERSION {
            return Err(HeaderError::Version(bytes[1]));
        }
        Ok(Self {
            side,
            opcode: bytes[2],
            code: bytes[3],
            body_bytes: u32_at(bytes, 4),
            id: u64_at(bytes, 8),
            details: u32_at(bytes, 16),
            checksum: u32_at(bytes, 20),
        })
    }

    /// The header's bytes.
    #[inline]
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        self.write(&mut bytes);
        bytes
    }

    /// Writes the header's bytes in place. A copy made at once afterwards would read in wide loads
    /// what was just stored in narrow ones, which processors stall on.
    #[inline]
    pub fn write(&self, bytes: &mut [u8; HEADER_BYTES]) {
        bytes[0] = match self.side {
            Side::Client => MAGIC_REQUEST,
            Side::Node => MAGIC_REPLY,
        };
        bytes[1] = VERSION;
        bytes[2] = self.opcode;
        bytes[3] = self.code;
        bytes[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.details.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.checksum.to_le_bytes());
    }
}

/// The checksum of a header and its body: CRC32C of the header's first 20 bytes and the body.
pub(super) fn checksum(header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..CHECKED_BYTES]), body)
}
