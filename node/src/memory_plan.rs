//! How the node's memory is divided: pure. Every part has a bound, and the bounds add up to no more
//! than `--memory`.

use larder_engine::memory::ShardMemory;
use larder_runtime::core_thread::CoreOptions;

use crate::limits::{
    BATCHES_KEPT_BYTES_MIN, CONNECTION_BYTES, CONNECTION_ITEMS_MIN, CONNECTION_MEMORY_MIN,
    CONNECTION_MEMORY_PART, CORE_MEMORY, PROCESS_MEMORY, TASK_MEMORY_PART,
};

/// The least that a core has for disk buffers, and the steps in which it gets more, in bytes.
const DISK_BUFFERS_MIN: usize = 1 << 20;

/// What a node's memory is divided for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeeds {
    /// Threads that serve; at least 1.
    pub cores: usize,
    /// Shards; at least 1.
    pub shards: u16,
    /// Connections of all cores.
    pub connections: usize,
    /// The longest item, in bytes.
    pub item_bytes: usize,
}

/// The bounds of one core's parts, in bytes, without its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreShare {
    /// What the ledger lets connections hold: input, output, requests and replies that wait, and
    /// batches between cores.
    pub connections: usize,
    /// What tasks are expected to need while they carry requests out.
    pub tasks: usize,
    /// Buffers that the kernel receives into.
    pub receive_buffers: usize,
    /// Recycled buffers for the disk.
    pub disk_buffers: usize,
    /// Stack, ring and queues.
    pub thread: usize,
}

/// The bounds of all parts of a node's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The program, and what belongs to no core.
    pub process: usize,
    /// What connections need that hold nothing.
    pub idle_connections: usize,
    /// How many cores there are, and what each has.
    pub cores: (usize, CoreShare),
    /// How many shards there are, and what each has.
    pub shards: (u16, ShardMemory),
}

impl MemoryPlan {
    /// Divides `memory` bytes; `None` if that is too little: see [`Self::least`].
    pub fn new(memory: usize, needs: MemoryNeeds) -> Option<Self> {
        let core = CoreShare::new(memory, needs);
        // Disk buffers come in steps, which could take more than what they came with.
        let least = CoreShare { disk_buffers: DISK_BUFFERS_MIN, ..core };
        Self::with_cores(memory, needs, core).or_else(|| Self::with_cores(memory, needs, least))
    }

    fn with_cores(memory: usize, needs: MemoryNeeds, core: CoreShare) -> Option<Self> {
        let process = PROCESS_MEMORY;
        let idle_connections = needs.connections.checked_mul(CONNECTION_BYTES)?;
        let others = core.total().checked_mul(needs.cores)?;
        let others = others.checked_add(process)?.checked_add(idle_connections)?;
        let share = memory.checked_sub(others)? / usize::from(needs.shards);
        let shard = ShardMemory::plan(share, needs.item_bytes)?;
        Some(Self {
            process,
            idle_connections,
            cores: (needs.cores, core),
            shards: (needs.shards, shard),
        })
    }

    /// A plan for tests of those who show it.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let needs = MemoryNeeds { cores: 2, shards: 2, connections: 10_000, item_bytes: 1 << 20 };
        Self::new(1 << 30, needs).expect("it is enough")
    }

    /// The least memory that suffices, in bytes, in whole MiB.
    pub fn least(needs: MemoryNeeds) -> usize {
        let sizes = (1usize..).map(|mebibytes| mebibytes << 20);
        let fits = |memory: &usize| Self::new(*memory, needs).is_some();
        sizes.take_while(|memory| *memory < usize::MAX >> 1).find(fits).unwrap_or(usize::MAX)
    }

    /// What the parts of all cores and shards come to, by name.
    pub fn parts(&self) -> Vec<(&'static str, usize)> {
        let (cores, core) = self.cores;
        let (shards, shard) = self.shards;
        let mut parts = vec![
            ("process", self.process + cores * core.thread),
            ("idle_connections", self.idle_connections),
            ("connections", cores * core.connections),
            ("tasks", cores * core.tasks),
            ("receive_buffers", cores * core.receive_buffers),
            ("disk_buffers", cores * core.disk_buffers),
        ];
        let of_shards = |(name, bytes)| (name, usize::from(shards) * bytes);
        parts.extend(shard.parts().map(of_shards));
        parts
    }
}

impl CoreShare {
    fn new(memory: usize, needs: MemoryNeeds) -> Self {
        let share = memory / needs.cores;
        let items = needs.item_bytes.saturating_mul(CONNECTION_ITEMS_MIN);
        // Batches that are kept for each other core are no client's to give back.
        let batches = (needs.cores - 1).saturating_mul(BATCHES_KEPT_BYTES_MIN);
        let least = items.max(CONNECTION_MEMORY_MIN).saturating_add(batches);
        let connections = (share / CONNECTION_MEMORY_PART).max(least);
        let defaults = CoreOptions::default();
        let receive_buffers = usize::from(defaults.receive_buffers) * defaults.receive_buffer_bytes;
        Self {
            connections,
            tasks: connections / TASK_MEMORY_PART,
            receive_buffers,
            disk_buffers: (share / 64 / DISK_BUFFERS_MIN * DISK_BUFFERS_MIN)
                .clamp(DISK_BUFFERS_MIN, defaults.registered_bytes),
            thread: CORE_MEMORY,
        }
    }

    fn total(&self) -> usize {
        let Self { connections, tasks, receive_buffers, disk_buffers, thread } = *self;
        [tasks, receive_buffers, disk_buffers, thread]
            .iter()
            .fold(connections, |sum, bytes| sum.saturating_add(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_engine::memory::ShardMemory;
    use proptest::prelude::*;

    const NEEDS: MemoryNeeds =
        MemoryNeeds { cores: 2, shards: 2, connections: 10_000, item_bytes: 1 << 20 };

    #[test]
    fn memory_is_divided_as_in_this_table() {
        // Connections and tasks of a core, the share of a shard; in MiB.
        for (memory, needs, expected) in [
            (32, MemoryNeeds { cores: 1, shards: 1, connections: 100, ..NEEDS }, (6, 1, 15)),
            (128, NEEDS, (6, 1, 45)),
            (512, NEEDS, (25, 6, 210)),
            (1024, NEEDS, (51, 12, 434)),
            (1024, MemoryNeeds { shards: 20, ..NEEDS }, (51, 12, 43)),
            (65_536, MemoryNeeds { cores: 64, shards: 64, ..NEEDS }, (102, 25, 890)),
        ] {
            let plan = MemoryPlan::new(memory << 20, needs).expect("enough");
            let (core, shard) = (plan.cores.1, plan.shards.1);
            let found = (core.connections >> 20, core.tasks >> 20, shard.total() >> 20);
            assert_eq!(found, expected, "{memory} MiB, {needs:?}");
        }
    }

    #[test]
    fn what_is_least_depends_on_every_option() {
        for (needs, expected) in [
            (MemoryNeeds { cores: 1, shards: 1, connections: 100, ..NEEDS }, 32),
            (MemoryNeeds { cores: 1, shards: 1, ..NEEDS }, 42),
            (NEEDS, 68),
            (MemoryNeeds { shards: 500, ..NEEDS }, 9024),
            (MemoryNeeds { item_bytes: 128 << 20, ..NEEDS }, 3388),
        ] {
            assert_eq!(MemoryPlan::least(needs) >> 20, expected, "{needs:?}");
        }
    }

    #[test]
    fn more_memory_is_never_too_little() {
        // Where each core would get one more step of disk buffers, the shards would get less.
        let needs = MemoryNeeds { cores: 65, shards: 135, item_bytes: 5_375_232, ..NEEDS };
        let least = MemoryPlan::least(needs);
        for more in 0..100 {
            assert!(MemoryPlan::new(least + (more << 20), needs).is_some(), "{more} MiB more");
        }
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_memory_at_most(
            memory in prop_oneof![0usize..1 << 30, 0usize..1 << 42],
            cores in 1usize..200,
            shards in 1u16..999,
            connections in 16usize..100_000,
            item_bytes in 1usize << 10..=128 << 20,
        ) {
            let needs = MemoryNeeds { cores, shards, connections, item_bytes };
            let Some(plan) = MemoryPlan::new(memory, needs) else {
                prop_assert!(memory < MemoryPlan::least(needs));
                return Ok(());
            };
            let sum: usize = plan.parts().iter().map(|(_, bytes)| bytes).sum();
            prop_assert!(sum <= memory, "{sum} of {memory}: {plan:?}");
            prop_assert!(memory - sum < usize::from(shards), "nothing is left over: {plan:?}");
            prop_assert!(plan.cores.1.connections >= item_bytes * CONNECTION_ITEMS_MIN);
            prop_assert!(plan.cores.1.tasks >= item_bytes, "a task for any item may start");
            let least = ShardMemory::share_min(item_bytes);
            prop_assert!(plan.shards.1.total() >= least.saturating_sub(1 << 20));
        }

        #[test]
        fn what_is_said_to_be_least_is_accepted_and_less_is_not(
            cores in 1usize..100,
            shards in 1u16..200,
            item_bytes in 1usize << 10..16 << 20,
            more in 0usize..1 << 36,
        ) {
            let needs = MemoryNeeds { cores, shards, connections: 10_000, item_bytes };
            let least = MemoryPlan::least(needs);
            prop_assert!(MemoryPlan::new(least - (1 << 20), needs).is_none());
            prop_assert!(MemoryPlan::new(least + more, needs).is_some());
        }
    }
}
