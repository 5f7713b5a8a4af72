//! Where the process's memory is, by part.
//!
//! Each part is counted by its owner from what it has allocated. Caches and the program's files lie
//! outside of the allocator's heap. What of the heap nobody has counted is a part too, so that the
//! sum is what is resident but for the stacks.

use crate::counters::CoreReport;
use crate::process::Usage;

/// The parts' names, and their bytes.
pub(super) fn parts(reports: &[CoreReport], usage: &Usage) -> Vec<(&'static str, u64)> {
    let mut cores = CoreParts::default();
    for report in reports {
        cores.add(report);
    }
    let heap_parts = cores.of_heap();
    let counted: u64 = heap_parts.iter().map(|(_, bytes)| bytes).sum();
    let heap = usage.heap.unwrap_or_default();
    let mut parts = heap_parts.to_vec();
    parts.extend([
        ("value_cache", cores.value_cache),
        ("block_cache", cores.block_cache),
        ("program", usage.file_bytes),
        ("heap_other", (heap.in_use as u64).saturating_sub(counted)),
        ("heap_free", heap.free as u64),
    ]);
    parts
}

/// What the cores have counted.
#[derive(Default)]
struct CoreParts {
    input: u64,
    output: u64,
    waiting: u64,
    mailboxes: u64,
    receive_buffers: u64,
    disk_buffers: u64,
    memtables: u64,
    tables: u64,
    dead_records: u64,
    listed_records: u64,
    recent: u64,
    value_cache: u64,
    block_cache: u64,
}

impl CoreParts {
    fn add(&mut self, report: &CoreReport) {
        let memory = &report.memory;
        self.input += memory.input as u64;
        self.output += memory.output as u64;
        self.waiting += memory.waiting as u64;
        self.mailboxes += memory.mailboxes as u64;
        self.receive_buffers += memory.receive_buffers as u64;
        self.disk_buffers += memory.disk_buffers as u64;
        for shard in &report.shards {
            let index = &shard.statistics.index;
            self.memtables += index.memtable_bytes;
            self.tables += index.table_memory_bytes;
            self.dead_records += shard.statistics.memory.dead_records;
            self.listed_records += shard.statistics.memory.listed_records;
            self.recent += index.recent_memory_bytes;
            self.value_cache += shard.statistics.items.resident_bytes as u64;
            self.block_cache += index.blocks.resident_bytes as u64;
        }
    }

    /// The parts that lie in the allocator's heap.
    fn of_heap(&self) -> [(&'static str, u64); 11] {
        [
            ("input", self.input),
            ("output", self.output),
            ("waiting", self.waiting),
            ("mailboxes", self.mailboxes),
            ("receive_buffers", self.receive_buffers),
            ("disk_buffers", self.disk_buffers),
            ("memtables", self.memtables),
            ("tables", self.tables),
            ("dead_records", self.dead_records),
            ("listed_records", self.listed_records),
            ("recent", self.recent),
        ]
    }
}

#[cfg(test)]
mod tests {
    use larder_engine::shard::Statistics;
    use larder_runtime::memory::Heap;

    use super::*;
    use crate::counters::{CoreMemory, ShardReport};

    fn report(core: usize) -> CoreReport {
        let mut statistics = Statistics::default();
        statistics.items.resident_bytes = 1000;
        statistics.index.memtable_bytes = 30;
        statistics.index.recent_memory_bytes = 4;
        CoreReport {
            core,
            connections: 0,
            watchers: 0,
            counts_prefixes: false,
            waiting: 0,
            memory: CoreMemory { input: 5, disk_buffers: 7, ..CoreMemory::default() },
            buffer_shortages: 0,
            counters: Default::default(),
            shards: vec![ShardReport { shard: core as u16, statistics, stopped: None }],
            disk: Default::default(),
            files: Default::default(),
            turns: Default::default(),
            time: Default::default(),
        }
    }

    #[test]
    fn the_sum_is_heap_caches_and_program() {
        let heap = Some(Heap { in_use: 500, free: 60 });
        let usage = Usage { file_bytes: 11, heap, ..Usage::default() };
        let parts = parts(&[report(0), report(1)], &usage);
        let part = |name| parts.iter().find(|(part, _)| *part == name).map(|(_, bytes)| *bytes);
        assert_eq!((part("input"), part("disk_buffers")), (Some(10), Some(14)));
        assert_eq!((part("memtables"), part("value_cache")), (Some(60), Some(2000)));
        assert_eq!((part("recent"), part("heap_other")), (Some(8), Some(500 - 10 - 14 - 60 - 8)));
        let sum: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(sum, 500 + 60 + 2000 + 11);
    }

    #[test]
    fn a_heap_that_says_nothing_takes_nothing_away() {
        let parts = parts(&[report(0)], &Usage::default());
        let sum: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(sum, 5 + 7 + 30 + 4 + 1000);
    }
}
