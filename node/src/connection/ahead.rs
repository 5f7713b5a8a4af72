//! Messages that are cut before the one in front of them is carried out.
//!
//! Knowing the next keys early lets the shard bring their items near while it still works on
//! others: a pipelined read of a value in RAM then costs a fraction of its cache misses.

use super::Handler;
use crate::codec::{Codec, Extent};
use crate::request::Target;

/// How many messages are cut ahead. More would push each other's lines out of the nearest cache.
const AHEAD_MAX: usize = 16;

/// One message, and the protocol as it was before it.
pub(super) struct One<'a, P: Codec> {
    pub(super) before: P::Mark,
    pub(super) message: P::Message<'a>,
    /// Where it goes, if it was announced.
    pub(super) target: Option<Target>,
}

/// What the front of the input holds, up to [`AHEAD_MAX`] messages.
pub(super) struct Ahead<'a, P: Codec> {
    ones: [Option<One<'a, P>>; AHEAD_MAX],
    len: usize,
}

impl<'a, P: Codec> Ahead<'a, P> {
    /// Cuts the front of `input`, which is not empty. The last of what is found may be that more
    /// input is needed, or that the connection ends.
    #[inline]
    pub(super) fn cut(protocol: &mut P, input: &'a [u8]) -> Self {
        let mut ahead = Self { ones: [const { None }; AHEAD_MAX], len: 0 };
        let mut rest = input;
        while ahead.len < AHEAD_MAX && !rest.is_empty() {
            let before = protocol.mark();
            let message = protocol.cut(rest);
            let one = ahead.ones[ahead.len].insert(One { before, message, target: None });
            ahead.len += 1;
            let is_last = match P::extent(&one.message) {
                Extent::Whole { consumed } => {
                    rest = &rest[consumed..];
                    P::is_last(&one.message)
                }
                Extent::Part { .. } | Extent::Close => true,
            };
            if is_last {
                break;
            }
        }
        ahead
    }

    /// Tells the handler of the keys that come, if there is more than one message to tell of.
    #[inline]
    pub(super) fn announce(&mut self, room: &mut P::Room, handler: &mut impl Handler) {
        if self.len <= 1 {
            return;
        }
        for one in self.ones[..self.len].iter_mut().flatten() {
            if let Extent::Whole { .. } = P::extent(&one.message)
                && let Some(key) = P::key(&one.message, room)
            {
                one.target = Some(handler.announce(&key));
            }
        }
        handler.announced();
    }

    /// What was found, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &One<'a, P>> {
        self.ones[..self.len].iter().flatten()
    }
}
