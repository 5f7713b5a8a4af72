//! `get`, `gets`, `gat`, `gats`: one request for each key.
//!
//! A line that fits [`Limits::line_bytes_max`] is looked over before its first key is returned, so
//! that a long key anywhere in it is answered by one error, as memcached does. The keys of a longer
//! `get` or `gets` are returned as they come; a long key then ends the answer with the error in
//! the place of `END`.

use super::token::{Line, Tokens};
use super::{CloseReason, KeyLine, Malformed, Mode, Parsed, Parser, Rejected, Step, need_more};
use super::{error, number};
use crate::memcached::Limits;
use crate::memcached::request::{GetRequest, Request};

/// How many spaces may come before a `get` that is longer than a line may be.
const LEADING_SPACES_MAX: usize = 100;

/// A retrieval command.
#[derive(Clone, Copy)]
pub(super) struct Verb {
    with_cas: bool,
    takes_exptime: bool,
}

impl Verb {
    #[inline]
    pub(super) fn from_token(token: &[u8]) -> Option<Self> {
        let (with_cas, takes_exptime) = match token {
            b"get" => (false, false),
            b"gets" => (true, false),
            b"gat" => (false, true),
            b"gats" => (true, true),
            _ => return None,
        };
        Some(Self { with_cas, takes_exptime })
    }
}

impl Parser {
    /// A retrieval line that is there whole. Returns its first key and leaves the rest.
    pub(super) fn retrieval<'a>(
        &mut self,
        limits: &Limits,
        verb: Verb,
        mut tokens: Tokens<'a>,
        line: Line<'a>,
    ) -> Step<'a> {
        let malformed = |reply| Step {
            consumed: line.bytes,
            parsed: Parsed::Malformed(Rejected::line(reply).malformed),
        };
        let exptime = if verb.takes_exptime { tokens.next() } else { None };
        let mut keys = tokens.clone();
        let Some(key) = tokens.next() else { return malformed(error::BAD_FORMAT) };
        let new_exptime = match exptime.map(number::signed_32) {
            None => None,
            Some(Some(exptime)) => Some(exptime),
            Some(None) => return malformed(error::BAD_EXPTIME),
        };
        let is_short = line.content.len() <= limits.key_bytes();
        if !is_short && keys.any(|key| key.len() > limits.key_bytes()) {
            return malformed(error::BAD_FORMAT);
        }
        let key_line = KeyLine { with_cas: verb.with_cas, new_exptime, key_seen: true };
        self.mode = Mode::Keys(key_line);
        let consumed = line.content.len() - tokens.rest_bytes();
        Step { consumed, parsed: get(key_line, key) }
    }

    /// No newline where one is due: only the start of a long `get` or `gets` may look like that.
    ///
    /// What has arrived beyond the first [`Limits::line_bytes_max`] bytes and one has no say, so
    /// that the answer does not depend on how much that is.
    pub(super) fn long_line<'a>(&mut self, limits: &Limits, input: &'a [u8]) -> Step<'a> {
        let window = &input[..limits.line_bytes_max + 1];
        let spaces = window.iter().take_while(|&&byte| byte == b' ').count();
        let (verb_bytes, with_cas) = match &window[spaces..] {
            [b'g', b'e', b't', b' ', ..] => (3, false),
            [b'g', b'e', b't', b's', b' ', ..] => (4, true),
            _ => return self.close(CloseReason::LineTooLong, input.len()),
        };
        if spaces > LEADING_SPACES_MAX {
            return self.close(CloseReason::LineTooLong, input.len());
        }
        let line = KeyLine { with_cas, new_exptime: None, key_seen: false };
        self.mode = Mode::Keys(line);
        let step = self.key(limits, line, &input[spaces + verb_bytes..]);
        Step { consumed: spaces + verb_bytes + step.consumed, ..step }
    }

    /// The next key of a retrieval line, or its end.
    pub(super) fn key<'a>(&mut self, limits: &Limits, line: KeyLine, input: &'a [u8]) -> Step<'a> {
        let spaces = input.iter().take_while(|&&byte| byte == b' ').count();
        let rest = &input[spaces..];
        // The longest key, and one byte more in which it must have ended; a CR may be between.
        let window = &rest[..rest.len().min(limits.key_bytes() + 2)];
        let Some(end) = window.iter().position(|&byte| byte == b' ' || byte == b'\n') else {
            if window.len() < limits.key_bytes() + 2 {
                return need_more(spaces, rest.len() + 1);
            }
            self.mode = Mode::SkipLine;
            return long_key(spaces + window.len());
        };
        let is_last = rest[end] == b'\n';
        let token = &rest[..end];
        let key = if is_last { token.strip_suffix(b"\r").unwrap_or(token) } else { token };
        if key.is_empty() {
            self.mode = Mode::Command;
            let parsed = if line.key_seen {
                Parsed::Request(Request::GetEnd)
            } else {
                Parsed::Malformed(Rejected::line(error::BAD_FORMAT).malformed)
            };
            return Step { consumed: spaces + end + 1, parsed };
        }
        if key.len() > limits.key_bytes() {
            self.mode = if is_last { Mode::Command } else { Mode::SkipLine };
            return long_key(spaces + end + 1);
        }
        self.mode = Mode::Keys(KeyLine { key_seen: true, ..line });
        Step { consumed: spaces + key.len(), parsed: get(line, key) }
    }
}

fn get(line: KeyLine, key: &[u8]) -> Parsed<'_> {
    let KeyLine { with_cas, new_exptime, .. } = line;
    Parsed::Request(Request::Get(GetRequest { key, with_cas, new_exptime }))
}

fn long_key<'a>(consumed: usize) -> Step<'a> {
    let malformed: Malformed<'a> = Rejected::line(error::BAD_FORMAT).malformed;
    Step { consumed, parsed: Parsed::Malformed(malformed) }
}
