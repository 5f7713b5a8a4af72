//! Tests of the whole system, by subject. Those that need a server start the real one.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests stand outside the node: they own files, threads, time and processes"
)]

mod bad_input;
mod client_library;
mod clients;
mod crash;
mod differential;
mod differential_admin;
mod differential_binary;
mod full_disk;
mod hostile;
mod lifecycle;
mod linearizable;
mod memory;
mod metrics;
mod native;
mod space;
mod tidy;
mod vectors;
