//! Which shard owns a key, and which core a shard. The first is a matter of the disk format.

use larder_engine::key::route_hash;
pub use larder_engine::key::shard_of_hash;

/// The shard of `shards` that owns `record`.
#[inline]
pub fn shard_of(record: &[u8], shards: u16) -> u16 {
    if shards == 1 {
        return 0;
    }
    shard_of_hash(route_hash(record), shards)
}

/// The core of `cores` that a shard runs on.
#[inline]
pub fn core_of(shard: u16, cores: usize) -> usize {
    usize::from(shard) % cores
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data written by one version must be found by the next: these numbers never change.
    #[test]
    fn the_shard_of_a_key_is_part_of_the_format() {
        for (record, found) in [
            ("", [0, 0, 2, 175]),
            ("larder", [1, 2, 12, 767]),
            ("key:1", [1, 2, 11, 746]),
            ("\0\r\n", [1, 2, 11, 699]),
        ] {
            let of = |shards| shard_of(record.as_bytes(), shards);
            assert_eq!([2, 3, 16, 999].map(of), found, "{record:?}");
        }
    }

    #[test]
    fn the_edges_of_the_hash_stay_in_range() {
        for shards in [1, 2, 7, 999, u16::MAX] {
            assert_eq!(shard_of_hash(0, shards), 0);
            assert_eq!(shard_of_hash(u64::MAX, shards), shards - 1);
        }
    }

    #[test]
    fn keys_spread_evenly() {
        let mut counts = [0u32; 4];
        for key in 0..40_000 {
            counts[usize::from(shard_of(format!("key:{key}").as_bytes(), 4))] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn shards_go_round_the_cores() {
        assert_eq!([0, 1, 2, 3, 4].map(|shard| core_of(shard, 2)), [0, 1, 0, 1, 0]);
    }
}
