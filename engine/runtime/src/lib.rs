//! The core's thread and everything it touches the world with.
//!
//! [`env`](mod@env) is the seam that the engine is written against; [`core_env`] and [`network`]
//! are what a node's service needs besides. `core_thread` and its neighbours are the production
//! instance (io_uring); `glommio_runtime` is a second one, to compare with; `simulation` is the
//! seeded instance for tests.

pub mod affinity;
pub mod buffer;
mod buffer_pool;
mod clock;
#[cfg(test)]
mod conformance;
mod connection;
pub mod core_env;
pub mod core_runtime;
pub mod core_thread;
pub mod cpu_time;
pub mod device_group;
pub mod device_model;
mod directories;
pub mod disk;
pub mod disk_budget;
mod disk_request;
mod driver;
pub mod env;
mod executor;
pub mod fair_queue;
#[cfg(test)]
mod fake_ring;
pub mod file_cache;
#[cfg(feature = "runtime-glommio")]
pub mod glommio_runtime;
mod idle;
pub mod io_queue;
pub mod line_limit;
pub mod mailbox;
pub mod memory;
pub mod network;
mod network_events;
mod operations;
mod outgoing;
pub mod output_queue;
pub mod park;
pub mod probe;
pub mod random;
mod receive_buffers;
pub mod ring;
pub mod ring_env;
mod ring_file;
pub mod ring_network;
mod run_queue;
pub mod simulation;
mod sockets;
pub mod stalls;
mod sync;
mod task_shares;
mod timers;
pub mod urgency;
pub mod uring;
pub mod wake;
