//! The shard under simulated faults: the production code on a simulated disk and clock.
//!
//! Every run is decided by one seed. A failing test names its seed and the command that replays it:
//! LARDER_SIMULATION_SEED=n runs that seed alone, LARDER_SIMULATION_SEEDS=n as many as asked for,
//! LARDER_SIMULATION_FIRST=n begins at that seed.
//!
//! Start at `lives`, the model test; `model` says what must hold, and `oracle` what one operation
//! means. `canary` proves that the others
//! notice what they are there for.

mod abandoned;
mod amplification;
mod backpressure;
mod batches;
mod cache_division;
mod canary;
mod checks;
mod collection_races;
mod compression;
mod damage;
mod durable;
mod exhaustive;
mod expiries;
mod explained;
mod failed_collections;
mod failures;
mod flips;
mod fullness;
mod harness;
mod history;
mod items;
mod large;
mod large_lives;
mod leases;
mod let_go;
mod lifetimes;
mod listed;
mod lives;
mod log_repairs;
mod long_deletes;
mod lost_moves;
mod marks;
mod memory;
mod mix;
mod model;
mod namespaces;
mod once;
mod openings;
pub(crate) mod oracle;
mod page_reads;
mod races;
mod ranges;
mod reach;
mod repairs;
mod scans;
mod scrubbing;
mod slow_readers;
mod small_disk;
mod smoke;
mod starts;
mod workload;
