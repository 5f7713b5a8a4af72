//! Which operations on which keys: chosen by chance.

use super::harness::TestShard;
use super::history::Name;
use crate::key::{ITEM_BYTES_MAX, RECORD_BYTES_MAX};
use crate::operation::{Arithmetic, Delete, EXPIRED, Exchange, Operation, Read, Store, StoreMode};
use crate::scan::Scan;
use crate::shard::OperationBuf;
use larder_runtime::random::Random;

/// What keys look like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Short words.
    Words,
    /// Zero bytes, their escapes, and prefixes of each other.
    Zeros,
    /// Records of every length up to the limit, of this byte.
    Lengths(u8),
    /// Items of a few records, of every length up to the limit.
    Items,
}

/// What the operations are for a while.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Mixed,
    Overwrites,
    Deletes,
}

/// How the operations are mixed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    hot_keys: u64,
    wide_keys: u64,
    /// Of 100 operations, how many go to the hot keys.
    hot_percent: u64,
    write_percent: u64,
    /// Of 100 values, how many are longer than a segment's standard length.
    oversize_percent: u64,
    /// Of 100 other values, how many are short enough for the index.
    inline_percent: u64,
    /// Of 100 values, how many become shorter when they are compressed.
    pub(super) compressible_percent: u64,
    /// Of 100 expiries, how many are not never.
    expiry_percent: u64,
    /// Of 100 reads, how many change the item.
    touch_percent: u64,
    shape: Shape,
    namespaces: u64,
    phases: bool,
    pub(super) clears: bool,
    /// Ranges of items are deleted.
    pub(super) ranges: bool,
    /// Several items are changed at once.
    pub(super) batches: bool,
    pub(super) clock_steps: bool,
    /// The clock may go far forward, and far back.
    pub(super) clock_leaps: bool,
    /// Errors end a client instead of the test.
    pub(super) faults: bool,
    /// The disk may be full.
    pub(super) is_crowded: bool,
    /// Others take even the space that the shards keep in reserve. Then deletes may be refused as
    /// well, and a shard may stop taking changes or not start before there is room: what frees
    /// space, and the manifest, take space themselves.
    pub(super) takes_reserve: bool,
}

/// The namespaces that are used: never more than the first few.
const NAMESPACES: [u32; 3] = [0, 1, 77];

impl Mix {
    pub(super) fn random(random: &mut Random) -> Self {
        let lengths = Shape::Lengths(random.pick(&[0, b'k', 0xFF]));
        Self {
            hot_keys: random.pick(&[1, 4, 8]),
            wide_keys: random.pick(&[20, 150]),
            hot_percent: random.pick(&[20, 50, 90]),
            write_percent: random.pick(&[30, 60, 90]),
            oversize_percent: random.pick(&[0, 0, 1, 3]),
            inline_percent: random.pick(&[5, 30, 60, 95]),
            compressible_percent: random.pick(&[0, 50, 90]),
            expiry_percent: random.pick(&[5, 30, 80]),
            touch_percent: random.pick(&[20, 40, 80]),
            shape: random.pick(&[Shape::Words, Shape::Words, Shape::Zeros, lengths, Shape::Items]),
            namespaces: random.pick(&[1, 1, 2, 3]),
            phases: random.percent(50),
            clears: random.percent(40),
            clock_steps: random.percent(40),
            clock_leaps: random.percent(15),
            ranges: random.percent(40),
            batches: random.percent(40),
            faults: false,
            is_crowded: false,
            takes_reserve: false,
        }
    }

    /// Values in the log that expire soon, and touches that let them live longer: the entries that
    /// say so go away while others still point to the values.
    pub(super) fn outlive_expiries(&mut self) {
        self.expiry_percent = 80;
        self.touch_percent = 80;
        self.write_percent = 60;
        self.inline_percent = 30;
        self.clears = true;
        self.clock_steps = true;
        self.phases = false;
    }

    /// Many keys that are written, and many that are deleted.
    pub(super) fn delete_in_phases(&mut self) {
        self.wide_keys = 150;
        self.hot_percent = 20;
        self.write_percent = 90;
        self.inline_percent = 95;
        self.shape = Shape::Words;
        self.namespaces = 1;
        self.clears = false;
        self.ranges = false;
        self.batches = false;
        self.phases = true;
    }

    pub(super) fn name(&self, random: &mut Random) -> Name {
        let number = if random.percent(self.hot_percent) {
            random.below(self.hot_keys)
        } else {
            self.hot_keys + random.below(self.wide_keys)
        };
        let namespace = NAMESPACES[random.below(self.namespaces) as usize];
        self.shape.name(namespace, number)
    }

    /// A part of the items.
    pub(super) fn range(&self, random: &mut Random) -> Scan {
        let (one, other) = (self.name(random), self.name(random));
        let Name { namespace, record, item } = one;
        match random.below(4) {
            0 => Scan::of_record(namespace, &record),
            1 => Scan::of_items(namespace, &record, &item[..item.len().min(1)]),
            _ => {
                Scan::of_namespace(namespace).from(&record, &item).below(&other.record, &other.item)
            }
        }
    }

    pub(super) fn phase(&self, random: &mut Random) -> Phase {
        if !self.phases {
            return Phase::Mixed;
        }
        random.pick(&[Phase::Mixed, Phase::Overwrites, Phase::Deletes])
    }
}

impl Shape {
    fn name(self, namespace: u32, number: u64) -> Name {
        let (record, item) = match self {
            Self::Words => (format!("key-{number:04}").into_bytes(), Vec::new()),
            Self::Zeros => (of_zeros(number), Vec::new()),
            Self::Lengths(byte) => (vec![byte; spread(number, RECORD_BYTES_MAX)], Vec::new()),
            Self::Items => {
                (of_zeros(number % 3), vec![number as u8; spread(number / 3, ITEM_BYTES_MAX)])
            }
        };
        Name { namespace, record, item }
    }
}

/// A length for each number: the longest comes first, and none twice before all are used.
fn spread(number: u64, longest: usize) -> usize {
    let lengths = longest as u64 + 1;
    (longest as u64 + number * 37 % lengths) as usize % lengths as usize
}

/// The number's digits in base 3, as bytes that escaping could confuse.
fn of_zeros(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0 {
        bytes.push([0x00, 0x01, 0xFF][(number % 3) as usize]);
        number /= 3;
    }
    bytes
}

fn expiry(mix: &Mix, random: &mut Random, now: u32) -> u32 {
    if !random.percent(mix.expiry_percent) {
        return 0;
    }
    match random.below(10) {
        0 | 1 => EXPIRED,
        2..8 => now + random.below(25) as u32,
        _ => now + random.below(100_000) as u32,
    }
}

fn value(shard: &TestShard, mix: &Mix, random: &mut Random) -> Vec<u8> {
    if random.percent(mix.oversize_percent) {
        let segment = shard.options().segment_bytes as usize;
        let longest = shard.options().value_bytes_max;
        return random_value(mix, random, segment.min(longest - 100), longest);
    }
    if random.percent(mix.inline_percent) {
        return match random.below(5) {
            0 => Vec::new(),
            1..4 => random.below(1000).to_string().into_bytes(),
            _ => random_value(mix, random, 1, 32),
        };
    }
    match random.below(10) {
        0..8 => random_value(mix, random, 30, 700),
        _ => random_value(mix, random, 3000, 9000),
    }
}

fn random_value(mix: &Mix, random: &mut Random, low: usize, high: usize) -> Vec<u8> {
    let len = random.count(low..=high);
    if !random.percent(mix.compressible_percent) {
        return random.bytes(len);
    }
    // Noise, and then what comes again and again: it saves more or less.
    let noise = random.below(len as u64 / 2 + 1) as usize;
    let word = random.count(1..=40);
    let word = random.bytes(word);
    let words = word.into_iter().cycle();
    random.bytes(noise).into_iter().chain(words).take(len).collect()
}

/// A random operation. `versions` are some that the client has seen.
pub(super) fn operation(
    shard: &TestShard,
    (mix, phase): (&Mix, Phase),
    random: &mut Random,
    now: u32,
    versions: &[u64],
) -> OperationBuf {
    let bytes = value(shard, mix, random);
    let operation = match phase {
        Phase::Overwrites if random.percent(90) => Operation::Store(Store {
            mode: StoreMode::Set,
            value: &bytes,
            client_flags: 0,
            expiry: expiry(mix, random, now),
            compare: None,
            invalidate: false,
            is_large: false,
            vivify: None,
            version: None,
        }),
        Phase::Deletes if random.percent(80) => Operation::Delete(Delete::default()),
        _ if !random.percent(mix.write_percent) => Operation::Read(read(mix, random, now)),
        _ => change(mix, random, now, versions, &bytes),
    };
    OperationBuf::new(&operation)
}

fn change<'a>(
    mix: &Mix,
    random: &mut Random,
    now: u32,
    versions: &[u64],
    bytes: &'a [u8],
) -> Operation<'a> {
    let compare = random.percent(20).then(|| random.pick(versions));
    match random.below(10) {
        0..6 => Operation::Store(Store {
            mode: random.pick(&[
                StoreMode::Set,
                StoreMode::Set,
                StoreMode::Set,
                StoreMode::Add,
                StoreMode::Replace,
                StoreMode::Append,
                StoreMode::Prepend,
            ]),
            value: bytes,
            client_flags: random.below(3) as u32,
            expiry: expiry(mix, random, now),
            compare,
            invalidate: random.percent(20),
            is_large: false,
            vivify: random.percent(30).then(|| expiry(mix, random, now)),
            version: None,
        }),
        6 if random.percent(50) => exchange(mix, random, now, bytes),
        6..8 => Operation::Delete(Delete {
            compare,
            invalidate: random.percent(25),
            clear_value: random.percent(10),
            expiry: random.percent(30).then(|| expiry(mix, random, now)),
            version: None,
        }),
        _ => Operation::Arithmetic(Arithmetic {
            delta: random.below(100),
            decrement: random.percent(40),
            compare,
            vivify: random.percent(50).then(|| (random.below(10), expiry(mix, random, now))),
            expiry: random.percent(20).then(|| expiry(mix, random, now)),
            version: None,
        }),
    }
}

/// Operations on some items of one namespace that are done together.
pub(super) fn batch(
    shard: &TestShard,
    mix: &Mix,
    random: &mut Random,
    now: u32,
    versions: &[u64],
) -> Vec<(Name, OperationBuf)> {
    let namespace = mix.name(random).namespace;
    let mut steps: Vec<(Name, OperationBuf)> = Vec::new();
    for _ in 0..random.count(1..=6) {
        let name = Name { namespace, ..mix.name(random) };
        if steps.iter().all(|(other, _)| *other != name) {
            let bytes = value(shard, mix, random);
            let step = plain_change(mix, random, now, versions, &bytes);
            steps.push((name, OperationBuf::new(&step)));
        }
    }
    steps
}

fn plain_change<'a>(
    mix: &Mix,
    random: &mut Random,
    now: u32,
    versions: &[u64],
    bytes: &'a [u8],
) -> Operation<'a> {
    let compare = random.percent(10).then(|| random.pick(versions));
    match random.below(10) {
        0..6 => Operation::Store(Store {
            mode: match random.below(8) {
                0 => StoreMode::Add,
                1 => StoreMode::Append,
                2 => StoreMode::Replace,
                _ => StoreMode::Set,
            },
            value: bytes,
            client_flags: random.below(3) as u32,
            expiry: expiry(mix, random, now),
            compare,
            invalidate: false,
            is_large: false,
            vivify: None,
            version: None,
        }),
        6 => Operation::Delete(Delete { compare, ..Delete::default() }),
        7 => exchange(mix, random, now, bytes),
        8 => Operation::Read(Read { value: true, ..Read::default() }),
        _ => Operation::Arithmetic(Arithmetic {
            delta: random.below(100),
            decrement: random.percent(40),
            compare,
            vivify: random.percent(70).then(|| (random.below(10), expiry(mix, random, now))),
            expiry: None,
            version: None,
        }),
    }
}

/// Exchanges of values that items have: numbers, and those of no bytes.
fn exchange<'a>(mix: &Mix, random: &mut Random, now: u32, bytes: &'a [u8]) -> Operation<'a> {
    const DIGITS: &[u8] = b"0123456789";
    let digit = random.below(10) as usize;
    let expected = if random.percent(30) { b"" } else { &DIGITS[digit..=digit] };
    Operation::Exchange(if random.percent(60) {
        Exchange::store(expected, bytes, random.below(3) as u32, expiry(mix, random, now))
    } else {
        Exchange::delete(expected)
    })
}

fn read(mix: &Mix, random: &mut Random, now: u32) -> Read {
    if !random.percent(mix.touch_percent) {
        return Read { value: random.percent(80), quiet: random.percent(20), ..Read::default() };
    }
    Read {
        value: random.percent(70),
        expiry: random.percent(50).then(|| expiry(mix, random, now)),
        vivify: random.percent(30).then(|| expiry(mix, random, now)),
        recache_before: random.percent(30).then(|| now + random.below(30) as u32),
        leases: random.percent(70),
        quiet: random.percent(20),
        version: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_number_has_a_name_of_its_own() {
        for shape in [Shape::Words, Shape::Zeros, Shape::Lengths(0), Shape::Items] {
            let names: BTreeSet<Name> = (0..200).map(|number| shape.name(0, number)).collect();
            assert_eq!(names.len(), 200, "{shape:?}");
        }
        let longest = Shape::Lengths(0).name(0, 0);
        assert_eq!(longest.record.len(), RECORD_BYTES_MAX);
        assert_eq!(Shape::Items.name(0, 0).item.len(), ITEM_BYTES_MAX);
        assert_eq!(Shape::Zeros.name(0, 0).record, b"");
    }
}
