//! Which seeds a random test runs, and what is said of the one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs `test`, which is `name` of `package`, for the seed in LARDER_SIMULATION_SEED, or for as
/// many seeds as LARDER_SIMULATION_SEEDS says, `count` if it says nothing, from
/// LARDER_SIMULATION_FIRST on, or from `first`.
///
/// # Panics
///
/// As `test` does, after the seed and the command that runs it again are printed.
pub fn for_each_seed((package, name): (&str, &str), first: u64, count: u64, test: impl Fn(u64)) {
    let number = |variable: &str| {
        let text = std::env::var(variable).ok()?;
        Some(text.parse::<u64>().expect("a number of seeds or a seed"))
    };
    let (first, count) = match number("LARDER_SIMULATION_SEED") {
        Some(seed) => (seed, 1),
        None => (
            number("LARDER_SIMULATION_FIRST").unwrap_or(first),
            number("LARDER_SIMULATION_SEEDS").unwrap_or(count),
        ),
    };
    eprintln!("{name}: {count} seeds from {first} on");
    for seed in first..first + count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!(
                "seed {seed} failed; replay it with\n  LARDER_SIMULATION_SEED={seed} \
                 cargo test -p {package} --lib {name} -- --nocapture"
            );
            resume_unwind(panic);
        }
    }
}
