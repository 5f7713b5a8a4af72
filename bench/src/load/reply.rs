//! Replies from bytes, however they are split, without keeping the values.

use thiserror::Error;

use super::data::{CHECK_BYTES, VALUE_BYTES_MAX};

/// The longest line that a server may answer with, in bytes without its end.
const LINE_BYTES_MAX: usize = 2048;

/// What the server answered to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A value.
    Value {
        /// Its length in bytes.
        length: usize,
        /// Its first bytes, zero where the value is shorter.
        head: [u8; CHECK_BYTES],
    },
    /// There is no such key.
    Miss,
    /// The value is stored.
    Stored,
    /// The value was refused by a condition.
    NotStored,
    /// The server could not do it; the line is [`ReplyParser::line`].
    ServerError,
    /// The server did not accept the request; the line is [`ReplyParser::line`].
    ClientError,
}

/// The bytes are no reply. Where the next one begins is not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ReplyError {
    #[error("a line of the answer is over {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("unknown answer `{0}`")]
    Unknown(String),
    #[error("the answer announces a value of `{0}` bytes")]
    Length(String),
    #[error("the value is not followed by CR LF")]
    Unterminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before or inside the first line.
    Line,
    /// Inside the value and the CR LF after it.
    Value { length: usize, taken: usize, head: [u8; CHECK_BYTES], then_end: bool },
    /// Before or inside the `END` that closes a text reply.
    End { length: usize, head: [u8; CHECK_BYTES] },
}

/// Takes replies out of a stream of bytes.
#[derive(Debug)]
pub(super) struct ReplyParser {
    state: State,
    /// The part of a line that ended with its read; also the last line that was an error.
    line: Vec<u8>,
    /// Whether `line` is a finished line, kept only to be shown.
    finished: bool,
}

impl ReplyParser {
    pub(super) fn new() -> Self {
        Self { state: State::Line, line: Vec::with_capacity(64), finished: false }
    }

    /// The text of the last [`Reply::ServerError`] or [`Reply::ClientError`].
    pub(super) fn line(&self) -> String {
        self.line.escape_ascii().to_string()
    }

    /// Takes the next reply off the front of `input`; `None` when more bytes are needed, in which
    /// case all of `input` was taken.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        loop {
            match self.state {
                State::Line => {
                    if !self.take_line(input)? {
                        return Ok(None);
                    }
                    if let Some(reply) = self.first_line()? {
                        return Ok(Some(reply));
                    }
                }
                State::Value { .. } => match self.take_value(input)? {
                    Taken::More => return Ok(None),
                    Taken::Value => {}
                    Taken::Reply(reply) => return Ok(Some(reply)),
                },
                State::End { length, head } => {
                    if !self.take_line(input)? {
                        return Ok(None);
                    }
                    if self.line != b"END" {
                        return Err(ReplyError::Unknown(self.line()));
                    }
                    self.state = State::Line;
                    return Ok(Some(Reply::Value { length, head }));
                }
            }
        }
    }

    /// Moves bytes up to the line's end into `line`; true when it is whole.
    fn take_line(&mut self, input: &mut &[u8]) -> Result<bool, ReplyError> {
        if self.finished {
            self.line.clear();
            self.finished = false;
        }
        let end = input.iter().position(|&byte| byte == b'\n');
        let part = &input[..end.unwrap_or(input.len())];
        if self.line.len() + part.len() > LINE_BYTES_MAX + 1 {
            return Err(ReplyError::LineTooLong);
        }
        self.line.extend_from_slice(part);
        *input = &input[end.map_or(input.len(), |end| end + 1)..];
        if end.is_none() {
            return Ok(false);
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        self.finished = true;
        Ok(true)
    }

    /// Understands the whole line; `None` when a value follows.
    fn first_line(&mut self) -> Result<Option<Reply>, ReplyError> {
        let line = &self.line[..];
        let reply = match line {
            b"EN" | b"END" => Reply::Miss,
            b"HD" | b"STORED" => Reply::Stored,
            b"NS" | b"NOT_STORED" | b"EX" | b"EXISTS" | b"NF" | b"NOT_FOUND" => Reply::NotStored,
            _ if line.starts_with(b"VA ") => {
                self.begin_value(1, false)?;
                return Ok(None);
            }
            _ if line.starts_with(b"VALUE ") => {
                self.begin_value(3, true)?;
                return Ok(None);
            }
            _ if line.starts_with(b"HD ") => Reply::Stored,
            _ if line.starts_with(b"SERVER_ERROR") => Reply::ServerError,
            _ if line.starts_with(b"CLIENT_ERROR") || line.starts_with(b"ERROR") => {
                Reply::ClientError
            }
            _ => return Err(ReplyError::Unknown(self.line())),
        };
        Ok(Some(reply))
    }

    /// Reads the value's length, the word number `position` of the line.
    fn begin_value(&mut self, position: usize, then_end: bool) -> Result<(), ReplyError> {
        let mut words = self.line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let word = words.nth(position).unwrap_or_default();
        let length = std::str::from_utf8(word)
            .ok()
            .and_then(|digits| digits.parse::<usize>().ok())
            .filter(|&length| length <= VALUE_BYTES_MAX)
            .ok_or_else(|| ReplyError::Length(word.escape_ascii().to_string()))?;
        self.state = State::Value { length, taken: 0, head: [0; CHECK_BYTES], then_end };
        Ok(())
    }

    /// Passes over the bytes of a value and the CR LF after it.
    fn take_value(&mut self, input: &mut &[u8]) -> Result<Taken, ReplyError> {
        let State::Value { length, taken, mut head, then_end } = self.state else {
            return Ok(Taken::Value);
        };
        let count = input.len().min(length + 2 - taken);
        let (part, rest) = input.split_at(count);
        *input = rest;
        let checked = length.min(CHECK_BYTES);
        if taken < checked {
            let overlap = count.min(checked - taken);
            head[taken..taken + overlap].copy_from_slice(&part[..overlap]);
        }
        for (position, wanted) in [(length, b'\r'), (length + 1, b'\n')] {
            let found = position.checked_sub(taken).and_then(|offset| part.get(offset));
            if found.is_some_and(|&found| found != wanted) {
                return Err(ReplyError::Unterminated);
            }
        }
        let taken = taken + count;
        if taken < length + 2 {
            self.state = State::Value { length, taken, head, then_end };
            return Ok(Taken::More);
        }
        if then_end {
            self.state = State::End { length, head };
            return Ok(Taken::Value);
        }
        self.state = State::Line;
        Ok(Taken::Reply(Reply::Value { length, head }))
    }
}

/// How far [`ReplyParser::take_value`] came.
enum Taken {
    /// The value goes on in the next bytes.
    More,
    /// The value is over; a closing line follows.
    Value,
    /// The value ends the reply.
    Reply(Reply),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All replies in the pieces, fed one after another.
    fn replies<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Reply>, ReplyError> {
        let mut parser = ReplyParser::new();
        let mut found = Vec::new();
        for mut piece in pieces {
            while let Some(reply) = parser.next(&mut piece)? {
                found.push(reply);
            }
            assert!(piece.is_empty(), "a parser that wants more has taken everything");
        }
        Ok(found)
    }

    fn value(bytes: &[u8]) -> Reply {
        let mut head = [0; CHECK_BYTES];
        let checked = bytes.len().min(CHECK_BYTES);
        head[..checked].copy_from_slice(&bytes[..checked]);
        Reply::Value { length: bytes.len(), head }
    }

    const MIXED: &[u8] =
        b"VA 12\r\nhello\r\nworld\r\nEN\r\nHD\r\nVALUE k 0 3\r\nabc\r\nEND\r\nEND\r\n\
        STORED\r\nVA 0\r\n\r\nSERVER_ERROR out of memory storing object\r\nNS\r\n\
        VALUE k 7 9 55\r\n123456789\r\nEND\r\nCLIENT_ERROR bad data chunk\r\nERROR\r\n\
        VA 8 f0\r\nEND\r\nEN\r\r\nNOT_STORED\r\n";

    fn mixed() -> Vec<Reply> {
        vec![
            value(b"hello\r\nworld"),
            Reply::Miss,
            Reply::Stored,
            value(b"abc"),
            Reply::Miss,
            Reply::Stored,
            value(b""),
            Reply::ServerError,
            Reply::NotStored,
            value(b"123456789"),
            Reply::ClientError,
            Reply::ClientError,
            value(b"END\r\nEN\r"),
            Reply::NotStored,
        ]
    }

    #[test]
    fn whole_input_gives_every_reply() {
        assert_eq!(replies([MIXED]), Ok(mixed()));
    }

    #[test]
    fn single_bytes_give_every_reply() {
        assert_eq!(replies(MIXED.chunks(1)), Ok(mixed()));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_replies(
            mut cuts in proptest::collection::vec(0..MIXED.len(), 0..12)
        ) {
            cuts.push(0);
            cuts.push(MIXED.len());
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &MIXED[pair[0]..pair[1]]);
            prop_assert_eq!(replies(pieces), Ok(mixed()));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'V'), Just(b'A'), Just(b' '), any::<u8>()], 0..80
            )
        ) {
            let whole = replies([&bytes[..]]);
            prop_assert_eq!(whole, replies(bytes.chunks(1)));
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for (bytes, error) in [
            (&b"VA x\r\n"[..], ReplyError::Length("x".to_owned())),
            (b"VA\r\n", ReplyError::Unknown("VA".to_owned())),
            (b"VA -1\r\n", ReplyError::Length("-1".to_owned())),
            (b"VA 99999999999999999999\r\n", ReplyError::Length("99999999999999999999".into())),
            (b"VA 134217729\r\n", ReplyError::Length("134217729".to_owned())),
            (b"VALUE k 0\r\n", ReplyError::Length(String::new())),
            (b"VA 2\r\nabcd", ReplyError::Unterminated),
            (b"VALUE k 0 1\r\na\r\nEN\r\n", ReplyError::Unknown("EN".to_owned())),
            (
                b"HTTP/1.1 400 Bad Request\r\n",
                ReplyError::Unknown("HTTP/1.1 400 Bad Request".into()),
            ),
            (&[b'A'; LINE_BYTES_MAX + 2], ReplyError::LineTooLong),
        ] {
            assert_eq!(replies([bytes]), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_error_line_can_be_shown() {
        let mut parser = ReplyParser::new();
        let mut input = &b"SERVER_ERROR busy\r\nEN\r\n"[..];
        assert_eq!(parser.next(&mut input), Ok(Some(Reply::ServerError)));
        assert_eq!(parser.line(), "SERVER_ERROR busy");
        assert_eq!(parser.next(&mut input), Ok(Some(Reply::Miss)));
    }
}
