//! Items that expire while the clock is set forward and back, in shards that drop them often.

use super::harness;
use super::lives::Lives;

impl Lives {
    /// Lets items expire soon, and segments and tables go often.
    pub(super) fn expire_soon(&mut self) {
        self.mix.outlive_expiries();
        for member in &mut self.members {
            member.options.segment_bytes = 64 << 10;
            member.options.memtable_bytes = 4 << 10;
        }
    }
}

#[test]
fn what_has_expired_and_is_dropped_stays_gone_when_the_clock_is_set_back() {
    let name = "what_has_expired_and_is_dropped_stays_gone_when_the_clock_is_set_back";
    harness::for_each_seed(name, 30_001, 200, |seed| {
        let mut lives = Lives::of_shards(seed, 1 + (seed % 2) as u16);
        lives.expire_soon();
        for _ in 0..lives.random.count(2..=5) {
            lives.live();
        }
        lives.finish();
    });
}
