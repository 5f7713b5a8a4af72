use crate::cache::tests::{HEADER, Pair, Step, TestCache, check, hash_of, key_of, read, steps};
use larder_runtime::memory::HUGE_PAGE_BYTES;
use larder_runtime::random::Random;
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

#[test]
fn a_capacity_is_not_reached_by_what_moves_to_the_main_queue_meanwhile() {
    let capacity = 187_690;
    let mut pair = Pair::new(capacity, 64, 6);
    for number in 0..421u32 {
        let (key, value_len) = ((number % 60) as u8, number as usize % 999);
        pair.apply(&Step::Insert { key, value_len }, number);
    }
    resize(&mut pair.cache, capacity * 49 / 100);
    check(&pair.cache);
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

#[test]
fn a_cache_that_begins_smaller_than_it_may_become_keeps_to_huge_pages() {
    let capacity = 96 << 20;
    let mut cache = TestCache::new(capacity);
    assert_eq!(resize(&mut cache, capacity / 2), 1, "there is nothing to evict");
    for number in 0..200_000 {
        read(&mut cache, number, &[7; 500]);
        assert!(cache.counters().resident_bytes <= cache.capacity());
    }
    assert_eq!(cache.arena.fault_bytes(), HUGE_PAGE_BYTES);
    assert!(cache.capacity() <= capacity / 2 && cache.capacity() > capacity / 9 * 4);
    resize(&mut cache, capacity / 3 * 2);
    for number in 200_000..400_000 {
        read(&mut cache, number, &[7; 500]);
        assert!(cache.counters().resident_bytes <= cache.capacity());
    }
    resize(&mut cache, capacity / 2);
    assert!(cache.counters().resident_bytes <= capacity / 2);
    check(&cache);
}

#[test]
fn what_is_lost_while_entries_overhang_comes_back() {
    let capacity = 16 << 20;
    let (mut cache, numbers) = filled(capacity, &[7; 500]);
    resize(&mut cache, capacity / 2);
    assert!(cache.main.is_overhanging());
    let overhanging = cache.main.len();
    for number in numbers..3 * numbers {
        for _ in 0..3 {
            read(&mut cache, number, &[7; 500]);
        }
    }
    assert!(!cache.main.is_overhanging());
    resize(&mut cache, capacity / 2);
    assert!(cache.main.len() > overhanging);
    check(&cache);
}

/// How many of so many even reads of `keys` keys hit, and how many would have hit if the cache were
/// a 32nd larger.
fn hits_and_near_misses(cache: &mut TestCache, keys: usize, reads: usize) -> (u64, u64) {
    let mut random = Random::new(7);
    let before = cache.counters();
    for _ in 0..reads {
        let number = random.index(keys) as u32;
        let hash = hash_of(number);
        if cache.peek(hash, &key_of(number)).is_none() {
            cache.note_read(hash);
        }
        read(cache, number, &[7; 500]);
    }
    let after = cache.counters();
    (after.hits - before.hits, after.near_misses - before.near_misses)
}

#[test]
fn near_misses_are_what_a_little_more_memory_would_save() {
    let (capacity, keys, reads) = (1 << 20, 10_000, 200_000);
    let mut cache = TestCache::with_entry_bytes(capacity / 32 * 33, 500);
    resize(&mut cache, capacity);
    cache.set_margin(capacity / 32);
    hits_and_near_misses(&mut cache, keys, reads);
    let (hits, near_misses) = hits_and_near_misses(&mut cache, keys, reads);
    // Each entry is asked for as often as any other.
    let expected = (reads * (capacity / 32) / (keys * 536)) as u64;
    let range = expected * 3 / 4..=expected * 5 / 4;
    assert!(range.contains(&near_misses), "{near_misses} instead of {expected}, {hits} hits");
    resize(&mut cache, capacity / 32 * 33);
    assert!(!(0..keys as u32).any(|number| cache.note_read(hash_of(number))), "all is forgotten");
    hits_and_near_misses(&mut cache, keys, reads);
    let (more_hits, _) = hits_and_near_misses(&mut cache, keys, reads);
    assert!(more_hits > hits, "{more_hits} instead of {hits}");
}

#[test]
fn where_all_fits_no_memory_would_save_anything() {
    let mut cache = TestCache::with_entry_bytes(1 << 20, 500);
    hits_and_near_misses(&mut cache, 1000, 20_000);
    assert_eq!(hits_and_near_misses(&mut cache, 1000, 20_000), (20_000, 0));
}

#[test]
fn the_small_queue_is_a_tenth_of_what_the_cache_has_now() {
    for capacity in [16 << 20, 40 << 20, 240 << 20] {
        let mut cache = TestCache::new(capacity);
        for percent in [40, 100, 60, 45, 50] {
            resize(&mut cache, capacity / 100 * percent);
            for number in 0..(capacity >> 11) as u32 {
                read(&mut cache, number, &[7; 2000]);
                assert!(cache.counters().resident_bytes <= cache.capacity());
            }
            check(&cache);
            // Besides index, ghost and margin.
            let tables = cache.reserved_bytes() - cache.arena.len();
            let both = capacity / 100 * percent - tables;
            let part = cache.small.len() * 100 / both;
            assert!((8..=12).contains(&part), "{part} % at {percent} % of {capacity}");
        }
    }
}
