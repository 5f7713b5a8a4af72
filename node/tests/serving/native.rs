//! The native port.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use larder_protocol::native::reply::NativeReply;
use larder_protocol::native::{
    ClientHello, Condition, DeleteItem, GetItem, HEADER_BYTES, HelloReply, IncrementItem, ItemKey,
    NativeRequest, NativeStatus, Opcode, PutItem, PutMode, TouchItem, capability, put_request,
};

use super::client::{TestNode, found, noise, set};

const PATIENCE: Duration = Duration::from_secs(20);

/// A reply that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub status: NativeStatus,
    pub hops: u8,
    pub body: Vec<u8>,
}

/// A connection that finds replies by their ids.
pub(crate) struct NativeClient {
    pub stream: TcpStream,
    input: Vec<u8>,
    next_id: u64,
    arrived: HashMap<u64, Answered>,
}

impl NativeClient {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        Self { stream, input: Vec::new(), next_id: 1 << 40, arrived: HashMap::new() }
    }

    pub(crate) fn send_with(
        &mut self,
        request: &NativeRequest<'_>,
        deadline: u32,
        checksum: bool,
    ) -> u64 {
        self.next_id += 1;
        let mut bytes = Vec::new();
        put_request(&mut bytes, self.next_id, deadline, checksum, request);
        self.stream.write_all(&bytes).expect("the node reads");
        self.next_id
    }

    pub(crate) fn send(&mut self, request: &NativeRequest<'_>) -> u64 {
        self.send_with(request, 0, false)
    }

    fn receive(&mut self) -> (u64, Answered) {
        loop {
            match NativeReply::read(&self.input, 256 << 20) {
                Ok((reply, len)) => {
                    let status = reply.status.expect("a status of this version");
                    let (hops, body) = (reply.head.hops, reply.body.to_vec());
                    let id = reply.head.id;
                    self.input.drain(..len);
                    return (id, Answered { status, hops, body });
                }
                Err(Ok(_)) => {
                    let mut chunk = [0; 65_536];
                    let read = self.stream.read(&mut chunk).expect("the node answers");
                    assert!(read > 0, "the node has closed the connection");
                    self.input.extend_from_slice(&chunk[..read]);
                }
                Err(Err(error)) => panic!("{error:?}"),
            }
        }
    }

    /// The same connection once more, for another thread that only sends.
    pub(crate) fn share(&self) -> Self {
        let stream = self.stream.try_clone().expect("a descriptor");
        Self { stream, input: Vec::new(), next_id: self.next_id, arrived: HashMap::new() }
    }

    /// Receives the next reply, whichever it is.
    pub(crate) fn receive_one(&mut self) {
        let (id, answered) = self.receive();
        assert!(self.arrived.insert(id, answered).is_none(), "two replies to {id}");
    }

    pub(crate) fn wait(&mut self, id: u64) -> Answered {
        while !self.arrived.contains_key(&id) {
            self.receive_one();
        }
        self.arrived.remove(&id).expect("it has arrived")
    }

    pub(crate) fn ask(&mut self, request: &NativeRequest<'_>) -> Answered {
        let id = self.send(request);
        self.wait(id)
    }

    pub(crate) fn status(&mut self, request: &NativeRequest<'_>) -> NativeStatus {
        self.ask(request).status
    }
}

pub(crate) fn key(record: &str) -> ItemKey<'_> {
    ItemKey { namespace: 0, record: record.as_bytes(), item: b"" }
}

fn get(key: ItemKey<'_>) -> NativeRequest<'_> {
    NativeRequest::Get(GetItem { key, metadata_only: false, is_quiet: false })
}

pub(crate) fn put<'a>(key: ItemKey<'a>, mode: PutMode<'a>, value: &'a [u8]) -> NativeRequest<'a> {
    NativeRequest::Put(PutItem { key, mode, client_flags: 7, ttl: 0, value })
}

fn touch(key: ItemKey<'_>, ttl: u32, with_value: bool) -> NativeRequest<'_> {
    NativeRequest::Touch(TouchItem { key, ttl, with_value })
}

pub(crate) fn delete<'a>(key: ItemKey<'a>, condition: Condition<'a>) -> NativeRequest<'a> {
    NativeRequest::Delete(DeleteItem { key, condition })
}

pub(crate) const SET: PutMode<'_> = PutMode::Set(Condition::Any);

/// Version, client flags, expiry, length and value of an item's reply.
fn item(answered: &Answered) -> (u64, u32, u32, u32, &[u8]) {
    assert_eq!(answered.status, NativeStatus::Ok, "{answered:?}");
    let number = |at: usize| u32::from_le_bytes(answered.body[at..at + 4].try_into().expect("4"));
    let version = u64::from_le_bytes(answered.body[..8].try_into().expect("8"));
    (version, number(8), number(12), number(16), &answered.body[24..])
}

fn version(answered: &Answered) -> u64 {
    assert_eq!(answered.status, NativeStatus::Ok, "{answered:?}");
    u64::from_le_bytes(answered.body[..8].try_into().expect("a version"))
}

#[test]
fn every_operation_over_two_cores() {
    let node = TestNode::start(2);
    let mut client = NativeClient::connect(node.node.addresses().native);
    for number in 0..40 {
        every_operation(&mut client, &format!("record{number}"));
    }
    node.stop();
}

fn every_operation(client: &mut NativeClient, record: &str) {
    let key = key(record);
    let versioned = |version| PutMode::Set(Condition::Version(version));
    let valued = |value| PutMode::Set(Condition::Value(value));
    assert_eq!(client.status(&put(key, valued(b""), b"no")), NativeStatus::Absent);
    assert_eq!(client.status(&delete(key, Condition::Value(b""))), NativeStatus::Absent);
    assert_eq!(client.status(&get(key)), NativeStatus::Absent);
    assert_eq!(client.status(&put(key, PutMode::IfPresent, b"no")), NativeStatus::Absent);
    assert_eq!(client.status(&put(key, versioned(1), b"no")), NativeStatus::Absent);
    assert_eq!(client.status(&put(key, PutMode::Append, b"no")), NativeStatus::Absent);
    assert_eq!(client.status(&touch(key, 9, false)), NativeStatus::Absent);
    assert_eq!(client.status(&delete(key, Condition::Any)), NativeStatus::Absent);

    let first = version(&client.ask(&put(key, PutMode::IfAbsent, b"middle")));
    assert_eq!(client.status(&put(key, PutMode::IfAbsent, b"no")), NativeStatus::Exists);
    let read = client.ask(&get(key));
    assert_eq!(item(&read), (first, 7, 0, 6, &b"middle"[..]));
    assert_eq!(client.status(&put(key, PutMode::Append, b"!")), NativeStatus::Ok);
    let second = version(&client.ask(&put(key, PutMode::Prepend, b"?")));
    assert!(second > first);
    assert_eq!(client.status(&put(key, versioned(first), b"no")), NativeStatus::VersionDiffers);
    let read = client.ask(&touch(key, 1000, true));
    let (_, _, expiry, _, value) = item(&read);
    assert!(expiry > 1_700_000_000 && value == b"?middle!", "{read:?}");
    let metadata = NativeRequest::Get(GetItem { key, metadata_only: true, is_quiet: true });
    let read = client.ask(&metadata);
    let (third, flags, expires, len, value) = item(&read);
    assert_eq!((flags, expires, len, value), (7, expiry, 8, &b""[..]));
    assert_eq!(client.status(&put(key, versioned(third), b"12")), NativeStatus::Ok);

    let increment = |is_decrement, delta, initial| {
        NativeRequest::Increment(IncrementItem { key, is_decrement, delta, initial })
    };
    let number = |answered: &Answered| version(answered);
    assert_eq!(number(&client.ask(&increment(false, 30, None))), 42);
    assert_eq!(number(&client.ask(&increment(true, 50, None))), 0);
    assert_eq!(client.status(&put(key, SET, b"text")), NativeStatus::Ok);
    assert_eq!(client.status(&increment(false, 1, None)), NativeStatus::NotANumber);
    let long = vec![b'l'; 100_000];
    assert_eq!(client.status(&put(key, valued(b"tex"), b"no")), NativeStatus::ValueDiffers);
    assert_eq!(client.status(&put(key, valued(b"text"), &long)), NativeStatus::Ok);
    assert_eq!(client.status(&put(key, valued(b"text"), b"no")), NativeStatus::ValueDiffers);
    assert_eq!(client.status(&put(key, valued(&long), b"")), NativeStatus::Ok);
    assert_eq!(item(&client.ask(&get(key))).4, b"");
    assert_eq!(client.status(&delete(key, Condition::Value(b"x"))), NativeStatus::ValueDiffers);
    assert_eq!(client.status(&delete(key, Condition::Value(b""))), NativeStatus::Ok);
    let last = version(&client.ask(&put(key, SET, b"text")));
    assert_eq!(
        client.status(&delete(key, Condition::Version(first))),
        NativeStatus::VersionDiffers
    );
    assert_eq!(client.status(&delete(key, Condition::Version(last))), NativeStatus::Ok);
    assert_eq!(client.status(&increment(false, 1, None)), NativeStatus::Absent);
    assert_eq!(number(&client.ask(&increment(false, 1, Some((9, 0))))), 9);
    assert_eq!(client.status(&touch(key, 0, false)), NativeStatus::Ok);
}

#[test]
fn items_of_a_record_are_apart_and_memcached_sees_the_one_without_a_key() {
    let node = TestNode::start(2);
    let mut client = NativeClient::connect(node.node.addresses().native);
    let mut memcached = node.connect();
    memcached.ask(set("record", b"from memcached"), "STORED\r\n");
    for name in [&b"a"[..], b"b", b"\0", &[0xFF; 1024]] {
        let key = ItemKey { item: name, ..key("record") };
        assert_eq!(client.status(&put(key, SET, name)), NativeStatus::Ok);
    }
    for name in [&b"a"[..], b"b", b"\0", &[0xFF; 1024]] {
        let key = ItemKey { item: name, ..key("record") };
        assert_eq!(item(&client.ask(&get(key))).4, name);
    }
    assert_eq!(item(&client.ask(&get(key("record")))).4, b"from memcached");
    assert_eq!(client.status(&put(key("record"), SET, b"from native")), NativeStatus::Ok);
    memcached.ask("get record\r\n", "VALUE record 7 11\r\nfrom native\r\nEND\r\n");
    let zeros = [0; 1024];
    let longest = ItemKey { namespace: 0, record: &zeros, item: &zeros };
    assert_eq!(client.status(&put(longest, SET, b"v")), NativeStatus::Ok);
    assert_eq!(item(&client.ask(&get(longest))).4, b"v");
    node.stop();
}

#[test]
fn a_pipeline_with_large_and_small_values_is_answered_whole() {
    let node =
        TestNode::start_with(2, |config| config.max_item_size = larder::config::Size(4 << 20));
    let mut client = NativeClient::connect(node.node.addresses().native);
    let value = |number: u64| noise(number, if number.is_multiple_of(10) { 1 << 20 } else { 100 });
    let mut ids = Vec::new();
    for number in 0..60 {
        ids.push(client.send(&put(key(&format!("key{number}")), SET, &value(number))));
    }
    for id in std::mem::take(&mut ids) {
        assert_eq!(client.wait(id).status, NativeStatus::Ok);
    }
    for number in 0..60 {
        ids.push(client.send_with(&get(key(&format!("key{number}"))), 0, number % 3 == 0));
    }
    let mut hops = [0; 2];
    for (number, id) in ids.into_iter().enumerate() {
        let answered = client.wait(id);
        hops[usize::from(answered.hops)] += 1;
        assert!(item(&answered).4 == value(number as u64), "value {number}");
    }
    assert!(hops[0] > 0 && hops[1] > 0, "both cores own some: {hops:?}");
    node.stop();
}

#[test]
fn a_hello_says_where_records_are() {
    let node = TestNode::start_with(2, |config| {
        config.native_core_ports = Some(free_ports());
        config.read_target_us = 700;
    });
    let mut client = NativeClient::connect(node.node.addresses().native);
    let hello = |version_min, version_max| {
        NativeRequest::Hello(ClientHello { version_min, version_max, name: "a test" })
    };
    assert_eq!(client.status(&hello(2, 9)), NativeStatus::UnsupportedVersion);
    let answered = client.ask(&hello(0, 9));
    let reply = HelloReply::decode(&answered.body).expect("a hello");
    assert_eq!(reply.shard_loads.len(), usize::from(reply.shards));
    assert_eq!((reply.read_target_microseconds, reply.write_target_microseconds), (700, 0));
    let measured = [&reply.read_p99_microseconds, &reply.write_p99_microseconds];
    assert_eq!(measured, [&vec![0, 0]; 2], "nothing was asked yet");
    assert_eq!(reply.capabilities, capability::ALL);
    assert_eq!((reply.version, reply.shards, reply.cores), (1, 2, 2));
    assert_eq!(reply.opcodes, Opcode::ALL.map(|opcode| opcode as u8));
    assert_eq!(reply.core_ports.len(), 2);
    for (core, port) in reply.core_ports.iter().enumerate() {
        let mut client = NativeClient::connect(SocketAddr::from(([127, 0, 0, 1], *port)));
        let there = HelloReply::decode(&client.ask(&hello(1, 1)).body).expect("a hello");
        assert_eq!(usize::from(there.core), core);
        for number in 0..20 {
            let record = format!("key{number}");
            let hash = larder_engine::key::route_hash(record.as_bytes());
            let shard = larder_engine::key::shard_of_hash(hash, reply.shards);
            let answered = client.ask(&put(key(&record), SET, b"v"));
            assert_eq!(usize::from(answered.hops), usize::from(usize::from(shard) != core));
        }
    }
    node.stop();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test's own clock")]
fn a_hello_says_what_requests_take() {
    let node = TestNode::start(1);
    let mut client = NativeClient::connect(node.node.addresses().native);
    let hello = ClientHello { version_min: 1, version_max: 1, name: "a test" };
    let begin = std::time::Instant::now();
    loop {
        for number in 0..200 {
            let record = format!("key{number}");
            assert_eq!(client.status(&put(key(&record), SET, b"v")), NativeStatus::Ok);
            for _ in 0..5 {
                assert_eq!(client.status(&get(key(&record))), NativeStatus::Ok);
            }
        }
        let reply = client.ask(&NativeRequest::Hello(hello));
        let reply = HelloReply::decode(&reply.body).expect("a hello");
        let (reads, writes) = (&reply.read_p99_microseconds, &reply.write_p99_microseconds);
        assert_eq!((reads.len(), writes.len()), (1, 1));
        if reads[0] > 0 && writes[0] > 0 {
            let waited = begin.elapsed().as_micros();
            assert!(u128::from(writes[0].max(reads[0])) <= waited * 5 / 4, "{reads:?} {writes:?}");
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{reads:?} {writes:?}");
    }
    node.stop();
}

/// The first of two ports that were free a moment ago.
pub(crate) fn free_ports() -> u16 {
    loop {
        let first = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = first.local_addr().expect("an address").port();
        let next = port.checked_add(1);
        if next.is_some_and(|next| std::net::TcpListener::bind(("127.0.0.1", next)).is_ok()) {
            return port;
        }
    }
}

#[test]
fn what_is_wrong_is_said_and_harms_nobody() {
    let node = TestNode::start(1);
    let mut client = NativeClient::connect(node.node.addresses().native);
    let other = ItemKey { namespace: 5, ..key("k") };
    let answered = client.ask(&get(other));
    assert_eq!(answered.status, NativeStatus::UnknownNamespace);
    assert!(String::from_utf8_lossy(&answered.body).contains("default"));
    let large = vec![0; (1 << 20) + 1];
    assert_eq!(client.status(&put(key("k"), SET, &large)), NativeStatus::TooLarge);
    let larger = vec![0; 8 << 20];
    assert_eq!(
        client.status(&put(key("k"), SET, &larger)),
        NativeStatus::TooLarge,
        "not even kept"
    );
    let mut unknown = Vec::new();
    put_request(&mut unknown, 5, 0, false, &get(key("k")));
    unknown[2] = 0x99;
    client.stream.write_all(&unknown).expect("the node reads");
    assert_eq!(client.wait(5).status, NativeStatus::UnknownOpcode);
    assert_eq!(client.ask(&NativeRequest::Ping(b"still here")).body, b"still here");
    // What cannot be understood any more ends the connection, with a reason or without.
    let mut checked = Vec::new();
    put_request(&mut checked, 6, 0, true, &get(key("k")));
    checked[HEADER_BYTES] ^= 1;
    client.stream.write_all(&checked).expect("the node reads");
    assert_eq!(client.wait(6).status, NativeStatus::BadChecksum);
    assert_eq!(client.stream.read(&mut [0; 8]).expect("closed"), 0);
    let mut memcached = NativeClient::connect(node.node.addresses().native);
    memcached.stream.write_all(b"get key\r\n").expect("the node reads");
    assert_eq!(memcached.stream.read(&mut [0; 8]).expect("closed"), 0);
    let mut polite = node.connect();
    polite.ask(set("key", b"value"), "STORED\r\n");
    polite.ask("get key\r\n", found("key", b"value"));
    node.stop();
}

#[test]
fn a_deadline_that_is_far_away_changes_nothing() {
    let node = TestNode::start(2);
    let mut client = NativeClient::connect(node.node.addresses().native);
    for number in 0..50 {
        let record = format!("key{number}");
        let id = client.send_with(&put(key(&record), SET, b"v"), u32::MAX, true);
        assert_eq!(client.wait(id).status, NativeStatus::Ok);
    }
    node.stop();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the client's threads are not the node's")]
fn requests_whose_deadline_is_past_are_not_begun() {
    let node = TestNode::start(1);
    let mut client = NativeClient::connect(node.node.addresses().native);
    assert_eq!(client.status(&put(key("counter"), SET, b"0")), NativeStatus::Ok);
    // Each takes its time; those behind wait in the input for longer than they may.
    let value = noise(1, 900_000);
    let mut bytes = Vec::new();
    for id in 0..64 {
        put_request(&mut bytes, id, 0, false, &put(key("large"), SET, &value));
        let (is_decrement, delta, initial) = (false, 1, None);
        let key = key("counter");
        let increment = IncrementItem { key, is_decrement, delta, initial };
        put_request(&mut bytes, 1000 + id, 1, false, &NativeRequest::Increment(increment));
    }
    let mut writer = client.stream.try_clone().expect("a descriptor");
    let sender = std::thread::spawn(move || writer.write_all(&bytes).expect("the node reads"));
    let mut done = 0;
    for id in 0..64 {
        assert_eq!(client.wait(id).status, NativeStatus::Ok);
        match client.wait(1000 + id).status {
            NativeStatus::Ok => done += 1,
            status => assert_eq!(status, NativeStatus::DeadlinePassed),
        }
    }
    sender.join().expect("it sends");
    let counted = client.ask(&get(key("counter")));
    assert_eq!(item(&counted).4, format!("{done}").as_bytes(), "what is refused is not done");
    node.stop();
}
