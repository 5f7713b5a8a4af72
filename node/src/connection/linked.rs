//! Replies around values that are not copied.

use std::borrow::Cow;

use larder_engine::shard::AnswerBuf;
use larder_protocol::sink::ReplySink;
use larder_runtime::output_queue::{LINK_BYTES_MIN, OutputQueue};

use crate::canary::{self, NodeDefect};
use crate::codec::Codec;
use crate::request::CarriedAnswer;

/// What a reply is written to whose value is linked: all but the value.
struct AroundValue<'a> {
    bytes: &'a mut Vec<u8>,
    value: &'a [u8],
    /// Where the value belongs, if the reply shows it.
    at: Option<usize>,
}

impl ReplySink for AroundValue<'_> {
    fn bytes(&mut self) -> &mut Vec<u8> {
        self.bytes
    }

    fn make_room(&mut self, around: usize, _: usize) {
        self.bytes.reserve(around);
    }

    fn put_value(&mut self, value: &[u8]) {
        if std::ptr::eq(value, self.value) {
            self.at = Some(self.bytes.len());
        } else {
            self.bytes.extend_from_slice(value);
        }
    }
}

/// [`put_carried`] for an answer that has waited with its value.
pub(super) fn put_brought<P: Codec>(
    protocol: &P,
    token: &P::Token,
    answer: AnswerBuf,
    at: (u32, u8),
    out: &mut OutputQueue,
) {
    let (answer, value) = answer.into_parts();
    put_carried(protocol, token, CarriedAnswer { answer: &answer, value: value.into() }, at, out);
}

/// Appends the reply to a message that has waited, as [`Codec::put_waited`] does. A large value
/// that came with the answer is linked instead of copied.
pub(super) fn put_carried<P: Codec>(
    protocol: &P,
    token: &P::Token,
    CarriedAnswer { answer, value }: CarriedAnswer<'_>,
    at: (u32, u8),
    out: &mut OutputQueue,
) {
    let value = match value {
        Cow::Owned(mut value) if value.len() >= LINK_BYTES_MIN => {
            if canary::has(NodeDefect::FreeBeforeSent) {
                // Somebody else has written to it by now.
                value.fill(0xDD);
            }
            value
        }
        value => {
            return protocol.put_waited(token, Ok(&answer.with_value(&value)), at, out.bytes());
        }
    };
    let mut sink = AroundValue { bytes: out.bytes(), value: &value, at: None };
    protocol.put_waited(token, Ok(&answer.with_value(&value)), at, &mut sink);
    if let Some(place) = sink.at {
        out.link_at(place, value);
    }
}
