//! The one place where a run's settings become a shard's.

use std::sync::Arc;

use larder_engine::memory::ShardMemory;
use larder_engine::shard::ShardOptions;
use larder_runtime::disk_budget::DiskBudget;

use super::EngineSettings;

/// The settings of shard `shard` of `shards`, which has so much memory, and what `budget` has of
/// the disk.
pub(super) fn shard_options(
    settings: &EngineSettings,
    (shard, shards): (u16, u16),
    memory: &ShardMemory,
    budget: &Arc<DiskBudget>,
) -> ShardOptions {
    let mut options = ShardOptions::for_memory(shard, shards, memory);
    options.segment_bytes =
        u32::try_from(settings.segment_bytes).expect("the option's range was checked");
    settings.space.apply(&mut options);
    options.budget = Arc::clone(budget);
    options.log.durability = settings.durability.0;
    options
}
