//! The load generator and the comparison benchmarks.
#![forbid(unsafe_code)]
