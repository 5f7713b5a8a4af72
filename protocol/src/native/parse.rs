//! Bytes to requests.

use super::header::{HEADER_BYTES, HeaderError, checksum};
use super::request::{NativeRequest, RequestHead, RequestOptions};
use super::{
    BODY_BESIDES_VALUE_BYTES, Header, MAGIC_REQUEST, NativeStatus, Opcode, ReceivedToken,
    RequestDurability,
};

/// The limits that a node sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeLimits {
    /// The longest value, in bytes.
    pub value_bytes_max: usize,
}

impl NativeLimits {
    /// The longest body, in bytes. A longer one is not kept but passed over.
    pub fn body_bytes_max(&self) -> usize {
        self.value_bytes_max.saturating_add(BODY_BESIDES_VALUE_BYTES)
    }
}

/// The request's flag that says that a checksum covers it; its reply gets one too.
pub(super) const FLAG_CHECKSUM: u8 = 1;

/// The bits of the flags that say how durable the request wants to be.
const DURABILITY_SHIFT: u8 = 1;
const DURABILITY_BITS: u8 = 3 << DURABILITY_SHIFT;

/// The request's flag that says that an idempotency token stands before its body.
const FLAG_TOKEN: u8 = 8;

/// Flags that a node must understand. The others may be ignored.
const FLAGS_TO_UNDERSTAND: u8 = 0x0F;

/// The flags of a request.
pub(super) fn flags(options: &RequestOptions) -> u8 {
    let checksum = if options.has_checksum { FLAG_CHECKSUM } else { 0 };
    let token = if options.token.is_some() { FLAG_TOKEN } else { 0 };
    checksum | ((options.durability as u8) << DURABILITY_SHIFT) | token
}

/// What flags say of durability; `None` if it is not known here.
#[inline]
fn durability_of(flags: u8) -> Option<RequestDurability> {
    match (flags & DURABILITY_BITS) >> DURABILITY_SHIFT {
        0 => Some(RequestDurability::AsNode),
        1 => Some(RequestDurability::Sync),
        2 => Some(RequestDurability::None),
        _ => None,
    }
}

/// The answer to a message that is not a request of this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The request's id.
    pub id: u64,
    /// The opcode's byte.
    pub opcode: u8,
    /// Whether the reply has a checksum.
    pub has_checksum: bool,
    /// Why.
    pub status: NativeStatus,
    /// What was wrong, for people.
    pub reason: &'static str,
    /// Whether nothing behind the message can be understood.
    pub is_last: bool,
}

/// What bytes can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeParsed<'a> {
    /// Not a whole message yet.
    NeedMore {
        /// How long the input must be, after what is consumed is removed from it, before another
        /// look is of use.
        bytes: usize,
    },
    /// A request.
    Request(RequestHead, NativeRequest<'a>),
    /// Not one. Answer as it says.
    Refused(Refusal),
    /// Not this protocol. Send the answers to earlier requests, nothing for this, and close.
    Close,
}

/// What one look at the input gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeStep<'a> {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// What they were.
    pub parsed: NativeParsed<'a>,
}

/// The parser of one connection.
#[derive(Clone, Debug, Default)]
pub struct NativeParser {
    /// Bytes of a body that are passed over.
    skipped: usize,
    is_closed: bool,
}

impl NativeParser {
    /// Looks at the front of `input`. What follows is what the same bytes would give in one piece.
    #[inline]
    pub fn next<'a>(&mut self, limits: &NativeLimits, input: &'a [u8]) -> NativeStep<'a> {
        if self.is_closed {
            return NativeStep { consumed: input.len(), parsed: NativeParsed::Close };
        }
        if self.skipped > 0 {
            let passed = self.skipped.min(input.len());
            self.skipped -= passed;
            let rest = &input[passed..];
            if rest.is_empty() {
                return NativeStep {
                    consumed: passed,
                    parsed: NativeParsed::NeedMore { bytes: 1 },
                };
            }
            let step = self.next(limits, rest);
            return NativeStep { consumed: passed + step.consumed, ..step };
        }
        // What is no request is not waited for.
        if input.first().is_some_and(|&first| first != MAGIC_REQUEST) {
            return self.close();
        }
        let Some(bytes) = input.first_chunk::<HEADER_BYTES>() else {
            let parsed = NativeParsed::NeedMore { bytes: HEADER_BYTES };
            return NativeStep { consumed: 0, parsed };
        };
        match Header::read(bytes) {
            Ok(header) => self.message(limits, &header, input),
            Err(HeaderError::Magic(_)) => self.close(),
            Err(HeaderError::Version(_)) => self.other_version(bytes),
        }
    }

    fn close<'a>(&mut self) -> NativeStep<'a> {
        self.is_closed = true;
        NativeStep { consumed: 0, parsed: NativeParsed::Close }
    }

    /// The places of id and opcode are the same in every version; where the body ends is not known.
    fn other_version<'a>(&mut self, bytes: &[u8; HEADER_BYTES]) -> NativeStep<'a> {
        self.is_closed = true;
        let status = NativeStatus::UnsupportedVersion;
        let parsed = NativeParsed::Refused(Refusal {
            id: super::u64_at(bytes, 8),
            opcode: bytes[2],
            has_checksum: false,
            status,
            reason: "this node speaks version 1",
            is_last: true,
        });
        NativeStep { consumed: HEADER_BYTES, parsed }
    }

    #[inline]
    fn message<'a>(
        &mut self,
        limits: &NativeLimits,
        header: &Header,
        input: &'a [u8],
    ) -> NativeStep<'a> {
        let body_bytes = header.body_bytes as usize;
        if body_bytes > limits.body_bytes_max() {
            self.skipped = body_bytes;
            let reason = "the body is longer than the node takes; --max-item-size is the limit";
            let parsed = NativeParsed::Refused(refusal(header, NativeStatus::TooLarge, reason));
            return NativeStep { consumed: HEADER_BYTES, parsed };
        }
        let end = HEADER_BYTES + body_bytes;
        let Some(body) = input.get(HEADER_BYTES..end) else {
            return NativeStep { consumed: 0, parsed: NativeParsed::NeedMore { bytes: end } };
        };
        let has_checksum = header.code & FLAG_CHECKSUM != 0;
        let expected = if has_checksum { checksum(input, body) } else { 0 };
        if header.checksum != expected {
            // Not even the length is to be trusted.
            self.is_closed = true;
            let status = NativeStatus::BadChecksum;
            let refusal = Refusal { is_last: true, ..refusal(header, status, status.text()) };
            return NativeStep { consumed: end, parsed: NativeParsed::Refused(refusal) };
        }
        // Reads are by far the most. Through the match of all opcodes what they say would be stored
        // and read back several times.
        let parsed = match Opcode::from_code(header.opcode) {
            Some(Opcode::Get) => parsed_of(limits, header, Some(Opcode::Get), body),
            opcode => parsed_of_any(limits, header, opcode, body),
        };
        NativeStep { consumed: end, parsed }
    }
}

/// [`parsed_of`] for any opcode.
fn parsed_of_any<'a>(
    limits: &NativeLimits,
    header: &Header,
    opcode: Option<Opcode>,
    body: &'a [u8],
) -> NativeParsed<'a> {
    parsed_of(limits, header, opcode, body)
}

/// What a whole message is, whose checksum is right.
#[inline(always)]
fn parsed_of<'a>(
    limits: &NativeLimits,
    header: &Header,
    opcode: Option<Opcode>,
    body: &'a [u8],
) -> NativeParsed<'a> {
    match body_of(header, opcode, body) {
        Err((status, reason)) => NativeParsed::Refused(refusal(header, status, reason)),
        Ok((_, request)) if request.value_bytes() > limits.value_bytes_max => {
            let status = NativeStatus::TooLarge;
            NativeParsed::Refused(refusal(header, status, status.text()))
        }
        Ok((head, request)) => NativeParsed::Request(head, request),
    }
}

/// A refusal of a message behind which others can be understood.
fn refusal(header: &Header, status: NativeStatus, reason: &'static str) -> Refusal {
    Refusal {
        id: header.id,
        opcode: header.opcode,
        has_checksum: header.code & FLAG_CHECKSUM != 0,
        status,
        reason,
        is_last: false,
    }
}

/// What a whole message says.
#[inline(always)]
fn body_of<'a>(
    header: &Header,
    opcode: Option<Opcode>,
    body: &'a [u8],
) -> Result<(RequestHead, NativeRequest<'a>), (NativeStatus, &'static str)> {
    const KNOWN_FLAGS: u8 = FLAG_CHECKSUM | DURABILITY_BITS | FLAG_TOKEN;
    let unknown = header.code & FLAGS_TO_UNDERSTAND & !KNOWN_FLAGS;
    let Some(durability) = durability_of(header.code).filter(|_| unknown == 0) else {
        return Err((NativeStatus::UnknownFlag, NativeStatus::UnknownFlag.text()));
    };
    let Some(opcode) = opcode else {
        return Err((NativeStatus::UnknownOpcode, NativeStatus::UnknownOpcode.text()));
    };
    let malformed = |reason| (NativeStatus::Malformed, reason);
    let (token, body) = if header.code & FLAG_TOKEN == 0 {
        (None, body)
    } else {
        let (token, body) = ReceivedToken::split(opcode, body).map_err(malformed)?;
        (Some(token), body)
    };
    let head = RequestHead {
        id: header.id,
        opcode,
        deadline_microseconds: header.details,
        has_checksum: header.code & FLAG_CHECKSUM != 0,
        durability,
        token,
    };
    Ok((head, NativeRequest::read(opcode, body).map_err(malformed)?))
}
