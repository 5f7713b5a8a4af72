//! What one writer asked for, what of it was acknowledged, and what its keys may therefore hold.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;

use fastrand::Rng;
use larder_protocol::native::{Condition, ItemRange, MutateRecord, NativeRequest, PutMode};
use larder_tests::client::{Client, set_request};

use crate::native::{self, NativeClient};

/// Keys of a writer that hold values, and those that hold numbers. Both doors reach them.
const VALUES: usize = 150;
const COUNTERS: usize = 10;
const PLAIN: usize = VALUES + COUNTERS;

/// Records of a writer with several items each, which the native door alone reaches.
const RECORDS: usize = 4;
const ITEMS: usize = 16;

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
    /// Requests that change several keys and are not acknowledged.
    open: BTreeMap<u64, Vec<Change>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Set,
    Delete,
    Increment,
    /// Several items of a record, all or none.
    Mutate,
    /// All items of a record between two.
    DeleteRange,
}

/// What a request makes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    key: usize,
    before: State,
    after: State,
}

/// A request, and what it makes of its keys.
#[derive(Debug)]
pub(super) struct Request {
    writer: usize,
    sequence: u64,
    verb: Verb,
    changes: Vec<Change>,
}

/// What must be answered: nobody else writes these keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Done,
    Absent,
    Number(u64),
}

impl Request {
    /// What is sent over memcached's door.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Change { key, after, .. } = self.changes[0];
        let (name, _) = place(self.writer, key);
        match self.verb {
            Verb::Set => {
                let value = content(self.writer, key, after).expect("a set leaves a value");
                set_request(&name, &value)
            }
            Verb::Delete => format!("delete {name}\r\n").into_bytes(),
            Verb::Increment => format!("incr {name} 1\r\n").into_bytes(),
            Verb::Mutate | Verb::DeleteRange => panic!("memcached has nothing like {self}"),
        }
    }

    /// What is sent over the native door, which `take` gets.
    pub(super) fn with_native<R>(&self, take: impl FnOnce(&NativeRequest<'_>) -> R) -> R {
        let places: Vec<(String, String)> =
            self.changes.iter().map(|change| place(self.writer, change.key)).collect();
        let values: Vec<Option<Vec<u8>>> = self
            .changes
            .iter()
            .map(|change| content(self.writer, change.key, change.after))
            .collect();
        let key = |index: usize| {
            let (record, item) = &places[index];
            native::key(record.as_bytes(), item.as_bytes())
        };
        let single = |index: usize| match &values[index] {
            Some(value) => native::put(key(index), PutMode::Set(Condition::Any), value),
            None => native::delete(key(index)),
        };
        let record = places[0].0.as_bytes();
        match self.verb {
            Verb::Set | Verb::Delete => take(&single(0)),
            Verb::Increment => take(&native::increment(key(0), 1)),
            Verb::Mutate => {
                let changes: Vec<NativeRequest<'_>> = (0..places.len()).map(single).collect();
                take(&native::mutate(&MutateRecord::body(0, record, &changes)))
            }
            Verb::DeleteRange => {
                // A key behind the last one and before the next.
                let to = format!("{}~", places[places.len() - 1].1);
                take(&native::delete_range(record, places[0].1.as_bytes(), to.as_bytes()))
            }
        }
    }

    pub(super) fn expected(&self) -> Expected {
        let Change { before, after, .. } = self.changes[0];
        match (self.verb, before, after) {
            (Verb::Set | Verb::Mutate | Verb::DeleteRange, ..) => Expected::Done,
            (_, State::Absent, _) => Expected::Absent,
            (Verb::Delete, ..) => Expected::Done,
            (Verb::Increment, _, State::Counter(number)) => Expected::Number(number),
            (Verb::Increment, ..) => unreachable!("only counters are incremented"),
        }
    }

    /// The same in memcached's words.
    pub(super) fn line(&self) -> String {
        match (self.expected(), self.verb) {
            (Expected::Absent, _) => "NOT_FOUND".to_owned(),
            (Expected::Number(number), _) => number.to_string(),
            (Expected::Done, Verb::Delete) => "DELETED".to_owned(),
            (Expected::Done, _) => "STORED".to_owned(),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.verb)?;
        for Change { key, before, after } in &self.changes {
            let (record, item) = place(self.writer, *key);
            write!(formatter, " {record}/{item}: {before:?} -> {after:?}")?;
        }
        Ok(())
    }
}

impl History {
    pub(super) fn new(writer: usize) -> Self {
        let key = Key { acknowledged: State::Absent, issued: Vec::new() };
        let keys = vec![key; PLAIN + RECORDS * ITEMS];
        Self { writer, keys, sequence: 0, acknowledged: 0, open: BTreeMap::new() }
    }

    /// How many requests were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Makes up a request for memcached's door, which counts as sent from now on.
    pub(super) fn issue(&mut self, random: &mut Rng) -> Request {
        let key = random.usize(..PLAIN);
        self.sequence += 1;
        let (verb, after) = self.single(key, random);
        self.sent(verb, &[(key, after)])
    }

    /// The same for the native door, where requests that are under way together may be done in any
    /// order: `None` if one of its keys is in `busy`, where they go otherwise.
    pub(super) fn issue_native(
        &mut self,
        random: &mut Rng,
        busy: &mut HashSet<usize>,
    ) -> Option<Request> {
        let first = PLAIN + random.usize(..RECORDS) * ITEMS;
        let kind = random.u8(..10);
        let keys: Vec<usize> = match kind {
            0..4 => vec![random.usize(..PLAIN)],
            4..6 => vec![first + random.usize(..ITEMS)],
            6..9 => {
                let mut all: Vec<usize> = (first..first + ITEMS).collect();
                random.shuffle(&mut all);
                all.truncate(random.usize(2..7));
                all
            }
            _ => {
                let begin = random.usize(..ITEMS);
                let end = random.usize(begin..ITEMS.min(begin + 6));
                (first + begin..=first + end).collect()
            }
        };
        if keys.iter().any(|key| busy.contains(key)) {
            return None;
        }
        busy.extend(&keys);
        self.sequence += 1;
        let sequence = self.sequence;
        Some(match kind {
            0..6 => {
                let (verb, after) = self.single(keys[0], random);
                self.sent(verb, &[(keys[0], after)])
            }
            6..9 => {
                // A delete of what is not there would refuse them all.
                let mut after = |key: usize| {
                    let is_there = self.keys[key].latest() != State::Absent;
                    let is_deleted = is_there && random.u8(..3) == 0;
                    if is_deleted { State::Absent } else { State::Value { sequence } }
                };
                let changes: Vec<(usize, State)> =
                    keys.into_iter().map(|key| (key, after(key))).collect();
                self.sent(Verb::Mutate, &changes)
            }
            _ => {
                let changes: Vec<(usize, State)> =
                    keys.into_iter().map(|key| (key, State::Absent)).collect();
                self.sent(Verb::DeleteRange, &changes)
            }
        })
    }

    /// What to do to one key.
    fn single(&self, key: usize, random: &mut Rng) -> (Verb, State) {
        let sequence = self.sequence;
        let is_counter = (VALUES..PLAIN).contains(&key);
        match (random.u8(..10), self.keys[key].latest()) {
            (0..2, _) => (Verb::Delete, State::Absent),
            (_, _) if !is_counter => (Verb::Set, State::Value { sequence }),
            (2..9, State::Counter(number)) => (Verb::Increment, State::Counter(number + 1)),
            (2..4, State::Absent) => (Verb::Increment, State::Absent),
            _ => (Verb::Set, State::Counter(sequence)),
        }
    }

    fn sent(&mut self, verb: Verb, changes: &[(usize, State)]) -> Request {
        let (writer, sequence) = (self.writer, self.sequence);
        let change = |&(key, after): &(usize, State)| {
            let before = self.keys[key].latest();
            self.keys[key].issued.push(after);
            Change { key, before, after }
        };
        let changes: Vec<Change> = changes.iter().map(change).collect();
        if changes.len() > 1 {
            self.open.insert(sequence, changes.clone());
        }
        Request { writer, sequence, verb, changes }
    }

    /// The answer has come; to requests on one key answers come in their order.
    pub(super) fn acknowledge(&mut self, request: &Request) {
        for change in &request.changes {
            let key = &mut self.keys[change.key];
            key.acknowledged = key.issued.remove(0);
            assert_eq!(key.acknowledged, change.after, "answers are counted in order");
        }
        self.open.remove(&request.sequence);
        self.acknowledged += 1;
    }

    /// Reads a key over each door, and a part of a record page by page, while nothing is under way:
    /// what one door has acknowledged the other shows.
    pub(super) fn look(
        &self,
        random: &mut Rng,
        memcached: &mut Client,
        native: &mut NativeClient,
    ) -> io::Result<()> {
        for _ in 0..2 {
            let key = random.usize(..PLAIN);
            let (name, _) = place(self.writer, key);
            let expected = content(self.writer, key, self.keys[key].acknowledged);
            let found = memcached.get(&name)?.map(|item| item.value);
            assert!(found == expected, "memcached's door: {}", self.wrong(key, &found));
            let found = native.get(native::key(name.as_bytes(), b""))?;
            assert!(found == expected, "the native door: {}", self.wrong(key, &found));
        }
        let record = random.usize(..RECORDS);
        let (from, to) = (random.usize(..ITEMS), random.usize(..ITEMS));
        let is_descending = random.bool();
        let found = self.items(native, record, Some((from, to)), is_descending, random)?;
        let mut expected: Vec<usize> = (from..to)
            .map(|item| PLAIN + record * ITEMS + item)
            .filter(|key| self.keys[*key].acknowledged != State::Absent)
            .collect();
        if is_descending {
            expected.reverse();
        }
        let shown: Vec<usize> = found.iter().map(|(key, _)| *key).collect();
        assert_eq!(shown, expected, "items {from} to {to} of record {record}");
        for (key, value) in found {
            let expected = content(self.writer, key, self.keys[key].acknowledged);
            assert!(expected.as_ref() == Some(&value), "a page: {}", self.wrong(key, &Some(value)));
        }
        Ok(())
    }

    /// The items of a record, as pages show them, with the numbers of their keys.
    fn items(
        &self,
        native: &mut NativeClient,
        record: usize,
        bounds: Option<(usize, usize)>,
        is_descending: bool,
        random: &mut Rng,
    ) -> io::Result<Vec<(usize, Vec<u8>)>> {
        let first = PLAIN + record * ITEMS;
        let (name, _) = place(self.writer, first);
        let ends = bounds.map(|(from, to)| (item_name(from), item_name(to)));
        let (from, to) = match &ends {
            Some((from, to)) => (Some(from.as_bytes()), Some(to.as_bytes())),
            None => (None, None),
        };
        let range = ItemRange::Between { from, to };
        let items_max = random.u32(1..8);
        let items = native.items(name.as_bytes(), range, is_descending, items_max)?;
        let numbered = |(item, value): (Vec<u8>, Vec<u8>)| {
            let number = (0..ITEMS).find(|number| item_name(*number).as_bytes() == item);
            let number = number.unwrap_or_else(|| panic!("{name} has {}", item.escape_ascii()));
            (first + number, value)
        };
        Ok(items.into_iter().map(numbered).collect())
    }

    /// Reads all keys, over either door. Returns those that hold what they may not; the others'
    /// states become acknowledged.
    pub(super) fn verify(
        &mut self,
        random: &mut Rng,
        memcached: &mut Client,
        native: &mut NativeClient,
    ) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for key in 0..PLAIN {
            let (name, _) = place(self.writer, key);
            found.push(match random.bool() {
                true => memcached.get(&name)?.map(|item| item.value),
                false => native.get(native::key(name.as_bytes(), b""))?,
            });
        }
        found.resize(self.keys.len(), None);
        for record in 0..RECORDS {
            let is_descending = random.bool();
            for (key, value) in self.items(native, record, None, is_descending, random)? {
                found[key] = Some(value);
            }
        }
        Ok(self.settle(&found))
    }

    /// Compares what all keys hold with what they may.
    fn settle(&mut self, found: &[Option<Vec<u8>>]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (number, value) in found.iter().enumerate() {
            let key = &self.keys[number];
            let is_it = |state: &&State| content(self.writer, number, **state) == *value;
            let issued = key.issued.iter().rev().find(is_it);
            match issued.or_else(|| Some(&key.acknowledged).filter(is_it)).copied() {
                Some(state) => self.keys[number] = Key { acknowledged: state, issued: Vec::new() },
                None => wrong.push(self.wrong(number, value)),
            }
        }
        for changes in std::mem::take(&mut self.open).into_values() {
            let telling = changes.iter().filter(|change| change.before != change.after);
            let is_made = |change: &Change| self.keys[change.key].acknowledged == change.after;
            let made: Vec<bool> = telling.map(is_made).collect();
            if made.contains(&true) && made.contains(&false) {
                wrong.push(format!("a part of {changes:?} was made: {made:?}"));
            }
        }
        wrong
    }

    fn wrong(&self, key: usize, found: &Option<Vec<u8>>) -> String {
        let (record, item) = place(self.writer, key);
        format!("{record}/{item} holds {}, history: {:?}", shown(found), self.keys[key])
    }
}

fn item_name(item: usize) -> String {
    format!("item-{item:02}")
}

/// The record and the item of a key.
fn place(writer: usize, key: usize) -> (String, String) {
    match key.checked_sub(PLAIN) {
        None => (format!("writer-{writer}-key-{key:03}"), String::new()),
        Some(rest) => (format!("writer-{writer}-record-{}", rest / ITEMS), item_name(rest % ITEMS)),
    }
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
        assert!(!request.bytes().is_empty() && !request.line().is_empty());
        requests.push(request);
        if let Some(request) = history.issue_native(&mut random, &mut HashSet::new()) {
            request.with_native(|native| {
                let mut body = Vec::new();
                native.put_body(&mut body);
                assert!(!body.is_empty());
            });
            requests.push(request);
        }
    }
    for request in &requests {
        history.acknowledge(request);
    }
    assert!(history.acknowledged() >= 2000 && history.open.is_empty());
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

#[test]
fn a_part_of_what_belongs_together_is_noticed() {
    let (mut history, mut random) = (History::new(3), Rng::with_seed(7));
    let request = loop {
        let request = history.issue_native(&mut random, &mut HashSet::new()).expect("none is busy");
        if request.verb == Verb::Mutate {
            break request;
        }
        history.acknowledge(&request);
    };
    let holds = |history: &History, made: usize| -> Vec<Option<Vec<u8>>> {
        let mut states: Vec<State> = history.keys.iter().map(|key| key.acknowledged).collect();
        for change in &request.changes[..made] {
            states[change.key] = change.after;
        }
        states.iter().enumerate().map(|(key, state)| content(3, key, *state)).collect()
    };
    let again = |history: &History| History {
        keys: history.keys.clone(),
        open: history.open.clone(),
        ..History::new(3)
    };
    let all = request.changes.len();
    for (made, is_wrong) in [(0, false), (1, true), (all - 1, true), (all, false)] {
        let mut history = again(&history);
        let found = holds(&history, made);
        assert_eq!(!history.settle(&found).is_empty(), is_wrong, "{made} of {all}");
    }
    let mut lost = again(&history);
    let mut found = holds(&lost, all);
    found[0] = Some(b"nobody has stored this".to_vec());
    assert_eq!(lost.settle(&found).len(), 1);
}
