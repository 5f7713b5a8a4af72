//! The same messages of the binary protocol to the server and to memcached get the same replies.
//!
//! Of CAS ids only whether there is one is compared; where a request compares, each server is given
//! its own. What is left out besides what [`super::differential`] leaves out:
//!
//! | input | memcached 1.6.18 | the server |
//! |---|---|---|
//! | verbosity | unknown | done |
//! | an unknown opcode with a key | more than the message is passed over | the message |
//! | touch, get and touch, statistics with a value | taken for the next message | refused |

use std::collections::HashMap;

use fastrand::Rng;
use larder_tests::binary::{HEADER_BYTES, NOOP, cas, reply, request};
use larder_tests::client::Client;
use larder_tests::memcached::Memcached;
use larder_tests::node::{Node, NodeOptions};
use larder_tests::scratch::Scratch;
use larder_tests::{seed, skip};

const KEYS: usize = 10;
const BATCH: usize = 20;
const BATCHES: usize = 100;
const SEEDS: u64 = 4;

/// A CAS id that no item ever gets.
const NO_CAS: u64 = i64::MAX as u64;

/// Stands for the CAS id that the server has shown last for the key.
const SEEN_CAS: u64 = u64::MAX;

fn key(random: &mut Rng) -> Vec<u8> {
    // Keys may be any bytes here.
    match random.usize(..KEYS) {
        0 => b"\0 \r\n\xFF".to_vec(),
        number => format!("key-{number}").into_bytes(),
    }
}

fn one_of<T: Copy>(random: &mut Rng, choices: &[T]) -> T {
    choices[random.usize(..choices.len())]
}

/// Never, relative, absolute in 2035, and long past.
fn exptime(random: &mut Rng) -> u32 {
    one_of(random, &[0, 0, 0, 1000, 86_400, 2_051_222_400, 3_000_000])
}

fn letters(random: &mut Rng) -> Vec<u8> {
    let longest = if random.u8(..10) == 0 { 50_000 } else { 200 };
    (0..random.usize(..longest)).map(|_| random.alphabetic() as u8).collect()
}

fn compared(random: &mut Rng) -> u64 {
    one_of(random, &[0, 0, 0, NO_CAS, SEEN_CAS, SEEN_CAS])
}

fn store(random: &mut Rng) -> Vec<u8> {
    let opcode = one_of(random, &[0x01, 0x01, 0x01, 0x11, 0x02, 0x12, 0x03, 0x13]);
    let flags = one_of(random, &[0u32, 7, u32::MAX]).to_be_bytes();
    let extras = [flags, exptime(random).to_be_bytes()].concat();
    let value = match random.bool() {
        true => random.u32(..).to_string().into_bytes(),
        false => letters(random),
    };
    request(opcode, compared(random), &extras, &key(random), &value)
}

/// A number may get shorter, where memcached puts spaces behind it: what follows gives it a known
/// length again. One that is compared is a number before.
fn arithmetic(random: &mut Rng) -> Vec<Vec<u8>> {
    let (key, cas) = (key(random), compared(random));
    let number = |value: &[u8]| request(0x11, 0, &[0; 8], &key, value);
    let exptime = one_of(random, &[0, 60, u32::MAX, u32::MAX]);
    let extras = [u64::from(random.u32(..)), random.u64(..)].map(u64::to_be_bytes).concat();
    let extras = [&extras[..], &exptime.to_be_bytes()].concat();
    let opcode = one_of(random, &[0x05, 0x15, 0x06, 0x16]);
    let change = request(opcode, cas, &extras, &key, b"");
    let before = if cas == 0 { Vec::new() } else { vec![number(b"77")] };
    [before, vec![change, number(b"10")]].concat()
}

fn requests(random: &mut Rng) -> Vec<Vec<u8>> {
    let time = exptime(random).to_be_bytes();
    let one = match random.u8(..20) {
        0..6 => store(random),
        6..11 => {
            let opcode = one_of(random, &[0x00, 0x09, 0x0C, 0x0D]);
            request(opcode, 0, b"", &key(random), b"")
        }
        11..13 => {
            let opcode = one_of(random, &[0x1C, 0x1D, 0x1E, 0x23, 0x24]);
            request(opcode, 0, &time, &key(random), b"")
        }
        13..15 => {
            let opcode = one_of(random, &[0x0E, 0x19, 0x0F, 0x1A]);
            request(opcode, compared(random), b"", &key(random), &letters(random))
        }
        15..17 => request(one_of(random, &[4, 0x14]), compared(random), b"", &key(random), b""),
        17 if random.u8(..10) == 0 => request(one_of(random, &[8, 0x18]), 0, b"", b"", b""),
        17 => request(one_of(random, &[0x20, 0x1F, 0x70]), 0, b"", b"", b""),
        _ => return arithmetic(random),
    };
    vec![one]
}

/// A server, and the CAS id that it has shown last for each key.
struct Asked {
    client: Client,
    seen: HashMap<Vec<u8>, u64>,
}

fn key_of(message: &[u8]) -> &[u8] {
    let start = HEADER_BYTES + usize::from(message[4]);
    &message[start..start + usize::from(message[3])]
}

impl Asked {
    fn send(&mut self, requests: &[Vec<u8>]) {
        let mut all = Vec::new();
        for message in requests {
            let start = all.len();
            all.extend_from_slice(message);
            if cas(message) == SEEN_CAS {
                let seen = self.seen.get(key_of(message)).unwrap_or(&NO_CAS);
                all[start + 16..start + 24].copy_from_slice(&seen.to_be_bytes());
            }
            // What is quiet is told apart by what follows it.
            all.extend(request(NOOP, 0, b"", b"", b""));
        }
        self.client.send(&all).expect("it reads");
    }

    /// The replies to `request`, with 1 for any CAS id.
    fn replies(&mut self, request: &[u8]) -> Vec<Vec<u8>> {
        let mut replies = Vec::new();
        loop {
            let mut reply = reply(&mut self.client).expect("it answers");
            if reply[1] == NOOP {
                return replies;
            }
            if cas(&reply) != 0 {
                self.seen.insert(key_of(request).to_vec(), cas(&reply));
                reply[16..24].copy_from_slice(&1u64.to_be_bytes());
            }
            replies.push(reply);
        }
    }
}

fn text(messages: &[Vec<u8>]) -> String {
    let start = |message: &Vec<u8>| message[..message.len().min(120)].escape_ascii().to_string();
    messages.iter().map(start).collect::<Vec<_>>().join("\n    ")
}

fn compare(shards: u16, seed: u64, memcached: &Memcached) {
    let scratch = Scratch::new("differential-binary");
    let mut options = NodeOptions::new(scratch.path()).shards(shards);
    options.durability = "none";
    let node = Node::start(&options);
    let theirs = Client::connect(memcached.address()).expect("memcached listens");
    let (mut ours, mut theirs) = (node.client(), theirs);
    let flush = [request(0x08, 0, b"", b"", b""), request(NOOP, 0, b"", b"", b"")].concat();
    theirs.send(&flush).expect("memcached reads");
    reply(&mut theirs).and_then(|_| reply(&mut theirs)).expect("memcached answers");
    // A first byte of another protocol on the same port: nothing of it is remembered.
    assert_eq!(ours.exchange(b"get key-1\r\n").expect("the server answers"), "END\r\n");
    let mut ours = Asked { client: node.client(), seen: HashMap::new() };
    let mut theirs = Asked { client: theirs, seen: HashMap::new() };
    let mut random = Rng::with_seed(seed);
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for _ in 0..BATCHES {
        let start = sent.len();
        sent.extend((0..BATCH).flat_map(|_| requests(&mut random)));
        ours.send(&sent[start..]);
        theirs.send(&sent[start..]);
        for number in start..sent.len() {
            let request = &sent[number];
            let (our, their) = (ours.replies(request), theirs.replies(request));
            let before = &sent[number.saturating_sub(8)..=number];
            assert!(
                our == their,
                "seed {seed}:\n  memcached: {}\n  ours:      {}\nsent:\n    {}",
                text(&their),
                text(&our),
                text(before)
            );
        }
    }
    node.stop();
}

fn memcached() -> Option<Memcached> {
    let memcached = Memcached::start();
    if memcached.is_none() {
        skip("comparison with memcached", "it is not installed (apt-get install memcached)");
    }
    memcached
}

#[test]
fn replies_are_memcacheds() {
    let Some(memcached) = memcached() else { return };
    let first = seed::given_or("replies_are_memcacheds", 1);
    for seed in first..first + SEEDS {
        compare(if seed % 2 == 0 { 2 } else { 1 }, seed, &memcached);
    }
}

/// What no client sends. The connection ends with all of it.
fn malformed() -> Vec<Vec<u8>> {
    let long_key = vec![b'k'; 251];
    let mut short_body = request(0x01, 0, &[0; 8], b"key", b"");
    short_body[8..12].copy_from_slice(&4u32.to_be_bytes());
    let mut all = vec![
        request(0x00, 0, b"", b"", b""),
        request(0x00, 0, b"extr", b"key", b""),
        request(0x00, 0, b"", b"key", b"value"),
        request(0x09, 0, b"", &long_key, b""),
        request(0x01, 0, b"", b"key", b"value"),
        request(0x11, 0, &[0; 8], b"", b"value"),
        request(0x04, 0, b"", b"", b""),
        request(0x15, 0, &[0; 19], b"key", b""),
        request(0x05, 0, &[0; 20], b"key", b"v"),
        request(0x07, 0, b"", b"key", b""),
        request(0x17, 0, b"", b"key", b""),
        request(0x08, 0, &[0; 3], b"", b""),
        request(0x0A, 0, b"", b"", b"v"),
        request(0x0B, 0, b"", b"key", b""),
        request(0x0E, 0, &[0; 8], b"key", b"value"),
        request(0x10, 0, &[0; 4], b"", b""),
        request(0x1C, 0, b"", b"key", b""),
        request(0x1E, 0, &[0; 4], b"", b""),
        short_body,
        b"get key-1\r\n and what fills a header".to_vec(),
    ];
    // Those that do not end it: behind them stands one that does.
    let quit = request(0x07, 0, b"", b"", b"");
    let too_large = vec![b'v'; 1 << 20];
    for opcode in [0x01, 0x12, 0x03] {
        let large = request(opcode, 0, &[0; 8], b"key", &too_large);
        let read = request(0x00, 0, b"", b"key", b"");
        let small = request(0x01, 0, &[0; 8], b"key", b"value");
        all.push([small, large, read, quit.clone()].concat());
    }
    all.push([request(0x19, 0, b"", b"key", &too_large), quit.clone()].concat());
    all.push([request(0x21, 0, b"", b"PLAIN", b"\0user\0password"), quit.clone()].concat());
    all.push([request(0x77, 0, b"", b"", b"a body"), quit].concat());
    all
}

#[test]
fn what_no_client_sends_is_answered_as_by_memcached() {
    let Some(memcached) = memcached() else { return };
    let scratch = Scratch::new("differential-malformed");
    let node = Node::start(&NodeOptions::new(scratch.path()).shards(2));
    for bytes in malformed() {
        let answer = |mut client: Client| {
            client.send(&request(NOOP, 0, b"", b"", b"")).expect("it reads");
            // It may close before all is sent.
            let _ = client.send(&bytes);
            let _ = client.finish_sending();
            let mut replies = Vec::new();
            while let Ok(mut reply) = reply(&mut client) {
                let has_cas = u64::from(cas(&reply) != 0);
                reply[16..24].copy_from_slice(&has_cas.to_be_bytes());
                replies.push(reply);
            }
            replies
        };
        let ours = answer(node.client());
        let theirs = answer(Client::connect(memcached.address()).expect("memcached listens"));
        assert!(
            ours == theirs,
            "{}\n  memcached: {}\n  ours:      {}",
            bytes[..bytes.len().min(60)].escape_ascii(),
            text(&theirs),
            text(&ours)
        );
    }
    let mut client = node.client();
    assert_eq!(client.set("key", b"value").expect("the server answers"), "STORED");
    node.stop();
}
