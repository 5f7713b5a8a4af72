use proptest::prelude::*;

use super::reply::{NativeItem, NativeReply, ReplyError, ReplyHead};
use super::*;

mod pages;

const LIMITS: NativeLimits = NativeLimits { value_bytes_max: 1000 };
const KEY: ItemKey<'static> = ItemKey { namespace: 7, record: b"record", item: b"item" };

/// One request of every kind and mode.
fn requests() -> Vec<NativeRequest<'static>> {
    let put = |mode| {
        let (client_flags, ttl, value) = (5, 60, &b"value"[..]);
        NativeRequest::Put(PutItem { key: KEY, mode, client_flags, ttl, value })
    };
    let increment = |is_decrement, initial| {
        NativeRequest::Increment(IncrementItem { key: KEY, is_decrement, delta: 3, initial })
    };
    let (version_min, version_max) = (1, 2);
    vec![
        NativeRequest::Ping(b""),
        NativeRequest::Ping(&[b'p'; PING_BYTES_MAX]),
        NativeRequest::Hello(ClientHello { version_min, version_max, name: "a client" }),
        NativeRequest::Statistics,
        NativeRequest::Get(GetItem { key: KEY, metadata_only: false, is_quiet: true }),
        NativeRequest::Get(GetItem { key: KEY, metadata_only: true, is_quiet: false }),
        put(PutMode::Set(Condition::Any)),
        put(PutMode::Set(Condition::Version(u64::MAX))),
        put(PutMode::Set(Condition::Value(b"old value"))),
        put(PutMode::Set(Condition::Value(b""))),
        put(PutMode::IfAbsent),
        put(PutMode::IfPresent),
        put(PutMode::Append),
        put(PutMode::Prepend),
        NativeRequest::Delete(DeleteItem { key: KEY, condition: Condition::Any }),
        NativeRequest::Delete(DeleteItem { key: KEY, condition: Condition::Version(9) }),
        NativeRequest::Delete(DeleteItem { key: KEY, condition: Condition::Value(b"old") }),
        increment(false, None),
        increment(true, Some((12, 30))),
        NativeRequest::Touch(TouchItem { key: KEY, ttl: 9, with_value: false }),
        NativeRequest::Touch(TouchItem { key: KEY, ttl: 0, with_value: true }),
        get_items(ItemRange::Prefix(b""), b""),
        get_items(ItemRange::Prefix(b"pre"), b"token"),
        get_items(ItemRange::Between { from: Some(b""), to: None }, b""),
        get_items(ItemRange::Between { from: Some(b"a"), to: Some(b"z") }, b""),
        NativeRequest::Scan(SCAN),
        NativeRequest::Scan(ScanItems { token: &[3; 4096], is_descending: true, ..SCAN }),
        keyed_items(),
        multi_get(),
        delete_items(ItemRange::Prefix(b"")),
        delete_items(ItemRange::Between { from: None, to: Some(b"z") }),
        mutation(),
        NativeRequest::CreateNamespace(namespace_change(SettingsChange::default())),
        NativeRequest::SetNamespace(namespace_change(SettingsChange {
            ttl_jitter_percent: Some(100),
            cache: Some(NamespaceCache::Bypass),
            bytes_max: Some(u64::MAX),
            ..SettingsChange::default()
        })),
        NativeRequest::ListNamespaces(None),
        NativeRequest::ListNamespaces(Some("users")),
        NativeRequest::DropNamespace("users"),
        NativeRequest::BeginLease(BeginLease { milliseconds: 0, of: LeaseOf::Shard(3) }),
        NativeRequest::BeginLease(BeginLease {
            milliseconds: u32::MAX,
            of: LeaseOf::Record(b"record"),
        }),
        NativeRequest::EndLease(u64::MAX),
        large(LargeWork::Stage { len: 128 << 20 }),
        large(LargeWork::PutChunk { upload: u64::MAX, index: 3, bytes: b"some bytes" }),
        commit(StoreWhen::Always),
        commit(StoreWhen::IfAbsent),
        commit(StoreWhen::IfPresent),
        commit(StoreWhen::IfVersion(u64::MAX)),
        large(LargeWork::Abort { upload: 9 }),
        large(LargeWork::GetChunk { upload: 9, index: u32::MAX }),
    ]
}

fn large(work: LargeWork<'static>) -> NativeRequest<'static> {
    NativeRequest::Large(LargeItem { key: KEY, work })
}

fn commit(when: StoreWhen) -> NativeRequest<'static> {
    large(LargeWork::Commit { upload: 9, when, client_flags: 5, ttl: 60 })
}

/// A put in any case.
fn set() -> NativeRequest<'static> {
    let is_set = |request: &NativeRequest<'_>| {
        matches!(request, NativeRequest::Put(PutItem { mode: PutMode::Set(Condition::Any), .. }))
    };
    requests().into_iter().find(is_set).expect("it is one of them")
}

fn namespace_change(settings: SettingsChange) -> NamespaceChange<'static> {
    NamespaceChange { name: "users", settings }
}

fn delete_items(range: ItemRange<'static>) -> NativeRequest<'static> {
    NativeRequest::DeleteItems(DeleteItems { namespace: 7, record: b"record", range })
}

/// Every kind of change.
fn changes() -> Vec<NativeRequest<'static>> {
    let key = |item| ItemKey { namespace: 7, record: b"record", item };
    let modes = [
        PutMode::Set(Condition::Any),
        PutMode::Set(Condition::Version(u64::MAX)),
        PutMode::Set(Condition::Value(b"old")),
        PutMode::IfAbsent,
        PutMode::IfPresent,
        PutMode::Append,
        PutMode::Prepend,
    ];
    let put = |mode| {
        NativeRequest::Put(PutItem { key: key(b"p"), mode, client_flags: 9, ttl: 1, value: b"v" })
    };
    let mut changes: Vec<_> = modes.map(put).to_vec();
    for condition in [Condition::Any, Condition::Version(3), Condition::Value(b"was")] {
        changes.push(NativeRequest::Delete(DeleteItem { key: key(b""), condition }));
    }
    for (is_decrement, initial) in [(false, None), (true, Some((5, 6))), (false, Some((0, 0)))] {
        let (key, delta) = (key(b"i"), 4);
        changes.push(NativeRequest::Increment(IncrementItem { key, is_decrement, delta, initial }));
    }
    let (key, metadata_only, is_quiet) = (key(&[1; 1024]), true, true);
    changes.push(NativeRequest::Get(GetItem { key, metadata_only, is_quiet }));
    changes
}

fn mutation() -> NativeRequest<'static> {
    static BODY: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| MutateRecord::body(7, b"record", &changes()));
    NativeRequest::Mutate(MutateRecord::read(&BODY).expect("a sound body"))
}

#[test]
fn changes_are_read_as_they_were_written_and_every_wrong_byte_is_refused_or_another_meaning() {
    let NativeRequest::Mutate(mutate) = mutation() else { panic!("it is one") };
    assert_eq!((mutate.len(), mutate.is_empty()), (changes().len(), false));
    assert_eq!(mutate.changes().collect::<Vec<_>>(), changes());
    let body = MutateRecord::body(7, b"record", &changes());
    for at in 0..body.len() {
        assert!(MutateRecord::read(&body[..at]).is_err(), "{at} bytes");
        for bit in 0..8 {
            let mut other = body.clone();
            other[at] ^= 1 << bit;
            if let Ok(read) = MutateRecord::read(&other) {
                let again = MutateRecord::body(
                    read.namespace,
                    read.record,
                    &read.changes().collect::<Vec<_>>(),
                );
                assert_eq!(again, other, "byte {at}, bit {bit}");
            }
        }
    }
}

const PAGE: PageLimits =
    PageLimits { items_max: 1, bytes_max: 2, value_bytes_max: 3, keys_only: true, ..NO_LIMITS };

const NO_LIMITS: PageLimits = PageLimits {
    items_max: 0,
    bytes_max: 0,
    value_bytes_max: 0,
    keys_only: false,
    lease: 0,
    passes_damage: false,
};

fn get_items(range: ItemRange<'static>, token: &'static [u8]) -> NativeRequest<'static> {
    let is_leased = range == ItemRange::Prefix(b"pre");
    let lease = if is_leased { u64::MAX } else { 0 };
    let limits =
        PageLimits { keys_only: token.is_empty(), lease, passes_damage: is_leased, ..PAGE };
    let (namespace, record, is_descending) = (7, &b"record"[..], token.is_empty());
    let keys = None;
    NativeRequest::GetItems(GetItems {
        namespace,
        record,
        range,
        keys,
        is_descending,
        limits,
        token,
    })
}

const SCAN: ScanItems<'static> =
    ScanItems { namespace: 7, limits: PAGE, token: b"", is_descending: false };

fn multi_get() -> NativeRequest<'static> {
    static BODY: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let keys = [KEY, ItemKey { item: b"", ..KEY }, ItemKey { record: &[0; 1024], ..KEY }];
        MultiGet::body(&keys, true, false)
    });
    NativeRequest::MultiGet(MultiGet::read(&BODY).expect("a sound body"))
}

#[test]
fn reads_of_several_items_are_read_as_they_were_written_and_every_cut_is_noticed() {
    let NativeRequest::MultiGet(multi) = multi_get() else { panic!("it is one") };
    let gets: Vec<GetItem<'_>> = multi.gets().collect();
    let expected = |key| GetItem { key, metadata_only: true, is_quiet: false };
    assert_eq!((multi.len(), multi.is_empty(), gets.len()), (3, false, 3));
    assert_eq!(gets[..2], [expected(KEY), expected(ItemKey { item: b"", ..KEY })]);
    let keys: Vec<ItemKey<'_>> = gets.iter().map(|get| get.key).collect();
    let body = MultiGet::body(&keys, true, false);
    for at in 0..body.len() {
        assert!(MultiGet::read(&body[..at]).is_err(), "{at} bytes");
        for bit in 0..8 {
            let mut other = body.clone();
            other[at] ^= 1 << bit;
            if let Ok(read) = MultiGet::read(&other) {
                let keys: Vec<ItemKey<'_>> = read.gets().map(|get| get.key).collect();
                let again = MultiGet::body(&keys, read.metadata_only, read.is_quiet);
                assert_eq!(again, other, "byte {at}, bit {bit}");
            }
        }
    }
    assert!(MultiGet::read(&[&body[..], b"!"].concat()).is_err());
}

fn keyed_items() -> NativeRequest<'static> {
    static KEYS: std::sync::LazyLock<ItemKeyList> =
        std::sync::LazyLock::new(|| ItemKeyList::new([&b"b"[..], b"", b"a"]).expect("good keys"));
    let NativeRequest::GetItems(get) = get_items(ItemRange::Prefix(b""), b"token") else {
        panic!("it is one")
    };
    NativeRequest::GetItems(GetItems { keys: Some(KEYS.as_keys()), ..get })
}

fn bytes_of(id: u64, has_checksum: bool, request: &NativeRequest<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_request(&mut bytes, id, 250, has_checksum, request);
    bytes
}

/// All that `input` holds, received in pieces that end at `cuts`: what was parsed, as text.
fn parse_all(input: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut parser = NativeParser::default();
    let (mut start, mut needed, mut found) = (0, 1, Vec::new());
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    ends.push(input.len());
    ends.sort_unstable();
    for end in ends {
        while end - start >= needed {
            let step = parser.next(&LIMITS, &input[start..end]);
            start += step.consumed;
            needed = 1;
            match step.parsed {
                NativeParsed::NeedMore { bytes } => {
                    needed = bytes;
                    if end - start < needed {
                        break;
                    }
                }
                NativeParsed::Close => {
                    found.push("closed".to_owned());
                    return found;
                }
                whole => found.push(format!("{whole:?}")),
            }
        }
    }
    found
}

#[test]
fn a_token_stands_before_the_body_of_a_change() {
    let token = IdempotencyToken { time_microseconds: 9, nonce: [3; 16] };
    let options = RequestOptions { token: Some(token), ..RequestOptions::default() };
    let parsed = |request: &NativeRequest<'static>| {
        let mut bytes = Vec::new();
        put_request_as(&mut bytes, 1, &options, request);
        match NativeParser::default().next(&LIMITS, &bytes).parsed {
            NativeParsed::Request(head, read) => {
                assert_eq!(read, *request);
                Some(head.token.expect("it has one"))
            }
            NativeParsed::Refused(refusal) => {
                assert_eq!(refusal.status, NativeStatus::Malformed);
                None
            }
            other => panic!("{other:?}"),
        }
    };
    let mut fingerprints = Vec::new();
    for request in requests() {
        let received = parsed(&request);
        let takes_token = matches!(
            request.opcode(),
            Opcode::Put
                | Opcode::Delete
                | Opcode::Increment
                | Opcode::Touch
                | Opcode::GetAndTouch
                | Opcode::MutateRecord
                | Opcode::DeleteItems
        );
        assert_eq!(received.is_some(), takes_token, "{request:?}");
        if let Some(received) = received {
            assert_eq!(received.token, token);
            fingerprints.push(received.fingerprint);
        }
    }
    let count = fingerprints.len();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), count, "each request is another");
    let mut short = Vec::new();
    put_request_as(&mut short, 1, &options, &set());
    short.truncate(HEADER_BYTES + TOKEN_BYTES - 1);
    short[4..8].copy_from_slice(&(TOKEN_BYTES as u32 - 1).to_le_bytes());
    let step = NativeParser::default().next(&LIMITS, &short);
    assert!(matches!(step.parsed, NativeParsed::Refused(_)), "{step:?}");
}

#[test]
fn every_request_is_read_as_it_was_written() {
    for (id, request) in requests().into_iter().enumerate() {
        for has_checksum in [false, true] {
            let bytes = bytes_of(id as u64, has_checksum, &request);
            let step = NativeParser::default().next(&LIMITS, &bytes);
            let head = RequestHead {
                id: id as u64,
                opcode: request.opcode(),
                deadline_microseconds: 250,
                has_checksum,
                durability: RequestDurability::AsNode,
                token: None,
            };
            assert_eq!(step.consumed, bytes.len());
            assert_eq!(step.parsed, NativeParsed::Request(head, request));
        }
    }
    let opcodes: std::collections::HashSet<_> =
        requests().iter().map(NativeRequest::opcode).collect();
    assert_eq!(opcodes.len(), Opcode::ALL.len(), "an opcode is not tried");
}

fn status_of(bytes: &[u8]) -> Option<(NativeStatus, bool)> {
    match NativeParser::default().next(&LIMITS, bytes).parsed {
        NativeParsed::Refused(refusal) => Some((refusal.status, refusal.is_last)),
        _ => None,
    }
}

#[test]
fn what_is_no_request_has_its_status() {
    let get = NativeRequest::Get(GetItem { key: KEY, metadata_only: false, is_quiet: false });
    let put = set();
    let changed = |request, at: usize, byte: u8| {
        let mut bytes = bytes_of(1, false, request);
        bytes[at] = byte;
        bytes
    };
    let get = |at, byte| status_of(&changed(&get, at, byte));
    let put = |at, byte| status_of(&changed(&put, at, byte));
    assert_eq!(get(1, 2), Some((NativeStatus::UnsupportedVersion, true)));
    assert_eq!(get(2, 0xEE), Some((NativeStatus::UnknownOpcode, false)));
    assert_eq!(get(3, 6), Some((NativeStatus::UnknownFlag, false)), "no such durability");
    assert_eq!((get(3, 2), get(3, 4)), (None, None), "durabilities");
    assert_eq!(get(3, 0x10), None, "this flag may be ignored");
    assert_eq!(
        get(20, 1),
        Some((NativeStatus::BadChecksum, true)),
        "a checksum that nothing announces"
    );
    let malformed = Some((NativeStatus::Malformed, false));
    assert_eq!(get(HEADER_BYTES + 4, 0), malformed, "no record");
    assert_eq!(get(HEADER_BYTES + 4, 200), malformed, "a record that is longer than the body");
    assert_eq!(get(HEADER_BYTES + 6, 0), malformed, "bytes behind the key");
    assert_eq!(get(HEADER_BYTES + 7, 5), malformed, "an item key over the limit");
    assert_eq!(get(HEADER_BYTES + 8, 4), malformed, "an option that is not known");
    assert_eq!(get(HEADER_BYTES + 12, 1), malformed, "reserved");
    assert_eq!(put(HEADER_BYTES + 8, 7), malformed, "a mode that is not known");
    assert_eq!(put(HEADER_BYTES + 20, 1), malformed, "reserved");
    assert_eq!(put(HEADER_BYTES + 24, 1), malformed, "a version for a mode that has none");
    assert_eq!(put(2, Opcode::Get as u8), malformed, "a body for another opcode");
    let mut short = bytes_of(1, false, &NativeRequest::Ping(b""));
    short[2] = Opcode::Delete as u8;
    assert_eq!(status_of(&short), malformed);
}

#[test]
fn a_flipped_bit_is_noticed_where_there_is_a_checksum() {
    let bytes = bytes_of(1, true, &set());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let step = NativeParser::default().next(&LIMITS, &flipped);
        assert!(!matches!(step.parsed, NativeParsed::Request(..)), "bit {bit}");
    }
}

#[test]
fn a_body_over_the_limit_is_passed_over_in_pieces() {
    let key = ItemKey { item: b"", ..KEY };
    let value = vec![0xD1; LIMITS.body_bytes_max()];
    let mode = PutMode::IfAbsent;
    let put = NativeRequest::Put(PutItem { key, mode, client_flags: 0, ttl: 0, value: &value });
    let mut input = bytes_of(1, false, &put);
    input.extend(bytes_of(2, false, &NativeRequest::Ping(b"after")));
    let whole = parse_all(&input, &[]);
    assert_eq!(whole.len(), 2, "{whole:?}");
    assert!(whole[0].contains("TooLarge") && whole[1].contains("Ping"), "{whole:?}");
    let cuts: Vec<usize> = (0..input.len()).step_by(7).collect();
    assert_eq!(parse_all(&input, &cuts), whole);
}

#[test]
fn other_protocols_are_turned_away() {
    for other in [&b"get key\r\n"[..], b"\x80\x01", b"G", &[MAGIC_REPLY; HEADER_BYTES]] {
        let step = NativeParser::default().next(&LIMITS, other);
        assert_eq!(step.parsed, NativeParsed::Close, "{other:?}");
    }
}

fn head(id: u64) -> ReplyHead {
    ReplyHead { id, opcode: Opcode::Get as u8, has_checksum: id.is_multiple_of(2), hops: 1 }
}

fn read(bytes: &[u8]) -> NativeReply<'_> {
    let (reply, len) = NativeReply::read(bytes, 1 << 20).expect("a reply");
    assert_eq!(len, bytes.len());
    reply
}

#[test]
fn every_reply_is_read_as_it_was_written() {
    for id in [1, 2] {
        let (version, client_flags, expiry, value_len) = (1 << 40, 2, 3, 5);
        let item = NativeItem { version, client_flags, expiry, value_len, value: b"value" };
        let mut out = Vec::new();
        reply::put_item(&mut out, head(id), &item);
        assert_eq!((read(&out).head, read(&out).status), (head(id), Some(NativeStatus::Ok)));
        assert_eq!(read(&out).item(), Ok(item));
        assert_eq!(reply::head_of(&out), head(id));
        assert_eq!(read(&out).version(), Err(ReplyError::Body));
        let without = NativeItem { value: b"", ..item };
        out.clear();
        reply::put_item(&mut out, head(id), &without);
        assert_eq!(read(&out).item(), Ok(without), "its length stays known");
        out.clear();
        reply::put_version(&mut out, head(id), 9);
        assert_eq!((read(&out).version(), read(&out).number()), (Ok(9), Err(ReplyError::Body)));
        assert_eq!(read(&out).item(), Err(ReplyError::Body));
        out.clear();
        reply::put_number(&mut out, head(id), 4, 5);
        assert_eq!(read(&out).number(), Ok((4, 5)));
        out.clear();
        reply::put_error(&mut out, head(id), NativeStatus::Full, "no room");
        assert_eq!(
            (read(&out).status, read(&out).reason()),
            (Some(NativeStatus::Full), "no room".into())
        );
        let last = out.len() - 1;
        out[last] ^= 1;
        let expected = if id == 2 { Err(Err(ReplyError::Checksum)) } else { Ok(()) };
        assert_eq!(NativeReply::read(&out, 1 << 20).map(|_| ()), expected);
        assert_eq!(NativeReply::read(&out, 3).err(), Some(Err(ReplyError::TooLong(7))));
    }
    let request = bytes_of(1, false, &requests()[0]);
    assert_eq!(NativeReply::read(&request, 1 << 20).err(), Some(Err(ReplyError::Foreign)));
    let mut unknown = Vec::new();
    reply::put_error(&mut unknown, head(1), NativeStatus::Full, "");
    unknown[3] = 0xEE;
    assert_eq!(read(&unknown).status, None);
}

#[test]
fn a_node_says_what_it_is() {
    let hello = HelloReply {
        version: 1,
        software: "larder 0.1.0".into(),
        shards: 3,
        hash_seed: u64::MAX,
        cores: 2,
        core: 1,
        core_ports: vec![9500, 9501],
        record_bytes_max: 1024,
        item_bytes_max: 1023,
        value_bytes_max: 1 << 20,
        body_bytes_max: 1 << 21,
        requests_max: 77,
        opcodes: Opcode::ALL.map(|opcode| opcode as u8).to_vec(),
        page_items_max: 88,
        page_bytes_max: 99,
        read_target_microseconds: 500,
        write_target_microseconds: 2000,
        shard_loads: vec![0, 100, 7],
        capabilities: capability::ALL,
        token_window_seconds: 600,
        token_drift_seconds: 60,
        large_bytes_max: 128 << 20,
        chunk_bytes_max: 512 << 10,
        read_p99_microseconds: vec![150, 0],
        write_p99_microseconds: vec![u32::MAX, 900],
    };
    assert_eq!(HelloReply::decode(&hello.encode()), Ok(hello));
    assert_eq!(HelloReply::decode(b"12345678"), Err(StructureError::Identifier));
}

proptest! {
    #[test]
    fn requests_do_not_depend_on_how_bytes_are_cut(
        picks in proptest::collection::vec((0usize..23, any::<bool>()), 1..8),
        flip in proptest::option::of((0usize..500, 0u8..8)),
        cuts in proptest::collection::vec(0usize..1000, 0..20),
    ) {
        let requests = requests();
        let mut input = Vec::new();
        for (id, (pick, has_checksum)) in picks.into_iter().enumerate() {
            input.extend(bytes_of(id as u64, has_checksum, &requests[pick]));
        }
        if let Some((at, bit)) = flip {
            let at = at % input.len();
            input[at] ^= 1 << bit;
        }
        prop_assert_eq!(parse_all(&input, &cuts), parse_all(&input, &[]));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut parser = NativeParser::default();
        parser.next(&LIMITS, &bytes);
        let _ = NativeReply::read(&bytes, 1 << 20);
        let mut framed = bytes_of(1, false, &NativeRequest::Ping(b""));
        framed[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        framed.extend_from_slice(&bytes);
        for opcode in Opcode::ALL {
            framed[2] = opcode as u8;
            NativeParser::default().next(&LIMITS, &framed);
        }
        let mut hello = vec![8, 0, 0, 0];
        hello.extend_from_slice(b"LRHE");
        hello.extend_from_slice(&bytes);
        let _ = HelloReply::decode(&hello);
        hello[4..8].copy_from_slice(b"LRPG");
        let _ = NativePage::decode(&hello);
        hello[4..8].copy_from_slice(b"LRNS");
        let _ = NativeNamespace::decode_all(&hello);
        let _ = MutateRecord::read(&bytes);
        let flat = [
            (b"LRGI", Opcode::GetItems),
            (b"LRSC", Opcode::Scan),
            (b"LRDI", Opcode::DeleteItems),
            (b"LRNC", Opcode::SetNamespace),
        ];
        for (identifier, opcode) in flat {
            hello[4..8].copy_from_slice(identifier);
            let mut framed = bytes_of(1, false, &NativeRequest::Ping(b""));
            framed[2] = opcode as u8;
            framed[4..8].copy_from_slice(&(hello.len() as u32).to_le_bytes());
            framed.extend_from_slice(&hello);
            NativeParser::default().next(&LIMITS, &framed);
        }
    }
}
