//! The memcached port: requests to operations, outcomes to bytes. No I/O and no storage.

pub mod answer;
pub mod command;
pub mod statistics;
pub mod travel;

#[cfg(test)]
mod tests;
