//! The node: configuration, launch, connections, and the wiring between protocol, engine and
//! runtime.
//!
//! ```text
//!   config -> launch -> one thread per core: service -> connection -> a protocol's codec
//!                   |                           |-> engine's shards (routing)
//!                   |                           '-> mesh: messages to the other cores
//!                   '-> admin: metrics over HTTP
//! ```
//!
//! Start at [`launch::Launcher`]; [`limits`] names every limit.
#![forbid(unsafe_code)]

pub mod admin;
pub mod ask;
mod canary;
pub mod codec;
pub mod config;
pub mod connection;
pub mod control;
pub mod counters;
pub mod events;
pub mod facts;
pub mod inspect;
pub mod latency;
pub mod launch;
pub mod ledger;
pub mod limits;
pub mod loads;
pub mod log;
pub mod memcached;
pub mod memcached_options;
pub mod memory_plan;
pub mod mesh;
pub mod namespaces;
pub mod native;
pub mod prefixes;
pub mod process;
pub mod request;
pub mod routing;
pub mod service;
