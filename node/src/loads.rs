//! How loaded each shard is, as clients are told: said by its core once a second, read by all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The loads of all shards, in percent of what makes requests wait.
#[derive(Clone, Debug)]
pub struct ShardLoads(Arc<[AtomicU8]>);

impl ShardLoads {
    /// Of so many shards, with nothing to do.
    pub fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| AtomicU8::new(0)).collect())
    }

    /// Notes the load of a shard.
    pub fn set(&self, shard: u16, percent: u8) {
        self.0[usize::from(shard)].store(percent, Ordering::Relaxed);
    }

    /// The loads by shard.
    pub fn all(&self) -> Vec<u8> {
        self.0.iter().map(|load| load.load(Ordering::Relaxed)).collect()
    }
}

/// The fullest of some things, of which each is so much of so much, in percent; a full one has 100.
pub fn fullest(parts: impl IntoIterator<Item = (usize, usize)>) -> u8 {
    let percent = |(part, whole): (usize, usize)| {
        let percent = part as u128 * 100 / whole.max(1) as u128;
        u8::try_from(percent.min(100)).expect("100 at most")
    };
    parts.into_iter().map(percent).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_part_counts() {
        assert_eq!(fullest([(1, 4), (1, 2), (0, 9)]), 50);
        assert_eq!(fullest([(9, 4), (0, 0)]), 100);
        assert_eq!(fullest([(usize::MAX / 2, usize::MAX)]), 49);
        assert_eq!(fullest([]), 0);
        let loads = ShardLoads::new(3);
        loads.set(1, 50);
        assert_eq!(loads.all(), [0, 50, 0]);
    }
}
