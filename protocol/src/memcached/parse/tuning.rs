//! Commands that tune what memcached keeps in its memory, or look into it. But for how much that is
//! there is nothing of the kind behind this parser, so settings are taken and have no effect. What
//! is stored can be listed, and what happens be watched.

use super::token::Tokens;
use super::{Rejected, error, number};
use crate::memcached::request::{DetailMode, Dump, DumpForm, LogStreams, Request};

type Parse<'a> = Result<Request<'a>, Rejected<'a>>;

/// The longest sleep of the crawler, in microseconds.
const SLEEP_MICROSECONDS_MAX: u32 = 1_000_000;

/// The most that memcached gives to its two younger lists together, in hundredths.
const YOUNGER_PERCENT_MAX: u64 = 80;

/// The largest setting of `slabs automove`.
const AUTOMOVE_MAX: u32 = 2;

/// The least and the most megabytes that `cache_memlimit` takes.
const MEMORY_MEGABYTES: std::ops::RangeInclusive<u32> = 8..=1_000_000_000;

/// The size classes that memcached may have, and the one that all items are in here.
const CLASSES: std::ops::RangeInclusive<u32> = 1..=63;
const CLASS: u32 = 1;

/// One of these commands; `None` if `verb` is none.
pub(super) fn command<'a>(verb: &[u8], tokens: Tokens<'a>) -> Option<Parse<'a>> {
    let noreply = tokens.ends_in_noreply();
    let words = words(tokens.clone());
    let refused = |reply| Rejected::line(reply).suppressed_if(noreply);
    let reply = match (verb, words) {
        (b"lru_crawler", [b"metadump" | b"mgdump", classes, extra, ..]) if !classes.is_empty() => {
            return Some(dump(words[0], classes, extra));
        }
        (b"watch", _) => return Some(watch(tokens)),
        (b"slabs", _) => slabs(words),
        (b"lru", _) => lru(words),
        (b"lru_crawler", _) => lru_crawler(words),
        (b"cache_memlimit", _) => {
            let limit = memory_limit(words);
            let asked = limit.map(|megabytes| Request::MemoryLimit { megabytes, noreply });
            return Some(asked.map_err(refused));
        }
        _ => return None,
    };
    Some(reply.map(|()| Request::Tune { noreply }).map_err(refused))
}

/// `stats` with its arguments.
pub(super) fn statistics(tokens: Tokens<'_>) -> Parse<'_> {
    let arguments = tokens.rest().trim_ascii_end();
    match words(tokens) {
        [b"detail", mode, ..] => match mode {
            b"on" => Ok(Request::Detail(DetailMode::On)),
            b"off" => Ok(Request::Detail(DetailMode::Off)),
            b"dump" => Ok(Request::Detail(DetailMode::Dump)),
            _ => Err(Rejected::line(error::DETAIL_USAGE)),
        },
        [b"cachedump", _, b"", ..] => Err(Rejected::line(error::CACHE_DUMP_ARGUMENTS)),
        [b"cachedump", class, limit, ..] => {
            let class = number::unsigned_32(class).ok_or_else(bad_format)?;
            let limit = number::unsigned_32(limit).ok_or_else(bad_format)?;
            if class > *CLASSES.end() {
                return Err(Rejected::line(error::CACHE_DUMP_CLASS));
            }
            let form = DumpForm::Cache { limit };
            Ok(Request::Dump(Dump { form, has_items: class == CLASS }))
        }
        _ => Ok(Request::Stats { arguments }),
    }
}

fn bad_format<'a>() -> Rejected<'a> {
    Rejected::line(error::BAD_FORMAT)
}

/// `all`, `hash`, or numbers of classes with commas between them.
fn dump<'a>(verb: &[u8], classes: &[u8], extra: &[u8]) -> Parse<'a> {
    if !extra.is_empty() {
        return Err(Rejected::line(error::ERROR));
    }
    let form = if verb == b"mgdump" { DumpForm::Keys } else { DumpForm::Metadata };
    let mut has_items = matches!(classes, b"all" | b"hash");
    if !has_items {
        for class in classes.split(|&byte| byte == b',') {
            let class = number::unsigned_32(class).filter(|class| CLASSES.contains(class));
            let class = class.ok_or_else(|| Rejected::line(error::BAD_CLASS))?;
            has_items |= class == CLASS;
        }
    }
    Ok(Request::Dump(Dump { form, has_items }))
}

/// Names of streams; without any it is the reads.
fn watch(tokens: Tokens<'_>) -> Parse<'_> {
    let mut streams = LogStreams::default();
    for name in tokens {
        let stream = LogStreams::named(name).ok_or_else(|| Rejected::line(error::ERROR))?;
        streams = streams.and(stream);
    }
    if streams == LogStreams::default() {
        streams = LogStreams::FETCHERS;
    }
    Ok(Request::Watch(streams))
}

/// The first words behind the command; those that are not there are empty.
fn words(mut tokens: Tokens<'_>) -> [&[u8]; 5] {
    [(); 5].map(|()| tokens.next().unwrap_or_default())
}

type Reply = Result<(), &'static str>;

fn memory_limit(words: [&[u8]; 5]) -> Result<u32, &'static str> {
    let megabytes = number::unsigned_32(words[0]).ok_or(error::ERROR)?;
    if megabytes < *MEMORY_MEGABYTES.start() {
        return Err(error::MEMORY_TOO_SMALL);
    }
    if megabytes > *MEMORY_MEGABYTES.end() { Err(error::MEMORY_IN_BYTES) } else { Ok(megabytes) }
}

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
