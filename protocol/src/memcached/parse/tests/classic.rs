use super::*;
use crate::memcached::error::{
    BAD_CLASS, BAD_DATA_CHUNK, BAD_DELTA, BAD_EXPTIME, BAD_FORMAT, CACHE_DUMP_ARGUMENTS,
    CACHE_DUMP_CLASS, DETAIL_USAGE, ERROR, LRU_NO_AGE, LRU_TOO_MUCH, MEMORY_IN_BYTES,
    MEMORY_TOO_SMALL, SLABS_NOT_REASSIGNED, SLEEP_TOO_LONG, TOO_LARGE,
};
use crate::memcached::request::{
    Arithmetic, Delete, DetailMode, Direction, Dump, DumpForm, LogStreams, ShutdownMode, StoreVerb,
    Touch,
};

fn store(verb: StoreVerb, cas: Option<u64>, noreply: bool) -> Parsed<'static> {
    request(Request::Store(Store {
        verb,
        key: b"k",
        client_flags: 7,
        exptime: -9,
        value: b"a\r\nb",
        cas,
        noreply,
    }))
}

fn delete(key: &[u8], noreply: bool) -> Parsed<'_> {
    request(Request::Delete(Delete { key, noreply }))
}

fn arithmetic(direction: Direction, delta: u64, noreply: bool) -> Parsed<'static> {
    request(Request::Arithmetic(Arithmetic { key: b"k", delta, direction, noreply }))
}

fn touch(exptime: i32, noreply: bool) -> Parsed<'static> {
    request(Request::Touch(Touch { key: b"k", exptime, noreply }))
}

fn flush(delay: Option<i32>, noreply: bool) -> Parsed<'static> {
    request(Request::FlushAll { delay, noreply })
}

#[test]
fn storage_commands() {
    check(&[
        (b"set k 7 -9 4\r\na\r\nb\r\n", &[store(StoreVerb::Set, None, false)]),
        (b"set  k  7  -9  4  \na\r\nb\r\n", &[store(StoreVerb::Set, None, false)]),
        (b"  set k 7 -9 4\r\na\r\nb\r\n", &[store(StoreVerb::Set, None, false)]),
        (b"set k 7 -9 4 noreply\r\na\r\nb\r\n", &[store(StoreVerb::Set, None, true)]),
        (b"set k 7 -9 4 NOREPLY\r\na\r\nb\r\n", &[store(StoreVerb::Set, None, false)]),
        (b"add k 7 -9 4\r\na\r\nb\r\n", &[store(StoreVerb::Add, None, false)]),
        (b"replace k 7 -9 4\r\na\r\nb\r\n", &[store(StoreVerb::Replace, None, false)]),
        (b"append k 7 -9 4 noreply\r\na\r\nb\r\n", &[store(StoreVerb::Append, None, true)]),
        (b"prepend k 7 -9 4\r\na\r\nb\r\n", &[store(StoreVerb::Prepend, None, false)]),
        (b"cas k 7 -9 4 12\r\na\r\nb\r\n", &[store(StoreVerb::Cas, Some(12), false)]),
        (
            b"cas k 7 -9 4 18446744073709551615 noreply\r\na\r\nb\r\n",
            &[store(StoreVerb::Cas, Some(u64::MAX), true)],
        ),
    ]);
    let empty = parse(b"set k 4294967295 2147483647 0\r\n\r\n");
    let [Parsed::Request(Request::Store(store))] = empty[..] else { panic!("{empty:?}") };
    assert_eq!((store.value, store.client_flags, store.exptime), (&b""[..], u32::MAX, i32::MAX));
}

#[test]
fn bad_storage_lines_whose_length_is_known_skip_the_block() {
    let mut long = b"set ".to_vec();
    long.extend_from_slice(&long_key(251));
    long.extend_from_slice(b" 0 0 5 noreply\r\nquit\n\r\n");
    check(&[
        (b"set k x 0 5\r\nquit\n\r\n", &[error(BAD_FORMAT)]),
        (b"set k -1 0 5\r\nquit\n\r\n", &[error(BAD_FORMAT)]),
        (b"set k 4294967296 0 5\r\nquit\n\r\n", &[error(BAD_FORMAT)]),
        (b"set k 0 x 5\r\nquit\n\r\n", &[error(BAD_FORMAT)]),
        (b"set k 0 2147483648 5\r\nquit\n\r\n", &[error(BAD_FORMAT)]),
        (b"set k x 0 5 noreply\r\nquit\n\r\n", &[suppressed(BAD_FORMAT)]),
        (b"cas k 0 0 5\r\nquit\n\r\n", &[error(BAD_FORMAT)]),
        (b"cas k 0 0 5 x\r\nquit\n\r\n", &[error(BAD_FORMAT)]),
        (b"cas k 0 0 5 -1\r\nquit\n\r\n", &[error(BAD_FORMAT)]),
        (b"cas k 0 0 5 noreply\r\nquit\n\r\n", &[suppressed(BAD_FORMAT)]),
        (&long, &[suppressed(BAD_FORMAT)]),
    ]);
}

#[test]
fn after_a_bad_length_the_block_is_read_as_commands() {
    let twice = [error(BAD_FORMAT), error(ERROR)];
    check(&[
        (b"set k 0 0 -1\r\nabc\r\n", &twice),
        (b"set k 0 0 -1 noreply\r\nabc\r\n", &twice),
        (b"set k 0 0 3x\r\nabc\r\n", &twice),
        (b"set k 0 0 2147483646\r\nabc\r\n", &twice),
        (b"set k 0 0 99999999999999999999\r\nabc\r\n", &twice),
        (b"set k 0 0 noreply\r\nabc\r\n", &twice),
        (b"set k 0 0\r\nabc\r\n", &twice),
        (b"set\r\nabc\r\n", &twice),
        (b"ms k -1\r\nabc\r\n", &twice),
        (b"ms k 2147483646 q\r\nabc\r\n", &twice),
        (b"ms k q\r\nabc\r\n", &twice),
        (b"ms k\r\nabc\r\n", &twice),
    ]);
    // The longest length that a line may say is skipped, not waited for.
    assert_eq!(
        parse(b"set k 0 0 2147483645\r\nabc\r\n"),
        [dropping(TOO_LARGE, false, WireKey::plain(b"k"))]
    );
}

#[test]
fn a_block_without_its_end_is_consumed_and_refused() {
    check(&[
        (b"set k 0 0 3\r\nabcde", &[error(BAD_DATA_CHUNK)]),
        (b"set k 0 0 3\r\nabcde\r\n", &[error(BAD_DATA_CHUNK), error(BAD_FORMAT)]),
        (b"set k 0 0 3 noreply\r\nabcde", &[suppressed(BAD_DATA_CHUNK)]),
        (b"set k 0 0 3\r\nabc\n\n", &[error(BAD_DATA_CHUNK)]),
        (b"ms k 3 q\r\nabcde", &[error(BAD_DATA_CHUNK)]),
    ]);
    let short = parse(b"set k 0 0 3\r\nab\r\nversion\r\n");
    assert_eq!(short, [error(BAD_DATA_CHUNK), error(ERROR)], "one byte of the next line is taken");
}

#[test]
fn too_large_values_are_skipped_and_a_set_drops_the_old_one() {
    let limits = Limits { item_bytes_max: 100, ..LIMITS };
    let key = WireKey::plain(b"k");
    for (input, expected) in [
        (&b"set k 0 0 29\r\n"[..], dropping(TOO_LARGE, false, key)),
        (b"set k 0 0 29 noreply\r\n", dropping(TOO_LARGE, true, key)),
        (b"add k 0 0 29\r\n", error(TOO_LARGE)),
        (b"replace k 0 0 29\r\n", error(TOO_LARGE)),
        (b"append k 0 0 29\r\n", error(TOO_LARGE)),
        (b"prepend k 0 0 29\r\n", error(TOO_LARGE)),
        (b"cas k 0 0 29 1 noreply\r\n", suppressed(TOO_LARGE)),
        (b"ms k 29 q\r\n", dropping(TOO_LARGE, false, key)),
        (b"ms k 29 ME\r\n", dropping(TOO_LARGE, false, key)),
        (
            b"ms aw== 29 b\r\n",
            dropping(TOO_LARGE, false, WireKey { wire: b"aw==", is_base64: true }),
        ),
    ] {
        let whole = [input, &[b'\n'; 29], b"\r\nversion\r\n"].concat();
        let expected = [expected, request(Request::Version)];
        assert_eq!(parse_within(&limits, &whole), expected, "{}", input.escape_ascii());
    }
    let fits = parse_within(&limits, b"set k 0 0 28\r\n----------------------------\r\n");
    assert!(matches!(fits[..], [Parsed::Request(Request::Store(_))]), "{fits:?}");
}

#[test]
fn about_a_mebibyte_less_71_bytes_and_the_key_fits_by_default() {
    let fits = (1 << 20) - 71 - 1;
    let mut parser = Parser::new();
    let line = format!("set k 0 0 {fits}\r\n");
    let step = parser.next(&LIMITS, line.as_bytes());
    assert_eq!(
        step,
        Step { consumed: 0, parsed: Parsed::NeedMore { bytes: line.len() + fits + 2 } }
    );
    let line = format!("set k 0 0 {}\r\n", fits + 1);
    let step = Parser::new().next(&LIMITS, line.as_bytes());
    assert_eq!(step.parsed, dropping(TOO_LARGE, false, WireKey::plain(b"k")));
}

#[test]
fn retrieval_commands() {
    let with = |key, with_cas, new_exptime| {
        request(Request::Get(GetRequest { key, with_cas, new_exptime }))
    };
    let end = request(Request::GetEnd);
    check(&[
        (b"get k\r\n", &[get(b"k"), end]),
        (b"get k\n", &[get(b"k"), end]),
        (b"  get   a  b \r\n", &[get(b"a"), get(b"b"), end]),
        (b"gets a b\r\n", &[with(b"a", true, None), with(b"b", true, None), end]),
        (b"gat 0 a b\r\n", &[with(b"a", false, Some(0)), with(b"b", false, Some(0)), end]),
        (b"gats -1 a\n", &[with(b"a", true, Some(-1)), end]),
        (b"get noreply\r\n", &[get(b"noreply"), end]),
        (b"get a\rb\r\n", &[get(b"a\rb"), end]),
        (b"get\r\n", &[error(BAD_FORMAT)]),
        (b"get  \r\n", &[error(BAD_FORMAT)]),
        (b"gat 0\r\n", &[error(BAD_FORMAT)]),
        (b"gat\r\n", &[error(BAD_FORMAT)]),
        (b"gat x a b\r\n", &[error(BAD_EXPTIME)]),
        (b"gats 2147483648 a\r\n", &[error(BAD_EXPTIME)]),
        (b"GET k\r\n", &[error(ERROR)]),
    ]);
}

#[test]
fn a_long_key_anywhere_in_a_line_is_the_whole_answer() {
    let (longest, over) = (long_key(250), long_key(251));
    let ok = [b"get ", &longest[..], b" b\r\n"].concat();
    assert_eq!(parse(&ok), [get(&longest), get(b"b"), request(Request::GetEnd)]);
    let ok = [b"get b ", &longest[..], b"\n"].concat();
    assert_eq!(parse(&ok), [get(b"b"), get(&longest), request(Request::GetEnd)]);
    for line in [
        [b"get a ", &over[..], b" b\r\n"].concat(),
        [b"get ", &over[..], b"\r\n"].concat(),
        [b"gats 0 a ", &over[..], b"\n"].concat(),
    ] {
        check(&[(&line, &[error(BAD_FORMAT)])]);
    }
}

#[test]
fn a_multiget_may_be_longer_than_a_line() {
    let mut line = b"gets".to_vec();
    for index in 0..5_000 {
        line.extend_from_slice(format!(" key{index}").as_bytes());
    }
    line.extend_from_slice(b"\r\n");
    let parsed = parse(&line);
    assert_eq!(parsed.len(), 5_001);
    let last = GetRequest { key: b"key4999", with_cas: true, new_exptime: None };
    assert_eq!(parsed[4_999], request(Request::Get(last)));
    assert_eq!(parsed[5_000], request(Request::GetEnd));

    let long_line = [&b" ".repeat(100)[..], b"get ", &b"a ".repeat(1_500), b"\n"].concat();
    let parsed = parse(&long_line);
    assert_eq!((parsed.len(), parsed[1_500]), (1_501, request(Request::GetEnd)));
}

#[test]
fn a_long_key_in_a_long_multiget_ends_it() {
    let prefix = [b"get ", &b"a ".repeat(1_500)[..]].concat();
    for after in [&b"\r\n"[..], b"\n", b" b c\r\n", b" b\n"] {
        let input = [&prefix, &long_key(251)[..], after, b"version\r\n"].concat();
        let parsed = parse(&input);
        assert_eq!(parsed.len(), 1_502, "{}", after.escape_ascii());
        assert_eq!(parsed[1_500..], [error(BAD_FORMAT), request(Request::Version)]);
    }
    let input = [b"get ", &long_key(100_000)[..], b" b\nversion\r\n"].concat();
    assert_eq!(parse(&input), [error(BAD_FORMAT), request(Request::Version)]);
    let input = [b"get ", &b" ".repeat(3_000)[..], b"\nversion\r\n"].concat();
    assert_eq!(parse(&input), [error(BAD_FORMAT), request(Request::Version)]);
}

#[test]
fn other_long_lines_close_the_connection() {
    let closed = [Parsed::Close(CloseReason::LineTooLong)];
    for start in
        [&b"set "[..], b"gat 0 ", b"gats 0 ", b"mg ", b"getx ", b"get", b"\0\x80", &[b' '; 101]]
    {
        let input = [start, &b"a".repeat(2_049), b"\r\nversion\r\n"].concat();
        assert_eq!(parse(&input), closed, "{}", start.escape_ascii());
    }
    let spaces = [&b" ".repeat(101)[..], b"get ", &b"a ".repeat(1_500), b"\r\n"].concat();
    assert_eq!(parse(&spaces), closed);
    let longest = [b"delete k ", &b"0".repeat(2_048 - 10)[..], b"\r\n"].concat();
    assert_eq!(longest.len(), 2_049);
    assert_eq!(parse(&longest), [delete(b"k", false)]);
    let waiting = Parser::new().next(&LIMITS, &[b'a'; 2_048]);
    assert_eq!(waiting.parsed, Parsed::NeedMore { bytes: 2_049 });
    let mut parser = Parser::new();
    assert_eq!(parser.next(&LIMITS, &[b'a'; 2_049]).parsed, closed[0]);
    assert_eq!(parser.next(&LIMITS, b"version\r\n").parsed, closed[0], "closed stays closed");
}

#[test]
fn commands_with_a_key_and_a_number() {
    use Direction::{Decrement, Increment};
    let over = [b"delete ", &long_key(251)[..], b"\r\n"].concat();
    check(&[
        (b"delete k\r\n", &[delete(b"k", false)]),
        (b"delete k 0\r\n", &[delete(b"k", false)]),
        (b"delete k 100 x\r\n", &[delete(b"k", false)]),
        (b"delete k 1 2 3\r\n", &[error("ERROR")]),
        (b"delete k 1 2 noreply\r\n", &[error("ERROR")]),
        (b"delete k 0 noreply\r\n", &[delete(b"k", true)]),
        (b"delete k noreply \n", &[delete(b"k", true)]),
        (b"delete noreply\r\n", &[delete(b"noreply", true)]),
        (b"delete\r\n", &[error(BAD_FORMAT)]),
        (&over, &[error(BAD_FORMAT)]),
        (b"incr k 5\r\n", &[arithmetic(Increment, 5, false)]),
        (b"decr k 18446744073709551615 noreply\r\n", &[arithmetic(Decrement, u64::MAX, true)]),
        (b"incr k\r\n", &[error(BAD_FORMAT)]),
        (b"incr\r\n", &[error(BAD_FORMAT)]),
        (b"incr k -1\r\n", &[error(BAD_DELTA)]),
        (b"incr k 1x\r\n", &[error(BAD_DELTA)]),
        (b"decr k 18446744073709551616\r\n", &[error(BAD_DELTA)]),
        (b"decr k x noreply\r\n", &[suppressed(BAD_DELTA)]),
        (b"touch k 0\r\n", &[touch(0, false)]),
        (b"touch k -1 noreply\r\n", &[touch(-1, true)]),
        (b"touch k\r\n", &[error(BAD_FORMAT)]),
        (b"touch k x\r\n", &[error(BAD_EXPTIME)]),
        (b"touch k noreply\r\n", &[suppressed(BAD_EXPTIME)]),
    ]);
}

#[test]
fn commands_without_a_key() {
    let stats = |arguments| request(Request::Stats { arguments });
    check(&[
        (b"flush_all\r\n", &[flush(None, false)]),
        (b"flush_all noreply\r\n", &[flush(None, true)]),
        (b"flush_all 10\r\n", &[flush(Some(10), false)]),
        (b"flush_all -1 noreply\r\n", &[flush(Some(-1), true)]),
        (b"flush_all x\r\n", &[error(BAD_EXPTIME)]),
        (b"flush_all x noreply\r\n", &[suppressed(BAD_EXPTIME)]),
        (b"version extra\r\n", &[request(Request::Version)]),
        (b"verbosity 1\r\n", &[request(Request::Verbosity { level: 1, noreply: false })]),
        (b"verbosity 99 noreply\r\n", &[request(Request::Verbosity { level: 99, noreply: true })]),
        (b"verbosity\r\n", &[error(BAD_FORMAT)]),
        (b"verbosity x\r\n", &[error(BAD_FORMAT)]),
        (b"stats\r\n", &[stats(b"")]),
        (b"stats \r\n", &[stats(b"")]),
        (b"stats  items 1  2 \n", &[stats(b"items 1  2")]),
        (b"quit \r\n", &[request(Request::Quit)]),
        (b"shutdown\r\n", &[request(Request::Shutdown(ShutdownMode::Immediate))]),
        (b"shutdown graceful\r\n", &[request(Request::Shutdown(ShutdownMode::Graceful))]),
        (b"shutdown now\r\n", &[request(Request::Shutdown(ShutdownMode::Unknown))]),
        (b"shutdown graceful x\r\n", &[request(Request::Shutdown(ShutdownMode::Unknown))]),
    ]);
}

#[test]
fn lines_that_are_no_command() {
    check(&[
        (b"\r\n", &[error(BAD_FORMAT)]),
        (b"\n", &[error(BAD_FORMAT)]),
        (b"ab\n", &[error(BAD_FORMAT)]),
        (b"mn\n", &[error(BAD_FORMAT)]),
        (b"a\r\n", &[error(BAD_FORMAT)]),
        (b"ab\r\n", &[error(ERROR)]),
        (b"    \r\n", &[error(ERROR)]),
        (b"getx k\r\n", &[error(ERROR)]),
        (b"unknown noreply\r\n", &[suppressed(ERROR)]),
        (b"refresh_certs\r\n", &[error(ERROR)]),
        (b"HTTP/1.1\r\n", &[error(ERROR)]),
        (b"\x80\x00\x00\x00\n", &[error(ERROR)]),
    ]);
    for http in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"x HTTP/\n"] {
        assert_eq!(parse(http), [Parsed::Close(CloseReason::Http)]);
    }
}

#[test]
fn settings_of_slabs_and_crawlers_are_taken_and_change_nothing() {
    for line in [
        "slabs automove 0",
        "slabs automove 2",
        "lru mode flat",
        "lru mode segmented",
        "lru temp_ttl -1",
        "lru tune 10 25 0.1 2.0",
        "lru_crawler enable",
        "lru_crawler disable",
        "lru_crawler sleep 1000000",
        "lru_crawler tocrawl 10",
        "lru_crawler crawl all",
        "lru_crawler crawl 1",
    ] {
        let noisy = format!("{line}\r\n");
        assert_eq!(parse(noisy.as_bytes()), [request(Request::Tune { noreply: false })], "{line}");
        let quiet = format!("{line} noreply\r\n");
        assert_eq!(parse(quiet.as_bytes()), [request(Request::Tune { noreply: true })], "{line}");
    }
}

#[test]
fn a_limit_of_the_memory_is_taken_in_mebibytes() {
    for (line, megabytes) in [("8", 8), ("1000000000", 1_000_000_000)] {
        for (end, noreply) in [("", false), (" noreply", true)] {
            let line = format!("cache_memlimit {line}{end}\r\n");
            let limit = Request::MemoryLimit { megabytes, noreply };
            assert_eq!(parse(line.as_bytes()), [request(limit)], "{line}");
        }
    }
}

#[test]
fn settings_that_are_wrong_are_refused_with_memcacheds_words() {
    for (line, reply) in [
        ("slabs", ERROR),
        ("slabs reassign 1", ERROR),
        ("slabs reassign 1 2", SLABS_NOT_REASSIGNED),
        ("slabs automove", ERROR),
        ("slabs automove 3", ERROR),
        ("slabs automove x", BAD_FORMAT),
        ("slabs nonsense", ERROR),
        ("lru", ERROR),
        ("lru mode round", ERROR),
        ("lru temp_ttl x", ERROR),
        ("lru tune 1 2 3", ERROR),
        ("lru tune a b c d", ERROR),
        ("lru tune 50 50 1 1", LRU_TOO_MUCH),
        ("lru tune 4294967295 4294967295 1 1", LRU_TOO_MUCH),
        ("lru tune 1 1 0 1", LRU_NO_AGE),
        ("lru tune 1 1 1 NaN", LRU_NO_AGE),
        ("lru_crawler", ERROR),
        ("lru_crawler metadump", ERROR),
        ("lru_crawler mgdump", ERROR),
        ("lru_crawler metadump 1 2", ERROR),
        ("lru_crawler metadump 0", BAD_CLASS),
        ("lru_crawler metadump 1,64", BAD_CLASS),
        ("lru_crawler mgdump foo", BAD_CLASS),
        ("lru_crawler sleep 1000001", SLEEP_TOO_LONG),
        ("lru_crawler sleep -1", BAD_FORMAT),
        ("lru_crawler tocrawl x", BAD_FORMAT),
        ("lru_crawler crawl x", BAD_CLASS),
        ("watch nonsense", ERROR),
        ("watch fetchers FETCHERS", ERROR),
        ("cache_memlimit", ERROR),
        ("cache_memlimit x", ERROR),
        ("cache_memlimit 4294967296", ERROR),
        ("cache_memlimit 7", MEMORY_TOO_SMALL),
        ("cache_memlimit 1000000001", MEMORY_IN_BYTES),
        ("stats detail", DETAIL_USAGE),
        ("stats detail maybe", DETAIL_USAGE),
        ("stats cachedump", CACHE_DUMP_ARGUMENTS),
        ("stats cachedump 1", CACHE_DUMP_ARGUMENTS),
        ("stats cachedump x 1", BAD_FORMAT),
        ("stats cachedump 1 x", BAD_FORMAT),
        ("stats cachedump 64 1", CACHE_DUMP_CLASS),
    ] {
        let noisy = format!("{line}\r\n");
        assert_eq!(parse(noisy.as_bytes()), [error(reply)], "{line}");
    }
}

#[test]
fn what_looks_into_the_store() {
    let dump = |form, has_items| request(Request::Dump(Dump { form, has_items }));
    let detail = |mode| request(Request::Detail(mode));
    let watch = |streams| request(Request::Watch(streams));
    let (fetchers, mutations) = (LogStreams::FETCHERS, LogStreams::MUTATIONS);
    let limit = |limit| DumpForm::Cache { limit };
    check(&[
        (b"lru_crawler metadump all\r\n", &[dump(DumpForm::Metadata, true)]),
        (b"lru_crawler metadump hash\r\n", &[dump(DumpForm::Metadata, true)]),
        (b"lru_crawler metadump 2,3\r\n", &[dump(DumpForm::Metadata, false)]),
        (b"lru_crawler metadump 3,1\r\n", &[dump(DumpForm::Metadata, true)]),
        (b"lru_crawler mgdump hash\r\n", &[dump(DumpForm::Keys, true)]),
        (b"stats cachedump 1 0\r\n", &[dump(limit(0), true)]),
        (b"stats  cachedump 2  7 more\r\n", &[dump(limit(7), false)]),
        (b"stats detail on\r\n", &[detail(DetailMode::On)]),
        (b"stats detail  off more\r\n", &[detail(DetailMode::Off)]),
        (b"stats detail dump\r\n", &[detail(DetailMode::Dump)]),
        (b"watch\r\n", &[watch(fetchers)]),
        (b"watch mutations  fetchers\r\n", &[watch(fetchers.and(mutations))]),
        (b"watch evictions proxyreqs\r\n", &[watch(LogStreams::OTHERS)]),
    ]);
    let both = mutations.and(LogStreams::DELETIONS);
    assert!(both.has_any(mutations) && !both.has_any(fetchers.and(LogStreams::CONNECTIONS)));
}
