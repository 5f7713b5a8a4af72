//! A handle against nodes that are threads of the test.

#![allow(clippy::disallowed_methods, reason = "the nodes in these tests are threads")]

use std::time::Duration;

use crate::{Client, ClientBuilder, ItemRef};

mod bad_nodes;
mod cuts;
mod fake;
mod gathering;
mod large;
mod limits;
mod many_nodes;
mod multi;
mod namespaces;
mod reading;
mod retries;
mod tokens;

/// How long a call of these tests may take. What is to end sooner says so.
const PATIENCE: Duration = Duration::from_secs(20);

fn builder(address: &str) -> ClientBuilder {
    let (first, most) = (Duration::from_millis(1), Duration::from_millis(20));
    Client::builder().node(address).timeout(PATIENCE).reconnect(first, most).retry(first, most)
}

fn client(address: &str) -> Client {
    builder(address).build().expect("a client")
}

fn key(record: &str) -> ItemRef<'_> {
    ItemRef::of_record(record).expect("a key")
}

#[test]
fn the_quick_start_is_the_program_that_is_run() {
    let lines = |text: &str| -> String {
        text.lines().map(|line| line.trim_start_matches("//!").trim()).collect()
    };
    let program = include_str!("../../../examples/quick_start.rs");
    let (_, body) = program.split_once("ClientError> {\n").expect("a body");
    let (body, _) = body.split_once("    Ok(())").expect("its end");
    assert!(lines(include_str!("../../lib.rs")).contains(&lines(body)), "lib.rs");
    assert!(lines(include_str!("../../../../../README.md")).contains(&lines(body)), "README.md");
}

/// Numbers that follow from a seed.
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        super::budget::mix(state) % below
    }
}

/// The seed of a random test: another one each time, unless `LARDER_SEED` says it.
fn seed() -> u64 {
    let told = std::env::var("LARDER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = told.unwrap_or_else(|| super::budget::Dice::new().roll());
    println!("LARDER_SEED={seed}");
    seed
}
