//! Whether a core that has nothing to do should spin for a while before it sleeps.
//!
//! Spinning pays when work comes back sooner than a sleep and a wake-up take. The mean of the
//! recent idle gaps decides: `mean += (gap - mean) / 8`, spin while `mean <= spin_max`. A gap
//! counts for at most 64 times `spin_max`, so an idle core stops spinning after one long gap and
//! a busy one starts again after some forty short ones.

const GAP_MAX_FACTOR: u64 = 64;
const MEAN_WEIGHT: u64 = 8;

pub(crate) struct Idle {
    spin_max: u64,
    mean_gap: u64,
}

impl Idle {
    /// Spins for at most `spin_max` nanoseconds at a time; 0 never spins.
    pub(crate) fn new(spin_max: u64) -> Self {
        Self { spin_max, mean_gap: spin_max.saturating_mul(GAP_MAX_FACTOR) }
    }

    pub(crate) fn spin_max(&self) -> u64 {
        self.spin_max
    }

    pub(crate) fn should_spin(&self) -> bool {
        self.spin_max > 0 && self.mean_gap <= self.spin_max
    }

    /// Notes that work came `gap` nanoseconds after the core had none left.
    pub(crate) fn note_gap(&mut self, gap: u64) {
        let gap = gap.min(self.spin_max.saturating_mul(GAP_MAX_FACTOR));
        let weighted = self.mean_gap.saturating_mul(MEAN_WEIGHT - 1).saturating_add(gap);
        self.mean_gap = weighted / MEAN_WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spins_only_while_work_comes_back_soon() {
        let mut idle = Idle::new(50_000);
        assert!(!idle.should_spin(), "nothing is known at first");
        let short_gaps = (1..100).find(|_| {
            idle.note_gap(5_000);
            idle.should_spin()
        });
        assert!(short_gaps.is_some_and(|count| count > 5), "{short_gaps:?}");
        idle.note_gap(1_000_000_000);
        assert!(!idle.should_spin(), "one long gap is enough to stop");
    }

    #[test]
    fn zero_never_spins() {
        let mut idle = Idle::new(0);
        idle.note_gap(0);
        assert!(!idle.should_spin());
    }
}
