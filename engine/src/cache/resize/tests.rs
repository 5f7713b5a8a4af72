use crate::cache::tests::{HEADER, Pair, Step, TestCache, check, hash_of, key_of, read, steps};
use larder_runtime::memory::HUGE_PAGE_BYTES;
use proptest::prelude::*;

/// Until it is reached; says how many steps that took.
fn resize(cache: &mut TestCache, capacity: usize) -> usize {
    let reached = (1..).find(|_| cache.resize(capacity)).expect("it is reached");
    assert!(cache.counters().resident_bytes <= cache.capacity());
    assert!(cache.capacity() <= capacity.max(cache.capacity_min()));
    reached
}

#[derive(Clone, Debug)]
enum Change {
    Use(Step),
    /// To so many hundredths of what the cache was made with.
    Resize {
        percent: usize,
        steps: usize,
    },
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let resize = (0usize..=110, 1usize..30)
        .prop_map(|(percent, steps)| vec![Change::Resize { percent, steps }]);
    let uses = steps().prop_map(|steps| steps.into_iter().map(Change::Use).collect());
    proptest::collection::vec(prop_oneof![uses, resize], 1..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_cache_that_is_resized_returns_what_was_inserted_last_and_stays_below_its_capacity(
        capacity in prop_oneof![0usize..8000, 150_000usize..200_000],
        entry_bytes_mean in prop_oneof![Just(64usize), Just(4096)],
        changes in changes(),
        fill in 0usize..3000,
    ) {
        let mut pair = Pair::new(capacity, entry_bytes_mean, 6);
        let mut is_reached = true;
        for number in 0..fill as u32 {
            let (key, value_len) = ((number % 60) as u8, number as usize % 999);
            pair.apply(&Step::Insert { key, value_len }, number);
        }
        for (number, change) in (0u32..).zip(&changes) {
            match change {
                Change::Use(step) => pair.apply(step, number),
                Change::Resize { percent, steps } => {
                    let wanted = capacity * percent / 100;
                    is_reached = (0..*steps).any(|_| pair.cache.resize(wanted));
                    prop_assert!(
                        !is_reached
                            || pair.cache.capacity() <= wanted.max(pair.cache.capacity_min())
                    );
                }
            }
            check(&pair.cache);
            let (resident, now) = (pair.cache.counters().resident_bytes, pair.cache.capacity());
            prop_assert!(!is_reached || resident <= now, "{} of {}", resident, now);
        }
    }
}

fn filled(capacity: usize, value: &[u8]) -> (TestCache, u32) {
    let mut cache = TestCache::new(capacity);
    let mut number = 0;
    while cache.counters().evictions < 100 {
        read(&mut cache, number, value);
        number += 1;
    }
    (cache, number)
}

#[test]
fn what_is_given_up_is_no_longer_resident_and_the_rest_is_still_held() {
    let capacity = 48 << 20;
    let (mut cache, numbers) = filled(capacity, &[7; 500]);
    let before = cache.counters();
    assert!(before.resident_bytes > capacity / 10 * 9, "{before:?}");
    resize(&mut cache, capacity / 2);
    let half = cache.counters();
    check(&cache);
    assert!(half.resident_bytes <= capacity / 2, "{half:?}");
    let part = half.entries * 100 / before.entries;
    assert!((35..=50).contains(&part), "{part} % of the entries are left");
    let is_held = |number: &u32| cache.peek(hash_of(*number), &key_of(*number)).is_some();
    assert_eq!((0..numbers).filter(is_held).count(), half.entries);
    for number in numbers..2 * numbers {
        read(&mut cache, number, &[8; 500]);
        assert!(cache.counters().resident_bytes <= capacity / 2);
    }
    assert!(cache.counters().entries >= half.entries * 9 / 10, "all the room is used again");
    assert_eq!(resize(&mut cache, capacity), 1, "growing takes one step");
    for number in 2 * numbers..4 * numbers {
        for _ in 0..3 {
            read(&mut cache, number, &[9; 500]);
        }
    }
    assert!(cache.counters().entries > before.entries / 10 * 9, "{:?}", cache.counters());
    check(&cache);
}

#[test]
fn entries_in_use_survive_those_that_are_not() {
    let capacity = 16 << 20;
    let (mut cache, numbers) = filled(capacity, &[7; 500]);
    let oldest_in_main = cache.main.tail().expect("it is full");
    let hot: Vec<u32> = (0..numbers)
        .filter(|number| cache.peek(hash_of(*number), &key_of(*number)).is_some())
        .take(100)
        .collect();
    for number in hot.iter().cycle().take(300) {
        assert!(cache.get(hash_of(*number), &key_of(*number)).is_some());
    }
    resize(&mut cache, capacity / 4 * 3);
    assert_ne!(cache.main.tail(), Some(oldest_in_main));
    let is_held = |number: &&u32| cache.peek(hash_of(**number), &key_of(**number)).is_some();
    assert_eq!(hot.iter().filter(is_held).count(), hot.len());
}

#[test]
fn a_step_evicts_a_bounded_part() {
    let capacity = 32 << 20;
    let (mut cache, _) = filled(capacity, &[7; 500]);
    let mut before = cache.counters();
    let mut steps = 0;
    while !cache.resize(0) {
        let now = cache.counters();
        assert!(before.bytes_used - now.bytes_used <= (128 << 10) + 600, "{before:?} {now:?}");
        let given_back = before.resident_bytes.saturating_sub(now.resident_bytes);
        assert!(given_back <= 9 * cache.arena.unit_bytes(), "{given_back}");
        (before, steps) = (now, steps + 1);
    }
    assert!(steps > 100, "{steps} steps");
    assert!(cache.counters().resident_bytes <= cache.capacity_min());
    assert!(cache.capacity_min() < capacity / 3, "{}", cache.capacity_min());
    check(&cache);
}

#[test]
fn the_longest_entry_passes_through_the_smallest_queue() {
    let capacity = 8 << 20;
    let mut cache = TestCache::new(capacity);
    let longest = vec![5; cache.main.len() / 8 - 100];
    for number in 0..8 {
        read(&mut cache, number, &longest);
        cache.get(hash_of(number), &key_of(number));
    }
    resize(&mut cache, 0);
    check(&cache);
    assert!(!cache.insert(99, b"key", &[0; HEADER], &longest), "too long for it now");
    for number in 100..20_000 {
        read(&mut cache, number, &[6; 300]);
    }
    check(&cache);
}

#[test]
fn a_cache_that_is_smaller_from_the_start_never_becomes_larger() {
    let capacity = 64 << 20;
    let mut cache = TestCache::new(capacity);
    assert_eq!(resize(&mut cache, capacity / 2), 1, "there is nothing to evict");
    for number in 0..300_000 {
        read(&mut cache, number, &[7; 200]);
    }
    let counters = cache.counters();
    assert!(counters.resident_bytes <= capacity / 2, "{counters:?}");
    assert!(counters.resident_bytes + HUGE_PAGE_BYTES > capacity / 5 * 2, "{counters:?}");
    check(&cache);
}

#[test]
fn clearing_ends_the_overhang() {
    let capacity = 16 << 20;
    let (mut cache, _) = filled(capacity, &[7; 500]);
    resize(&mut cache, 0);
    assert!(cache.main.is_overhanging(), "the newest entries lie behind the end");
    cache.clear();
    assert!(!cache.main.is_overhanging());
    assert!(cache.counters().resident_bytes <= cache.capacity_min());
    for number in 0..30_000 {
        read(&mut cache, number, &[7; 500]);
        assert!(cache.counters().resident_bytes <= cache.capacity_min());
    }
    check(&cache);
}
