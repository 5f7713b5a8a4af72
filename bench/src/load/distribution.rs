//! Which key comes next: uniform, or Zipf with the hot keys scattered.
//!
//! Zipf ranks are drawn by rejection-inversion (Hoermann and Derflinger, "Rejection-inversion to
//! generate variates from monotone discrete distributions", 1996): exact, no tables, and the cost
//! does not depend on the number of keys. Rank 1 is the hottest.

use super::random::Random;

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Every key is equally likely.
    Uniform,
    /// The key of rank k is chosen with a probability in proportion to 1 / k^theta.
    Zipf {
        /// The exponent, over zero; 0.99 is usual.
        theta: f64,
    },
}

impl std::fmt::Display for Distribution {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => formatter.write_str("uniform"),
            Self::Zipf { theta } => write!(formatter, "zipf:{theta}"),
        }
    }
}

/// Draws key numbers.
#[derive(Clone, Debug)]
pub(crate) enum KeyChooser {
    Uniform { keys: u64 },
    Zipf { ranks: Zipf, scatter: Scatter },
}

impl KeyChooser {
    /// A chooser among `keys` keys; at least one and below 2^32.
    pub(crate) fn new(distribution: Distribution, keys: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform { keys },
            Distribution::Zipf { theta } => {
                Self::Zipf { ranks: Zipf::new(keys, theta), scatter: Scatter::new(keys) }
            }
        }
    }

    /// The next key's number.
    pub(crate) fn next(&self, random: &mut Random) -> u64 {
        match self {
            Self::Uniform { keys } => random.below(*keys),
            Self::Zipf { ranks, scatter } => scatter.place(ranks.sample(random) - 1),
        }
    }
}

/// Zipf-distributed ranks 1..=n.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    items: u64,
    theta: f64,
    /// The area under the hat up to the middle of rank 1 (less its own bar), and to the last rank.
    area_first: f64,
    area_last: f64,
    /// Points this close below their rank are accepted without computing the bar's area.
    accept_within: f64,
}

impl Zipf {
    pub(crate) fn new(items: u64, theta: f64) -> Self {
        assert!(items > 0 && theta > 0.0, "a Zipf distribution has items and a positive exponent");
        let mut zipf = Self { items, theta, area_first: 0.0, area_last: 0.0, accept_within: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_last = zipf.area(items as f64 + 0.5);
        zipf.accept_within = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.height(2.0));
        zipf
    }

    /// The next rank, between 1 and the number of items.
    pub(crate) fn sample(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.area_last + random.fraction() * (self.area_first - self.area_last);
            let point = self.area_inverse(area);
            let rank = ((point + 0.5) as u64).clamp(1, self.items);
            let middle = rank as f64;
            let near = middle - point <= self.accept_within;
            if near || area >= self.area(middle + 0.5) - self.height(middle) {
                return rank;
            }
        }
    }

    /// The height of the hat at `x`: x^-theta.
    fn height(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// The integral of the hat from 1 to `x`; continuous in theta through 1, where it is ln x.
    fn area(&self, x: f64) -> f64 {
        let log = x.ln();
        let exponent = (1.0 - self.theta) * log;
        let slope = if exponent.abs() > 1e-8 { exponent.exp_m1() / exponent } else { 1.0 };
        slope * log
    }

    fn area_inverse(&self, area: f64) -> f64 {
        // Rounding can take the argument of the logarithm just below zero, at the far end.
        let growth = (area * (1.0 - self.theta)).max(-1.0);
        let slope = if growth.abs() > 1e-8 { growth.ln_1p() / growth } else { 1.0 };
        (slope * area).exp()
    }
}

/// A fixed permutation of 0..n that puts neighbours far apart, so that hot keys share neither a
/// block nor a shard by being numbered together.
#[derive(Clone, Debug)]
pub(crate) struct Scatter {
    items: u64,
    factor: u64,
}

impl Scatter {
    pub(crate) fn new(items: u64) -> Self {
        assert!(items > 0 && items <= u64::from(u32::MAX), "products must fit 64 bits");
        let golden = ((items as f64 * 0.618_033_988_749_895) as u64).max(1);
        let factor = (golden..).find(|&factor| greatest_common_divisor(factor, items) == 1);
        Self { items, factor: factor.expect("items + 1 has no divisor in common with items") }
    }

    /// Where `index`, below the number of items, is put.
    pub(crate) fn place(&self, index: u64) -> u64 {
        index * (self.factor % self.items) % self.items
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact probability of each rank, by summation.
    fn exact(items: u64, theta: f64) -> Vec<f64> {
        let weights: Vec<f64> = (1..=items).map(|rank| (rank as f64).powf(-theta)).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    }

    /// Draws and compares with the exact probabilities by Pearson's chi-squared statistic, whose
    /// mean is `items - 1` and whose deviation is the root of twice that.
    fn assert_fits(items: u64, theta: f64) {
        const DRAWS: u32 = 200_000;
        let zipf = Zipf::new(items, theta);
        let mut random = Random::new(items, theta.to_bits());
        let mut counts = vec![0u32; items as usize];
        for _ in 0..DRAWS {
            counts[zipf.sample(&mut random) as usize - 1] += 1;
        }
        let statistic: f64 = counts
            .iter()
            .zip(exact(items, theta))
            .map(|(&count, probability)| {
                let expected = probability * f64::from(DRAWS);
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum();
        let freedom = (items - 1) as f64;
        let limit = freedom + 5.0 * (2.0 * freedom).sqrt() + 1.0;
        assert!(statistic <= limit, "{items} items, theta {theta}: {statistic} over {limit}");
    }

    #[test]
    fn ranks_follow_the_exact_probabilities() {
        for items in [1, 2, 3, 10, 100] {
            for theta in [0.2, 0.5, 0.99, 1.0, 1.2] {
                assert_fits(items, theta);
            }
        }
    }

    #[test]
    fn ranks_stay_in_range_for_many_items() {
        let zipf = Zipf::new(1_000_000_000, 0.99);
        let mut random = Random::new(3, 3);
        let ranks: Vec<u64> = (0..10_000).map(|_| zipf.sample(&mut random)).collect();
        assert!(ranks.iter().all(|rank| (1..=1_000_000_000).contains(rank)));
        assert!(ranks.contains(&1), "the hottest of 10,000 draws has a share of about 1/21");
        assert!(ranks.iter().any(|&rank| rank > 1_000_000), "the tail is drawn too");
    }

    #[test]
    fn scattering_is_a_permutation_that_parts_neighbours() {
        for items in [1u64, 2, 3, 10, 97, 1000] {
            let scatter = Scatter::new(items);
            let mut places: Vec<u64> = (0..items).map(|index| scatter.place(index)).collect();
            places.sort_unstable();
            assert!(places.iter().copied().eq(0..items), "{items}");
        }
        let scatter = Scatter::new(100_000);
        let nearest = (0..10).map(|rank| scatter.place(rank + 1).abs_diff(scatter.place(rank)));
        assert!(nearest.min().expect("ten distances") > 10_000);
    }

    #[test]
    fn a_chooser_draws_every_key_and_no_other() {
        for distribution in [Distribution::Uniform, Distribution::Zipf { theta: 0.99 }] {
            let chooser = KeyChooser::new(distribution, 20);
            let mut random = Random::new(5, 0);
            let mut seen = [false; 20];
            for _ in 0..10_000 {
                seen[chooser.next(&mut random) as usize] = true;
            }
            assert!(seen.iter().all(|seen| *seen), "{distribution}");
        }
    }
}
