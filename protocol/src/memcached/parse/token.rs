//! Lines and tokens.

const LANE: usize = size_of::<u64>();
const LOW_BITS: u64 = u64::from_ne_bytes([0x01; LANE]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; LANE]);

/// Where `byte` first occurs in `haystack`.
///
/// Eight bytes at a time: a lane that equals `byte` is zero after the XOR, and subtracting one
/// from a zero lane sets its high bit. The lowest such lane is exact; higher ones may be borrows.
pub(super) fn find_byte(byte: u8, haystack: &[u8]) -> Option<usize> {
    let pattern = u64::from_le_bytes([byte; LANE]);
    let (lanes, tail) = haystack.as_chunks::<LANE>();
    for (index, lane) in lanes.iter().enumerate() {
        let difference = u64::from_le_bytes(*lane) ^ pattern;
        let zero_lanes = difference.wrapping_sub(LOW_BITS) & !difference & HIGH_BITS;
        if zero_lanes != 0 {
            return Some(index * LANE + zero_lanes.trailing_zeros() as usize / 8);
        }
    }
    let before_tail = haystack.len() - tail.len();
    tail.iter().position(|&candidate| candidate == byte).map(|at| before_tail + at)
}

/// A command line that has arrived whole.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    /// The line without its end.
    pub(super) content: &'a [u8],
    /// The line's length in bytes with its end.
    pub(super) bytes: usize,
}

impl<'a> Line<'a> {
    /// The line at the front of `input` whose newline is at `newline`. The end is LF or CR LF.
    pub(super) fn new(input: &'a [u8], newline: usize) -> Self {
        let content = &input[..newline];
        Self { content: content.strip_suffix(b"\r").unwrap_or(content), bytes: newline + 1 }
    }
}

/// The space-separated tokens of a line that are left to read.
#[derive(Clone)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self { rest: content }
    }

    /// What is left, without the spaces before it.
    pub(super) fn rest(&self) -> &'a [u8] {
        let mut rest = self.rest;
        while let [b' ', after @ ..] = rest {
            rest = after;
        }
        rest
    }

    /// How many bytes are left, with the spaces before the next token.
    pub(super) fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Whether the last token that is left is `noreply`.
    pub(super) fn ends_in_noreply(&self) -> bool {
        let mut rest = self.rest;
        while let [before @ .., b' '] = rest {
            rest = before;
        }
        rest.strip_suffix(b"noreply").is_some_and(|before| matches!(before, [] | [.., b' ']))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        if rest.is_empty() {
            self.rest = rest;
            return None;
        }
        let (token, after) = rest.split_at(find_byte(b' ', rest).unwrap_or(rest.len()));
        self.rest = after;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_ignore_repeated_leading_and_trailing_spaces() {
        let tokens: Vec<_> = Tokens::new(b"  set   k 0  ").collect();
        assert_eq!(tokens, [&b"set"[..], b"k", b"0"]);
        assert_eq!(Tokens::new(b"   ").next(), None);
        assert_eq!(Tokens::new(b"").next(), None);
    }

    #[test]
    fn noreply_is_a_whole_last_token() {
        for (rest, expected) in [
            (&b"noreply"[..], true),
            (b" 0 noreply  ", true),
            (b" xnoreply", false),
            (b" noreply 0", false),
            (b"", false),
            (b"  ", false),
        ] {
            assert_eq!(Tokens::new(rest).ends_in_noreply(), expected, "{}", rest.escape_ascii());
        }
    }

    #[test]
    fn a_line_ends_in_lf_or_crlf() {
        for (input, content, bytes) in
            [(&b"get a\r\nx"[..], &b"get a"[..], 7), (b"get a\n", b"get a", 6), (b"\r\n", b"", 2)]
        {
            let newline = find_byte(b'\n', input).unwrap();
            let line = Line::new(input, newline);
            assert_eq!((line.content, line.bytes), (content, bytes));
        }
    }

    proptest! {
        #[test]
        fn find_byte_finds_the_first(
            haystack in proptest::collection::vec(
                prop_oneof![Just(9u8), Just(10), Just(11), Just(138), any::<u8>()], 0..40),
        ) {
            let expected = haystack.iter().position(|&byte| byte == b'\n');
            prop_assert_eq!(find_byte(b'\n', &haystack), expected);
        }
    }
}
