//! The core's thread and everything it touches the world with.
//!
//! [`env`](mod@env) is the seam that the engine is written against. `core_thread` and its neighbours are the
//! production instance (io_uring); `simulation` is the seeded instance for tests.

pub mod buffer;
pub mod env;
pub mod fair_queue;
pub mod io_queue;
pub mod mailbox;
pub mod park;
pub mod simulation;

mod sync;
