//! Bytes to commands and answers to bytes: sans-I/O.
#![forbid(unsafe_code)]

pub mod memcached;
pub mod native;
pub mod sink;
