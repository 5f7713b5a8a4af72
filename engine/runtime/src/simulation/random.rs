//! The simulation's generator: small, fast, and the same on every machine.

use std::ops::RangeInclusive;

/// What a generator is used for. Each use has a stream of its own, so that one more draw for a
/// fault does not change the order in which tasks run.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Schedule = 1,
    Yield = 2,
    Latency = 3,
    Fault = 4,
    Application = 5,
    Crash = 6,
    Disk = 7,
}

/// SplitMix64.
#[derive(Clone)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64, stream: Stream) -> Self {
        let mut random = Self { state: seed ^ (stream as u64).wrapping_mul(0xD605_1B2E_97C3_48F5) };
        // Neighbouring seeds must not start with neighbouring states.
        random.state = random.bits();
        random
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; `bound` is not zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    pub(super) fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    pub(super) fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        assert!(low <= high, "the range {low}..={high} is empty");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.bits(),
        }
    }

    /// True with the given probability. A probability of zero draws nothing.
    pub(super) fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let bits = self.bits().to_le_bytes();
            chunk.copy_from_slice(&bits[..chunk.len()]);
        }
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
