//! Bytes to requests.

use super::opcode::{Lengths, Verb};
use super::request::{u32_at, u64_at};
use super::{BINARY_HEADER_BYTES, BINARY_MAGIC, BinaryHead, BinaryRequest, BinaryStatus};
use crate::memcached::{Limits, VALUE_BYTES_MAX};

/// The answer to a message that is no request, or one that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryRefusal<'a> {
    /// What of the message's header its answer needs.
    pub head: BinaryHead,
    /// Why. Its text is the answer's.
    pub status: BinaryStatus,
    /// The key whose item is to be dropped, because a newer value for it was refused.
    pub drop_key: Option<&'a [u8]>,
    /// Whether nothing behind the message can be understood: the connection closes.
    pub is_last: bool,
}

/// What bytes can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryParsed<'a> {
    /// Not a whole message yet.
    NeedMore {
        /// How long the input must be, after what is consumed is removed from it, before another
        /// look is of use.
        bytes: usize,
    },
    /// A request.
    Request(BinaryHead, BinaryRequest<'a>),
    /// Not one. Answer as it says, however quiet.
    Refused(BinaryRefusal<'a>),
    /// Not this protocol. Send the answers to earlier requests, nothing for this, and close.
    Close,
}

/// What one look at the input gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryStep<'a> {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// What they were.
    pub parsed: BinaryParsed<'a>,
}

/// The parser of one connection.
#[derive(Clone, Debug, Default)]
pub struct BinaryParser {
    /// Bytes of a body that are passed over.
    skipped: usize,
    is_closed: bool,
}

impl BinaryParser {
    /// Looks at the front of `input`. What follows is what the same bytes would give in one piece.
    #[inline]
    pub fn next<'a>(&mut self, limits: &Limits, input: &'a [u8]) -> BinaryStep<'a> {
        if self.is_closed {
            return BinaryStep { consumed: input.len(), parsed: BinaryParsed::Close };
        }
        let passed = self.skipped.min(input.len());
        self.skipped -= passed;
        let rest = &input[passed..];
        if rest.is_empty() {
            let parsed = BinaryParsed::NeedMore { bytes: 1 };
            return BinaryStep { consumed: passed, parsed };
        }
        let step = self.message(limits, rest);
        BinaryStep { consumed: passed + step.consumed, ..step }
    }

    #[inline]
    fn message<'a>(&mut self, limits: &Limits, input: &'a [u8]) -> BinaryStep<'a> {
        // What is no request is not waited for.
        if input[0] != BINARY_MAGIC {
            self.is_closed = true;
            return BinaryStep { consumed: 0, parsed: BinaryParsed::Close };
        }
        let need = |bytes| BinaryStep { consumed: 0, parsed: BinaryParsed::NeedMore { bytes } };
        let Some(header) = input.first_chunk::<BINARY_HEADER_BYTES>() else {
            return need(BINARY_HEADER_BYTES);
        };
        let (opcode, body_bytes) = (header[1], u32_at(header, 8) as usize);
        let (key, extras) = (usize::from(u16::from_be_bytes([header[2], header[3]])), header[4]);
        let extras = usize::from(extras);
        let opaque = [header[12], header[13], header[14], header[15]];
        let verb = Verb::from_opcode(opcode);
        let is_quiet = verb.is_some_and(|(_, is_quiet)| is_quiet);
        let head = BinaryHead { opcode, opaque, is_quiet };
        let Some(value) = body_bytes.checked_sub(key + extras) else {
            return self.refuse_and_close(head, BinaryStatus::Unknown);
        };
        if key > limits.key_bytes() {
            return self.refuse_and_close(head, BinaryStatus::Invalid);
        }
        let Some((verb, _)) = verb else {
            self.skipped = body_bytes;
            return refuse(BINARY_HEADER_BYTES, head, BinaryStatus::Unknown, None);
        };
        if !verb.allows(Lengths { extras, key, value }) {
            return self.refuse_and_close(head, BinaryStatus::Invalid);
        }
        let value_start = BINARY_HEADER_BYTES + extras + key;
        if input.len() < value_start {
            return need(value_start);
        }
        let extras = &input[BINARY_HEADER_BYTES..BINARY_HEADER_BYTES + extras];
        let key = &input[value_start - key..value_start];
        if value > VALUE_BYTES_MAX || !limits.item_fits(key.len(), value) {
            self.skipped = value;
            let drop_key = (verb == Verb::Set).then_some(key);
            return refuse(value_start, head, BinaryStatus::TooLarge, drop_key);
        }
        let end = value_start + value;
        let Some(value) = input.get(value_start..end) else { return need(end) };
        let request = BinaryRequest::read(verb, u64_at(header, 16), (extras, key, value));
        BinaryStep { consumed: end, parsed: BinaryParsed::Request(head, request) }
    }

    fn refuse_and_close<'a>(&mut self, head: BinaryHead, status: BinaryStatus) -> BinaryStep<'a> {
        self.is_closed = true;
        let refusal = BinaryRefusal { head, status, drop_key: None, is_last: true };
        BinaryStep { consumed: BINARY_HEADER_BYTES, parsed: BinaryParsed::Refused(refusal) }
    }
}

fn refuse<'a>(
    consumed: usize,
    head: BinaryHead,
    status: BinaryStatus,
    drop_key: Option<&'a [u8]>,
) -> BinaryStep<'a> {
    let refusal = BinaryRefusal { head, status, drop_key, is_last: false };
    BinaryStep { consumed, parsed: BinaryParsed::Refused(refusal) }
}
