//! Seeds of random tests: fresh or given, and always printed.

use std::time::{SystemTime, UNIX_EPOCH};

const VARIABLE: &str = "LARDER_SEED";

/// The seed in `LARDER_SEED`, or else `usual`; printed with the name of its test.
pub fn given_or(test: &str, usual: u64) -> u64 {
    let seed = match std::env::var(VARIABLE) {
        Ok(text) => text.parse().expect("LARDER_SEED is a number"),
        Err(_) => usual,
    };
    println!("{test}: run again with {VARIABLE}={seed}");
    seed
}

/// The seed in `LARDER_SEED`, or else one that differs from run to run.
pub fn given_or_fresh(test: &str) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    given_or(test, now.as_micros() as u64 ^ (u64::from(std::process::id()) << 40))
}
