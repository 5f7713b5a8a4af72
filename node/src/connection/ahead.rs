//! Requests that are parsed before the one in front of them is carried out.
//!
//! Knowing the next keys early lets the shard bring their items near while it still works on
//! others: a pipelined read of a value in RAM then costs a fraction of its cache misses.

use larder_protocol::memcached::{Limits, Parsed, Parser, Request, Step};

/// How many requests are parsed ahead. More would push each other's lines out of the nearest cache.
const AHEAD_MAX: usize = 16;

/// One parsed request, and the parser as it was before it.
#[derive(Debug)]
pub(super) struct One<'a> {
    pub(super) before: Parser,
    pub(super) step: Step<'a>,
}

/// What the front of the input holds, up to [`AHEAD_MAX`] requests.
pub(super) struct Ahead<'a> {
    ones: [Option<One<'a>>; AHEAD_MAX],
    len: usize,
}

impl<'a> Ahead<'a> {
    /// Parses the front of `input`, which is not empty. The last of what is found may be that more
    /// input is needed, or that the connection ends.
    pub(super) fn parse(parser: &mut Parser, limits: &Limits, input: &'a [u8]) -> Self {
        let mut ahead = Self { ones: [const { None }; AHEAD_MAX], len: 0 };
        let mut rest = input;
        while ahead.len < AHEAD_MAX && !rest.is_empty() {
            let before = parser.clone();
            let step = parser.next(limits, rest);
            rest = &rest[step.consumed..];
            let is_last = matches!(
                step.parsed,
                Parsed::NeedMore { .. } | Parsed::Close(_) | Parsed::Request(Request::Quit)
            );
            ahead.ones[ahead.len] = Some(One { before, step });
            ahead.len += 1;
            if is_last {
                break;
            }
        }
        ahead
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What was found, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &One<'a>> {
        self.ones[..self.len].iter().flatten()
    }

    /// The requests among it that name a key.
    pub(super) fn keyed(&self) -> impl Iterator<Item = &Request<'a>> {
        self.iter().filter_map(|one| match &one.step.parsed {
            Parsed::Request(request) => is_keyed(request).then_some(request),
            Parsed::NeedMore { .. } | Parsed::Malformed(_) | Parsed::Close(_) => None,
        })
    }
}

fn is_keyed(request: &Request<'_>) -> bool {
    !matches!(
        request,
        Request::GetEnd
            | Request::FlushAll { .. }
            | Request::Version
            | Request::Verbosity { .. }
            | Request::Stats { .. }
            | Request::Quit
            | Request::Shutdown(_)
            | Request::MetaNoop
    )
}
