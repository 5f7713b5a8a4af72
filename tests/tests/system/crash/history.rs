//! What one writer asked for, what of it was acknowledged, and what its keys may therefore hold.

use std::fmt;
use std::io;

use fastrand::Rng;
use larder_tests::client::{Client, set_request};

/// Keys of a writer that hold values, and those that hold numbers.
const VALUES: usize = 150;
const COUNTERS: usize = 10;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// The value that this request made.
    Value {
        sequence: u64,
    },
    Counter(u64),
}

#[derive(Clone, Debug)]
struct Key {
    acknowledged: State,
    /// What requests made of it, in their order, that are not acknowledged yet.
    issued: Vec<State>,
}

impl Key {
    fn latest(&self) -> State {
        *self.issued.last().unwrap_or(&self.acknowledged)
    }
}

/// The keys of one writer.
pub(super) struct History {
    writer: usize,
    keys: Vec<Key>,
    sequence: u64,
    acknowledged: u64,
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Set,
    Delete,
    Increment,
}

/// A request, and what it makes of its key.
pub(super) struct Request {
    writer: usize,
    key: usize,
    verb: Verb,
    before: State,
    after: State,
}

impl Request {
    /// What is sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let name = key_name(self.writer, self.key);
        match (self.verb, self.after) {
            (Verb::Set, after) => {
                let value = content(self.writer, self.key, after).expect("a set leaves a value");
                set_request(&name, &value)
            }
            (Verb::Delete, _) => format!("delete {name}\r\n").into_bytes(),
            (Verb::Increment, _) => format!("incr {name} 1\r\n").into_bytes(),
        }
    }

    /// What must be answered: nobody else writes this key.
    pub(super) fn answer(&self) -> String {
        match (self.verb, self.before, self.after) {
            (Verb::Set, ..) => "STORED".to_owned(),
            (_, State::Absent, _) => "NOT_FOUND".to_owned(),
            (Verb::Delete, ..) => "DELETED".to_owned(),
            (Verb::Increment, _, State::Counter(number)) => number.to_string(),
            (Verb::Increment, ..) => unreachable!("only counters are incremented"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = key_name(self.writer, self.key);
        write!(formatter, "{:?} {name}: {:?} -> {:?}", self.verb, self.before, self.after)
    }
}

impl History {
    pub(super) fn new(writer: usize) -> Self {
        let key = Key { acknowledged: State::Absent, issued: Vec::new() };
        Self { writer, keys: vec![key; VALUES + COUNTERS], sequence: 0, acknowledged: 0 }
    }

    /// How many requests were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Makes up a request, which counts as sent from now on.
    pub(super) fn issue(&mut self, random: &mut Rng) -> Request {
        let key = random.usize(..self.keys.len());
        let before = self.keys[key].latest();
        self.sequence += 1;
        let sequence = self.sequence;
        let (verb, after) = match (random.u8(..10), before) {
            (0..2, _) => (Verb::Delete, State::Absent),
            (_, _) if key < VALUES => (Verb::Set, State::Value { sequence }),
            (2..9, State::Counter(number)) => (Verb::Increment, State::Counter(number + 1)),
            (2..4, State::Absent) => (Verb::Increment, State::Absent),
            _ => (Verb::Set, State::Counter(sequence)),
        };
        self.keys[key].issued.push(after);
        Request { writer: self.writer, key, verb, before, after }
    }

    /// The answer has come; answers come in the order of the requests.
    pub(super) fn acknowledge(&mut self, request: &Request) {
        let key = &mut self.keys[request.key];
        key.acknowledged = key.issued.remove(0);
        assert_eq!(key.acknowledged, request.after, "answers are counted in order");
        self.acknowledged += 1;
    }

    /// Reads all keys. Returns those that hold what they may not; the others' states become
    /// acknowledged.
    pub(super) fn verify(&mut self, client: &mut Client) -> io::Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (number, key) in self.keys.iter_mut().enumerate() {
            let name = key_name(self.writer, number);
            let found = client.get(&name)?.map(|item| item.value);
            let is_it = |state: &&State| content(self.writer, number, **state) == found;
            let issued = key.issued.iter().rev().find(is_it);
            match issued.or_else(|| Some(&key.acknowledged).filter(is_it)).copied() {
                Some(state) => {
                    key.acknowledged = state;
                    key.issued.clear();
                }
                None => wrong.push(format!("{name} holds {}, history: {key:?}", shown(&found))),
            }
        }
        Ok(wrong)
    }
}

fn key_name(writer: usize, key: usize) -> String {
    format!("writer-{writer}-key-{key:03}")
}

/// The bytes that a key in this state holds. A value names its writer, key and request, and ends
/// with a checksum, so that a wrong one tells where it is from.
fn content(writer: usize, key: usize, state: State) -> Option<Vec<u8>> {
    let sequence = match state {
        State::Absent => return None,
        State::Counter(number) => return Some(number.to_string().into_bytes()),
        State::Value { sequence } => sequence,
    };
    let mut random = Rng::with_seed(sequence ^ ((writer as u64) << 56) ^ ((key as u64) << 40));
    // Short ones live in the index, long ones in the log, the longest fill many of its blocks.
    let length = match random.u8(..20) {
        0..8 => random.usize(..100),
        8..19 => random.usize(100..8_000),
        _ => random.usize(8_000..300_000),
    };
    let mut value = format!("{writer} {key} {sequence} {length} ").into_bytes();
    let start = value.len();
    value.resize(start + length, 0);
    random.fill(&mut value[start..]);
    let checksum = crc32c::crc32c(&value);
    value.extend_from_slice(format!(" {checksum:08x}").as_bytes());
    Some(value)
}

/// A value as a person wants to see it: whose it says it is, and whether it is whole.
fn shown(found: &Option<Vec<u8>>) -> String {
    let Some(value) = found else { return "nothing".to_owned() };
    let Some((body, checksum)) = value.split_at_checked(value.len().saturating_sub(9)) else {
        return "nothing that can be split".to_owned();
    };
    let is_whole = format!(" {:08x}", crc32c::crc32c(body)).as_bytes() == checksum;
    let head = String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
    let state = if is_whole { "whole" } else { "no whole value" };
    format!("{} bytes ({state}) that start with {head:?}", value.len())
}

#[test]
fn a_history_notices_what_it_should() {
    let mut history = History::new(0);
    let mut random = Rng::with_seed(1);
    let mut requests = Vec::new();
    while requests.len() < 2000 {
        let request = history.issue(&mut random);
        assert!(!request.bytes().is_empty() && !request.answer().is_empty());
        requests.push(request);
    }
    for request in &requests {
        history.acknowledge(request);
    }
    assert_eq!(history.acknowledged(), 2000);
    for key in &history.keys {
        assert!(key.issued.is_empty());
        assert_eq!(key.acknowledged, key.latest());
    }
    let value = content(0, 1, State::Value { sequence: 7 }).expect("a value");
    assert!(shown(&Some(value.clone())).contains("(whole)"));
    for (writer, key, sequence) in [(1, 1, 7), (0, 2, 7), (0, 1, 8)] {
        assert_ne!(content(writer, key, State::Value { sequence }).expect("a value"), value);
    }
    let mut damaged = value;
    damaged[5] ^= 1;
    assert!(shown(&Some(damaged)).contains("no whole value"));
}
