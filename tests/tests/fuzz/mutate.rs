//! Changes bytes the ways that files and clients do, and some that they do not.

use fastrand::Rng;

/// The longest input in bytes.
const BYTES_MAX: usize = 64 << 10;

/// Inputs that are kept to be changed further.
const POOL: usize = 64;

/// Makes inputs out of valid ones.
pub(crate) struct Mutator {
    random: Rng,
    pool: Vec<Vec<u8>>,
    seeds: usize,
}

impl Mutator {
    pub(crate) fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        assert!(!seeds.is_empty(), "there is nothing to change");
        Self { random: Rng::with_seed(seed), seeds: seeds.len(), pool: seeds }
    }

    /// True in so many of a hundred calls.
    pub(crate) fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }

    /// The next input: one of those before with a few changes.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        // Half of them begin with valid bytes, so that few changes stand before what is tried.
        let most = if self.chance(50) { self.seeds } else { self.pool.len() };
        let from = self.random.usize(..most);
        let mut input = self.pool[from].clone();
        for _ in 0..self.random.usize(1..4) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        if self.pool.len() < POOL {
            self.pool.push(input.clone());
        } else if self.chance(5) {
            // The valid ones stay.
            let replaced = self.random.usize(self.seeds..POOL);
            self.pool[replaced].clone_from(&input);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.usize(..=input.len());
        match self.random.u8(..10) {
            0 | 1 if at < input.len() => input[at] ^= 1 << self.random.u8(..8),
            2 if at < input.len() => input[at] = self.random.u8(..),
            3..6 => self.number(input, at),
            6 => input.truncate(at),
            7 => {
                let end = (at + self.random.usize(..64)).min(input.len());
                drop(input.drain(at..end));
            }
            8 => {
                let other = self.random.usize(..self.pool.len());
                let tail = &self.pool[other];
                input.truncate(at);
                input.extend_from_slice(&tail[at.min(tail.len())..]);
            }
            _ => {
                let start = self.random.usize(..=at);
                let end = start + (at - start).min(300);
                let copy = input[start..end].to_vec();
                input.splice(at..at, copy);
            }
        }
    }

    /// Writes a number over the bytes at `at`, one of those at which lengths and counts go wrong.
    fn number(&mut self, input: &mut [u8], at: usize) {
        let len = input.len() as u64;
        let interesting = [0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 4095, 4096, 4097];
        let near = |number: u64, by: u64| number.wrapping_sub(1).wrapping_add(by);
        let number = match self.random.u8(..6) {
            0 => interesting[self.random.usize(..interesting.len())],
            1 => near(len, self.random.u64(..3)),
            2 => near(1 << self.random.u32(..64), self.random.u64(..3)),
            3 => u64::MAX - self.random.u64(..300),
            4 => near(len - at as u64, self.random.u64(..80)),
            _ => self.random.u64(..),
        };
        let width = [1, 2, 4, 8][self.random.usize(..4)].min(input.len() - at);
        // Fields are aligned more often than not.
        let at = if self.random.bool() { at - at % width.max(1) } else { at };
        input[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
    }
}

#[test]
fn the_same_seed_makes_the_same_inputs_and_they_differ() {
    let make = |seed| {
        let mut mutator = Mutator::new(seed, vec![(0..200).collect(), vec![7; 90]]);
        (0..500).map(|_| mutator.next()).collect::<Vec<_>>()
    };
    assert_eq!(make(3), make(3));
    let mut inputs = make(3);
    inputs.sort();
    inputs.dedup();
    assert!(inputs.len() > 400, "{} different inputs", inputs.len());
}
