//! A small seeded generator for choices that need speed, not secrecy.

/// The odd constant nearest to 2^64 divided by the golden ratio: steps of it visit every value.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Spreads every bit of `value` over the result; different values give different results.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The number that [`mix`] makes `mixed` of.
pub(crate) fn unmix(mixed: u64) -> u64 {
    let value =
        (mixed ^ (mixed >> 31) ^ (mixed >> 62)).wrapping_mul(inverse(0x94D0_49BB_1331_11EB));
    let value =
        (value ^ (value >> 27) ^ (value >> 54)).wrapping_mul(inverse(0xBF58_476D_1CE4_E5B9));
    value ^ (value >> 30) ^ (value >> 60)
}

/// The number whose product with `odd` is 1 modulo 2^64. Each step of Newton's method doubles the
/// number of right bits, beginning with the three that an odd number is its own inverse in.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut right_bits = 3;
    while right_bits < 64 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        right_bits *= 2;
    }
    inverse
}

/// A sequence of 64-bit numbers that follows from its seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The sequence number `stream` of `seed`; different streams are unrelated.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self { state: mix(seed ^ mix(stream.wrapping_add(STEP))) }
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number below `bound`, which is not zero. The bias is under `bound` / 2^64.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A fraction in [0, 1) with 53 random bits.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_the_sequence_and_streams_differ() {
        let take = |seed, stream| {
            let mut random = Random::new(seed, stream);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(take(1, 0), take(1, 0));
        assert_ne!(take(1, 0), take(1, 1));
        assert_ne!(take(1, 0), take(2, 0));
    }

    #[test]
    fn mixing_can_be_undone() {
        let mut random = Random::new(3, 0);
        for value in (0..1_000).map(|_| random.next()).chain([0, 1, u64::MAX]) {
            assert_eq!(unmix(mix(value)), value);
        }
    }

    #[test]
    fn numbers_below_a_bound_are_even() {
        let mut random = Random::new(7, 0);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[random.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
