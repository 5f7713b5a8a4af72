//! The meta commands: `mg ms md ma mn me <key> [<datalen>] <flag>*`.

use super::token::Tokens;
use super::{Rejected, base64, error, number};
use crate::memcached::request::{
    Direction, MetaArithmetic, MetaDebug, MetaDelete, MetaFlags, MetaGet, MetaSet, Request,
    StoreVerb, WireKey, letter_bit,
};
use crate::memcached::{Limits, META_TOKENS_MAX, OPAQUE_BYTES_MAX};

/// The longest base64 form of a key, in bytes.
const BASE64_KEY_BYTES_MAX: usize = crate::memcached::KEY_BYTES_MAX.div_ceil(3) * 4;

/// Flags that change what is done but have no token to read, that are only echoed, or that are
/// hints for proxies (`P`, `L`).
const PLAIN_FLAGS: u64 = {
    let letters = b"bcfhklqstuvxILOP";
    let (mut bits, mut index) = (0, 0);
    while index < letters.len() {
        bits |= letter_bit(letters[index]);
        index += 1;
    }
    bits
};

/// A command without a data block; `None` if `m` and `letter` are no command.
#[inline]
pub(super) fn bodiless<'a>(
    limits: &Limits,
    letter: u8,
    tokens: Tokens<'a>,
) -> Option<Result<Request<'a>, Rejected<'a>>> {
    Some(match letter {
        b'g' => keyed(limits, tokens)
            .map(|(key, flags)| Request::MetaGet(MetaGet { key, flags }))
            .map_err(FlagError::reject),
        b'd' => keyed(limits, tokens)
            .map(|(key, flags)| Request::MetaDelete(MetaDelete { key, flags }))
            .map_err(FlagError::reject),
        b'a' => arithmetic(limits, tokens),
        b'n' => Ok(Request::MetaNoop),
        b'e' => debug(limits, tokens),
        _ => return None,
    })
}

/// Why the flags, or the key that they describe, are refused.
enum FlagError {
    /// What the flags are: too many, repeated, unknown.
    Shape(&'static str),
    /// What one of them, or the key, says.
    Content(&'static str),
}

impl FlagError {
    fn reply(&self) -> &'static str {
        match self {
            Self::Shape(reply) | Self::Content(reply) => reply,
        }
    }

    fn reject<'a>(self) -> Rejected<'a> {
        Rejected::line(self.reply())
    }
}

fn keyed<'a>(
    limits: &Limits,
    mut tokens: Tokens<'a>,
) -> Result<(WireKey<'a>, MetaFlags<'a>), FlagError> {
    let wire = tokens.next().ok_or(FlagError::Content(error::BAD_FORMAT))?;
    let (key, flags) = key_and_flags(limits, wire, tokens, 2)?;
    if flags.opaque.is_some_and(|opaque| opaque.len() > OPAQUE_BYTES_MAX) {
        return Err(FlagError::Content(error::OPAQUE_TOO_LONG));
    }
    Ok((key, flags))
}

/// `<key> <datalen> <flag>*`: the request with no value yet, and the value's length in bytes,
/// which the item limit allows. From the moment that the length is known, an error skips the data
/// block.
pub(super) fn set<'a>(
    limits: &Limits,
    mut tokens: Tokens<'a>,
) -> Result<(MetaSet<'a>, usize), Rejected<'a>> {
    let bad_format = || Rejected::line(error::BAD_FORMAT);
    let wire = tokens.next().ok_or_else(bad_format)?;
    let value_bytes = tokens.next().and_then(number::value_bytes).ok_or_else(bad_format)?;
    let reject = |reply| Rejected::line(reply).with_body(value_bytes);

    let (key, flags) =
        key_and_flags(limits, wire, tokens, 3).map_err(|error| reject(error.reply()))?;
    let verb = match flags.mode {
        None | Some(b'S') => StoreVerb::Set,
        Some(b'E') => StoreVerb::Add,
        Some(b'A') => StoreVerb::Append,
        Some(b'P') => StoreVerb::Prepend,
        Some(b'R') => StoreVerb::Replace,
        Some(_) => return Err(reject(error::BAD_SET_MODE)),
    };
    if !limits.item_fits(key_bytes(&key), value_bytes) {
        return Err(reject(error::TOO_LARGE).dropping(key));
    }
    if flags.opaque.is_some_and(|opaque| opaque.len() > OPAQUE_BYTES_MAX) {
        return Err(reject(error::OPAQUE_TOO_LONG));
    }
    Ok((MetaSet { key, flags, verb, value: &[] }, value_bytes))
}

fn arithmetic<'a>(limits: &Limits, tokens: Tokens<'a>) -> Result<Request<'a>, Rejected<'a>> {
    let (key, flags) = keyed(limits, tokens).map_err(|error| match error {
        FlagError::Shape(_) => Rejected::line(error::ARITHMETIC_FLAGS),
        FlagError::Content(reply) => Rejected::line(reply),
    })?;
    let direction = match flags.mode {
        None | Some(b'I' | b'+') => Direction::Increment,
        Some(b'D' | b'-') => Direction::Decrement,
        Some(_) => return Err(Rejected::line(error::BAD_ARITHMETIC_MODE)),
    };
    let (delta, initial) = (flags.delta.unwrap_or(1), flags.initial.unwrap_or(0));
    Ok(Request::MetaArithmetic(MetaArithmetic { key, flags, direction, delta, initial }))
}

/// `me <key> [b]`; other tokens are ignored.
fn debug<'a>(limits: &Limits, mut tokens: Tokens<'a>) -> Result<Request<'a>, Rejected<'a>> {
    let wire = tokens.next().ok_or_else(|| Rejected::line(error::BAD_FORMAT))?;
    let is_base64 = tokens.next() == Some(b"b");
    let key = checked_key(limits, wire, is_base64)
        .map_err(|_undecodable_or_long| Rejected::line(error::BAD_FORMAT))?;
    Ok(Request::MetaDebug(MetaDebug { key }))
}

/// The key and the flags after it, where the command has `tokens_before` tokens before the flags.
fn key_and_flags<'a>(
    limits: &Limits,
    wire: &'a [u8],
    tokens: Tokens<'a>,
    tokens_before: usize,
) -> Result<(WireKey<'a>, MetaFlags<'a>), FlagError> {
    let is_long = wire.len() > limits.key_bytes();
    if is_long && tokens.clone().all(|token| token[0] != b'b') {
        return Err(FlagError::Content(error::BAD_FORMAT));
    }
    let flags_max = META_TOKENS_MAX - tokens_before;
    // So many flags need at least two bytes each; shorter lines are not counted.
    if tokens.rest_bytes() > 2 * flags_max && tokens.clone().count() > flags_max {
        return Err(FlagError::Shape(error::TOO_MANY_FLAGS));
    }
    let flags = parse_flags(tokens)?;
    let key = checked_key(limits, wire, flags.has(b'b')).map_err(FlagError::Content)?;
    Ok((key, flags))
}

fn checked_key<'a>(
    limits: &Limits,
    wire: &'a [u8],
    is_base64: bool,
) -> Result<WireKey<'a>, &'static str> {
    if wire.len() > BASE64_KEY_BYTES_MAX {
        return Err(error::BAD_FORMAT);
    }
    if is_base64 && base64::decoded_bytes(wire).is_none() {
        return Err(error::BAD_BASE64_KEY);
    }
    let key = WireKey { wire, is_base64 };
    if key_bytes(&key) > limits.key_bytes() {
        return Err(error::BAD_FORMAT);
    }
    Ok(key)
}

/// The key's own length, decoded.
fn key_bytes(key: &WireKey<'_>) -> usize {
    if !key.is_base64 {
        return key.wire.len();
    }
    base64::decoded_bytes(key.wire).expect("only keys that decode are made")
}

/// A bad token is reported only when no later flag is repeated or unknown; of several bad tokens
/// the last one is reported.
#[inline]
fn parse_flags<'a>(tokens: Tokens<'a>) -> Result<MetaFlags<'a>, FlagError> {
    let mut flags = MetaFlags { raw: tokens.rest(), ..MetaFlags::default() };
    let mut bad_token = None;
    for token in tokens {
        let letter = token[0];
        if letter >= 127 {
            return Err(FlagError::Shape(error::DUPLICATE_FLAG));
        }
        if !letter.is_ascii_alphabetic() {
            return Err(FlagError::Shape(error::INVALID_FLAG));
        }
        let bit = letter_bit(letter);
        if flags.letters & bit != 0 {
            return Err(FlagError::Shape(error::DUPLICATE_FLAG));
        }
        flags.letters |= bit;
        if PLAIN_FLAGS & bit == 0 {
            read_token(&mut flags, letter, &token[1..], &mut bad_token)?;
        } else if letter == b'O' {
            flags.opaque = Some(token);
        }
    }
    match bad_token {
        None => Ok(flags),
        Some(reply) => Err(FlagError::Content(reply)),
    }
}

fn read_token(
    flags: &mut MetaFlags<'_>,
    letter: u8,
    token: &[u8],
    bad_token: &mut Option<&'static str>,
) -> Result<(), FlagError> {
    let mut read = |is_good: bool, reply| {
        if !is_good {
            *bad_token = Some(reply);
        }
    };
    match letter {
        b'T' => {
            flags.ttl = number::signed_32(token);
            read(flags.ttl.is_some(), error::BAD_TOKEN);
        }
        b'N' => {
            flags.vivify_ttl = number::signed_32(token);
            read(flags.vivify_ttl.is_some(), error::BAD_TOKEN);
        }
        b'R' => {
            flags.recache_ttl = number::signed_32(token);
            read(flags.recache_ttl.is_some(), error::BAD_TOKEN);
        }
        b'C' => {
            flags.compare_cas = number::unsigned(token);
            read(flags.compare_cas.is_some(), error::BAD_TOKEN);
        }
        b'E' => {
            flags.explicit_cas = number::unsigned(token);
            read(flags.explicit_cas.is_some(), error::BAD_TOKEN);
        }
        b'D' => {
            flags.delta = number::unsigned(token);
            read(flags.delta.is_some(), error::BAD_META_DELTA);
        }
        b'J' => {
            flags.initial = number::unsigned(token);
            read(flags.initial.is_some(), error::BAD_META_INITIAL);
        }
        b'F' => {
            flags.client_flags = number::unsigned_32(token);
            read(flags.client_flags.is_some(), error::BAD_FORMAT);
        }
        b'M' => flags.mode = Some(token.first().copied().unwrap_or(0)),
        _ => return Err(FlagError::Shape(error::INVALID_FLAG)),
    }
    Ok(())
}
