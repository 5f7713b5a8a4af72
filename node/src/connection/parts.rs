//! Messages that ask for several items and have one answer.
//!
//! Each part is a request of its own, with a slot if it has to wait, so limits, admission,
//! deadlines and what a reader may not see yet hold for it as for any other. What the parts bring
//! is gathered by the protocol. A message of which only some parts could be taken stays in front of
//! the input, and goes on with the next one.

use larder_engine::shard::Answer;

use super::{Asked, Connection, Handled, Handler, Load, Output, Release, Stop};
use crate::codec::Codec;
use crate::request::{ItemRequest, NoAnswer, Target};

/// How many parts are announced before the first of them is carried out.
const ANNOUNCED_MAX: usize = 16;

/// How far the parts of the message in front are taken.
#[derive(Debug)]
pub(super) struct Begun<T> {
    /// The token of the first part.
    first: T,
    taken: usize,
    /// Where the protocol finds the next one.
    cursor: usize,
}

impl<P: Codec> Connection<P> {
    /// Takes the parts of a message; `Some` if they cannot all be taken now.
    pub(super) fn parts(
        &mut self,
        message: &P::Message<'_>,
        asked: u64,
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        let begin = || Begun { first: self.protocol.first_part(message), taken: 0, cursor: 0 };
        let mut begun = self.begun.take().unwrap_or_else(begin);
        let mut ahead = begun.cursor;
        loop {
            let mut next: [Option<(ItemRequest<'_>, Target, usize)>; ANNOUNCED_MAX] =
                [const { None }; ANNOUNCED_MAX];
            for one in &mut next {
                let Some(request) = self.protocol.next_part(message, &mut ahead, asked) else {
                    break;
                };
                *one = Some((request, handler.announce(&request.key), ahead));
            }
            next[0].as_ref()?;
            handler.announced();
            for (request, target, behind) in next.into_iter().flatten() {
                let stop = self.limit(output).or_else(|| {
                    let part = P::other_part(&begun.first, begun.taken);
                    self.part((part, asked), (&request, target), output, handler)
                });
                if stop.is_some() {
                    self.begun = Some(begun);
                    return stop;
                }
                begun.taken += 1;
                begun.cursor = behind;
            }
        }
    }

    /// Takes one part.
    #[inline]
    fn part(
        &mut self,
        (part, since): (P::Token, u64),
        (request, target): (&ItemRequest<'_>, Target),
        output: &mut Output<'_>,
        handler: &mut impl Handler,
    ) -> Option<Stop> {
        let Self { protocol, slots, .. } = self;
        let mut leave_out = |part: &P::Token| {
            protocol.put_part(part, None);
            protocol.pass_part(part, false, output.queue.bytes());
        };
        if !P::part_has_room(&part) {
            leave_out(&part);
            return None;
        }
        let (sequence, load) = (slots.next_sequence(), slots.load());
        let asked = Asked { sequence, load, since };
        let put = |answer: Result<&Answer<'_>, NoAnswer>| protocol.put_part(&part, Some(answer));
        match handler.request(request, target, asked, put) {
            // Where all who wait for memory hold some, nobody would ever get more.
            Handled::Refused
                if load == Load::default()
                    && handler.lacks_memory()
                    && P::part_holds_values(&part) =>
            {
                leave_out(&part);
            }
            Handled::Refused => return Some(Stop::Core),
            Handled::Waiting { expected_bytes } => slots.push_waiting(0, expected_bytes, part),
            Handled::Done { after, .. } if handler.release(after) == Release::Now => {
                protocol.pass_part(&part, false, output.queue.bytes());
            }
            Handled::Done { after, .. } => slots.push_gathered(after, part),
        }
        None
    }
}
