//! Bytes to requests.
//!
//! [`Parser::next`] looks at the front of what a connection has received. A command is returned
//! once its line, and its data block if it has one, are there whole; the keys of a `get` are
//! returned one by one, so that a line of any length takes no memory. What is skipped (the body of
//! a refused value, the rest of a line with a long key) is consumed as it comes.

pub(super) mod base64;
mod classic;
mod meta;
mod number;
mod retrieval;
mod token;
mod tuning;

#[cfg(test)]
mod tests;

use super::error;
use super::request::{Request, WireKey};
use super::{Limits, request::MetaSet, request::Store};
use token::{Line, Tokens, find_byte};

/// The shortest command line in bytes, with its end.
const LINE_BYTES_MIN: usize = 4;

/// What a data block ends in.
const BLOCK_END: &[u8] = b"\r\n";

/// The parser of one connection.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    mode: Mode,
    /// How many bytes at the front of the input are known to hold no newline.
    scanned: u32,
}

/// Where in the stream the front of the input is.
#[derive(Clone, Copy, Debug, Default)]
enum Mode {
    /// At the start of a command line.
    #[default]
    Command,
    /// Among the keys of a retrieval line.
    Keys(KeyLine),
    /// In a line whose rest is ignored.
    SkipLine,
    /// In a data block, with so many bytes of it still to ignore.
    SkipBytes(u32),
    /// After bytes that ended the connection.
    Closed(CloseReason),
}

/// What holds for all keys of a retrieval line.
#[derive(Clone, Copy, Debug)]
struct KeyLine {
    with_cas: bool,
    new_exptime: Option<i32>,
    key_seen: bool,
}

/// What one look at the input gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// How many bytes of the input are done with. `parsed` may borrow from them.
    pub consumed: usize,
    /// What the bytes were.
    pub parsed: Parsed<'a>,
}

/// What bytes can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Not a whole request yet.
    NeedMore {
        /// How long the input must be, after `consumed` is removed from it, before another look
        /// is of use. For a data block it is the whole command's length.
        bytes: usize,
    },
    /// A request.
    Request(Request<'a>),
    /// Not a request. Answer as it says and go on.
    Malformed(Malformed<'a>),
    /// Not a client of ours. Send the answers to earlier requests, nothing for this, and close.
    Close(CloseReason),
}

/// The answer to bytes that are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed<'a> {
    /// The line to answer with, without its line end.
    pub reply: &'static str,
    /// Whether the line is not sent after all, because the client asked for no reply.
    pub is_suppressed: bool,
    /// The key whose item is to be dropped: a newer value was refused, so the old one is stale.
    pub drop_key: Option<WireKey<'a>>,
}

/// Why a connection is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// No newline within [`Limits::line_bytes_max`] bytes.
    LineTooLong,
    /// An HTTP request line.
    Http,
}

/// A line that is not a request, and the data block after it that is skipped with it.
struct Rejected<'a> {
    malformed: Malformed<'a>,
    body_bytes: usize,
}

impl<'a> Rejected<'a> {
    fn line(reply: &'static str) -> Self {
        let malformed = Malformed { reply, is_suppressed: false, drop_key: None };
        Self { malformed, body_bytes: 0 }
    }

    fn suppressed_if(mut self, is_suppressed: bool) -> Self {
        self.malformed.is_suppressed = is_suppressed;
        self
    }

    /// Skips a data block of `value_bytes`, which is at most
    /// [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX), and its end.
    fn with_body(mut self, value_bytes: usize) -> Self {
        self.body_bytes = value_bytes + BLOCK_END.len();
        self
    }

    fn dropping(mut self, key: WireKey<'a>) -> Self {
        self.malformed.drop_key = Some(key);
        self
    }
}

/// A storage line, whose data block is still to be cut from the input.
#[derive(Clone, Copy)]
enum Header<'a> {
    Classic(Store<'a>),
    Meta(MetaSet<'a>),
}

impl<'a> Header<'a> {
    fn with_value(self, value: &'a [u8]) -> Request<'a> {
        match self {
            Self::Classic(store) => Request::Store(Store { value, ..store }),
            Self::Meta(set) => Request::MetaSet(MetaSet { value, ..set }),
        }
    }

    /// Meta commands are told of errors even when they ask for quiet.
    fn suppresses_errors(&self) -> bool {
        matches!(self, Self::Classic(store) if store.noreply)
    }
}

fn need_more<'a>(consumed: usize, bytes: usize) -> Step<'a> {
    Step { consumed, parsed: Parsed::NeedMore { bytes } }
}

impl Parser {
    /// A parser at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at the front of `input`, which is everything received and not yet consumed.
    ///
    /// Call it until it needs more, removing what it consumed each time. It never allocates, and
    /// what it returns does not depend on how the bytes were cut into reads.
    pub fn next<'a>(&mut self, limits: &Limits, input: &'a [u8]) -> Step<'a> {
        match self.mode {
            Mode::Command => self.command(limits, input),
            Mode::Keys(line) => self.key(limits, line, input),
            Mode::Closed(reason) => Step { consumed: input.len(), parsed: Parsed::Close(reason) },
            Mode::SkipLine | Mode::SkipBytes(_) => {
                let skipped = self.skip(input);
                if !matches!(self.mode, Mode::Command) {
                    return need_more(skipped, 1);
                }
                let step = self.command(limits, &input[skipped..]);
                Step { consumed: skipped + step.consumed, ..step }
            }
        }
    }

    /// Ignores what is to be ignored; how many bytes of `input` that is.
    fn skip(&mut self, input: &[u8]) -> usize {
        match self.mode {
            Mode::SkipLine => match find_byte(b'\n', input) {
                Some(newline) => {
                    self.mode = Mode::Command;
                    newline + 1
                }
                None => input.len(),
            },
            Mode::SkipBytes(left) => {
                let skipped = input.len().min(left as usize);
                self.skip_bytes(left as usize - skipped);
                skipped
            }
            Mode::Command | Mode::Keys(_) | Mode::Closed(_) => 0,
        }
    }

    fn skip_bytes(&mut self, bytes: usize) {
        let left = u32::try_from(bytes).expect("a data block's length fits 31 bits");
        self.mode = if left == 0 { Mode::Command } else { Mode::SkipBytes(left) };
    }

    fn command<'a>(&mut self, limits: &Limits, input: &'a [u8]) -> Step<'a> {
        let window = &input[..input.len().min(limits.line_bytes_max.saturating_add(1))];
        let scanned = window.len().min(self.scanned as usize);
        let Some(newline) = find_byte(b'\n', &window[scanned..]) else {
            if window.len() <= limits.line_bytes_max {
                self.scanned = u32::try_from(window.len()).unwrap_or(u32::MAX);
                return need_more(0, input.len() + 1);
            }
            self.scanned = 0;
            return self.long_line(limits, input);
        };
        self.scanned = 0;
        let line = Line::new(input, scanned + newline);
        if line.bytes < LINE_BYTES_MIN {
            return self.reject(&Rejected::line(error::BAD_FORMAT), line.bytes, input);
        }
        self.line(limits, line, input)
    }

    fn line<'a>(&mut self, limits: &Limits, line: Line<'a>, input: &'a [u8]) -> Step<'a> {
        let mut tokens = Tokens::new(line.content);
        let Some(verb) = tokens.next() else {
            return self.reject(&Rejected::line(error::ERROR), line.bytes, input);
        };
        if let Some(retrieval) = retrieval::Verb::from_token(verb) {
            return self.retrieval(limits, retrieval, tokens, line);
        }
        let header = match verb {
            b"ms" => meta::set(limits, tokens).map(|(set, bytes)| (Header::Meta(set), bytes)),
            _ => match classic::store_verb(verb) {
                Some(verb) => classic::store(limits, verb, tokens)
                    .map(|(store, bytes)| (Header::Classic(store), bytes)),
                None => return self.bodiless(limits, verb, &tokens, line, input),
            },
        };
        match header {
            Ok((header, value_bytes)) => self.body(header, value_bytes, line, input),
            Err(rejected) => self.reject(&rejected, line.bytes, input),
        }
    }

    fn bodiless<'a>(
        &mut self,
        limits: &Limits,
        verb: &'a [u8],
        tokens: &Tokens<'a>,
        line: Line<'a>,
        input: &'a [u8],
    ) -> Step<'a> {
        let parsed = match verb {
            [b'm', letter] => meta::bodiless(limits, *letter, tokens.clone()),
            _ => classic::bodiless(limits, verb, tokens.clone()),
        };
        match parsed {
            Some(Ok(request)) => Step { consumed: line.bytes, parsed: Parsed::Request(request) },
            Some(Err(rejected)) => self.reject(&rejected, line.bytes, input),
            None if classic::is_http(tokens) => self.close(CloseReason::Http, line.bytes),
            None => {
                let unknown = Rejected::line(error::ERROR);
                let unknown = unknown.suppressed_if(tokens.ends_in_noreply());
                self.reject(&unknown, line.bytes, input)
            }
        }
    }

    /// Cuts the data block. The item's size was checked, so `value_bytes` is within the limits.
    fn body<'a>(
        &mut self,
        header: Header<'a>,
        value_bytes: usize,
        line: Line<'a>,
        input: &'a [u8],
    ) -> Step<'a> {
        let block_end = line.bytes + value_bytes;
        let total = block_end + BLOCK_END.len();
        if input.len() < total {
            return need_more(0, total);
        }
        if &input[block_end..total] != BLOCK_END {
            let rejected = Rejected::line(error::BAD_DATA_CHUNK);
            let rejected = rejected.suppressed_if(header.suppresses_errors());
            return self.reject(&rejected, total, input);
        }
        let request = header.with_value(&input[line.bytes..block_end]);
        Step { consumed: total, parsed: Parsed::Request(request) }
    }

    /// Answers for the first `bytes` of `input` and skips the body that comes after them.
    fn reject<'a>(&mut self, rejected: &Rejected<'a>, bytes: usize, input: &[u8]) -> Step<'a> {
        let here = rejected.body_bytes.min(input.len() - bytes);
        self.skip_bytes(rejected.body_bytes - here);
        Step { consumed: bytes + here, parsed: Parsed::Malformed(rejected.malformed) }
    }

    fn close<'a>(&mut self, reason: CloseReason, consumed: usize) -> Step<'a> {
        self.mode = Mode::Closed(reason);
        Step { consumed, parsed: Parsed::Close(reason) }
    }
}
