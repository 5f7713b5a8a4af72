//! The shard under simulated faults: the production code on a simulated disk and clock.
//!
//! Every run is decided by one seed. A failing test names its seed and the command that replays it.

mod canary;
mod damage;
mod exhaustive;
mod failures;
mod fullness;
mod harness;
mod items;
mod lives;
mod model;
mod smoke;
mod starts;
mod workload;
