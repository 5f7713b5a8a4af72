//! The vectors of the native protocol, read and written.

use larder_protocol::native::reply::{self, NativeItem, NativeReply, ReplyHead};
use larder_protocol::native::{
    ClientHello, Condition, DeleteItem, GetItem, IncrementItem, ItemKey, NativeLimits,
    NativeParsed, NativeParser, NativeRequest, NativeStatus, Opcode, PutItem, PutMode, TouchItem,
    put_request,
};
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
    bytes: Vec<u8>,
}

fn borrowed(fields: &Value) -> Borrowed {
    let of = |name: &str| fields.get(name).map(hex).unwrap_or_default();
    let bytes = if fields.get("bytes").is_some() { of("bytes") } else { of("value") };
    Borrowed { record: of("record"), item: of("item"), bytes }
}

fn meaning<'a>(kind: &str, fields: &'a Value, borrowed: &'a Borrowed) -> NativeRequest<'a> {
    let namespace = || short(&fields["namespace"]);
    let key = || ItemKey { namespace: namespace(), record: &borrowed.record, item: &borrowed.item };
    let condition = || match fields.get("version") {
        Some(version) => Condition::Version(number(version)),
        None => Condition::Any,
    };
    match kind {
        "ping" => NativeRequest::Ping(&borrowed.bytes),
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
            mode: match fields["mode"].as_str().expect("a mode") {
                "set" | "if_version" => PutMode::Set(condition()),
                "if_absent" => PutMode::IfAbsent,
                "if_present" => PutMode::IfPresent,
                "append" => PutMode::Append,
                "prepend" => PutMode::Prepend,
                other => panic!("{other} is no mode"),
            },
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
        other => panic!("{other} is no request"),
    }
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
        put_request(&mut written, id, deadline, is(&vector["checksum"]), &request);
        assert_eq!(written, bytes, "{name}");
        let step = NativeParser::default().next(&LIMITS, &bytes);
        let NativeParsed::Request(head, read) = step.parsed else { panic!("{name}: {step:?}") };
        assert_eq!((read, step.consumed), (request, bytes.len()), "{name}");
        assert_eq!((head.id, head.deadline_microseconds), (id, deadline), "{name}");
        assert_eq!(head.has_checksum, is(&vector["checksum"]), "{name}");
        opcodes.insert(head.opcode as u8);
    }
    assert_eq!(opcodes.len(), Opcode::ALL.len(), "every opcode has a vector");
}

/// Writes the reply that a vector means.
fn write(kind: &str, fields: &Value, head: ReplyHead, status: NativeStatus, out: &mut Vec<u8>) {
    if status != NativeStatus::Ok {
        let reason = fields.get("reason").map_or("", |reason| reason.as_str().expect("text"));
        return reply::put_error(out, head, status, reason);
    }
    match kind {
        "ping" => reply::put(out, head, status, |out| out.extend(hex(&fields["bytes"]))),
        "delete" => reply::put(out, head, status, |_| ()),
        "put" => reply::put_version(out, head, number(&fields["version"])),
        "increment" => {
            reply::put_number(out, head, number(&fields["number"]), number(&fields["version"]));
        }
        _ => reply::put_item(
            out,
            head,
            &NativeItem {
                version: number(&fields["version"]),
                client_flags: short(&fields["client_flags"]),
                expiry: short(&fields["expiry"]),
                value_len: short(&fields["value_length"]),
                value: &hex(&fields["value"]),
            },
        ),
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
