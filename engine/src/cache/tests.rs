use super::*;
use larder_runtime::random::Random;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

pub(super) const HEADER: usize = 5;

pub(super) type TestCache = Cache<HEADER>;

/// What the invariants at the top of the module say, checked by walking both queues.
pub(super) fn check(cache: &TestCache) {
    let (mut entries, mut bytes) = (0, 0);
    for queue in [Queue::Small, Queue::Main] {
        let ring = cache.ring(queue);
        let mut live = 0;
        let mut next = ring.tail();
        while let Some(offset) = next {
            let location = Location::at(offset);
            assert_eq!(cache.queue_of(location), queue);
            let descriptor = cache.arena.descriptor(location);
            let entry_bytes = descriptor.entry_bytes::<HEADER>();
            assert!(cache.arena.is_in_memory(location, entry_bytes), "an entry was given back");
            let held = cache.index.find(descriptor.hash, |held| held == location);
            assert_eq!(held.is_some(), !descriptor.dead, "indexed if and only if live");
            if !descriptor.dead {
                live += 1;
                bytes += entry_bytes;
            }
            next = ring.next(offset, entry_bytes);
        }
        assert_eq!(ring.live_entries, live);
        assert!(ring.occupied() <= ring.len(), "{} of {}", ring.occupied(), ring.len());
        entries += live;
    }
    let counters = cache.counters();
    assert_eq!((counters.entries, counters.bytes_used), (entries, bytes));
    assert!(bytes <= cache.arena.len());
    assert!(cache.reserved_bytes() <= cache.capacity_max);
    assert!(counters.resident_bytes <= cache.capacity_max);
}

pub(super) fn key_of(number: u32) -> Vec<u8> {
    format!("key-{number:06}").into_bytes()
}

pub(super) fn hash_of(number: u32) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&key_of(number))
}

/// Stands for a read of the item: a look-up and, if it missed, the insert that follows.
pub(super) fn read(cache: &mut TestCache, number: u32, value: &[u8]) -> bool {
    let (hash, key) = (hash_of(number), key_of(number));
    let hit = cache.get(hash, &key).is_some();
    if !hit {
        assert!(cache.insert(hash, &key, &[0; HEADER], value));
    }
    hit
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Insert { key: u8, value_len: usize },
    InsertSpare { key: u8, value_len: usize },
    Get { key: u8 },
    ChangeHeader { key: u8 },
    Remove { key: u8 },
    Clear,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value_len = prop_oneof![8 => 0usize..80, 3 => 0usize..400, 1 => 0usize..2000];
    let step = prop_oneof![
        30 => (0u8..60, value_len.clone())
            .prop_map(|(key, value_len)| Step::Insert { key, value_len }),
        10 => (0u8..60, value_len)
            .prop_map(|(key, value_len)| Step::InsertSpare { key, value_len }),
        40 => (0u8..60).prop_map(|key| Step::Get { key }),
        8 => (0u8..60).prop_map(|key| Step::ChangeHeader { key }),
        10 => (0u8..60).prop_map(|key| Step::Remove { key }),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 0..600)
}

/// A cache beside a map of what was inserted last.
pub(super) struct Pair {
    pub(super) cache: TestCache,
    model: HashMap<u8, ([u8; HEADER], Vec<u8>)>,
    hashes: u64,
}

impl Pair {
    /// Keys share `hashes` hashes.
    pub(super) fn new(capacity: usize, entry_bytes_mean: usize, hashes: u64) -> Self {
        let cache = TestCache::with_entry_bytes(capacity, entry_bytes_mean);
        Self { cache, model: HashMap::new(), hashes }
    }

    /// Keys of different lengths, some the prefix of others.
    fn key(key: u8) -> Vec<u8> {
        vec![key / 6; usize::from(key % 6)]
    }

    fn hash(&self, key: u8) -> u64 {
        u64::from(key) % self.hashes
    }

    pub(super) fn apply(&mut self, step: &Step, number: u32) {
        match *step {
            Step::Insert { key, value_len } => self.insert(key, value_len, number),
            Step::InsertSpare { key, value_len } => self.insert_spare(key, value_len, number),
            Step::Get { key } => {
                let name = Self::key(key);
                let hash = self.hash(key);
                let peeked = self.cache.peek(hash, &name).map(|(h, v)| (*h, v.to_vec()));
                let got = self.cache.get(hash, &name).map(|hit| (*hit.header, hit.value.to_vec()));
                assert_eq!(peeked, got, "peek and get see the same");
                if got.is_some() {
                    assert_eq!(got.as_ref(), self.model.get(&name_id(&name)), "key {key}");
                }
            }
            Step::ChangeHeader { key } => {
                let name = Self::key(key);
                if let Some(header) = self.cache.header_mut(self.hash(key), &name) {
                    header[0] ^= 0xFF;
                    let held = self.model.get_mut(&name_id(&name)).expect("a hit was inserted");
                    held.0[0] ^= 0xFF;
                }
            }
            Step::Remove { key } => {
                let name = Self::key(key);
                let held = self.cache.peek(self.hash(key), &name).is_some();
                assert_eq!(self.cache.remove(self.hash(key), &name), held);
                assert_eq!(self.cache.peek(self.hash(key), &name), None);
                self.model.remove(&name_id(&name));
            }
            Step::Clear => {
                self.cache.clear();
                self.model.clear();
                assert_eq!(self.cache.counters().entries, 0);
            }
        }
    }

    fn content(key: u8, value_len: usize, number: u32) -> ([u8; HEADER], Vec<u8>) {
        let mut header = [key; HEADER];
        header[1..].copy_from_slice(&number.to_le_bytes());
        (header, (0..value_len).map(|at| (number as usize + at) as u8).collect())
    }

    /// Only what is not here is taken in.
    fn insert_spare(&mut self, key: u8, value_len: usize, number: u32) {
        let name = Self::key(key);
        let (header, value) = Self::content(key, value_len, number);
        let was_held = self.cache.peek(self.hash(key), &name).is_some();
        if self.cache.insert_spare(self.hash(key), &name, &header, &value) {
            assert!(!was_held, "key {key}");
            assert_eq!(self.cache.peek(self.hash(key), &name), Some((&header, value.as_slice())));
            self.model.insert(name_id(&name), (header, value));
        }
    }

    fn insert(&mut self, key: u8, value_len: usize, number: u32) {
        let name = Self::key(key);
        let (header, value) = Self::content(key, value_len, number);
        let held = self.cache.insert(self.hash(key), &name, &header, &value);
        let peeked = self.cache.peek(self.hash(key), &name);
        assert_eq!(peeked, held.then_some((&header, value.as_slice())));
        if held {
            self.model.insert(name_id(&name), (header, value));
        } else {
            self.model.remove(&name_id(&name));
        }
    }
}

/// Empty names of different numbers are one key.
fn name_id(name: &[u8]) -> u8 {
    match name {
        [] => 0,
        [first, ..] => first * 6 + name.len() as u8,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_hit_is_what_was_inserted_last(
        capacity in prop_oneof![0usize..2000, 2000usize..8000, Just(1usize << 15)],
        entry_bytes_mean in prop_oneof![Just(1usize), Just(64), Just(400), Just(4096)],
        steps in steps(),
    ) {
        // All keys of one length share a hash; the empty name always has the same one.
        let mut pair = Pair::new(capacity, entry_bytes_mean, 6);
        for (number, step) in (0u32..).zip(&steps) {
            pair.apply(step, number);
            check(&pair.cache);
        }
    }
}

#[test]
fn what_is_put_in_where_there_is_room_to_spare_takes_nobody_s_place() {
    let mut cache = TestCache::with_entry_bytes(200_000, 1000);
    let value = [7; 1000];
    for number in 0..50 {
        assert!(!read(&mut cache, number, &value));
        assert!(read(&mut cache, number, &value));
    }
    let mut spare = 0;
    for number in 1000..2000 {
        let (hash, key) = (hash_of(number), key_of(number));
        spare += u32::from(cache.insert_spare(hash, &key, &[0; HEADER], &value));
        check(&cache);
    }
    assert!((80..150).contains(&spare), "{spare} of about 120 for which there is room");
    assert_eq!(cache.counters().evictions, 0);
    assert!((0..50).all(|number| read(&mut cache, number, &value)), "somebody had to go");
    // Where something is gone there is room again.
    assert!(cache.remove(hash_of(3), &key_of(3)));
    assert!(cache.insert_spare(hash_of(5000), &key_of(5000), &[0; HEADER], &value));
}

#[test]
fn what_is_dead_goes_before_what_was_not_used() {
    let mut cache = TestCache::with_entry_bytes(200_000, 1000);
    let mut random = Random::new(3);
    let mut held: Vec<u32> = Vec::new();
    // Several rounds of the queue, half of which is dead at any time.
    for number in 0..2000 {
        let (hash, key) = (hash_of(number), key_of(number));
        if held.len() >= 80 {
            let gone = held.swap_remove(random.index(held.len()));
            assert!(cache.remove(hash_of(gone), &key_of(gone)), "{gone} had to go");
        }
        assert!(cache.insert_spare(hash, &key, &[0; HEADER], &[7; 1000]), "{number}");
        held.push(number);
        check(&cache);
    }
    assert_eq!(cache.counters().evictions, 0);
}

#[test]
fn long_random_runs_wrap_around_and_stay_exact() {
    for seed in 0..8u64 {
        let mut random = Random::new(seed);
        let mut cache = TestCache::with_entry_bytes(20_000, 100 + 60 * seed as usize);
        let mut newest = HashMap::new();
        for version in 0u64..20_000 {
            let number = random.below(300) as u32;
            let (hash, key) = (hash_of(number), key_of(number));
            if random.below(2) == 0 {
                let value = vec![version as u8; random.below(200) as usize];
                let mut header = [0; HEADER];
                header.copy_from_slice(&version.to_le_bytes()[..HEADER]);
                assert!(cache.insert(hash, &key, &header, &value), "seed {seed}");
                newest.insert(number, (header, value));
            } else if let Some(hit) = cache.get(hash, &key) {
                let (header, value) = &newest[&number];
                assert_eq!((&*hit.header, hit.value), (header, &value[..]), "seed {seed}");
            }
        }
        check(&cache);
        let counters = cache.counters();
        assert!(counters.evictions > 1000 && counters.hits > 1000, "seed {seed}: {counters:?}");
    }
}

#[test]
fn the_same_length_is_overwritten_in_place() {
    let mut cache = TestCache::new(1 << 16);
    assert!(cache.insert(1, b"key", &[1; HEADER], b"first"));
    let before = cache.find(mix(1), b"key").expect("inserted");
    let bytes_used = cache.counters().bytes_used;
    assert!(cache.insert(1, b"key", &[2; HEADER], b"other"));
    assert_eq!(cache.find(mix(1), b"key"), Some(before));
    assert_eq!(cache.peek(1, b"key"), Some((&[2; HEADER], &b"other"[..])));
    assert!(cache.insert(1, b"key", &[3; HEADER], b"a much longer value than the others"));
    assert_ne!(cache.find(mix(1), b"key"), Some(before));
    assert!(cache.insert(1, b"key", &[4; HEADER], b"short"));
    let counters = cache.counters();
    assert_eq!((counters.entries, counters.bytes_used), (1, bytes_used));
    assert_eq!((counters.inserts, counters.evictions), (4, 0));
    check(&cache);
}

#[test]
fn an_entry_that_cannot_fit_takes_its_older_self_away() {
    let mut cache = TestCache::new(1 << 16);
    let longest = Layout::entry_bytes_max(cache.main.len()) - arena::entry_bytes::<HEADER>(3, 0);
    assert!(cache.insert(1, b"key", &[0; HEADER], b"small"));
    assert!(cache.insert(1, b"key", &[0; HEADER], &vec![1; longest / 8 * 8]));
    assert_eq!(cache.counters().entries, 1);
    assert!(!cache.insert(1, b"key", &[0; HEADER], &vec![2; longest + 16]));
    assert_eq!(cache.peek(1, b"key"), None);
    assert!(!cache.insert(2, &vec![0; 65_536], &[0; HEADER], b""));
    assert_eq!(cache.counters().entries, 0);
    check(&cache);
}

#[test]
fn tiny_capacities_hold_nothing_or_little() {
    for capacity in 0..3000 {
        let mut cache = TestCache::new(capacity);
        let admitted = (0..20).filter(|&number| {
            let key = key_of(number);
            let held = cache.insert(hash_of(number), &key, &[7; HEADER], b"value");
            assert_eq!(cache.get(hash_of(number), &key).is_some(), held);
            held
        });
        let admitted = admitted.count();
        assert!(admitted == 0 || admitted == 20, "capacity {capacity}: {admitted} admitted");
        assert_eq!(admitted == 20, cache.counters().entries > 0);
        if capacity < 300 {
            assert_eq!((admitted, cache.reserved_bytes()), (0, 0));
        }
        cache.clear();
        check(&cache);
    }
}

#[test]
fn an_index_smaller_than_the_arena_bounds_the_entries() {
    let mut cache = TestCache::with_entry_bytes(1 << 20, 8192);
    for number in 0..5000 {
        read(&mut cache, number, b"tiny");
        assert!(cache.counters().entries <= cache.index.entries_max());
    }
    assert_eq!(cache.counters().entries, cache.index.entries_max());
    assert!((4900..5000).any(|number| cache.peek(hash_of(number), &key_of(number)).is_some()));
    check(&cache);
}

#[test]
fn large_entries_start_in_main() {
    let mut cache = TestCache::new(1 << 20);
    let small_max = Layout::small_entry_bytes_max(cache.small.len());
    assert!(cache.insert(1, b"below", &[0; HEADER], &vec![0; small_max - 100]));
    assert!(cache.insert(2, b"above", &[0; HEADER], &vec![0; small_max + 100]));
    assert_eq!((cache.small.live_entries, cache.main.live_entries), (1, 1));
    assert!(cache.insert(1, b"below", &[0; HEADER], &vec![0; small_max + 100]));
    assert_eq!((cache.small.live_entries, cache.main.live_entries), (0, 2));
    check(&cache);
}

#[test]
fn an_empty_main_queue_is_filled_before_anything_is_evicted() {
    let mut cache = TestCache::new(1 << 18);
    let value = [0; 200];
    let mut number = 0;
    while cache.counters().evictions == 0 {
        read(&mut cache, number, &value);
        number += 1;
    }
    let filled = cache.counters().bytes_used;
    assert!(filled > cache.arena.len() / 100 * 95, "{filled} of {}", cache.arena.len());
}

#[test]
fn the_hot_set_survives_a_scan() {
    let mut cache = TestCache::new(1 << 18);
    let value = [0; 100];
    let junk = 1_000_000..1_010_000;
    for number in junk {
        read(&mut cache, number, &value);
    }
    let hot = 0..600;
    for _ in 0..3 {
        for number in hot.clone() {
            read(&mut cache, number, &value);
        }
    }
    let scanned_bytes = 10 * cache.counters().capacity;
    for number in 2_000_000..2_000_000 + (scanned_bytes / value.len()) as u32 {
        assert!(!read(&mut cache, number, &value), "a scan never hits");
    }
    let survivors = hot.filter(|&number| cache.get(hash_of(number), &key_of(number)).is_some());
    assert_eq!(survivors.count(), 600);
    check(&cache);
}

#[test]
fn a_key_that_returns_soon_after_its_eviction_goes_to_main() {
    let mut cache = TestCache::new(1 << 18);
    let value = [0; 100];
    for number in 0..10_000 {
        read(&mut cache, number, &value);
    }
    let evicted = (0..10_000)
        .rfind(|&number| cache.peek(hash_of(number), &key_of(number)).is_none())
        .expect("the cache is full");
    assert!(!read(&mut cache, evicted, &value));
    assert_eq!(cache.counters().ghost_hits, 1);
    let location = cache.find(mix(hash_of(evicted)), &key_of(evicted)).expect("inserted");
    assert_eq!(cache.queue_of(location), Queue::Main);
    assert!(!read(&mut cache, 0, &value), "long gone");
    assert_eq!(cache.counters().ghost_hits, 1, "and long forgotten");
    cache.clear();
    read(&mut cache, evicted - 1, &value);
    assert_eq!(cache.counters().ghost_hits, 1, "clearing forgets evictions");
}

#[test]
fn one_insert_copies_a_bounded_part_of_a_queue_full_of_used_entries() {
    let mut cache = TestCache::new(4 << 20);
    let value = [0; 100];
    for number in 0..40_000 {
        read(&mut cache, number, &value);
    }
    let used_up = |cache: &TestCache| -> usize {
        let mut count = 0;
        let mut next = cache.main.tail();
        while let Some(offset) = next {
            let descriptor = cache.arena.descriptor(Location::at(offset));
            count += usize::from(descriptor.uses == 3);
            next = cache.main.next(offset, descriptor.entry_bytes::<HEADER>());
        }
        count
    };
    for _ in 0..3 {
        for number in 0..40_000 {
            cache.get(hash_of(number), &key_of(number));
        }
    }
    let before = used_up(&cache);
    assert!(before > 20_000, "{before} entries in main are used");
    assert!(cache.insert(1, b"large", &[0; HEADER], &vec![0; 150_000]));
    let touched = before - used_up(&cache);
    let entry_bytes = arena::entry_bytes::<HEADER>(10, value.len());
    let moved_max = ((128 << 10) + 4 * 151_000) / (entry_bytes + 128) + 1;
    let evicted_max = 151_000 / entry_bytes + 1;
    assert!(touched <= moved_max + evicted_max, "{touched} entries were touched");
    check(&cache);
}

/// A cache of a number of keys that evicts the one used longest ago.
#[derive(Default)]
struct LeastRecentlyUsed {
    uses: HashMap<u32, u64>,
    order: BTreeMap<u64, u32>,
    clock: u64,
}

impl LeastRecentlyUsed {
    fn read(&mut self, number: u32, entries_max: usize) -> bool {
        self.clock += 1;
        let last_use = self.uses.insert(number, self.clock);
        if let Some(last_use) = last_use {
            self.order.remove(&last_use);
        }
        self.order.insert(self.clock, number);
        if self.uses.len() > entries_max {
            let (_, oldest) = self.order.pop_first().expect("more keys than allowed");
            self.uses.remove(&oldest);
        }
        last_use.is_some()
    }
}

fn zipf_trace(seed: u64, keys: usize, reads: usize) -> Vec<u32> {
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=keys)
        .map(|rank| {
            total += 1.0 / (rank as f64).powf(0.99);
            total
        })
        .collect();
    let mut random = Random::new(seed);
    let draw = |_| {
        let wanted = (random.bits() >> 11) as f64 / (1u64 << 53) as f64 * total;
        cumulative.partition_point(|&sum| sum < wanted) as u32
    };
    (0..reads).map(draw).collect()
}

#[test]
fn on_a_zipf_trace_more_reads_hit_than_with_lru() {
    let keys = 20_000;
    for seed in 1..=3 {
        let trace = zipf_trace(seed, keys, 200_000);
        let value = [0; 100];
        let entry_bytes = arena::entry_bytes::<HEADER>(10, value.len());
        let mut cache = TestCache::new(keys / 10 * entry_bytes);
        let hits = trace.iter().filter(|&&number| read(&mut cache, number, &value)).count();
        let mut lru = LeastRecentlyUsed::default();
        let lru_hits = trace.iter().filter(|&&number| lru.read(number, keys / 10)).count();
        assert!(cache.counters().entries < keys / 10, "the cache must not be the larger one");
        assert!(hits > lru_hits, "seed {seed}: {hits} hits, LRU {lru_hits}");
        assert_eq!(cache.counters().hits, hits as u64);
    }
}
