//! The one place where a run's settings become a shard's.

use larder_engine::shard::ShardOptions;

use super::EngineSettings;

/// The settings of shard `shard` of `shards`, which may use `memory` bytes.
pub(super) fn shard_options(
    settings: &EngineSettings,
    shard: u16,
    shards: u16,
    memory: u64,
) -> ShardOptions {
    let mut options = ShardOptions::for_memory(shard, shards, memory);
    options.value_bytes_max = options.value_bytes_max.max(settings.value_size);
    options.segment_bytes =
        u32::try_from(settings.segment_bytes).expect("the option's range was checked");
    options.log.durability = settings.durability.0;
    options
}
