//! Requests to bytes and bytes to replies, in the protocol that a client speaks.

use larder_protocol::native::reply::{NativeReply, ReplyError};
use larder_protocol::native::{
    ClientHello, NativeRequest, NativeStatus, RequestOptions, VERSION, put_request_as,
};

use super::breakage::Breakage;
use super::meta::{self, MetaReply};
use super::pipeline::ReplyTo;
use crate::connection::{Arrived, REPLY_BYTES_MAX, reason};
use crate::error::ClientError;

/// Where the id of a native request is in its bytes, and behind it the deadline.
const ID_AT: usize = 8;
const DEADLINE_AT: usize = 16;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// That of Larder's nodes.
    Native,
    /// memcached's meta protocol.
    Meta,
}

/// A request as bytes, but for its id, which each try gives it anew.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// The id goes into the header.
    Native(Vec<u8>),
    /// The id goes between both.
    Meta { opcode: u8, is_add: bool, head: Vec<u8>, tail: Vec<u8> },
}

impl Frame {
    /// Its opcode; a meta command has that of the native request that means the same.
    pub(crate) fn opcode(&self) -> u8 {
        match self {
            Self::Native(bytes) => bytes[2],
            Self::Meta { opcode, .. } => *opcode,
        }
    }

    /// What it means that memcached has not stored its value.
    pub(crate) fn not_stored(&self) -> NativeStatus {
        let is_add = matches!(self, Self::Meta { is_add: true, .. });
        if is_add { NativeStatus::Exists } else { NativeStatus::Absent }
    }

    /// About how long it is, in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Native(bytes) => bytes.len(),
            Self::Meta { head, tail, .. } => head.len() + tail.len() + meta::ID_BYTES_MAX,
        }
    }

    /// Appends the bytes of a try.
    pub(crate) fn put(&self, out: &mut Vec<u8>, id: u64, deadline_microseconds: u32) {
        match self {
            Self::Native(bytes) => {
                let start = out.len();
                out.extend_from_slice(bytes);
                let header = &mut out[start..];
                header[ID_AT..ID_AT + 8].copy_from_slice(&id.to_le_bytes());
                let deadline = deadline_microseconds.to_le_bytes();
                header[DEADLINE_AT..DEADLINE_AT + 4].copy_from_slice(&deadline);
            }
            Self::Meta { head, tail, .. } => {
                out.extend_from_slice(head);
                meta::put_id(out, id);
                out.extend_from_slice(tail);
            }
        }
    }
}

/// A reply before it is known which request it is for.
#[derive(Debug)]
pub(crate) enum RawReply {
    /// Of a node.
    Native { id: u64, arrived: Arrived, hops: u8 },
    /// Of a memcached.
    Meta(MetaReply),
}

impl RawReply {
    /// Which request it is for.
    pub(crate) fn to(&self) -> ReplyTo {
        match self {
            Self::Native { id, .. } => ReplyTo::Id(*id),
            Self::Meta(reply) => ReplyTo::Oldest(reply.id),
        }
    }

    /// How often the request went from one core of the node to another.
    pub(crate) fn hops(&self) -> u8 {
        match self {
            Self::Native { hops, .. } => *hops,
            Self::Meta(_) => 0,
        }
    }

    /// As the reply to the request that `frame` is.
    pub(crate) fn answer(self, frame: &Frame) -> Result<Arrived, Breakage> {
        match self {
            Self::Native { arrived, .. } if arrived.opcode == frame.opcode() => Ok(arrived),
            Self::Native { arrived, .. } => {
                let (opcode, other) = (frame.opcode(), arrived.opcode);
                let text = format!("a request of opcode {opcode:#04x} is answered as {other:#04x}");
                Err(Breakage::Foreign(text))
            }
            Self::Meta(reply) => reply.answer(frame),
        }
    }
}

impl Wire {
    /// Whether replies come in the order of their requests.
    pub(crate) fn is_in_order(self) -> bool {
        self == Self::Meta
    }

    /// A request as bytes, which is sent so; in this room, where it does.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the protocol has no such request.
    pub(crate) fn frame(
        self,
        request: &NativeRequest<'_>,
        options: &RequestOptions,
        mut bytes: Vec<u8>,
    ) -> Result<Frame, ClientError> {
        match self {
            Self::Native => {
                bytes.clear();
                bytes.reserve(128 + request.value_bytes());
                put_request_as(&mut bytes, 0, options, request);
                Ok(Frame::Native(bytes))
            }
            Self::Meta if *options != RequestOptions::default() => Err(ClientError::Usage(
                "memcached knows neither names of changes nor durability by request; both need \
                 the native port of a Larder node"
                    .to_owned(),
            )),
            Self::Meta => meta::frame(request),
        }
    }

    /// The first request of a connection, by whose answer a peer is known.
    pub(crate) fn greeting(self, name: &str) -> Frame {
        let (version_min, version_max) = (u16::from(VERSION), u16::from(VERSION));
        let hello = NativeRequest::Hello(ClientHello { version_min, version_max, name });
        let request = if self == Self::Native { hello } else { NativeRequest::Ping(b"") };
        self.frame(&request, &RequestOptions::default(), Vec::new())
            .expect("both protocols have it")
    }

    /// The reply at the front of `input`, and how long it is; `Err(Ok(n))` if there have to be `n`
    /// bytes before another try can say more.
    pub(crate) fn reply(self, input: &[u8]) -> Result<(RawReply, usize), Result<usize, Breakage>> {
        match self {
            Self::Native => native_reply(input),
            Self::Meta => {
                let (reply, length) = meta::reply(input)?;
                Ok((RawReply::Meta(reply), length))
            }
        }
    }
}

fn native_reply(input: &[u8]) -> Result<(RawReply, usize), Result<usize, Breakage>> {
    let foreign = |error: ReplyError| Breakage::Foreign(reason(error));
    let read = NativeReply::read(input, REPLY_BYTES_MAX);
    let (reply, length) = read.map_err(|error| error.map_err(foreign))?;
    if reply.head.id == 0 {
        // So a node says what concerns the connection, before it closes it.
        let text = reply.reason();
        return Err(Err(match reply.status {
            Some(NativeStatus::Busy) => Breakage::TurnedAway(text),
            _ => Breakage::Foreign(text),
        }));
    }
    let (opcode, status, body) = (reply.head.opcode, reply.status, reply.body.to_vec());
    let arrived = Arrived { opcode, status, body };
    Ok((RawReply::Native { id: reply.head.id, arrived, hops: reply.head.hops }, length))
}
