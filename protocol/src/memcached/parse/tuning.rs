//! Commands that tune what memcached keeps in its memory, or look into it. There is nothing of the
//! kind behind this parser, so settings are taken and have no effect, and what would have to do
//! something is answered as by a memcached where it is switched off.

use super::token::Tokens;
use super::{Rejected, error, number};
use crate::memcached::request::Request;

type Parse<'a> = Result<Request<'a>, Rejected<'a>>;

/// The longest sleep of the crawler, in microseconds.
const SLEEP_MICROSECONDS_MAX: u32 = 1_000_000;

/// The most that memcached gives to its two younger lists together, in hundredths.
const YOUNGER_PERCENT_MAX: u64 = 80;

/// The largest setting of `slabs automove`.
const AUTOMOVE_MAX: u32 = 2;

/// One of these commands; `None` if `verb` is none.
pub(super) fn command<'a>(verb: &[u8], tokens: Tokens<'a>) -> Option<Parse<'a>> {
    let noreply = tokens.ends_in_noreply();
    let words = words(tokens);
    let reply = match verb {
        b"slabs" => slabs(words),
        b"lru" => lru(words),
        b"lru_crawler" => lru_crawler(words),
        b"watch" => Err(error::WATCH_NOT_ALLOWED),
        _ => return None,
    };
    Some(match reply {
        Ok(()) => Ok(Request::Tune { noreply }),
        Err(reply) => Err(Rejected::line(reply).suppressed_if(noreply)),
    })
}

/// The first words behind the command; those that are not there are empty.
fn words(mut tokens: Tokens<'_>) -> [&[u8]; 5] {
    [(); 5].map(|()| tokens.next().unwrap_or_default())
}

type Reply = Result<(), &'static str>;

fn slabs(words: [&[u8]; 5]) -> Reply {
    match words {
        [b"reassign", _, to, ..] if !to.is_empty() => Err(error::SLABS_NOT_REASSIGNED),
        [b"automove", mode, ..] if !mode.is_empty() => match number::unsigned_32(mode) {
            Some(mode) if mode <= AUTOMOVE_MAX => Ok(()),
            Some(_) => Err(error::ERROR),
            None => Err(error::BAD_FORMAT),
        },
        _ => Err(error::ERROR),
    }
}

fn lru(words: [&[u8]; 5]) -> Reply {
    match words {
        [b"mode", b"flat" | b"segmented", ..] => Ok(()),
        [b"temp_ttl", seconds, ..] if number::signed_32(seconds).is_some() => Ok(()),
        [b"tune", hot, warm, hot_age, warm_age] => {
            let percent = |word| number::unsigned_32(word).map(u64::from);
            let factor = |word| std::str::from_utf8(word).ok()?.parse::<f64>().ok();
            let (Some(hot), Some(warm)) = (percent(hot), percent(warm)) else {
                return Err(error::ERROR);
            };
            let (Some(hot_age), Some(warm_age)) = (factor(hot_age), factor(warm_age)) else {
                return Err(error::ERROR);
            };
            if hot + warm > YOUNGER_PERCENT_MAX {
                return Err(error::LRU_TOO_MUCH);
            }
            if hot_age > 0.0 && warm_age > 0.0 { Ok(()) } else { Err(error::LRU_NO_AGE) }
        }
        _ => Err(error::ERROR),
    }
}

fn lru_crawler(words: [&[u8]; 5]) -> Reply {
    match words {
        [b"enable" | b"disable", ..] => Ok(()),
        [b"metadump", classes, ..] if !classes.is_empty() => Err(error::DUMP_NOT_ALLOWED),
        [b"sleep", time, ..] if !time.is_empty() => match number::unsigned_32(time) {
            Some(time) if time <= SLEEP_MICROSECONDS_MAX => Ok(()),
            Some(_) => Err(error::SLEEP_TOO_LONG),
            None => Err(error::BAD_FORMAT),
        },
        [b"tocrawl", items, ..] if !items.is_empty() => {
            number::unsigned_32(items).map(|_| ()).ok_or(error::BAD_FORMAT)
        }
        [b"crawl", b"all", ..] => Ok(()),
        [b"crawl", class, ..] if !class.is_empty() => {
            number::unsigned_32(class).map(|_| ()).ok_or(error::BAD_CLASS)
        }
        _ => Err(error::ERROR),
    }
}
