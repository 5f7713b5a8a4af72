//! A second runtime: a core on glommio 0.9.0, to compare the ring with (feature `runtime-glommio`).
//!
//! It is an instance of the same seams, and the code above them is the same. What glommio 0.9.0
//! does that the node cannot live with is kept away from it here, each guard with its reason:
//!
//! | glommio 0.9.0 | the guard |
//! |---|---|
//! | a task's wakers are counted in 16 bits; operations keep a waker per poll | `wakers` |
//! | wake-ups by other threads have been lost | `wakers`: lists of ours, a pair of sockets |
//! | tasks' memory comes back late; dropping tasks has panicked | `tasks`: futures in our slots |
//! | a panic takes a queue out of use | `tasks`, `core`: panics pass around the executor |
//! | its end does not wait for the kernel | `shared`: operations are counted, and carried out |
//! | unaligned reads return bytes that were not read; buffers are not initialised | `file` |
//! | polling for completions hangs with large reads | `file`: kept off for every device |
//! | an open panics if the name goes meanwhile | `shared`: names are changed one at a time |
//! | a directory's sync is an `fdatasync` | `env`: `fsync` on its blocking thread |
//! | no queue for the disk | `shared`: a gate with shares and a cap |
//! | tasks may keep the core for 100 ms | `preemption`: for 200 us |
//! | a core has slept over tasks that could run | `preemption`: its timer never ends |
//! | RLIMIT_MEMLOCK is met with a panic or a silent loss | `core`: checked and said |
//! | a listener becomes non-blocking for a moment | `network`: none that cores share |

mod connection;
mod core;
mod driver;
mod env;
mod file;
mod listener;
mod network;
mod network_events;
mod preemption;
mod shared;
mod tasks;
mod wakers;

#[cfg(test)]
mod tests;

pub use self::core::GlommioCore;
pub use self::env::GlommioEnv;
pub use self::file::GlommioFile;
pub use self::network::GlommioNetwork;
