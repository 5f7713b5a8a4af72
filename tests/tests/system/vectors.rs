//! The vectors of the native protocol, read and written.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use larder_protocol::native::reply::{self, Changed, NativeItem, NativeReply, ReplyHead};
use larder_protocol::native::{
    BeginLease, ClientHello, Condition, DeleteItem, DeleteItems, GetItem, GetItems, HelloReply,
    IdempotencyToken, IncrementItem, ItemKey, ItemKeyList, ItemRange, LargeHead, LargeItem,
    LargeWork, LeaseOf, MultiGet, MutateRecord, NamespaceCache, NamespaceChange,
    NamespaceDurability, NamespaceSettings, NativeLease, NativeLimits, NativeNamespace, NativePage,
    NativePageItem, NativeParsed, NativeParser, NativeRequest, NativeStatus, Opcode, PageLimits,
    PutItem, PutMode, RequestDurability, RequestOptions, ScanItems, SettingsChange,
    StatisticsReply, StoreWhen, TouchItem, not_found, put_found, put_request, put_request_as,
};
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::tidy;
use serde_json::Value;

const LIMITS: NativeLimits = NativeLimits { value_bytes_max: 1 << 20 };

fn vectors(name: &str) -> Vec<Value> {
    let path = tidy::root().join("protocol/vectors").join(name);
    let text = std::fs::read_to_string(&path).expect("the vectors are there");
    let vectors: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert!(vectors.len() > 10, "{name} holds {} vectors only", vectors.len());
    vectors
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("hexadecimal");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn short(value: &Value) -> u32 {
    u32::try_from(number(value)).expect("32 bits")
}

fn is(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| panic!("{value} is neither true nor false"))
}

/// The bytes that a vector's request borrows.
struct Borrowed {
    record: Vec<u8>,
    item: Vec<u8>,
    /// The value that is demanded.
    demanded: Option<Vec<u8>>,
    bytes: Vec<u8>,
    prefix: Option<Vec<u8>>,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    token: Vec<u8>,
    keys: Option<ItemKeyList>,
    /// The body of a read of several items.
    multi: Vec<u8>,
    /// The body of changes of a record.
    mutation: Vec<u8>,
}

fn borrowed(fields: &Value) -> Borrowed {
    let of = |name: &str| fields.get(name).map(hex).unwrap_or_default();
    let found = |name: &str| fields.get(name).map(hex);
    let bytes = if fields.get("bytes").is_some() { of("bytes") } else { of("value") };
    Borrowed {
        record: of("record"),
        item: of("item"),
        demanded: found("if_value"),
        bytes,
        prefix: found("prefix"),
        from: found("from_key"),
        to: found("to_key"),
        token: of("token"),
        keys: fields.get("keys").map(|keys| {
            let keys = keys.as_array().expect("a list").iter().map(hex);
            ItemKeyList::new(keys).expect("good keys")
        }),
        multi: fields.get("gets").map(|_| multi(fields)).unwrap_or_default(),
        mutation: fields.get("changes").map(|_| mutation(fields)).unwrap_or_default(),
    }
}

/// The body of the reads that a vector means.
fn multi(fields: &Value) -> Vec<u8> {
    let gets = fields["gets"].as_array().expect("gets").iter();
    let parts: Vec<_> = gets.map(|get| (hex(&get["record"]), hex(&get["item"]))).collect();
    let namespace = short(&fields["namespace"]);
    let keys: Vec<_> =
        parts.iter().map(|(record, item)| ItemKey { namespace, record, item }).collect();
    MultiGet::body(&keys, is(&fields["metadata_only"]), is(&fields["quiet"]))
}

/// The body of the changes that a vector means.
fn mutation(fields: &Value) -> Vec<u8> {
    let list = fields["changes"].as_array().expect("changes");
    let bytes = |change: &Value, name: &str| change.get(name).map(hex).unwrap_or_default();
    let parts = |one: &Value| {
        (one.clone(), bytes(one, "item"), [bytes(one, "if_value"), bytes(one, "value")])
    };
    let parts: Vec<_> = list.iter().map(parts).collect();
    let record = hex(&fields["record"]);
    let namespace = short(&fields["namespace"]);
    let changes: Vec<_> = parts
        .iter()
        .map(|(fields, item, values)| {
            change(fields, ItemKey { namespace, record: &record, item }, values)
        })
        .collect();
    MutateRecord::body(namespace, &record, &changes)
}

fn change<'a>(
    fields: &Value,
    key: ItemKey<'a>,
    [demanded, value]: &'a [Vec<u8>; 2],
) -> NativeRequest<'a> {
    let kind = fields["kind"].as_str().expect("a kind");
    let known = |name: &str| fields.get(name).map_or(0, number);
    let (client_flags, ttl) = (known("client_flags") as u32, known("ttl") as u32);
    let version = Condition::Version(known("version"));
    let put = |mode| NativeRequest::Put(PutItem { key, mode, client_flags, ttl, value });
    let increment = |is_decrement, creates: bool| {
        let initial = creates.then(|| (known("initial"), ttl));
        NativeRequest::Increment(IncrementItem {
            key,
            is_decrement,
            delta: known("delta"),
            initial,
        })
    };
    match kind {
        "set" => put(PutMode::Set(Condition::Any)),
        "put_if_absent" => put(PutMode::IfAbsent),
        "put_if_present" => put(PutMode::IfPresent),
        "put_if_version" => put(PutMode::Set(version)),
        "put_if_value" => put(PutMode::Set(Condition::Value(demanded))),
        "append" => put(PutMode::Append),
        "prepend" => put(PutMode::Prepend),
        "delete" => NativeRequest::Delete(DeleteItem { key, condition: Condition::Any }),
        "delete_if_version" => NativeRequest::Delete(DeleteItem { key, condition: version }),
        "delete_if_value" => {
            NativeRequest::Delete(DeleteItem { key, condition: Condition::Value(demanded) })
        }
        "increment" => increment(false, false),
        "decrement" => increment(true, false),
        "increment_or_create" => increment(false, true),
        "decrement_or_create" => increment(true, true),
        "check_present" => NativeRequest::Get(GetItem { key, metadata_only: true, is_quiet: true }),
        other => panic!("{other} is no change"),
    }
}

fn limits(fields: &Value) -> PageLimits {
    PageLimits {
        items_max: short(&fields["items_max"]),
        bytes_max: short(&fields["bytes_max"]),
        value_bytes_max: short(&fields["value_bytes_max"]),
        keys_only: is(&fields["keys_only"]),
        lease: fields.get("lease").map_or(0, number),
        passes_damage: fields.get("passes_damage").is_some_and(is),
    }
}

fn lease_of<'a>(fields: &Value, borrowed: &'a Borrowed) -> LeaseOf<'a> {
    match fields.get("shard") {
        Some(shard) => LeaseOf::Shard(number(shard) as u16),
        None => LeaseOf::Record(&borrowed.record),
    }
}

fn range(borrowed: &Borrowed) -> ItemRange<'_> {
    let (from, to) = (borrowed.from.as_deref(), borrowed.to.as_deref());
    if from.is_none() && to.is_none() {
        return ItemRange::Prefix(borrowed.prefix.as_deref().unwrap_or_default());
    }
    ItemRange::Between { from, to }
}

fn meaning<'a>(kind: &str, fields: &'a Value, borrowed: &'a Borrowed) -> NativeRequest<'a> {
    let namespace = || short(&fields["namespace"]);
    let key = || ItemKey { namespace: namespace(), record: &borrowed.record, item: &borrowed.item };
    let condition = || match (fields.get("version"), &borrowed.demanded) {
        (Some(version), _) => Condition::Version(number(version)),
        (None, Some(demanded)) => Condition::Value(demanded),
        (None, None) => Condition::Any,
    };
    match kind {
        "ping" => NativeRequest::Ping(&borrowed.bytes),
        "statistics" => NativeRequest::Statistics,
        "hello" => NativeRequest::Hello(ClientHello {
            version_min: number(&fields["version_min"]) as u16,
            version_max: number(&fields["version_max"]) as u16,
            name: fields["name"].as_str().expect("a name"),
        }),
        "get" => NativeRequest::Get(GetItem {
            key: key(),
            metadata_only: is(&fields["metadata_only"]),
            is_quiet: is(&fields["quiet"]),
        }),
        "put" => NativeRequest::Put(PutItem {
            key: key(),
            mode: put_mode(fields, condition()),
            client_flags: short(&fields["client_flags"]),
            ttl: short(&fields["ttl"]),
            value: &borrowed.bytes,
        }),
        "delete" => NativeRequest::Delete(DeleteItem { key: key(), condition: condition() }),
        "increment" => NativeRequest::Increment(IncrementItem {
            key: key(),
            is_decrement: is(&fields["decrement"]),
            delta: number(&fields["delta"]),
            initial: fields.get("initial").map(|initial| (number(initial), short(&fields["ttl"]))),
        }),
        "touch" | "get_and_touch" => NativeRequest::Touch(TouchItem {
            key: key(),
            ttl: short(&fields["ttl"]),
            with_value: kind == "get_and_touch",
        }),
        "get_items" => NativeRequest::GetItems(get_items(namespace(), fields, borrowed)),
        "scan" => NativeRequest::Scan(scan_items(namespace(), fields, borrowed)),
        "multi_get" => NativeRequest::MultiGet(
            MultiGet::read(&borrowed.multi).unwrap_or_else(|reason| panic!("{reason}")),
        ),
        "mutate_record" => NativeRequest::Mutate(
            MutateRecord::read(&borrowed.mutation).unwrap_or_else(|reason| panic!("{reason}")),
        ),
        "delete_items" => NativeRequest::DeleteItems(DeleteItems {
            namespace: namespace(),
            record: &borrowed.record,
            range: range(borrowed),
        }),
        "begin_lease" => NativeRequest::BeginLease(BeginLease {
            milliseconds: short(&fields["milliseconds"]),
            of: lease_of(fields, borrowed),
        }),
        "end_lease" => NativeRequest::EndLease(number(&fields["lease"])),
        "stage" | "put_chunk" | "commit" | "abort" | "get_chunk" => {
            NativeRequest::Large(LargeItem { key: key(), work: large_work(kind, fields, borrowed) })
        }
        other => namespace_request(other, fields),
    }
}

fn put_mode<'a>(fields: &Value, condition: Condition<'a>) -> PutMode<'a> {
    match text(&fields["mode"]) {
        "set" | "if_version" | "if_value" => PutMode::Set(condition),
        "if_absent" => PutMode::IfAbsent,
        "if_present" => PutMode::IfPresent,
        "append" => PutMode::Append,
        "prepend" => PutMode::Prepend,
        other => panic!("{other} is no mode"),
    }
}

fn get_items<'a>(namespace: u32, fields: &Value, borrowed: &'a Borrowed) -> GetItems<'a> {
    GetItems {
        namespace,
        record: &borrowed.record,
        range: range(borrowed),
        keys: borrowed.keys.as_ref().map(ItemKeyList::as_keys),
        is_descending: is(&fields["descending"]),
        limits: limits(fields),
        token: &borrowed.token,
    }
}

fn scan_items<'a>(namespace: u32, fields: &Value, borrowed: &'a Borrowed) -> ScanItems<'a> {
    ScanItems {
        namespace,
        limits: limits(fields),
        token: &borrowed.token,
        is_descending: is(&fields["descending"]),
    }
}

fn large_work<'a>(kind: &str, fields: &Value, borrowed: &'a Borrowed) -> LargeWork<'a> {
    let (upload, index) = (|| number(&fields["upload"]), || short(&fields["index"]));
    match kind {
        "stage" => LargeWork::Stage { len: short(&fields["length"]) },
        "put_chunk" => {
            LargeWork::PutChunk { upload: upload(), index: index(), bytes: &borrowed.bytes }
        }
        "abort" => LargeWork::Abort { upload: upload() },
        "get_chunk" => LargeWork::GetChunk { upload: upload(), index: index() },
        _ => LargeWork::Commit {
            upload: upload(),
            when: match text(&fields["mode"]) {
                "set" => StoreWhen::Always,
                "if_absent" => StoreWhen::IfAbsent,
                "if_present" => StoreWhen::IfPresent,
                _ => StoreWhen::IfVersion(number(&fields["version"])),
            },
            client_flags: short(&fields["client_flags"]),
            ttl: short(&fields["ttl"]),
        },
    }
}

/// What stands for the large value of a vector.
fn large_head(fields: &Value) -> LargeHead {
    LargeHead {
        upload: number(&fields["upload"]),
        len: short(&fields["length"]),
        chunk_bytes: short(&fields["chunk_length"]),
    }
}

fn namespace_request<'a>(kind: &str, fields: &'a Value) -> NativeRequest<'a> {
    match kind {
        "create_namespace" => NativeRequest::CreateNamespace(namespace_change(fields)),
        "set_namespace" => NativeRequest::SetNamespace(namespace_change(fields)),
        "list_namespaces" => NativeRequest::ListNamespaces(fields.get("name").map(text)),
        "drop_namespace" => NativeRequest::DropNamespace(text(&fields["name"])),
        other => panic!("{other} is no request"),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn namespace_change(fields: &Value) -> NamespaceChange<'_> {
    NamespaceChange { name: text(&fields["name"]), settings: settings(&fields["settings"]) }
}

/// The settings that a vector names.
fn settings(fields: &Value) -> SettingsChange {
    let known = |name: &str| fields.get(name).map(number);
    let known_short = |name: &str| fields.get(name).map(short);
    SettingsChange {
        ttl_default: known_short("ttl_default"),
        ttl_max: known_short("ttl_max"),
        ttl_jitter_percent: known("ttl_jitter_percent").map(|percent| percent as u8),
        value_bytes_max: known_short("value_bytes_max"),
        page_items_max: known_short("page_items_max"),
        page_bytes_max: known_short("page_bytes_max"),
        durability: known("durability").map(|code| match code {
            0 => NamespaceDurability::Node,
            1 => NamespaceDurability::Sync,
            2 => NamespaceDurability::None,
            _ => panic!("{code} is no durability"),
        }),
        cache: known("cache").map(|code| match code {
            0 => NamespaceCache::Values,
            1 => NamespaceCache::KeysOnly,
            2 => NamespaceCache::Bypass,
            _ => panic!("{code} is no cache policy"),
        }),
        compress_from: known_short("compress_from"),
        bytes_max: known("bytes_max"),
        record_bytes_max: known("record_bytes_max"),
    }
}

/// The namespaces that a vector's reply shows.
fn namespaces(fields: &Value) -> Vec<NativeNamespace> {
    let namespace = |fields: &Value| NativeNamespace {
        name: text(&fields["name"]).to_owned(),
        number: short(&fields["number"]),
        settings: settings(&fields["settings"]).of(NamespaceSettings::default()),
    };
    fields["namespaces"].as_array().expect("a list").iter().map(namespace).collect()
}

#[test]
fn requests_are_what_the_vectors_say() {
    let mut opcodes = std::collections::BTreeSet::new();
    for vector in vectors("requests.json") {
        let (name, bytes) = (&vector["name"], hex(&vector["hex"]));
        let fields = &vector["fields"];
        let borrowed = borrowed(fields);
        let request = meaning(vector["kind"].as_str().expect("a kind"), fields, &borrowed);
        let (id, deadline) = (number(&vector["id"]), short(&vector["deadline"]));
        let mut written = Vec::new();
        let durability = match vector.get("durability").map(|it| it.as_str().expect("text")) {
            None => RequestDurability::AsNode,
            Some("sync") => RequestDurability::Sync,
            Some("none") => RequestDurability::None,
            Some(other) => panic!("{other} is no durability"),
        };
        let token = vector.get("token").map(|token| IdempotencyToken {
            time_microseconds: number(&token["time"]),
            nonce: hex(&token["nonce"]).try_into().expect("16 bytes"),
        });
        let options = RequestOptions {
            deadline_microseconds: deadline,
            has_checksum: is(&vector["checksum"]),
            durability,
            token,
        };
        put_request_as(&mut written, id, &options, &request);
        assert_eq!(written, bytes, "{name}");
        let step = NativeParser::default().next(&LIMITS, &bytes);
        let NativeParsed::Request(head, read) = step.parsed else { panic!("{name}: {step:?}") };
        assert_eq!((read, step.consumed), (request, bytes.len()), "{name}");
        assert_eq!((head.id, head.deadline_microseconds), (id, deadline), "{name}");
        assert_eq!(head.has_checksum, is(&vector["checksum"]), "{name}");
        assert_eq!(head.durability, durability, "{name}");
        assert_eq!(head.token.map(|received| received.token), token, "{name}");
        opcodes.insert(head.opcode as u8);
    }
    assert_eq!(opcodes.len(), Opcode::ALL.len(), "every opcode has a vector");
}

/// Record, item key and value of an item of a page.
type Parts = (Option<Vec<u8>>, Vec<u8>, Option<Vec<u8>>);

/// Byte strings of a page's items, and the items.
fn page_items(fields: &Value) -> Vec<(Parts, &Value)> {
    let items = fields["items"].as_array().expect("items").iter();
    let part = |item: &Value, name: &str| item.get(name).map(hex);
    items
        .map(|item| ((part(item, "record"), hex(&item["item"]), part(item, "value")), item))
        .collect()
}

fn shown<'a>(((record, item, value), fields): &'a (Parts, &'a Value)) -> NativePageItem<'a> {
    NativePageItem {
        record: record.as_deref(),
        item,
        version: number(&fields["version"]),
        client_flags: short(&fields["client_flags"]),
        expiry: short(&fields["expiry"]),
        value_len: short(&fields["value_length"]),
        value: value.as_deref(),
    }
}

fn write_page(fields: &Value, head: ReplyHead, out: &mut Vec<u8>) {
    let (items, next) = (page_items(fields), fields.get("next").map(hex));
    let end = (next.as_deref(), fields.get("damaged").is_some_and(is));
    reply::put_page(out, head, items.iter().map(shown), 100, end);
}

/// Writes figures, and reads them again.
fn write_statistics(fields: &Value, head: ReplyHead, out: &mut Vec<u8>) {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let pair = |pair: &Value| (text(&pair[0]), text(&pair[1]));
    let values = fields["values"].as_array().expect("values").iter().map(pair).collect();
    let written = StatisticsReply { values };
    let body = written.encode();
    assert_eq!(StatisticsReply::decode(&body), Ok(written));
    reply::put(out, head, NativeStatus::Ok, |out| out.extend_from_slice(&body));
}

/// Writes what a node says of itself, and reads it again.
fn write_hello(fields: &Value, head: ReplyHead, out: &mut Vec<u8>) {
    let word = |name: &str| u16::try_from(number(&fields[name])).expect("16 bits");
    let list = |name: &str| fields[name].as_array().expect("a list").iter().map(number);
    let bytes = |name: &str| list(name).map(|number| number as u8).collect();
    let latencies = |name: &str| list(name).map(|number| number as u32).collect();
    let written = HelloReply {
        version: word("version"),
        software: fields["software"].as_str().expect("text").to_owned(),
        shards: word("shards"),
        hash_seed: number(&fields["hash_seed"]),
        cores: word("cores"),
        core: word("core"),
        core_ports: list("core_ports").map(|port| port as u16).collect(),
        record_bytes_max: short(&fields["record_bytes_max"]),
        item_bytes_max: short(&fields["item_bytes_max"]),
        value_bytes_max: short(&fields["value_bytes_max"]),
        body_bytes_max: short(&fields["body_bytes_max"]),
        requests_max: short(&fields["requests_max"]),
        opcodes: bytes("opcodes"),
        page_items_max: short(&fields["page_items_max"]),
        page_bytes_max: short(&fields["page_bytes_max"]),
        read_target_microseconds: short(&fields["read_target_microseconds"]),
        write_target_microseconds: short(&fields["write_target_microseconds"]),
        shard_loads: bytes("shard_loads"),
        capabilities: number(&fields["capabilities"]),
        token_window_seconds: short(&fields["token_window_seconds"]),
        token_drift_seconds: short(&fields["token_drift_seconds"]),
        large_bytes_max: short(&fields["large_bytes_max"]),
        chunk_bytes_max: short(&fields["chunk_bytes_max"]),
        read_p99_microseconds: latencies("read_p99_microseconds"),
        write_p99_microseconds: latencies("write_p99_microseconds"),
    };
    let body = written.encode();
    assert_eq!(HelloReply::decode(&body), Ok(written));
    reply::put(out, head, NativeStatus::Ok, |out| out.extend_from_slice(&body));
}

/// Writes the reply to a read of several items, and reads it again.
fn write_entries(fields: &Value, head: ReplyHead, out: &mut Vec<u8>) {
    let entries = fields["entries"].as_array().expect("entries");
    reply::put(out, head, NativeStatus::Ok, |out| {
        for entry in entries {
            let status = NativeStatus::from_code(number(&entry["status"]) as u8);
            match status.expect("a status") {
                NativeStatus::Ok => put_found(out, &item(entry, &hex(&entry["value"]))),
                status => out.extend_from_slice(&not_found(status)),
            }
        }
    });
    let (reply, _) = NativeReply::read(out, 1 << 20).expect("a reply");
    let read = reply.multi(entries.len()).expect("as many entries");
    for (read, entry) in read.iter().zip(entries) {
        let value = entry.get("value").map(hex).unwrap_or_default();
        match read {
            Ok(read) => assert_eq!(*read, item(entry, &value)),
            Err(status) => assert_eq!(status.map(|it| it as u64), entry["status"].as_u64()),
        }
    }
}

fn item<'a>(fields: &Value, value: &'a [u8]) -> NativeItem<'a> {
    NativeItem {
        version: number(&fields["version"]),
        client_flags: short(&fields["client_flags"]),
        expiry: short(&fields["expiry"]),
        value_len: short(&fields["value_length"]),
        value,
    }
}

fn lease(fields: &Value) -> NativeLease {
    NativeLease {
        lease: number(&fields["lease"]),
        milliseconds: short(&fields["milliseconds"]),
        shard: number(&fields["shard"]) as u16,
    }
}

/// Writes the reply that a vector means.
fn write(kind: &str, fields: &Value, head: ReplyHead, status: NativeStatus, out: &mut Vec<u8>) {
    if let Some(at) = fields.get("refused") {
        return reply::put_refused_change(out, head, status, number(at) as usize);
    }
    if status == NativeStatus::Large {
        let stands = large_head(&fields["large"]);
        reply::put_large(out, head, &item(fields, b""), &stands.bytes());
        let (reply, _) = NativeReply::read(out, 1 << 20).expect("a reply");
        return assert_eq!(reply.large(), Ok((item(fields, b""), stands)));
    }
    if status != NativeStatus::Ok {
        let reason = fields.get("reason").map_or("", |reason| reason.as_str().expect("text"));
        return reply::put_error(out, head, status, reason);
    }
    match kind {
        "ping" | "get_chunk" => {
            reply::put(out, head, status, |out| out.extend(hex(&fields["bytes"])));
        }
        "delete" | "delete_items" | "drop_namespace" | "put_chunk" | "abort" | "end_lease" => {
            reply::put(out, head, status, |_| ());
        }
        "stage" => {
            let stands = large_head(fields).bytes();
            reply::put(out, head, status, |out| out.extend_from_slice(&stands));
        }
        "mutate_record" => {
            let changed = fields["changed"].as_array().expect("changes").iter();
            let changed = changed.map(|one| Changed {
                version: number(&one["version"]),
                number: number(&one["number"]),
            });
            reply::put_changed(out, head, changed);
        }
        "begin_lease" => reply::put_lease(out, head, &lease(fields)),
        "multi_get" => write_entries(fields, head, out),
        "hello" => write_hello(fields, head, out),
        "statistics" => write_statistics(fields, head, out),
        "get_items" | "scan" => write_page(fields, head, out),
        "create_namespace" | "set_namespace" | "list_namespaces" => {
            let body = NativeNamespace::encode_all(namespaces(fields).iter());
            reply::put(out, head, status, |out| out.extend_from_slice(&body));
        }
        "put" | "commit" => reply::put_version(out, head, number(&fields["version"])),
        "increment" => {
            reply::put_number(out, head, number(&fields["number"]), number(&fields["version"]));
        }
        _ => reply::put_item(out, head, &item(fields, &hex(&fields["value"]))),
    }
}

#[test]
fn replies_are_what_the_vectors_say() {
    for vector in vectors("replies.json") {
        let (name, bytes) = (&vector["name"], hex(&vector["hex"]));
        let (kind, fields) = (vector["kind"].as_str().expect("a kind"), &vector["fields"]);
        let (reply, len) = NativeReply::read(&bytes, 1 << 20).expect("a reply");
        let status = reply.status.expect("a known status");
        assert_eq!((len, status as u64), (bytes.len(), number(&vector["status"])), "{name}");
        assert_eq!(reply.head.id, number(&vector["id"]), "{name}");
        assert_eq!(u64::from(reply.head.hops), number(&vector["hops"]), "{name}");
        assert_eq!(reply.head.has_checksum, is(&vector["checksum"]), "{name}");
        let mut written = Vec::new();
        write(kind, fields, reply.head, status, &mut written);
        assert_eq!(written, bytes, "{name}");
        if ["get_items", "scan"].contains(&kind) && status == NativeStatus::Ok {
            let (items, next) = (page_items(fields), fields.get("next").map(hex));
            let items = items.iter().map(shown).collect();
            let page = NativePage {
                items,
                next: next.as_deref(),
                is_damaged: fields.get("damaged").is_some_and(is),
            };
            assert_eq!(NativePage::decode(reply.body), Ok(page), "{name}");
        }
        if fields.get("namespaces").is_some() {
            assert_eq!(NativeNamespace::decode_all(reply.body), Ok(namespaces(fields)), "{name}");
        }
        if kind == "begin_lease" && status == NativeStatus::Ok {
            assert_eq!(reply.lease(), Ok(lease(fields)), "{name}");
        }
        let is_item =
            ["get", "touch", "get_and_touch"].contains(&kind) && status == NativeStatus::Ok;
        if is_item {
            let item = reply.item().expect("an item");
            assert_eq!(
                (item.version, item.value.to_vec()),
                (number(&fields["version"]), hex(&fields["value"]))
            );
        }
    }
}

#[test]
fn what_no_client_sends_is_answered_as_the_vectors_say() {
    for vector in vectors("malformed.json") {
        let (name, bytes) = (&vector["name"], hex(&vector["hex"]));
        let mut parser = NativeParser::default();
        let step = parser.next(&LIMITS, &bytes);
        let closes = match step.parsed {
            NativeParsed::Refused(refusal) => {
                assert_eq!(refusal.status as u64, number(&vector["status"]), "{name}");
                refusal.is_last
            }
            NativeParsed::Close => {
                assert!(vector["status"].is_null(), "{name}");
                true
            }
            // Only a node knows its tokens.
            NativeParsed::Request(..) => {
                assert_eq!(number(&vector["status"]), NativeStatus::BadToken as u64, "{name}");
                false
            }
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(closes, is(&vector["closes"]), "{name}");
        if !closes {
            let mut ping = Vec::new();
            put_request(&mut ping, 9, 0, false, &NativeRequest::Ping(b"next"));
            let claimed = u32::from_le_bytes(bytes[4..8].try_into().expect("a length")) as usize;
            if claimed == bytes.len() - 24 {
                let next = parser.next(&LIMITS, &ping).parsed;
                assert!(matches!(next, NativeParsed::Request(..)), "{name}: {next:?}");
            }
        }
    }
}

#[test]
fn a_node_answers_what_no_client_sends_as_the_vectors_say() {
    let scratch = Scratch::new("vectors");
    let node = Node::start(&NodeOptions::new(scratch.path()).shards(2));
    for vector in vectors("malformed.json") {
        let (name, bytes) = (&vector["name"], hex(&vector["hex"]));
        let mut stream = TcpStream::connect(node.native()).expect("the node accepts");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.write_all(&bytes).expect("the node reads");
        // Whatever comes back is all that does: nothing is sent after that.
        stream.shutdown(Shutdown::Write).expect("open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the node answers, and closes");
        let status = match NativeReply::read(&answer, 1 << 20) {
            Ok((reply, len)) => {
                assert_eq!(len, answer.len(), "{name}: one reply");
                reply.status.map(|status| u64::from(status as u8))
            }
            Err(_) => {
                assert!(answer.is_empty(), "{name}: {answer:?}");
                None
            }
        };
        assert_eq!(status, vector["status"].as_u64(), "{name}");
    }
    node.stop();
}
