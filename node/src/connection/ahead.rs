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
pub(super) struct One<'o, 'a, P: Codec> {
    pub(super) before: &'o P::Mark,
    pub(super) message: &'o P::Message<'a>,
    /// Where it goes, if it was announced.
    pub(super) target: Option<Target>,
}

/// What the front of the input holds, up to [`AHEAD_MAX`] messages.
///
/// That is some kilobytes, so it is filled where it is, and the messages, which may be long, lie by
/// themselves: each is copied once.
pub(super) struct Ahead<'a, P: Codec> {
    messages: [Option<P::Message<'a>>; AHEAD_MAX],
    befores: [Option<P::Mark>; AHEAD_MAX],
    targets: [Option<Target>; AHEAD_MAX],
    len: usize,
}

impl<'a, P: Codec> Ahead<'a, P> {
    /// Nothing.
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            messages: std::array::from_fn(|_| None),
            befores: std::array::from_fn(|_| None),
            targets: [None; AHEAD_MAX],
            len: 0,
        }
    }

    /// Cuts the front of `input`, which is not empty, in place of what was found before. The last
    /// of what is found may be that more input is needed, or that the connection ends.
    #[inline]
    pub(super) fn cut(&mut self, protocol: &mut P, input: &'a [u8]) {
        self.len = 0;
        let mut rest = input;
        while self.len < AHEAD_MAX && !rest.is_empty() {
            self.befores[self.len] = Some(protocol.mark());
            self.targets[self.len] = None;
            let message = self.messages[self.len].insert(protocol.cut(rest));
            self.len += 1;
            let is_last = match P::extent(message) {
                Extent::Whole { consumed } => {
                    rest = &rest[consumed..];
                    P::is_last(message)
                }
                Extent::Part { .. } | Extent::Close => true,
            };
            if is_last {
                break;
            }
        }
    }

    /// Tells the handler of the keys that come, if there is more than one message to tell of.
    #[inline]
    pub(super) fn announce(&mut self, room: &mut P::Room, handler: &mut impl Handler) {
        if self.len <= 1 {
            return;
        }
        let messages = self.messages[..self.len].iter().flatten();
        for (message, target) in messages.zip(&mut self.targets) {
            if let Extent::Whole { .. } = P::extent(message)
                && let Some(key) = P::key(message, room)
            {
                *target = Some(handler.announce(&key));
            }
        }
        handler.announced();
    }

    /// What was found, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = One<'_, 'a, P>> {
        let messages = self.messages[..self.len].iter().flatten();
        let befores = self.befores[..self.len].iter().flatten();
        let both = messages.zip(befores).zip(&self.targets);
        both.map(|((message, before), target)| One { before, message, target: *target })
    }
}
