use larder_runtime::random::Random;

use super::*;

/// A step, in bytes.
const STEP: usize = 1000;

/// What both caches have together, and what each has at least, in steps.
const ALL: usize = STEPS;
const LEAST: [usize; 2] = [8, 5];

/// What a cache answers in a window if it has so many steps.
type Answers = fn(f64) -> f64;

/// Caches under a load, by what values and blocks answer in a window.
struct Caches {
    division: CacheDivision,
    blocks: usize,
    random: Random,
    moves: usize,
}

impl Caches {
    fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        Self { division: CacheDivision::default(), blocks: 9, random, moves: 0 }
    }

    /// A count that is so large on average.
    fn by_chance(&mut self, mean: f64) -> u64 {
        // The sum of twelve even numbers between 0 and 1 is nearly normal.
        let even = || self.random.below(1 << 20) as f64 / f64::from(1 << 20);
        let normal = std::iter::repeat_with(even).take(12).sum::<f64>() - 6.0;
        (mean + normal * mean.sqrt()).round().max(0.0) as u64
    }

    fn seen(&mut self, steps: usize, answers: Answers, room: (bool, bool)) -> CacheSeen {
        let size = steps as f64;
        let saved = answers(size + 1.0) - answers(size);
        CacheSeen {
            size: steps * STEP,
            held: steps * STEP,
            hits: self.by_chance(answers(size)),
            saved: self.by_chance(saved),
            can_give: room.0,
            can_take: room.1,
        }
    }

    fn pass(&mut self, windows: usize, load: (Answers, Answers)) {
        for _ in 0..windows {
            let values = ALL - self.blocks;
            let values_give = values > LEAST[0];
            let blocks_give = self.blocks > LEAST[1];
            let seen_values = self.seen(values, load.0, (values_give, blocks_give));
            let seen_blocks = self.seen(self.blocks, load.1, (blocks_give, values_give));
            match self.division.judge([seen_values, seen_blocks], STEP) {
                Some(CacheKind::Blocks) => self.blocks += 1,
                Some(CacheKind::Values) => self.blocks -= 1,
                None => continue,
            }
            self.moves += 1;
        }
    }
}

/// Items that are read evenly and of which hardly any fit; and all blocks that they need, which
/// take twelve steps.
const EVEN: (Answers, Answers) = (|steps| steps * 1.5, |steps| 1000.0 * steps.min(12.0) / 12.0);

/// A few hot items, which take 26 steps; the others are read now and then.
const HOT: (Answers, Answers) = (|steps| 3000.0 * steps.min(26.0) / 26.0, |steps| steps * 2.0);

fn for_each_seed(test: impl Fn(u64)) {
    for seed in 0..50 {
        test(seed);
    }
}

#[test]
fn blocks_get_what_they_need_and_no_more_and_there_it_rests() {
    for_each_seed(|seed| {
        let mut caches = Caches::new(seed);
        caches.pass(20, EVEN);
        assert_eq!(caches.blocks, 12, "seed {seed}");
        let moves = caches.moves;
        caches.pass(5000, EVEN);
        let more = caches.moves - moves;
        assert!(more <= 20, "seed {seed}: {more} moves although nothing changed");
        assert!((11..=12).contains(&caches.blocks), "seed {seed}: {}", caches.blocks);
    });
}

#[test]
fn values_get_what_hot_items_need() {
    for_each_seed(|seed| {
        let mut caches = Caches::new(seed);
        caches.pass(20, HOT);
        assert_eq!(ALL - caches.blocks, 26, "seed {seed}");
        let moves = caches.moves;
        caches.pass(5000, HOT);
        assert!(caches.moves - moves <= 20, "seed {seed}: {} moves", caches.moves);
    });
}

#[test]
fn a_changed_load_is_followed() {
    for_each_seed(|seed| {
        let mut caches = Caches::new(seed);
        for round in 0..5 {
            caches.pass(200, EVEN);
            assert!((11..=12).contains(&caches.blocks), "seed {seed}, round {round}");
            caches.pass(100, HOT);
            assert!((25..=26).contains(&(ALL - caches.blocks)), "seed {seed}, round {round}");
        }
    });
}

#[test]
fn neither_cache_goes_below_its_least() {
    for_each_seed(|seed| {
        let mut caches = Caches::new(seed);
        caches.pass(200, (|steps| 100.0 * steps, |_| 0.0));
        assert_eq!(caches.blocks, LEAST[1], "seed {seed}");
        caches.pass(200, (|_| 0.0, |steps| 100.0 * steps));
        assert_eq!(ALL - caches.blocks, LEAST[0], "seed {seed}");
    });
}

#[test]
fn chance_moves_nothing() {
    for_each_seed(|seed| {
        for load in [1.0, 20.0, 1000.0] {
            let mut caches = Caches::new(seed);
            let alike: Answers = match load {
                1.0 => |steps| steps,
                20.0 => |steps| 20.0 * steps,
                _ => |steps| 1000.0 * steps,
            };
            caches.pass(2000, (alike, alike));
            assert!(caches.moves <= 4, "seed {seed}, {load}: {} moves", caches.moves);
        }
    });
}

#[test]
fn what_saves_next_to_nothing_is_not_moved() {
    let mut caches = Caches::new(1);
    caches.pass(5000, (|_| 0.0, |steps| 0.3 * steps));
    assert_eq!(caches.moves, 0);
}

#[test]
fn a_cache_that_fills_the_step_that_it_got_is_left_alone() {
    let seen = |saved, held| CacheSeen {
        size: 10 * STEP,
        held,
        hits: 100,
        saved,
        can_give: true,
        can_take: true,
    };
    let mut division = CacheDivision::default();
    let begin = [seen(0, 9 * STEP), seen(100, 9 * STEP)];
    assert_eq!(division.judge(begin, STEP), Some(CacheKind::Blocks));
    // While it fills nothing is missing from what it holds, and nobody has asked for it yet.
    let mut judge = |held| {
        let values = CacheSeen { hits: 1, ..seen(300, 9 * STEP) };
        division.judge([values, CacheSeen { hits: 0, ..seen(0, held) }], STEP)
    };
    for window in 0..30 {
        let held = 9 * STEP + STEP.min(window * STEP / 4);
        assert_eq!(judge(held), None, "window {window}");
    }
    let left_alone = (0..100).take_while(|_| judge(10 * STEP).is_none()).count();
    assert!(left_alone < FILLING_WINDOWS_MAX as usize, "it is full, and of no use");
}
