//! The classic text commands, but for retrieval.

use super::token::Tokens;
use super::{Rejected, error, number};
use crate::memcached::Limits;
use crate::memcached::request::{
    Arithmetic, Delete, Direction, Request, ShutdownMode, Store, StoreVerb, Touch, WireKey,
};

type Parse<'a> = Result<Request<'a>, Rejected<'a>>;

#[inline]
pub(super) fn store_verb(token: &[u8]) -> Option<StoreVerb> {
    Some(match token {
        b"set" => StoreVerb::Set,
        b"add" => StoreVerb::Add,
        b"replace" => StoreVerb::Replace,
        b"append" => StoreVerb::Append,
        b"prepend" => StoreVerb::Prepend,
        b"cas" => StoreVerb::Cas,
        _ => return None,
    })
}

/// `<key> <flags> <exptime> <bytes> [<cas>] [noreply]`: the request with no value yet, and the
/// value's length in bytes, which the item limit allows.
///
/// From the moment that the length is known, an error skips the data block. Before that the block
/// cannot be told from commands.
pub(super) fn store<'a>(
    limits: &Limits,
    verb: StoreVerb,
    mut tokens: Tokens<'a>,
) -> Result<(Store<'a>, usize), Rejected<'a>> {
    let mut argument = || tokens.next().ok_or_else(|| Rejected::line(error::BAD_FORMAT));
    let (key, flags, exptime, bytes) = (argument()?, argument()?, argument()?, argument()?);
    let value_bytes =
        number::value_bytes(bytes).ok_or_else(|| Rejected::line(error::BAD_FORMAT))?;
    let noreply = tokens.ends_in_noreply();
    let reject = |reply| Rejected::line(reply).suppressed_if(noreply).with_body(value_bytes);
    let bad_format = || reject(error::BAD_FORMAT);

    if key.len() > limits.key_bytes() {
        return Err(bad_format());
    }
    let client_flags = number::unsigned_32(flags).ok_or_else(bad_format)?;
    let exptime = number::signed_32(exptime).ok_or_else(bad_format)?;
    let cas = match verb {
        StoreVerb::Cas => Some(tokens.next().and_then(number::unsigned).ok_or_else(bad_format)?),
        _ => None,
    };
    if !limits.item_fits(key.len(), value_bytes) {
        let too_large = reject(error::TOO_LARGE);
        return Err(match verb {
            StoreVerb::Set => too_large.dropping(WireKey::plain(key)),
            _ => too_large,
        });
    }
    Ok((Store { verb, key, client_flags, exptime, value: &[], cas, noreply }, value_bytes))
}

/// A command without a data block; `None` if there is no such command.
pub(super) fn bodiless<'a>(limits: &Limits, verb: &[u8], tokens: Tokens<'a>) -> Option<Parse<'a>> {
    Some(match verb {
        b"delete" => delete(limits, tokens),
        b"incr" => arithmetic(limits, Direction::Increment, tokens),
        b"decr" => arithmetic(limits, Direction::Decrement, tokens),
        b"touch" => touch(limits, tokens),
        b"flush_all" => flush_all(tokens),
        b"version" => Ok(Request::Version),
        b"verbosity" => verbosity(tokens),
        b"stats" => super::tuning::statistics(tokens),
        b"quit" => Ok(Request::Quit),
        b"shutdown" => Ok(Request::Shutdown(shutdown_mode(tokens))),
        _ => return super::tuning::command(verb, tokens),
    })
}

/// Whether an unknown command is an HTTP request line: its last token names the protocol.
pub(super) fn is_http(tokens: &Tokens<'_>) -> bool {
    tokens.clone().last().is_some_and(|token| token.starts_with(b"HTTP/"))
}

/// The key, if it is there and short enough.
fn key<'a>(
    limits: &Limits,
    tokens: &mut Tokens<'a>,
    noreply: bool,
) -> Result<&'a [u8], Rejected<'a>> {
    let Some(key) = tokens.next() else { return Err(Rejected::line(error::BAD_FORMAT)) };
    if key.len() > limits.key_bytes() {
        return Err(Rejected::line(error::BAD_FORMAT).suppressed_if(noreply));
    }
    Ok(key)
}

/// Tokens between the key and `noreply` are ignored: old clients send a time there.
/// `delete <key> [ignored] [noreply]`, in any order; old clients send a time.
fn delete<'a>(limits: &Limits, mut tokens: Tokens<'a>) -> Parse<'a> {
    const TOKENS_AFTER_KEY_MAX: usize = 2;
    let noreply = tokens.ends_in_noreply();
    let key = key(limits, &mut tokens, noreply)?;
    if tokens.nth(TOKENS_AFTER_KEY_MAX).is_some() {
        return Err(Rejected::line(error::ERROR));
    }
    Ok(Request::Delete(Delete { key, noreply }))
}

fn arithmetic<'a>(limits: &Limits, direction: Direction, mut tokens: Tokens<'a>) -> Parse<'a> {
    let noreply = tokens.ends_in_noreply();
    let (key, delta) = key_and_number(limits, &mut tokens, noreply)?;
    let delta = number::unsigned(delta)
        .ok_or_else(|| Rejected::line(error::BAD_DELTA).suppressed_if(noreply))?;
    Ok(Request::Arithmetic(Arithmetic { key, delta, direction, noreply }))
}

fn touch<'a>(limits: &Limits, mut tokens: Tokens<'a>) -> Parse<'a> {
    let noreply = tokens.ends_in_noreply();
    let (key, exptime) = key_and_number(limits, &mut tokens, noreply)?;
    let exptime = number::signed_32(exptime)
        .ok_or_else(|| Rejected::line(error::BAD_EXPTIME).suppressed_if(noreply))?;
    Ok(Request::Touch(Touch { key, exptime, noreply }))
}

/// A key and the token after it. A missing token is answered even under `noreply`.
fn key_and_number<'a>(
    limits: &Limits,
    tokens: &mut Tokens<'a>,
    noreply: bool,
) -> Result<(&'a [u8], &'a [u8]), Rejected<'a>> {
    let number = tokens.clone().nth(1).ok_or_else(|| Rejected::line(error::BAD_FORMAT))?;
    Ok((key(limits, tokens, noreply)?, number))
}

fn flush_all(mut tokens: Tokens<'_>) -> Parse<'_> {
    let noreply = tokens.ends_in_noreply();
    let delay = match tokens.next() {
        None => None,
        Some(_) if noreply && tokens.rest().is_empty() => None,
        Some(delay) => Some(
            number::signed_32(delay)
                .ok_or_else(|| Rejected::line(error::BAD_EXPTIME).suppressed_if(noreply))?,
        ),
    };
    Ok(Request::FlushAll { delay, noreply })
}

fn verbosity(mut tokens: Tokens<'_>) -> Parse<'_> {
    let noreply = tokens.ends_in_noreply();
    match tokens.next().and_then(number::unsigned_32) {
        Some(level) => Ok(Request::Verbosity { level, noreply }),
        None => Err(Rejected::line(error::BAD_FORMAT).suppressed_if(noreply)),
    }
}

fn shutdown_mode(mut tokens: Tokens<'_>) -> ShutdownMode {
    match (tokens.next(), tokens.next()) {
        (None, _) => ShutdownMode::Immediate,
        (Some(b"graceful"), None) => ShutdownMode::Graceful,
        (Some(_), _) => ShutdownMode::Unknown,
    }
}
