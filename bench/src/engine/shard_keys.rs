//! Which keys are a shard's, as the node would route them.

use larder_engine::key::{route_hash, shard_of_hash};

use super::EngineSettings;
use crate::load::data::KeyFormat;

/// The numbers of a shard's keys, by their place in the shard, in ascending order.
#[derive(Debug)]
pub(super) struct ShardKeys {
    /// How many keys all shards have.
    total: u64,
    /// The numbers; `None` if the one shard has all of them.
    numbers: Option<Vec<u32>>,
}

impl ShardKeys {
    /// The keys of each of `shards` shards.
    pub(super) fn deal(settings: &EngineSettings, shards: u16) -> Vec<Self> {
        let total = settings.keys;
        if shards == 1 {
            return vec![Self { total, numbers: None }];
        }
        let format = KeyFormat::new(settings.key_size);
        let mut numbers: Vec<Vec<u32>> = vec![Vec::new(); usize::from(shards)];
        let mut key = Vec::new();
        for number in 0..total {
            key.clear();
            format.append(number, &mut key);
            let shard = shard_of_hash(route_hash(&key), shards);
            let number = u32::try_from(number).expect("the number of keys was checked");
            numbers[usize::from(shard)].push(number);
        }
        numbers.into_iter().map(|numbers| Self { total, numbers: Some(numbers) }).collect()
    }

    /// How many keys the shard has.
    pub(super) fn count(&self) -> u32 {
        let count = self.numbers.as_ref().map_or(self.total, |numbers| numbers.len() as u64);
        u32::try_from(count).expect("the number of keys was checked")
    }

    /// The number of the key at a place.
    pub(super) fn number(&self, place: u32) -> u64 {
        self.numbers.as_ref().map_or(u64::from(place), |numbers| u64::from(numbers[place as usize]))
    }

    /// The number of a key that no shard has.
    pub(super) fn missing(&self, index: u64) -> u64 {
        self.total + index
    }

    /// Bytes that this takes in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.numbers.as_ref().map_or(0, |numbers| (size_of::<u32>() * numbers.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Workload;
    use super::*;

    #[test]
    fn every_key_belongs_to_one_shard_and_missing_ones_to_none() {
        let settings =
            EngineSettings { keys: 1_000, ..EngineSettings::for_workload(Workload::Fill) };
        for shards in [1, 2, 7] {
            let dealt = ShardKeys::deal(&settings, shards);
            let mut numbers: Vec<u64> = dealt
                .iter()
                .flat_map(|keys| (0..keys.count()).map(|place| keys.number(place)))
                .collect();
            assert!(dealt.iter().all(|keys| keys.count() > 1_000 / u32::from(shards) / 2));
            assert!(dealt.iter().all(|keys| keys.missing(0) == 1_000));
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..1_000), "{shards} shards");
        }
        assert_eq!(ShardKeys::deal(&settings, 1)[0].bytes(), 0);
    }
}
